"""Which rungs a stream gets."""

import itertools
from fractions import Fraction

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.ladder import LadderPlan
from edged.media.stream import PriorityClass
from edged.media.track import Codec, CodecConfig, Track
from edged.policy.ladder import (
    PRESET_COSTS,
    X264,
    LadderBudget,
    LadderConfig,
    RungConfig,
    choose_encoder,
    choose_ladder,
    explain_ladder,
    usual_ladder,
)
from edged.policy.ladder_capacity import configured_capacity

BASIC, PARTNER = PriorityClass.BASIC, PriorityClass.PARTNER
RICH = LadderBudget(cost_max=1e9)
NAMES = {Codec.H264: "avc1.64001f", Codec.H265: "hvc1.1.6.L93.B0", Codec.AV1: "av01.0.08M.08"}


def video(
    width: int = 1920,
    height: int = 1080,
    fps: Fraction = Fraction(30),
    codec: Codec = Codec.H264,
    track_id: int = 1,
) -> Track:
    return Track(
        track_id=track_id,
        codec=codec,
        timescale=90_000,
        config=CodecConfig(
            codec=codec,
            record=b"",  # Not readable: samples are square then.
            codec_string=NAMES.get(codec, str(codec)),
            width=width,
            height=height,
            frame_rate_num=fps.numerator,
            frame_rate_den=fps.denominator,
        ),
    )


def audio(
    codec: Codec = Codec.AAC, channels: int = 2, rate: int = 48_000, track_id: int = 2
) -> Track:
    return Track(
        track_id=track_id,
        codec=codec,
        timescale=rate,
        config=CodecConfig(
            codec=codec,
            record=b"\x11\x90" if channels == 2 else b"\x11\xb0",
            codec_string="mp4a.40.2",
            sample_rate=rate,
            channels=channels,
        ),
    )


def plan(
    *tracks: Track,
    config: LadderConfig | None = None,
    priority: PriorityClass = BASIC,
    budget: LadderBudget = RICH,
) -> LadderPlan:
    return choose_ladder(tracks, config or LadderConfig(), priority, budget)


def names(found: LadderPlan) -> list[str]:
    return [rung.name for rung in found.video]


def shape(found: LadderPlan) -> list[tuple[int, int]]:
    return [(rung.width, rung.height) for rung in found.video]


@pytest.mark.parametrize(
    ("height", "expected"),
    [
        (2160, ["1080p", "720p", "480p", "360p", "160p"]),
        (1080, ["720p", "480p", "360p", "160p"]),
        (720, ["480p", "360p", "160p"]),
        (360, ["160p"]),
        (160, []),
    ],
)
def test_defaults_are_below_the_source(height: int, expected: list[str]) -> None:
    found = plan(video(height * 16 // 9, height))
    assert names(found) == expected
    if not expected:
        assert found.is_empty
        assert found.video_track_id is None
        assert "160p: the source has no more than 160" in found.notes


def test_sizes_are_even_and_keep_the_shape() -> None:
    assert shape(plan(video())) == [(1280, 720), (854, 480), (640, 360), (284, 160)]
    assert shape(plan(video(1080, 1920))) == [(720, 1280), (480, 854), (360, 640), (160, 284)]
    assert shape(plan(video(2560, 1080)))[0] == (1706, 720)


def test_what_not_every_player_decodes_gets_a_rung_of_its_size() -> None:
    found = plan(video(codec=Codec.H265))
    assert names(found) == ["1080p", "720p", "480p", "360p", "160p"]
    tiny = plan(video(128, 96, codec=Codec.AV1))
    assert shape(tiny) == [(128, 96)]
    assert any("plays not everywhere" in note for note in tiny.notes)


def test_rates() -> None:
    fast = plan(video(fps=Fraction(60_000, 1001)))
    rates = [Fraction(r.frame_rate_num, r.frame_rate_den) for r in fast.video]
    assert rates == [Fraction(60_000, 1001), *3 * [Fraction(30_000, 1001)]]
    assert [rung.spacing_ticks for rung in fast.video] == [0, *3 * [2252]]
    assert fast.video[0].bitrate_bps == 2_400_000 * 7 // 5
    assert fast.video[1].bitrate_bps == 1_300_000
    assert {rung.spacing_ticks for rung in plan(video()).video} == {0}
    unknown = plan(video(fps=Fraction(0)))
    assert [rung.spacing_ticks for rung in unknown.video] == [1125, 2250, 2250, 2250]
    assert {rung.frame_rate_num for rung in unknown.video} == {0}
    custom = LadderConfig(rungs=(RungConfig(height=720, kbps=2000, fps_max=30),))
    assert plan(video(fps=Fraction(120)), config=custom).video[0].frame_rate_num == 30


def test_what_the_publisher_sends_itself_is_not_made() -> None:
    found = plan(video(), video(1280, 720, track_id=2), video(640, 352, track_id=3))
    assert names(found) == ["480p", "160p"]
    assert found.video_track_id == 1
    assert "720p: the publisher sends one" in found.notes


def test_classes() -> None:
    config = LadderConfig(
        rungs=(
            RungConfig(height=720, kbps=2400, classes=("partner",)),
            RungConfig(height=360, kbps=700),
        ),
        classes=("partner", "basic"),
    )
    assert names(plan(video(), config=config, priority=PARTNER)) == ["720p", "360p"]
    assert names(plan(video(), config=config)) == ["360p"]
    none = plan(video(), config=config, priority=PriorityClass.AFFILIATE)
    assert none.is_empty
    assert none.notes == ("class affiliate has no ladder",)


def test_sound() -> None:
    assert plan(video(), audio()).audio == ()
    assert plan(video(), audio()).audio_only_track_id == 2
    opus = plan(video(), audio(Codec.OPUS))
    assert [(r.sample_rate, r.channels, r.bitrate_bps) for r in opus.audio] == [
        (48_000, 2, 128_000)
    ]
    assert opus.audio_only_track_id == opus.audio[0].track_id
    mono = plan(video(), audio(Codec.OPUS, channels=1))
    assert mono.audio[0].bitrate_bps == 64_000
    assert plan(video(), audio(channels=6)).audio[0].channels == 2
    assert plan(audio(Codec.OPUS)).audio_only_track_id is None, "there is nothing else"
    assert plan(video()).audio_only_track_id is None
    assert plan(audio(), config=LadderConfig(audio_only=False)).is_empty


def test_the_best_preset_that_fits_then_fewer_rungs() -> None:
    costs: list[float] = []
    presets: list[str] = []
    for cost_max in (200, 50, 40, 30, 20, 10, 4, 1):
        found = plan(video(), budget=LadderBudget(cost_max=cost_max))
        assert found.cost <= cost_max
        costs.append(found.cost)
        presets.append(found.video[0].preset if found.video else "")
    assert presets[0] == "veryfast"
    assert "ultrafast" in presets
    assert presets[-1] == "", "decoding alone is more"
    fixed = plan(video(), config=LadderConfig(preset="fast"), budget=LadderBudget(cost_max=40))
    assert {rung.preset for rung in fixed.video} <= {"fast"}
    assert any("does not fit a budget of 40" in note for note in fixed.notes)


def test_threads() -> None:
    several = LadderBudget(cost_max=800, core_max=100, cores=8)
    small = plan(video(), budget=several)
    assert (small.encode_threads, small.decode_threads) == (1, 1), "a core does it, without delay"
    assert {rung.preset for rung in small.video} == {"veryfast"}
    fast = plan(video(fps=Fraction(60)), budget=several)
    assert (fast.encode_threads, fast.decode_threads) == (1, 2)
    large = plan(video(3840, 2160, Fraction(60)), budget=several)
    assert (large.encode_threads, large.decode_threads) == (2, 2)
    lines = explain_ladder(large)
    assert any("2 decode, 2 encode each rung, which comes 2 pictures later" in n for n in lines)
    assert plan(video(fps=Fraction(60)), budget=ONE_CORE).encode_threads == 1


ONE_CORE = LadderBudget(cost_max=100, core_max=100)
MANY_CORES = configured_capacity(3200, 32).budget
DEFAULT = ["1080p", "720p", "480p", "360p", "160p"]


@pytest.mark.parametrize("fps", [30, 60])
@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265, Codec.AV1])
@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (2560, 1440), (3840, 2160)])
def test_with_cores_enough_every_source_has_its_ladder(
    width: int, height: int, codec: Codec, fps: int
) -> None:
    found = plan(video(width, height, Fraction(fps), codec), budget=MANY_CORES)
    is_small = height == 1080 and codec is Codec.H264
    assert [rung.name for rung in found.video] == DEFAULT[is_small:]
    assert {rung.preset for rung in found.video} <= {"veryfast", "superfast"}
    hardware = msgspec.structs.replace(MANY_CORES, encoders=("h264_nvenc", X264))
    found = plan(video(width, height, Fraction(fps), codec), budget=hardware)
    assert [rung.name for rung in found.video] == DEFAULT[is_small:]


def test_a_better_preset_takes_no_more_than_a_quarter_of_the_machine() -> None:
    source = video(fps=Fraction(60))
    found = {
        cores: plan(source, budget=configured_capacity(100 * cores, cores).budget)
        for cores in (1, 2, 4, 8)
    }
    assert {found[cores].video[0].preset for cores in (1, 2, 4)} == {"superfast"}
    assert {found[cores].encode_threads for cores in (1, 2, 4)} == {1}
    assert (found[8].video[0].preset, found[8].decode_threads) == ("veryfast", 2)


def test_what_no_threads_can_do_is_said() -> None:
    found = plan(
        video(7680, 4320, Fraction(60), Codec.AV1), budget=configured_capacity(9000, 90).budget
    )
    assert found.is_empty
    assert "160p: decoding of 995 is too much for 4 threads of 100" in found.notes


def test_encoders() -> None:
    assert choose_encoder("auto", RICH)[0] == X264
    budget = LadderBudget(
        encoders=("h264_qsv", X264), missing={"h264_nvenc": "does not open: no device"}
    )
    assert choose_encoder("auto", budget) == ("h264_qsv", "encoder h264_qsv: found here")
    assert choose_encoder("nvenc", budget) == (
        X264,
        "encoder x264, not nvenc as configured: does not open: no device",
    )
    assert choose_encoder("x264", budget) == (X264, "encoder x264, as configured")
    found = plan(video(), budget=msgspec.structs.replace(budget, cost_max=1e9))
    assert found.encoder == "h264_qsv"
    assert found.cost < plan(video()).cost
    assert {rung.preset for rung in found.video} == {""}


def test_what_cannot_be_decoded() -> None:
    assert plan(video(codec=Codec.VP8)).is_empty
    assert any("is more than is decoded" in n for n in plan(video(16_384, 8_192)).notes)
    assert "no picture to make rungs of" in plan(audio()).notes


def test_ids_of_rungs_are_no_publisher_s() -> None:
    found = plan(video(track_id=0x4000), audio(Codec.OPUS, track_id=0xFFFF))
    assert found.is_empty
    assert "track 65535: ids from 16384 on are for rungs" in found.notes


def test_it_explains_itself() -> None:
    lines = explain_ladder(plan(video(fps=Fraction(60)), audio(Codec.OPUS)))
    assert lines[0].startswith("720p: 1280x720, 60 fps, 3360 kbps (up to 3696), High@3.2, libx264")
    assert "aac-2: AAC-LC of track 2, 48000 Hz, 2 ch, 128 kbps" in lines
    assert any(line.startswith("cost ") for line in lines)
    assert "audio only: track 20482" in lines
    assert "rate as the source's" in explain_ladder(plan(video(fps=Fraction(0))))[0]


def test_configurations() -> None:
    with pytest.raises(ValueError, match="from large to small"):
        LadderConfig(rungs=(RungConfig(height=360, kbps=700), RungConfig(height=720, kbps=2400)))
    text = b'rungs = [{height = 480, kbps = 1000, classes = ["partner"]}]\nencoder = "nvenc"\n'
    config = msgspec.toml.decode(text, type=LadderConfig)
    assert config.rungs[0].classes == ("partner",)
    for bad in (b"rungs = [{height = 480}]", b"colour = 1", b'classes = ["vip"]'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.toml.decode(bad, type=LadderConfig)
    six = b"rungs = [" + b",".join(b"{height = %d, kbps = 99}" % n for n in range(1000, 400, -100))
    with pytest.raises(msgspec.ValidationError):
        msgspec.toml.decode(six + b"]", type=LadderConfig)


@hypothesis.given(
    width=st.integers(1, 8192),
    height=st.integers(1, 4352),
    fps=st.sampled_from([Fraction(0), Fraction(24), Fraction(30_000, 1001), Fraction(60)])
    | st.fractions(1, 240),
    codec=st.sampled_from([Codec.H264, Codec.H265, Codec.AV1, Codec.VP9, Codec.VP8]),
    cost_max=st.floats(1, 1000),
    cores=st.integers(1, 64),
)
def test_whatever_the_source(
    *,
    width: int,
    height: int,
    fps: Fraction,
    codec: Codec,
    cost_max: float,
    cores: int,
) -> None:
    found = plan(
        video(width, height, fps, codec),
        budget=LadderBudget(cost_max=cost_max, core_max=cost_max / cores, cores=cores),
    )
    assert found.cost <= cost_max
    assert len(found.video) <= 5
    assert len(explain_ladder(found)) >= len(found.video)
    assert 1 <= found.encode_threads <= 4
    assert 1 <= found.decode_threads <= 4
    for rung in found.video:
        assert rung.width % 2 == rung.height % 2 == 0
        assert rung.width <= max(width + 1, 32)
        assert rung.height <= max(height + 1, 32)
        assert 20 <= rung.level <= 62
        assert rung.preset in PRESET_COSTS
        assert 0 < rung.bitrate_bps < rung.maxrate_bps == rung.buffer_bits
        assert rung.cost > 0
        rate = Fraction(rung.frame_rate_num, rung.frame_rate_den)
        limit = 60 if int(rung.name[:-1]) >= 720 else 30
        assert rate <= limit * Fraction(21, 20)
        if fps and not rung.spacing_ticks:
            assert rate == fps
    assert len({rung.track_id for rung in found.video}) == len(found.video)
    for upper, lower in itertools.pairwise(found.video):
        assert lower.width * lower.height < upper.width * upper.height
        assert lower.bitrate_bps < upper.bitrate_bps
    assert found == plan(
        video(width, height, fps, codec),
        budget=LadderBudget(cost_max=cost_max, core_max=cost_max / cores, cores=cores),
    )


def test_the_usual_ladder_is_that_of_1080p30() -> None:
    plan = usual_ladder(LadderConfig(), LadderBudget(cost_max=100))
    assert [rung.name for rung in plan.video] == ["720p", "480p", "360p", "160p"]
    assert 60 < plan.cost < 90
    assert usual_ladder(LadderConfig(classes=()), LadderBudget()).is_empty
