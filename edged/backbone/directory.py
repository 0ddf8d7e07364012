"""Who is live where: each origin's list, and the PoP's union of them. Pure state, no I/O."""

from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct

from edged.policy.descriptions import (
    CATEGORY_CHARS_MAX,
    LABEL_CHARS_MAX,
    LABELS_MAX,
    TITLE_CHARS_MAX,
    cut,
)
from edged.wire.backbone.messages import DirectoryDelta, DirectoryEntry, encoded_bytes

MESSAGE_BYTES_TARGET = 128 * 1024  # A delta is cut there: far below MESSAGE_BYTES_MAX.
TAGS_MAX = 32
TAG_CHARS_MAX = 64
ENTRIES_MAX = 50_000  # Of one origin at a PoP; beyond it the origin is broken.


class OriginDirectory:
    """An origin's own list, with a version for each batch of changes."""

    def __init__(self, origin: str, incarnation: int) -> None:
        self.version = 1  # 0 stands for "nothing yet" in deltas.
        self._origin, self._incarnation = origin, incarnation
        self._entries: dict[str, DirectoryEntry] = {}
        self._changed: set[str] = set()

    def set(self, entry: DirectoryEntry) -> None:
        """Add or change a channel's entry."""
        channel = entry.stream_id.channel
        entry = msgspec.structs.replace(
            entry,
            title=cut(entry.title, TITLE_CHARS_MAX),
            tags=tuple(tag[:TAG_CHARS_MAX] for tag in entry.tags[:TAGS_MAX]),
            category=cut(entry.category, CATEGORY_CHARS_MAX),
            labels=tuple(cut(label, LABEL_CHARS_MAX) for label in entry.labels[:LABELS_MAX]),
        )
        if self._entries.get(channel) != entry:
            self._entries[channel] = entry
            self._changed.add(channel)

    def get(self, channel: str) -> DirectoryEntry | None:
        """The entry of a channel."""
        return self._entries.get(channel)

    def remove(self, channel: str) -> None:
        """Take a channel off."""
        if self._entries.pop(channel, None) is not None:
            self._changed.add(channel)

    def take_deltas(self) -> list[DirectoryDelta]:
        """What changed since the last call, for those who had the list then."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, set()
        before, self.version = self.version, self.version + 1
        news = [self._entries.get(channel, channel) for channel in changed]
        return list(self._deltas(self.version, before, news))

    def whole(self) -> Iterator[DirectoryDelta]:
        """The list as of now, cut when it is asked for; what changes meanwhile is for later deltas.

        Call `take_deltas` first, so that nothing is told twice.
        """
        return self._deltas(self.version, 0, [*self._entries.values()])

    def _deltas(
        self, version: int, from_version: int, news: list[DirectoryEntry | str]
    ) -> Iterator[DirectoryDelta]:
        """Cut entries that came or changed, and channels that went, into messages."""
        batch: list[DirectoryEntry] = []
        gone: list[str] = []
        size = 0
        for item in news:
            if size >= MESSAGE_BYTES_TARGET:
                yield self._delta(version, from_version, batch, gone)
                from_version, batch, gone, size = version, [], [], 0
            if isinstance(item, DirectoryEntry):
                batch.append(item)
                size += encoded_bytes(item)
            else:
                gone.append(item)
                size += 4 * len(item) + 5
        yield self._delta(version, from_version, batch, gone)

    def _delta(
        self, version: int, from_version: int, changed: list[DirectoryEntry], removed: list[str]
    ) -> DirectoryDelta:
        return DirectoryDelta(
            origin=self._origin,
            incarnation=self._incarnation,
            version=version,
            from_version=from_version,
            changed=changed,
            removed=removed,
        )


class DirectoryRecord(Struct, frozen=True):
    """A live stream and the origin that has it."""

    origin: str
    entry: DirectoryEntry


class _Origin:
    def __init__(self) -> None:
        self.incarnation = -1
        self.version = 0
        self.entries: dict[str, DirectoryEntry] = {}


class Directory:
    """A PoP's view: the newest run of each channel, from all origins' lists.

    An origin's entries stay when its session is lost, until it or `forget` says otherwise: viewers
    go on as long as parts come.
    """

    def __init__(self) -> None:
        self._origins: dict[str, _Origin] = {}
        self._watchers: list[Callable[[str], None]] = []

    def apply(self, delta: DirectoryDelta) -> bool:
        """Take a delta; False if it does not follow what is here, and the whole list is wanted."""
        origin = self._origins.setdefault(delta.origin, _Origin())
        touched = {entry.stream_id.channel for entry in delta.changed} | set(delta.removed)
        if delta.from_version == 0:
            touched |= set(origin.entries)
            origin.entries = {}
            origin.incarnation = delta.incarnation
        elif (origin.incarnation, origin.version) != (delta.incarnation, delta.from_version):
            return False
        origin.version = delta.version
        for channel in delta.removed:
            origin.entries.pop(channel, None)
        for entry in delta.changed:
            if len(origin.entries) < ENTRIES_MAX or entry.stream_id.channel in origin.entries:
                origin.entries[entry.stream_id.channel] = entry
        self._notify(touched)
        return True

    def forget(self, origin: str) -> None:
        """Drop an origin's entries: it is convicted, or gone from the routing table."""
        found = self._origins.pop(origin, None)
        if found is not None:
            self._notify(set(found.entries))

    def has_heard(self, origin: str) -> bool:
        """Whether an origin has told who is live there, were it nobody."""
        return origin in self._origins

    def lookup(self, channel: str) -> DirectoryRecord | None:
        """Where the newest run of a channel is."""
        best: DirectoryRecord | None = None
        for name, origin in self._origins.items():
            entry = origin.entries.get(channel)
            if entry is not None and (best is None or entry.stream_id > best.entry.stream_id):
                best = DirectoryRecord(name, entry)
        return best

    def watch(self, changed: Callable[[str], None]) -> None:
        """Call back with each channel whose entry came, changed or went."""
        self._watchers.append(changed)

    def __iter__(self) -> Iterator[DirectoryRecord]:
        found: dict[str, DirectoryRecord] = {}
        for name, origin in self._origins.items():
            for channel, entry in origin.entries.items():
                known = found.get(channel)
                if known is None or entry.stream_id > known.entry.stream_id:
                    found[channel] = DirectoryRecord(name, entry)
        for channel in sorted(found):
            yield found[channel]

    def _notify(self, channels: set[str]) -> None:
        for channel in sorted(channels):
            for watcher in self._watchers:
                watcher(channel)
