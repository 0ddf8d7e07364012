"""What happens in a network between two samples, gathered: the same of many streams is one event.

An event says how often and of which of the first streams; what exceeds EVENTS_MAX is counted.
"""

from typing import Final

from msgspec import Struct, structs

from edged.policy.network_sample import CHANNELS_MAX, TEXT_CHARS_MAX, NetworkEvent

EVENTS_MAX: Final = 256  # Of one sample: a list that nobody reads to its end.
WANTED_MAX: Final = 2000  # Moves that were asked for, whose reason is still known.

Wanted = tuple[int, str, str, str]  # Of which migration, at which PoP, from, to.


class _Gathered(Struct):
    event: NetworkEvent
    count: int
    channels: list[str]


class EventGatherer:
    """Takes what happens, and gives it once."""

    def __init__(self) -> None:
        self._gathered: dict[tuple[str, ...], _Gathered] = {}
        self._beyond = 0
        self._beyond_at = 0.0
        self._wanted: dict[Wanted, str] = {}  # Why each was asked for, oldest first.

    def add(self, event: NetworkEvent) -> None:
        """Count an event; its `channels` name streams."""
        key = (
            *(event.kind, event.pop, event.origin, event.to, event.link),
            *(event.before, event.after, event.why),
        )
        known = self._gathered.get(key)
        if known is not None and event.kind not in COUNTED:
            return  # It was said.
        if known is None:
            if len(self._gathered) >= EVENTS_MAX:
                self._beyond += event.count if event.kind in COUNTED else 1
                self._beyond_at = event.at
                return
            clipped = structs.replace(event, why=event.why[:TEXT_CHARS_MAX], channels=())
            self._gathered[key] = known = _Gathered(clipped, 0, [])
        known.count += event.count
        room = CHANNELS_MAX - len(known.channels)
        known.channels += [each for each in event.channels if each not in known.channels][:room]

    def want(self, wanted: Wanted, why: str) -> None:
        """Note why a PoP is asked to move streams: it tells of each without it."""
        self._wanted.pop(wanted, None)
        while len(self._wanted) >= WANTED_MAX:
            del self._wanted[next(iter(self._wanted))]
        self._wanted[wanted] = why

    def why_wanted(self, wanted: Wanted) -> str:
        """The reason of a move that was asked for; "" when it is not known any more."""
        return self._wanted.get(wanted, "")

    def take(self) -> list[NetworkEvent]:
        """All since the last call, in the order in which they began."""
        events = [
            structs.replace(each.event, count=each.count, channels=tuple(each.channels))
            for each in self._gathered.values()
        ]
        if self._beyond:
            events.append(NetworkEvent(at=self._beyond_at, kind="more", count=self._beyond))
        self._gathered, self._beyond = {}, 0
        return events


COUNTED: Final = frozenset({"moved", "kept", "wanted", "shed"})
