"""Blocking reload, by the numbers of the conformance checklist (items 1 to 9)."""

from fractions import Fraction

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.policy.blocking_reload import (
    NO_DIRECTIVES,
    choose_answer,
    is_reached,
    is_too_far,
    parse_directives,
)
from edged.policy.delivery_directives import WHOLE, PlaylistEdge, Reject, ReloadDirectives, Wait


def edge(
    last_msn: int, last_part: int, *, complete: bool = False, ended: bool = False
) -> PlaylistEdge:
    return PlaylistEdge(
        last_msn=last_msn,
        last_part=last_part,
        complete=complete,
        part_target_us=200_000,
        ended=ended,
    )


GROWING = edge(10, 3)  # Segment 9 is whole, 10 has parts 0 to 3.
WHOLE_TEN = edge(10, 9, complete=True)


def choose(msn: int | None, part: int | None, at: PlaylistEdge) -> Wait | Reject | None:
    return choose_answer(ReloadDirectives(msn, part), at)


def test_item_1_an_msn_alone_waits_for_the_whole_segment() -> None:
    assert choose(10, None, GROWING) == Wait(10, WHOLE)
    assert not is_reached(Wait(10, WHOLE), edge(10, 200))
    assert is_reached(Wait(10, WHOLE), WHOLE_TEN)
    assert is_reached(Wait(10, WHOLE), edge(11, 0))
    assert choose(10, None, WHOLE_TEN) is None
    assert choose(11, None, WHOLE_TEN) == Wait(11, WHOLE)


def test_item_2_a_part_waits_for_that_part_or_later() -> None:
    assert choose(10, 4, GROWING) == Wait(10, 4)
    assert not is_reached(Wait(10, 4), GROWING)
    assert is_reached(Wait(10, 4), edge(10, 4))
    assert is_reached(Wait(10, 4), edge(10, 7))
    assert choose(10, 3, GROWING) is None
    assert choose(11, 0, GROWING) == Wait(11, 0)


def test_item_3_a_part_past_the_last_is_part_0_of_the_next_segment() -> None:
    assert choose(10, 10, WHOLE_TEN) == Wait(11, 0)
    assert not is_reached(Wait(10, 12), WHOLE_TEN), "asked for while the segment was growing"
    assert is_reached(Wait(10, 12), edge(11, 0))
    assert choose(9, 12, GROWING) is None, "part 0 of segment 10 is there"


def test_item_4_the_old_is_answered_at_once() -> None:
    assert choose(0, None, GROWING) is None
    assert choose(0, 10**9, GROWING) is None
    assert choose(9, None, GROWING) is None


def test_item_5_nothing_blocks_when_ended() -> None:
    over = edge(10, 9, complete=True, ended=True)
    assert choose(99, 5, over) is None
    assert is_reached(Wait(99, 5), over)


def test_item_6_a_part_needs_an_msn() -> None:
    with pytest.raises(RemoteProtocolError, match="needs _HLS_msn"):
        parse_directives("_HLS_part=1")


def test_item_7_too_far_ahead_is_rejected() -> None:
    assert choose(11, None, GROWING) == Wait(11, WHOLE)
    assert isinstance(choose(12, None, GROWING), Reject)
    assert choose(12, None, WHOLE_TEN) == Wait(12, WHOLE)
    assert isinstance(choose(13, 0, WHOLE_TEN), Reject)
    assert choose(10, 3 + 15, GROWING) == Wait(10, 18)
    assert isinstance(choose(10, 3 + 16, GROWING), Reject)
    assert choose(11, 14, GROWING) == Wait(11, 14)
    assert isinstance(choose(11, 15, GROWING), Reject)
    assert isinstance(choose(10, 9 + 16, WHOLE_TEN), Reject)


@pytest.mark.parametrize(
    "part_target_us", [100_000, 166_833, 200_000, 999_999, 1_000_000, 5_000_000]
)
def test_item_7_advance_part_limit(part_target_us: int) -> None:
    limit = Fraction(3_000_000, part_target_us) if part_target_us < 1_000_000 else Fraction(3)
    for ahead in range(40):
        assert is_too_far(ahead, part_target_us) == (ahead > limit)


def test_item_9_every_other_directive_is_reserved() -> None:
    assert parse_directives("") is NO_DIRECTIVES
    assert parse_directives("_HLS_skip=NO&_HLS_new=1&x=y") == NO_DIRECTIVES
    assert parse_directives("_HLS_part=2&a=b&_HLS_msn=7") == ReloadDirectives(7, 2)


@pytest.mark.parametrize("value", ["YES", "v2"])
def test_item_26_a_delta_update_is_asked_for_with_or_without_a_wait(value: str) -> None:
    assert parse_directives(f"_HLS_skip={value}") == ReloadDirectives(skip=True)
    assert parse_directives(f"_HLS_msn=7&_HLS_skip={value}") == ReloadDirectives(7, skip=True)


@pytest.mark.parametrize(
    "query",
    [
        "_HLS_msn=",
        "_HLS_msn",
        "_HLS_msn=-1",
        "_HLS_msn=1.5",
        "_HLS_msn=٣",
        "_HLS_msn=" + "9" * 21,
        "_HLS_msn=1&_HLS_msn=1",
        "_HLS_msn=1&_HLS_part=x",
    ],
)
def test_malformed_directives(query: str) -> None:
    with pytest.raises(RemoteProtocolError, match="_HLS_"):
        parse_directives(query)


EDGES = st.builds(edge, st.integers(0, 20), st.integers(0, 20), complete=st.booleans())


@hypothesis.settings(max_examples=100)
@hypothesis.given(EDGES, st.integers(0, 25), st.none() | st.integers(0, 40))
def test_a_wait_is_never_for_what_is_there(at: PlaylistEdge, msn: int, part: int | None) -> None:
    answer = choose(msn, part, at)
    if isinstance(answer, Wait):
        assert not is_reached(answer, at)
        assert answer.msn <= at.last_msn + 2, "few places to wait at"
        assert is_reached(answer, edge(answer.msn + 1, 0)), "the next segment ends any wait"
        assert is_reached(answer, edge(0, 0, ended=True))
    elif answer is None:
        wait = Wait(msn, WHOLE if part is None else part)
        assert is_reached(wait, at) or is_reached(Wait(msn + 1, 0), at)


@hypothesis.settings(max_examples=100)
@hypothesis.given(EDGES, st.integers(0, 25), st.none() | st.integers(0, 40), EDGES)
def test_what_was_answered_stays_answered(
    at: PlaylistEdge, msn: int, part: int | None, later: PlaylistEdge
) -> None:
    """Idempotence (item 9): as the playlist grows, a request once answerable never blocks."""

    def place(seen: PlaylistEdge) -> tuple[int, int, bool]:
        return seen.last_msn, seen.last_part, seen.complete

    hypothesis.assume(place(later) >= place(at))
    hypothesis.assume(not at.complete or later.last_msn > at.last_msn or later == at)
    if choose(msn, part, at) is None:
        assert choose(msn, part, later) is None


WITHOUT_PARTS = PlaylistEdge(last_msn=10, last_part=-1, complete=True, part_target_us=0)


def test_a_playlist_without_parts_waits_for_whole_segments() -> None:
    assert choose(10, None, WITHOUT_PARTS) is None
    assert choose(11, None, WITHOUT_PARTS) == Wait(11, WHOLE)
    assert isinstance(choose(13, None, WITHOUT_PARTS), Reject)
    assert not is_reached(Wait(11, WHOLE), WITHOUT_PARTS)
    assert is_reached(Wait(11, WHOLE), msgspec.structs.replace(WITHOUT_PARTS, last_msn=11))


def test_item_3_where_there_are_no_parts_each_is_past_the_last_one() -> None:
    assert choose(9, 0, WITHOUT_PARTS) is None
    assert choose(10, 0, WITHOUT_PARTS) == Wait(11, WHOLE)
    assert choose(10, 999, WITHOUT_PARTS) == Wait(11, WHOLE)
    assert choose(11, 0, WITHOUT_PARTS) == Wait(11, WHOLE)
    ended = msgspec.structs.replace(WITHOUT_PARTS, ended=True)
    assert choose(10, 0, ended) is None
