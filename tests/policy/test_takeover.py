"""Numbers of runs, takeovers at one PoP and at two, and what fences a run off."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import PublishRefusedError
from edged.media.stream import StreamId
from edged.policy.takeover import (
    EPOCH_CHANCE_BITS,
    LISTED_S_MAX,
    PUBLICATION_CHANCE_BITS,
    PUBLICATION_MAX,
    RENUMBERINGS_MAX,
    TAKEOVER_INTERVAL_S,
    TAKEOVERS_MAX,
    ChannelRuns,
    Fencing,
    configs_from,
    takeover_id,
    takeovers,
    units_from,
)

UNIX = 1_700_000_000.0
NOW_NUMBER = int(UNIX * 1000) << PUBLICATION_CHANCE_BITS


def run(publication: int, channel: str = "alice") -> StreamId:
    return StreamId(channel, publication)


def test_a_number_is_the_time_and_then_chance() -> None:
    runs = ChannelRuns()
    assert runs.next_publication("alice", UNIX, 0) == NOW_NUMBER
    assert runs.next_publication("alice", UNIX, 4095) == NOW_NUMBER + 4095
    assert runs.next_publication("alice", UNIX + 0.001, 0) == NOW_NUMBER + 4096
    with pytest.raises(AssertionError, match="chance"):
        runs.next_publication("alice", UNIX, 4096)


def test_a_new_run_is_above_every_run_heard_of_also_after_its_end() -> None:
    runs = ChannelRuns()
    ahead = NOW_NUMBER + 2**40  # Of a PoP whose clock is days ahead.
    runs.heard(run(ahead))
    runs.heard(run(ahead - 5))
    assert runs.next_publication("alice", UNIX, 0) == ahead + 1
    assert runs.next_publication("bob", UNIX, 0) == NOW_NUMBER
    runs.begun(run(ahead + 1))
    assert runs.next_publication("alice", UNIX - 3600, 0) == ahead + 2


def test_a_number_that_no_clock_makes_is_not_followed() -> None:
    runs = ChannelRuns()
    runs.heard(run(PUBLICATION_MAX))
    assert runs.next_publication("alice", UNIX, 0) == NOW_NUMBER
    runs.heard(run(PUBLICATION_MAX - 1))
    assert runs.next_publication("alice", UNIX, 0) == PUBLICATION_MAX


@hypothesis.given(st.lists(st.integers(0, 2**64 - 1)), st.floats(0, 4e9), st.integers(0, 2**12 - 1))
def test_every_number_fits_64_bits(heard: list[int], unix_now: float, chance: int) -> None:
    runs = ChannelRuns()
    for publication in heard:
        runs.heard(run(publication))
    number = runs.next_publication("alice", unix_now, chance)
    assert max((h for h in heard if h < PUBLICATION_MAX), default=-1) < number < 2**63


def test_channels_are_bounded_and_the_longest_unheard_is_forgotten() -> None:
    runs = ChannelRuns(channels_max=3)
    for number, channel in enumerate("abc"):
        runs.heard(run(2**62 + number, channel))
    runs.heard(run(1, "a"))
    assert len(runs) == 3
    runs.heard(run(1, "d"))
    assert len(runs) == 3
    assert runs.next_publication("a", UNIX, 0) > 2**62
    assert runs.next_publication("b", UNIX, 0) == NOW_NUMBER


def test_a_second_takeover_at_one_pop_waits() -> None:
    runs = ChannelRuns()
    runs.begun(run(1))
    assert runs.takes_over("alice", here=True, listed=run(1), now=0.0)
    runs.begun(run(2))
    runs.taken_over("alice", 0.0)
    with pytest.raises(PublishRefusedError) as refused:
        runs.takes_over("alice", here=True, listed=run(2), now=TAKEOVER_INTERVAL_S - 0.1)
    assert refused.value.code == "takeover"
    assert refused.value.reason == (
        "channel 'alice' is live and was taken over 30 s ago; a second time is refused for 30 s:"
        " do two encoders use the same key?"
    )
    assert runs.takes_over("alice", here=True, listed=run(2), now=TAKEOVER_INTERVAL_S)


def test_who_comes_back_after_the_end_takes_nothing_over() -> None:
    runs = ChannelRuns()
    assert not runs.takes_over("alice", here=False, listed=None, now=0.0)
    for number in range(1, 5):
        runs.begun(run(number))
        # The directory goes on listing the run that has just ended.
        assert not runs.takes_over("alice", here=False, listed=run(number), now=0.0)


def test_two_pops_do_not_take_a_channel_from_each_other_for_ever() -> None:
    west, east = ChannelRuns(), ChannelRuns()
    west.begun(run(1))
    for runs in (west, east):
        runs.listed(run(1), waiting=False, now=0.0)
    assert east.takes_over("alice", here=False, listed=run(1), now=0.0)
    east.begun(run(2))
    east.taken_over("alice", 0.0)
    west.fenced("alice", run(1), 0.05)
    # At once, when the directory does not list the newer run yet.
    with pytest.raises(PublishRefusedError, match="takeover"):
        west.takes_over("alice", here=False, listed=run(1), now=0.1)
    west.listed(run(2), waiting=False, now=0.1)
    with pytest.raises(PublishRefusedError, match="takeover"):
        west.takes_over("alice", here=False, listed=run(2), now=0.15)
    assert west.takes_over("alice", here=False, listed=run(2), now=0.05 + TAKEOVER_INTERVAL_S)
    # But when the newer one has ended, the channel is free.
    assert not west.takes_over("alice", here=False, listed=None, now=0.2)


@pytest.mark.parametrize("listed", [None, run(1), run(2)])
def test_a_run_that_fenced_ours_counts_as_live_until_it_can_be_listed(
    listed: StreamId | None,
) -> None:
    runs = ChannelRuns()
    runs.begun(run(1))
    runs.fenced("alice", listed, 0.0)
    if listed == run(2):
        assert not runs.takes_over("alice", here=False, listed=None, now=0.1)
        return
    with pytest.raises(PublishRefusedError, match="takeover"):
        runs.takes_over("alice", here=False, listed=listed, now=LISTED_S_MAX - 0.01)
    assert not runs.takes_over("alice", here=False, listed=listed, now=LISTED_S_MAX)


def test_a_pop_that_knows_nothing_yet_takes_over_what_is_listed() -> None:
    assert ChannelRuns().takes_over("alice", here=False, listed=run(1), now=0.0)


def test_what_has_fenced_a_run_off() -> None:
    runs = ChannelRuns()
    runs.begun(run(5))
    judge = runs.judge_fencing
    assert judge(run(5), run(6), renumbered=0) is Fencing.TAKEN_OVER
    assert judge(run(5), run(5), renumbered=0) is Fencing.OUTNUMBERED  # By what, nobody says.
    assert judge(run(5), None, renumbered=0) is Fencing.OUTNUMBERED
    runs.heard(run(9))
    assert judge(run(5), run(5), renumbered=0) is Fencing.RENUMBER
    assert judge(run(5), None, renumbered=RENUMBERINGS_MAX - 1) is Fencing.RENUMBER
    assert judge(run(5), None, renumbered=RENUMBERINGS_MAX) is Fencing.OUTNUMBERED
    assert ChannelRuns().judge_fencing(run(5), None, renumbered=0) is Fencing.OUTNUMBERED


CHANCES = st.integers(0, 2**EPOCH_CHANCE_BITS - 1)


@hypothesis.given(st.integers(1, TAKEOVERS_MAX - 1), CHANCES, CHANCES, st.integers(0, 200))
def test_what_takes_over_is_above_all_that_it_cannot_have_heard_of(
    count: int, chance: int, other: int, rehomings: int
) -> None:
    """Epoch, units and configurations; of two at once one is above the other's every re-homing."""
    live = run(1)
    for _ in range(count):
        live = takeover_id(live, chance)
    assert takeovers(live) == count
    moved = StreamId(live.channel, live.publication, live.home_epoch + rehomings)
    newer = takeover_id(live, other)
    assert newer > moved
    assert takeovers(newer) == count + 1
    assert units_from(newer) >= units_from(moved) + 2**32
    assert configs_from(newer) >= configs_from(moved) + 2**10
    assert units_from(newer) < 2**63
    assert configs_from(newer) + 2**10 <= 2**32
    third = takeover_id(live, chance)
    if chance != other:
        one, two = sorted((newer, third))
        assert StreamId(one.channel, one.publication, one.home_epoch + rehomings) < two
        assert abs(units_from(one) - units_from(two)) >= 2**32
    with pytest.raises(AssertionError, match="chance"):
        takeover_id(live, 2**EPOCH_CHANCE_BITS)


def test_before_the_first_takeover_all_counts_from_nothing() -> None:
    assert (takeovers(run(1)), units_from(run(1)), configs_from(run(1))) == (0, 0, 0)


def test_who_returns_to_a_run_that_waits_takes_nothing_over() -> None:
    runs = ChannelRuns()
    assert not runs.takes_over("alice", here=False, listed=run(1), waiting=True, now=0.0)
    runs.listed(run(1), waiting=False, now=0.0)
    runs.taken_over("alice", 0.0)
    with pytest.raises(PublishRefusedError, match="takeover"):
        runs.takes_over("alice", here=False, listed=run(1), now=1.0)
    assert not runs.takes_over("alice", here=False, listed=run(1), waiting=True, now=1.0)


def test_a_takeover_between_others_counts_here_too_a_return_does_not() -> None:
    for waiting in (False, True):
        runs = ChannelRuns()
        runs.listed(run(1), waiting=waiting, now=0.0)
        newer = takeover_id(run(1), 5)
        moved = StreamId("alice", 1, newer.home_epoch + 1)
        runs.listed(newer, waiting=False, now=1.0)
        runs.listed(moved, waiting=False, now=25.0)  # Another home is no takeover.
        if waiting:
            assert runs.takes_over("alice", here=False, listed=moved, now=30.0)
            continue
        with pytest.raises(PublishRefusedError, match="takeover"):
            runs.takes_over("alice", here=False, listed=moved, now=30.0)
        assert runs.takes_over("alice", here=False, listed=moved, now=31.0)


def test_a_run_of_ours_is_ours_under_every_epoch_it_had_here() -> None:
    runs = ChannelRuns()
    assert runs.is_elsewhere(run(1))
    runs.begun(run(1))
    runs.begun(StreamId("alice", 1, 2))
    assert not runs.is_elsewhere(run(1))
    assert not runs.is_elsewhere(StreamId("alice", 1, 2))
    newer = takeover_id(run(1), 0)
    assert runs.is_elsewhere(newer)
    assert runs.takes_over("alice", here=False, listed=newer, now=0.0)
    runs.begun(newer)  # It goes on here.
    runs.listed(newer, waiting=False, now=0.0)
    assert not runs.takes_over("alice", here=False, listed=newer, now=0.0)


def test_who_was_to_join_a_run_can_always_begin_one() -> None:
    runs = ChannelRuns()
    runs.begun(run(5))
    assert runs.judge_fencing(run(5), None, renumbered=0, joins=True) is Fencing.RENUMBER
    newer = takeover_id(run(5), 0)
    assert runs.judge_fencing(run(5), newer, renumbered=0, joins=True) is Fencing.TAKEN_OVER
