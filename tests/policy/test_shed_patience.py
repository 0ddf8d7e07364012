"""Nothing is shed at once, nor for streams that are told of twice while they move."""

import hypothesis
from hypothesis import strategies as st

from edged.media.stream import PriorityClass
from edged.policy.moves import UnitMoves
from edged.policy.shed_orders import Units
from edged.policy.shed_patience import (
    GAP_S_MAX,
    LINGERS_S,
    RESTS_S,
    SHED_AFTER_S,
    ShedPatience,
)
from edged.policy.shedding import UnitSheds
from edged.roles.moves import LINGER_S

SHED = UnitSheds(pop="p/0", origin="far", priority=PriorityClass.BASIC, units=3, link="sea")
MOVE = UnitMoves(
    pop="p/0", from_origin="far", to_origin="near", priority=PriorityClass.BASIC, units=2, reason=""
)


def told(there: int) -> Units:
    return {"p/0": {"far": (5, 5, there), "near": (0, 0, 99)}}


def lingers(patience: ShedPatience, there: int, now: float) -> int:
    return sum(
        each.units
        for each in patience.leaving(told(there), now)
        if (each.pop, each.from_origin, each.priority) == ("p/0", "far", PriorityClass.BASIC)
    )


def make() -> ShedPatience:
    return ShedPatience(after_s=SHED_AFTER_S, lingers_s=LINGERS_S, rests_s=RESTS_S)


def test_what_is_named_for_long_enough_goes_and_then_it_waits_anew() -> None:
    patience = make()
    assert patience.judge([SHED], 10.0) == []
    assert patience.judge([SHED], 12.9) == []
    assert patience.judge([SHED], 13.0) == [SHED]
    patience.gone([SHED], 13.0)
    assert RESTS_S == 10.0, "by then the room of a whole origin is believed"
    assert [patience.judge([SHED], 13.0 + at) for at in (2, 4, 6, 8, 9.9)] == [[]] * 5
    assert patience.judge([SHED], 23.0) == []
    assert patience.judge([SHED], 26.0) == [SHED]


def test_one_plan_in_between_by_which_all_can_stay_begins_it_anew() -> None:
    patience = make()
    assert patience.judge([SHED], 0.0) == []
    assert patience.judge([], 2.0) == []
    assert patience.judge([SHED], 3.0) == []
    assert patience.judge([SHED], 6.0) == [SHED]


def test_who_has_not_looked_for_long_knows_nothing() -> None:
    patience = make()
    assert patience.judge([SHED], 0.0) == []
    assert patience.judge([SHED], GAP_S_MAX + 0.1) == []
    assert patience.judge([SHED], GAP_S_MAX + 0.1 + SHED_AFTER_S) == [SHED]


def test_without_patience_it_goes_at_once() -> None:
    patience = ShedPatience(after_s=0.0, lingers_s=0.0, rests_s=0.0)
    patience.gone([SHED], 0.0)
    patience.moves_asked([MOVE], told(9), 5.0)
    assert patience.leaving(told(9), 0.0) == []
    assert patience.judge([SHED], 0.0) == [SHED]


def test_what_moves_is_told_of_twice_until_its_old_home_is_left_and_irs_knows() -> None:
    patience = make()
    patience.moves_asked([MOVE], told(9), 5.0)
    assert lingers(patience, 9, 5.0 + LINGERS_S - 0.1) == 2
    assert lingers(patience, 9, 5.0 + LINGERS_S) == 0
    assert LINGERS_S >= LINGER_S + 2.0, "two telemetries tell IRS"


def test_what_has_left_its_old_home_is_not_taken_off_it_once_more() -> None:
    patience = make()
    patience.moves_asked([MOVE], told(9), 5.0)
    assert [lingers(patience, there, 6.0) for there in (9, 8, 7, 6, 0)] == [2, 1, 0, 0, 0]
    assert lingers(patience, 12, 6.0) == 2, "who has come since does not leave"
    patience.moves_asked([MOVE], told(8), 9.0)
    assert [lingers(patience, there, 6.0 + LINGERS_S) for there in (8, 7, 6, 5)] == [3, 2, 1, 0]
    patience.gone([SHED], 9.0)
    assert lingers(patience, 5, 9.0) == 3, "two stay"
    patience.moves_asked([MOVE], {}, 9.0)
    assert patience.leaving({}, 9.0) == []


@hypothesis.given(st.lists(st.tuples(st.floats(0, 4), st.booleans()), max_size=40))
def test_only_what_every_plan_has_named_for_so_long_goes(looks: list[tuple[float, bool]]) -> None:
    patience, now, since = make(), 0.0, None
    for step_s, lacking in looks:
        now += step_s
        since = None if not lacking else now if since is None else since
        gone = patience.judge([SHED] if lacking else [], now)
        assert bool(gone) == (since is not None and now - since >= SHED_AFTER_S)
