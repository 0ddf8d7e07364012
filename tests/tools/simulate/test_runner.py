"""All runs of a scenario: every policy by name, in the order that was measured; twice the same."""

import gc

import msgspec
import pytest

from edged.tools.simulate.runner import MAKERS, choose, play, run, without_events
from edged.tools.simulate.scenario import (
    POLICIES,
    FlashCrowd,
    IrsDead,
    OriginDead,
    PolicyName,
    load_scenario,
)
from tests.tools.simulate.worlds import SCENARIOS, brief


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_report_to_the_byte(policy: PolicyName) -> None:
    loaded = brief(
        OriginDead(at_h=0.02, for_h=0.01, origin="lhr1"),
        policies=(policy,),
        seeds=(1, 2),
        hours=0.04,
    )
    first, second = play(loaded), play(loaded)
    assert msgspec.json.encode(first.report) == msgspec.json.encode(second.report)
    assert first.samples == second.samples
    assert first.report.policies[0].runs[0] != first.report.policies[0].runs[1]


def test_policies_rank_as_they_were_measured() -> None:
    """shared by the article and the prototype: who rejects, who asks in vain, who goes far."""
    small = load_scenario(SCENARIOS / "small.toml")
    demand = msgspec.structs.replace(small.scenario.demand, slots=4000, load=0.975, night=0.5)
    scenario = msgspec.structs.replace(
        small.scenario, demand=demand, hours=0.5, seeds=(1,), sample_s=30.0
    )
    report = play(type(small)(scenario, small.world)).report
    by = {str(each.policy): each.mean for each in report.policies}
    assert by["static"].rejected > by["lp-hourly"].rejected > 0.0
    assert by["static"].rejected > 0.1
    for name in ("power-of-two", "greedy", "price", "leases"):
        assert by[name].rejected < 0.002, name
    for name in ("price", "leases"):
        assert by[name].first_try > 0.99, name
        assert by[name].first_try > by["greedy"].first_try, name
        assert by["static"].rtt_ms < by[name].rtt_ms < by["power-of-two"].rtt_ms / 1.5, name
    assert report.bound_served > 0.99


def test_the_bound_is_solved_once_for_all_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[PolicyName, int]] = []
    played = play(
        brief(seeds=(5, 6), hours=0.02), told=lambda name, seed: told.append((name, seed))
    )
    assert told == [("price", 5), ("leases", 5), ("price", 6), ("leases", 6)]
    assert [each.policy for each in played.report.policies] == ["price", "leases"]
    assert all(len(each.runs) == 2 for each in played.report.policies)
    assert set(played.samples) == {"price", "leases"}


def test_fewer_policies_and_other_seeds_may_be_chosen() -> None:
    loaded = brief(seeds=(7,))
    chosen = choose(loaded, policies=["greedy"], seeds=3).scenario
    assert (chosen.policies, chosen.seeds) == (("greedy",), (1, 2, 3))
    same = choose(loaded).scenario
    assert (same.policies, same.seeds) == (("price", "leases"), (7,))


def test_goals_are_judged_and_a_figure_may_take_a_run_without_events() -> None:
    loaded = brief(IrsDead(at_h=0.0, for_h=0.02), seeds=(1, 2), load=0.5, hours=0.02)
    goals: dict[PolicyName, dict[str, float]] = {
        "leases": {"rtt_of_undisturbed": 1.5, "rejected": 0.0},
        "price": {"moved_p99_ms": 1000.0},
    }
    scenario = msgspec.structs.replace(loaded.scenario, goals=goals)
    report = play(type(loaded)(scenario, loaded.world)).report
    price, leases = report.policies
    assert price.mean.rtt_of_undisturbed is None, "it is no goal there"
    assert leases.mean.rtt_of_undisturbed == pytest.approx(1.0, abs=0.3)
    assert [(each.policy, each.figure, each.reached) for each in report.goals] == [
        ("price", "moved_p99_ms", False),
        ("leases", "rtt_of_undisturbed", True),
        ("leases", "rejected", True),
    ]


def test_what_befalls_a_network_can_be_left_out_but_not_its_demand() -> None:
    crowd = FlashCrowd(at_h=0.0, for_h=0.01, times=2.0)
    loaded = without_events(brief(OriginDead(at_h=0.0, origin="nyc1"), crowd))
    assert loaded.scenario.events == (crowd,)


def test_every_name_has_a_policy_and_the_collector_is_as_before() -> None:
    assert set(MAKERS) == set(POLICIES)
    assert gc.isenabled()
    run(brief(hours=0.01), "price", 1)
    assert gc.isenabled()
