"""Descriptions: changed here or at another PoP, seen at both, and kept through a failover."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import trio
from structlog.testing import capture_logs

from edged.errors import EdgedError
from edged.media.stream import Description, DescriptionChange, Grant, StreamId
from edged.roles import descriptions as module
from edged.roles.descriptions import Descriptions, NotLiveError
from edged.runtime.hub import LiveStream
from tests.backbone.network import Origin, append, until
from tests.roles.setting import Pop, running_pop

CHANGE = DescriptionChange(title="now", category="Music", labels=("live", "jazz"))
CHANGED = Description(title="now", category="Music", labels=("live", "jazz"))
SEEN_S_MAX = 0.5


class Setting:
    """A channel that is published at one PoP, and another PoP."""

    def __init__(self, here: Pop, other: Pop, stream: LiveStream) -> None:
        self.here, self.other, self.stream = here, other, stream
        self.at_home = Descriptions(here.hub, here.uplinks, here.pump.now)
        self.elsewhere = Descriptions(other.hub, other.uplinks, other.pump.now)
        self.told: list[tuple[StreamId, Description, Description]] = []
        self.at_home.on_changed = lambda *change: self.told.append(change)


@contextlib.asynccontextmanager
async def published(*origins: Origin) -> AsyncIterator[Setting]:
    async with running_pop(*origins) as here, running_pop(*origins, name="lon1") as other:
        stream = here.open()
        here.place(stream)
        append(stream, 10)
        await until(lambda: other.uplinks.lookup("alice"))
        await until(lambda: here.uplinks.lookup("alice"))
        yield Setting(here, other, stream)


async def test_a_change_is_seen_here_at_once_and_elsewhere_soon() -> None:
    origin = Origin("one")
    async with origin.serving(), published(origin) as setting:
        assert setting.elsewhere.read("alice") == Description()
        assert await setting.at_home.change("alice", CHANGE) == CHANGED
        assert setting.at_home.read("alice") == CHANGED
        await until(lambda: setting.elsewhere.read("alice") == CHANGED, SEEN_S_MAX)
        only = DescriptionChange(title="later")
        assert (await setting.at_home.change("alice", only)).category == "Music"
        assert [(change[1], change[2]) for change in setting.told] == [
            (Description(), CHANGED),
            (CHANGED, Description(title="later", category="Music", labels=CHANGED.labels)),
        ]
        await setting.at_home.change("alice", only)  # It says that already: nobody is told.
        assert len(setting.told) == 2


async def test_a_change_may_be_made_at_any_pop_and_is_the_publisher_s_pop_s() -> None:
    origin = Origin("one")
    async with origin.serving(), published(origin) as setting:
        with trio.fail_after(SEEN_S_MAX):
            assert await setting.elsewhere.change("alice", CHANGE) == CHANGED
        assert setting.stream.grant.description == CHANGED
        assert setting.at_home.read("alice") == CHANGED
        assert setting.told == [(setting.stream.stream_id, Description(), CHANGED)]
        assert await setting.elsewhere.change("alice", CHANGE) == CHANGED


async def test_it_survives_the_loss_of_the_origin() -> None:
    one, two = Origin("one"), Origin("two")
    async with two.serving(), contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(one.serving())
        async with published(one, two) as setting:
            await setting.at_home.change("alice", CHANGE)
            await until(lambda: setting.elsewhere.read("alice") == CHANGED)
            assert one.server is not None
            one.server.stop_stream(setting.stream.stream_id, "drain", "the origin is stopping")
            await until(lambda: two.hub.get("alice"))
            assert two.opened[0].grant.description == CHANGED

            def seen() -> bool:
                record = setting.other.uplinks.listing.lookup("alice")
                return record is not None and record.origin == "two"

            await until(seen)
            assert setting.elsewhere.read("alice") == CHANGED


async def serve(
    origin: Origin, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    """An origin that can be ended before what was opened after it."""
    with trio.CancelScope() as scope:
        async with origin.serving():
            task_status.started(scope)
            await trio.sleep_forever()


async def test_it_survives_the_restart_of_the_origin() -> None:
    origin, again = Origin("one"), Origin("one", incarnation=2)
    async with trio.open_nursery() as nursery:
        first = await nursery.start(serve, origin)
        async with published(origin) as setting:
            await setting.at_home.change("alice", CHANGE)
            first.cancel()
            again.address = origin.address
            await nursery.start(serve, again)
            await until(lambda: again.hub.get("alice"))
            assert again.opened[0].grant.description == CHANGED
            await until(lambda: setting.elsewhere.read("alice") == CHANGED)
        nursery.cancel_scope.cancel()


async def test_who_is_not_live_has_no_description() -> None:
    origin = Origin("one")
    async with origin.serving(), published(origin) as setting:
        with pytest.raises(NotLiveError, match="'bob' is not live"):
            await setting.elsewhere.change("bob", CHANGE)
        assert setting.elsewhere.read("bob") is None
        setting.stream.end("bye")
        with pytest.raises(NotLiveError):
            await setting.elsewhere.change("alice", CHANGE)
        await until(lambda: setting.elsewhere.read("alice") is None)


async def test_a_pop_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEEN_S_MAX", 0.2)
    origin = Origin("one")
    async with origin.serving(), published(origin) as setting:
        setting.here.uplinks.on_description_wanted = lambda *_: None
        with pytest.raises(EdgedError, match="has not answered"):
            await setting.elsewhere.change("alice", CHANGE)
        await setting.other.lose("one")
        setting.other.uplinks.want_description = lambda *_: False  # type: ignore[method-assign]
        with pytest.raises(EdgedError, match="no way"):
            await setting.elsewhere.change("alice", CHANGE)


async def test_what_another_pop_should_not_have_passed_on_is_not_taken() -> None:
    origin = Origin("one")
    async with origin.serving(), published(origin) as setting:
        with capture_logs() as logs:
            setting.elsewhere._uplinks.want_description(
                "alice", DescriptionChange(title="two\nlines")
            )
            await until(lambda: any(line["event"] == "description refused" for line in logs))
        assert setting.stream.grant.description == Description()


async def test_an_encoder_that_comes_back_has_what_was_changed() -> None:
    origin = Origin("one")
    async with origin.serving(), published(origin) as setting:
        await setting.at_home.change("alice", CHANGE)
        setting.at_home.ended("alice")
        assert setting.at_home.adopt(Grant(channel="alice")).description == CHANGED
