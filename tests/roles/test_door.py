"""The PoP's door: keys, places, takeovers, and what refusals cost."""

import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from edged.errors import EdgedError, PublishRefusedError
from edged.ingest.plugin import HttpAnswer, HttpRequest, HttpRoute, PublishRequest
from edged.media.events import StreamEvent, StreamTakenOver, StreamWentLive, StreamWentOffline
from edged.media.routing import OriginReport, ReportedState
from edged.media.stream import DescriptionChange, Grant, PriorityClass, StreamId
from edged.policy import attempts, takeover
from edged.policy.key_callback import KeyQuestion
from edged.policy.stream_keys import StaticKey, StreamKeys
from edged.policy.takeover import OUTNUMBERED, PUBLICATION_CHANCE_BITS, TAKEN_OVER
from edged.roles import placing, route_finding, uplinks
from edged.roles.door import ENCODER_CHARS_MAX, PopDoor
from edged.roles.placement import NO_ROUTE
from edged.wire.backbone.messages import DirectoryDelta, DirectoryEntry
from tests.backbone.network import Origin, until
from tests.roles.setting import Pop, running_pop
from tests.wire.backbone.builders import make_track, make_unit

UNIX = 1_700_000_000.0
KEYS = StreamKeys(
    [
        StaticKey(channel="alice", key="key-of-alice", title="Alice", tags=("music",)),
        StaticKey(channel="bob", key="key-of-bob", priority="partner", scope=("publish:rtmps",)),
    ]
)


class Control:
    """A `PublisherControl` that keeps what the network wants."""

    fails = False

    def __init__(self) -> None:
        self.stops: list[tuple[str, str]] = []
        self.drains: list[str | None] = []
        self.key_frames = 0

    def stop(self, code: str, reason: str) -> None:
        self.stops.append((code, reason))

    def drain(self, reconnect_url: str | None) -> None:
        self.drains.append(reconnect_url)

    def want_key_frame(self) -> None:
        if self.fails:
            raise RuntimeError("a plug-in's bug")
        self.key_frames += 1

    def cap_bitrate(self, bits_per_second: int) -> None:
        """Not wanted here."""


class Setting:
    def __init__(self, pop: Pop, origin: Origin) -> None:
        self.pop, self.origin = pop, origin
        self.unix = UNIX
        self.door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks, unix_now=lambda: self.unix)


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Setting]:
    origin = Origin("one")
    async with origin.serving(), running_pop(origin) as pop:
        yield Setting(pop, origin)


def request(
    key: str = "key-of-alice", protocol: str = "rtmp", app: str = "live", encoder: str = ""
) -> PublishRequest:
    return PublishRequest(
        protocol=protocol, app=app, stream_key=key, peer="10.0.0.7:50112", encoder=encoder
    )


async def test_a_valid_key_opens_a_stream_that_is_placed() -> None:
    async with opened() as setting:
        publication = await setting.door.publish(request(encoder="OBS" * 100), Control())
        stream = publication.stream
        assert stream.encoder == ("OBS" * 100)[:ENCODER_CHARS_MAX]
        assert publication.grant.title == "Alice"
        assert stream.channel == "alice"
        assert stream.came_from == "rtmp 10.0.0.7:50112"
        assert stream.stream_id.publication >> PUBLICATION_CHANCE_BITS == UNIX * 1000
        assert setting.pop.uplinks.placements["alice"].request.tags == ("music",)
        assert setting.door.accepted_total == 1
        publication.set_track(make_track())
        publication.append([make_unit(0)])
        await until(lambda: setting.origin.units("alice"))
        assert setting.origin.units("alice")[0].wallclock_us == UNIX * 1e6


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request("wrong-key"), "unknown_key"),
        (request(""), "unknown_key"),
        (request(app="vod"), "unknown_app"),
        (request("key-of-bob"), "out_of_scope"),
    ],
)
async def test_refusals_say_why_and_leave_nothing_behind(asked: PublishRequest, code: str) -> None:
    async with opened() as setting:
        with pytest.raises(PublishRefusedError) as refusal:
            await setting.door.publish(asked, Control())
        assert refusal.value.code == code
        assert asked.stream_key == "" or asked.stream_key not in str(refusal.value)
        assert len(setting.pop.hub) == 0
        assert (setting.door.refused_total, setting.door.accepted_total) == (1, 0)


async def test_without_a_route_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_finding, "ROUTE_WAIT_S_MAX", 0.02)
    async with opened() as setting:
        setting.pop.push_table()
        with pytest.raises(PublishRefusedError, match=r"no_route: .*no origins"):
            await setting.door.publish(request(), Control())
        assert len(setting.pop.hub) == 0
        assert not setting.pop.uplinks.placements


async def test_a_newcomer_without_a_route_does_not_end_the_incumbent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(route_finding, "ROUTE_WAIT_S_MAX", 0.02)
    async with opened() as setting:
        incumbent = await setting.door.publish(request(), Control())
        setting.pop.push_table()
        with pytest.raises(PublishRefusedError, match="no_route"):
            await setting.door.publish(request(), Control())
        assert incumbent.ended is None
        assert setting.pop.hub.get("alice") is incumbent.stream


async def test_a_newcomer_reuses_its_channel_s_place_when_the_lease_is_full() -> None:
    origin = Origin("one")
    report = OriginReport("one", 1, ReportedState.UP, 1, (0, 0, 0), 1.0)
    async with origin.serving(), running_pop(origin, quota=1) as pop:
        door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks)
        first, second = Control(), Control()
        older = await door.publish(request(), first)
        pop.uplinks.heartbeat(report)
        with pytest.raises(PublishRefusedError, match="no_route"):
            await door.publish(request("key-of-bob", "rtmps"), Control())
        newer = await door.publish(request(), second)
        assert older.ended == TAKEN_OVER
        assert first.stops == [("Rejected", "taken over by a newer publisher")]
        assert second.stops == []
        assert pop.uplinks.placements["alice"].stream is newer.stream
        assert pop.view.by_name["one"].used == 1


async def test_a_key_s_class_decides_the_session() -> None:
    async with opened() as setting:
        publication = await setting.door.publish(request("key-of-bob", "rtmps"), Control())
        assert publication.grant.priority is PriorityClass.PARTNER
        assert setting.pop.uplinks.placements["bob"].request.priority is PriorityClass.PARTNER


async def test_the_end_of_a_publication_gives_its_place_back() -> None:
    async with opened() as setting:
        publication = await setting.door.publish(request(), Control())
        assert setting.pop.view.by_name["one"].used == 1
        publication.end("closed by peer")
        publication.end("and again")
        assert setting.pop.view.by_name["one"].used == 0
        assert len(setting.pop.hub) == 0
        assert publication.ended == "closed by peer"


async def test_the_newest_publisher_takes_the_channel_over() -> None:
    async with opened() as setting:
        first, second = Control(), Control()
        older = await setting.door.publish(request(), first)
        newer = await setting.door.publish(request(), second)
        assert older.ended == TAKEN_OVER
        assert first.stops == [("Rejected", "taken over by a newer publisher")]
        assert second.stops == []
        assert newer.stream.stream_id > older.stream.stream_id  # In the same millisecond, too.
        older.end("taken over by a newer publisher")  # As its session's end does.
        assert setting.pop.hub.get("alice") is newer.stream
        assert setting.pop.uplinks.placements["alice"].stream is newer.stream
        assert setting.pop.view.by_name["one"].used == 1


async def test_a_publication_is_newer_than_the_last_though_the_clock_went_back() -> None:
    async with opened() as setting:
        older = await setting.door.publish(request(), Control())
        setting.unix -= 3600
        newer = await setting.door.publish(request(), Control())
        assert newer.stream.stream_id > older.stream.stream_id


async def test_a_publication_is_newer_than_one_at_a_pop_whose_clock_is_ahead() -> None:
    async with opened() as setting:
        ahead = StreamId("alice", 2**62)
        setting.pop.uplinks.listing.apply(
            DirectoryDelta(
                origin="one",
                incarnation=9,
                version=1,
                from_version=0,
                changed=[DirectoryEntry(stream_id=ahead)],
                removed=[],
            )
        )
        publication = await setting.door.publish(request(), Control())
        assert publication.stream.stream_id > ahead


@pytest.mark.parametrize("late", [False, True])
async def test_two_encoders_do_not_evict_each_other_for_ever(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    monkeypatch.setattr(takeover, "TAKEOVER_INTERVAL_S", 0.02 if late else 30.0)
    async with opened() as setting:
        await setting.door.publish(request(), Control())
        live = Control()
        await setting.door.publish(request(), live)
        if late:
            await trio.sleep(0.03)
            await setting.door.publish(request(), Control())
            assert len(live.stops) == 1
            return
        with pytest.raises(PublishRefusedError, match="takeover: channel 'alice' is live and was"):
            await setting.door.publish(request(), Control())
        assert live.stops == []


async def test_two_encoders_at_two_pops_do_not_evict_each_other_for_ever() -> None:
    """At both PoPs, also at once after the eviction, when the directory lags behind."""
    origin = Origin("one")
    async with origin.serving(), running_pop(origin) as here, running_pop(origin) as there:
        west, east = (PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks) for pop in (here, there))
        evicted, live = Control(), Control()
        older = await west.publish(request(), evicted)
        await until(lambda: there.uplinks.lookup("alice"))
        publication = await east.publish(request(), live)
        await until(lambda: evicted.stops)
        assert evicted.stops == [("Rejected", TAKEN_OVER)]
        older.end(TAKEN_OVER)  # As its session's end does.
        for door in (west, east):
            with pytest.raises(PublishRefusedError, match="takeover: channel 'alice' is live and"):
                await door.publish(request(), Control())
        await until(lambda: here.uplinks.lookup("alice") == publication.stream.stream_id)
        with pytest.raises(PublishRefusedError, match="takeover: channel 'alice' is live and was"):
            await west.publish(request(), Control())
        assert live.stops == []
        publication.end("closed by peer")
        await until(lambda: here.uplinks.lookup("alice") is None)
        await west.publish(request(), Control())  # The channel is free.


async def test_a_corrected_clock_locks_no_channel_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the PoP that remembers the run ahead of time, and at one that has just started."""
    monkeypatch.setattr(uplinks, "TICK_S", 0.01)
    monkeypatch.setattr(placing, "LISTED_S_MAX", 0.2)
    origin = Origin("one")
    async with origin.serving(), running_pop(origin) as here:
        clock = [UNIX + 600]
        door = PopDoor(here.pump, here.hub, KEYS, here.uplinks, unix_now=lambda: clock[0])
        ahead = await door.publish(request(), Control())
        await until(lambda: here.uplinks.lookup("alice"))
        ahead.end("closed by peer")
        await until(lambda: here.uplinks.lookup("alice") is None)
        clock[0] = UNIX
        again = await door.publish(request(), Control())
        assert again.stream.stream_id.publication == ahead.stream.stream_id.publication + 1
        await until(lambda: here.uplinks.lookup("alice"))
        again.end("closed by peer")
        await until(lambda: here.uplinks.lookup("alice") is None)
        async with running_pop(origin) as fresh:
            control = Control()
            door = PopDoor(fresh.pump, fresh.hub, KEYS, fresh.uplinks, unix_now=lambda: UNIX)
            publication = await door.publish(request(), control)
            publication.set_track(make_track())
            publication.append([make_unit(0)])
            await until(lambda: origin.units("alice"))  # None is lost meanwhile.
            number = again.stream.stream_id.publication + 1
            assert publication.stream.stream_id == StreamId("alice", number)
            assert control.stops == []
            publication.end("closed by peer")
            assert not fresh.uplinks.placements


async def test_fenced_by_a_run_that_cannot_be_outnumbered_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks, "TICK_S", 0.01)
    monkeypatch.setattr(placing, "LISTED_S_MAX", 0.02)
    async with opened() as setting:
        server = setting.origin.server
        assert server is not None
        server._inbound._fence.admit(StreamId("alice", 2**63))
        control = Control()
        await setting.door.publish(request(), control)
        await until(lambda: control.stops)
        assert control.stops == [("Rejected", OUTNUMBERED)]


async def test_keys_are_not_guessed() -> None:
    async with opened() as setting:
        for _ in range(2 * attempts.WRONG_KEYS_MAX):  # A right key is not counted.
            publication = await setting.door.publish(request(), Control())
            publication.end("closed by peer")
        for _ in range(attempts.WRONG_KEYS_MAX):
            with pytest.raises(PublishRefusedError, match="unknown_key"):
                await setting.door.publish(request("guess"), Control())
        for key in ("guess", "key-of-alice"):  # Nor looked at, once it is too much.
            with pytest.raises(PublishRefusedError, match="rate_limited"):
                await setting.door.publish(request(key), Control())
        elsewhere = msgspec.structs.replace(request(), peer="10.0.0.8:1")
        await setting.door.publish(elsewhere, Control())


async def test_a_wrong_key_is_refused_without_a_wait_for_a_route() -> None:
    async with running_pop() as pop:
        door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks)
        with pytest.raises(PublishRefusedError, match="unknown_key"), trio.fail_after(0.2):
            await door.publish(request("wrong-key"), Control())


async def test_what_begins_and_ends_is_told() -> None:
    async with opened() as setting:
        pop, events = setting.pop, list[StreamEvent]()
        door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks, emit=events.append)
        with pytest.raises(PublishRefusedError):
            await door.publish(request("wrong-key"), Control())
        assert events == []
        older = await door.publish(request(), Control())
        number = f"{older.stream.stream_id.publication:x}"
        assert events == [
            StreamWentLive(
                channel="alice",
                publication=number,
                title="Alice",
                tags=(),  # Those for routing are nobody else's business.
                priority="basic",
                protocol="rtmp",
                origin="one",
            )
        ]
        newer = await door.publish(request(), Control())
        older.end("taken over by a newer publisher")  # As its session's end does.
        older.end("and again")
        newer.end("closed by peer")
        kinds = [event.kind for event in events]
        assert kinds == [
            *("stream_went_live", "stream_taken_over", "stream_went_live", "stream_went_offline")
        ]
        taken, ended = events[1], events[3]
        assert isinstance(taken, StreamTakenOver)
        newest = f"{newer.stream.stream_id.publication:x}"
        assert (taken.publication, taken.by_publication) == (number, newest)
        assert isinstance(ended, StreamWentOffline)
        assert (ended.publication, ended.reason) == (newest, "closed by peer")
        assert 0 <= ended.duration_s < 5


async def test_without_a_place_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_finding, "ROUTE_WAIT_S_MAX", 0.02)
    async with running_pop() as pop:
        events: list[StreamEvent] = []
        door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks, emit=events.append)
        with pytest.raises(PublishRefusedError, match="no_route"):
            await door.publish(request(), Control())
        assert events == []


class Asked:
    """An `AskKey` that knows one key more."""

    def __init__(self) -> None:
        self.questions: list[KeyQuestion] = []
        self.code = "unknown_key"
        self.hangs = False

    async def __call__(self, question: KeyQuestion, check: Callable[[], None]) -> Grant:
        self.questions.append(question)
        if self.hangs:
            await trio.sleep_forever()
        check()
        if question.stream_key != "key-elsewhere":
            raise PublishRefusedError(self.code, "says the service")
        return Grant(channel="carol", title="Carol", priority=PriorityClass.AFFILIATE)


async def test_a_key_that_is_not_known_here_is_asked_about() -> None:
    async with opened() as setting:
        asked = Asked()
        pop = setting.pop
        door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks, ask_key=asked)
        await door.publish(request(), Control())
        for refused in (request("key-of-bob"), request(app="vod")):  # Known, and refused.
            with pytest.raises(PublishRefusedError, match=r"out_of_scope|unknown_app"):
                await door.publish(refused, Control())
        assert asked.questions == []
        publication = await door.publish(request("key-elsewhere"), Control())
        assert publication.grant.title == "Carol"
        assert pop.uplinks.placements["carol"].request.priority is PriorityClass.AFFILIATE
        (question,) = asked.questions
        assert (question.app, question.protocol) == ("live", "rtmp")
        assert question.peer == "10.0.0.7:50112"


@pytest.mark.parametrize("code", ["unknown_key", "auth_unavailable"])
async def test_only_wrong_keys_are_counted(code: str) -> None:
    async with opened() as setting:
        asked = Asked()
        asked.code = code
        pop = setting.pop
        door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks, ask_key=asked)
        for _ in range(attempts.WRONG_KEYS_MAX):
            with pytest.raises(PublishRefusedError, match=f"{code}: says the service"):
                await door.publish(request("guess"), Control())
        if code == "unknown_key":
            with pytest.raises(PublishRefusedError, match="rate_limited"):
                await door.publish(request("key-elsewhere"), Control())
            assert len(asked.questions) == attempts.WRONG_KEYS_MAX
        else:
            await door.publish(request("key-elsewhere"), Control())


async def test_while_one_key_is_asked_about_others_are_let_in() -> None:
    async with opened() as setting, trio.open_nursery() as nursery:
        asked = Asked()
        asked.hangs = True
        pop = setting.pop
        door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks, ask_key=asked)
        nursery.start_soon(door.publish, request("key-elsewhere"), Control())
        await until(lambda: asked.questions)
        with trio.fail_after(0.2):
            await door.publish(request(), Control())
        nursery.cancel_scope.cancel()


async def test_who_comes_back_after_the_end_takes_nothing_over() -> None:
    async with opened() as setting:
        for _ in range(4):
            publication = await setting.door.publish(request(), Control())
            publication.end("closed by peer")


async def test_an_origin_s_refusal_reaches_the_publisher() -> None:
    async with opened() as setting:
        setting.origin.refusal = PublishRefusedError("full", "no slot is free")
        control = Control()
        with capture_logs() as logs:
            await setting.door.publish(request(), control)
            await until(lambda: control.stops)
        (line,) = [line for line in logs if line["event"] == "publication given up"]
        assert (line["channel"], line["code"]) == ("alice", "no_route")
        assert "one: held after a refusal" in line["detail"]  # What the encoder is not told.
        ((code, reason),) = control.stops
        assert (code, reason) == ("Failed", f"no_route: {NO_ROUTE}")


async def test_publishers_are_stopped_all_at_once() -> None:
    async with opened() as setting:
        alice, bob = Control(), Control()
        publications = [
            await setting.door.publish(request(), alice),
            await setting.door.publish(request("key-of-bob", "rtmps"), bob),
        ]
        setting.door.stop_all("Rejected", "drain")
        assert alice.stops == bob.stops == [("Rejected", "drain")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setting.door.wait_empty)
            await trio.testing.wait_all_tasks_blocked(0.005)
            for publication in publications:
                assert len(nursery.child_tasks) == 1
                publication.end("drain")


async def test_a_key_can_be_checked_without_publishing() -> None:
    async with opened() as setting:
        door = setting.door
        assert (await door.check("key-of-alice", "rtmp", "10.0.0.7:5")).title == "Alice"
        assert (await door.identify("key-of-bob", "10.0.0.7:5")).channel == "bob"
        with pytest.raises(PublishRefusedError, match="out_of_scope"):
            await door.check("key-of-bob", "rtmp", "10.0.0.7:5")
        assert len(setting.pop.hub) == 0
        assert (door.refused_total, door.accepted_total) == (0, 0)
        first = await door.publish(request(), Control())
        grant = await door.check("key-of-alice", "rtmp", "10.0.0.7:5")
        assert grant.channel == "alice"  # It would be taken over.
        assert first.ended is None
        await door.publish(request(), Control())
        with pytest.raises(PublishRefusedError, match="takeover") as refused:
            await door.check("key-of-alice", "rtmp", "10.0.0.7:5")
        assert refused.value.retry_after_s is not None
        assert 29 < refused.value.retry_after_s <= takeover.TAKEOVER_INTERVAL_S


async def test_a_key_of_a_blocked_channel_is_checked_as_if_it_published() -> None:
    async with opened() as setting:
        setting.door.kick("alice", "spam", block_s=60.0)
        with pytest.raises(PublishRefusedError, match="kicked: spam; refused for another 60 s"):
            await setting.door.check("key-of-alice", "rtmp", "10.0.0.7:5")


async def test_wrong_keys_that_are_only_shown_count_too() -> None:
    async with opened() as setting:
        for number in range(attempts.WRONG_KEYS_MAX):
            protocol = "rtmp" if number % 2 else None
            with pytest.raises(PublishRefusedError, match="unknown_key"):
                await setting.door.identify("wrong-key", f"[10.0.0.7]:{number}", protocol)
        with pytest.raises(PublishRefusedError, match="rate_limited") as refused:
            await setting.door.publish(request(), Control())
        assert refused.value.retry_after_s is not None
        assert 59 < refused.value.retry_after_s <= attempts.WINDOW_S


async def test_a_publication_that_comes_back_is_described_as_it_was() -> None:
    async with opened() as setting:
        publication = await setting.door.publish(request(), Control())
        descriptions = setting.door._descriptions
        await descriptions.change("alice", DescriptionChange(title="now", labels=("live",)))
        publication.end("the line broke")
        again = await setting.door.publish(request(), Control())
        assert (again.grant.title, again.grant.labels) == ("now", ("live",))
        assert again.grant.tags == ("music",)


def test_routes_of_plug_ins_are_kept_for_the_api() -> None:
    pop = Pop()
    door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks)
    route = HttpRoute(name="x", method="GET", path="/x", summary="x", handle=handle_nothing)
    door.add_routes([route])
    assert door.routes == [route]


async def handle_nothing(request: HttpRequest) -> HttpAnswer:
    return HttpAnswer(status=204)


async def test_a_pop_that_drains_lets_nobody_in() -> None:
    async with opened() as setting:
        control = Control()
        publication = await setting.door.publish(request(), control)
        setting.door.refuse_all("rtmp://other/live")
        told = r"drain: this PoP is draining; publish to rtmp://other/live"
        with pytest.raises(PublishRefusedError, match=told):
            await setting.door.publish(request("key-of-bob", "rtmps"), Control())
        assert setting.door.published == [publication.stream]
        setting.door.drain(publication.stream, "rtmp://other/live")
        assert (control.drains, control.stops) == (["rtmp://other/live"], [])
        setting.door.stop(publication.stream, "Rejected", "drain: enough")
        assert control.stops == [("Rejected", "drain: enough")]
        publication.end("closed")
        setting.door.drain(publication.stream, None)  # It has left: nobody is told.
        setting.door.stop(publication.stream, "Rejected", "twice")
        assert (len(control.drains), len(control.stops)) == (1, 1)
        setting.door.refuse_all(None)
        with pytest.raises(PublishRefusedError, match="publish to another"):
            await setting.door.publish(request(), Control())
        setting.door.admit_again()
        await setting.door.publish(request(), Control())


@pytest.mark.parametrize("what", ["drains", "is blocked"])
async def test_who_waits_for_a_route_meanwhile_is_not_let_in(what: str) -> None:
    async with opened() as setting, trio.open_nursery() as nursery:
        setting.pop.view.by_name.clear()
        setting.pop.push_table()
        refusals: list[str] = []

        async def publish() -> None:
            with pytest.raises(PublishRefusedError) as refusal:
                await setting.door.publish(request(), Control())
            refusals.append(refusal.value.code)

        nursery.start_soon(publish)
        await trio.testing.wait_all_tasks_blocked(0.005)
        if what == "drains":
            setting.door.refuse_all(None)
        else:
            setting.door.kick("alice", "no", block_s=60.0)
        setting.pop.push_table(setting.origin)
        setting.pop.uplinks.placing.routes.changed()
        with trio.fail_after(5):
            while not refusals:  # noqa: ASYNC110 - as it takes the wait for a route
                await trio.sleep(0.01)
        assert refusals == ["drain" if what == "drains" else "kicked"]


async def test_kicked_is_ended_at_once_and_refused_for_a_while() -> None:
    async with opened() as setting:
        control = Control()
        publication = await setting.door.publish(request(), control)
        other = await setting.door.publish(request("key-of-bob", "rtmps"), Control())
        assert setting.door.kick("alice", "no rights", block_s=60.0)
        assert control.stops == [("Rejected", "kicked: no rights")]
        assert publication.ended == "kicked: no rights"
        assert setting.pop.hub.get("alice") is None
        assert not setting.door.kick("alice", "again")
        publication.end("as the plug-in does")
        with pytest.raises(PublishRefusedError, match=r"kicked: no rights; refused for another"):
            await setting.door.publish(request(), Control())
        assert other.ended is None
        with pytest.raises(EdgedError, match="block of"):
            setting.door.kick("bob", "too long", block_s=1e9)
        assert other.ended is None, "nothing has changed"


async def test_other_keys_send_nobody_away_and_say_who_would_not_be_let_in() -> None:
    async with opened() as setting:
        alice = await setting.door.publish(request(), Control())
        bob = await setting.door.publish(request("key-of-bob", "rtmps"), Control())
        kept = StaticKey(channel="bob", key="key-of-bob", scope=("publish:rtmps",))
        moved = StaticKey(channel="eve", key="key-of-alice")
        assert setting.door.use_keys(StreamKeys([kept])) == ["alice"]
        assert setting.door.use_keys(StreamKeys([kept, moved])) == ["alice"]
        assert alice.ended is bob.ended is None
        with pytest.raises(PublishRefusedError, match="unknown_key"):
            await setting.door.publish(request("key-of-carol"), Control())
        carol = StaticKey(channel="carol", key="key-of-carol")
        assert setting.door.use_keys(StreamKeys([carol])) == ["alice", "bob"]
        await setting.door.publish(request("key-of-carol"), Control())
        alice.end("left")
        assert setting.door.use_keys(StreamKeys([carol])) == ["bob"]
