import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.newest import first_within

SIZES, COUNTS = {3: 10, 5: 20, 8: 30}, {3: 1, 5: 2, 8: 3}


@pytest.mark.parametrize(
    ("bytes_max", "count_max", "first"),
    [
        (60, 6, 3),
        (59, 6, 5),
        (60, 5, 5),
        (50, 5, 5),
        (49, 9, 8),
        (99, 4, 8),
        (0, 0, 8),  # The newest in any case.
    ],
)
def test_limits(bytes_max: int, count_max: int, first: int) -> None:
    assert first_within(SIZES, COUNTS, bytes_max, count_max) == first


def test_there_may_be_none() -> None:
    assert first_within({}, {}, 10, 10) == 0


@hypothesis.given(
    st.dictionaries(
        st.integers(0, 99), st.tuples(st.integers(0, 50), st.integers(1, 5)), min_size=1
    ),
    st.integers(0, 400),
    st.integers(0, 40),
)
def test_as_much_as_there_is_room_for(
    items: dict[int, tuple[int, int]], bytes_max: int, count_max: int
) -> None:
    sizes = {number: size for number, (size, _) in items.items()}
    counts = {number: count for number, (_, count) in items.items()}
    first = first_within(sizes, counts, bytes_max, count_max)
    taken = [number for number in items if number >= first]
    assert taken
    if len(taken) > 1:
        assert sum(sizes[number] for number in taken) <= bytes_max
        assert sum(counts[number] for number in taken) <= count_max
    older = [number for number in items if number < first]
    if older:
        more = [max(older), *taken]
        over = sum(sizes[n] for n in more) > bytes_max or sum(counts[n] for n in more) > count_max
        assert over
