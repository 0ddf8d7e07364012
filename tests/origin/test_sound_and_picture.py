"""Sound and picture beside each other, from a publisher's units to what a player's FFmpeg decodes.

Each second a flash and a beep begin at once. They go through the ladder, so that both are encoded
anew, through the packager, and out of its init and parts: what a viewer sees and hears.
"""

import array
import io
from fractions import Fraction

import av
import pytest

from edged.media.parts import InitSegment, PackagedEvent, Part
from edged.media.stream import Grant, StreamId
from edged.media.track import Kind
from edged.origin.packager import Packager
from edged.policy.ladder import LadderConfig, RungConfig
from edged.policy.segment_rule import SegmenterConfig
from edged.runtime.hub import LiveStream
from tests.origin.sources import (
    X264,
    Source,
    decode_audio,
    make_rungs,
    make_source,
    onsets,
    plan_for,
)
from tests.policy.synthetic import in_order

pytestmark = pytest.mark.e2e

FPS = 30
OFFSET_S_MAX = 0.020
FLASHES = f"drawbox=c=white:t=fill:enable='lt(mod(n,{FPS}),3)'"
BEEPS = "aevalsrc='if(lt(mod(t,1),0.1),0.5*sin(2*PI*997*t),0)':s=48000:c=mono"
BRIGHT = 128
LADDER = LadderConfig(rungs=(RungConfig(height=64, kbps=200),), preset="ultrafast", slots=1000)


def flashing(seconds: float) -> Source:
    """H.264 with B-frames, and Opus."""
    options = (*X264, "-bf", "2", "-g", str(2 * FPS), "-vf", FLASHES, "-c:a", "libopus")
    return make_source(
        *options, "-b:a", "64k", size="128x96", seconds=seconds, video="color", audio=BEEPS
    )


class Viewer:
    """What is packaged, as one file of each rendition."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}

    def take(self, event: PackagedEvent) -> None:
        if isinstance(event, InitSegment):
            assert event.rendition not in self.files, "one configuration"
            self.files[event.rendition] = bytearray(event.data)
        elif isinstance(event, Part):
            assert not event.gap
            self.files[event.rendition] += event.payload

    def flashes(self) -> list[float]:
        """When pictures become bright, in s."""
        found: list[float] = []
        was_bright = False
        with av.open(io.BytesIO(self.files["v0"]), "r", format="mp4") as container:
            for frame in container.decode(video=0):
                is_bright = bytes(frame.planes[0])[frame.planes[0].line_size * 32 + 64] > BRIGHT
                if is_bright and not was_bright:
                    assert frame.time is not None
                    found.append(frame.time)
                was_bright = is_bright
        return found

    def beeps(self) -> list[float]:
        """When sound begins, in s."""
        samples = array.array("f")
        begin: Fraction | None = None
        with av.open(io.BytesIO(self.files["a0"]), "r", format="mp4") as container:
            for frame in container.decode(audio=0):
                assert frame.pts is not None
                assert frame.time_base is not None
                at = frame.pts * frame.time_base
                begin = at if begin is None else begin
                assert abs(begin + Fraction(len(samples), 48_000) - at) < Fraction(1, 1000)
                samples.extend(array.array("f", bytes(frame.planes[0]))[: frame.samples])
        assert begin is not None
        return onsets(begin, samples, 48_000)


def source_offset_s(source: Source) -> float:
    """By how much the publisher's own beeps come behind its flashes: its muxer rounds times."""
    first = min(unit.pts for unit in source.of(Kind.VIDEO)) / 90_000
    beeps = onsets(*decode_audio(source.track(Kind.AUDIO), source.of(Kind.AUDIO)), 48_000)
    return beeps[-1] - (first + round(beeps[-1] - first))


def offsets_of(seconds: int) -> list[float]:
    """By how much each beep but the first comes further behind its flash than it was sent, in s."""
    source = flashing(seconds)
    made = make_rungs(source, plan_for(source, LADDER))
    stream = LiveStream(StreamId("a", 1), Grant(channel="a"), started_at=0.0, came_from="test")
    viewer = Viewer()
    for name in ("64p", "aac-2"):
        stream.set_track(made.track(name))
    packager = Packager(stream, SegmenterConfig(), viewer.take)
    stream.watch(packager.wake)
    for unit in in_order((90_000, made.rung("64p")), (48_000, made.rung("aac-2"))):
        stream.append([unit])
        stream.trim_below(unit.seq)
    stream.end("over")
    statistics = packager.statistics()
    assert (statistics.discontinuities, statistics.missing_s) == (0, 0)
    flashes, beeps = viewer.flashes(), viewer.beeps()
    assert len(flashes) == len(beeps) == seconds
    sent_s = source_offset_s(source)
    assert abs(sent_s) < OFFSET_S_MAX
    pairs = zip(beeps[1:], flashes[1:], strict=True)
    return [beep - flash - sent_s for beep, flash in pairs]


def check(offsets: list[float]) -> None:
    assert max(map(abs, offsets)) <= OFFSET_S_MAX / 4, "10 ms of drift are let be, here is none"


def test_half_a_minute() -> None:
    check(offsets_of(30))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_minutes() -> None:
    offsets = offsets_of(600)
    print(f"A/V offset at the end of 10 minutes: {offsets[-1] * 1000:.2f} ms")
    check(offsets)
