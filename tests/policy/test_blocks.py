"""Blocked channels: refused until their time is over, and not more of them than may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import EdgedError, PublishRefusedError
from edged.policy.blocks import BLOCK_S_MAX, Blocks


def refused(blocks: Blocks, channel: str, now: float) -> str:
    try:
        blocks.check(channel, now)
    except PublishRefusedError as error:
        return error.reason if error.code == "kicked" else f"not kicked but {error}"
    return ""


def test_a_channel_is_refused_until_its_time_is_over() -> None:
    blocks = Blocks()
    blocks.block("alice", "no music rights", seconds=60.0, now=100.0)
    assert refused(blocks, "alice", 100.0) == "no music rights; refused for another 60 s"
    assert refused(blocks, "alice", 159.9)
    assert not refused(blocks, "bob", 100.0)
    assert not refused(blocks, "alice", 160.0)
    assert len(blocks) == 0


def test_the_last_word_counts() -> None:
    blocks = Blocks()
    blocks.block("alice", "first", seconds=60.0, now=0.0)
    blocks.block("alice", "second", seconds=1.0, now=0.0)
    assert refused(blocks, "alice", 0.5).startswith("second")
    assert not refused(blocks, "alice", 1.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, BLOCK_S_MAX + 1, float("nan"), float("inf")])
def test_times_out_of_the_limits_change_nothing(seconds: float) -> None:
    blocks = Blocks()
    blocks.block("alice", "first", seconds=BLOCK_S_MAX, now=0.0)
    with pytest.raises(EdgedError, match="up to 604800"):
        blocks.block("alice", "second", seconds=seconds, now=0.0)
    assert refused(blocks, "alice", 0.0).startswith("first")


def test_at_the_limit_no_more_are_taken_until_one_is_over() -> None:
    blocks = Blocks(channels_max=2)
    blocks.block("a", "", seconds=10.0, now=0.0)
    blocks.block("b", "", seconds=20.0, now=0.0)
    blocks.block("a", "again", seconds=10.0, now=0.0)
    with pytest.raises(EdgedError, match="2 channels are blocked already"):
        blocks.block("c", "", seconds=10.0, now=9.0)
    blocks.block("c", "", seconds=10.0, now=10.0)
    assert len(blocks) == 2
    assert refused(blocks, "c", 11.0)
    assert not refused(blocks, "a", 11.0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0.1, 50.0), st.floats(0.0, 9.0))))
def test_what_is_refused_is_what_was_blocked_last_and_is_not_over(
    steps: list[tuple[str, float, float]],
) -> None:
    blocks, until, now = Blocks(channels_max=3), dict[str, float](), 0.0
    for channel, seconds, pause in steps:
        now += pause
        until = {name: at for name, at in until.items() if at > now}
        if channel in until or len(until) < 3:
            blocks.block(channel, "why", seconds=seconds, now=now)
            until[channel] = now + seconds
        else:
            with pytest.raises(EdgedError):
                blocks.block(channel, "why", seconds=seconds, now=now)
        assert len(blocks) <= 3
        for name in "abcdef":
            assert bool(refused(blocks, name, now)) == (until.get(name, 0.0) > now)
