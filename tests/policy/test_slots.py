"""Slots: at the limit and one past it, by class."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import PublishRefusedError
from edged.media.stream import PriorityClass, StreamId
from edged.policy.slots import Slots

PARTNER, BASIC = PriorityClass.PARTNER, PriorityClass.BASIC


def test_the_reserve_is_for_partners() -> None:
    slots = Slots(total=3, reserve=1)
    slots.take(StreamId("a", 1), BASIC)
    slots.take(StreamId("b", 1), BASIC)
    assert (slots.free(BASIC), slots.free(PARTNER)) == (0, 1)
    with pytest.raises(PublishRefusedError, match="2 of 3 are used, 1 are kept for partners"):
        slots.take(StreamId("c", 1), BASIC)
    slots.take(StreamId("p", 1), PARTNER)
    with pytest.raises(PublishRefusedError, match="full"):
        slots.take(StreamId("q", 1), PARTNER)


def test_a_newer_run_takes_its_channel_s_slot_over() -> None:
    slots = Slots(total=1, reserve=0)
    old, new = StreamId("a", 1), StreamId("a", 2)
    slots.take(old, BASIC)
    slots.take(new, BASIC)
    slots.give_back(old)
    assert slots.used == 1
    slots.give_back(new)
    assert slots.used == 0


def test_resized_who_holds_a_slot_keeps_it() -> None:
    slots = Slots(total=3, reserve=0)
    for channel in "abc":
        slots.take(StreamId(channel, 1), BASIC)
    slots.resize(2, 1)
    assert (slots.used, slots.free(BASIC), slots.free(PARTNER)) == (3, 0, 0)
    slots.give_back(StreamId("a", 1))
    with pytest.raises(PublishRefusedError, match="2 of 2 are used, 1 are kept for partners"):
        slots.take(StreamId("d", 1), PARTNER)
    slots.resize(4, 1)
    assert (slots.free(BASIC), slots.free(PARTNER)) == (1, 2)
    slots.take(StreamId("d", 1), BASIC)


@hypothesis.given(
    st.integers(0, 5),
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 3), st.booleans(), st.booleans())
    ),
)
def test_never_more_than_there_are(total: int, steps: list[tuple[str, int, bool, bool]]) -> None:
    slots = Slots(total=total, reserve=total // 2)
    for channel, publication, take, partner in steps:
        stream_id = StreamId(channel, publication)
        if take:
            try:
                slots.take(stream_id, PARTNER if partner else BASIC)
            except PublishRefusedError:
                assert slots.free(PARTNER if partner else BASIC) == 0
        else:
            slots.give_back(stream_id)
        assert 0 <= slots.used <= total
        assert 0 <= slots.free(BASIC) <= slots.free(PARTNER) == total - slots.used
