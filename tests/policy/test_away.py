"""Segments at an origin: listed as all others, counted right, let go of once nobody has them."""

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.parts import ListedSegment, SegmentsListed
from edged.policy.away import lose, lose_older
from edged.policy.edge_cache import SEGMENT_BYTES, count_held
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from tests.policy.window_events import DIGEST, PARTS, ended, feed, make_window, part, whole

LIMITS = WindowLimits(playlist_s=60.0, retention_s=100.0, payload_bytes_max=2**30)
SIZE = 500  # Of a segment of `whole`.


def listed(msn: int, **changes: int) -> ListedSegment:
    made = ListedSegment(msn, 2000, part(msn, 0).wallclock_us, SIZE)
    return msgspec.structs.replace(made, **changes)


def lists(*msns: int, oldest_msn: int = 0, name: str = "v0") -> SegmentsListed:
    return SegmentsListed(
        rendition=name,
        oldest_msn=oldest_msn,
        init_digest=DIGEST,
        segments=tuple(listed(msn) for msn in msns),
    )


def check(stream: StreamWindow) -> None:
    """What is counted is what is held."""
    window = stream.renditions["v0"]
    held = window.segments
    inits = sum(len(one.data) for one in window.inits.values())
    memory = [s for s in held.values() if not (s.stored or s.away)]
    gone = [s for s in held.values() if s.stored or s.away]
    assert list(held) == sorted(held)
    assert set(window.in_memory) == {s.entry.msn for s in memory}
    assert set(window.away) == {s.entry.msn for s in held.values() if s.away}
    assert window.payload_bytes == inits + sum(s.payload_bytes for s in memory)
    assert window.stored_bytes == sum(s.payload_bytes for s in gone if s.stored)
    assert window.stored_us == sum(s.entry.duration_us for s in gone)
    assert window.fetched_bytes == sum(len(s.fetched or b"") for s in held.values())
    assert window.listed_us == sum(s.entry.duration_us for s in window.listed)
    assert window.listed_bytes == sum(s.payload_bytes for s in window.listed)
    kept = [s for s in held.values() if s not in window.listed]
    assert window.kept_us == sum(s.entry.duration_us for s in kept)
    msns = [s.entry.msn for s in window.listed]
    assert msns == list(range(msns[0], msns[0] + len(msns))) if msns else True
    assert [s.entry for s in window.listed] == window.entries
    memory_bytes = window.payload_bytes + SEGMENT_BYTES * len(held)
    assert count_held(stream).memory_bytes == memory_bytes


def test_what_is_away_is_listed_and_comes_by_name() -> None:
    stream = make_window(lists(3, 4, 5), whole(6), limits=LIMITS)
    window = stream.renditions["v0"]
    assert [entry.msn for entry in window.shown_entries] == [3, 4, 5, 6]
    assert stream.segment("v0", 4) is None
    assert stream.part("v0", 4, 0) is None
    assert stream.away_bytes_of("v0", 4) == SIZE
    window.hold(4, bytes(SIZE))
    window.hold(4, bytes(SIZE))
    assert stream.segment("v0", 4) == [bytes(SIZE)]
    check(stream)
    window.store(4)
    assert (stream.stored_bytes_of("v0", 4), stream.away_bytes_of("v0", 4)) == (SIZE, None)
    check(stream)
    window.hold(5, bytes(SIZE))
    window.give_back(5)
    window.give_back(5)
    assert stream.segment("v0", 5) is None
    check(stream)


def test_what_nobody_has_leaves_the_playlist_from_the_beginning() -> None:
    stream = make_window(lists(3, 4, 5, 6), whole(7), part(8, 0), limits=LIMITS)
    window = stream.renditions["v0"]
    window.hold(3, bytes(SIZE))
    version = window.version
    stream.lose("v0", 5)
    stream.lose("v0", 5)
    assert window.version > version
    assert [entry.msn for entry in window.shown_entries] == [6, 7, 8]
    assert list(window.segments) == [3, 4, 6, 7, 8], "who has the name of one still gets it"
    assert stream.segment("v0", 3) == [bytes(SIZE)]
    assert stream.segments_lost == 1
    check(stream)


def test_a_successor_says_how_far_back_it_goes() -> None:
    """What came here stays, to be asked for; what did not is gone."""
    stream = make_window(lists(3, 4, 5, 6), whole(7), limits=LIMITS)
    window = stream.renditions["v0"]
    window.hold(4, bytes(SIZE))
    assert stream.add(lists(oldest_msn=6))
    assert [entry.msn for entry in window.shown_entries] == [6, 7]
    assert list(window.segments) == [4, 6, 7]
    assert stream.statistics().segments_lost == 2
    assert not stream.add(lists(oldest_msn=6))
    check(stream)


def test_all_that_is_listed_may_be_lost() -> None:
    stream = make_window(lists(3, 4), limits=LIMITS)
    assert stream.add(lists(oldest_msn=9))
    assert stream.media_playlist("v0") is None
    assert stream.add(part(9, 0))
    assert [entry.msn for entry in stream.renditions["v0"].shown_entries] == [9]
    check(stream)


def test_a_segment_that_has_begun_to_come_is_fetched_whole() -> None:
    """After an outage its end is not pushed any more."""
    stream = make_window(whole(0), part(1, 0), part(1, 1), limits=LIMITS)
    feed(stream, lists(0, 1, 2), whole(3))
    window = stream.renditions["v0"]
    assert [(e.msn, e.gap, e.complete) for e in window.entries] == [
        (msn, False, True) for msn in range(4)
    ]
    assert list(window.away) == [1, 2]
    assert window.entries[1].duration_us == 2_000_000
    check(stream)


def test_gaps_are_no_media_that_could_be_had() -> None:
    event = SegmentsListed(
        rendition="v0",
        oldest_msn=0,
        init_digest=DIGEST,
        segments=(listed(0), ListedSegment(1, 2000, 0, 0, gap=True), listed(2)),
    )
    stream = make_window(event, limits=LIMITS)
    window = stream.renditions["v0"]
    assert [entry.gap for entry in window.entries] == [False, True, False]
    assert list(window.away) == [0, 2]
    assert stream.away_bytes_of("v0", 1) is None
    check(stream)


@pytest.mark.parametrize("absurd", [listed(-1), listed(3, duration=0), listed(3, payload_bytes=-1)])
def test_absurd_segments_are_the_peers_fault(absurd: ListedSegment) -> None:
    stream = make_window(whole(0))
    event = SegmentsListed(rendition="v0", oldest_msn=0, init_digest=DIGEST, segments=(absurd,))
    with pytest.raises(RemoteProtocolError, match="absurd"):
        stream.add(event)


def test_segments_need_an_init_that_came() -> None:
    stream = make_window()
    event = SegmentsListed(
        rendition="v0", oldest_msn=0, init_digest="e" * 16, segments=(listed(3),)
    )
    with pytest.raises(RemoteProtocolError, match="unknown init"):
        stream.add(event)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("whole", "part", "end", "list", "hold", "back", "store", "lose", "older", "evict")
        ),
        st.integers(0, 5),
    ),
    max_size=60,
)


@hypothesis.settings(deadline=None)
@hypothesis.given(STEPS)
def test_whatever_happens_what_is_counted_is_what_is_held(steps: list[tuple[str, int]]) -> None:
    stream = make_window(limits=LIMITS)
    window = stream.renditions["v0"]
    for what, number in steps:
        last = window.entries[-1].msn if window.entries else 0
        away = list(window.away)
        msn = away[number % len(away)] if away else -1
        if what == "whole":
            feed(stream, whole(last + 1 + number // 3))
        elif what == "part":
            growing = bool(window.listed) and not window.listed[-1].entry.complete
            index = len(window.listed[-1].parts) if growing else 0
            feed(stream, part(last if growing else last + 1, min(index, PARTS - 1)))
        elif what == "end":
            feed(stream, ended(last))
        elif what == "list":
            feed(stream, lists(*range(last, last + number)))
        elif what == "evict":
            if len(window.segments) > 1:
                window.evict()
        elif what == "older":
            lose_older(window, last - number)
        elif msn >= 0:
            {
                "hold": lambda msn=msn: window.hold(msn, bytes(SIZE)),
                "back": lambda msn=msn: window.give_back(msn),
                "store": lambda msn=msn: window.store(msn),
                "lose": lambda msn=msn: lose(window, msn),
            }[what]()
        check(stream)
