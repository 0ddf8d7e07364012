"""The origin role against a PoP's uplinks: packages, acknowledges, pushes, refuses, reports."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import trio

from edged.errors import PublishRefusedError
from edged.media.parts import Part
from edged.media.routing import OriginState, ReportedState
from edged.media.stream import Grant, StreamId
from edged.media.track import Codec, CodecConfig, Track
from edged.roles.fitness import read_origin_metrics
from edged.roles.origin import OriginRole
from edged.roles.sampler import Sampler
from edged.roles.snapshot_network import describe_origin
from edged.roles.status import LadderSlotsSeen
from edged.runtime.metrics import Metrics
from edged.wire.backbone.messages import StreamOpened
from tests.backbone.network import Origin, free_address, until
from tests.policy.synthetic import (
    RATES,
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)
from tests.roles.network import configure
from tests.roles.setting import Pop, running_pop


class Setting:
    def __init__(self, role: OriginRole, pop: Pop) -> None:
        self.role, self.pop = role, pop


@contextlib.asynccontextmanager
async def opened(**keys: object) -> AsyncIterator[Setting]:
    """An origin role without IRS (its address is told to the PoP by hand), and a PoP."""
    address = free_address()
    raw: dict[str, object] = {
        "origin": {"name": "one", "listen": address, **keys},
        "irs_client": {"addresses": [free_address()]},
    }
    role = OriginRole(configure(raw), Metrics())
    place = Origin("one")
    place.address = address
    async with trio.open_nursery() as nursery:
        assert await nursery.start(role.run) == {"backbone": address}
        async with running_pop(place) as pop:
            await until(lambda: pop.view.capacitor.state("one"))
            yield Setting(role, pop)
        nursery.cancel_scope.cancel()


async def test_units_come_back_as_parts_and_acks() -> None:
    async with opened() as setting:
        pop, role = setting.pop, setting.role
        stream = pop.open()
        stream.set_track(video_track(RATES["30"]))
        stream.set_track(audio_track())
        placement = pop.place(stream)
        await until(lambda: pop.uplinks.lookup("alice"))
        pop.uplinks.parts.subscribe("alice")
        units = in_order(
            (90_000, video_units(video_times(RATES["30"], 5.0), 2)), (48_000, audio_units(5.0))
        )
        stream.append(units)
        await until(
            lambda: any(
                isinstance(event, Part) for _, events in pop.playback.batches for event in events
            )
        )
        await until(lambda: placement.forwarding.packaged_seq > 0)
        assert {ack.name for ack in placement.forwarding.renditions} == {"v0", "a0"}
        (line,) = role.streams()
        assert (line.role, line.came_from) == ("origin one", "backbone pop/ams1")
        replay = role.replay("alice", lists=True, cold=True)
        assert replay is not None
        assert replay[0] == stream.stream_id
        pop.hub.close(stream, "publisher left")
        pop.uplinks.placing.end(stream)
        await until(lambda: not role.streams())
        assert role.replay("alice", lists=True, cold=True) is None


async def test_without_a_slot_it_refuses() -> None:
    async with opened(slots=1) as setting:
        pop = setting.pop
        pop.place(pop.open("bob"))
        await until(lambda: setting.role.report().slots_free == (0, 0, 0))
        pop.place(pop.open("alice"))
        await until(lambda: pop.given_up)
        assert pop.given_up[0].code == "no_route"
        assert "one: held after a refusal" in pop.given_up[0].detail


async def test_what_it_cannot_package_goes_back_with_the_reason() -> None:
    async with opened() as setting:
        pop = setting.pop
        config = CodecConfig(codec=Codec.VP8, record=b"x", codec_string="vp8", width=64, height=64)
        stream = pop.open()
        stream.set_track(Track(track_id=1, codec=Codec.VP8, timescale=90_000, config=config))
        pop.place(stream)
        stream.append(in_order((90_000, video_units(video_times(RATES["30"], 3.0), 2))))
        await until(lambda: pop.given_up)
        assert pop.given_up[0].code == "unsupported_media"
        assert "vp8" in pop.given_up[0].reason
        await until(lambda: not setting.role.streams())


async def test_a_stream_that_another_origin_has_packaged_is_not_begun_anew() -> None:
    async with opened() as setting:
        pop, role = setting.pop, setting.role
        stream = pop.open()
        placement = pop.place(stream)
        await until(role.streams)
        (live,) = role.hub
        role.service.close(live, "as if it had not been opened here")
        message = StreamOpened(
            stream_no=1,
            stream_id=stream.stream_id,
            grant=stream.grant,
            tracks=[],
            first_seq=0,
            packaged_seq=7,
        )
        role.stream_opened(live, message)
        await until(lambda: pop.given_up)
        assert pop.given_up[0].code == "lost_state"
        assert placement.forwarding.finished


async def test_its_heartbeat() -> None:
    async with opened(slots=10, slots_reserve=3) as setting:
        report = setting.role.report()
        assert (report.origin, report.state) == ("one", ReportedState.UP)
        assert (report.slots_total, report.slots_free) == (10, (10, 7, 7))
        await until(lambda: setting.pop.view.capacitor.report("one") == report)
        assert 0 <= report.incarnation < 2**63


async def test_slots_of_ladders_are_in_its_heartbeat_its_status_and_its_metrics() -> None:
    async with opened(ladder={"slots": 50}) as setting:
        role = setting.role
        report = role.report()
        assert report.ladder_free == (50, 50, 50)
        await until(lambda: setting.pop.view.capacitor.report("one") == report)
        sampler = Sampler([], [role])
        here = describe_origin(role, sampler.of(role), trio.current_time())
        assert here.ladders == LadderSlotsSeen(
            total=50, used=0, made=0, waiting=0, preempted=0, text="50 slots, as configured"
        )
        samples = {
            (sample.name, sample.labels.get("which", "")): sample.value
            for sample in read_origin_metrics(role)
        }
        assert samples["edged_ladder_slots", "total"] == 50
        assert samples["edged_ladder_slots", "used"] == 0
        assert samples["edged_ladder_waiting_streams", ""] == 0
        assert samples["edged_ladder_preemptions_total", ""] == 0
    async with opened() as setting:
        assert setting.role.report().ladder_free is None


async def test_draining_it_says_so_refuses_and_lets_its_streams_go_on_elsewhere() -> None:
    async with opened() as setting:
        pop, role = setting.pop, setting.role
        placement = pop.place(pop.open())
        await until(lambda: placement.accepted)
        role.drain_begin(None)
        assert role.report().state is ReportedState.DRAIN
        await until(lambda: pop.view.capacitor.state("one") is OriginState.DRAIN)
        with pytest.raises(PublishRefusedError, match="drain: the origin is draining"):
            role.admit(StreamId("bob", 1), Grant(channel="bob"), [])
        (stream,) = role.drain_streams()
        role.drain_one(stream, None)
        assert role.drain_streams() == []
        assert stream.goes_on, "its viewers wait for what is packaged elsewhere"
        await until(lambda: placement.held_at is not None)
        role.drain_undo()
        assert role.report().state is ReportedState.UP
        await until(lambda: len(role.drain_streams()) == 1)
        role.drain_end(role.drain_streams()[0])
        assert role.drain_streams() == []
