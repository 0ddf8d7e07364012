"""Who is live where: what all PoPs have told IRS, and where two of them say the same channel.

    joined ──▶ asked ── report 1 .. more ──▶ report n, whole ──▶ in force ── reports ──▶ in force
                 ▲                                                   │
                 └── a report is missing, or the count differs ──────┘

Until a PoP has told all, what it told before is in force: an IRS that hears it anew, or a PoP that
comes back, makes no channel vanish. What a PoP said holds for KEPT_S after its session has ended,
and is said to be old. All is soft state: after a restart it comes back with the PoPs.

What may be kept is bounded in rows and in bytes. A PoP that goes beyond is left out whole, which is
said, and asked again in FULL_RETRY_S: who is known is known with all that he has.
"""

import math
import sys
from collections.abc import Iterable, Iterator

from msgspec import Struct

from edged.media.live import CHANNELS_MAX, LiveAsk, LiveReport, LiveRow
from edged.policy.live_teller import CONFIRM_S

KEPT_S = 30.0  # A PoP that is started anew is back by then.
ASK_S_MIN = 1.0  # Between asks of one PoP: one that counts wrongly must not make all its traffic.
SILENT_S_MAX = 3 * CONFIRM_S  # Without a report: it is asked again.
ROWS_TOTAL_MAX = 400_000  # Four times the streams of the network we are modelled on.
# These with channels of 60 characters, which take 121 MB; they could have 256 of four bytes each.
BYTES_TOTAL_MAX = 192 * 2**20
SHORT_BYTES = 65  # Of an origin's or a protocol's name of up to 16 characters.
ROW_BYTES = 370  # With numbers, lists and two such names, as if no other row shared them.
FULL_RETRY_S = 30.0  # Until a PoP that did not fit is asked again.
NAMES_MAX = 1024  # Of origins and protocols, each kept once.


class LiveSeen(Struct, frozen=True, kw_only=True):
    """A channel that is live at a PoP, for people."""

    channel: str
    pop: str  # The shard: "ams1/0".
    origin: str
    class_: str
    protocol: str
    publication: str  # Of this run, in hexadecimal.
    home_epoch: int
    since: float  # Unix, by the PoP's clock.
    waits: bool  # For its publisher, who was lost and may come back.
    unheard_s: float = 0.0  # So long the PoP has no session: it may be live no more.
    also_at: list[str] = []  # Other PoPs that publish the channel.
    newest: bool = True  # Of these; the older runs are taken nowhere.


class LiveConflict(Struct, frozen=True, kw_only=True):
    """A channel that is published at several PoPs that are here."""

    channel: str
    pops: list[str]
    newest: str  # The one whose run holds.
    for_s: float


class _Pop:
    """What one PoP shard has told."""

    __slots__ = (
        *("ask", "asked_at", "ask_at", "coming", "full", "heard_at", "left_at", "number"),
        *("omitted", "rows", "whole"),
    )

    def __init__(self) -> None:
        self.rows: dict[str, LiveRow] = {}  # In force.
        self.coming: dict[str, LiveRow] | None = None  # Told since the last ask, not all of it yet.
        self.ask = self.number = 0
        self.asked_at = -math.inf
        self.ask_at = math.inf  # When it is to be asked again.
        self.heard_at = -math.inf
        self.left_at: float | None = None  # When its session ended.
        self.whole = False  # All that it had when it was asked is in force.
        self.omitted = 0
        self.full = ""  # Why there was no room for it.

    @property
    def here(self) -> bool:
        return self.left_at is None


class LiveRegistry:
    """Of one IRS. `now` is monotonic."""

    def __init__(self, rows_max: int = ROWS_TOTAL_MAX, bytes_max: int = BYTES_TOTAL_MAX) -> None:
        self._pops: dict[str, _Pop] = {}
        self._rows_max, self._bytes_max = rows_max, bytes_max
        self._total = self._bytes = 0  # Those that are coming are counted, too.
        self._where: dict[str, str | tuple[str, ...]] = {}  # Channel -> PoPs.
        self._several: dict[str, float] = {}  # Channels at several, since when.
        self._names: dict[str, str] = {}
        self.asks = self.reports = 0

    # Inputs.

    def joined(self, key: str, now: float) -> LiveAsk:
        """A session begins of a PoP shard that tells; one before it is over."""
        pop = self._pops.setdefault(key, _Pop())
        pop.left_at = None
        return self._ask(pop, now)

    def left(self, key: str, now: float) -> None:
        """Its session has ended."""
        if (pop := self._pops.get(key)) is not None and pop.here:
            pop.left_at, pop.ask_at = now, math.inf
            self._drop_coming(pop)

    def forget(self, key: str) -> None:
        """A PoP is here that does not tell: what it told before, it was another version."""
        if key in self._pops:
            self._drop(key)

    def reported(self, key: str, report: LiveReport, now: float) -> LiveAsk | None:
        """Take what a PoP tells; the answer is to be sent."""
        pop = self._pops.get(key)
        if pop is None or not pop.here or report.ask != pop.ask or report.number <= pop.number:
            return None  # Of an ask before, or told already.
        self.reports += 1
        if report.number != pop.number + 1:
            return self._ask_again(pop, now)
        if report.number == 1:
            pop.coming = {}
        pop.number, pop.heard_at = report.number, now
        rows = pop.rows if pop.coming is None else pop.coming
        self._apply(key, pop, rows, report, now)
        if pop.full:
            return None
        if len(rows) != report.count:
            return self._ask_again(pop, now)
        if pop.coming is not None and not report.more:
            self._put_in_force(key, pop, pop.coming, now)
        pop.omitted = report.omitted
        return None

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to do."""
        return min(map(_due_at, self._pops.values()), default=math.inf)

    def handle_timeout(self, now: float) -> list[tuple[str, LiveAsk]]:
        """Forget PoPs that are gone; returns which of the others are to be asked."""
        asks = []
        for key, pop in [each for each in self._pops.items() if _due_at(each[1]) <= now]:
            if pop.here:
                asks.append((key, self._ask(pop, now)))
            else:
                self._drop(key)
        return asks

    # What people ask.

    def __len__(self) -> int:
        """How many channels are live somewhere."""
        return len(self._where)

    @property
    def whole(self) -> bool:
        """Whether all PoPs that are here have told all that they have."""
        return all(pop.whole for pop in self._pops.values() if pop.here)

    def counts(self) -> dict[str, int]:
        """How many channels each PoP shard has."""
        return {key: len(pop.rows) for key, pop in sorted(self._pops.items())}

    def unlisted(self) -> dict[str, str]:
        """PoP shards of which not all is known, and why."""
        return {key: why for key, pop in sorted(self._pops.items()) if (why := _why_partial(pop))}

    def why_full(self, key: str) -> str:
        """Why there is no room for the channels of a PoP shard; "": there is."""
        pop = self._pops.get(key)
        return "" if pop is None else pop.full

    def full(self) -> dict[str, str]:
        """PoP shards for which there is no room, and why."""
        return {key: pop.full for key, pop in sorted(self._pops.items()) if pop.full}

    def rows(self, key: str) -> dict[str, LiveRow]:
        """What is in force of a PoP shard, by channel."""
        pop = self._pops.get(key)
        return {} if pop is None else dict(pop.rows)

    def at(self, channel: str, now: float) -> list[LiveSeen]:
        """Where a channel is live; the run that holds first."""
        seen = [self._see(key, self._pops[key].rows[channel], now) for key in self._keys(channel)]
        return sorted(seen, key=lambda each: not each.newest)

    def find(
        self, now: float, *, text: str = "", pop: str = "", origin: str = "", most: int
    ) -> tuple[list[LiveSeen], int]:
        """The first of those with this text in their name, this PoP or shard, and this origin.

        Returns them by PoP, and how many there are in all.
        """
        found: list[LiveSeen] = []
        matching = 0
        for key, known in sorted(self._pops.items()):
            if pop not in ("", key, key.partition("/")[0]):
                continue
            if not text and not origin:
                matching += len(known.rows)
                rows: Iterable[LiveRow] = known.rows.values()
            else:
                rows = [
                    row
                    for row in known.rows.values()
                    if text in row.channel and origin in ("", row.origin)
                ]
                matching += len(rows)
            if (room := most - len(found)) > 0:
                first = sorted(rows, key=lambda row: row.channel)[:room]
                found += [self._see(key, row, now) for row in first]
        return found, matching

    def conflicts(self, now: float) -> Iterator[LiveConflict]:
        """Channels that several PoPs publish which are here, the longest first."""
        for channel, since in list(self._several.items()):
            pops = sorted(key for key in self._keys(channel) if self._pops[key].here)
            if len(pops) > 1:
                yield LiveConflict(
                    channel=channel,
                    pops=pops,
                    newest=self._newest(channel, pops),
                    for_s=round(max(0.0, now - since), 1),
                )

    # What follows.

    def _ask(self, pop: _Pop, now: float) -> LiveAsk:
        self._drop_coming(pop)
        self.asks += 1
        pop.ask, pop.number = pop.ask + 1, 0
        pop.asked_at = pop.heard_at = now
        pop.ask_at, pop.whole, pop.full = math.inf, False, ""
        return LiveAsk(number=pop.ask)

    def _ask_again(self, pop: _Pop, now: float) -> LiveAsk | None:
        """At once, or when it is time; what still comes of the ask before is not taken."""
        if now >= pop.asked_at + ASK_S_MIN:
            return self._ask(pop, now)
        self._stop(pop, pop.asked_at + ASK_S_MIN)
        return None

    def _stop(self, pop: _Pop, until: float) -> None:
        self._drop_coming(pop)
        pop.ask += 1
        pop.whole, pop.ask_at = False, until

    def _apply(
        self, key: str, pop: _Pop, rows: dict[str, LiveRow], report: LiveReport, now: float
    ) -> None:
        in_force = rows is pop.rows
        for channel in report.removed:
            if (row := rows.pop(channel, None)) is not None:
                self._count(row, -1)
                if in_force:
                    self._unlist(channel, key)
        for told in report.changed:
            row = self._intern(told)
            if (before := rows.get(row.channel)) is not None:
                self._count(before, -1)
            elif in_force:
                self._list(row.channel, key, now)
            self._count(row, 1)
            rows[row.channel] = row
        if why := self._why_full(rows):
            self._stop(pop, now + FULL_RETRY_S)
            self._replace(key, pop, {}, now)
            pop.full = why

    def _why_full(self, rows: dict[str, LiveRow]) -> str:
        """Why a PoP whose rows these are has no room; "" while all is well."""
        if len(rows) > CHANNELS_MAX:
            return f"more than {CHANNELS_MAX} of a pop"
        if self._total > self._rows_max:
            return f"more than {self._rows_max} of all pops"
        if self._bytes > self._bytes_max:
            return f"more than {self._bytes_max // 2**20} MiB with those of all pops"
        return ""

    def _count(self, row: LiveRow, sign: int) -> None:
        self._total += sign
        self._bytes += sign * _bytes_of(row)

    def _put_in_force(self, key: str, pop: _Pop, rows: dict[str, LiveRow], now: float) -> None:
        pop.coming = None
        self._replace(key, pop, rows, now)
        pop.whole = True

    def _replace(self, key: str, pop: _Pop, rows: dict[str, LiveRow], now: float) -> None:
        before, pop.rows = pop.rows, rows
        for channel, row in before.items():
            self._count(row, -1)
            if channel not in rows:
                self._unlist(channel, key)
        for channel in rows:
            if channel not in before:
                self._list(channel, key, now)

    def _drop_coming(self, pop: _Pop) -> None:
        if pop.coming is not None:
            for row in pop.coming.values():
                self._count(row, -1)
            pop.coming = None

    def _drop(self, key: str) -> None:
        pop = self._pops[key]
        self._drop_coming(pop)
        self._replace(key, pop, {}, 0.0)
        del self._pops[key]

    def _list(self, channel: str, key: str, now: float) -> None:
        known = self._where.get(channel)
        if known is None:
            self._where[channel] = key
            return
        self._where[channel] = (*((known,) if isinstance(known, str) else known), key)
        self._several.setdefault(channel, now)

    def _unlist(self, channel: str, key: str) -> None:
        left = tuple(other for other in self._keys(channel) if other != key)
        if len(left) > 1:
            self._where[channel] = left
            return
        self._several.pop(channel, None)
        if left:
            self._where[channel] = left[0]
        else:
            del self._where[channel]

    def _keys(self, channel: str) -> tuple[str, ...]:
        known = self._where.get(channel, ())
        return (known,) if isinstance(known, str) else known

    def _newest(self, channel: str, keys: Iterable[str]) -> str:
        return max(keys, key=lambda key: (self._pops[key].rows[channel].run, key))

    def _see(self, key: str, row: LiveRow, now: float) -> LiveSeen:
        keys, left_at = self._keys(row.channel), self._pops[key].left_at
        return LiveSeen(
            channel=row.channel,
            pop=key,
            origin=row.origin,
            class_=row.class_,
            protocol=row.protocol,
            publication=f"{row.publication:x}",
            home_epoch=row.home_epoch,
            since=row.since,
            waits=row.waits,
            unheard_s=0.0 if left_at is None else round(max(0.0, now - left_at), 1),
            also_at=sorted(other for other in keys if other != key),
            newest=self._newest(row.channel, keys) == key,
        )

    def _intern(self, row: LiveRow) -> LiveRow:
        """The same row; names that many rows share are held once."""
        names = self._names
        if len(names) > NAMES_MAX:
            names.clear()
        return LiveRow(
            row.channel,
            row.publication,
            row.home_epoch,
            names.setdefault(row.origin, row.origin),
            row.class_,
            names.setdefault(row.protocol, row.protocol),
            row.since,
            row.waits,
        )


def _due_at(pop: _Pop) -> float:
    if pop.left_at is not None:
        return pop.left_at + KEPT_S
    return min(pop.ask_at, pop.heard_at + SILENT_S_MAX)


def _bytes_of(row: LiveRow) -> int:
    names = sys.getsizeof(row.origin), sys.getsizeof(row.protocol)
    more = sum(max(0, size - SHORT_BYTES) for size in names)
    return ROW_BYTES + sys.getsizeof(row.channel) + more


def _why_partial(pop: _Pop) -> str:
    if pop.full:
        return f"there is no room for its channels: {pop.full}"
    if pop.here and not pop.whole:
        return "it has not told all yet"
    return f"{pop.omitted} channels beyond what a PoP tells" if pop.omitted else ""
