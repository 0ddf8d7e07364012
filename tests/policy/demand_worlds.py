"""Days of demand as networks have them: by hour, by weekday, growing, and by chance."""

import math
import random
from collections.abc import Iterator

from edged.media.routing import ByClass
from edged.policy.demand import SLOT_S, SLOTS_PER_DAY, DemandRow
from edged.policy.forecast import is_weekend

BEGAN = 1_790_000_000 // 86_400 * SLOTS_PER_DAY  # A midnight.
POPS = {"fra": 400.0, "lon": 250.0, "nyc": 300.0}  # Units at their peak.
ZONE_H = {"fra": 1, "lon": 0, "nyc": -5}
WEEKEND = 1.4


def true_units(pop: str, slot: int, growth: float = 1.0) -> float:
    """Without chance."""
    hour = (slot * SLOT_S / 3600 + ZONE_H[pop]) % 24
    daily = 0.55 + 0.45 * math.sin((hour - 15) / 24 * 2 * math.pi)
    weekly = WEEKEND if is_weekend(slot) else 1.0
    grown: float = growth ** ((slot - BEGAN) / (7 * SLOTS_PER_DAY))
    return POPS[pop] * daily * weekly * grown


def demand_rows(days: float, *, growth: float = 1.0, seed: int = 1) -> Iterator[DemandRow]:
    """As IRS would have kept them: three classes, and chance as of that many streams."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    for slot in range(BEGAN, BEGAN + round(days * SLOTS_PER_DAY)):
        for pop in POPS:
            mean = true_units(pop, slot, growth)
            units = max(0, round(rng.gauss(mean, math.sqrt(mean))))
            yield DemandRow(slot, pop, by_class(units), 0)


def by_class(units: int) -> ByClass:
    """One in twenty a partner, three an affiliate."""
    partner, affiliate = units // 20, units * 3 // 20
    return (partner, affiliate, units - partner - affiliate)
