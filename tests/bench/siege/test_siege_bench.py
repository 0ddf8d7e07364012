"""What the siege says of itself."""

import pytest

from tests.bench.goals import exit_status
from tests.bench.ingest.measure import Arrived, Percentiles, Run, Sent
from tests.bench.siege.__main__ import Besieged, Outcome, Siege, as_table, run_round
from tests.bench.siege.viewers import Joined
from tests.conftest import require

PORTS = ("rtmp", "rtmps", "http", "https", "metrics", "status")
SIEGE = Siege(viewers=2000, at_once=2000, slow=500)


def run_of(p99_ms: float, missing: int = 0) -> Run:
    us = Percentiles(count=9, p50=4000, p99=round(1000 * p99_ms), max=90_000)
    return Run(
        streams=50, seconds=15.0, server_share=0.2, server_system_share=0.1, server_core_share=0.2,
        generator_share=0.1, sink_share=0.1, idle_bytes=0, loaded_bytes=0, ring_bytes=0, units=9,
        missing=missing, sent=Sent([9], 9, 9, 0, us),
        arrived=Arrived([9], 0, 0, us, us, us, us, us),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("p99_ms", "missing", "joined", "slow", "missed"),
    [
        (9.0, 0, 2000, 495, 0),
        (17.7, 0, 2000, 495, 1),  # 10 ms above the quiet one, and more.
        (9.0, 1, 2000, 495, 1),
        (9.0, 0, 1999, 495, 1),
        (9.0, 0, 2000, 440, 1),  # A siege that was none.
    ],
)
def test_it_is_a_siege_that_is_withstood(
    p99_ms: float, missing: int, joined: int, slow: int, missed: int
) -> None:
    crowd = Joined(joined, 3, 9, 2600.0, 2700.0)
    besieged = Besieged(run_of(p99_ms, missing), 0.06, crowd, dict.fromkeys(PORTS, slow))
    table = as_table([Outcome(run_of(7.6), besieged)], SIEGE)
    assert exit_status(table) == missed, table
    assert "slow connections rtmp" in table


@pytest.mark.parametrize(("slow", "missed"), [(231, 0), (230, 1)])
def test_at_a_port_with_fewer_places_all_are_taken(slow: int, missed: int) -> None:
    held = {**dict.fromkeys(PORTS, 500), "status": slow}
    besieged = Besieged(run_of(9.0), 0.06, Joined(2000, 3, 9, 2600.0, 2700.0), held)
    table = as_table([Outcome(run_of(7.6), besieged)], SIEGE)
    assert exit_status(table) == missed, table


@pytest.mark.e2e
@pytest.mark.light
def test_a_small_one_from_its_quiet_to_its_end() -> None:
    require("gcc")
    siege = Siege(viewers=20, at_once=20, slow=10)
    outcome = run_round(5, 5.0, siege)
    besieged = outcome.siege
    assert besieged.slow.keys() == set(PORTS)
    assert all(9 <= count <= 10 for count in besieged.slow.values()), besieged.slow
    assert besieged.joined.joined == 20
    for run in (outcome.quiet, besieged.run):
        assert (run.streams, run.missing) == (5, 0)
        assert run.arrived.delay_us.count > 500
    assert besieged.lag_s_max > 0
    assert "20 viewers join over TLS" in as_table([outcome], siege)
