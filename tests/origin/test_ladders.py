"""Several ladders of an origin that has slots for some: with real children."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import trio
from msgspec import structs
from structlog.testing import capture_logs

from edged.media.ladder import LadderPlan
from edged.media.parts import PackagedEvent, Part, Rendition, SegmentEnded
from edged.media.routing import PLAIN_TERMS, Terms
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.origin.ladders import SOURCE_ONLY, Ladders
from edged.origin.service import OriginConfig, OriginService
from edged.policy.ladder import EncoderName
from edged.policy.ladder_capacity import LadderCapacity, assumed_capacity
from edged.policy.ladder_encoders import EncodersFound
from edged.policy.ladder_slots import slots_of
from edged.policy.latency import PackagerConfig
from edged.policy.window import StreamWindow
from edged.runtime.hub import Hub, LiveStream
from tests.origin.sources import SMALL, X264, Source, make_source, plan_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]
PACKAGER = PackagerConfig(segment_s=1.0, target_duration_s=2)
BASIC, PARTNER = PriorityClass.BASIC, PriorityClass.PARTNER


class Setting:
    """An origin's service, and streams at it that are published in real time, for ever."""

    def __init__(
        self, slots: int, encoder: EncoderName = "x264", config: OriginConfig | None = None
    ) -> None:
        self.hub = Hub()
        self.events: dict[str, list[PackagedEvent]] = {}
        self.service = OriginService(
            structs.replace(
                config or OriginConfig(name="fra1"),
                ladder=structs.replace(SMALL, slots=slots, encoder=encoder),
                packager=PACKAGER,
            ),
            publish=lambda stream_id, event: self.events[stream_id.channel].append(event),
            packaged=lambda _, __: None,
            failed=lambda _, reason: pytest.fail(reason),
        )
        assert self.service.ladders is not None
        self.ladders: Ladders = self.service.ladders
        self.source: Source = make_source(*X264, "-g", "30", "-bf", "0", seconds=4)
        self.nursery: trio.Nursery | None = None

    def open(self, channel: str, priority: PriorityClass, terms: Terms = PLAIN_TERMS) -> LiveStream:
        stream_id, grant = StreamId(channel, 1), Grant(channel=channel, priority=priority)
        self.events[channel] = []
        self.service.admit(stream_id, grant, [], terms)
        stream = self.hub.open(stream_id, grant, started_at=0.0, came_from="test")
        self.service.open(stream)
        for track in self.source.tracks:
            stream.set_track(track)
        assert self.nursery is not None
        self.nursery.start_soon(self._feed, stream)
        return stream

    def close(self, stream: LiveStream) -> None:
        self.hub.close(stream, "over")
        self.service.close(stream, "over")

    async def _feed(self, stream: LiveStream) -> None:
        scales = {track.track_id: track.timescale for track in self.source.tracks}
        began, seq = trio.current_time(), 0
        for shift in range(0, 400, 4):
            for unit in self.source.units:
                scale = scales[unit.track_id]
                await trio.sleep_until(began + shift + unit.dts / scale)
                if stream.ended is not None:
                    return
                moved = unit.replaced(
                    seq=seq,
                    pts=unit.pts + shift * scale,
                    dts=unit.dts + shift * scale,
                    wallclock_us=unit.wallclock_us + shift * 1_000_000,
                )
                stream.append([moved])
                seq += 1

    def parts(self, channel: str, name: str, since: int = 0) -> list[Part]:
        events = self.events[channel][since:]
        return [e for e in events if isinstance(e, Part) and e.rendition == name]

    async def until_parts(self, channel: str, name: str, count: int = 6) -> None:
        since = len(self.events[channel])
        with trio.fail_after(15):
            while len(self.parts(channel, name, since)) < count:  # noqa: ASYNC110 - a process's
                await trio.sleep(0.02)

    def text(self, channel: str) -> str:
        seen = self.service.ladder(channel)
        assert seen is not None
        return seen.text


@contextlib.asynccontextmanager
async def running(setting: Setting) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        setting.nursery = nursery
        await nursery.start(setting.ladders.run)
        yield
        nursery.cancel_scope.cancel()


def cost_of_one() -> int:
    return slots_of(plan_for(make_source(*X264, "-g", "30", "-bf", "0", seconds=4)))


def absent(events: list[PackagedEvent], name: str) -> list[int]:
    """Segments of a rung of which nothing came."""
    whole = {e.msn for e in events if isinstance(e, Part) and e.rendition == name}
    ended = [e.msn for e in events if isinstance(e, SegmentEnded) and e.rendition == name]
    return [msn for msn in ended if msn not in whole]


async def test_a_stream_taken_without_a_ladder_gets_one_with_its_slot() -> None:
    config = OriginConfig(name="fra1", slots=1, slots_source_only=1)
    setting = Setting(slots=2 * cost_of_one(), config=config)
    async with running(setting):
        alice = setting.open("alice", BASIC)
        setting.open("bob", PARTNER, Terms("source-only"))
        await setting.until_parts("alice", "v96p")
        await setting.until_parts("bob", "v0", 20)
        assert setting.parts("bob", "v96p") == []
        assert setting.text("bob") == f"ladder waits: {SOURCE_ONLY}"
        counts = setting.service.statistics()
        assert (counts.slots_used, counts.source_only) == (1, 1)
        assert counts.ladder_slots is not None
        assert (counts.ladder_slots.holding, counts.ladder_slots.waiting) == (1, 0)
        setting.close(alice)
        assert setting.service.statistics().source_only == 0
        await setting.until_parts("bob", "v96p")
        assert setting.text("bob").startswith("ladder: 120p 96p 64p")


async def test_who_has_nothing_to_make_for_a_while_waits_again_after_it() -> None:
    setting = Setting(slots=cost_of_one())
    async with running(setting):
        setting.open("alice", BASIC)
        await setting.until_parts("alice", "v96p")
        (ladder,) = setting.ladders.running
        plan = ladder.transcoder.plan
        setting.ladders.planned(ladder, LadderPlan())
        setting.open("bob", BASIC)
        await setting.until_parts("bob", "v96p")
        setting.ladders.planned(ladder, plan)
        assert ladder.transcoder.paused, "bob has the slots"
        assert setting.text("alice").startswith("ladder waits: 0 before it")


async def test_a_partner_preempts_a_basic_ladder_whose_viewers_play_on() -> None:
    cost = cost_of_one()
    setting = Setting(slots=2 * cost - 1)
    with capture_logs() as logs:
        async with running(setting):
            setting.open("alice", BASIC)
            await setting.until_parts("alice", "v96p")
            assert setting.text("alice").startswith("ladder: 120p 96p 64p")

            carol = setting.open("carol", BASIC)
            with trio.fail_after(5):
                while "waits" not in setting.text("carol"):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            needs = f"it needs {cost} of {2 * cost - 1} slots"
            assert setting.text("carol") == f"ladder waits: 0 before it; {needs}"

            assert setting.service.ladder_free() == (2 * cost - 1, 2 * cost - 1, 0)

            bob = setting.open("bob", PARTNER)
            await setting.until_parts("bob", "v96p")
            assert setting.text("alice") == f"ladder preempted for partner bob; {needs}"
            assert setting.text("carol") == f"ladder waits: 1 before it; {needs}"
            assert setting.service.ladder_free() == (cost - 1, cost - 1, 0)
            counts = setting.service.statistics().ladder_slots
            assert counts is not None
            assert (counts.holding, counts.waiting, counts.preempted) == (1, 2, 1)

            told = [e for e in setting.events["alice"] if isinstance(e, Rendition) and e.away]
            assert {e.name for e in told} >= {"v120p", "v96p", "v64p"}, "viewers leave them at once"
            since = len(setting.events["alice"])
            await setting.until_parts("alice", "v0", 20)
            assert len(setting.parts("alice", "v96p", since)) <= 1, "what was begun, and no more"
            setting.close(bob)
            setting.close(carol)
            await setting.until_parts("alice", "v96p", 8)
            assert setting.text("alice").startswith("ladder: 120p 96p 64p")
    events = setting.events["alice"]
    assert absent(events, "v96p"), "what was not made is absent media, said in time"
    assert absent(events, "v0") == []
    starts = {part.msn: part.tfdt for part in setting.parts("alice", "v0") if part.index == 0}
    firsts = [part for part in setting.parts("alice", "v96p") if part.index == 0]
    assert all(part.independent and part.tfdt == starts[part.msn] for part in firsts)
    window = StreamWindow(StreamId("alice", 1))
    for event in events:
        window.add(event)
    assert window.parts_refused == 0
    assert not window.renditions["v96p"].rendition.away, "it is back"
    (line,) = [line for line in logs if line["event"] == "ladder preempted"]
    assert (line["channel"], line["reason"]) == ("alice", "preempted for partner bob")
    assert [line["channel"] for line in logs if line["event"] == "ladder granted"] == [
        "alice", "bob", "alice",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "why"),
    [(signal.SIGKILL, "killed by signal 9"), (signal.SIGSTOP, "made no progress for ")],
    ids=["killed", "hung"],
)
async def test_a_child_that_dies_or_hangs_costs_that_ladder_alone(
    sent: signal.Signals, why: str
) -> None:
    setting = Setting(slots=1000)
    with capture_logs() as logs:
        async with running(setting):
            setting.open("alice", BASIC)
            setting.open("bob", BASIC)
            for channel in ("alice", "bob"):
                await setting.until_parts(channel, "v96p")
            victim = next(x for x in setting.ladders.running if x.stream.channel == "alice")
            pid = victim.statistics().pid
            assert pid is not None
            os.kill(pid, sent)
            with trio.fail_after(15):
                while not victim.statistics().restarts:  # noqa: ASYNC110
                    await trio.sleep(0.02)
            await setting.until_parts("alice", "v96p", 8)
    (failed,) = [line for line in logs if line["event"] == "ladder failed, begun anew"]
    assert failed["channel"] == "alice"
    assert str(failed["reason"]).startswith(why)
    for channel, name in (("alice", "v0"), ("bob", "v0"), ("bob", "v96p"), ("bob", "v120p")):
        assert absent(setting.events[channel], name) == []
        parts = setting.parts(channel, name)
        ends = [part.tfdt + part.duration for part in parts]
        assert [part.tfdt for part in parts[1:]] == ends[:-1], f"{channel} {name} has no hole"


async def fail_soon() -> None:
    raise ZeroDivisionError


async def test_a_service_that_is_begun_anew_has_the_ladders_of_the_live_streams() -> None:
    setting = Setting(slots=1000)
    async with trio.open_nursery() as nursery:
        setting.nursery = nursery
        failed = False
        try:
            async with trio.open_nursery() as first:
                await first.start(setting.ladders.run)
                alice = setting.open("alice", BASIC)
                gone = setting.open("gone", BASIC)
                await setting.until_parts("alice", "v96p")
                assert setting.ladders._nursery is not None
                setting.ladders._nursery.start_soon(fail_soon)
        except* ZeroDivisionError:
            failed = True
        assert failed
        setting.close(gone)
        await nursery.start(setting.ladders.run)
        await setting.until_parts("alice", "v96p")
        assert len(setting.ladders.running) == 1
        assert setting.service.statistics().ladders == 1
        setting.close(alice)
        with trio.fail_after(5):
            while setting.ladders.running:  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert setting.ladders.counts().used == 0
        nursery.cancel_scope.cancel()
    starts = {part.msn: part.tfdt for part in setting.parts("alice", "v0") if part.index == 0}
    firsts = [part for part in setting.parts("alice", "v96p") if part.index == 0]
    assert all(part.independent and part.tfdt == starts[part.msn] for part in firsts)


async def test_ladders_wait_until_the_machine_is_measured() -> None:
    measured = trio.Event()

    async def measure() -> LadderCapacity:
        await measured.wait()
        return assumed_capacity(2, "a test")

    setting = Setting(slots=1)
    setting.service.ladders = setting.ladders = Ladders(measure=measure, encoder="x264")
    async with running(setting):
        setting.open("alice", BASIC)
        await trio.sleep(0.2)
        assert setting.text("alice") == "ladder waits: this machine is being measured"
        assert setting.ladders.capacity_text == "being measured; encoder x264, as configured"
        assert setting.service.ladder_free() == (0, 0, 0)
        measured.set()
        await setting.until_parts("alice", "v96p")
        assert setting.ladders.counts().total == 80
        assert setting.ladders.capacity_text.startswith("80 slots, assumed")


async def test_ladders_wait_until_encoders_are_tried_and_one_that_fails_later_is_told() -> None:
    tried = trio.Event()
    asked: list[EncoderName] = []

    async def probe(name: EncoderName) -> EncodersFound:
        """It finds one that will not open when it is needed."""
        asked.append(name)
        await tried.wait()
        return EncodersFound(
            encoders=("h264_vaapi", "libx264"), missing={"h264_nvenc": "no device"}
        )

    setting = Setting(slots=1000, encoder="auto")
    setting.service.ladders = setting.ladders = Ladders(1000, encoder="auto", probe=probe)
    async with running(setting):
        setting.open("alice", BASIC)
        await trio.sleep(0.2)
        assert setting.text("alice") == "ladder waits: this machine is being measured"
        assert setting.ladders.capacity_text == "1000 slots, as configured"
        tried.set()
        with trio.fail_after(5):
            while setting.ladders.counts().used == 0:  # noqa: ASYNC110
                await trio.sleep(0.01)
        few = setting.ladders.counts().used
        told = "1000 slots, as configured; encoder h264_vaapi: found here"
        assert setting.ladders.capacity_text == told
        await setting.until_parts("alice", "v96p")
        assert setting.ladders.counts().used > few, "x264 costs more"
        seen = setting.service.ladder("alice")
        assert seen is not None
        assert (seen.encoder, seen.restarts, seen.state) == ("libx264", 1, "running")
        assert "; now libx264: h264_vaapi failed: h264_vaapi " in seen.text
    assert asked == ["auto"]
    assert absent(setting.events["alice"], "v0") == []


async def test_what_costs_more_than_there_is_has_fewer_rungs() -> None:
    """The plan keeps to what one ladder may have, so that nothing waits in vain."""
    setting = Setting(slots=1)
    async with running(setting):
        setting.open("alice", BASIC)
        await setting.until_parts("alice", "v96p")
        seen = setting.service.ladder("alice")
        assert seen is not None
        assert (seen.state, seen.rungs, seen.slots) == ("running", ["96p", "64p"], 1)
