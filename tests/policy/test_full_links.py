"""Links over which streams were shed are closed to those classes until they have had room."""

from edged.media.stream import PriorityClass
from edged.policy.flows import LinkLimit
from edged.policy.full_links import OPEN_S, FullLinks
from edged.policy.full_paths import FullPath
from edged.policy.planner import PopDemand
from edged.policy.shedding import UnitSheds

AFFILIATE, BASIC = PriorityClass.AFFILIATE, PriorityClass.BASIC
SEA = LinkLimit(
    name="sea",
    mbps=100.0,
    mbps_per_unit=1.0,
    pairs=(("rio", "far"), ("sao", "far"), ("rio", "old")),
)
DISH = LinkLimit(name="dish", mbps=10.0, mbps_per_unit=1.0, pairs=(("rio", "far"),))


def shed(link: str = "sea", priority: PriorityClass = BASIC) -> UnitSheds:
    return UnitSheds(pop="rio/0", origin="far", priority=priority, units=1, link=link)


def there(rio: int, sao: int) -> list[PopDemand]:
    """Two shards of rio, one of sao."""
    return [
        PopDemand(pop="rio/0", units={"far": (0, 0, rio - 1), "near": (0, 0, 500)}),
        PopDemand(pop="rio/1", units={"old": (1, 0, 0)}),
        PopDemand(pop="sao/0", units={"far": (0, sao, 0)}),
    ]


def test_all_whose_ways_cross_the_link_are_told_not_only_who_has_shed() -> None:
    links = FullLinks()
    assert links.paths([SEA]) == {}
    links.shed([shed()])
    assert links.paths([SEA, DISH]) == {
        "rio": (FullPath("far", BASIC, "sea"), FullPath("old", BASIC, "sea")),
        "sao": (FullPath("far", BASIC, "sea"),),
    }


def test_of_two_full_links_the_one_that_leaves_out_more_is_told() -> None:
    links = FullLinks()
    links.shed([shed(), shed("dish", AFFILIATE), shed("dish")])
    assert links.names == {"sea": BASIC, "dish": AFFILIATE}
    for limits in ([SEA, DISH], [DISH, SEA]):
        assert links.paths(limits)["rio"][0] == FullPath("far", AFFILIATE, "dish")


def test_it_opens_when_it_has_had_room_for_long_enough() -> None:
    links = FullLinks()
    links.shed([shed()])
    assert links.look([SEA], there(60, 40), 0.0) == []
    assert links.look([SEA], there(60, 36), 100.0) == [], "a twentieth is what comes and goes"
    assert links.look([SEA], there(60, 35), 101.0) == []
    assert links.look([SEA], there(60, 38), 105.0) == []
    assert links.look([SEA], there(60, 35), 106.0) == []
    assert links.look([SEA], there(60, 35), 106.0 + OPEN_S - 0.1) == []
    assert links.look([SEA], there(60, 35), 106.0 + OPEN_S) == ["sea"]
    assert links.names == {}


def test_a_link_that_has_no_limit_any_more_is_wide() -> None:
    links = FullLinks()
    links.shed([shed()])
    assert links.look([], there(900, 900), 0.0) == []
    assert links.look([], there(900, 900), OPEN_S) == ["sea"]
    links.shed([shed()])
    links.clear()
    assert links.look([SEA], there(900, 900), 0.0) == []
    assert links.paths([SEA]) == {}
