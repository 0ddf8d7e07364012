"""Figures: shares, percentiles, and mean and worst over seeds."""

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.tools.simulate.bound import solve
from edged.tools.simulate.figures import (
    MORE_IS_BETTER,
    Figures,
    mean_of,
    measure,
    percentile,
    worst_of,
)
from edged.tools.simulate.runner import run
from tests.tools.simulate.worlds import brief


def made(**changed: float | None) -> Figures:
    zero = dict.fromkeys(Figures.__struct_fields__, 0.0)
    return msgspec.convert({**zero, **changed}, Figures)


def test_mean_and_worst_know_what_is_better() -> None:
    runs = [made(served=0.9, rejected=0.1, cut=4.0), made(served=0.7, rejected=0.3, cut=0.0)]
    assert mean_of(runs) == made(served=0.8, rejected=0.2, cut=2.0)
    assert worst_of(runs) == made(served=0.7, rejected=0.3, cut=4.0)
    assert set(Figures.__struct_fields__) >= MORE_IS_BETTER


def test_what_did_not_occur_is_left_out() -> None:
    runs = [made(full_use=None), made(full_use=0.5)]
    assert mean_of(runs).full_use == 0.5
    assert mean_of([made(full_use=None)]).full_use is None


@hypothesis.given(st.dictionaries(st.integers(0, 300), st.integers(1, 50), min_size=1))
def test_a_percentile_is_the_least_value_that_covers_it(histogram: dict[int, int]) -> None:
    ranked = sorted(value for value, count in histogram.items() for _ in range(count))
    for part in (0.5, 0.99, 1.0):
        found = percentile(histogram, part)
        assert found in ranked
        assert sum(value <= found for value in ranked) >= part * len(ranked)
        assert sum(value < found for value in ranked) < part * len(ranked)
    assert percentile({}, 0.99) == 0.0


def test_a_run_is_measured_against_its_bound() -> None:
    loaded = brief(load=0.6)
    recorder = run(loaded, "price", 1)
    bounds = [solve(kept.moment) for kept in recorder.kept]
    figures = measure(recorder, bounds, loaded.scenario.sample_s)
    assert len(bounds) == 3
    assert figures.rejected == figures.cut == figures.overload_h == 0
    assert figures.of_bound == pytest.approx(1.0, abs=0.02)
    assert figures.served == pytest.approx(1.0, abs=0.02)
    assert figures.full_use is None
    assert figures.cost_of_bound is not None
    assert figures.cost_of_bound > 0.9
    assert figures.first_try_calm == 1.0
    assert figures.moved_p99_ms is None


def test_a_full_network_is_used_wholly() -> None:
    loaded = brief(load=1.5, slots=400)
    recorder = run(loaded, "price", 1)
    bounds = [solve(kept.moment) for kept in recorder.kept]
    figures = measure(recorder, bounds, loaded.scenario.sample_s)
    assert figures.full_use == pytest.approx(0.985, abs=0.015)
    assert figures.of_bound is not None
    assert figures.of_bound <= 1.0
    assert figures.rejected_partner == 0
    assert figures.rejected_basic > 0.1
    assert figures.offers_full is not None
