"""Slots: at the limit and one past it, by class."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import PublishRefusedError
from edged.media.routing import Terms
from edged.media.stream import PriorityClass, StreamId
from edged.policy.slots import Slots

PARTNER, AFFILIATE, BASIC = PriorityClass


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


SOURCE_ONLY, PREEMPT = Terms("source-only"), Terms("preempt")


def test_what_the_reserve_is_for_may_use_it_whatever_its_class() -> None:
    slots = Slots(total=1, reserve=1)
    with pytest.raises(PublishRefusedError):
        slots.take(StreamId("a", 1), BASIC)
    slots.take(StreamId("a", 1), BASIC, Terms(reserve=True))
    assert slots.used == 1


def test_source_only_at_its_limit_and_one_past_it() -> None:
    slots = Slots(total=1, reserve=0, source_only=2)
    slots.take(StreamId("a", 1), BASIC, SOURCE_ONLY)
    assert not slots.is_source_only("a")  # There was room.
    slots.take(StreamId("b", 1), BASIC, SOURCE_ONLY)
    slots.take(StreamId("c", 1), PARTNER, SOURCE_ONLY)
    assert (slots.used, slots.used_beyond, slots.source_only_free) == (1, 2, 0)
    with pytest.raises(PublishRefusedError, match="2 of 2 streams are here without a ladder"):
        slots.take(StreamId("d", 1), BASIC, SOURCE_ONLY)
    with pytest.raises(PublishRefusedError, match="full"):
        slots.take(StreamId("d", 1), PARTNER)
    slots.take(StreamId("b", 2), BASIC)  # A newer run of it stays as it is.
    assert slots.is_source_only("b")
    slots.give_back(StreamId("b", 1))
    assert slots.is_source_only("b")
    slots.give_back(StreamId("a", 1))
    assert slots.promote() == [StreamId("c", 1)]  # The highest class first.
    assert slots.promote() == []
    slots.resize(2, 0, 2)
    assert slots.promote() == [StreamId("b", 2)]
    assert (slots.used, slots.used_beyond, slots.source_only_free) == (2, 0, 2)


def test_who_waits_without_a_slot_leaves_the_reserve_to_partners() -> None:
    slots = Slots(total=2, reserve=1, source_only=2)
    slots.take(StreamId("a", 1), PARTNER)
    slots.take(StreamId("b", 1), BASIC, SOURCE_ONLY)
    assert slots.is_source_only("b")
    assert slots.promote() == []


def test_who_waits_without_a_slot_may_use_the_reserve_if_its_rule_says_so() -> None:
    slots = Slots(total=1, reserve=1, source_only=1)
    slots.take(StreamId("a", 1), PARTNER)
    slots.take(StreamId("b", 1), BASIC, Terms("source-only", reserve=True))
    slots.give_back(StreamId("a", 1))
    assert slots.promote() == [StreamId("b", 1)]


def test_resized_who_is_beyond_the_slots_stays() -> None:
    slots = Slots(total=0, reserve=0, source_only=2)
    for channel in "ab":
        slots.take(StreamId(channel, 1), BASIC, SOURCE_ONLY)
    slots.resize(0, 0, 1)
    assert (slots.used_beyond, slots.source_only_free) == (2, 0)


def test_a_newer_run_is_no_newer_in_its_turn() -> None:
    slots = Slots(total=2, reserve=0)
    for stream_id in (StreamId("a", 1), StreamId("b", 1), StreamId("a", 2)):
        slots.take(stream_id, BASIC)
    assert slots.take(StreamId("p", 1), PARTNER, PREEMPT) == StreamId("b", 1)


def test_the_newest_of_the_lowest_class_gives_way() -> None:
    slots = Slots(total=4, reserve=0)
    for channel, priority in (("a", AFFILIATE), ("b", BASIC), ("c", BASIC), ("d", PARTNER)):
        slots.take(StreamId(channel, 1), priority)
    assert slots.preemptible() == (3, 2, 0)
    with pytest.raises(PublishRefusedError, match="none of a lower class has one"):
        slots.take(StreamId("e", 1), BASIC, PREEMPT)
    assert slots.take(StreamId("e", 1), AFFILIATE, PREEMPT) == StreamId("c", 1)
    assert slots.take(StreamId("f", 1), PARTNER, PREEMPT) == StreamId("b", 1)
    assert slots.take(StreamId("g", 1), PARTNER, PREEMPT) == StreamId("e", 1)
    assert slots.take(StreamId("h", 1), PARTNER, PREEMPT) == StreamId("a", 1)
    with pytest.raises(PublishRefusedError, match="full"):
        slots.take(StreamId("i", 1), PARTNER, PREEMPT)
    assert (slots.used, slots.preempted_total) == (4, 4)
    slots.give_back(StreamId("c", 1))  # As it ends: its slot is another's.
    assert slots.used == 4


def test_what_a_newer_peer_asks_is_refused_as_always() -> None:
    slots = Slots(total=1, reserve=0, source_only=1)
    slots.take(StreamId("a", 1), BASIC)
    with pytest.raises(PublishRefusedError, match="full"):
        slots.take(StreamId("b", 1), PARTNER, Terms("move-the-others"))


@hypothesis.given(
    st.integers(0, 4),
    st.integers(0, 2),
    st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"),
            st.sampled_from(PriorityClass),
            st.sampled_from(["reject", "source-only", "preempt"]),
            st.booleans(),
            st.booleans(),
        ),
        max_size=30,
    ),
)
def test_whatever_is_asked_the_slots_hold(
    total: int, beyond: int, steps: list[tuple[str, PriorityClass, str, bool, bool]]
) -> None:
    slots = Slots(total=total, reserve=total // 2, source_only=beyond)
    classes: dict[str, PriorityClass] = {}
    for channel, priority, on_full, reserve, ends in steps:
        stream_id = StreamId(channel, 1)
        if ends:
            slots.give_back(stream_id)
            classes.pop(channel, None)
        elif channel not in classes:
            preemptible = slots.preemptible()[priority]
            room = slots.free(priority, may_reserve=reserve)
            try:
                victim = slots.take(stream_id, priority, Terms(on_full, reserve))
            except PublishRefusedError:
                assert room == 0
                assert on_full != "preempt" or preemptible == 0
                assert on_full != "source-only" or slots.source_only_free == 0
                continue
            classes[channel] = priority
            if victim is not None:
                assert room == 0
                assert classes.pop(victim.channel) > priority
            assert slots.is_source_only(channel) is (room == 0 and on_full == "source-only")
        slots.promote()
        assert slots.used <= total
        assert slots.used_beyond <= beyond
        assert slots.used + slots.used_beyond == len(classes)
