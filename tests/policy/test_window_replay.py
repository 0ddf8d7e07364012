"""A late subscriber gets the playlists of now, whatever of them is pushed or listed."""

import hypothesis
import msgspec
from hypothesis import strategies as st

from edged.media.parts import PackagedEvent, Part, SegmentsListed
from edged.policy.rendition_window import RenditionWindow
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.policy.window_replay import (
    DESCRIBING_EVENTS,
    LISTED_EVENT_MAX,
    PUSHED_BYTES_MAX,
    PUSHED_EVENTS_MAX,
    make_replay,
)
from edged.wire.backbone.flows import choose_replay
from edged.wire.backbone.messages import encode_event
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
LIMITS = WindowLimits(playlist_s=60.0, retention_s=100.0, payload_bytes_max=2**30)
Told = list[tuple[object, ...]]


def told(window: RenditionWindow) -> Told:
    """What a playlist says of each segment beside its parts."""
    return [
        (
            e.msn,
            e.uri,
            e.init_uri,
            e.wallclock_us,
            e.discontinuity,
            e.gap,
            e.complete,
            e.duration_us,
        )
        for e in window.shown_entries
    ]


def check_same(late: StreamWindow, early: StreamWindow) -> None:
    for name, window in early.renditions.items():
        assert told(late.renditions[name]) == told(window)
        assert late.renditions[name].discontinuity_sequence == window.discontinuity_sequence
        mine, theirs = late.media_playlist(name), early.media_playlist(name)
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert (mine.hint_uri, mine.reports) == (theirs.hint_uri, theirs.reports)
    assert variants(late) == variants(early)


def variants(window: StreamWindow) -> object:
    """Bandwidths aside: of a segment that is a gap what came of it counts only where it came."""
    made = window.multivariant_playlist()
    if made is None:
        return None
    whole = dict.fromkeys(("bandwidth_bps", "bandwidth_bps_mean"), 0)
    return made.audio, [msgspec.structs.replace(one, **whole) for one in made.variants]


def late_of(events: list[PackagedEvent]) -> StreamWindow:
    return make_window(events, names=(), limits=LIMITS)


def pushed(events: list[PackagedEvent]) -> set[tuple[str, int]]:
    return {(event.rendition, event.msn) for event in events if isinstance(event, Part)}


def texts(window: StreamWindow) -> list[bytes]:
    playlists = [window.media_playlist(name) for name in BOTH]
    return [render_media_playlist(playlist) for playlist in playlists if playlist is not None]


def test_older_segments_are_listed() -> None:
    window = make_window(names=BOTH, limits=LIMITS)
    for msn in range(20):
        feed(window, whole(msn), whole(msn, "a0"))
    feed(window, part(20, 0), part(20, 0, "a0"))
    events = make_replay(window, lists=True, cold=True)
    assert pushed(events) == {(name, msn) for name in BOTH for msn in range(14, 21)}
    late = late_of(events)
    check_same(late, window)
    away = late.renditions["v0"].away
    assert list(away) == list(range(14))
    assert late.away_bytes_of("v0", 13) == 500
    assert (late.segment("v0", 13), late.stored_bytes_of("v0", 13)) == (None, None)
    assert late.away_bytes_of("v0", 14) is None
    assert texts(late) == texts(window), "to the letter, with all parts"
    assert late.ready
    assert not any(late.add(event) for event in make_replay(window, lists=True) if is_media(event))


def is_media(event: PackagedEvent) -> bool:
    return isinstance(event, Part | SegmentsListed)


def test_who_was_there_gets_all_that_there_is_room_for() -> None:
    limits = WindowLimits(playlist_s=100.0, retention_s=200.0, payload_bytes_max=2**30)
    window = make_window(names=BOTH, limits=limits)
    for msn in range(60):
        feed(window, whole(msn), whole(msn, "a0"))
    events = make_replay(window, lists=True)
    count = len([event for event in events if isinstance(event, Part)])
    places = PUSHED_EVENTS_MAX - DESCRIBING_EVENTS * 2
    assert count == places // 12 * 10, "with their ends they are no more than that"
    late = StreamWindow(window.stream_id, limits)
    feed(late, events)
    check_same(late, window)
    assert not [event for event in make_replay(window) if isinstance(event, SegmentsListed)]


def test_large_segments_are_listed_sooner() -> None:
    window = make_window(names=("v0",), limits=LIMITS)
    for msn in range(8):
        feed(window, whole(msn, payload=bytes(2**18)))
    events = make_replay(window, lists=True)
    size = sum(len(event.payload) for event in events if isinstance(event, Part))
    assert PUSHED_BYTES_MAX - 6 * 2**18 <= size <= PUSHED_BYTES_MAX
    check_same(late_of(events), window)


def test_what_is_kept_is_listed_too() -> None:
    """A place that lists more, or whose players had it listed before, can have it."""
    window = make_window(limits=LIMITS)
    for msn in range(70):
        feed(window, whole(msn))
    assert window.renditions["v0"].listed[0].entry.msn == 40
    late = late_of(make_replay(window, lists=True, cold=True))
    check_same(late, window)
    assert late.renditions["v0"].segments.keys() == window.renditions["v0"].segments.keys()


def test_a_long_window_comes_in_several_events() -> None:
    limits = WindowLimits(playlist_s=20_000.0, retention_s=20_020.0, payload_bytes_max=2**30)
    window = make_window(limits=limits)
    for msn in range(LISTED_EVENT_MAX + 9):
        feed(window, [part(msn, 0, duration=2000), ended(msn, parts=1)])
    events = make_replay(window, lists=True, cold=True)
    lists = [len(event.segments) for event in events if isinstance(event, SegmentsListed)]
    assert lists == [LISTED_EVENT_MAX, 2]
    late = StreamWindow(window.stream_id, limits)
    feed(late, events)
    check_same(late, window)


def test_each_rendition_says_what_is_the_oldest() -> None:
    window = make_window(names=BOTH, limits=LIMITS)
    feed(window, whole(5))
    lists = [e for e in make_replay(window, lists=True) if isinstance(e, SegmentsListed)]
    assert [(e.rendition, e.oldest_msn, e.segments) for e in lists] == [
        ("v0", 5, ()),
        ("a0", 0, ()),
    ]


def test_what_is_away_here_can_be_had_here_by_nobody_else() -> None:
    """A replay of a window that has some away pushes only what it has."""
    window = make_window(limits=LIMITS)
    for msn in range(10):
        feed(window, whole(msn))
    late = late_of(make_replay(window, lists=True, cold=True))
    assert pushed(make_replay(late)) == {("v0", msn) for msn in range(3, 10)}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("whole", "gap", "cut", "silent", "discontinuity", "init")),
        st.sampled_from(BOTH),
    ),
    max_size=70,
)


@hypothesis.settings(deadline=None)
@hypothesis.given(STEPS, st.booleans(), st.integers(0, 4))
def test_any_late_subscriber_has_the_same(
    steps: list[tuple[str, str]], cold: bool, growing: int
) -> None:
    window = make_window(names=BOTH, limits=LIMITS)
    digests = dict.fromkeys(BOTH, DIGEST)
    counts = dict.fromkeys(BOTH, 0)
    for msn, (kind, name) in enumerate(steps):
        for each in BOTH:
            breaks = kind == "discontinuity"
            counts[each] += breaks
            if each == name and kind == "silent":
                continue
            if each == name and kind == "gap":
                feed(window, ended(msn, each, parts=0))
                continue
            if each == name and kind == "init":
                digests[each] = OTHER_DIGEST if digests[each] == DIGEST else DIGEST
                codec = f"avc1.{digests[each][:6]}" if each == "v0" else "mp4a.40.2"
                feed(window, rendition(each, codec_string=codec), init(each, digests[each]))
            segment = whole(
                msn,
                each,
                init_digest=digests[each],
                discontinuity=breaks,
                discontinuity_sequence=counts[each],
            )
            feed(window, segment[:3] if each == name and kind == "cut" else segment)
    for index in range(growing):
        feed(
            window,
            part(len(steps), index, init_digest=digests["v0"], discontinuity_sequence=counts["v0"]),
        )
    events = make_replay(window, lists=True, cold=cold)
    encoded = [encode_event(event) for event in events]
    assert choose_replay(encoded) == encoded, "no flow leaves anything of it out"
    check_same(late_of(events), window)
