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
        mbps, base_mbps = read_rates(channel)
        yield AudienceRow(
            channel.name,
            viewers,
            tuple(near) if any(near) else (),
            _read_rungs(channel, now) if viewers else {},
            held=channel.held,
            mbps=mbps,
            base_mbps=base_mbps,
        )


def read_rates(channel: "Channel") -> tuple[dict[str, float], float]:
    """Mbps of each rung, as far as it is known, and of what comes along with any of them."""
    stream, rates, base = channel.newest, dict[str, float](), 0.0
    if stream is None:
        return rates, base
    main = stream.window.main
    for name, window in stream.window.renditions.items():
        mbps = round(window.bandwidth_bps_mean / 1e6, 3)
        if name not in main:
            base += mbps
        elif mbps and len(rates) < RUNGS_MAX:
            rates[name[:RUNG_CHARS_MAX]] = mbps
    return rates, round(base, 3)


def _read_rungs(channel: "Channel", now: float) -> dict[str, int]:
    """Viewers of each rung; one that is asked for has one, be it of a player that polls."""
    counts = {name: count for name, count in channel.count.rungs(now).items() if count}
    main = frozenset[str]() if channel.newest is None else channel.newest.window.main
    for name in channel.count.asked(now):
        if name in main:
            counts.setdefault(name, 1)
    most = sorted(counts.items(), key=lambda item: -item[1])[:RUNGS_MAX]
    return {name[:RUNG_CHARS_MAX]: count for name, count in most}


def read_mbps(channels: "Iterable[Channel]", unwatched_at: float | None = None) -> float:
    """What of these comes in, of all their renditions, by what is in memory of them.

    `unwatched_at`: now, if what viewers have asked for lately does not count.
    """
    whole = 0.0
    for channel in channels:
        stream = channel.newest
        if stream is None or stream.ended_at is not None:
            continue
        asked = set() if unwatched_at is None else set(channel.count.asked(unwatched_at))
        for name, window in stream.window.renditions.items():
            if window.is_away or name in asked or (asked and name not in stream.window.main):
                continue
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
