"""Places at IRS: the silent make room, the known stay."""

import hypothesis
import trio
from hypothesis import strategies as st

from edged.irs.places import Places


async def test_the_first_of_the_silent_makes_room() -> None:
    places = Places(3)
    pop, one, two = (places.take() for _ in range(3))
    assert pop is not None
    assert one is not None
    assert two is not None
    places.know(pop)
    assert places.take() is not None
    assert (one.cancel_called, two.cancel_called, pop.cancel_called) == (True, False, False)
    assert (len(places), places.given_up) == (3, 1)
    places.leave(one)  # As its task ends: it counts no more.
    assert len(places) == 3


async def test_known_peers_stay() -> None:
    places = Places(2)
    first, second = places.take(), places.take()
    assert first is not None
    assert second is not None
    places.know(first)
    places.know(second)
    assert places.take() is None
    places.leave(first)
    assert places.take() is not None


@hypothesis.given(st.lists(st.tuples(st.sampled_from("tkl"), st.integers(0, 30)), max_size=60))
async def test_there_are_never_more_than_allowed(steps: list[tuple[str, int]]) -> None:
    places, taken = Places(4), list[trio.CancelScope]()
    known = set[int]()
    for what, which in steps:
        if what == "t":
            place = places.take()
            assert (place is None) == (len(known) == 4)
            if place is not None:
                taken.append(place)
        elif taken and what == "k":
            place = taken[which % len(taken)]
            places.know(place)
            if not place.cancel_called and id(place) not in known:
                known.add(id(place))
        elif taken:
            place = taken.pop(which % len(taken))
            places.leave(place)
            known.discard(id(place))
        assert len(places) <= 4
        assert not [place for place in taken if place.cancel_called and id(place) in known]
