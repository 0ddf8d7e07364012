"""The picture's rungs: times, random access, size, colours, and what is seen of them."""

from fractions import Fraction

import av
import pytest
from msgspec import structs

from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.media.nal import join_length_prefixed, split_length_prefixed
from edged.media.picture import describe_picture
from edged.media.track import Codec, CodecConfig, Kind
from edged.origin import encoders
from edged.origin.ladder_engine import LadderEngine
from edged.origin.ladder_video import _Maker, make_orientation
from edged.policy.ladder import LadderConfig, RungConfig
from edged.policy.ladder_threads import Threads
from tests.origin.sources import (
    SMALL,
    X264,
    Made,
    Source,
    collect,
    decode_video,
    make_rungs,
    make_source,
    measure_psnr,
    plan_for,
)

pytestmark = pytest.mark.e2e
NAL_IDR = 5


def shown(units: list[AccessUnit]) -> list[int]:
    """Times of the pictures that a decoder can show: from the first random access on."""
    first = next(unit.pts for unit in units if unit.random_access)
    return sorted(unit.pts for unit in units if unit.pts >= first)


def check(source: Source, made: Made, *, halved: tuple[str, ...] = ()) -> None:
    """Each rung has the source's times, or every second one, and random access where it has."""
    units = source.of(Kind.VIDEO)
    times = shown(units)
    keys = [unit.pts for unit in units if unit.random_access]
    assert made.plan.video
    for rung in made.plan.video:
        got = made.rung(rung.name)
        pts = [unit.pts for unit in got]
        if rung.name in halved:
            assert set(pts) <= set(times)
            assert abs(len(pts) * 2 - len(times)) <= len(keys)
        else:
            assert pts == times
        assert [unit.pts for unit in got if unit.random_access] == sorted(keys)
        assert [unit.dts for unit in got] == pts
        assert not any(unit.discontinuity for unit in got)
        clock = {unit.pts: unit.wallclock_us for unit in units}
        assert all(unit.wallclock_us == clock[unit.pts] for unit in got)
        for unit in got:
            kinds = {nal[0] & 31 for nal in split_length_prefixed(unit.payload)}
            assert (NAL_IDR in kinds) == unit.random_access
            assert not kinds & {7, 8}, "parameter sets are in avcC alone"
        pictures = decode_video(made.track(rung.name), got)
        assert [picture.pts for picture in pictures] == pts
        assert {picture.size for picture in pictures} == {(rung.width, rung.height)}
        config = made.track(rung.name).config
        assert (config.width, config.height) == (rung.width, rung.height)
        assert config.codec_string.endswith(f"{rung.level:02x}")


def test_a_ladder_of_30_fps_with_b_frames_and_scene_cuts() -> None:
    source = make_source(*X264, "-bf", "3", "-g", "23", "-b:v", "800k")
    made = make_rungs(source)
    check(source, made)
    assert [rung.name for rung in made.plan.video] == ["120p", "96p", "64p"]
    for name in ("120p", "96p", "64p"):
        assert measure_psnr(made, name, source) > 24.0


def test_each_rung_is_scaled_from_the_one_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One decoder, and ever smaller steps; a rung that leaves a picture out is passed by."""
    steps: list[tuple[int, int]] = []
    scale = _Maker.scale

    def note(maker: _Maker, frame: av.VideoFrame) -> av.VideoFrame:
        scaled = scale(maker, frame)
        steps.append((frame.height, scaled.height))
        return scaled

    opened: list[Codec] = []
    open_decoder = encoders.open_video_decoder

    def open_noted(config: CodecConfig, threads: int) -> av.VideoCodecContext:
        opened.append(config.codec)
        return open_decoder(config, threads)

    monkeypatch.setattr(_Maker, "scale", note)
    monkeypatch.setattr(encoders, "open_video_decoder", open_noted)
    source = make_source(*X264, "-g", "60", rate="60", seconds=2)
    make_rungs(source)
    assert opened == [Codec.H264]
    of_all = [(180, 120), (120, 96), (96, 64)]
    assert steps[:3] == of_all
    assert set(steps) == set(of_all)
    pictures = len(source.units)
    assert steps.count((180, 120)) == pictures
    assert steps.count((96, 64)) == steps.count((120, 96)) == pictures // 2


def test_quality_at_a_generous_rate_is_the_scaler_s_own() -> None:
    config = LadderConfig(rungs=(RungConfig(height=120, kbps=4000),), preset="veryfast")
    source = make_source(*X264, "-g", "30", "-crf", "10", seconds=1)
    made = make_rungs(source, plan_for(source, config))
    assert measure_psnr(made, "120p", source) > 50.0
    assert made.track("120p").config.codec_string == "avc1.640015"


def test_60_fps_are_kept_above_and_halved_below() -> None:
    source = make_source(*X264, "-g", "60", rate="60", seconds=2)
    made = make_rungs(source)
    check(source, made, halved=("96p", "64p"))
    assert [u.pts for u in made.rung("96p")] == [u.pts for u in made.rung("64p")]
    assert measure_psnr(made, "64p", source, every=2) > 24.0


def test_halved_with_times_of_milliseconds_each_second_picture_stays() -> None:
    source = make_source(*X264, "-g", "60", rate="60", seconds=1)
    plan = plan_for(source)
    units = [
        u.replaced(pts=round(u.pts / 90) * 90, dts=round(u.dts / 90) * 90) for u in source.units
    ]
    made = make_rungs(source, plan, units)
    kept = [unit.pts for unit in made.rung("64p")]
    assert kept == sorted(unit.pts for unit in units)[::2]


def test_no_rung_has_more_bits_than_a_source_that_has_few() -> None:
    """A still screen, then a game: rungs go down with it, and up with its next key frame."""
    config = LadderConfig(
        rungs=(RungConfig(height=160, kbps=1000), RungConfig(height=120, kbps=600)),
        preset="ultrafast",
    )
    poor = make_source(
        *X264, "-g", "30", "-b:v", "200k", "-maxrate", "200k", "-bufsize", "100k", seconds=16
    )
    rich = make_source(*X264, "-g", "30", "-b:v", "3M", "-minrate", "3M", seconds=4)
    begin = poor.units[-1].pts + 3000
    units = poor.units + [u.replaced(pts=u.pts + begin, dts=u.dts + begin) for u in rich.units]
    made = make_rungs(poor, plan_for(poor, config), units)
    rate = Fraction(poor.track(Kind.VIDEO).timescale)
    for name in ("160p", "120p"):
        got = made.rung(name)
        assert [unit.pts for unit in got] == shown(units)
        assert not any(unit.discontinuity for unit in got)
        assert len(made.tracks[got[0].track_id]) == 1, "its configuration stays"

        def bps(first: float, last: float, got: list[AccessUnit] = got) -> float:
            taken = [len(u.payload) for u in got if first <= u.pts / rate < last]
            return 8 * sum(taken) / (last - first)

        first, calm, busy = bps(0, 1), bps(4, 16), bps(17, 20)
        assert first > 1.5 * calm, "a second of it says nothing yet"
        assert calm < 200_000
        assert busy > 3 * calm
        assert len(decode_video(made.track(name), got)) == len(got)


def test_odd_sizes_and_shapes() -> None:
    """libx264 takes no odd size in 4:2:0, VP9 does; the shape of a sample goes through."""
    source = make_source(
        *("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
        *("-lag-in-frames", "0", "-auto-alt-ref", "0", "-g", "15"),
        size="321x181", seconds=1,
    )  # fmt: skip
    made = make_rungs(source)
    check(source, made)
    assert all(rung.width % 2 == rung.height % 2 == 0 for rung in made.plan.video)
    anamorphic = make_source(*X264, "-vf", "setsar=4/3", "-g", "15", size="240x180", seconds=1)
    made = make_rungs(anamorphic)
    check(anamorphic, made)
    for rung in made.plan.video:
        picture = describe_picture(made.track(rung.name).config)
        assert (picture.sar_num, picture.sar_den) == (4, 3)


def test_a_rung_is_smaller_than_what_is_shown_not_than_what_is_stored() -> None:
    narrow = make_source(*X264, "-vf", "setsar=1/3", "-g", "15", size="360x180", seconds=1)
    made = make_rungs(narrow)
    check(narrow, made)
    assert [rung.name for rung in made.plan.video] == ["96p", "64p"], "120 pixels are shown"


def test_when_it_was_captured_goes_with_each_picture() -> None:
    source = make_source(*X264, "-g", "10", "-bf", "2", seconds=1)
    units = [
        unit.replaced(capture_us=None if unit.seq % 7 == 0 else unit.wallclock_us - unit.seq)
        for unit in source.units
    ]
    captured = {unit.pts: unit.capture_us for unit in units}
    made = make_rungs(source, units=units)
    for rung in made.plan.video:
        got = made.rung(rung.name)
        assert [unit.capture_us for unit in got] == [captured[unit.pts] for unit in got]


@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_ten_bits_of_a_matrix_that_the_scaler_does_not_know(matrix: int) -> None:
    """It refuses to make 8 bits of them; what is said of colours goes through."""
    names = {8: "YCgCo", 10: "bt2020c", 14: "ICtCp"}
    source = make_source(
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-g", "15"),
        *("-x264-params", f"colormatrix={names[matrix]}"),
        seconds=1,
    )
    made = make_rungs(source)
    check(source, made)
    for rung in made.plan.video:
        assert describe_picture(made.track(rung.name).config).colour.matrix == matrix


def test_an_upright_picture() -> None:
    source = make_source(*X264, "-g", "15", size="180x320", seconds=1)
    made = make_rungs(source)
    check(source, made)
    assert [(r.width, r.height) for r in made.plan.video] == [(120, 214), (96, 170), (64, 114)]


def test_variable_frame_rate_and_gaps() -> None:
    source = make_source(
        *X264, "-vf", "select='not(mod(n,7))+not(mod(n,3))+lt(n,10)'", "-vsync", "vfr",
        "-g", "12", seconds=2,
    )  # fmt: skip
    made = make_rungs(source)
    check(source, made)
    steps = {b - a for a, b in zip(shown(source.units), shown(source.units)[1:], strict=False)}
    assert len(steps) > 1, "the rate varies"


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        (
            Codec.H265,
            ("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-tag:v",
             "hvc1", "-x265-params", "log-level=none:bframes=2:pools=1:keyint=20:open-gop=0"),
        ),
        (
            Codec.AV1,
            ("-c:v", "libsvtav1", "-preset", "12", "-g", "20", "-svtav1-params", "lp=1",
             "-pix_fmt", "yuv420p10le"),
        ),
    ],
)  # fmt: skip
def test_ten_bit_sources_of_other_codecs(codec: Codec, options: tuple[str, ...]) -> None:
    source = make_source(*options, suffix="mp4", seconds=2)
    assert source.tracks[0].codec is codec
    made = make_rungs(source, plan_for(source, structs.replace(SMALL, rungs=SMALL.rungs[:2])))
    check(source, made)
    assert measure_psnr(made, "120p", source) > 24.0


def test_a_source_that_plays_not_everywhere_gets_a_rung_of_its_own_size() -> None:
    source = make_source(
        *("-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params"),
        "log-level=none:pools=1:keyint=10:open-gop=0",
        size="160x120", seconds=1, suffix="mp4",
    )  # fmt: skip
    made = make_rungs(source)
    check(source, made)
    assert made.plan.video[0].height == 120


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("pc", "bt709", "bt709", "bt709"), (2, 1, 1, 1)),
        (("tv", "bt2020", "smpte2084", "bt2020nc"), (1, 9, 16, 9)),
        (("tv", "smpte170m", "smpte170m", "smpte170m"), (1, 6, 6, 6)),
        (("tv", "bt470bg", "bt470bg", "ycgco"), (1, 5, 5, 8)),
    ],
)
def test_colours_are_carried(
    flags: tuple[str, str, str, str], expected: tuple[int, int, int, int]
) -> None:
    span, primaries, transfer, matrix = flags
    source = make_source(
        *X264, "-g", "10", "-x264-params",
        f"fullrange={'on' if span == 'pc' else 'off'}:colorprim={primaries}:transfer={transfer}:"
        f"colormatrix={matrix.replace('ycgco', 'YCgCo')}",
        seconds=1,
    )  # fmt: skip
    before = decode_video(source.tracks[0], source.units)[0]
    assert before.colours == expected
    made = make_rungs(source)
    for rung in made.plan.video:
        colours = {p.colours for p in decode_video(made.track(rung.name), made.rung(rung.name))}
        assert colours == {expected}
        colour = describe_picture(made.track(rung.name).config).colour
        assert (colour.primaries, colour.transfer, colour.matrix) == expected[1:]
        assert colour.full_range == (span == "pc")
    if matrix != "ycgco":  # Which ffmpeg's own scaler refuses.
        assert measure_psnr(made, "120p", source) > 24.0, "no range was converted"


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_is_carried(degrees: int) -> None:
    source = make_source(*X264, "-g", "10", seconds=1)
    turned = [
        unit.replaced(payload=make_orientation(degrees) + unit.payload)
        if unit.random_access
        else unit
        for unit in source.units
    ]
    before = decode_video(source.tracks[0], turned)
    assert {abs(picture.rotation) for picture in before if picture.is_key} == {abs(degrees)}
    made = make_rungs(source, units=turned)
    for rung in made.plan.video:
        pictures = decode_video(made.track(rung.name), made.rung(rung.name))
        assert [p.rotation for p in pictures] == [p.rotation for p in before]
        assert pictures[0].size == (rung.width, rung.height), "it is not turned here"


def test_rotation_of_h265_is_carried() -> None:
    """Its SEI is another (ISO/IEC 23008-2 §D.2.17); without, a phone's picture lies on its side."""
    source = make_source(
        *("-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params"),
        "log-level=none:pools=1:keyint=10:open-gop=0",
        seconds=1, suffix="mp4",
    )  # fmt: skip
    # Cancel 0, flips 0 0, 90 degrees u(16), persistence 1, the payload's own end.
    payload = int("000" + f"{1 << 14:016b}" + "1" + "1000", 2).to_bytes(3, "big")
    sei = join_length_prefixed([bytes([39 << 1, 1, 47, len(payload)]) + payload + b"\x80"])
    turned = [
        unit.replaced(payload=sei + unit.payload) if unit.random_access else unit
        for unit in source.units
    ]
    assert {picture.rotation for picture in decode_video(source.tracks[0], turned)} == {90}
    made = make_rungs(source, units=turned)
    for rung in made.plan.video:
        pictures = decode_video(made.track(rung.name), made.rung(rung.name))
        assert {picture.rotation for picture in pictures if picture.is_key} == {90}


@pytest.mark.parametrize("b_frames", ["0", "3"])  # Of these some are in the decoder at its end.
def test_a_source_that_changes_its_size_under_way(b_frames: str) -> None:
    wide = make_source(*X264, "-g", "15", "-bf", b_frames, seconds=1)
    tall = make_source(*X264, "-g", "15", "-bf", b_frames, size="240x180", seconds=1)
    first, second = plan_for(wide), plan_for(tall)
    engine = LadderEngine(first)
    engine.set_track(wide.tracks[0])
    out = [each for unit in wide.units for each in engine.take(unit)]
    out += engine.set_plan(second)
    engine.set_track(structs.replace(tall.tracks[0], config_id=1))
    shift = wide.units[-1].dts + 3000 - tall.units[0].dts
    later = [u.replaced(config_id=1, pts=u.pts + shift, dts=u.dts + shift) for u in tall.units]
    out += [each for unit in later for each in engine.take(unit)]
    out += engine.finish()
    made = collect(second, engine, out)
    for rung in second.video:
        tracks = made.tracks[rung.track_id]
        assert [(t.config_id, t.config.width) for t in tracks] == [
            (0, next(r.width for r in first.video if r.name == rung.name)),
            (1, rung.width),
        ]
        units = made.rung(rung.name)
        assert len(units) == 60
        turn = next(i for i, unit in enumerate(units) if unit.config_id == 1)
        assert units[turn].random_access
        assert [i for i, unit in enumerate(units) if unit.discontinuity] == [turn]
        assert len(decode_video(tracks[1], units[turn:])) == 30


@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_a_new_configuration_that_looks_the_same_changes_nothing(b_frames: str) -> None:
    source = make_source(*X264, "-g", "15", "-bf", b_frames, seconds=1)
    engine = LadderEngine(plan_for(source))
    for config_id in (0, 1):
        engine.set_track(structs.replace(source.tracks[0], config_id=config_id))
    half = len(source.units) // 2
    out = [
        each
        for index, unit in enumerate(source.units)
        for each in engine.take(unit.replaced(config_id=int(index >= half)))
    ]
    made = collect(plan_for(source), engine, [*out, *engine.finish()])
    assert all(len(tracks) == 1 for tracks in made.tracks.values())
    assert all(len(units) == 30 for units in made.units.values())


def test_a_timeline_that_begins_anew() -> None:
    source = make_source(*X264, "-g", "15", seconds=1)
    again = [unit.replaced(seq=unit.seq + 100) for unit in source.units]
    again[0] = again[0].replaced(discontinuity=True)
    made = make_rungs(source, units=[*source.units, *again])
    for rung in made.plan.video:
        units = made.rung(rung.name)
        assert [unit.pts for unit in units] == 2 * shown(source.units)
        assert [i for i, unit in enumerate(units) if unit.discontinuity] == [30]
        assert len(made.tracks[rung.track_id]) == 1, "the configuration is the same"


def test_rungs_end_at_once_and_come_back_at_random_access() -> None:
    source = make_source(*X264, "-g", "10", seconds=2)
    plan = plan_for(source)
    engine = LadderEngine(plan)
    engine.set_track(source.tracks[0])
    out = []
    for index, unit in enumerate(source.units):
        if index == 15:
            out += engine.want(frozenset({"96p", "64p"}))
        if index == 33:
            out += engine.want(frozenset({"120p", "96p", "64p"}))
        out += engine.take(unit)
    made = collect(plan, engine, [*out, *engine.finish()])
    times = shown(source.units)
    assert [u.pts for u in made.rung("120p")] == times[:15] + times[40:]
    assert [u.pts for u in made.rung("96p")] == times
    assert [u.pts for u in made.rung("64p")] == times
    assert made.rung("120p")[15].random_access
    assert not any(u.discontinuity for u in made.rung("120p")), "its configuration is the same"
    assert len(decode_video(made.track("120p"), made.rung("120p")[15:])) == 20


def test_broken_units_are_counted_and_the_next_random_access_is_whole() -> None:
    source = make_source(*X264, "-g", "10", seconds=2)
    broken = [
        unit.replaced(payload=b"\0\0\0\x05\x65garb") if unit.seq in (10, 25) else unit
        for unit in source.units
    ]
    made = make_rungs(source, units=broken)
    assert made.statistics.errors == 2
    keys = [unit.pts for unit in made.rung("64p") if unit.random_access]
    source_keys = [unit.pts for unit in source.units if unit.random_access]
    assert len(keys) == len(source_keys)
    late = [ours - theirs for ours, theirs in zip(keys, source_keys, strict=True)]
    assert 0 < late.pop(1) < 30_000, "the next picture that the decoder had took its place"
    assert set(late) == {0}


def test_an_orientation_of_nothing_is_nothing() -> None:
    assert make_orientation(0) == b""
    assert make_orientation(360) == b""
    sei = make_orientation(90)
    assert int.from_bytes(sei[:4], "big") == len(sei) - 4
    assert sei[4:7] == bytes([6, 47, 3])


def test_an_empty_plan_makes_nothing() -> None:
    source = make_source(*X264, "-g", "10", seconds=2)
    assert make_rungs(source, LadderPlan()).units == {}
    assert Fraction(len(source.units), 2) == 30


@pytest.mark.parametrize(
    "options",
    [
        (*X264, "-bf", "3", "-g", "23"),
        ("-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params",
         "log-level=none:bframes=2:pools=1:keyint=20:open-gop=0"),
        ("-c:v", "libsvtav1", "-preset", "12", "-g", "20", "-svtav1-params", "lp=1"),
    ],
    ids=["h264", "h265", "av1"],
)  # fmt: skip
@pytest.mark.parametrize(("by_decode", "by_encode"), [(3, 1), (1, 3), (4, 4)])
def test_threads_change_nothing_but_when_a_rung_comes(
    options: tuple[str, ...], by_decode: int, by_encode: int
) -> None:
    source = make_source(*options, suffix="mp4", seconds=2)
    one = plan_for(source)
    plan = structs.replace(one, decode_threads=by_decode, encode_threads=by_encode)
    made = make_rungs(source, plan)
    check(source, made)
    assert made.statistics.errors == 0
    assert measure_psnr(made, "120p", source) > 24.0
    engine, held = LadderEngine(plan), 0
    engine.set_track(source.tracks[0])
    alone = LadderEngine(one)
    alone.set_track(source.tracks[0])
    for unit in source.units:
        engine.take(unit)
        alone.take(unit)
        behind = alone.statistics().units_made - engine.statistics().units_made
        held = max(held, behind // len(plan.video))
    threads = Threads(decode=by_decode, encode=by_encode)
    assert held <= threads.delay_pictures + 1, "one, as a decoder of H.265 gives two at once"
