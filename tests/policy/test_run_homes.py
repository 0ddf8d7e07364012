"""The homes of a run: whom to ask, how far back they go together, and how many are known."""

from hypothesis import given
from hypothesis import strategies as st

from edged.media.stream import PriorityClass
from edged.policy.run_homes import HOMES_MAX, Home, RunHomes

BASIC = PriorityClass.BASIC


def homes_at(*origins: str) -> RunHomes:
    homes = RunHomes()
    for epoch, origin in enumerate(origins):
        assert homes.came(origin, BASIC, epoch)
    return homes


def origins_of(homes: RunHomes) -> list[str]:
    return [home.origin for home in homes.newest_first()]


def is_up(home: Home) -> bool:
    return home.origin != "dead"


def test_the_newest_is_asked_first_and_each_origin_once() -> None:
    homes = homes_at("a", "b", "a", "c")
    assert origins_of(homes) == ["c", "a", "b"]
    assert not homes.came("c", BASIC, 3)
    assert homes.came("b", BASIC, 1), "it stays where it was"
    assert origins_of(homes) == ["b", "c", "a"]


def test_another_class_is_asked_over_another_session() -> None:
    homes = homes_at("a")
    assert homes.came("a", PriorityClass.PARTNER, 0)
    assert [home.priority for home in homes.newest_first()] == [PriorityClass.PARTNER]


def test_what_is_older_than_a_new_home_is_at_those_before() -> None:
    homes = homes_at("a")
    assert homes.oldest_msn("v0", 3, is_up) == 3
    assert homes.oldest_msn("v0", 5, is_up) == 5, "alone it is as it says"
    homes.came("b", BASIC, 1)
    assert homes.oldest_msn("v0", 0, is_up) == 0, "it has nothing at all as yet"
    assert homes.oldest_msn("v0", 41, is_up) == 3
    homes.came("c", BASIC, 2)
    assert homes.oldest_msn("v0", 73, is_up) == 3
    assert homes.oldest_msn("a1", 73, is_up) == 0, "of which those before have said nothing"


def test_what_a_home_had_and_let_go_of_is_lost_with_all_before() -> None:
    homes = homes_at("a", "b")
    assert homes.oldest_msn("v0", 41, is_up) == 0
    assert homes.oldest_msn("v0", 42, is_up) == 42


def test_a_home_that_is_down_hides_those_before() -> None:
    homes = homes_at("a", "dead")
    homes.oldest_msn("v0", 41, is_up)
    homes.came("c", BASIC, 2)
    assert homes.oldest_msn("v0", 73, is_up) == 73
    homes.came("d", BASIC, 3)
    assert homes.oldest_msn("v0", 90, is_up) == 73, "as far back as it goes"


def test_an_epoch_at_the_same_origin_is_a_home_too() -> None:
    """It goes on there with nothing of before; the origin still has that."""
    homes = homes_at("a", "a")
    assert homes.oldest_msn("v0", 9, is_up) == 0
    assert origins_of(homes) == ["a"]


@given(st.integers(1, HOMES_MAX + 2))
def test_so_many_are_known_and_no_more(count: int) -> None:
    homes = RunHomes()
    for epoch in range(count):
        homes.came(f"o{epoch}", BASIC, epoch)
        oldest = homes.oldest_msn("v0", 10 * (epoch + 1), is_up)
    known = min(count, HOMES_MAX)
    assert origins_of(homes) == [f"o{epoch}" for epoch in range(count - 1, count - 1 - known, -1)]
    assert oldest == 10 * (count - known + 1), "what the others held is lost"
