"""AAC rungs: units, channels, silence, gaps, and where a sound is after a long time."""

import array
import itertools
import math
from fractions import Fraction
from typing import cast

import av
import pytest

from edged.media.access_unit import AccessUnit
from edged.media.ladder import AUDIO_TRACK_ID_MIN, LadderPlan
from edged.media.track import Codec, Kind, Track
from edged.origin import encoders
from tests.origin.sources import (
    X264,
    Made,
    Source,
    decode_audio,
    make_rungs,
    make_source,
    onsets,
    plan_for,
)

pytestmark = pytest.mark.e2e
BEEPS = "aevalsrc='if(lt(mod(t,1),0.1),0.5*sin(2*PI*997*t),0)':s={rate}:c={layout}"
OFFSET_S_MAX = 0.020
LOUDNESS_DB_OFF_MAX = 0.3
CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6}
OPUS = ("-c:a", "libopus", "-b:a", "64k")
AAC = ("-c:a", "aac", "-b:a", "96k")


def beeps(
    *options: str, rate: int = 48_000, layout: str = "stereo", seconds: float = 4, suffix: str
) -> Source:
    expression = BEEPS.format(rate=rate, layout=layout)
    if layout == "5.1":
        inner = "if(lt(mod(t,1),0.1),0.5*sin(2*PI*997*t),0)"
        expression = f"aevalsrc='{'|'.join([inner] * 6)}':s={rate}:c=5.1"
    elif layout == "stereo":
        inner = "if(lt(mod(t,1),0.1),0.5*sin(2*PI*997*t),0)"
        expression = f"aevalsrc='{inner}|{inner}':s={rate}:c=stereo"
    return make_source(*options, video=None, audio=expression, seconds=seconds, suffix=suffix)


def only_rung(made: Made) -> list[AccessUnit]:
    assert len(made.plan.audio) == 1
    return made.rung(made.plan.audio[0].name)


def offsets(source: Source, made: Made, units: list[AccessUnit] | None = None) -> list[float]:
    """How much later each beep is in the rung, in seconds."""
    track = source.track(Kind.AUDIO)
    rate = 48_000 if track.codec is Codec.OPUS else track.config.sample_rate
    before = onsets(*decode_audio(track, units or source.of(Kind.AUDIO)), rate)
    rung = made.track(made.plan.audio[0].name)
    after = onsets(*decode_audio(rung, only_rung(made)), rung.timescale)
    assert len(before) == len(after) > 2
    return [b - a for a, b in zip(before, after, strict=True)]


def check_spacing(units: list[AccessUnit]) -> None:
    """AAC units follow each other by exactly 1024 samples."""
    assert {b.pts - a.pts for a, b in itertools.pairwise(units)} == {1024}
    assert all(unit.random_access and unit.dts == unit.pts for unit in units)


def test_opus_becomes_aac_at_the_same_times() -> None:
    source = beeps(*OPUS, suffix="mkv")
    made = make_rungs(source)
    units = only_rung(made)
    check_spacing(units)
    track = made.track("aac-1")
    assert (track.codec, track.timescale, track.config.channels) == (Codec.AAC, 48_000, 2)
    assert track.track_id == AUDIO_TRACK_ID_MIN + 1
    assert units[0].pts == source.units[0].pts
    assert max(map(abs, offsets(source, made))) < 0.004
    for unit in units:
        assert abs(unit.wallclock_us - unit.pts * 1_000_000 / 48_000) <= 1
    last = source.units[-1]
    assert 0 <= units[-1].pts + 1024 - last.pts <= 960 + 2048, "the end is not lost"


@pytest.mark.parametrize(
    ("layout", "options", "channels"),
    [("mono", OPUS, 1), ("5.1", AAC, 2), ("5.1", ("-c:a", "libopus", "-b:a", "256k"), 2)],
)
def test_one_channel_stays_one_and_six_become_two(
    layout: str, options: tuple[str, ...], channels: int
) -> None:
    source = beeps(*options, layout=layout, suffix="mkv")
    made = make_rungs(source)
    check_spacing(only_rung(made))
    assert made.track("aac-1").config.channels == channels
    assert max(map(abs, offsets(source, made))) < 0.004


def tone(*sounding: int, layout: str, options: tuple[str, ...], suffix: str) -> Source:
    """A steady tone of -15 dB in these channels, silence in the others."""
    sound, count = "0.25*sin(2*PI*997*t)", CHANNELS[layout]
    channels = "|".join(sound if channel in sounding else "0" for channel in range(count))
    expression = f"aevalsrc='{channels}':s=48000:c={layout}"
    return make_source(*options, video=None, audio=expression, seconds=2, suffix=suffix)


def loudness(track: Track, units: list[AccessUnit]) -> list[float]:
    """Of each channel, in dB of full scale, without what an encoder begins and ends with."""
    decoder = encoders.open_audio_decoder(track.config)
    planes: list[array.array[float]] = []
    for unit in units:
        for frame in decoder.decode(cast("av.Packet[av.AudioStream]", av.Packet(unit.payload))):
            planes = planes or [array.array("f") for _ in frame.planes]
            for plane, found in zip(planes, frame.planes, strict=True):
                plane.extend(array.array("f", bytes(found))[: frame.samples])
    steady = [plane[9_600:-9_600] for plane in planes]
    return [
        10 * math.log10(sum(value * value for value in plane) / len(plane) + 1e-12)
        for plane in steady
    ]


@pytest.mark.parametrize(
    ("layout", "sounding", "expected"),
    [
        ("mono", 0, (0,)),
        ("stereo", 0, (0, None)),
        ("stereo", 1, (None, 0)),
        ("5.1", 0, (0, None)),
        ("5.1", 1, (None, 0)),
        ("5.1", 2, (-3, -3)),  # The centre: what is spoken.
        ("5.1", 4, (-3, None)),
        ("5.1", 5, (None, -3)),
    ],
)
def test_each_channel_is_as_loud_as_it_was_and_where_it_was(
    layout: str, sounding: int, expected: tuple[float | None, ...]
) -> None:
    """Of six channels as ITU-R BS.775 has it in two."""
    options, suffix = (AAC, "mp4") if layout == "5.1" else (OPUS, "mkv")
    source = tone(sounding, layout=layout, options=options, suffix=suffix)
    before = loudness(source.track(Kind.AUDIO), source.of(Kind.AUDIO))[sounding]
    made = make_rungs(source)
    after = loudness(made.track("aac-1"), only_rung(made))
    assert len(after) == len(expected)
    for level, change in zip(after, expected, strict=True):
        if change is None:
            assert level < before - 40
        else:
            assert abs(level - before - change) < LOUDNESS_DB_OFF_MAX


def test_aac_of_a_rate_that_plays_not_everywhere_is_made_anew() -> None:
    source = beeps(*AAC, rate=96_000, suffix="mp4")
    made = make_rungs(source)
    check_spacing(only_rung(made))
    assert made.track("aac-1").timescale == 48_000
    assert max(map(abs, offsets(source, made))) < 0.004
    assert not plan_for(beeps(*AAC, rate=44_100, suffix="mp4")).audio


def test_silence_has_units_too() -> None:
    source = make_source(*OPUS, video=None, audio="anullsrc=r=48000:cl=stereo")
    units = only_rung(make_rungs(source))
    check_spacing(units)
    assert abs(len(units) - 2 * 48_000 / 1024) <= 2


def test_a_hole_in_the_sound_stays_one_and_what_follows_is_in_its_place() -> None:
    source = beeps(*OPUS, seconds=6, suffix="mkv")
    begin, end = source.units[60], source.units[175]  # 2.3 s, within which is one beep or two.
    units = [u for u in source.units if not begin.pts <= u.pts < end.pts]
    made = make_rungs(source, units=units)
    got = only_rung(made)
    steps = [b.pts - a.pts for a, b in itertools.pairwise(got)]
    assert max(steps) > 2 * 48_000
    assert sum(step != 1024 for step in steps) == 1
    after = [unit for unit in got if unit.pts >= end.pts]
    rung = made.track("aac-1")
    found = onsets(*decode_audio(rung, after), 48_000)
    for at in found[1:]:
        assert abs(at * 1 - round(at)) < 0.02


def test_a_short_hole_is_filled_with_silence() -> None:
    source = beeps(*OPUS, suffix="mkv")
    units = [unit for unit in source.units if not 60 <= unit.seq < 70]
    made = make_rungs(source, units=units)
    check_spacing(only_rung(made))
    corrected = made.statistics.corrected_samples
    assert abs(corrected - 10 * 960) <= 96, "Matroska has whole milliseconds"


def test_a_timeline_that_begins_anew() -> None:
    source = beeps(*OPUS, seconds=1, suffix="mkv")
    again = [unit.replaced(seq=unit.seq + 1000) for unit in source.units]
    again[0] = again[0].replaced(discontinuity=True)
    made = make_rungs(source, units=[*source.units, *again])
    got = only_rung(made)
    turn = [index for index, unit in enumerate(got) if unit.discontinuity]
    assert len(turn) == 1
    assert got[turn[0]].pts == source.units[0].pts
    assert len(made.tracks[got[0].track_id]) == 1


def test_broken_units_are_counted() -> None:
    source = beeps(*AAC, layout="5.1", suffix="mp4")
    units = [
        unit.replaced(payload=b"\xff" * 7) if unit.seq in (20, 40) else unit
        for unit in source.units
    ]
    made = make_rungs(source, units=units)
    assert 1 <= made.statistics.errors <= 2
    assert only_rung(made)[-1].pts > 3.8 * 48_000


def test_missing_picture_or_missing_sound() -> None:
    sound = beeps(*OPUS, suffix="mkv")
    assert make_rungs(sound).plan.video == ()
    both = make_source(*X264, "-g", "15", *OPUS, audio="sine=440:r=48000", seconds=1)
    made = make_rungs(both)
    rungs = {rung.track_id for rung in made.plan.video}
    assert set(made.units) == rungs | {rung.track_id for rung in made.plan.audio}
    pictures = make_rungs(both, units=both.of(Kind.VIDEO))
    assert set(pictures.units) == rungs


@pytest.mark.parametrize("ppm", [0, 300, -300, 3000, -3000])  # As of 300 in ten minutes, too.
def test_a_clock_that_drifts_does_not_take_sound_and_picture_apart(ppm: int) -> None:
    """Times of whole milliseconds, too, of an encoder whose sound card runs fast or slow."""
    source = beeps(*OPUS, seconds=60, suffix="mkv")
    units = [
        u.replaced(pts=48 * round(u.pts * (1 + ppm / 1e6) / 48), dts=u.dts) for u in source.units
    ]
    made = make_rungs(source, units=units)
    got = only_rung(made)
    check_spacing(got)
    rung = made.track("aac-1")
    after = onsets(*decode_audio(rung, got), 48_000)
    before = onsets(*decode_audio(source.tracks[0], source.units), 48_000)
    apart = [b - a * (1 + ppm / 1e6) for a, b in zip(before, after, strict=True)]
    assert max(map(abs, apart)) < OFFSET_S_MAX
    if not ppm:
        assert made.statistics.corrected_samples == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sound_and_picture_after_ten_minutes() -> None:
    """Offset of the last beep from the picture, whose times are the source's own."""
    source = beeps(*OPUS, seconds=600, suffix="mkv")
    made = make_rungs(source)
    found = offsets(source, made)
    print(f"A/V offset at the end of 10 minutes: {found[-1] * 1000:.2f} ms")
    assert len(found) == 600
    assert max(map(abs, found)) < 0.004
    assert not math.isnan(found[-1])


def test_an_empty_plan_makes_nothing() -> None:
    source = beeps(*OPUS, seconds=1, suffix="mkv")
    assert make_rungs(source, LadderPlan()).units == {}
    assert Fraction(source.units[-1].pts, 48_000) < 1.1
