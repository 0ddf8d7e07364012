"""Orders to shed: never more than ordered, never another class, never twice, the newest first."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edged.media.stream import PriorityClass
from edged.policy.planner import PopDemand
from edged.policy.shed_orders import (
    Sheddable,
    ShedNumbers,
    ShedsAsked,
    ShedTarget,
    choose_sheds,
    digest_of_sheds,
    digest_of_units,
    make_shed_orders,
    units_of,
)
from edged.policy.shedding import UnitSheds

PARTNER, AFFILIATE, BASIC = PriorityClass
POPS = [
    PopDemand(pop="rio/0", units={"far": (1, 2, 30), "near": (0, 0, 9)}),
    PopDemand(pop="sao/0", units={"far": (0, 0, 4)}),
]
SHEDS = [
    UnitSheds(pop="rio/0", origin="far", priority=BASIC, units=30, link="sea"),
    UnitSheds(pop="rio/0", origin="far", priority=AFFILIATE, units=1, link="sea"),
    UnitSheds(pop="sao/0", origin="far", priority=BASIC, units=2, link="sea"),
]


def stream(channel: str, at: float = 0.0, **more: object) -> Sheddable:
    made = Sheddable(channel, "far", BASIC, 1, at)
    return msgspec.structs.replace(made, **more)


def test_each_pop_is_told_its_own_and_how_many_there_were() -> None:
    one, two = make_shed_orders(SHEDS, units_of(POPS), targets_max=5)
    assert one.pop == "rio/0"
    assert one.targets == (
        ShedTarget("far", BASIC, 30, 30, "sea"),
        ShedTarget("far", AFFILIATE, 1, 2, "sea"),
    )
    assert (one.units, two.units) == (31, 2)
    cut = make_shed_orders(SHEDS, units_of(POPS), targets_max=1)
    assert [order.units for order in cut] == [30, 2], "the rest stays for the next plan"


def test_a_replay_comes_to_the_same_orders_and_only_to_these() -> None:
    told = make_shed_orders(SHEDS, units_of(POPS), targets_max=5)[1:]
    asked = ShedsAsked(
        epoch=7, number=3, targets_max=5, told=("sao/0",), digest=digest_of_sheds(told, 7, 3)
    )
    assert asked.remake(SHEDS, POPS) == asked.digest
    assert asked.remake(SHEDS[:2], POPS) != asked.digest
    assert asked.remake(SHEDS, POPS[:1]) != asked.digest
    assert digest_of_units(SHEDS) != digest_of_units(SHEDS[:2])


def test_an_order_is_obeyed_once_and_none_that_is_older() -> None:
    numbers = ShedNumbers()
    seen = [(3, 1), (3, 1), (3, 5), (3, 4), (2, 9), (4, 0), (4, 0)]
    assert [numbers.is_new(*each) for each in seen] == [
        True,
        False,
        True,
        False,
        False,
        True,
        False,
    ]


def test_the_newest_go_first_and_who_leaves_by_itself_last() -> None:
    streams = [stream("old", 1.0), stream("new", 9.0), stream("newer", 10.0, moves=True)]
    streams += [stream("other", 11.0, origin="near"), stream("partner", 12.0, priority=PARTNER)]
    target = ShedTarget("far", BASIC, 2, 3, "sea")
    assert [each.channel for each in choose_sheds(streams, target, have=3)] == ["new", "old"]


def test_what_has_gone_since_irs_was_told_counts() -> None:
    streams = [stream(f"c{number}", number) for number in range(8)]
    target = ShedTarget("far", BASIC, 5, 10, "sea")
    assert len(choose_sheds(streams, target, have=8)) == 3, "two left by themselves"
    assert choose_sheds(streams, target, have=5) == []
    assert len(choose_sheds(streams, target, have=20)) == 5, "who came since is in the next plan"


streams_drawn = st.lists(
    st.builds(
        Sheddable,
        st.text(max_size=3),
        st.sampled_from(["far", "near"]),
        st.sampled_from(PriorityClass),
        st.integers(0, 4),
        st.floats(0, 100),
        st.booleans(),
    ),
    max_size=20,
    unique_by=lambda each: each.channel,
)
targets = st.builds(
    ShedTarget,
    st.sampled_from(["far", "near"]),
    st.sampled_from(PriorityClass),
    st.integers(1, 30),
    st.integers(0, 60),
    st.just("sea"),
)


@given(streams_drawn, targets, st.integers(0, 60))
def test_never_more_nor_another_class_nor_below_what_is_to_stay(
    streams: list[Sheddable], target: ShedTarget, have: int
) -> None:
    chosen = choose_sheds(streams, target, have=have)
    units = sum(each.units for each in chosen)
    assert units <= target.units
    assert units <= max(0, have - (target.there - target.units))
    assert all((each.origin, each.priority) == (target.origin, target.priority) for each in chosen)
    assert len({each.channel for each in chosen}) == len(chosen)


@given(streams_drawn, targets)
def test_of_single_units_exactly_as_many_as_ordered_and_a_second_order_ends_none(
    streams: list[Sheddable], target: ShedTarget
) -> None:
    """Another IRS that knows the same telemetry may order the same once more."""
    streams = [msgspec.structs.replace(each, units=1) for each in streams]

    def here() -> list[Sheddable]:
        wanted = (target.origin, target.priority)
        return [each for each in streams if (each.origin, each.priority) == wanted]

    there = len(here())
    order = ShedTarget(target.origin, target.priority, min(target.units, there), there, "sea")
    chosen = choose_sheds(streams, order, have=there)
    assert len(chosen) == min(target.units, there)
    stays = [each for each in here() if each not in chosen]
    newest_left = max((each.started_at for each in stays if not each.moves), default=-1.0)
    assert all(each.moves or each.started_at >= newest_left for each in chosen)
    streams = [each for each in streams if each not in chosen]
    assert choose_sheds(streams, order, have=len(here())) == []
