"""Hours of a stream, in virtual time: times stay exact, numbers go on, and memory stays flat."""

import gc
import resource
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from msgspec import structs

from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, Part, Rendition, SegmentEnded
from edged.media.stream import Grant, StreamId
from edged.origin.packager import Packager, make_writer
from edged.policy.rung_segmenter import RungSegmenter
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.window import StreamWindow
from edged.runtime.hub import LiveStream
from tests.policy.synthetic import EPOCH_US, audio_track, video_track

RATE = Fraction(30_000, 1001)
TS, SAMPLE_RATE, SAMPLES = 90_000, 44_100, 1024
GOP = 60  # Pictures: 2.002 s.
RUNG = 101
ENCODER_S = 0.4  # A rung is so much behind its source.
RUN = StreamId(channel="ch", publication=1)


def units_of(start_s: int, seconds: int) -> Iterator[AccessUnit]:
    """A source's pictures and sound in order of decoding, and a rung's pictures behind them."""
    pictures = samples = rung = 0
    behind: list[AccessUnit] = []
    seq = 0
    while True:
        picture_s, sound_s = pictures / RATE, Fraction(samples, SAMPLE_RATE)
        if min(picture_s, sound_s) >= seconds:
            return
        if picture_s <= sound_s:
            pts = start_s * TS + round(picture_s * TS)
            track_id, is_key, at_s = 1, pictures % GOP == 0, picture_s
            pictures += 1
        else:
            pts = start_s * SAMPLE_RATE + samples
            track_id, is_key, at_s = 2, True, sound_s
            samples += SAMPLES
        wallclock_us = EPOCH_US + round(at_s * 1_000_000)
        unit = AccessUnit(
            track_id=track_id,
            seq=seq,
            config_id=0,
            pts=pts,
            dts=pts,
            wallclock_us=wallclock_us,
            payload=b"payload",
            random_access=is_key,
        )
        seq += 1
        yield unit
        if track_id == 1:
            behind.append(unit.replaced(track_id=RUNG, payload=b"rung", seq=rung))
            rung += 1
        while behind and behind[0].wallclock_us + ENCODER_S * 1_000_000 <= wallclock_us:
            yield behind.pop(0)


class Watch:
    """What comes of it, looked at as it comes; nothing is kept but a PoP's window."""

    def __init__(self) -> None:
        self.window = StreamWindow(RUN)
        self.renditions: dict[str, Rendition] = {}
        self.last: dict[str, Part] = {}
        self.parts = 0
        self.segment_us: dict[str, set[int]] = {}
        self.drift_us = 0.0  # Of media time and wallclock, at most.
        self.first_us: dict[str, float] = {}
        self.ended: dict[str, int] = {}

    def take(self, event: PackagedEvent) -> None:
        self.window.add(event)
        if isinstance(event, Rendition):
            self.renditions[event.name] = event
        elif isinstance(event, Part):
            self._check(event)
        elif isinstance(event, SegmentEnded):
            assert event.msn == self.ended.get(event.rendition, event.msn - 1) + 1
            self.ended[event.rendition] = event.msn
            scale = self.renditions[event.rendition].timescale
            lengths = self.segment_us.setdefault(event.rendition, set())
            lengths.add(round(event.duration / scale * 1_000))

    def _check(self, part: Part) -> None:
        self.parts += 1
        last = self.last.get(part.rendition)
        if last is not None:
            assert part.tfdt == last.tfdt + last.duration, "parts follow each other without a gap"
            following = {(last.msn, last.index + 1), (last.msn + 1, 0)}
            assert (part.msn, part.index) in following
        scale = self.renditions[part.rendition].timescale
        offset_us = part.wallclock_us - part.tfdt / scale * 1_000_000
        first = self.first_us.setdefault(part.rendition, offset_us)
        self.drift_us = max(self.drift_us, abs(offset_us - first))
        self.last[part.rendition] = part

    def end_s(self, name: str) -> float:
        """Where a rendition's last part ends."""
        part = self.last[name]
        return (part.tfdt + part.duration) / self.renditions[name].timescale


class Held(NamedTuple):
    """What the process has of memory now: what it has had at most would hide what grows below."""

    objects: int  # That the collector knows: no numbers, texts or bytes.
    blocks: int  # Of Python's own allocator: those, too.
    resident_kb: int

    @classmethod
    def now(cls) -> Self:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        blocks = sys.getallocatedblocks()
        return cls(len(gc.get_objects()), blocks, pages * resource.getpagesize() // 1024)


def run(hours: float) -> None:
    config = SegmenterConfig()
    stream = LiveStream(RUN, Grant(channel="ch"), started_at=0.0, came_from="test")
    watch = Watch()
    rungs = RungSegmenter(config, make_writer())
    packager = Packager(stream, config, watch.take)

    def begin(start: object) -> None:
        for event in rungs.begin_segment(start):  # type: ignore[arg-type]
            watch.take(event)

    packager.on_segment_start(begin)
    stream.set_track(video_track(RATE))
    stream.set_track(audio_track(SAMPLE_RATE))
    stream.watch(packager.wake)
    rungs.add_track(structs.replace(video_track(RATE), track_id=RUNG), "v480")
    seconds = int(hours * 3600)
    # Half way its pictures' times pass 2^32 ticks.
    start_s = 2**32 // TS - seconds // 2
    early: Held | None = None
    for unit in units_of(start_s, seconds):
        if unit.track_id == RUNG:
            for event in rungs.add_unit(unit):
                watch.take(event)
            continue
        stream.append([unit])
        stream.trim_below(unit.seq - 500)
        # The window is full by then, with numbers of segments that Python keeps no small ones of.
        if early is None and unit.wallclock_us > EPOCH_US + seconds * 1_000_000 / 5:
            early = Held.now()
    assert early is not None
    late = Held.now()
    more = Held(*(after - before for after, before in zip(late, early, strict=True)))
    assert more.objects < 500, "nothing is kept of what is over"
    assert more.blocks < 1_000, more
    assert more.resident_kb < 4_096, more
    statistics = packager.statistics()
    assert (statistics.discontinuities, statistics.units_dropped, statistics.missing_s) == (0, 0, 0)
    assert rungs.statistics().segments_absent == rungs.statistics().units_dropped == 0
    assert set(watch.last) == {"v0", "a0", "v480"}
    assert watch.last["v0"].tfdt > 2**32
    assert watch.drift_us < 1_000
    ends = {name: watch.end_s(name) for name in watch.last}
    assert abs(ends["v0"] - ends["a0"]) < 0.5
    for name, lengths in watch.segment_us.items():
        assert all(1_970 <= ms <= 2_040 for ms in lengths), (name, sorted(lengths)[:3])
    assert min(watch.ended.values()) >= seconds / 2.01 - 3
    assert watch.parts > 3 * 4 * seconds


def test_an_hour() -> None:
    run(1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_six_hours() -> None:
    run(6)
