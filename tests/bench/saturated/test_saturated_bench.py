"""What the bench says of its goals, on a small network for a few minutes."""

from pathlib import Path

import msgspec
import pytest

from edged.tools.simulate.figures import Figures
from edged.tools.simulate.runner import PolicyReport, Report
from tests.bench.goals import exit_status
from tests.bench.saturated.__main__ import SCENARIO, describe, main

GOOD = Figures(
    served=0.97, of_bound=1.0, cost_of_bound=1.1, full_use=0.999, rejected=0.04,
    rejected_partner=0.0, rejected_affiliate=0.01, rejected_basic=0.06, first_try=0.95,
    first_try_calm=1.0, offers=1.01, offers_full=1.4, rtt_ms=30.0, rtt_p99_ms=90.0,
    link_load_max=0.9, overload_h=0.0, moved=0.0, rehomed=0.0, moved_first_try=None,
    moved_p99_ms=None, cut=0.0,
)  # fmt: skip


def report(worst: Figures) -> Report:
    each = PolicyReport(policy="leases", mean=GOOD, worst=worst, runs=[GOOD, worst])
    return Report(
        scenario="s", seeds=[1, 2], hours=6, slots=9, pops=2, origins=["o"], bound_served=0.97,
        policies=[each],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("worse", "status"),
    [
        ({}, 0),
        ({"rejected_partner": 0.00001}, 1),
        ({"full_use": 0.9989}, 1),
        ({"offers_full": 1.401}, 1),
        ({"offers_full": None}, 1),
    ],
)
def test_the_worst_seed_has_to_reach_the_goal(worse: dict[str, float], status: int) -> None:
    text = describe(report(msgspec.structs.replace(GOOD, **worse)))
    assert exit_status(text) == status
    assert text.count("MISSED") == status
    assert "mean 99.90%" in text


def test_it_plays_a_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = SCENARIO.parent / "small-world.toml"
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(
        f'name = "small"\nworld = "{world}"\nseeds = [1]\nstart_hour = 21.0\nhours = 0.2\n'
        "warm_up_s = 120.0\n[demand]\nslots = 200\nload = 1.3\nduration_mean_s = 300.0\n"
    )
    assert main(["--scenario", str(scenario)]) in {0, 1}
    out = capsys.readouterr().out
    assert out.startswith("small: 0.2 h, ")
    assert "leases, partners rejected: mean 0.00000%, worst 0.00000%; goal 0: reached" in out
    assert out.count("; goal ") == 5
