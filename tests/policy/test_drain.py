"""A drain: each item has its turn once, in order, within the first half of the deadline."""

from hypothesis import given
from hypothesis import strategies as st

from edged.policy.drain import SPREAD_FRACTION, STEP_S_MAX, Drain

NOW = 1000.0


def test_many_are_spread_over_half_of_the_deadline() -> None:
    drain = Drain(range(100), now=NOW, deadline_s=20.0)
    assert drain.total == 100
    assert drain.take_due(NOW) == [0]
    assert drain.next_timeout() == NOW + 0.1
    assert drain.take_due(NOW + 5.05) == list(range(1, 51))
    assert drain.take_due(NOW + 9.95) == list(range(51, 100))
    assert drain.next_timeout() == NOW + 20
    assert not drain.is_over(NOW + 19.9)
    assert drain.is_over(NOW + 20)


def test_few_go_soon() -> None:
    drain = Drain("ab", now=NOW, deadline_s=60.0)
    assert drain.take_due(NOW) == ["a"]
    assert drain.next_timeout() == NOW + STEP_S_MAX
    assert drain.take_due(NOW + STEP_S_MAX) == ["b"]
    assert drain.take_due(NOW + 60.0) == []


def test_none_goes_before_the_notice_is_over() -> None:
    drain = Drain("ab", now=NOW, deadline_s=10.0, notice_s=0.25)
    assert drain.take_due(NOW + 0.2) == []
    assert drain.next_timeout() == NOW + 0.25
    assert drain.take_due(NOW + 0.25) == ["a"]


def test_without_time_all_go_at_once() -> None:
    drain = Drain("abc", now=NOW, deadline_s=0.0, notice_s=1.0)
    assert drain.take_due(NOW) == ["a", "b", "c"]
    assert drain.is_over(NOW)


def test_with_nothing_to_do_it_waits_for_nothing_but_the_end() -> None:
    drain = Drain[str]([], now=NOW, deadline_s=5.0)
    assert drain.take_due(NOW + 1) == []
    assert drain.next_timeout() == NOW + 5


@given(
    st.integers(0, 300),
    st.floats(0.0, 600.0),
    st.floats(0.0, 10.0),
    st.lists(st.floats(0.0, 30.0), max_size=30),
)
def test_each_has_its_turn_once_in_order_and_in_time(
    count: int, deadline_s: float, notice_s: float, pauses: list[float]
) -> None:
    drain = Drain(range(count), now=NOW, deadline_s=deadline_s, notice_s=notice_s)
    now, taken = NOW, list[int]()
    for pause in pauses:
        now += pause
        taken += drain.take_due(now)
        assert drain.next_timeout() > now or drain.is_over(now)
    taken += drain.take_due(NOW + SPREAD_FRACTION * deadline_s + 1e-6)
    taken += drain.take_due(max(now, NOW + deadline_s))
    assert taken == list(range(count))
