"""Synthetic streams: tracks, units in order of arrival, and a segmenter run over them."""

import heapq
from collections.abc import Iterable, Iterator
from fractions import Fraction

from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.parts import InitSegment, PackagedEvent, Part, Rendition, SegmentEnded
from edged.media.track import Codec, CodecConfig, Track
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.segmenter import Segmenter
from edged.wire.cmaf.fragment import make_fragment
from edged.wire.cmaf.init import make_init

B_PICTURES = 2  # Between two others, where pictures are reordered.
EPOCH_US = 1_700_000_000_000_000
RATES = {
    "24": Fraction(24),
    "23.976": Fraction(24_000, 1001),
    "25": Fraction(25),
    "29.97": Fraction(30_000, 1001),
    "30": Fraction(30),
    "50": Fraction(50),
    "59.94": Fraction(60_000, 1001),
    "60": Fraction(60),
}


class CmafWriter:
    make_init = staticmethod(make_init)
    make_fragment = staticmethod(make_fragment)


def video_track(rate: Fraction | None = None, *, config_id: int = 0, width: int = 1280) -> Track:
    config = CodecConfig(
        codec=Codec.H264,
        record=bytes.fromhex("0164001fffe100056764001fac01000468ee3cb0"),
        codec_string="avc1.64001f",
        width=width,
        height=720,
        frame_rate_num=rate.numerator if rate else 0,
        frame_rate_den=rate.denominator if rate else 1,
    )
    return Track(track_id=1, codec=Codec.H264, timescale=90_000, config=config, config_id=config_id)


def audio_track(sample_rate: int = 48_000, *, track_id: int = 2) -> Track:
    config = CodecConfig(
        codec=Codec.AAC,
        record=bytes.fromhex("1190"),
        codec_string="mp4a.40.2",
        sample_rate=sample_rate,
        channels=2,
        samples_per_unit=1024,
    )
    return Track(track_id=track_id, codec=Codec.AAC, timescale=sample_rate, config=config)


def video_times(rate: Fraction, seconds: float, *, timescale: int = 90_000) -> list[int]:
    count = int(seconds * rate)
    return [int(Fraction(n * timescale) / rate + Fraction(1, 2)) for n in range(count)]


def decode_order(count: int, keys: set[int], *, open_gop: bool) -> list[int]:
    """Pictures, numbered as presented, in the order in which they are decoded.

    Those between two others follow the later one. In a closed GOP none follows the next GOP's key
    picture; in an open one the last ones do.
    """
    order: list[int] = []
    run: list[int] = []

    def flush() -> None:
        order.extend(run[-1:] + run[:-1])
        run.clear()

    for number in range(count):
        if number in keys and not open_gop:
            flush()
        run.append(number)
        if number in keys or len(run) > B_PICTURES:
            flush()
    flush()
    return order


def video_units(
    times: Iterable[int],
    gop_s: float,
    *,
    reorder: int = 0,
    open_gop: bool = False,
    config_id: int = 0,
    payload_bytes: int = 40,
    timescale: int = 90_000,
) -> Iterator[AccessUnit]:
    """Units at these decode times; the first picture of each `gop_s` has random access.

    With `reorder` there are B pictures, and all are presented so many ticks later than they would
    be in order of decoding.
    """
    times = list(times)
    keys: set[int] = set()
    next_key: float | None = None
    for number, time in enumerate(times):
        if next_key is None:
            next_key = time
        if time >= next_key - 100:
            keys.add(number)
            next_key += gop_s * timescale
    order = decode_order(len(times), keys, open_gop=open_gop) if reorder else range(len(times))
    for dts, number in zip(times, order, strict=True):
        pts = times[number] + reorder
        yield AccessUnit(
            track_id=1,
            seq=0,
            config_id=config_id,
            pts=pts,
            dts=dts,
            wallclock_us=EPOCH_US + pts * 1_000_000 // timescale,
            payload=bytes(payload_bytes),
            random_access=number in keys,
        )


def audio_units(
    seconds: float, *, sample_rate: int = 48_000, start: int = 0, track_id: int = 2
) -> Iterator[AccessUnit]:
    for n in range(int(seconds * sample_rate) // 1024):
        pts = start + n * 1024
        yield AccessUnit(
            track_id=track_id,
            seq=0,
            config_id=0,
            pts=pts,
            dts=pts,
            wallclock_us=EPOCH_US + pts * 1_000_000 // sample_rate,
            payload=bytes(12),
            random_access=True,
        )


def in_order(*tracks: tuple[int, Iterable[AccessUnit]]) -> list[AccessUnit]:
    """Units of several tracks, each given with its timescale, as they arrive: by decode time."""
    keyed = [
        [(unit.dts / timescale, number, unit.dts, unit) for unit in units]
        for number, (timescale, units) in enumerate(tracks)
    ]
    merged = [item[3] for item in heapq.merge(*keyed, key=lambda item: item[:3])]
    for seq, unit in enumerate(merged):
        unit.seq = seq
    return merged


def as_captured(
    *tracks: tuple[int, int, Iterable[AccessUnit]],
) -> tuple[list[AccessUnit], list[float]]:
    """Units of several tracks in order of arrival, and the second at which each arrives.

    Each track is given with its timescale and the ticks from a unit's decode time until the unit
    is whole: a picture's duration and its reordering, an audio unit's duration.
    """
    keyed = sorted(
        ((unit.dts + delay) / timescale, number, unit.dts, unit)
        for number, (timescale, delay, units) in enumerate(tracks)
        for unit in units
    )
    for seq, item in enumerate(keyed):
        item[3].seq = seq
    return [item[3] for item in keyed], [item[0] for item in keyed]


class Run(Struct):
    """A segmenter's output, with the unit whose arrival made each event (-1: the end)."""

    segmenter: Segmenter
    events: list[PackagedEvent]
    made_by: list[int]
    units: list[AccessUnit]

    def parts(self, rendition: str) -> list[Part]:
        return [e for e in self.events if isinstance(e, Part) and e.rendition == rendition]

    def segments(self, rendition: str) -> list[SegmentEnded]:
        return [e for e in self.events if isinstance(e, SegmentEnded) and e.rendition == rendition]

    def rendition(self, name: str) -> Rendition:
        return [e for e in self.events if isinstance(e, Rendition) and e.name == name][-1]

    def inits(self, name: str) -> list[InitSegment]:
        return [e for e in self.events if isinstance(e, InitSegment) and e.rendition == name]


def segment(
    tracks: Iterable[Track],
    units: list[AccessUnit],
    *,
    config: SegmenterConfig | None = None,
    end: bool = True,
) -> Run:
    segmenter = Segmenter(config or SegmenterConfig(), CmafWriter())
    for track in tracks:
        segmenter.add_track(track)
    run = Run(segmenter, [], [], units)
    for position, unit in enumerate(units):
        events = segmenter.add_unit(unit)
        run.events += events
        run.made_by += [position] * len(events)
    if end:
        events = segmenter.end("over")
        run.events += events
        run.made_by += [-1] * len(events)
    return run
