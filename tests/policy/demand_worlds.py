"""Days of demand as networks have them: by hour, at weekends, growing, and by chance."""

import math
import random
from collections.abc import Iterable, Iterator

from edged.policy.demand import SAMPLES_PER_SLOT, SLOT_S, SLOTS_PER_DAY, DemandRow
from edged.policy.forecast import History

BEGAN = 1_790_000_000 // 86_400 * SLOTS_PER_DAY  # 2026-09-21, a Monday's midnight.
POPS = {"fra": 400.0, "lon": 250.0, "nyc": 300.0}  # Units at their peak.
ZONE_H = {"fra": 1, "lon": 0, "nyc": -5}
WEEKEND = 1.4
MBPS = 5.0  # A unit's.
BACK = 0.5  # Mbps that come back for each unit.


def true_units(pop: str, slot: int, growth: float = 1.0) -> float:
    """Without chance."""
    hour = (slot * SLOT_S / 3600 + ZONE_H.get(pop, 0)) % 24
    daily = 0.55 + 0.45 * math.sin((hour - 15) / 24 * 2 * math.pi)
    weekly = WEEKEND if (slot // SLOTS_PER_DAY + 3) % 7 >= 5 else 1.0
    grown: float = growth ** ((slot - BEGAN) / (7 * SLOTS_PER_DAY))
    return POPS.get(pop, 100.0) * daily * weekly * grown


def demand_rows(
    days: float,
    *,
    growth: float = 1.0,
    seed: int = 1,
    day_sd: float = 0.03,
    pops: Iterable[str] = tuple(POPS),
    begin: float = 0.0,
) -> Iterator[DemandRow]:
    """As IRS would have kept them: each day is a little other than the ones before."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    luck = [1 + rng.gauss(0, day_sd) for _ in range(200)]
    for slot in range(BEGAN + round(begin * SLOTS_PER_DAY), BEGAN + round(days * SLOTS_PER_DAY)):
        for pop in pops:
            mean = true_units(pop, slot, growth) * luck[(slot - BEGAN) // SLOTS_PER_DAY]
            yield row_of(slot, pop, max(0.0, rng.gauss(mean, math.sqrt(mean) / 2)))


def row_of(slot: int, pop: str, units: float, unplaced: int = 0) -> DemandRow:
    """Of a whole slot: one unit in twenty is a partner's, three an affiliate's."""
    total = round(units * SAMPLES_PER_SLOT)
    partner, affiliate = total // 20, total * 3 // 20
    mbps = (MBPS * total, BACK * total)
    by_class = (partner, affiliate, total - partner - affiliate)
    return DemandRow(slot, pop, SAMPLES_PER_SLOT, by_class, mbps, unplaced)


def history_of(rows: Iterable[DemandRow]) -> History:
    """As it is read from a file."""
    records = [
        (row.slot, row.pop, row.samples, *row.units, *row.mbps, row.unplaced) for row in rows
    ]
    slots = [record[0] for record in records]
    return History(min(slots, default=0), max(slots, default=-1), [records] if records else [])
