import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.restrictions import Restriction, restrict_room, strictest


def test_it_holds_from_its_begin_until_its_end() -> None:
    one = Restriction(kind="origin", name="a", reason="r", since=10.0, until=20.0)
    assert [one.holds(now) for now in (9.9, 10.0, 19.9, 20.0)] == [False, True, True, False]
    assert Restriction(kind="origin", name="a", reason="r").holds(0.0)


def test_the_strictest_holds_for_each_of_a_kind() -> None:
    half = Restriction(kind="origin", name="a", reason="half", usable=0.5)
    none = Restriction(kind="origin", name="a", reason="none", until=5.0)
    longer = Restriction(kind="origin", name="a", reason="longer", until=6.0)
    other = Restriction(kind="link", name="a", reason="link")
    for order in ([half, none, longer, other], [other, longer, none, half]):
        assert strictest(order, "origin") == {"a": longer}
        assert strictest(order, "link") == {"a": other}
    assert strictest([half], "link") == {}


@pytest.mark.parametrize(
    ("usable", "left"),
    [
        (1.0, (40, 30, 0)),
        (0.9, (30, 20, 0)),
        (0.6, (0, 0, 0)),
        (0.0, (0, 0, 0)),
        (7.0, (40, 30, 0)),
    ],
)
def test_what_is_left_of_room(usable: float, left: tuple[int, int, int]) -> None:
    assert restrict_room((40, 30, 0), 100, usable) == left


@hypothesis.given(st.tuples(*[st.integers(0, 1000)] * 3), st.integers(1000, 5000), st.floats(-1, 2))
def test_it_never_gives_more_than_there_was_nor_more_than_may_be_used(
    room: tuple[int, int, int], total: int, usable: float
) -> None:
    for before, after in zip(room, restrict_room(room, total, usable), strict=True):
        assert 0 <= after <= before
        used = total - before
        assert after == 0 or used + after <= max(0.0, usable) * total + 1e-6
