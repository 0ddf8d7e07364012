"""Rungs as sets, and what they cost."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.reach import RUNGS_MAX, AudienceRow
from edged.policy.reach_rungs import GUESS_MBPS, NAMES_MAX, ChannelRungs

LADDER = {"v0": 6.0, "v1": 3.0, "v2": 1.0}


def told(viewers: int, rungs: dict[str, int], mbps: dict[str, float] | None = None) -> AudienceRow:
    return AudienceRow(
        "x", viewers, (), rungs, mbps=LADDER if mbps is None else mbps, base_mbps=0.2
    )


def rungs_of(*rows: AudienceRow) -> ChannelRungs:
    return ChannelRungs(range(len(rows)), rows)


def test_each_pop_is_told_by_what_is_watched_there() -> None:
    rungs = rungs_of(told(5, {"v0": 4, "v2": 1}), told(5, {"v1": 5}), told(0, {}))
    assert [rungs.names(rungs.watched[place]) for place in (0, 1)] == [("v0", "v2"), ("v1",)]
    assert 2 not in rungs.watched
    assert rungs.mbps(rungs.watched[0]) == 7.0
    assert rungs.extra_mbps(0, rungs.set_of(["v0", "v1"])) == 3.0, "v0 is watched there"
    assert rungs.extra_mbps(2, rungs.set_of(["v1"])) == 3.2, "with sound: nobody is there"
    assert rungs.names(rungs.known_of(["v1", "gone"])) == ("v1",)


def test_who_watches_what_is_not_known_watches_what_others_do() -> None:
    rungs = rungs_of(told(5, {"v2": 4}), told(5, {}))
    assert rungs.names(rungs.watched[1]) == ("v2",)
    alone = rungs_of(told(5, {}))
    assert alone.names(alone.watched[0]) == ("v0", "v1", "v2"), "or anything"


def test_rates_are_the_highest_told_and_what_nobody_told_is_guessed() -> None:
    rungs = rungs_of(told(1, {"v0": 1}), told(1, {"v2": 1}, {"v0": 7.0, "v2": 0.5}))
    assert rungs.mbps(rungs.set_of(["v0"])) == 7.0
    assert rungs.mbps(rungs.set_of(["v2"])) == 1.0
    nothing = rungs_of(told(1, {}, {}))
    assert nothing.extra_mbps(9, nothing.watched[0]) == GUESS_MBPS
    some = rungs_of(told(1, {"v0": 1}, {}))
    assert some.mbps(some.watched[0]) == GUESS_MBPS


def test_more_rungs_than_an_order_can_have_are_all_of_them() -> None:
    many = {f"v{number}": 1 for number in range(RUNGS_MAX)}
    most = {f"w{number}": 1 for number in range(RUNGS_MAX)}
    more = {f"x{number}": 1 for number in range(RUNGS_MAX)}
    rungs = rungs_of(told(9, many), told(9, most), told(9, more))
    assert len(rungs.names(rungs.watched[0])) == RUNGS_MAX
    assert rungs.names(rungs.unknown) == ()
    assert rungs.unknown.bit_length() == NAMES_MAX


@hypothesis.given(st.lists(st.dictionaries(st.sampled_from(["v0", "v1", "v2", "v3"]), st.just(1))))
def test_more_is_never_cheaper(watched: list[dict[str, int]]) -> None:
    rungs = rungs_of(*(told(1, each) for each in watched))
    for one in rungs.watched.values():
        for other in rungs.watched.values():
            assert rungs.mbps(one | other) >= max(rungs.mbps(one), rungs.mbps(other))
            assert rungs.mbps(one | other) == pytest.approx(
                rungs.mbps(one) + rungs.mbps(other & ~one)
            )
