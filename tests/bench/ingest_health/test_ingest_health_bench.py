"""The bench of ingest health measures what it says, and the cost is one that nobody notices."""

from tests.bench.ingest_health.__main__ import measure

TICK_US_MAX = 1_000.0  # Some 30 times what was measured: a shared machine must not fail it.


def test_it_costs_next_to_nothing() -> None:
    cost = measure(sick=False, streams=20, seconds=90)
    assert cost.warnings == 0
    assert cost.tick_us < TICK_US_MAX
    assert cost.report_us < TICK_US_MAX


def test_sick_streams_are_sick() -> None:
    assert measure(sick=True, streams=5, seconds=90).warnings == 5 * 3
