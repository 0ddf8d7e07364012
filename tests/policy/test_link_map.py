import itertools
from collections.abc import Callable

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.routing import ORIGINS_MAX
from edged.policy.link_map import (
    GAPS_SHOWN_MAX,
    LINKS_MAX,
    LINKS_PER_PATH_MAX,
    METRIC_MAX,
    PATHS_MAX,
    POPS_PER_SITE_MAX,
    SITES_MAX,
    Crossing,
    LinkConfig,
    LinkMap,
    PathConfig,
    SiteConfig,
    Way,
    find_problems,
)


def link(first: str, second: str, metric: int = 10, mbps: float = 1000.0) -> LinkConfig:
    return LinkConfig(name=f"{first}-{second}", ends=(first, second), mbps=mbps, metric=metric)


def site(name: str, pops: str = "", origins: str = "") -> SiteConfig:
    return SiteConfig(name=name, pops=tuple(pops.split()), origins=tuple(origins.split()))


# lhr and cdg see fra directly; iad is beyond either.
SITES = (
    site("lhr", "lhr1"),
    site("cdg", "cdg1"),
    site("fra", "fra9", "fra1"),
    site("iad", "", "iad1"),
)
LINKS = (link("lhr", "fra"), link("cdg", "fra"), link("lhr", "iad", 70), link("fra", "iad", 80))


def names(way: Way | None) -> list[str]:
    assert way is not None
    return [crossing.link for crossing in way]


def test_ways_are_those_of_least_metric() -> None:
    known = LinkMap(LINKS, SITES)
    assert known.way("lhr1", "fra1") == (Crossing("lhr-fra", True),)
    assert known.way("lhr1", "iad1") == (Crossing("lhr-iad", True),)
    assert names(known.way("cdg1", "iad1")) == ["cdg-fra", "fra-iad"]
    assert known.way("fra9", "fra1") == ()
    assert known.way("fra9", "iad1") == (Crossing("fra-iad", True),)
    assert known.way("ams1", "iad1") is None
    assert known.way("lhr1", "ams1") is None
    assert len(list(known.pairs)) == 6


def test_without_a_link_they_go_round_it() -> None:
    known = LinkMap(LINKS, SITES)
    cut = frozenset({"lhr-iad"})
    assert known.way("lhr1", "iad1", cut) == (Crossing("lhr-fra", True), Crossing("fra-iad", True))
    both = frozenset({"lhr-iad", "fra-iad"})
    assert known.way("lhr1", "iad1", both) is None
    assert known.way("cdg1", "iad1", frozenset({"lhr-fra", "fra-iad"})) is None
    assert known.way("lhr1", "iad1") == (Crossing("lhr-iad", True),)


def test_a_configured_way_goes_before_the_metric_until_a_link_of_it_is_gone() -> None:
    path = PathConfig(pop="lhr1", origin="fra1", links=("lhr-iad", "fra-iad"))
    known = LinkMap(LINKS, SITES, (path,))
    assert known.way("lhr1", "fra1") == (Crossing("lhr-iad", True), Crossing("fra-iad", False))
    assert known.way("lhr1", "fra1", frozenset({"cdg-fra"})) is not None
    assert names(known.way("lhr1", "fra1", frozenset({"fra-iad"}))) == ["lhr-fra"]


def test_of_equal_ways_the_shorter_then_the_first_by_name() -> None:
    sites = (site("a", "p"), site("b"), site("c"), site("d", "", "o"))
    square = [link("a", "b"), link("b", "d"), link("a", "c"), link("c", "d")]
    for order in itertools.permutations(square):
        assert names(LinkMap(order, sites).way("p", "o")) == ["a-b", "b-d"]
    direct = link("a", "d", 20)
    assert names(LinkMap([*square, direct], sites).way("p", "o")) == ["a-d"]


@hypothesis.given(st.data())
def test_no_way_is_shorter_than_the_one_found(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 6))
    at = [f"s{n}" for n in range(count)]
    joined = data.draw(
        st.lists(st.sampled_from(list(itertools.combinations(at, 2))), unique=True, min_size=1)
    )
    links = [link(*ends, data.draw(st.integers(1, 4))) for ends in joined]
    sites = [site(name, f"p{name}", f"o{name}") for name in at]
    known = LinkMap(links, sites)
    metric = {each.name: each.metric for each in links}
    dist = {(a, b): 0 if a == b else 10**9 for a in at for b in at}
    for each in links:
        first, second = each.ends
        dist[first, second] = dist[second, first] = min(dist[first, second], each.metric)
    for middle, a, b in itertools.product(at, at, at):  # Floyd-Warshall.
        dist[a, b] = min(dist[a, b], dist[a, middle] + dist[middle, b])
    for a, b in itertools.product(at, at):
        way = known.way(f"p{a}", f"o{b}")
        if way is None:
            assert dist[a, b] == 10**9
        else:
            assert sum(metric[crossing.link] for crossing in way) == dist[a, b]
            here = a
            for crossing in way:  # It is a walk.
                ends = known.links[crossing.link].ends
                assert here == ends[not crossing.forward]
                here = ends[crossing.forward]
            assert here == b


def test_a_sound_map_has_no_problems() -> None:
    path = PathConfig(pop="lhr1", origin="fra1", links=("lhr-iad", "fra-iad"))
    here = PathConfig(pop="fra9", origin="fra1", links=())
    assert find_problems(LINKS, SITES, (path, here)) == []
    assert find_problems((), (), ()) == []


@pytest.mark.parametrize(
    ("links", "sites", "paths", "problem"),
    [
        (
            [link("lhr", "xxx")],
            SITES[:1],
            [],
            "links[0] (lhr-xxx): ends has 'xxx', which is no site; sites are lhr",
        ),
        (
            [LinkConfig(name="l", ends=("lhr", "lhr"), mbps=1.0)],
            SITES[:1],
            [],
            "links[0] (l): ends are both 'lhr'; a link joins two sites",
        ),
        (
            [link("lhr", "fra"), link("lhr", "fra")],
            SITES[:3:2],
            [],
            "links[1] (lhr-fra): the same name as links[0]",
        ),
        (
            [],
            [site("a", "p"), site("b", "q p")],
            [],
            "sites[1] (b): pops has 'p', which is in site 'a' already",
        ),
        ([], [site("a", "p p")], [], "sites[0] (a): pops has 'p', which is twice"),
        (
            [],
            [site("a", "", "o"), site("b", "", "o")],
            [],
            "sites[1] (b): origins has 'o', which is in site 'a' already",
        ),
        ([], [site("a"), site("a")], [], "sites[1] (a): the same name as sites[0]"),
        (
            [],
            [SiteConfig(name="a", latitude=52.4)],
            [],
            "sites[0] (a): longitude is missing; give both or neither",
        ),
        (
            [],
            [SiteConfig(name="a", longitude=4.9)],
            [],
            "sites[0] (a): latitude is missing; give both or neither",
        ),
        ([], SITES[:1] + SITES[3:], [], "links: no way from PoP 'lhr1' to origin 'iad1'"),
        (
            LINKS,
            SITES,
            [PathConfig(pop="x", origin="y", links=("z",))],
            "paths[0] (x to y): pop 'x' is in no site",
        ),
        (
            LINKS,
            SITES,
            [PathConfig(pop="lhr1", origin="y", links=())],
            "paths[0] (lhr1 to y): origin 'y' is in no site",
        ),
        (
            LINKS,
            SITES,
            [PathConfig(pop="lhr1", origin="fra1", links=("z",))],
            "paths[0] (lhr1 to fra1): links has 'z', which is no link",
        ),
        (
            LINKS,
            SITES,
            [PathConfig(pop="lhr1", origin="fra1", links=("cdg-fra",))],
            "paths[0] (lhr1 to fra1): link 'cdg-fra' does not begin at 'lhr', it joins cdg and fra",
        ),
        (
            LINKS,
            SITES,
            [PathConfig(pop="lhr1", origin="fra1", links=("lhr-iad",))],
            "paths[0] (lhr1 to fra1): links lead to 'iad', the origin is at 'fra'",
        ),
        (
            LINKS,
            SITES,
            [PathConfig(pop="lhr1", origin="fra1", links=("lhr-fra", "lhr-fra", "lhr-fra"))],
            "paths[0] (lhr1 to fra1): links has one twice",
        ),
        (
            LINKS,
            SITES,
            [PathConfig(pop="lhr1", origin="fra1", links=("lhr-fra",))] * 2,
            "paths[1] (lhr1 to fra1): the same PoP and origin as paths[0]",
        ),
        (
            [link("a", "b")] * (LINKS_MAX + 1),
            [],
            [],
            f"links: {LINKS_MAX + 1} exceed {LINKS_MAX}",
        ),
    ],
)
def test_a_mistake_is_named(
    links: list[LinkConfig], sites: list[SiteConfig], paths: list[PathConfig], problem: str
) -> None:
    assert problem in find_problems(links, sites, paths)


def test_as_many_links_sites_and_paths_as_there_may_be_are_looked_at() -> None:
    link_, site_ = link("a", "b"), site("a")
    path_ = PathConfig(pop="lhr1", origin="fra1", links=())
    most = find_problems([link_] * LINKS_MAX, [site_] * SITES_MAX, [path_] * PATHS_MAX)
    assert most
    assert not [problem for problem in most if "exceed" in problem]
    assert find_problems(
        [link_] * (LINKS_MAX + 1), [site_] * (SITES_MAX + 1), [path_] * (PATHS_MAX + 1)
    ) == [
        f"{what}: {limit + 1} exceed {limit}"
        for what, limit in (("links", LINKS_MAX), ("sites", SITES_MAX), ("paths", PATHS_MAX))
    ]


@pytest.mark.parametrize("more", [0, 1, 5])
def test_gaps_are_counted(more: int) -> None:
    pops = site("a", " ".join(f"p{n}" for n in range(GAPS_SHOWN_MAX + more)))
    problems = find_problems([], [pops, site("b", "", "o")], [])
    assert all("no way from PoP" in problem for problem in problems[:GAPS_SHOWN_MAX])
    assert problems[GAPS_SHOWN_MAX:] == (
        [f"links: {more} more pairs without a way"] if more else []
    )


@pytest.mark.parametrize(
    ("kind", "fields", "key", "make", "limit"),
    [
        (SiteConfig, {"name": "a"}, "pops", lambda n: ["p"] * n, POPS_PER_SITE_MAX),
        (SiteConfig, {"name": "a"}, "origins", lambda n: ["o"] * n, ORIGINS_MAX),
        (PathConfig, {"pop": "p", "origin": "o"}, "links", lambda n: ["l"] * n, LINKS_PER_PATH_MAX),
        (LinkConfig, {"name": "l", "ends": ["a", "b"], "mbps": 1}, "metric", int, METRIC_MAX),
        (LinkConfig, {"name": "l", "ends": ["a", "b"]}, "mbps", float, 10**9),
    ],
)
def test_what_is_configured_has_limits(
    kind: type, fields: dict[str, object], key: str, make: Callable[[int], object], limit: int
) -> None:
    msgspec.convert({**fields, key: make(limit)}, kind)
    with pytest.raises(msgspec.ValidationError, match=str(limit)):
        msgspec.convert({**fields, key: make(limit + 1)}, kind)
