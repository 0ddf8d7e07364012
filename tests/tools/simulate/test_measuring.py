"""Measuring: shares, percentiles, and round trips with and without what befell the network."""

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.tools.simulate.bound import Moment, solve
from edged.tools.simulate.measuring import compare_rtt, measure, percentile
from edged.tools.simulate.recorder import CutMade, Recorder, Sample
from edged.tools.simulate.runner import run
from edged.tools.simulate.scenario import IrsConfig, IrsDead
from tests.tools.simulate.worlds import brief


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
    loaded = brief(load=1.5, slots=400, irs=IrsConfig(reserve_fraction=0.01))
    recorder = run(loaded, "price", 1)
    bounds = [solve(kept.moment) for kept in recorder.kept]
    figures = measure(recorder, bounds, loaded.scenario.sample_s)
    assert figures.full_use == pytest.approx(0.985, abs=0.015)
    assert figures.of_bound is not None
    assert figures.of_bound <= 1.0
    assert figures.rejected_partner == 0
    assert figures.rejected_basic > 0.1
    assert figures.offers_full is not None


def recorded(*rtt_ms: float) -> Recorder:
    """One with a sample each hour, of ever more streams."""
    recorder = Recorder(1, 1)
    recorder.samples = [
        Sample(
            at_h=float(hour), wanted=9, live=hour + 1, slots=9, use=[0.0], came=0, first_try=0,
            rejected=0, rtt_ms=each, link_load=0.0,
        )
        for hour, each in enumerate(rtt_ms)
    ]  # fmt: skip
    return recorder


def test_round_trips_are_compared_while_an_event_lasts() -> None:
    disturbed, undisturbed = recorded(99.0, 12.0, 30.0, 99.0), recorded(1.0, 10.0, 20.0, 1.0)
    brief_one, for_good = IrsDead(at_h=1.0, for_h=2.0), IrsDead(at_h=3.0)
    ratio = compare_rtt(disturbed, undisturbed, [brief_one])
    assert ratio == pytest.approx((2 * 12 + 3 * 30) / (2 * 10 + 3 * 20))
    assert compare_rtt(disturbed, undisturbed, [for_good]) == pytest.approx(99.0)
    assert compare_rtt(disturbed, undisturbed, []) is None
    assert compare_rtt(disturbed, recorded(0.0, 0.0, 0.0, 0.0), [for_good]) is None


def test_what_was_shed_is_held_against_what_has_to_go() -> None:
    """Of 4 partners and 8 basic ones over a link for 7 of them 5 basic ones have to."""
    moment = Moment(
        demand=[4, 0, 8], mbps=[40.0, 0.0, 80.0], slots=[99], rtt_ms=[[9.0]] * 3,
        routes=[[((0, True),)]] * 3, gbps=[0.07],
    )  # fmt: skip
    recorder = recorded(1.0)
    assert measure(recorder, [], 10.0).shed_amiss is None
    for shed, amiss in (({(0, 2): 5}, 0.0), ({}, 1.0), ({(0, 2): 4, (0, 0): 1}, 0.4)):
        recorder.link_cuts = [CutMade(at=0.0, moment=moment, shed=shed)]
        assert measure(recorder, [], 10.0).shed_amiss == pytest.approx(amiss)
    wide = msgspec.structs.replace(moment, gbps=[0.12])
    recorder.link_cuts = [CutMade(at=0.0, moment=wide)]
    assert measure(recorder, [], 10.0).shed_amiss is None, "nothing had to"
