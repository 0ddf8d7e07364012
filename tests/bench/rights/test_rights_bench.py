"""The bench of playback rights works; what it must show is in loose bounds, as CI is no lab."""

from tests.bench.rights.bench import run


def test_what_is_not_protected_costs_nothing_and_a_token_little() -> None:
    found = run(calls=2_000)
    assert found["nothing is protected"] < 3 * found["no gate"]
    assert found["another channel is"] < 10 * found["no gate"]
    assert all(us < 50 for us in found.values()), found
