"""What a forecast cannot say is said: each doubt alone, and none where there is none."""

from collections.abc import Callable

import pytest
from msgspec import structs

from edged.policy.day_plan import (
    Basis,
    Check,
    DayPlan,
    LinkUse,
    Network,
    OriginUse,
    Quarter,
    find_doubts,
)
from edged.policy.link_map import LinkConfig, SiteConfig

SITES = (SiteConfig(name="eu", pops=("lon",), origins=("fra1",)), SiteConfig(name="us"))
NETWORK = Network(
    origins={"fra1": 10},
    sites=SITES,
    links=(LinkConfig(name="ocean", ends=("eu", "us"), mbps=10),),
)
BASIS = Basis(
    pops=["lon"], days=28.0, known=1.0, age_h=0.1, growth=1.01, gone=[], untold={}, mixed=0,
    high_from_days=12, unplaced={}, later_rows=0, origins_gone=[],
)  # fmt: skip
CHECK = Check(
    days=7, off=0.05, off_worst=0.1, off_as_before=0.08, off_pops=0.1, off_of={}, above_high=0.04,
    not_forecast=0,
)  # fmt: skip
QUARTER = Quarter(
    slot=1, demand=10.0, unserved=[0.0, 0.0, 0.0], unserved_pops={}, placed={},
    rtt_ms=5.0, rtt_unknown=0.0,
    origins=[OriginUse(origin="fra1", units=10.0, part=1.0, price_ms=0.0, scarce=False)],
    links=[LinkUse(link="ocean", towards="us", mbps=5.0, back_mbps=0.0, part=0.5, price_ms=0.0,
                   scarce=False)],
)  # fmt: skip
PLAN = DayPlan(
    quarters=[QUARTER], needs=[], unserved_most=0.0, slots_missing=0, mbps_assumed=False, off_map=[]
)


def doubts(
    basis: Basis = BASIS,
    check: Check | None = CHECK,
    plan: DayPlan = PLAN,
    network: Network = NETWORK,
) -> list[str]:
    return find_doubts(basis, check, plan, network)


def test_where_all_is_known_there_is_no_doubt() -> None:
    assert doubts() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"days": 6.9}, "6.9 days of history are less than a week"),
        ({"known": 0.89}, "89.0 % of the history is known, the rest nobody told"),
        ({"age_h": 30.0}, "the history ends 30 hours before now"),
        ({"later_rows": 1200}, "1,200 rows are later than now and do not count: a clock was wrong"),
        (
            {"unplaced": {"lon": 3, "ams": 4}},
            "7 units found no place meanwhile, each try counted, at ams, lon: demand was higher"
            " than what the history has",
        ),
        ({"growth": None}, "growth is not known"),
        ({"mixed": 6}, "1.5 hours of single PoPs are made of weekends and other days alike"),
        ({"high_from_days": None}, "how far days are apart is not known"),
        ({"untold": {"new": 8}}, "2.0 hours of single PoPs are planned as none, as no day tells"),
        ({"gone": ["old"]}, "left out, as the newest day has nothing of them: old"),
        ({"gone": [f"p{n}" for n in range(12)]}, "p8, p9 and 2 more"),
        ({"origins_gone": ["nyc1"]}, "left out, as not heard for a day: nyc1"),
    ],
)
def test_each_doubt_of_what_it_is_made_of(changes: dict[str, object], said: str) -> None:
    (found,) = doubts(structs.replace(BASIS, **changes))
    assert said in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"above_high": None}, "of what may be nothing was compared with what came"),
        ({"above_high": 0.21}, "21.0 % of the time more came than may be in a twentieth of it"),
        ({"off_as_before": 0.049}, "to take the day before for the next was nearer: off by 4.9 %"),
        ({"not_forecast": 6}, "1.5 hours of single PoPs came unforeseen"),
    ],
)
def test_each_doubt_of_how_forecasts_fared(changes: dict[str, object], said: str) -> None:
    (found,) = doubts(check=structs.replace(CHECK, **changes))
    assert said in found
    (found,) = doubts(check=None)
    assert "nobody knows" in found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda: doubts(plan=structs.replace(
                PLAN, quarters=[QUARTER, structs.replace(QUARTER, rtt_unknown=12.0)])),
            "up to 12.0 units are placed where nobody measured the round trip",
        ),
        (lambda: doubts(network=Network()), "the backbone's links are not known"),
        (lambda: doubts(plan=structs.replace(PLAN, off_map=["a", "b"])), "no site has a, b: no"),
        (lambda: doubts(plan=structs.replace(PLAN, mbps_assumed=True)), "6 Mbps are assumed"),
    ],
)  # fmt: skip
def test_each_doubt_of_the_network(change: Callable[[], list[str]], said: str) -> None:
    (found,) = change()
    assert said in found


def test_without_links_what_they_carry_is_no_doubt() -> None:
    network = structs.replace(NETWORK, links=())
    assert doubts(plan=structs.replace(PLAN, mbps_assumed=True), network=network) == []


def test_at_their_bounds_nothing_is_doubted() -> None:
    basis = structs.replace(BASIS, days=7.0, known=0.9, age_h=1.0)
    check = structs.replace(CHECK, above_high=0.2, off_as_before=0.05)
    assert doubts(basis, check) == []


def test_what_is_missing_is_a_part_of_the_demand() -> None:
    quarter = structs.replace(QUARTER, unserved=[0.0, 1.0, 1.5])
    assert (quarter.missing, quarter.served) == (2.5, 0.75)
    assert structs.replace(QUARTER, demand=0.0).served == 1.0


def test_the_map_is_that_of_the_configuration() -> None:
    link_map = NETWORK.link_map()
    assert list(link_map.links) == ["ocean"]
    assert link_map.way("lon", "fra1") == ()
