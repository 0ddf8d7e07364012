"""The origin role against a PoP's uplinks: packages, acknowledges, pushes, refuses, reports."""

import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
import trio

from edged.backbone import local_end as local_end_module
from edged.errors import PublishRefusedError
from edged.media.parts import PackagedEvent, Part, StreamEnded
from edged.media.routing import (
    PLAIN_TERMS,
    Match,
    OriginState,
    ReportedState,
    RouteRequest,
    Rule,
)
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Codec, CodecConfig, Track
from edged.origin import service as service_module
from edged.policy.departures import LOST_S_MAX
from edged.policy.pop_view import NOT_HELD
from edged.roles.fitness import read_origin_metrics
from edged.roles.origin import OriginRole
from edged.roles.placement import NO_PLACE
from edged.roles.sampler import Sampler
from edged.roles.snapshot_network import describe_origin
from edged.roles.status import LadderSlotsSeen
from edged.runtime.hub import LiveStream
from edged.runtime.metrics import Metrics
from edged.wire.backbone.messages import FEATURE_DESCRIPTIONS, StreamOpened
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
    def __init__(self, role: OriginRole, pop: Pop, place: Origin) -> None:
        self.role, self.pop, self.place = role, pop, place


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
            yield Setting(role, pop, place)
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


PREEMPT = (Rule(name="vip", match=Match(class_="partner"), on_full="preempt"),)


def offer(pop: Pop, channel: str, priority: PriorityClass) -> LiveStream:
    stream = pop.open(channel, priority=priority)
    stream.set_track(video_track(RATES["30"]))
    pop.place(stream, RouteRequest(channel=channel, priority=priority))
    return stream


async def told(setting: Setting) -> None:
    """Until a heartbeat of now has come to the PoP."""
    report = setting.role.report()
    await until(lambda: setting.pop.view.capacitor.report("one") == report)


async def have_bob_give_way(setting: Setting) -> None:
    """Of one slot bob has, for alice: he waits for another place."""
    pop = setting.pop
    offer(pop, "bob", PriorityClass.BASIC)
    await until(lambda: setting.role.hub.get("bob"))
    await told(setting)
    pop.push_table(setting.place, rules=PREEMPT)
    offer(pop, "alice", PriorityClass.PARTNER)
    await until(lambda: pop.uplinks.placements["bob"].held_at is not None)


async def test_a_partner_takes_the_place_of_the_newest_basic_stream_if_its_rule_asks_so() -> None:
    other = Origin("two")
    async with other.serving(), opened(slots=2) as setting:
        pop, role = setting.pop, setting.role
        for channel in ("bob", "carol"):
            offer(pop, channel, PriorityClass.BASIC)
        await until(lambda: len(role.streams()) == 2)
        await told(setting)
        assert role.report().preemptible == (2, 2, 0)
        offer(pop, "dave", PriorityClass.PARTNER)
        await until(lambda: pop.given_up)  # Without the rule it is refused.
        assert pop.given_up[0].code == "no_route"
        pop.given_up.clear()
        pop.push_table(setting.place, rules=PREEMPT)
        stream = offer(pop, "alice", PriorityClass.PARTNER)
        assert pop.uplinks.placements["alice"].decision.rule == "preempt"
        await until(lambda: role.hub.get("alice"))
        assert role.hub.get("carol") is None, "the newest of the lowest class"
        assert role.hub.get("bob") is not None
        assert role.service.statistics().preempted_total == 1
        carol = pop.uplinks.placements["carol"]
        await until(lambda: carol.held_at is not None)  # It waits for another place,
        assert pop.given_up == []
        pop.push_table(setting.place, other, rules=PREEMPT)
        await pop.connected(setting.place, other)
        pop.uplinks.placing.tick(pop.pump.now())  # and goes on where there is one.
        assert pop.uplinks.placements["carol"].decision.origin == "two"
        await until(lambda: [each.stream_id.channel for each in other.opened] == ["carol"])
        pop.hub.close(stream, "publisher left")
        pop.uplinks.placing.end(stream)
        await until(lambda: role.service.statistics().slots_used == 1)


async def test_who_gives_way_goes_on_elsewhere_exactly_where_it_stopped() -> None:
    other = Origin("two")
    async with other.serving(), opened(slots=1) as setting:
        pop, role = setting.pop, setting.role
        pop.push_table(setting.place, other, rules=PREEMPT)
        await pop.connected(setting.place, other)
        pop.view.observe_rtt("one", 1.0)
        pop.view.observe_rtt("two", 500.0)
        stream = pop.open("bob", priority=PriorityClass.BASIC)
        stream.set_track(video_track(RATES["30"]))
        placement = pop.place(stream, RouteRequest(channel="bob"))
        assert placement.decision.origin == "one"
        await until(lambda: pop.uplinks.lookup("bob"))
        pop.uplinks.parts.subscribe("bob")
        stream.append(in_order((90_000, video_units(video_times(RATES["30"], 5.0), 2))))
        await until(lambda: placement.forwarding.packaged_seq > 0)
        await until(lambda: placement.forwarding.received_seq == stream.ring.next_seq - 1)
        await told(setting)
        pinned = Rule(name="vip", match=Match(class_="partner"), on_full="preempt", pin="one")
        pop.push_table(setting.place, other, quota=1, rules=(pinned,))
        offer(pop, "alice", PriorityClass.PARTNER)
        await until(lambda: other.opened)
        (again,) = other.opened
        assert again.stream_id.channel == "bob"
        assert again.stream_id.home_epoch == stream.stream_id.home_epoch == 2
        assert again.packaged_seq == placement.forwarding.packaged_seq > 0
        assert again.splice
        assert pop.given_up == []
        assert role.hub.get("alice") is not None
        assert not any(ends_in(events) for _, events in pop.playback.batches)


async def test_who_gave_way_and_finds_no_place_is_told_why() -> None:
    async with opened(slots=1) as setting:
        pop = setting.pop
        await have_bob_give_way(setting)
        pop.uplinks.placing.tick(pop.pump.now() + LOST_S_MAX + 1.0)
        (error,) = pop.given_up
        assert (error.code, error.reason) == ("preempted", NO_PLACE)
        assert "one" in error.detail
        assert list(pop.uplinks.placements) == ["alice"]


async def test_viewers_of_who_gave_way_for_good_are_told_that_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_module, "FOLLOWED_S_MAX", 0.0)
    async with opened(slots=1) as setting:
        pop, role = setting.pop, setting.role
        stream = pop.open("bob")
        stream.set_track(video_track(RATES["30"]))
        placement = pop.place(stream, RouteRequest(channel="bob"))
        await until(lambda: pop.uplinks.lookup("bob"))
        pop.uplinks.parts.subscribe("bob")
        stream.append(in_order((90_000, video_units(video_times(RATES["30"], 5.0), 2))))
        await until(lambda: placement.forwarding.packaged_seq > 0)
        await told(setting)
        pop.push_table(setting.place, rules=PREEMPT)
        offer(pop, "alice", PriorityClass.PARTNER)
        await until(lambda: role.hub.get("bob") is None)
        role.service.sweep()
        await until(lambda: any(ends_in(events) for _, events in pop.playback.batches))


def ends_in(events: list[PackagedEvent]) -> bool:
    return any(isinstance(event, StreamEnded) for event in events)


async def test_a_pop_of_before_is_told_of_it_as_of_a_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_end_module, "FEATURES", (FEATURE_DESCRIPTIONS,))
    async with opened(slots=1) as setting:
        pop = setting.pop
        await have_bob_give_way(setting)
        assert pop.uplinks.placements["bob"].held_code == "drain"


async def test_beyond_its_slots_it_takes_streams_without_a_ladder_if_a_rule_asks_so() -> None:
    async with opened(slots=1, slots_source_only=1) as setting:
        pop, role = setting.pop, setting.role
        first = offer(pop, "bob", PriorityClass.BASIC)
        await until(lambda: role.hub.get("bob"))
        await told(setting)
        pop.push_table(setting.place, quota=0, rules=(Rule(on_full="source-only"),))
        offer(pop, "alice", PriorityClass.BASIC)
        assert pop.uplinks.placements["alice"].decision.rule == "source-only"
        await until(lambda: role.hub.get("alice"))
        samples = {sample.name: sample.value for sample in read_origin_metrics(role)}
        assert samples["edged_origin_source_only_streams"] == 1
        assert samples["edged_origin_preemptions_total"] == 0
        await told(setting)
        with pytest.raises(PublishRefusedError, match="takes no more without a ladder"):
            offer(pop, "carol", PriorityClass.BASIC)
        pop.hub.close(first, "publisher left")
        pop.uplinks.placing.end(first)
        await until(lambda: role.service.statistics().source_only == 0)
        assert role.service.statistics().slots_used == 1


async def test_what_a_rule_lets_use_the_reserve_is_admitted_there() -> None:
    rules = (Rule(match=Match(channel="alice"), reserve=True),)
    async with opened(slots=1, slots_reserve=1) as setting:
        pop, role = setting.pop, setting.role
        pop.push_table(setting.place, rules=rules)
        offer(pop, "bob", PriorityClass.BASIC)
        await until(lambda: pop.given_up)
        pop.view.by_name["one"].held = NOT_HELD
        pop.given_up.clear()
        offer(pop, "alice", PriorityClass.BASIC)
        await until(lambda: role.hub.get("alice"))
        assert pop.given_up == []


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
        ladders = role.service.ladders
        assert ladders is not None
        await until(lambda: ladders.encoder_text != "")  # Its budget is known.
        report = role.report()
        assert 30 <= report.ladder_cost <= 50
        assert report.ladders_free == (1, 1, 1)
        await until(lambda: setting.pop.view.capacitor.report("one") == report)
        sampler = Sampler([], [role])
        here = describe_origin(role, sampler.of(role), trio.current_time())
        assert here.ladders is not None
        text, configured = here.ladders.text, "50 slots, as configured"
        assert text.partition("; encoder")[0] == configured, "perhaps with what was found by now"
        assert msgspec.structs.replace(here.ladders, text=configured) == LadderSlotsSeen(
            total=50, used=0, made=0, waiting=0, preempted=0, text=configured
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
        report = setting.role.report()
        assert (report.ladder_free, report.ladders_free, report.ladder_cost) == (None, None, 0)


async def test_a_class_that_has_no_ladder_here_is_told_that_none_is_free() -> None:
    async with opened(ladder={"slots": 50, "classes": ["partner"]}) as setting:
        assert setting.role.report().ladder_free == (50, 0, 0)


async def test_draining_it_says_so_refuses_and_lets_its_streams_go_on_elsewhere() -> None:
    async with opened() as setting:
        pop, role = setting.pop, setting.role
        placement = pop.place(pop.open())
        await until(lambda: placement.accepted)
        role.drain_begin(None)
        assert role.report().state is ReportedState.DRAIN
        await until(lambda: pop.view.capacitor.state("one") is OriginState.DRAIN)
        with pytest.raises(PublishRefusedError, match="drain: the origin is draining"):
            role.admit(StreamId("bob", 1), Grant(channel="bob"), [], PLAIN_TERMS)
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
