"""Simulated streams and origins: slots are production's, and have the final word."""

import hypothesis
from hypothesis import strategies as st

from edged.media.routing import ReportedState
from edged.media.stream import PriorityClass
from edged.tools.simulate.demand import Arrival
from edged.tools.simulate.streams import Site, Stream


def stream(number: int, priority: PriorityClass = PriorityClass.BASIC) -> Stream:
    return Stream(Arrival(0.0, 0, priority, 6.0, 60.0), number)


def test_a_stream_remembers_what_it_came_with() -> None:
    made = stream(7, PriorityClass.AFFILIATE)
    assert (made.kbps, made.ends_at, made.origin, made.offers) == (6000, 60.0, -1, 0)
    assert made.priority is PriorityClass.AFFILIATE


def test_every_class_has_all_slots_as_by_default_in_production() -> None:
    site = Site(0, "o", 10)
    assert all(site.take(stream(number)) for number in range(9))
    assert site.report().slots_free == (1, 1, 1)
    assert site.take(stream(9, PriorityClass.PARTNER))
    assert not site.take(stream(10, PriorityClass.PARTNER))


def test_a_draining_origin_takes_nothing_and_says_so() -> None:
    site = Site(0, "o", 10)
    one = stream(1)
    assert site.take(one)
    assert site.capacity == 10
    site.drains = True
    assert not site.take(stream(2))
    report = site.report()
    assert (report.state, report.slots_free) == (ReportedState.DRAIN, (0, 0, 0))
    assert site.capacity == 0
    site.give_back(one)
    assert site.slots.used == 0


def test_a_resized_origin_keeps_what_it_has() -> None:
    site = Site(0, "o", 10)
    for number in range(6):
        assert site.take(stream(number))
    site.resize(4)
    assert not site.take(stream(6))
    assert (site.slots.used, site.report().slots_free) == (6, (0, 0, 0))


def test_who_has_failed_has_no_capacity_and_no_streams() -> None:
    site = Site(0, "o", 10)
    one = stream(1)
    site.take(one)
    site.frozen = True
    assert site.capacity == 0
    assert site.lose_all() == [one]
    assert (site.slots.used, site.streams) == (0, {})


def test_a_heartbeat_is_made_anew_only_when_something_changed() -> None:
    site = Site(0, "o", 10)
    first = site.report()
    assert site.report() is first
    site.take(stream(1))
    assert site.report().slots_free == (9, 9, 9)
    site.incarnation += 1
    assert site.report().incarnation == 2


@hypothesis.given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(list(PriorityClass))), max_size=60),
)
def test_what_is_reported_free_is_what_is_admitted(
    total: int, tries: list[tuple[int, PriorityClass]]
) -> None:
    site = Site(0, "o", total)
    held: dict[int, Stream] = {}
    for number, priority in tries:
        if number in held:
            site.give_back(held.pop(number))
            continue
        free = site.report().slots_free[priority]
        made = stream(number, priority)
        assert site.take(made) is (free > 0)
        if free > 0:
            held[number] = made
        assert site.slots.used == len(held) == len(site.streams) <= total
