"""What PoPs tell, by slots of five minutes."""

import hypothesis
from hypothesis import strategies as st

from edged.media.routing import ByClass, PopTelemetry
from edged.policy.demand import SLOT_S, DemandMeter, DemandRow, slot_of

T = 1_000 * SLOT_S


def told(*units: ByClass, unplaced: int = 0) -> PopTelemetry:
    return PopTelemetry({f"o{n}": each for n, each in enumerate(units)}, unplaced=unplaced)


def test_the_most_at_a_time_of_each_class_and_all_that_found_no_place() -> None:
    meter = DemandMeter()
    assert meter.note("lhr/0", told((1, 2, 3), (1, 0, 0), unplaced=2), T) == []
    assert meter.note("lhr/0", told((0, 5, 1), unplaced=1), T + SLOT_S - 1) == []
    assert meter.note("lhr/0", told((9, 9, 9)), T + SLOT_S) == [
        DemandRow(1000, "lhr", (2, 5, 3), 3)
    ]
    assert meter.flush() == [DemandRow(1001, "lhr", (9, 9, 9), 0)]
    assert meter.flush() == []


def test_shards_of_a_host_are_one_and_pops_are_in_order() -> None:
    meter = DemandMeter()
    for shard, units in (("zrh/0", 4), ("lhr/1", 2), ("lhr/0", 1), ("lhr/1", 3)):
        meter.note(shard, told((units, 0, 0), unplaced=1), T)
    assert meter.turn(T + SLOT_S) == [
        DemandRow(1000, "lhr", (4, 0, 0), 3),
        DemandRow(1000, "zrh", (4, 0, 0), 1),
    ]


def test_a_silent_pop_has_no_row() -> None:
    meter = DemandMeter()
    meter.note("lhr/0", told((1, 0, 0)), T)
    assert meter.turn(T + SLOT_S)
    assert meter.turn(T + 2 * SLOT_S) == []


@hypothesis.given(st.lists(st.tuples(st.floats(0, 5 * SLOT_S), st.integers(0, 9)), max_size=30))
def test_each_slot_is_told_once_whatever_the_clock_does(said: list[tuple[float, int]]) -> None:
    """Told again later it would count twice; a clock that goes back counts to the newest slot."""
    meter = DemandMeter()
    rows: list[DemandRow] = []
    for at, units in said:
        rows += meter.note("lhr/0", told((units, 0, 0), unplaced=units), T + at)
    rows += meter.flush()
    slots = [row.slot for row in rows]
    assert slots == sorted(set(slots))
    assert sum(row.unplaced for row in rows) == sum(units for _, units in said)
    assert not said or slots[-1] == max(slot_of(T + at) for at, _ in said)
