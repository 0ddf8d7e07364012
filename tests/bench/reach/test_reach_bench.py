"""The bench of reach works; what it must show is in loose bounds."""

from msgspec import structs

from tests.bench.goals import exit_status
from tests.bench.reach.__main__ import report
from tests.bench.reach.bench import measure


def test_replicas_are_measured_beside_pull_through() -> None:
    found = measure(1, channels=30, viewers=30_000, everywhere=0.02)
    assert found.big > 0
    assert 1 <= found.replicas <= found.replicas_most <= 12
    assert found.pulled > 3 * found.replicas, "many more PoPs have viewers"
    assert 0.6 < found.covered <= found.covered_mean <= 1
    assert found.from_origins < 0.7
    assert found.first_ms < found.first_pulled_ms
    assert found.changed < 60
    assert 0 < found.hold_mbps < found.whole_mbps
    quick = structs.replace(found, step_s=0.01, replan_s=0.01)
    assert exit_status(report("some", [quick])) == 0


def test_a_goal_that_is_missed_is_a_failure() -> None:
    found = measure(1, channels=3, viewers=9000, everywhere=0.3)
    good = structs.replace(found, plan_s=0.1, replan_s=0.05, step_s=0.01)
    assert exit_status(report("some", [good])) == 0
    for bad in ({"plan_s": 1.0}, {"replan_s": 0.1}, {"step_s": 0.05}):
        assert exit_status(report("some", [structs.replace(good, **bad)])) == 1
