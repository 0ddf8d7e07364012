"""Where things are: round trips and routes over the backbone, by the shortest way.

    PoP ── tail ── PoP with a link ══ link ══ ... ══ PoP of the origin

Light goes 200 km per ms in glass, and glass does not lie along great circles (DETOUR). Routes
follow the least round trip, as an IGP with such metrics would have them; when a link is cut they
are found anew.
"""

import heapq
import math
from collections.abc import Iterable

from edged.policy import earth
from edged.policy.earth import DETOUR, RTT_MS_PER_KM
from edged.tools.simulate.scenario import Pop, WorldFile

EQUIPMENT_MS = 0.2  # Per link or tail, both ways.

Arc = tuple[int, bool]  # A link by its place in the file, and whether it is passed from a to b.


class Geography:
    """Round trips and routes from every PoP to every origin, as links stand."""

    def __init__(self, world: WorldFile) -> None:
        self._world = world
        self._places = {pop.name: index for index, pop in enumerate(world.pops)}
        self.origins_at = [self._places[origin.at] for origin in world.origins]
        self._up = [True] * len(world.links)
        self._length_ms = [self._hop_ms(self._at(link.a), self._at(link.b)) for link in world.links]
        self._tails = self._find_tails()
        self.gbps = [link.gbps for link in world.links]
        self.rtt_ms: list[list[float]] = []  # [PoP][origin]; infinity: no way.
        self.routes: list[list[tuple[Arc, ...]]] = []
        self._find_routes()

    def set_link(self, name: str, *, up: bool) -> None:
        """Cut or mend a link ("nyc-lhr" or "lhr-nyc"); routes are found anew."""
        for index, link in enumerate(self._world.links):
            if name in (link.name, f"{link.b}-{link.a}"):
                self._up[index] = up
        self._find_routes()

    def name_of(self, arc: Arc) -> str:
        """A direction of a link: "lhr>nyc"."""
        link, forward = self._world.links[arc[0]], arc[1]
        return f"{link.a}>{link.b}" if forward else f"{link.b}>{link.a}"

    def _at(self, name: str) -> Pop:
        return self._world.pops[self._places[name]]

    @staticmethod
    def _hop_ms(one: Pop, other: Pop) -> float:
        return EQUIPMENT_MS + RTT_MS_PER_KM * DETOUR * great_circle_km(one, other)

    def _find_tails(self) -> list[tuple[int, float]]:
        """For each PoP the nearest with a link, and the round trip to it in ms.

        Without any link every PoP has a way of its own to each other, by the great circle.
        """
        with_link = {self._places[end] for link in self._world.links for end in (link.a, link.b)}
        tails = []
        for index, pop in enumerate(self._world.pops):
            if index in with_link or not with_link:
                tails.append((index, 0.0))
                continue
            hop_ms, hub = min((self._hop_ms(pop, self._world.pops[hub]), hub) for hub in with_link)
            tails.append((hub, hop_ms))
        return tails

    def _find_routes(self) -> None:
        pops = self._world.pops
        self.rtt_ms = [[0.0] * len(self.origins_at) for _ in pops]
        self.routes = [[()] * len(self.origins_at) for _ in pops]
        for origin, at in enumerate(self.origins_at):
            if not self._world.links:
                for index, pop in enumerate(pops):
                    self.rtt_ms[index][origin] = self._hop_ms(pop, pops[at])
                continue
            hub, origin_tail_ms = self._tails[at]
            distances, towards = self._spread(hub)
            for index, (start, tail_ms) in enumerate(self._tails):
                if index == at:
                    self.rtt_ms[index][origin] = EQUIPMENT_MS
                    continue
                over_ms = distances.get(start, math.inf)
                self.rtt_ms[index][origin] = EQUIPMENT_MS + tail_ms + origin_tail_ms + over_ms
                if over_ms < math.inf:
                    self.routes[index][origin] = _walk(start, hub, towards)

    def _spread(self, goal: int) -> tuple[dict[int, float], dict[int, tuple[int, Arc]]]:
        """Dijkstra from an origin's PoP: distances to it, and the next step towards it."""
        joined: dict[int, list[tuple[int, float, Arc]]] = {}
        for index, link in enumerate(self._world.links):
            if self._up[index]:
                a, b, ms = self._places[link.a], self._places[link.b], self._length_ms[index]
                joined.setdefault(a, []).append((b, ms, (index, False)))
                joined.setdefault(b, []).append((a, ms, (index, True)))
        distances: dict[int, float] = {}
        towards: dict[int, tuple[int, Arc]] = {}
        waiting: list[tuple[float, int, int, Arc]] = [(0.0, goal, goal, (0, True))]
        while waiting:
            distance, place, before, arc = heapq.heappop(waiting)
            if place in distances:
                continue
            distances[place] = distance
            towards[place] = (before, arc)
            for other, ms, way in joined.get(place, ()):
                if other not in distances:
                    heapq.heappush(waiting, (distance + ms, other, place, way))
        return distances, towards


def _walk(start: int, goal: int, towards: dict[int, tuple[int, Arc]]) -> tuple[Arc, ...]:
    arcs: list[Arc] = []
    place = start
    while place != goal:
        place, arc = towards[place]
        arcs.append(arc)
    return tuple(arcs)


def great_circle_km(one: Pop, other: Pop) -> float:
    """The shortest way over the surface."""
    places = [(pop.latitude, pop.longitude) for pop in (one, other)]
    return earth.great_circle_km(*places)


def share_slots(total: int, shares: Iterable[float]) -> list[int]:
    """Split all slots among origins by their shares; each has one at least."""
    known = list(shares)
    whole = math.fsum(known)
    return [max(1, round(total * share / whole)) for share in known]
