"""What PoPs tell, by quarters of an hour: nothing is lost, and nothing is made up."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.routing import ByClass, PopTelemetry
from edged.policy import demand
from edged.policy.demand import (
    FORGET_S,
    FRESH_S,
    SAMPLE_S,
    SAMPLES_PER_SLOT,
    SLOT_S,
    DemandMeter,
    DemandRow,
    slot_of,
)

T = 2_000_000 * SLOT_S
YEAR_S = 365 * 86_400


def told(*units: ByClass, unplaced: int = 0) -> PopTelemetry:
    return PopTelemetry({f"o{n}": each for n, each in enumerate(units)}, unplaced=unplaced)


def test_a_row_is_the_sum_of_a_slots_samples() -> None:
    meter = DemandMeter(T)
    meter.note("lhr/0", told((1, 2, 3), (1, 0, 0), unplaced=2), 0.0)
    assert meter.sample(1.0, T + 1) == []
    meter.note("lhr/0", told((0, 5, 1), unplaced=1), 10.0)
    assert meter.sample(11.0, T + SLOT_S - 1) == []
    meter.note("lhr/0", told((9, 9, 9)), 20.0)
    assert meter.sample(21.0, T + SLOT_S) == [
        DemandRow(slot_of(T), "lhr", 2, (2, 7, 4), unplaced=3)
    ]
    assert meter.flush() == [DemandRow(slot_of(T) + 1, "lhr", 1, (9, 9, 9))]
    assert meter.flush() == []


def test_the_backbones_mbps_are_summed_both_ways() -> None:
    meter = DemandMeter(T)
    for shard, both in (("lhr/0", (6.0, 20.0)), ("lhr/1", (4.0, 0.5))):
        meter.note(shard, PopTelemetry({"fra": (0, 0, 1)}, mbps={"fra": both, "ams": (1, 1)}), 0.0)
    meter.sample(0.0, T)
    meter.sample(1.0, T)
    (row,) = meter.flush()
    assert row == DemandRow(slot_of(T), "lhr", 2, (0, 0, 4), (24.0, 45.0))


def test_shards_of_a_pop_count_as_they_are_at_one_time() -> None:
    """The one was high when the other was low: the sum of their highs never was."""
    meter = DemandMeter(T)
    for now, (first, second) in enumerate([(10, 0), (0, 10)]):
        meter.note("lhr/0", told((0, 0, first)), now)
        meter.note("lhr/1", told((0, 0, second)), now)
        meter.sample(now, T + now)
    assert meter.flush() == [DemandRow(slot_of(T), "lhr", 2, (0, 0, 20))]


def test_a_pop_of_which_a_shard_is_silent_is_not_known() -> None:
    meter = DemandMeter(T)
    meter.note("lhr/1", told((0, 0, 5)), 0.0)
    meter.note("zrh/0", told((0, 0, 1)), 0.0)
    for now in (FRESH_S, FRESH_S + 0.1, FORGET_S, FORGET_S + 0.1):
        meter.note("lhr/0", told((0, 0, 5)), now)
        meter.sample(now, T + now)
    rows = {row.pop: row for row in meter.flush()}
    assert rows["lhr"] == DemandRow(slot_of(T), "lhr", 2, (0, 0, 15)), "both, then one alone"
    assert rows["zrh"].samples == 1


def test_a_silent_pop_has_no_row() -> None:
    meter = DemandMeter(T)
    meter.note("lhr/0", told((1, 0, 0)), 0.0)
    meter.sample(0.0, T)
    assert len(meter.sample(SLOT_S, T + SLOT_S)) == 1
    assert meter.sample(2 * SLOT_S, T + 2 * SLOT_S) == []


def test_what_found_no_place_is_told_even_where_the_rest_is_not_known() -> None:
    meter = DemandMeter(T)
    meter.note("lhr/0", told((1, 0, 0), unplaced=3), 0.0)
    meter.sample(FRESH_S + 1, T)
    assert meter.flush() == [DemandRow(slot_of(T), "lhr", 0, (0, 0, 0), unplaced=3)]


@pytest.mark.parametrize("by_s", [-YEAR_S, -SLOT_S, SLOT_S, YEAR_S])
def test_a_clock_that_jumps_and_comes_back_stops_nothing(by_s: float) -> None:
    meter, rows = DemandMeter(T), list[DemandRow]()
    for number, unix in enumerate([T, T + by_s, T + 10, T + 20, T + SLOT_S]):
        meter.note("lhr/0", told((0, 0, 1)), float(number))
        rows += meter.sample(float(number), unix)
    rows += meter.flush()
    here, there = slot_of(T), slot_of(T + by_s)
    counted = {slot: sum(row.samples for row in rows if row.slot == slot) for slot in (here, there)}
    assert counted[here] == 3
    assert counted[there] == (2 if by_s == SLOT_S else 1)
    assert sum(row.samples for row in rows) == 5


def test_so_many_shards_are_known_and_the_longest_silent_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demand, "SHARDS_MAX", 2)
    meter = DemandMeter(T)
    for now, shard in enumerate(("a/0", "b/0", "a/0", "c/0")):
        meter.note(shard, told((0, 0, 1)), float(now))
    meter.sample(3.0, T)
    assert [row.pop for row in meter.flush()] == ["a", "c"]


def test_so_many_pops_have_a_row_in_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "SHARDS_MAX", 2)
    meter = DemandMeter(T)
    for pop in ("a", "b", "c"):
        meter.note(f"{pop}/0", told((0, 0, 1), unplaced=1), 0.0)
    assert meter.lost == 1
    assert [row.pop for row in meter.flush()] == ["a", "b"]
    meter.note("d/0", told((0, 0, 1), unplaced=1), 0.0)
    assert meter.flush()[0].pop == "d", "a new slot has room"


STEPS = st.tuples(
    st.floats(0, 30),  # So long after the one before.
    st.one_of(st.floats(-2 * SLOT_S, 2 * SLOT_S), st.sampled_from([-YEAR_S, YEAR_S])),  # A jump.
    st.sampled_from(["a/0", "a/1", "b/0", ""]),  # Who tells; "": it is sampled.
    st.integers(0, 9),
)


@hypothesis.given(st.lists(STEPS, max_size=60), st.booleans())
def test_nothing_is_lost_or_made_up_whatever_clocks_do(
    steps: list[tuple[float, float, str, int]], jumps: bool
) -> None:
    meter = DemandMeter(T)
    rows: list[DemandRow] = []
    now, unix, samples = 0.0, float(T), 0
    said: dict[str, list[int]] = {"a/0": [], "a/1": [], "b/0": []}
    for after, jump, shard, units in steps:
        now, unix = now + after, unix + after + (jump if jumps else 0.0)
        if shard:
            said[shard].append(units)
            meter.note(shard, told((units, 0, 0), unplaced=units), now)
        else:
            samples += 1
            rows += meter.sample(now, unix)
    rows += meter.flush()
    assert sum(row.unplaced for row in rows) == sum(map(sum, said.values()))
    for pop in ("a", "b"):
        of_pop = [row for row in rows if row.pop == pop]
        assert sum(row.samples for row in of_pop) <= samples
        most = sum(max(each, default=0) for key, each in said.items() if key[0] == pop)
        least = min((min(each) for key, each in said.items() if key[0] == pop and each), default=0)
        for row in of_pop:
            assert least * row.samples <= row.units[0] <= most * row.samples
    if not jumps:
        slots = [(row.slot, row.pop) for row in rows]
        assert slots == sorted(set(slots)), "each slot once, in order"


def test_a_days_rows_have_as_many_samples_as_there_were() -> None:
    meter, rows = DemandMeter(T), list[DemandRow]()
    for number in range(2 * SAMPLES_PER_SLOT):
        now = number * SAMPLE_S
        meter.note("a/0", told((0, 0, number)), now)
        rows += meter.sample(now, T + now)
    rows += meter.flush()
    assert [row.samples for row in rows] == [SAMPLES_PER_SLOT] * 2
    assert math.fsum(row.units[2] for row in rows) == sum(range(2 * SAMPLES_PER_SLOT))


ROWS = st.builds(
    DemandRow,
    st.just(5),
    st.just("a"),
    st.integers(0, 90),
    st.tuples(*[st.integers(0, 2**40)] * 3),
    st.tuples(*[st.integers(0, 2**40).map(float)] * 2),
    st.integers(0, 99),
)


@hypothesis.given(ROWS, ROWS, ROWS)
def test_rows_add_up_in_any_order(one: DemandRow, other: DemandRow, third: DemandRow) -> None:
    assert one.plus(other) == other.plus(one)
    assert one.plus(other).plus(third) == one.plus(other.plus(third))
    both = one.plus(other)
    assert (both.slot, both.pop) == (5, "a")
    assert both.units == tuple(a + b for a, b in zip(one.units, other.units, strict=True))
    assert both.mbps == tuple(a + b for a, b in zip(one.mbps, other.mbps, strict=True))
    assert (both.samples, both.unplaced) == (
        one.samples + other.samples,
        one.unplaced + other.unplaced,
    )
