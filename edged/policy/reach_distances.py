"""Round trips from PoP to PoP, of which few are measured: the rest is concluded.

    measured     a PoP that takes channels from another tells the round trip of that link;
    at one site  shards of a PoP, and PoPs of one site, have none to speak of;
    by an origin both have measured: no longer than the way over it;
    by the map   as cables lie, where both their sites say where they are.

What is concluded only proposes: a PoP goes by what it measures, once it has a link.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edged.policy.earth import Place, cable_rtt_ms
from edged.policy.reach_plan import Matrix, ReachPop

LOCAL_MS = 1.0


def estimate_ms(
    pops: Sequence[ReachPop],
    *,
    measured: Mapping[tuple[str, str], float],
    site_of_pop: Mapping[str, str],
    places: Mapping[str, Place],
) -> Matrix:
    """A row and a column for each, infinite where nothing is known.

    `measured`: by the two PoP shards, in any order; `places`: of sites.
    """
    names = [pop.pop.partition("/")[0] for pop in pops]
    sites = [site_of_pop.get(name, "") for name in names]
    between = _over_origins(pops)
    for one, site in enumerate(sites):
        for other in range(one):
            ms = measured.get((pops[one].pop, pops[other].pop))
            back = measured.get((pops[other].pop, pops[one].pop))
            if ms is not None or back is not None:
                known = min(each for each in (ms, back) if each is not None)
            elif names[one] == names[other] or (site and site == sites[other]):
                known = LOCAL_MS
            else:
                known = float(between[one, other])
                at, there = places.get(site), places.get(sites[other])
                if at is not None and there is not None:
                    known = min(known, LOCAL_MS + cable_rtt_ms(at, there))
            between[one, other] = between[other, one] = known
    np.fill_diagonal(between, 0.0)
    return between


def _over_origins(pops: Sequence[ReachPop]) -> Matrix:
    origins = sorted({origin for pop in pops for origin in pop.origin_ms})
    between: Matrix = np.full((len(pops), len(pops)), math.inf)
    for origin in origins:
        way = np.array([pop.origin_ms.get(origin, math.inf) for pop in pops])
        between = np.minimum(between, way[:, None] + way[None, :])
    return between
