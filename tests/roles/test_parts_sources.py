from edged.media.parts import PackagedEvent, SegmentsListed
from edged.media.stream import PriorityClass
from edged.policy.run_homes import RunHomes
from edged.roles.parts_sources import is_relay, tell_oldest
from tests.policy.window_events import part


def test_a_pop_shard_is_a_relay_and_an_origin_is_none() -> None:
    assert is_relay("ams1/0")
    assert not is_relay("fra1")


def test_what_is_listed_goes_as_far_back_as_any_home_that_can_be_asked() -> None:
    homes = RunHomes()
    homes.came("fra1", PriorityClass.BASIC, 1)
    events: list[PackagedEvent] = [part(9, 0), SegmentsListed(rendition="v0", oldest_msn=3)]
    assert tell_oldest(events, homes, lambda _: True) == events
    homes.came("fra2", PriorityClass.BASIC, 2)
    newer: list[PackagedEvent] = [SegmentsListed(rendition="v0", oldest_msn=7)]
    assert tell_oldest(newer, homes, lambda _: True) == [events[1]]
    assert tell_oldest(newer, homes, lambda _: False) == newer
