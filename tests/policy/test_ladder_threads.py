"""How many threads a ladder has."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.ladder_threads import THREADS_MAX, Threads, choose_threads, does


@pytest.mark.parametrize(
    ("decode", "scale", "encodes", "found"),
    [
        (20.0, 10.0, [50.0], Threads()),
        (30.0, 10.0, [50.0], Threads(decode=2)),
        (20.0, 10.0, [50.0, 30.0], Threads(encode=2)),
        (40.0, 10.0, [100.0], Threads(encode=2)),
        (10.0, 10.0, [200.0], Threads(encode=3)),
        (60.0, 30.0, [100.0], Threads(decode=2, encode=2)),
        (220.0, 30.0, [100.0], Threads(decode=4, encode=2)),
        (100.0, 1.0, [], Threads(decode=2)),
    ],
)
def test_there_are_as_many_as_are_needed(
    decode: float, scale: float, encodes: list[float], found: Threads
) -> None:
    assert choose_threads(decode, scale, encodes, core=80.0, cores=32) == found
    assert found.delay_pictures == found.decode + found.encode - 2


@pytest.mark.parametrize(
    ("decode", "scale", "encodes", "why"),
    [
        (300.0, 1.0, [20.0], "decoding of 300 is too much for 4 threads of 80"),
        (10.0, 1.0, [300.0], "encoding of 300 is too much for 4 threads of 80"),
        (100.0, 90.0, [20.0], "what one thread does of it is too much for 80"),
    ],
)
def test_what_they_cannot_do_is_said(
    decode: float, scale: float, encodes: list[float], why: str
) -> None:
    assert choose_threads(decode, scale, encodes, core=80.0, cores=32) == why


COSTS = st.floats(0, 400)


@hypothesis.given(COSTS, COSTS, st.lists(COSTS, max_size=5), st.integers(1, 64))
def test_no_thread_has_more_than_it_can_do(
    decode: float, scale: float, encodes: list[float], cores: int
) -> None:
    found = choose_threads(decode, scale, encodes, core=100.0, cores=cores)
    if isinstance(found, str):
        return
    assert 1 <= found.decode <= min(cores, THREADS_MAX)
    assert 1 <= found.encode <= min(cores, THREADS_MAX)
    assert decode <= does(found.decode, 100.0)
    own = scale + (decode if found.decode == 1 else 0.0)
    if found.encode == 1:
        own += sum(encodes)
    else:
        own += 0.3 * sum(encodes)
        assert max(encodes) <= does(found.encode, 100.0)
    assert own <= 100.0 + 1e-6
    if decode + scale + sum(encodes) < 100.0:
        assert found == Threads(), "what a core does alone is left to one"
