"""What ingest health costs: `python -m tests.bench.ingest_health`.

A tick looks at every stream once a second: its cost per stream, healthy and with warnings, and what
all streams of a full PoP take of a core. A report is what a status page asks for.
"""

import time

from msgspec import Struct

from edged.media.stream import Grant, StreamId
from edged.policy.ingest_health import TICK_S, IngestHealthConfig
from edged.roles.ingest_health import IngestHealth
from edged.runtime.hub import Hub, LiveStream
from tests.policy.synthetic import RATES, audio_track, video_track

STREAMS = 300
SECONDS = 180  # Of the streams' time: the window of a minute is full for two thirds of it.
REPORTS = 1_000


class Cost(Struct, frozen=True):
    """Microseconds, medians."""

    tick_us: float  # Per stream.
    report_us: float
    warnings: int  # Of all streams, at the end.


def main() -> None:
    """Print a table."""
    for name, sick in (("healthy", False), ("all with warnings", True)):
        cost = measure(sick=sick)
        print(
            f"{STREAMS} streams, {name}: {cost.tick_us:.1f} us per stream and second, "
            f"{cost.tick_us * STREAMS / TICK_S / 1e6:.2%} of a core in all, "
            f"a report {cost.report_us:.1f} us ({cost.warnings} warnings)"
        )


def measure(*, sick: bool, streams: int = STREAMS, seconds: int = SECONDS) -> Cost:
    """Let streams run in a time of ours, and time each tick."""
    now, hub = 0.0, Hub()
    health = IngestHealth(hub, IngestHealthConfig(), now=lambda: now, unix_now=lambda: now)
    for number in range(streams):
        channel = f"c{number}"
        stream = hub.open(
            StreamId(channel, 1), Grant(channel=channel), started_at=0.0, came_from="bench"
        )
        stream.set_track(video_track(RATES["30"]))
        stream.set_track(audio_track())
    ticks: list[float] = []
    for second in range(1, seconds + 1):
        now = float(second)
        for stream in hub:
            count_second(stream, second, sick=sick)
        begun = time.perf_counter()
        health.tick()
        ticks.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    for number in range(REPORTS):
        health.health(f"c{number % streams}")
    report_s = (time.perf_counter() - begun) / REPORTS
    reports = [health.health(stream.channel) for stream in hub]
    warnings = sum(len(report.warnings) for report in reports if report is not None)
    late = sorted(ticks[seconds // 3 :])  # With the window full.
    return Cost(late[len(late) // 2] / streams * 1e6, report_s * 1e6, warnings)


def count_second(stream: LiveStream, second: int, *, sick: bool) -> None:
    """What a second of 6 Mbps leaves in the counters; sick: of 8.3 s GOPs, 20 fps, and skewed."""
    video, audio = stream.track_statistics[1], stream.track_statistics[2]
    video.units += 20 if sick else 30
    video.payload_bytes += 750_000
    video.last_dts = second * 90_000
    gop_s = 8.3 if sick else 2.0
    if int(second / gop_s) != int((second - 1) / gop_s):
        video.random_accesses += 1
        video.gop_us = int(gop_s * 1e6)
    audio.units += 47
    audio.payload_bytes += 20_000
    audio.last_dts = (second + (1 if sick else 0)) * 48_000


if __name__ == "__main__":
    main()
