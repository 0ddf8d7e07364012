"""Demand: the same for a seed, and of the size that a scenario says."""

import itertools
import math

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.stream import PriorityClass
from edged.tools.simulate.demand import (
    DURATION_S_MAX,
    MBPS_MAX,
    STEP_S,
    Arrival,
    Demand,
    Durations,
    draw_poisson,
)
from edged.tools.simulate.scenario import DemandConfig, FlashCrowd, Scenario, load_scenario
from tests.tools.simulate.worlds import SCENARIOS, WORLD, brief, luck


def drawn(demand: Demand, seed: int, steps: int = 30) -> list[Arrival]:
    rng = luck(seed)
    found = list(demand.initial(rng))
    for step in range(steps):
        found += demand.step(step * STEP_S, rng)
    return found


def test_one_seed_one_history() -> None:
    loaded = brief()
    demand, other = Demand(loaded.scenario, WORLD), Demand(loaded.scenario, WORLD)
    assert drawn(demand, 1) == drawn(other, 1)
    assert drawn(demand, 1) != drawn(demand, 2)


def test_times_are_in_order_and_within_the_step() -> None:
    loaded = brief(slots=5000)
    found = Demand(loaded.scenario, WORLD).step(3 * STEP_S, luck(1))
    assert len(found) > 100
    assert all(one.at <= other.at for one, other in itertools.pairwise(found))
    assert all(3 * STEP_S <= each.at < 4 * STEP_S < each.ends_at + 4 * STEP_S for each in found)
    assert all(0 < each.mbps <= MBPS_MAX and each.ends_at > each.at for each in found)


def test_streams_that_live_are_as_many_as_expected() -> None:
    """Drawn from the start on, they go on as they were at it: nothing is missing or twice there."""
    loaded = brief(slots=20_000, load=0.7, duration_s=600.0)
    demand = Demand(loaded.scenario, WORLD)
    found = drawn(demand, 7, steps=60)
    for at in (0.0, 900.0, 1800.0, 3600.0):
        live = sum(each.at <= at < each.ends_at for each in found)
        assert live == pytest.approx(demand.expected(at), rel=0.03)
        assert live == pytest.approx(14_000, rel=0.03)


def test_the_peak_of_the_day_is_what_load_says() -> None:
    loaded = load_scenario(SCENARIOS / "day.toml")
    demand = Demand(loaded.scenario, loaded.world)
    expected = [demand.expected(hour * 3600.0) for hour in range(24)]
    assert max(expected) == pytest.approx(100_000, rel=0.003)
    assert min(expected) < 80_000
    assert demand.peaks_ratio == pytest.approx(1.5, abs=0.05), "as the article tells"


def test_classes_are_mixed_as_said() -> None:
    loaded = brief(slots=20_000)
    found = drawn(Demand(loaded.scenario, WORLD), 3)
    parts = [sum(e.priority is each for e in found) / len(found) for each in PriorityClass]
    assert parts == pytest.approx([0.05, 0.25, 0.70], abs=0.01)


def test_the_evening_is_busier_than_the_night() -> None:
    scenario = Scenario(name="x", world="x", demand=DemandConfig(night=0.2, peak_hour=21.0))
    demand = Demand(scenario, WORLD)
    assert demand.shape(21.0) == pytest.approx(1.0)
    assert demand.shape(9.0) == pytest.approx(0.2)
    assert demand.shape(15.0) == pytest.approx(demand.shape(27.0))
    flat = Demand(msgspec.structs.replace(scenario, demand=DemandConfig(night=1.0)), WORLD)
    assert {round(flat.shape(hour), 9) for hour in range(24)} == {1.0}


def test_a_flash_crowd_comes_where_and_when_it_is_said() -> None:
    crowd = FlashCrowd(at_h=0.01, for_h=0.02, times=5.0, pops=("lhr",))
    usual, busy = (Demand(brief(*events).scenario, WORLD) for events in ((), (crowd,)))
    assert busy.rates(0.0) == usual.rates(0.0)
    for pop, (one, other) in enumerate(zip(usual.rates(60.0), busy.rates(60.0), strict=True)):
        assert other == pytest.approx(one * (5 if pop == 2 else 1))
    assert busy.rates(0.03 * 3600) == usual.rates(0.03 * 3600)


@hypothesis.given(st.floats(10, 20_000), st.floats(0, 2), st.floats(0, 90_000))
def test_survival_is_a_distribution(mean_s: float, sigma: float, age_s: float) -> None:
    durations = Durations(mean_s, sigma)
    assert 0 <= durations.survival(age_s) <= 1
    assert durations.survival(age_s) >= durations.survival(age_s + 100)
    assert -1e-6 <= durations.lived_s(age_s + 1) - durations.lived_s(age_s) <= 1 + 1e-6
    longer = durations.draw_longer(min(age_s, DURATION_S_MAX), luck(1))
    assert min(age_s, DURATION_S_MAX) <= longer <= max(DURATION_S_MAX, mean_s)


def test_lived_is_the_integral_of_survival() -> None:
    durations = Durations(600.0, 1.0)
    sums = math.fsum(durations.survival(second + 0.5) for second in range(5000))
    assert durations.lived_s(5000.0) == pytest.approx(sums, rel=1e-3)
    rng = luck(1)
    means = [min(5000.0, durations.draw(rng)) for _ in range(20_000)]
    assert math.fsum(means) / len(means) == pytest.approx(sums, rel=0.02)


def test_who_has_lasted_for_long_lasts_on() -> None:
    """Drawn with a condition, it is as the part of all draws that meet it."""
    durations, rng = Durations(600.0, 1.0), luck(5)
    longer = [durations.draw_longer(900.0, rng) for _ in range(4000)]
    plain = [each for each in (durations.draw(rng) for _ in range(40_000)) if each > 900.0]
    assert sorted(longer)[2000] == pytest.approx(sorted(plain)[len(plain) // 2], rel=0.05)


@pytest.mark.parametrize("mean", [0.0, 0.5, 40.0, 5000.0])
def test_poisson_has_its_mean_and_variance(mean: float) -> None:
    rng = luck(2)
    counts = [draw_poisson(mean, rng) for _ in range(4000)]
    average = sum(counts) / len(counts)
    assert average == pytest.approx(mean, rel=0.05, abs=1e-9)
    variance = sum((count - average) ** 2 for count in counts) / len(counts)
    assert variance == pytest.approx(mean, rel=0.12, abs=1e-9)
