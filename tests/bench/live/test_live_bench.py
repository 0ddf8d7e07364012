"""The bench of who is live where works; what it must show is in loose bounds, as CI is no lab."""

import pytest
from msgspec import structs

from tests.bench.goals import exit_status
from tests.bench.live.__main__ import report
from tests.bench.live.bench import Rebuilt, rebuild


@pytest.mark.e2e
async def test_a_restart_is_measured() -> None:
    rebuilt = await rebuild(4, 700, seconds=0.5)
    assert rebuilt.channels == 2800
    assert 0 < rebuilt.joined_s <= rebuilt.known_s < 10
    assert rebuilt.told_s < 2
    assert 20 < rebuilt.rss_mb < 200
    assert 0 <= rebuilt.cores < 1


def test_a_goal_that_is_missed_is_a_failure() -> None:
    good = Rebuilt(
        channels=9, joined_s=1.0, known_s=1.2, told_s=0.2, cpu_s=0.5, rss_mb=90, cores=0.05
    )
    assert exit_status(report(good)) == 0
    for bad in ({"told_s": 1.0}, {"rss_mb": 100.0}, {"cores": 0.1}):
        assert exit_status(report(structs.replace(good, **bad))) == 1
