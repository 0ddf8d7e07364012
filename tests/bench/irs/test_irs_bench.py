"""The bench of IRS works; what it must show is in loose bounds, as CI is no lab."""

import pytest

from tests.bench.goals import exit_status
from tests.bench.irs.__main__ import report
from tests.bench.irs.bench import Served, Times, serve, time_plan, time_solver


def test_programs_and_plans_are_timed() -> None:
    for times in (
        time_solver(10, 3, steps=20, cold=False),
        time_solver(10, 3, steps=5, cold=True),
        time_plan(10, 3, steps=5),
        time_plan(10, 3, steps=5, parts=2),
    ):
        assert 0 < times.p50 <= times.p99 <= times.most < 1000


@pytest.mark.e2e
async def test_the_service_is_measured_with_its_peers() -> None:
    served = await serve(5, 2, push_interval_s=0.2, seconds=1.0, events=4)
    assert 0 < served.cores < 1
    assert 20 < served.rss_mb < 200
    assert 0 < served.events.p50 < 1000
    assert 3 <= served.tables <= 7


def test_a_goal_that_is_missed_is_a_failure() -> None:
    good = Served(cores=0.05, rss_mb=70, events=Times(p50=9, p99=20, most=30), tables=5)
    bad = Served(cores=0.11, rss_mb=70, events=Times(p50=9, p99=20, most=30), tables=5)
    idle = Served(cores=0.01, rss_mb=70, events=Times(p50=9, p99=20, most=30), tables=4.4)
    quick = Times(p50=1, p99=2, most=9)
    assert exit_status(report(quick, good, 5)) == 0
    assert exit_status(report(quick, bad, 5)) == 1
    assert exit_status(report(quick, idle, 5)) == 1
    assert exit_status(report(Times(p50=1, p99=6, most=9), good, 5)) == 1
