"""The backbone's map: which links a stream crosses between a PoP and an origin.

L3 is given: a way is the one of least metric, as an IGP has it, or one that is configured. Of equal
ways it is the one with fewer links, then the one whose links come first by name; an IGP that
spreads over equal ways is told apart by other metrics or by `[[irs.paths]]`.
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from edged.media.routing import ORIGINS_MAX, Name

SITES_MAX = 1000
LINKS_MAX = 1000
PATHS_MAX = 10_000
POPS_PER_SITE_MAX = 1000
LINKS_PER_PATH_MAX = 64
METRIC_MAX = 2**24 - 1  # As IS-IS has it (RFC 5305 §3.7).


class LinkConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[irs.links]]`: it joins two sites, and carries `mbps` each way."""

    name: Name
    ends: tuple[Name, Name]
    mbps: Annotated[float, Meta(gt=0, le=1e9)]
    metric: Annotated[int, Meta(ge=1, le=METRIC_MAX)] = 10


class SiteConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[irs.sites]]`: what is there, and where on Earth that is, for who draws it."""

    name: Name
    pops: Annotated[tuple[Name, ...], Meta(max_length=POPS_PER_SITE_MAX)] = ()
    origins: Annotated[tuple[Name, ...], Meta(max_length=ORIGINS_MAX)] = ()
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None  # Degrees; north is positive.
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None  # East is positive.

    @property
    def contents(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """What ways depend on."""
        return self.name, self.pops, self.origins


class PathConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[irs.paths]]`: the links from a PoP to an origin, in order, if metrics tell wrong."""

    pop: Name
    origin: Name
    links: Annotated[tuple[Name, ...], Meta(max_length=LINKS_PER_PATH_MAX)]


class Crossing(Struct, frozen=True, order=True):
    """A link on a way from a PoP to an origin; `forward`: from the first of its ends."""

    link: str
    forward: bool


Way = tuple[Crossing, ...]
Pair = tuple[str, str]  # PoP, origin.


class LinkMap:
    """A configuration in which `find_problems` finds none."""

    def __init__(
        self,
        links: Sequence[LinkConfig] = (),
        sites: Sequence[SiteConfig] = (),
        paths: Sequence[PathConfig] = (),
    ) -> None:
        self.links = {link.name: link for link in sorted(links, key=lambda link: link.name)}
        self._sites_of_pops = {pop: site.name for site in sites for pop in site.pops}
        self._sites_of_origins = {origin: site.name for site in sites for origin in site.origins}
        self._given = {
            (path.pop, path.origin): _walk(path, self.links, self._sites_of_pops[path.pop])
            for path in paths
        }
        self._cached: dict[frozenset[str], dict[str, dict[str, Way]]] = {}

    @property
    def pairs(self) -> Iterator[Pair]:
        """Every PoP with every origin that is on the map."""
        for pop in sorted(self._sites_of_pops):
            for origin in sorted(self._sites_of_origins):
                yield pop, origin

    def way(self, pop: str, origin: str, without: frozenset[str] = frozenset()) -> Way | None:
        """The links crossed; none in one site. None: they are not on the map, or it has no way.

        `without` these links; then a configured way that has one of them gives way to the metric.
        """
        begin, end = self._sites_of_pops.get(pop), self._sites_of_origins.get(origin)
        if begin is None or end is None:
            return None
        given = self._given.get((pop, origin))
        if given is not None and not any(crossing.link in without for crossing in given):
            return given
        if without not in self._cached:
            if len(self._cached) > 1:  # That of all links stays, and the newest of fewer.
                self._cached = {
                    key: ways for key, ways in self._cached.items() if key == frozenset()
                }
            self._cached[without] = {}
        ways = self._cached[without]
        if begin not in ways:
            ways[begin] = _ways_from(begin, self.links, without)
        return ways[begin].get(end)


def _ways_from(site: str, links: dict[str, LinkConfig], without: frozenset[str]) -> dict[str, Way]:
    """Dijkstra's algorithm: the least of (metric, links, their names) to each site."""
    at: dict[str, list[tuple[str, Crossing, int]]] = {}
    for link in links.values():
        if link.name not in without:
            first, second = link.ends
            at.setdefault(first, []).append((second, Crossing(link.name, True), link.metric))
            at.setdefault(second, []).append((first, Crossing(link.name, False), link.metric))
    found: dict[str, Way] = {}
    waiting: list[tuple[int, int, Way, str]] = [(0, 0, (), site)]
    while waiting:
        metric, count, way, here = heapq.heappop(waiting)
        if here in found:
            continue
        found[here] = way
        for there, crossing, more in at.get(here, ()):
            if there not in found:
                heapq.heappush(waiting, (metric + more, count + 1, (*way, crossing), there))
    return found


def _walk(path: PathConfig, links: dict[str, LinkConfig], site: str) -> Way:
    way = []
    for name in path.links:
        forward = links[name].ends[0] == site
        site = links[name].ends[forward]
        way.append(Crossing(name, forward))
    return tuple(way)


def find_problems(
    links: Sequence[LinkConfig], sites: Sequence[SiteConfig], paths: Sequence[PathConfig]
) -> list[str]:
    """Say everything that is wrong with the map beyond its types; empty: it can be used."""
    problems = [
        f"{key}: {count} exceed {limit}"
        for key, count, limit in (
            ("links", len(links), LINKS_MAX),
            ("sites", len(sites), SITES_MAX),
            ("paths", len(paths), PATHS_MAX),
        )
        if count > limit
    ]
    if problems:
        return problems
    problems += _find_site_problems(sites) + _find_link_problems(links, sites)
    if not problems:
        problems += _find_path_problems(links, sites, paths)
    if not problems:
        problems += _find_gaps(LinkMap(links, sites, paths))
    return problems


def _find_site_problems(sites: Sequence[SiteConfig]) -> list[str]:
    problems: list[str] = []
    names: dict[str, int] = {}
    of_pops: dict[str, str] = {}
    of_origins: dict[str, str] = {}
    for index, site in enumerate(sites):
        where = f"sites[{index}] ({site.name})"
        if (first := names.setdefault(site.name, index)) != index:
            problems.append(f"{where}: the same name as sites[{first}]")
        if (site.latitude is None) != (site.longitude is None):
            missing = "latitude" if site.latitude is None else "longitude"
            problems.append(f"{where}: {missing} is missing; give both or neither")
        for what, here, known in (
            ("pops", site.pops, of_pops),
            ("origins", site.origins, of_origins),
        ):
            for name in here:
                if name in known:
                    also = known[name]
                    twice = "twice" if also == site.name else f"in site {also!r} already"
                    problems.append(f"{where}: {what} has {name!r}, which is {twice}")
                known.setdefault(name, site.name)
    return problems


def _find_link_problems(links: Sequence[LinkConfig], sites: Sequence[SiteConfig]) -> list[str]:
    problems: list[str] = []
    known = {site.name for site in sites}
    names: dict[str, int] = {}
    for index, link in enumerate(links):
        where = f"links[{index}] ({link.name})"
        if (first := names.setdefault(link.name, index)) != index:
            problems.append(f"{where}: the same name as links[{first}]")
        if link.ends[0] == link.ends[1]:
            problems.append(f"{where}: ends are both {link.ends[0]!r}; a link joins two sites")
        problems += [
            f"{where}: ends has {end!r}, which is no site; sites are"
            f" {', '.join(sorted(known)) or 'none'}"
            for end in dict.fromkeys(link.ends)
            if end not in known
        ]
    return problems


def _find_path_problems(
    links: Sequence[LinkConfig], sites: Sequence[SiteConfig], paths: Sequence[PathConfig]
) -> list[str]:
    problems: list[str] = []
    by_name = {link.name: link for link in links}
    of_pops = {pop: site.name for site in sites for pop in site.pops}
    of_origins = {origin: site.name for site in sites for origin in site.origins}
    seen: dict[Pair, int] = {}
    for index, path in enumerate(paths):
        where = f"paths[{index}] ({path.pop} to {path.origin})"
        if (first := seen.setdefault((path.pop, path.origin), index)) != index:
            problems.append(f"{where}: the same PoP and origin as paths[{first}]")
        before = len(problems)
        if path.pop not in of_pops:
            problems.append(f"{where}: pop {path.pop!r} is in no site")
        if path.origin not in of_origins:
            problems.append(f"{where}: origin {path.origin!r} is in no site")
        problems += [
            f"{where}: links has {name!r}, which is no link"
            for name in dict.fromkeys(path.links)
            if name not in by_name
        ]
        if len(problems) == before:
            problems += _find_breaks(where, path, by_name, of_pops[path.pop], of_origins)
    return problems


def _find_breaks(
    where: str,
    path: PathConfig,
    links: dict[str, LinkConfig],
    site: str,
    of_origins: dict[str, str],
) -> list[str]:
    """Whether the links lead from the one to the other, each crossed once."""
    if len(set(path.links)) < len(path.links):
        return [f"{where}: links has one twice"]
    for name in path.links:
        ends = links[name].ends
        if site not in ends:
            return [
                f"{where}: link {name!r} does not begin at {site!r}, it joins {' and '.join(ends)}"
            ]
        site = ends[ends[0] == site]
    if site != of_origins[path.origin]:
        return [f"{where}: links lead to {site!r}, the origin is at {of_origins[path.origin]!r}"]
    return []


GAPS_SHOWN_MAX = 10


def _find_gaps(link_map: LinkMap) -> list[str]:
    gaps = [pair for pair in link_map.pairs if link_map.way(*pair) is None]
    shown = [
        f"links: no way from PoP {pop!r} to origin {origin!r}"
        for pop, origin in gaps[:GAPS_SHOWN_MAX]
    ]
    if len(gaps) > GAPS_SHOWN_MAX:
        shown.append(f"links: {len(gaps) - GAPS_SHOWN_MAX} more pairs without a way")
    return shown
