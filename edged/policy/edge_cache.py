"""The edge's cache: what of all streams stays in memory, what goes to disk, and what goes for good.

All segments that an edge holds are in one order, of which the first is wanted least (`Rank`), and
in each rank the one that is furthest behind its stream's live edge. Out of memory and off the disk
they go in that order; so of a rendition always the oldest, and its playlist has no holes. What a
playlist of the least length lists (RFC 8216bis §6.2.2) is never dropped, so memory is exceeded when
that alone is too much: then `is_full`, and the edge is to take on no more channels.
"""

import enum
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from edged.policy.rendition_window import RenditionWindow
from edged.policy.window import StreamWindow
from edged.policy.window_segment import WindowSegment

# What a segment costs beside its media: names, text and times, 1,014 bytes as measured.
SEGMENT_BYTES = 1024
# Of what memory may hold: from here on it is brought to disk. The rest is for a disk that stands
# still: when that is full, what is older than it, on disk, has to go for memory to be let go of.
SPILL_NUM, SPILL_DEN = 3, 4
SPILL_DISK_DEN = 8  # No more of the disk than that is made free at once.
ROOM_DEN = 32  # So much more goes than has to, as looking for it costs what it costs.


class Rank(enum.IntEnum):
    """Why a segment is held; the first goes first."""

    SPARE = 0  # It left its playlist for longer than players may ask for it: for clips alone.
    UNWATCHED = 1  # Nobody watches the channel now.
    KEPT = 2  # Players that had it listed may ask for it (RFC 8216bis §6.2.2).
    LISTED = 3  # One can seek to it.
    FRESH = 4  # Its parts may be asked for, too; it is not brought to disk.


class CacheLimits(Struct, frozen=True, kw_only=True):
    """How much an edge, or a stream, may hold."""

    memory_bytes_max: int
    disk_bytes_max: int = 0  # 0: there is no disk.


class CacheUse(Struct, frozen=True, kw_only=True):
    """How much is held now."""

    memory_bytes: int  # What is leaving included.
    leaving_bytes: int = 0  # On its way to the disk.
    stored_bytes: int = 0  # On disk.


class Shelf(Struct, frozen=True, eq=False):
    """One rendition of a stream."""

    stream: StreamWindow
    window: RenditionWindow
    watched: bool


class Choice(Struct, frozen=True, eq=False):
    """A segment that is to go."""

    shelf: Shelf
    segment: WindowSegment
    rank: Rank


class Held(NamedTuple):
    """What one stream holds."""

    payload_bytes: int  # In memory; what came back is counted where it is kept.
    memory_bytes: int  # The same, and what is known of it; not what is made of it for a moment.
    stored_bytes: int  # On disk.


def count_held(stream: StreamWindow) -> Held:
    """Hot: for each part that comes."""
    payload_bytes = stored_bytes = segments = 0
    for window in stream.renditions.values():
        payload_bytes += window.payload_bytes
        stored_bytes += window.stored_bytes
        segments += len(window.segments)
    return Held(payload_bytes, payload_bytes + SEGMENT_BYTES * segments, stored_bytes)


def quiet_bytes(limits: CacheLimits) -> int:
    """With no more than that in memory, and the disk within its limit, nothing has to go."""
    memory_max = limits.memory_bytes_max
    return memory_max * SPILL_NUM // SPILL_DEN if limits.disk_bytes_max else memory_max


def is_full(limits: CacheLimits, use: CacheUse) -> bool:
    """Whether more is held in memory than may be; where room was made, nothing else can go."""
    return use.memory_bytes > limits.memory_bytes_max


def spill_bytes(limits: CacheLimits, use: CacheUse) -> int:
    """How much is to leave memory for the disk; 0 for nothing."""
    if not limits.disk_bytes_max:
        return 0
    over = use.memory_bytes - use.leaving_bytes - quiet_bytes(limits)
    return over + limits.memory_bytes_max // ROOM_DEN if over > 0 else 0


def choose_drops(
    limits: CacheLimits,
    use: CacheUse,
    shelves: Callable[[], Sequence[Shelf]],
    *,
    spilling: int = 0,
) -> list[Choice]:
    """What to drop, in this order, for what is held to keep to the limits and leave some room.

    `spilling`: bytes that are about to be brought to disk, and need room there.
    """
    memory_max, disk_max = limits.memory_bytes_max, limits.disk_bytes_max
    memory_bytes = use.memory_bytes - memory_max
    disk_bytes = use.stored_bytes + use.leaving_bytes - disk_max
    disk_bytes += min(spilling, disk_max // SPILL_DISK_DEN)
    if memory_bytes <= 0 and disk_bytes <= 0:
        return []
    memory_bytes += memory_max // ROOM_DEN if memory_bytes > 0 else 0
    disk_bytes += disk_max // ROOM_DEN if disk_bytes > 0 else 0
    drops: list[Choice] = []
    held = [shelf for shelf in shelves() if memory_bytes > 0 or shelf.window.stored_bytes]
    for choice in _in_order(map(_droppable, held)):
        if memory_bytes <= 0 and disk_bytes <= 0:
            break
        segment = choice.segment
        on_disk = segment.stored or segment.leaving
        disk_bytes -= segment.payload_bytes if on_disk else 0
        elsewhere = segment.stored or segment.away
        memory_bytes -= SEGMENT_BYTES + (0 if elsewhere else segment.payload_bytes)
        drops.append(choice)
    return drops


def choose_spills(
    limits: CacheLimits,
    use: CacheUse,
    shelves: Callable[[], Sequence[Shelf]],
    *,
    leaving_bytes_max: int,
) -> list[Choice]:
    """What to bring to disk, in this order: no more than is to be on its way at a time.

    Nothing while half of that is: it is worth to look for much at once.
    """
    wanted = spill_bytes(limits, use)
    room = min(limits.disk_bytes_max - use.stored_bytes, leaving_bytes_max) - use.leaving_bytes
    spills: list[Choice] = []
    if wanted <= 0 or use.leaving_bytes > leaving_bytes_max // 2:
        return spills
    for choice in _in_order(map(_spillable, shelves())):
        room -= choice.segment.payload_bytes
        if wanted <= 0 or room < 0:
            break
        wanted -= choice.segment.payload_bytes
        spills.append(choice)
    return spills


def _in_order(walks: Iterable[Iterator[tuple[int, int, Choice]]]) -> Iterator[Choice]:
    """The choices of all shelves, of which each has its own in order."""
    for _, _, choice in heapq.merge(*walks, key=lambda item: item[:2]):
        yield choice


def _droppable(shelf: Shelf) -> Iterator[tuple[int, int, Choice]]:
    window = shelf.window
    behind_us = window.kept_us + window.listed_us
    return _walk(shelf, window.segments.values(), behind_us, window.droppable, window.settled)


def _spillable(shelf: Shelf) -> Iterator[tuple[int, int, Choice]]:
    window = shelf.window
    behind_us = window.kept_us + window.listed_us - window.stored_us
    settled = window.settled
    for item in _walk(shelf, window.in_memory.values(), behind_us, settled, settled):
        segment = item[2].segment
        if segment.payload_bytes and not segment.leaving and not segment.entry.gap:
            yield item


def _walk(
    shelf: Shelf,
    segments: Iterable[WindowSegment],
    behind_us: int,
    listed_max: int,
    settled: int,
) -> Iterator[tuple[int, int, Choice]]:
    """A shelf's segments from the oldest on, up to so many of those listed: rank, age, choice.

    `behind_us`: from the beginning of the first to the live edge; `settled`: the window's.
    """
    window = shelf.window
    if not window.listed:
        return
    first_msn = window.listed[0].entry.msn
    needed_us = shelf.stream.needed_us(window)
    for segment in segments:
        position = segment.entry.msn - first_msn
        if position >= listed_max:
            return
        behind_us -= segment.entry.duration_us
        if position < 0 and behind_us - window.listed_us >= needed_us:
            rank = Rank.SPARE
        elif not shelf.watched:
            rank = Rank.UNWATCHED
        elif position < 0:
            rank = Rank.KEPT
        else:
            rank = Rank.LISTED if position < settled else Rank.FRESH
        yield rank, -behind_us, Choice(shelf, segment, rank)
