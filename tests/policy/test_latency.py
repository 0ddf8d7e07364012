"""The latency classes, from an origin's configuration to what playlists say."""

import math

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.latency import LATENCY_LABELS, Latency
from edged.media.parts import PackagedEvent, Part, Rendition, SegmentEnded
from edged.media.stream import StreamId
from edged.policy.latency import (
    ClassConfig,
    PackagerConfig,
    choose_latency,
    describe_latency,
    find_label_problem,
    segmenter_config,
)
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.splice import Resumed, read_state, save
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.policy.window_replay import make_replay
from edged.wire.m3u8 import render_media_playlist
from edged.wire.m3u8_reader import ReadMedia, read_media
from tests.policy.synthetic import (
    RATES,
    CmafWriter,
    audio_track,
    audio_units,
    in_order,
    segment,
    video_times,
    video_track,
    video_units,
)
from tests.policy.test_rung_segmenter import encode
from tests.policy.test_rung_segmenter import run as run_with_rungs
from tests.policy.window_events import init, make_window, part, rendition, whole

US = 1_000_000
STREAM = StreamId(channel="ch", publication=1)
WINDOW = WindowLimits(playlist_s=12.0)


def test_what_the_classes_are() -> None:
    config = PackagerConfig()
    told = {label: describe_latency(choose_latency(config, label)[0]) for label in LATENCY_LABELS}
    assert told == {
        "default": "default: segments of 2 s, parts of 200 ms",
        "low": "low: segments of 1 s, parts of 200 ms",
        "ultra": "ultra: segments of 1 s, parts of 100 ms",
        "standard": "standard: segments of 2 s, no parts",
    }
    assert all(choose_latency(config, label)[1] == "" for label in LATENCY_LABELS)
    assert choose_latency(config, "default")[0] == SegmenterConfig(), "as it was before classes"


@pytest.mark.parametrize("label", ["", "LOW", "fast", "classes", "part_ms", "x" * 1000])
def test_an_unknown_class_is_the_default_and_named(label: str) -> None:
    chosen, problem = choose_latency(PackagerConfig(part_ms=333), label)
    assert (chosen.part_ms, chosen.latency.name) == (333, "default")
    assert problem == find_label_problem(label)
    assert problem == f"{label[:40]!r} is none of default, low, ultra, standard"


def test_each_figure_can_be_another() -> None:
    raw = {
        "part_ms": 300,
        "hold_back_s": 20,
        "classes": {
            "ultra": {"part_ms": 60, "part_hold_back_ms": 400},
            "standard": {"segment_s": 4.0, "part_hold_back_ms": 400, "hold_back_s": 30},
        },
    }
    config = msgspec.convert(raw, PackagerConfig)
    ultra, _ = choose_latency(config, "ultra")
    assert (ultra.part_ms, ultra.segment_s, ultra.target_duration_s) == (60, 1.0, 2)
    assert ultra.latency == Latency(name="ultra", part_hold_back_ms=400)
    standard, _ = choose_latency(config, "standard")
    assert standard.latency == Latency(name="standard", parts=False, hold_back_s=30)
    assert choose_latency(config, "low")[0].part_ms == 200, "a class of its own"
    assert choose_latency(config, "default")[0].latency == Latency(hold_back_s=20)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"segment_s": 5.0}, r"segment_s 5\.0 exceeds target_duration_s 4"),
        ({"classes": {"low": {"segment_s": 2.5}}}, r"segment_s 2\.5 exceeds target_duration_s 2"),
        ({"part_s": 1}, "unknown field `part_s`"),
        ({"classes": {"turbo": {}}}, "unknown field `turbo`"),
        ({"classes": {"low": {"part_ms": 49}}}, "50"),
    ],
)
def test_what_cannot_be(raw: dict[str, object], why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert(raw, PackagerConfig)


@st.composite
def figures(draw: st.DrawFn) -> SegmenterConfig:
    segment_s = draw(st.sampled_from((1.0, 1.5, 2.0, 3.0)))
    config = ClassConfig(
        part_ms=draw(st.sampled_from((50, 100, 150, 200, 500, 1000))),
        segment_s=segment_s,
        target_duration_s=draw(st.integers(math.ceil(segment_s), 5)),
        parts=draw(st.booleans()),
        part_hold_back_ms=draw(st.sampled_from((0, 100, 5000))),
        hold_back_s=draw(st.sampled_from((0, 1, 60))),
    )
    return segmenter_config(config, draw(st.sampled_from(LATENCY_LABELS)))


def read(window: StreamWindow, name: str, *, delta: bool = False) -> ReadMedia | None:
    playlist = window.media_playlist(name)
    return None if playlist is None else read_media(render_media_playlist(playlist, delta=delta))


def check_playlist(config: SegmenterConfig, playlist: ReadMedia) -> None:
    """What viewers are told is of the class, and nothing else."""
    target_s = config.target_duration_s
    assert playlist.target_duration_s == target_s
    wanted_s = max(3 * target_s, config.latency.hold_back_s)
    assert playlist.seconds("HOLD-BACK") == wanted_s, "RFC 8216bis §4.4.3.8"
    assert playlist.seconds("CAN-SKIP-UNTIL") == 6 * target_s
    if config.latency.parts:
        assert playlist.part_target_us is not None
        assert playlist.part_target_us >= config.part_ms * 1000
        hold_back_s = playlist.seconds("PART-HOLD-BACK")
        assert hold_back_s is not None
        assert hold_back_s * US >= 3 * playlist.part_target_us
        assert hold_back_s * 1000 >= config.latency.part_hold_back_ms
        return
    assert playlist.part_target_us is None
    assert not {"EXT-X-PART", "EXT-X-PART-INF", "EXT-X-PRELOAD-HINT"} & playlist.tags.keys()
    assert "PART-HOLD-BACK" not in playlist.control
    assert all(segment.is_whole for segment in playlist.segments)
    assert all(report.last_part is None for report in playlist.reports)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    figures(), st.sampled_from(sorted(RATES)), st.sampled_from((1.0, 2.0)), st.booleans()
)
def test_playlists_are_of_their_class(
    config: SegmenterConfig, rate: str, gop_s: float, reorder: bool
) -> None:
    times = video_times(RATES[rate], 12.0)
    video = video_units(times, gop_s, reorder=6000 if reorder else 0)
    units = in_order((90_000, video), (48_000, audio_units(12.0)))
    run = segment((video_track(RATES[rate]), audio_track()), units, config=config)
    window = StreamWindow(STREAM, WINDOW)
    versions: dict[str, tuple[int, bytes]] = {}
    ended: dict[str, int] = {}
    for event in run.events:
        window.add(event)
        if isinstance(event, SegmentEnded):
            ended[event.rendition] = event.msn
        for name, rendition_window in window.renditions.items():
            playlist = window.media_playlist(name)
            if playlist is None:
                continue
            text = render_media_playlist(playlist)
            version, known = versions.setdefault(name, (rendition_window.version, text))
            if version == rendition_window.version:
                same = [line for line in text.split(b"\n") if b"REPORT" not in line]
                assert same == [line for line in known.split(b"\n") if b"REPORT" not in line]
            versions[name] = rendition_window.version, text
            read_back = read_media(text)
            check_playlist(config, read_back)
            if not config.latency.parts and window.ended is None:
                assert read_back.last_whole == ended[name], "each segment, as soon as it is whole"
    for name in window.renditions:
        delta = read(window, name, delta=True)
        assert delta is not None
        check_playlist(config, delta)
        assert {p.rendition.latency for p in window.renditions.values()} == {config.latency}


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(figures(), st.floats(0.2, 0.9))
def test_a_successor_goes_on_by_the_figures_of_the_first(
    config: SegmenterConfig, share: float
) -> None:
    times = video_times(RATES["30"], 9.0)
    units = in_order((90_000, video_units(times, 1.0)), (48_000, audio_units(9.0)))
    tracks = (video_track(RATES["30"]), audio_track())
    whole_run = segment(tracks, units, config=config)
    cut = int(len(units) * share)
    before = segment(tracks, units[:cut], config=config, end=False)
    state = read_state(save(before.segmenter))
    resumed = Resumed(state, CmafWriter())
    assert resumed.segmenter.config == config
    events: list[PackagedEvent] = list(before.events)
    for unit in units[state.packaged_seq + 1 :]:
        if not resumed.takes(unit):
            events += resumed.segmenter.add_unit(unit)
    events += resumed.segmenter.end("over")
    assert [e for e in events if isinstance(e, Part | SegmentEnded)] == [
        e for e in whole_run.events if isinstance(e, Part | SegmentEnded)
    ]


STANDARD = Latency(name="standard", parts=False)


def make_standard(*events: PackagedEvent | list[PackagedEvent]) -> StreamWindow:
    """A window of one rendition without parts."""
    return make_window([rendition(latency=STANDARD), init()], *events, names=())


def test_a_segment_that_grows_is_not_told_of() -> None:
    window = make_standard([part(0, index) for index in range(4)])
    assert window.media_playlist("v0") is None
    assert not window.started
    version = window.renditions["v0"].version
    window.add(part(0, 4))
    assert window.renditions["v0"].version == version, "nothing that viewers see has changed"
    window.add(SegmentEnded(rendition="v0", msn=0, parts=5, duration=2000))
    assert window.renditions["v0"].version > version
    assert window.started
    playlist = window.media_playlist("v0")
    assert playlist is not None
    assert [entry.msn for entry in playlist.segments] == [0]
    assert (playlist.part_target_us, playlist.hint_uri) == (0, None)
    window.add(part(1, 0))
    assert not window.is_hinted("v0-1.1.m4s")
    playlist = window.media_playlist("v0")
    assert playlist is not None
    assert [entry.msn for entry in playlist.segments] == [0]


def test_item_20_a_playlist_of_whole_segments_is_never_shorter_than_three_targets() -> None:
    window = make_standard()
    for msn in range(20):
        for event in whole(msn):
            window.add(event)
            playlist = window.media_playlist("v0")
            if playlist is not None and playlist.segments[0].msn > 0:
                assert sum(entry.duration_us for entry in playlist.segments) >= 12 * US


def test_a_replay_gives_a_late_pop_the_segment_that_grows() -> None:
    window = make_standard(whole(0), whole(1), [part(2, 0), part(2, 1)])
    late = StreamWindow(STREAM)
    for event in make_replay(window):
        late.add(event)
    for each in (window, late):
        for event in (part(2, 2), part(2, 3), part(2, 4), whole(2)[-1]):
            each.add(event)
    assert render(late) == render(window)
    assert late.segment("v0", 2) is not None


def render(window: StreamWindow) -> bytes:
    playlist = window.media_playlist("v0")
    assert playlist is not None
    return render_media_playlist(playlist)


def test_a_run_that_ends_has_all_that_there_was() -> None:
    window = make_standard(whole(0), [part(1, 0)])
    for rendition_window in window.renditions.values():
        rendition_window.end()
    text = render(window)
    assert b"v0-1.m4s" in text
    assert b"EXT-X-PART" not in text


def test_a_latency_of_its_own_is_refused() -> None:
    window = make_standard()
    with pytest.raises(RemoteProtocolError, match="'a0' has a latency of its own, 'default'"):
        window.add(rendition("a0"))
    with pytest.raises(RemoteProtocolError, match="changed its fixed times"):
        window.add(rendition())


@pytest.mark.parametrize("label", LATENCY_LABELS)
def test_rungs_are_of_their_source_s_class(label: str) -> None:
    """The window that `run` has would refuse another latency, or another target duration."""
    config, _ = choose_latency(PackagerConfig(), label)
    units = in_order(
        (90_000, video_units(video_times(RATES["30"], 8.0), 1.0)), (48_000, audio_units(8.0))
    )
    tracks = [video_track(RATES["30"]), audio_track()]
    outcome = run_with_rungs(tracks, units, encode(units), config=config)
    announced = {e.name: e for e in outcome.events if isinstance(e, Rendition)}
    assert announced.keys() == {"v0", "a0", "v480"}
    assert {each.latency for each in announced.values()} == {config.latency}
    assert announced["v480"].part_target_us == announced["v0"].part_target_us
    whole_msns = set(outcome.segments("v0")) & set(outcome.segments("v480"))
    assert len(whole_msns) >= 3
    assert all(outcome.starts("v480")[m] == outcome.starts("v0")[m] for m in whole_msns)
