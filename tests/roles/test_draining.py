"""The drain of a role, as its shell: who is let go of when, what is ended, and undone."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from edged.media.stream import Grant, StreamId
from edged.roles.draining import TICK_S, Drainer, DrainState
from edged.runtime.hub import LiveStream


def make_stream(channel: str) -> LiveStream:
    return LiveStream(
        StreamId(channel, 1), Grant(channel=channel), started_at=0.0, came_from="test"
    )


class Role:
    """Has streams; those that are let go of leave at once, but the stubborn."""

    def __init__(self, *channels: str, stubborn: str = "", notice_s: float = 0.0) -> None:
        self.streams = [make_stream(channel) for channel in channels]
        self.drain_notice_s = notice_s
        self.stubborn = stubborn
        self.told: list[tuple[float, str, str]] = []
        self.refuses: str | None = None

    def drain_begin(self, reconnect_url: str | None) -> None:
        self.refuses = reconnect_url or "elsewhere"

    def drain_undo(self) -> None:
        self.refuses = None

    def drain_awaited(self) -> bool:
        return any(stream.waiting_since is None for stream in self.streams)

    def drain_streams(self) -> list[LiveStream]:
        return list(self.streams)

    def drain_one(self, stream: LiveStream, reconnect_url: str | None) -> None:
        self.told.append((round(trio.current_time(), 1), stream.channel, reconnect_url or ""))
        if stream.channel != self.stubborn:
            self.streams.remove(stream)

    def drain_end(self, stream: LiveStream) -> None:
        self.told.append((round(trio.current_time(), 1), stream.channel, "end"))
        self.streams.remove(stream)


@contextlib.asynccontextmanager
async def draining(
    role: Role, deadline_s: float, url: str | None = None, *, stopping: bool = False
) -> AsyncIterator[tuple[Drainer, trio.Nursery]]:
    drainer = Drainer("pop a", role, trio.current_time)
    async with trio.open_nursery() as nursery:
        run = drainer.begin(deadline_s, url, stopping=stopping)
        assert run is not None
        nursery.start_soon(run)
        yield drainer, nursery


async def test_it_ends_early_when_none_is_left(autojump_clock: MockClock) -> None:
    role = Role("a", "b", "c")
    async with draining(role, 30.0, "rtmp://other/live") as (drainer, _):
        assert role.refuses == "rtmp://other/live"
        await trio.sleep(0.05)
        line = drainer.line()
        assert (line.state, line.left, line.total) == (DrainState.DRAINING, 2, 3)
        assert 29.9 < line.seconds_left <= 29.96
    assert trio.current_time() < 2
    assert [told[1:] for told in role.told] == [(name, "rtmp://other/live") for name in "abc"]
    assert [told[0] for told in role.told] == pytest.approx([0.0, 0.5, 1.0], abs=1.5 * TICK_S)
    line = drainer.line()
    assert (line.state, line.left, line.total, line.seconds_left) == (DrainState.DRAINED, 0, 3, 0)
    assert role.refuses is not None, "until that is undone"


async def test_what_stays_is_ended_at_the_deadline(autojump_clock: MockClock) -> None:
    role = Role("a", "b", stubborn="a")
    async with draining(role, 4.0):
        pass
    assert role.told == [(0.0, "a", ""), (0.5, "b", ""), (4.0, "a", "end")]


async def test_nothing_goes_before_others_have_heard(autojump_clock: MockClock) -> None:
    role = Role("a", notice_s=0.3)
    async with draining(role, 4.0):
        pass
    assert [at for at, _, _ in role.told] == [0.3]


async def test_with_nothing_there_it_is_drained_at_once(autojump_clock: MockClock) -> None:
    role = Role(notice_s=0.3)
    async with draining(role, 30.0) as (drainer, _):
        assert not drainer.busy
    assert trio.current_time() == 0
    assert drainer.line().state is DrainState.DRAINED


async def test_for_streams_that_only_wait_no_process_stays(autojump_clock: MockClock) -> None:
    role = Role("a", "b")
    drainer = Drainer("pop a", role, trio.current_time)
    role.streams[0].waiting_since = 0.0
    assert drainer.busy
    role.streams[1].waiting_since = 0.0
    assert not drainer.busy


@pytest.mark.parametrize("stopping", [True, False], ids=["of a stop", "by the operator"])
async def test_who_is_lost_before_its_turn_is_not_waited_for_by_a_stop(
    stopping: bool, autojump_clock: MockClock
) -> None:
    """Nobody has asked it to go elsewhere; a process that stays may see it come back."""
    role = Role("a", "b")
    async with draining(role, 5.0, stopping=stopping):
        await trio.sleep(0.15)
        role.streams[0].waiting_since = trio.current_time()
        role.stubborn = "b"  # It cannot be told any more.
    assert [told[1:] for told in role.told][-1] == ("b", "end")
    ended_at = role.told[-1][0]
    assert ended_at == pytest.approx(0.2 if stopping else 5.0, abs=1.5 * TICK_S)


async def test_a_stop_waits_for_who_was_asked_and_is_on_its_way(
    autojump_clock: MockClock,
) -> None:
    role = Role("a", stubborn="a")
    async with draining(role, 5.0, stopping=True) as (drainer, _):
        await trio.sleep(0.05)
        role.streams[0].waiting_since = trio.current_time()
        await trio.sleep(2)
        assert drainer.line().state is DrainState.DRAINING
        role.streams.clear()  # It has arrived elsewhere.
    assert trio.current_time() < 2.3
    assert role.told == [(0.0, "a", "")]


async def test_a_stop_does_not_wait_for_who_was_lost_and_could_not_be_asked(
    autojump_clock: MockClock,
) -> None:
    role = Role("a", "b", stubborn="a")
    role.streams[0].waiting_since = 0.0
    async with draining(role, 5.0, stopping=True):
        pass
    assert [told[1:] for told in role.told] == [("a", ""), ("b", ""), ("a", "end")]
    assert role.told[-1][0] < 1


async def test_undone_it_takes_what_comes_and_lets_nobody_go(autojump_clock: MockClock) -> None:
    role = Role("a", "b", "c")
    async with draining(role, 30.0) as (drainer, _):
        await trio.sleep(0.2)
        drainer.undo()
        drainer.undo()
    assert trio.current_time() < 0.5
    assert [channel for _, channel, _ in role.told] == ["a"]
    assert role.refuses is None
    assert drainer.line().state is DrainState.SERVING
    assert len(role.streams) == 2


async def test_undone_before_it_began(autojump_clock: MockClock) -> None:
    role = Role("a")
    async with draining(role, 30.0) as (drainer, _):
        drainer.undo()
    assert role.told == []


async def test_begun_anew_the_last_deadline_counts(autojump_clock: MockClock) -> None:
    role = Role("a", stubborn="a")
    async with draining(role, 600.0) as (drainer, nursery):
        await trio.sleep(0.2)
        again = drainer.begin(2.0, None)
        assert again is not None
        nursery.start_soon(again)
    assert trio.current_time() < 2.5
    assert [what for _, _, what in role.told] == ["", "", "end"]


async def test_a_role_with_nothing_to_drain() -> None:
    drainer = Drainer("irs", None, trio.current_time, note="nothing to drain")
    assert drainer.begin(30.0, None) is None
    drainer.undo()
    assert not drainer.busy
    line = drainer.line()
    assert (line.state, line.left, line.note) == (DrainState.SERVING, 0, "nothing to drain")
