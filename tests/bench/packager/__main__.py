"""`python -m tests.bench.packager`: what it costs an origin to cut streams into parts.

Streams of 1080p at 6 Mbps with sound, or of more rungs, unit by unit in turns, as they come over
the backbone: so each finds its state out of the caches. What the ring costs is left out, by a run
without packagers. And as many streams' ladders, whose rungs are cut where their source is.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import msgspec
from msgspec import Struct, structs

from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, Part
from edged.media.stream import Grant, StreamId
from edged.media.track import Track
from edged.origin.packager import Packager, make_writer
from edged.policy.rung_segmenter import RungSegmenter
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.segment_starts import SegmentStart
from edged.runtime.hub import LiveStream
from tests.bench.goals import exit_status, verdict
from tests.policy.synthetic import (
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)

GOAL_PERCENT: Final = 0.02  # Of a core, per rung and stream, at most.
BITS_PER_S: Final = 6_000_000
GOP_S: Final = 2
WARM_S: Final = 4  # Renditions have begun, and the rings are full.
LADDER_RUNGS: Final = 4  # Of a 1080p source, by default.
RUNG_ID: Final = 101


class Round(Struct, frozen=True):
    """What one round gave; percent of a core are per rung and stream."""

    percent: float
    ring_percent: float  # Beside it: what it takes to have the units at all.
    parts: int
    ladder_percent: float  # The same of what a ladder makes, per rung and stream: pictures alone.
    ladder_parts: int


class Shape(Struct, frozen=True):
    """Of each stream."""

    fps: int
    rungs: int  # Of video; beside them there is one of audio.

    @property
    def renditions(self) -> int:
        """Video and audio."""
        return self.rungs + 1


def make_stream(shape: Shape, seconds: float) -> tuple[list[Track], list[AccessUnit]]:
    """Its tracks and its units in order of arrival."""
    rate = Fraction(shape.fps)
    tracks, timed = [], []
    for number in range(shape.rungs):
        track_id = 1 + 10 * number
        tracks.append(structs.replace(video_track(rate), track_id=track_id))
        size = BITS_PER_S // 8 // shape.fps >> number
        units = video_units(video_times(rate, seconds), GOP_S, payload_bytes=size)
        timed.append((90_000, [unit.replaced(track_id=track_id) for unit in units]))
    tracks.append(audio_track())
    timed.append((48_000, list(audio_units(seconds))))
    return tracks, in_order(*timed)


def run(shape: Shape, streams: int, seconds: float, *, packages: bool) -> tuple[float, int]:
    """CPU seconds for each second of media, over all streams; and how many parts were cut."""
    tracks, units = make_stream(shape, WARM_S + seconds)
    parts = 0

    def publish(event: PackagedEvent) -> None:
        nonlocal parts
        parts += isinstance(event, Part)

    made = []
    for number in range(streams):
        stream_id = StreamId(channel=f"bench{number}", publication=1)
        grant = Grant(channel=stream_id.channel)
        stream = LiveStream(stream_id, grant, started_at=0.0, came_from="bench")
        for track in tracks:
            stream.set_track(track)
        if packages:
            stream.watch(Packager(stream, SegmenterConfig(), publish).wake)
        made.append(stream)
    warm = next(n for n, unit in enumerate(units) if unit.wallclock_us > _end_of_warming(units))
    _feed(made, units[:warm])
    parts = 0
    gc.collect()
    begun = time.process_time()
    _feed(made, units[warm:])
    return (time.process_time() - begun) / seconds, parts


def run_ladders(shape: Shape, streams: int, seconds: float) -> tuple[float, int]:
    """CPU seconds for each second of media to cut so many ladders; and how many parts were cut."""
    events = _ladder_of(shape, WARM_S + seconds)
    ladders = []
    for _ in range(streams):
        ladder = RungSegmenter(SegmenterConfig(), make_writer())
        for number in range(LADDER_RUNGS):
            track = structs.replace(video_track(Fraction(shape.fps)), track_id=RUNG_ID + number)
            ladder.add_track(track, f"v{number}")
        ladders.append(ladder)
    warm = next(
        at
        for at, each in enumerate(events)
        if isinstance(each, AccessUnit)
        and each.wallclock_us > events[1].wallclock_us + WARM_S * 1_000_000
    )
    _cut(ladders, events[:warm])
    gc.collect()
    begun = time.process_time()
    parts = _cut(ladders, events[warm:])
    cut_s, begun = time.process_time() - begun, time.process_time()
    for each in events[warm:]:
        for _ in ladders:
            if isinstance(each, AccessUnit):
                each.replaced()
    return (cut_s - (time.process_time() - begun)) / seconds, parts


def _ladder_of(shape: Shape, seconds: float) -> list[AccessUnit | SegmentStart]:
    """Units of a ladder's rungs, and where their source's segments begin, as they come."""
    tracks, units = make_stream(Shape(shape.fps, 1), seconds)
    stream = LiveStream(StreamId("l", 1), Grant(channel="l"), started_at=0.0, came_from="bench")
    events: list[AccessUnit | SegmentStart] = []
    packager = Packager(stream, SegmenterConfig(), lambda _: None)
    packager.on_segment_start(events.append)
    stream.watch(packager.wake)
    for track in tracks:
        stream.set_track(track)
    for unit in units:
        stream.append([unit.replaced()])
        stream.trim_below(unit.seq)
        if unit.track_id == tracks[0].track_id:
            events += [
                unit.replaced(
                    track_id=RUNG_ID + number,
                    payload=unit.payload[: len(unit.payload) >> (number + 1)],
                )
                for number in range(LADDER_RUNGS)
            ]
    return events


def _cut(ladders: Sequence[RungSegmenter], events: Sequence[AccessUnit | SegmentStart]) -> int:
    parts = 0
    for each in events:
        for ladder in ladders:
            if isinstance(each, AccessUnit):
                made = ladder.add_unit(each.replaced())
            else:
                made = ladder.begin_segment(each)
            for event in made:
                parts += isinstance(event, Part)
    return parts


def _end_of_warming(units: Sequence[AccessUnit]) -> int:
    return units[0].wallclock_us + WARM_S * 1_000_000


def _feed(streams: Sequence[LiveStream], units: Sequence[AccessUnit]) -> None:
    for unit in units:
        for stream in streams:
            # Each has objects of its own, as it has in life; the payload's bytes are shared.
            stream.append([unit.replaced()])
            if not unit.seq % 64:
                stream.trim_below(unit.seq)


def run_rounds(shape: Shape, streams: int, seconds: float, runs: int) -> list[Round]:
    """With and without packagers, in turns."""
    rounds = []
    for _ in range(runs):
        ring_s, _ = run(shape, streams, seconds, packages=False)
        whole_s, parts = run(shape, streams, seconds, packages=True)
        each = 100 / streams / shape.renditions
        ladder_s, ladder_parts = run_ladders(shape, streams, seconds)
        ladder_percent = 100 * ladder_s / streams / LADDER_RUNGS
        cut_percent = (whole_s - ring_s) * each
        rounds.append(Round(cut_percent, ring_s * each, parts, ladder_percent, ladder_parts))
    return rounds


def as_table(shape: Shape, rounds: Sequence[Round]) -> str:
    """Medians."""
    percent = statistics.median(each.percent for each in rounds)
    ring = statistics.median(each.ring_percent for each in rounds)
    ladder = statistics.median(each.ladder_percent for each in rounds)
    return (
        f"{shape.fps} fps, {shape.rungs} of video and 1 of audio: {percent:.4f} % of a core per"
        f" rung and stream ({_goal(percent)}); its ring {ring:.4f} %\n"
        f"{shape.fps} fps, rungs of a ladder: {ladder:.4f} % of a core per rung and stream"
        f" ({_goal(ladder)})"
    )


def _goal(percent: float) -> str:
    return f"goal <= {GOAL_PERCENT:g}: {verdict(reached=percent <= GOAL_PERCENT)}"


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.packager", description=__doc__)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=10, help="of media, that are measured")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument(
        "--rungs", type=int, default=1, help="of video, each half of the one before"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON, every round included")
    found = parser.parse_args(arguments)
    if min(found.streams, found.seconds, found.fps, found.rungs, found.runs) < 1:
        parser.error("all numbers must be at least 1")
    return found


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    shape = Shape(options.fps, options.rungs)
    rounds = run_rounds(shape, options.streams, options.seconds, options.runs)
    table = as_table(shape, rounds)
    print(msgspec.json.encode(rounds).decode() if options.json else table)
    return exit_status(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
