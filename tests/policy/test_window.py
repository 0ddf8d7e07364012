import time

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.parts import PackagedEvent, Part, StreamEnded
from edged.policy import window as window_module
from edged.policy.rendition_window import PARTS_MAX
from edged.policy.window import INIT_BYTES_MAX, RENDITIONS_MAX
from edged.policy.window_limits import WindowLimits
from edged.policy.window_replay import make_replay
from edged.wire.m3u8 import render_media_playlist
from tests.policy.window_events import (
    DIGEST,
    OTHER_DIGEST,
    ended,
    feed,
    init,
    make_window,
    part,
    rendition,
    whole,
)

BOTH = ("v0", "a0")


def test_look_ups() -> None:
    window = make_window(whole(0), part(1, 0))
    assert window.prefix == "ab"
    assert window.part("v0", 0, 3) == part(0, 3)
    assert window.part("v0", 0, 5) is None
    assert window.part("v0", 0, -1) is None
    assert window.part("v0", 7, 0) is None
    assert window.part("x0", 0, 0) is None
    assert window.segment("v0", 0) == [part(0, index).payload for index in range(5)]
    assert window.segment("v0", 1) is None, "still growing"
    assert window.segment("v0", 2) is None
    assert window.segment("x0", 0) is None
    assert window.init("v0", DIGEST) == bytes(10)
    assert window.init("v0", OTHER_DIGEST) is None
    assert window.init("x0", DIGEST) is None


def test_a_segments_body_is_not_a_copy() -> None:
    window = make_window(whole(0))
    body = window.segment("v0", 0)
    assert body is not None
    for index in range(5):
        held = window.part("v0", 0, index)
        assert held is not None
        assert body[index] is held.payload


def test_item_24_only_what_is_promised_is_hinted() -> None:
    window = make_window(part(0, 0), part(0, 0, "a0"), names=BOTH)
    assert window.is_hinted("v0-0.1.m4s")
    assert window.is_hinted("a0-0.1.m4s")
    for name in ("v0-0.0.m4s", "v0-0.2.m4s", "v0-1.0.m4s", "v0-0.m4s", "x0-0.1.m4s", ""):
        assert not window.is_hinted(name)
    feed(window, part(0, 1, next_msn=1, next_index=0))
    assert window.is_hinted("v0-1.0.m4s")
    feed(window, part(0, 2))
    assert not window.is_hinted("v0-1.0.m4s"), "abandoned"
    feed(window, StreamEnded(reason="over"))
    assert not window.is_hinted("v0-0.3.m4s")


def test_item_22_a_new_init_is_hinted_until_its_part_comes() -> None:
    window = make_window(whole(0), init(digest=OTHER_DIGEST))
    playlist = window.media_playlist("v0")
    assert playlist is not None
    assert playlist.hint_init_uri == f"v0-{OTHER_DIGEST}.mp4"
    assert window.is_hinted(playlist.hint_init_uri)
    feed(window, part(1, 0, init_digest=OTHER_DIGEST))
    playlist = window.media_playlist("v0")
    assert playlist is not None
    assert playlist.hint_init_uri is None


def test_item_20_a_segment_is_kept_beyond_the_playlist_for_its_length_and_more() -> None:
    window = make_window()
    shown = window.renditions["v0"]
    removed_at: dict[int, int] = {}
    longest = 0
    for msn in range(120):
        before = {segment.entry.msn for segment in shown.listed}
        feed(window, whole(msn))
        listed = {segment.entry.msn for segment in shown.listed}
        longest = max(longest, shown.listed_us)
        removed_at |= dict.fromkeys(before - listed, msn)
        assert msn < 15 or shown.listed_us >= 30_000_000
        assert listed == set(range(min(listed), msn + 1))
        for gone, at in removed_at.items():
            if (msn - at) * 2_000_000 <= 90_000_000 - 2_000_000:
                assert window.segment("v0", gone) is not None
    assert 2_000_000 + longest <= 88_000_000, "what RFC 8216bis §6.2.2 asks for, with much to spare"
    assert 0 not in shown.segments
    assert len(shown.segments) <= 15 + 46


def test_item_20_the_playlist_is_never_shorter_than_three_target_durations() -> None:
    window = make_window(limits=WindowLimits(playlist_s=1.0, retention_s=0.0))
    feed(window, *[whole(msn) for msn in range(30)])
    assert window.renditions["v0"].listed_us == 12_000_000
    assert len(window.renditions["v0"].segments) == 6


@pytest.mark.parametrize("target_s", [1, 4, 20])
@pytest.mark.parametrize("retention_s", [1.0, 22.0])
def test_item_20_holds_whatever_the_target_duration(target_s: int, retention_s: float) -> None:
    """Also where the configuration asks for less: it does not know the streams."""
    window = make_window(names=(), limits=WindowLimits(playlist_s=12.0, retention_s=retention_s))
    feed(window, rendition(target_duration_s=target_s), init())
    shown = window.renditions["v0"]
    left: dict[int, float] = {}
    edge_s = longest_s = 0.0
    for msn in range(60):
        duration = target_s * (1000 if msn % 3 else 700)
        for index in range(5):
            feed(window, part(msn, index, duration=duration // 5))
            edge_s += duration / 5000
            longest_s = max(longest_s, shown.listed_us / 1e6)
            for segment in list(shown.segments.values())[: len(shown.segments) - len(shown.listed)]:
                left.setdefault(segment.entry.msn, edge_s)
            for gone in [gone for gone in left if gone not in shown.segments]:
                assert edge_s - left.pop(gone) >= target_s + longest_s
        feed(window, ended(msn, duration=duration))
    assert 0 not in shown.segments


def test_bytes_are_bounded_and_the_oldest_go_first() -> None:
    limits = WindowLimits(payload_bytes_max=2000)
    window = make_window(names=BOTH, limits=limits)
    assert window.segments_evicted_early == 0
    for msn in range(40):
        feed(window, whole(msn), whole(msn, "a0"))
        assert window.payload_bytes <= 2000
    assert window.segments_evicted_early > 0
    for name in BOTH:
        held = list(window.renditions[name].segments)
        assert held[-1] == 39
        assert held == list(range(held[0], 40))


def test_what_no_player_may_ask_for_goes_before_what_one_may() -> None:
    """All renditions keep the same seconds: two whose rates differ, and audio."""
    names = ("v0", "v1", "a0")
    limits = WindowLimits(playlist_s=12.0, retention_s=90.0, payload_bytes_max=32_000)
    window = make_window(names=names, limits=limits)
    for msn in range(60):
        feed(window, whole(msn, payload=bytes(200)), whole(msn, "v1", payload=bytes(90)))
        feed(window, whole(msn, "a0", payload=bytes(10)))
        assert window.payload_bytes <= 32_000
    assert window.segments_evicted_early > 0
    assert window.segments_evicted_needed == 0
    kept_s = [window.renditions[name].kept_us / 1e6 for name in names]
    assert max(kept_s) - min(kept_s) <= 2
    assert min(kept_s) >= window.needed_us(window.renditions["v0"]) / 1e6 - 2
    feed(window, *[whole(msn, payload=bytes(700)) for msn in range(60, 90)])
    assert window.segments_evicted_needed > 0


@pytest.mark.parametrize("excess", [0, 1])
def test_one_segment_at_the_byte_limit_and_one_past_it(excess: int) -> None:
    window = make_window(limits=WindowLimits(payload_bytes_max=10 + 300 - excess))
    feed(window, part(0, 0), part(0, 1))
    if excess:
        with pytest.raises(RemoteProtocolError, match="one segment a rendition is 310 bytes"):
            window.add(part(0, 2))
    else:
        assert window.add(part(0, 2))


def test_ready_when_all_renditions_have_a_whole_segment() -> None:
    window = make_window(names=BOTH)
    assert not window.ready
    assert window.multivariant_playlist() is None
    assert window.media_playlist("v0") is None
    assert window.media_playlist("x0") is None
    feed(window, whole(0)[:-1], whole(0, "a0")[:-1])
    assert not window.ready, "all their parts, but no whole segment"
    feed(window, ended(0))
    assert not window.ready
    feed(window, ended(0, "a0"))
    assert window.ready
    playlist = window.multivariant_playlist()
    assert playlist is not None
    assert [variant.uri for variant in playlist.variants] == ["ab/v0.m3u8"]
    assert [audio.uri for audio in playlist.audio] == ["ab/a0.m3u8"]


def test_ready_with_the_first_whole_segment_of_the_only_rendition() -> None:
    assert not make_window(names=()).ready
    window = make_window(whole(0)[:-1])
    assert not window.ready
    feed(window, ended(0))
    assert window.ready


@pytest.mark.parametrize("name", BOTH)
def test_ready_without_a_silent_rendition_after_two_whole_segments(name: str) -> None:
    window = make_window(whole(0, name), names=BOTH)
    assert not window.ready, "the other may still come"
    feed(window, whole(1, name)[:-1])
    assert not window.ready
    feed(window, ended(1, name))
    assert window.ready
    playlist = window.multivariant_playlist()
    assert playlist is not None
    assert [variant.uri for variant in playlist.variants] == [f"ab/{name}.m3u8"]
    assert playlist.audio == []


def test_a_second_segment_that_grows_does_not_make_it_ready() -> None:
    window = make_window(whole(0), part(1, 0), part(0, 0, "a0"), names=BOTH)
    assert not window.ready
    feed(window, ended(0, "a0", parts=1, duration=400))
    assert window.ready


def test_started_when_all_renditions_have_media_or_one_a_whole_segment() -> None:
    assert not make_window(names=()).started
    window = make_window(names=BOTH)
    assert not window.started
    feed(window, part(0, 0, "a0"))
    assert not window.started
    feed(window, part(0, 0))
    assert window.started
    window = make_window(whole(0)[:-1], names=BOTH)
    assert not window.started, "audio may still come"
    feed(window, ended(0))
    assert window.started
    assert not window.ready


def test_not_ready_when_it_ended_without_media() -> None:
    window = make_window(StreamEnded(reason="changed its mind"), names=BOTH)
    assert not window.ready
    assert not window.started
    assert window.multivariant_playlist() is None


def test_ready_when_it_has_ended() -> None:
    window = make_window(part(0, 0), names=BOTH)
    assert not window.ready
    feed(window, StreamEnded(reason="over"))
    assert window.ready
    assert not window.add(part(0, 1))
    assert not window.add(StreamEnded(reason="again"))
    assert window.ended == StreamEnded(reason="over")


def test_versions_of_the_multivariant_playlist() -> None:
    window = make_window(names=BOTH)
    seen = [window.version]
    for event in (part(0, 0), part(0, 0, "a0"), rendition(width=640)):
        window.add(event)
        seen.append(window.version)
    assert seen == sorted(set(seen))
    feed(window, ended(0, parts=1, duration=400), part(1, 0), rendition(width=640))
    assert window.version == seen[-1] + 1, "a0 is left out now; the bit rate is the same"


@pytest.mark.parametrize(
    ("duration", "changes"), [(1819, False), (1817, True), (2222, False), (2224, True)]
)
def test_a_bit_rate_a_tenth_off_makes_a_new_multivariant_playlist(
    duration: int, changes: bool
) -> None:
    window = make_window(part(0, 0))
    version = window.version
    feed(window, whole(0)[1:-1], ended(0, duration=duration))
    assert (window.version > version) == changes


def test_item_30_multivariant() -> None:
    window = make_window(whole(0), whole(0, "a0"), whole(0, "a1"), names=(*BOTH, "a1"))
    feed(window, rendition("a1", codec_string="opus", language="fra", channels=6))
    feed(window, rendition(width=1280, height=720, frame_rate_num=30_000, frame_rate_den=1001))
    playlist = window.multivariant_playlist()
    assert playlist is not None
    (variant,) = playlist.variants
    assert variant.codecs == ("avc1.64001f", "mp4a.40.2", "opus")
    assert (variant.width, variant.height) == (1280, 720)
    assert (variant.frame_rate_num, variant.frame_rate_den) == (30_000, 1001)
    assert variant.bandwidth_bps == variant.bandwidth_bps_mean == 2000 + 2000
    assert [(a.uri, a.default, a.language, a.channels) for a in playlist.audio] == [
        ("ab/a0.m3u8", True, "und", 0),
        ("ab/a1.m3u8", False, "fra", 6),
    ]


def codecs_of(window: window_module.StreamWindow) -> list[tuple[str, ...]]:
    playlist = window.multivariant_playlist()
    assert playlist is not None
    return [variant.codecs for variant in playlist.variants]


def test_item_30_codecs_name_every_format_that_is_listed() -> None:
    window = make_window(whole(0), whole(0, "a0"), names=BOTH)
    feed(window, rendition(codec_string="avc1.640028"), init(digest=OTHER_DIGEST))
    feed(window, rendition("a0", codec_string="opus"), init("a0", digest=OTHER_DIGEST))
    for msn in (1, 2):
        for name in BOTH:
            feed(window, whole(msn, name, init_digest=OTHER_DIGEST))
    everything = ("avc1.640028", "avc1.64001f", "opus", "mp4a.40.2")
    assert codecs_of(window) == [everything]
    late = make_window(make_replay(window), names=())
    assert codecs_of(late) == [everything], "a late PoP says the same"
    assert late.renditions["v0"].rendition == window.renditions["v0"].rendition
    versions = []
    for msn in range(3, 17):
        for name in BOTH:
            feed(window, whole(msn, name, init_digest=OTHER_DIGEST))
        versions.append(window.version)
    assert codecs_of(window) == [("avc1.640028", "opus")], "the first segment has left"
    assert versions[-1] > versions[0], "so there is a new multivariant playlist"


def test_item_30_a_format_that_comes_back_is_named_once() -> None:
    window = make_window(whole(0), rendition(codec_string="hvc1.1"), init(digest=OTHER_DIGEST))
    feed(window, whole(1, init_digest=OTHER_DIGEST), rendition(), init(), whole(2))
    assert codecs_of(window) == [("avc1.64001f", "hvc1.1")]
    assert codecs_of(make_window(make_replay(window), names=())) == [("avc1.64001f", "hvc1.1")]


def test_item_30_audio_alone_is_a_variant() -> None:
    playlist = make_window(whole(0, "a0"), names=("a0",)).multivariant_playlist()
    assert playlist is not None
    assert playlist.audio == []
    (variant,) = playlist.variants
    assert (variant.uri, variant.codecs) == ("ab/a0.m3u8", ("mp4a.40.2",))


def test_item_28_reports() -> None:
    window = make_window(part(0, 0), part(0, 0, "a0"), part(0, 1, "a0"), names=BOTH)
    playlist = window.media_playlist("v0")
    assert playlist is not None
    (report,) = playlist.reports
    assert (report.uri, report.last_msn, report.last_part) == ("a0.m3u8", 0, 1)
    feed(window, ended(0, "a0", parts=2), ended(1, "a0", parts=0))
    playlist = window.media_playlist("v0")
    assert playlist is not None
    assert (playlist.reports[0].last_msn, playlist.reports[0].last_part) == (1, None)


def test_item_13_a_longer_part_target_changes_all_playlists() -> None:
    window = make_window(part(0, 0))
    version = window.renditions["v0"].version
    feed(window, rendition("a0", part_target_us=500_000))
    assert window.renditions["v0"].version == version + 1
    playlist = window.media_playlist("v0")
    assert playlist is not None
    assert playlist.part_hold_back_us == 1_500_000
    assert playlist.part_target_us == 400_000


def texts(window: window_module.StreamWindow) -> list[bytes]:
    playlists = [window.media_playlist(name) for name in BOTH]
    return [render_media_playlist(playlist) for playlist in playlists if playlist is not None]


def test_a_replay_gives_the_same_playlists() -> None:
    window = make_window(names=BOTH)
    for msn in range(25):
        feed(window, whole(msn), whole(msn, "a0"))
    feed(window, part(25, 0), part(25, 2), ended(25), ended(26, parts=0), part(27, 0))
    feed(window, part(25, 0, "a0"), init(digest=OTHER_DIGEST))
    late = make_window(make_replay(window), names=())
    assert texts(late) == texts(window)
    assert late.renditions["v0"].segments.keys() < window.renditions["v0"].segments.keys()
    feed(late, make_replay(window))
    assert texts(late) == texts(window)
    feed(window, StreamEnded(reason="over"))
    assert make_replay(window)[-1] == StreamEnded(reason="over")
    late = make_window(make_replay(window), names=())
    assert texts(late) == texts(window)


def test_a_replay_holds_only_the_inits_in_use() -> None:
    window = make_window(whole(0), init(digest=OTHER_DIGEST))
    feed(window, *[whole(msn, init_digest=OTHER_DIGEST) for msn in range(1, 30)])
    assert [e.digest for e in make_replay(window) if hasattr(e, "digest")] == [OTHER_DIGEST]
    assert window.init("v0", DIGEST) is not None, "kept with its segment"


def test_an_init_that_comes_back_is_the_newest_again() -> None:
    window = make_window(whole(0), init(digest=OTHER_DIGEST))
    feed(window, whole(1, init_digest=OTHER_DIGEST))
    assert window.add(init())
    assert window.is_hinted(f"v0-{DIGEST}.mp4")
    assert [e.digest for e in make_replay(window) if hasattr(e, "digest")][-1] == DIGEST
    assert not window.add(init())
    assert window.add(init(digest=OTHER_DIGEST))
    assert not window.is_hinted(f"v0-{DIGEST}.mp4")
    assert not window.is_hinted(f"v0-{OTHER_DIGEST}.mp4"), "the last part has it"


def test_a_run_that_ended_here_only_goes_on() -> None:
    whole_run, window = make_window(names=BOTH), make_window(names=BOTH)
    for msn in range(20):
        for name in BOTH:
            feed(whole_run, whole(msn, name))
            feed(window, whole(msn, name) if msn < 19 else part(msn, 0, name))
    oldest = next(iter(window.renditions["v0"].segments))
    feed(window, StreamEnded(reason="the origin is gone"))
    version = window.version
    window.reopen()
    assert window.version > version
    assert window.ended is None
    assert window.is_hinted("v0-19.1.m4s")
    feed(window, make_replay(whole_run))
    assert texts(window) == texts(whole_run)
    assert next(iter(window.renditions["v0"].segments)) == oldest


def test_inits_leave_with_their_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "INITS_MAX", 2)
    window = make_window(part(0, 0), init(digest=OTHER_DIGEST))
    feed(window, init(digest="a" * 16))
    assert window.init("v0", OTHER_DIGEST) is None, "no segment uses it"
    assert window.payload_bytes == 100 + 20
    feed(window, ended(0, parts=1), part(1, 0, init_digest="a" * 16))
    assert not window.add(init(digest="a" * 16))
    with pytest.raises(RemoteProtocolError, match="more than 2 inits in use"):
        window.add(init(digest="b" * 16))


def test_inits_are_bounded_in_bytes() -> None:
    window = make_window()
    assert window.add(init(digest=OTHER_DIGEST, size=INIT_BYTES_MAX))
    with pytest.raises(RemoteProtocolError, match=f"65537 bytes, limit {INIT_BYTES_MAX}"):
        window.add(init(digest="a" * 16, size=INIT_BYTES_MAX + 1))


def test_renditions_are_bounded() -> None:
    window = make_window(names=tuple(f"v{n}" for n in range(RENDITIONS_MAX)))
    with pytest.raises(RemoteProtocolError, match="'v32' exceeds 32"):
        window.add(rendition("v32"))


@pytest.mark.parametrize("name", ["", "V0", "0v", "v-0", "v/0", "../v", "v" * 17, "v\n"])
def test_names_that_do_not_fit_a_url_are_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError, match="rendition name"):
        make_window().add(rendition(name))


def test_what_an_origin_of_ours_never_sends_is_refused() -> None:
    window = make_window(part(0, 0))
    refused: list[tuple[PackagedEvent, str]] = [
        (part(0, 1, "x0"), "'x0' has not been announced"),
        (ended(0, "x0"), "'x0' has not been announced"),
        (init("x0"), "'x0' has not been announced"),
        (init(digest="../" + "a" * 13), "not 16 hex digits"),
        (part(0, PARTS_MAX), "absurd"),
        (part(0, -1), "absurd"),
        (part(-1, 0), "absurd"),
        (part(0, 1, duration=0), "absurd"),
        (ended(0, parts=PARTS_MAX + 1), f"513 parts, limit {PARTS_MAX}"),
        (ended(0, parts=-1), "-1 parts"),
        (rendition(timescale=90_000), "changed its fixed times"),
        (rendition("v1", timescale=0), "a time of 0 or less"),
        (rendition("v1", part_target_us=0), "a time of 0 or less"),
        (rendition("v1", target_duration_s=5), "a target duration of its own, 5 s"),
    ]
    for event, message in refused:
        with pytest.raises(RemoteProtocolError, match=message):
            window.add(event)
    assert window.add(part(0, PARTS_MAX - 1))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    st.lists(
        st.tuples(st.sampled_from(BOTH), st.integers(0, 30), st.integers(0, 6), st.booleans()),
        max_size=60,
    )
)
def test_any_order_keeps_the_window_whole(wild: list[tuple[str, int, int, bool]]) -> None:
    limits = WindowLimits(playlist_s=12, retention_s=10, payload_bytes_max=3000)
    window = make_window(names=BOTH, limits=limits)
    for name, msn, index, ends in wild:
        window.add(ended(msn, name, parts=index) if ends else part(msn, index, name))
        for shown in window.renditions.values():
            msns, listed = list(shown.segments), [s.entry.msn for s in shown.listed]
            assert msns == sorted(msns)
            assert listed == msns[len(msns) - len(listed) :]
            assert listed == list(range(listed[0], listed[0] + len(listed))) if listed else True
            assert shown.listed_us == sum(s.entry.duration_us for s in shown.listed)
            held = sum(s.payload_bytes for s in shown.segments.values()) + 10
            assert shown.payload_bytes == held
            kept = len(shown.segments) - len(shown.listed)
            lengths = [s.entry.duration_us for s in shown.segments.values()][:kept]
            assert shown.kept_us == sum(lengths)
        assert window.payload_bytes <= 3000
        texts(window)


def test_adding_and_looking_up_cost_little() -> None:
    parts = [event for msn in range(100) for event in whole(msn)]
    window = make_window()
    started = time.process_time()
    for event in parts:
        window.add(event)
    add_s = (time.process_time() - started) / len(parts)
    started = time.process_time()
    for index in range(2000):
        window.part("v0", 95, index % 5)
    look_up_s = (time.process_time() - started) / 2000
    assert add_s < 100e-6, f"{add_s * 1e6:.1f} us"
    assert look_up_s < 5e-6, f"{look_up_s * 1e6:.1f} us"


def test_what_went_missing_is_counted() -> None:
    window = make_window(part(0, 0), part(0, 3), part(0, 0, "a0"), part(0, 2, "a0"), names=BOTH)
    assert window.parts_missing == 3


def test_events_are_shared_and_not_copied() -> None:
    event = part(0, 0)
    window = make_window(event)
    assert window.part("v0", 0, 0) is event
    assert isinstance(event, Part)
    assert msgspec.structs.replace(event) == event


def test_a_rendition_without_a_whole_segment_is_left_out_until_it_has_one() -> None:
    window = make_window(names=BOTH)
    feed(window, part(0, 0, "a0"), *whole(0), *whole(1))
    playlist = window.multivariant_playlist()
    assert playlist is not None
    assert playlist.audio == []
    before = window.version
    feed(window, ended(0, "a0", parts=1))
    assert window.version > before
    playlist = window.multivariant_playlist()
    assert playlist is not None
    assert [audio.name for audio in playlist.audio] == ["a0"]


def test_a_rendition_that_is_away_is_named_nowhere_and_promises_nothing() -> None:
    window = make_window(*whole(0), *whole(0, "v1"), part(1, 0, "v1"), names=("v0", "v1"))
    assert window.is_hinted("v1-1.1.m4s")
    before, own = window.version, window.renditions["v1"].version
    feed(window, rendition("v1", away=True))
    assert window.version > before
    assert window.renditions["v1"].version > own
    listed, playlist = window.multivariant_playlist(), window.media_playlist("v0")
    assert listed is not None
    assert playlist is not None
    assert [variant.uri for variant in listed.variants] == ["ab/v0.m3u8"]
    assert playlist.reports == []
    assert not window.is_hinted("v1-1.1.m4s")
    assert window.part("v1", 1, 0) is not None, "who had its name may still fetch it"
    replayed = make_window(names=())
    feed(replayed, make_replay(window, lists=False, cold=False))
    assert replayed.renditions["v1"].rendition.away
    feed(window, rendition("v1"), part(1, 1, "v1"))
    listed = window.multivariant_playlist()
    assert listed is not None
    assert len(listed.variants) == 2
    assert window.is_hinted("v1-1.2.m4s")


def test_where_all_are_away_all_are_named() -> None:
    window = make_window(*whole(0))
    feed(window, rendition("v0", away=True))
    listed = window.multivariant_playlist()
    assert listed is not None
    assert len(listed.variants) == 1
