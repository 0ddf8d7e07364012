"""The forecast of what the simulator's networks ask for: streams that come and go by chance."""

import heapq

import numpy as np
import pytest

from edged.media.routing import ByClass, PopTelemetry
from edged.policy.demand import SLOT_S, SLOTS_PER_DAY, DemandMeter, DemandRow
from edged.policy.forecast import check_forecast, forecast
from edged.tools.simulate.demand import STEP_S, Arrival, Demand
from edged.tools.simulate.scenario import DemandConfig, Scenario
from tests.policy.demand_worlds import BEGAN, history_of
from tests.tools.simulate.worlds import WORLD, luck

DAYS = 8
SAMPLE_S = 30  # As many as a slot needs to be known.


def simulated(demand: Demand, days: int, seed: int) -> list[DemandRow]:
    """What a meter makes of the streams that live, told every SAMPLE_S."""
    rng, began = luck(seed), BEGAN * SLOT_S
    meter, rows = DemandMeter(began), list[DemandRow]()
    live = [[0, 0, 0] for _ in WORLD.pops]
    ends: list[tuple[float, int, int]] = []
    coming: list[Arrival] = [each for each in demand.initial(rng) if each.ends_at > 0]
    for now in range(0, days * SLOTS_PER_DAY * SLOT_S, SAMPLE_S):
        if now % int(STEP_S) == 0:
            coming += demand.step(float(now), rng)
        for each in coming:
            live[each.pop][each.priority] += 1
            heapq.heappush(ends, (each.ends_at, each.pop, each.priority))
        coming = []
        while ends and ends[0][0] <= now:
            _, pop, priority = heapq.heappop(ends)
            live[pop][priority] -= 1
        for at, counts in zip(WORLD.pops, live, strict=True):
            units: ByClass = (counts[0], counts[1], counts[2])
            meter.note(f"{at.name}/0", PopTelemetry({"o": units}), float(now))
        rows += meter.sample(float(now), float(began + now))
    return rows + meter.flush()


def test_a_week_of_a_simulated_network_tells_of_the_next_day() -> None:
    config = DemandConfig(slots=400, load=1.0, duration_mean_s=3600.0)
    scenario = Scenario(name="week", world="none", hours=24.0, start_hour=0.0, demand=config)
    demand = Demand(scenario, WORLD)
    rows = simulated(demand, DAYS, seed=3)
    end = BEGAN + (DAYS - 1) * SLOTS_PER_DAY
    history = history_of(row for row in rows if row.slot < end)
    told = forecast(history, end)
    real = np.array([demand.expected((slot + 0.5) * SLOT_S) for slot in range(SLOTS_PER_DAY)])
    meant = told.demand(high=False).sum(axis=(1, 2))
    assert np.abs(meant - real).sum() / real.sum() < 0.06
    assert float(meant.max()) == pytest.approx(float(real.max()), rel=0.08)
    by_class = told.demand(high=False).sum(axis=(0, 1))
    assert by_class / by_class.sum() == pytest.approx([0.05, 0.25, 0.7], abs=0.02)
    assert (told.demand(high=True).sum(axis=(1, 2)) > meant).all()
    came = dict.fromkeys(range(end, end + SLOTS_PER_DAY), 0.0)
    for row in rows:
        if row.slot in came:
            came[row.slot] += sum(row.units) / row.samples
    high = told.demand(high=True).sum(axis=(1, 2))
    above = [units > float(high[slot - end]) for slot, units in came.items()]
    assert sum(above) / len(above) < 0.15
    checked = check_forecast(history_of(rows))
    assert checked is not None
    assert checked.off < 0.12, "of some 300 streams chance alone moves a day by 5 %"
