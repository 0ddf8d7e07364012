"""Who watches what at this edge, and how far they are: a look at those who wait for the next part.

A low-latency player always has a request that waits, so nothing is counted while it is served; of
the others' distance nothing is known. What a look costs is bounded: so many sockets are asked.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from edged.media.reach import RTT_BOUNDS_MS, RUNG_CHARS_MAX, RUNGS_MAX, AudienceRow
from edged.runtime.tcp_info import read_tcp_info

if TYPE_CHECKING:
    from edged.playback.hls import Channel
    from edged.runtime.connection import Connection

SAMPLES_MAX: Final = 1000  # Sockets asked for one report: some 2 ms.
SAMPLES_PER_CHANNEL_MAX: Final = 50

RttOf = Callable[["Connection"], float | None]


def rtt_ms_of(connection: "Connection") -> float | None:
    """The round trip to a viewer, as the kernel has it; None: it knows none."""
    info = read_tcp_info(connection.sock)
    return None if info is None or not info.rtt_s else 1000 * info.rtt_s


def read_audience(
    channels: "Iterable[Channel]", now: float, rtt_ms: RttOf = rtt_ms_of
) -> Iterator[AudienceRow]:
    """A row for each that is watched, or held by order."""
    left = SAMPLES_MAX
    for channel in channels:
        viewers = channel.count.viewers(now)
        if not viewers and not channel.held:
            continue
        near = [0] * (len(RTT_BOUNDS_MS) + 1)
        for connection in _waiting(channel, min(left, SAMPLES_PER_CHANNEL_MAX)):
            left -= 1
            ms = rtt_ms(connection)
            if ms is not None:
                near[sum(ms > bound for bound in RTT_BOUNDS_MS)] += 1
        rungs = sorted(channel.count.rungs(now).items(), key=lambda item: -item[1])[:RUNGS_MAX]
        yield AudienceRow(
            channel.name,
            viewers,
            tuple(near) if any(near) else (),
            {name[:RUNG_CHARS_MAX]: count for name, count in rungs if count},
            held=channel.held,
        )


def read_mbps(channels: "Iterable[Channel]") -> float:
    """What of these comes in, of all their renditions, by what is in memory of them."""
    whole = 0.0
    for channel in channels:
        if channel.newest is None or channel.newest.ended_at is not None:
            continue
        for window in channel.newest.window.renditions.values():
            segments = [each for each in window.in_memory.values() if each.entry.complete]
            lasts_us = sum(each.entry.duration_us for each in segments)
            if lasts_us:
                whole += 8 * sum(each.payload_bytes for each in segments) / lasts_us
    return whole


def _waiting(channel: "Channel", most: int) -> "Iterator[Connection]":
    stream = channel.newest
    if stream is None:
        return
    for playlist in stream.playlists.values():
        for exchange in playlist.waiters():
            if most <= 0:
                return
            most -= 1
            yield exchange.connection
