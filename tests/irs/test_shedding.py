"""IRS has PoPs end what a link cannot carry: exactly that, basic first, once, and says so."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.errors import RouteUnavailableError
from edged.irs.client import PopClient
from edged.irs.journal import Journal, JournalConfig, journal_files
from edged.irs.links import BackboneConfig
from edged.irs.migrating import LOOK_INTERVAL_S
from edged.irs.service import IrsConfig
from edged.irs.shedding import METRICS, RENEW_S
from edged.media.routing import RouteRequest
from edged.media.stream import PriorityClass, StreamId
from edged.policy.full_links import FULL_S, OPEN_S
from edged.policy.link_map import LinkConfig, SiteConfig
from edged.policy.migration import Migration
from edged.policy.network_sample import NetworkEvent
from edged.policy.plan_journal import read_journal
from edged.policy.plan_replay import ReplayedMoves, replay
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_origin
from edged.policy.shed_patience import SHED_AFTER_S
from edged.policy.solver import FlowSolver
from edged.roles.placement import SHED
from edged.roles.shedding import Shedder
from edged.wire.table import Drain, Migrate, Shed
from tests.irs.network import CLIENT, NOW_UNIX, Network, until
from tests.irs.test_watch import events

if TYPE_CHECKING:
    from edged.roles.placing import Placing

PARTNER, AFFILIATE, BASIC = PriorityClass
LINK = "ams-fra to fra"
# Nine of 6 Mbps each fit into what may be used of it, 88 %.
CONFIG = IrsConfig(
    warmup_s=0.0,
    sites=(
        SiteConfig(name="ams", pops=("ams", "rtm")),
        SiteConfig(name="fra", origins=("fra1",)),
    ),
    links=(LinkConfig(name="ams-fra", ends=("ams", "fra"), mbps=62.0),),
)


class Pop:
    """A PoP's client and its shedder; of streams it has what they need."""

    def __init__(self, network: Network, name: str, *, sheds_streams: bool = True) -> None:
        self.network, self.name = network, name
        self.view = PopView(name)
        self.view.observe_rtt("fra1", 10.0)
        self.commands: list[Migrate | Drain | Shed] = []
        self.told: list[tuple[str, str]] = []  # Channel, and what its publisher is told.
        self.placements: dict[str, SimpleNamespace] = {}
        placing = SimpleNamespace(
            view=self.view,
            placements=self.placements,
            moves=SimpleNamespace(is_moving=lambda _: False),
            telling=SimpleNamespace(shed=lambda *_: None),
        )
        self.shedder = Shedder(cast("Placing", placing), self._stop, trio.current_time)
        self.client = PopClient(
            CLIENT, self.view, on_command=self.commands.append, on_shed=self._shed
        )
        self.shedder.tell = self.client.send_moved
        if not sheds_streams:
            hello = self.client.holder.hello
            self.client.holder.hello = lambda pop, shard: msgspec.structs.replace(  # type: ignore[method-assign]
                hello(pop, shard), sheds_streams=False
            )
        network.nursery.start_soon(self.client.run_duties)
        self.cut = network.join(name, self.client.run_stream)

    def add(self, count: int, priority: PriorityClass = BASIC) -> None:
        """That many streams more, each newer than all before."""
        for _ in range(count):
            channel = f"{self.name}{len(self.told) + len(self.placements)}"
            request = RouteRequest(channel=channel, priority=priority)
            stream = SimpleNamespace(
                channel=channel,
                ended=None,
                started_at=trio.current_time() + len(self.placements) / 1000,
                stream_id=StreamId(channel, 1),
            )
            decision = SimpleNamespace(origin="fra1")
            self.placements[channel] = SimpleNamespace(
                stream=stream, request=request, decision=decision
            )
            self.view.placed("fra1", request)
        self._carry()

    @property
    def classes(self) -> Counter[PriorityClass]:
        return Counter(each.request.priority for each in self.placements.values())

    @property
    def orders(self) -> list[Shed]:
        return [each for each in self.commands if isinstance(each, Shed) and each.picks]

    def why_refused(self, priority: PriorityClass = BASIC) -> str:
        """Of an encoder that comes now; "" if it gets a place."""
        request = RouteRequest(channel="again", priority=priority)
        try:
            choose_origin(request, self.view, trio.current_time())
        except RouteUnavailableError as error:
            return error.rejected["fra1"]
        return ""

    def _shed(self, command: Shed) -> None:
        self.commands.append(command)
        self.shedder.command(command)

    def _stop(self, stream: object, code: str, reason: str) -> None:
        channel = cast("SimpleNamespace", stream).channel
        assert code == "Rejected"
        self.told.append((channel, reason))
        placement = self.placements.pop(channel)
        self.view.released("fra1", placement.request)
        self._carry()

    def _carry(self) -> None:
        self.view.carried_mbps["fra1"] = (6.0 * len(self.placements), 0.0)


async def begin(network: Network, *names: str) -> list[Pop]:
    network.add_origin("fra1")
    await until(lambda: len(network.irs.collectors.capacitor.origins) == 1)
    pops = [Pop(network, name) for name in names]
    await until(lambda: all(pop.view.table is not None for pop in pops))
    for pop in pops:  # As if it were linked to the origin, and heard it.
        pop.view.set_link("fra1", up=True, now=trio.current_time())
    network.nursery.start_soon(beat, network, pops)
    return pops


async def beat(network: Network, pops: list[Pop]) -> None:
    while True:
        for pop in pops:
            report = network.irs.collectors.capacitor.report("fra1")
            assert report is not None
            pop.view.heartbeat(report, trio.current_time())
        await trio.sleep(0.1)


def events_of(network: Network) -> list[NetworkEvent]:
    network.irs.watch.sample()
    return [
        msgspec.convert({**each, "at": 0.0}, NetworkEvent) for each in events(network.irs.watch)
    ]


async def test_exactly_what_the_link_cannot_carry_goes_basic_first_and_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, CONFIG)
        service = network.irs
        journal = Journal(
            JournalConfig(directory=tmp_path),
            stamp=lambda: (service.epoch, service.version),
            now_unix=lambda: NOW_UNIX,
            sheds_asked=lambda: service.shedding.asked,
        )
        service.migrating.keepers.append(journal.keep_moves)
        (pop,) = await begin(network, "ams")
        pop.add(8)
        await trio.sleep(5.0)
        assert pop.told == [], "all fit"
        pop.add(2, PARTNER)
        pop.add(3)
        began_at = trio.current_time()
        with capture_logs() as logged:
            await until(lambda: bool(pop.told), within_s=10.0)
            took_s = trio.current_time() - began_at
            await trio.sleep(30.0)
        assert SHED_AFTER_S <= took_s <= SHED_AFTER_S + 3.0
        assert pop.classes == {PARTNER: 2, BASIC: 7}, "nine fit"
        why = SHED.format("basic")
        assert pop.told == [(f"ams{number}", why) for number in (12, 11, 10, 7)], "the newest first"
        (order,) = pop.orders
        (pick,) = order.picks
        assert (pick.class_, pick.count, pick.there, pick.link) == ("basic", 4, 11, LINK)
        (line,) = [each for each in logged if each["event"] == "streams were shed"]
        assert (line["pop"], line["wanted"], line["streams"]) == ("ams/0", 4, 4)
        assert sum(each["event"] == "stream shed" for each in logged) == 4
        samples = {(each.name, *each.labels.values()): each.value
                   for each in service.shedding.read_metrics()}  # fmt: skip
        assert {spec.name for spec in METRICS} == {name for name, *_ in samples}
        assert samples["edged_irs_sheds_ordered_total", "basic"] == 4
        assert samples["edged_irs_sheds_total", "basic"] == 4
        assert samples["edged_irs_sheds_total", "partner"] == 0
        assert samples["edged_irs_links_closed",] == 1
        (shed,) = [each for each in events_of(network) if each.kind == "shed"]
        assert (shed.pop, shed.origin, shed.link, shed.why) == ("ams", "fra1", LINK, "basic")
        assert (shed.count, shed.channels) == (4, ("ams12", "ams11", "ams10"))
        nursery.cancel_scope.cancel()
    await journal._write_queued()
    journal._close()
    records = [
        record
        for path in journal_files(tmp_path)
        for record in read_journal(path.read_bytes(), path.name)[1]
    ]
    replayed = list(replay(records, FlowSolver(), Migration(), FlowSolver()))
    assert {each.verdict for each in replayed} == {"same"}
    (again,) = [each for each in replayed if isinstance(each, ReplayedMoves) and each.sheds]
    assert [(each.units, each.priority) for each in again.sheds] == [(4, BASIC)]
    assert again.record.sheds is not None
    assert again.record.sheds.asked is not None
    assert (again.record.sheds.asked.number, again.record.sheds.asked.told) == (1, ("ams/0",))


async def test_who_comes_back_is_refused_while_the_link_is_full_but_partners_are_not(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, CONFIG)
        ams, rtm = await begin(network, "ams", "rtm")
        ams.add(11)
        rtm.add(1)
        await until(lambda: bool(ams.told or rtm.told), within_s=10.0)
        full = f"link {LINK} is full"
        assert ams.why_refused() == full, "its lease still counts what was shed"
        assert ams.why_refused(PARTNER) == ""
        assert ams.shedder.why_shed("ams10") == f"shed: {full}, order 1, 0 s ago"
        await until(lambda: bool(rtm.why_refused()), within_s=RENEW_S)
        for _ in range(40):
            await trio.sleep(1.0)
            assert full in ams.why_refused()
            assert full in rtm.why_refused(), "it would come over the same link"
        assert len(ams.told) + len(rtm.told) == 3
        assert network.irs.shedding.full == [LINK]
        (shown,) = network.irs.shedding.show(network.irs.links.status())
        assert (shown.ends, shown.closed) == (("ams", "fra"), ("basic", ""))
        with capture_logs() as logged:
            for _ in range(3):  # Three publishers leave, and the link has room for OPEN_S.
                ams._stop(next(iter(ams.placements.values())).stream, "Rejected", "left")
            await until(lambda: not network.irs.shedding.full, within_s=OPEN_S + 3.0)
            await until(lambda: not ams.why_refused(), within_s=1.0)
        assert "link is open to what was shed" in [each["event"] for each in logged]
        assert [each.after for each in events_of(network) if each.kind == "full"] == [
            *("begun", "over")
        ]
        nursery.cancel_scope.cancel()


async def test_with_irs_gone_nothing_is_shed_and_no_link_is_closed_for_long(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, CONFIG)
        (pop,) = await begin(network, "ams")
        pop.add(10)
        await until(lambda: bool(pop.told), within_s=10.0)
        pop.cut.cancel()
        pop.add(10)
        await trio.sleep(FULL_S - 1.0)
        assert pop.why_refused()
        await trio.sleep(2.0)
        assert pop.why_refused() == ""
        assert len(pop.told) == 1
        nursery.cancel_scope.cancel()


async def test_another_irs_sheds_nothing_more_for_the_same_overload(
    autojump_clock: MockClock,
) -> None:
    """It begins with what PoPs tell it: that the room is there by now."""
    async with trio.open_nursery() as nursery:
        first, second = Network(nursery, CONFIG), Network(nursery, CONFIG)
        second.irs.seat.raise_epoch(first.irs.epoch + 1)
        (pop,) = await begin(first, "ams")
        pop.add(12)
        await until(lambda: bool(pop.told), within_s=10.0)
        stale = pop.orders[0]
        pop.cut.cancel()
        second.add_origin("fra1")
        second.join("ams", pop.client.run_stream)
        await trio.sleep(20.0)
        assert len(pop.told) == 3
        again = msgspec.structs.replace(stale, epoch=stale.epoch + 9)  # Of what it knew before.
        pop.shedder.command(again)
        pop.shedder.command(stale)
        assert len(pop.told) == 3
        assert pop.orders == [stale]
        nursery.cancel_scope.cancel()


async def test_one_that_is_too_old_is_left_out_and_nobody_sheds_where_it_is_switched_off(
    autojump_clock: MockClock,
) -> None:
    off = msgspec.structs.replace(CONFIG, shedding=False)
    assert BackboneConfig().shedding
    async with trio.open_nursery() as nursery:
        network = Network(nursery, off)
        network.add_origin("fra1")
        old = Pop(network, "ams", sheds_streams=False)
        old.add(12)
        await trio.sleep(15.0)
        network.irs.reconfigure(CONFIG)
        with capture_logs() as logged:
            await trio.sleep(8.0)
        lines = [each for each in logged if each["event"] == "streams have to go"]
        assert lines
        assert {(each["streams"], *each["left_out"]) for each in lines} == {(0, "ams/0")}
        assert (old.told, old.commands) == ([], [])
        nursery.cancel_scope.cancel()


async def test_an_irs_that_has_never_said_so_hears_nothing_of_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be too old, and would close on the word; of two that a PoP tells, one orders."""
    async with trio.open_nursery() as nursery:
        active, standby = Network(nursery, CONFIG), Network(nursery, CONFIG)
        monkeypatch.setattr(
            type(standby.irs.seat), "moves", property(lambda s: s is active.irs.seat)
        )
        (pop,) = await begin(active, "ams")
        standby.join("standby", pop.client.run_stream)
        await until(lambda: len(pop.client.sessions) == 2)
        pop.add(12)
        await until(lambda: bool(pop.told), within_s=10.0)
        await trio.sleep(1.0)
        ended = [
            {each.labels["class"]: each.value for each in service.shedding.read_metrics()
             if each.name == "edged_irs_sheds_total"}["basic"]
            for service in (active.irs, standby.irs)
        ]  # fmt: skip
        assert ended == [3, 0]
        nursery.cancel_scope.cancel()


async def test_a_pop_that_joins_anew_hears_at_once_which_links_are_full(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, CONFIG)
        ams, _ = await begin(network, "ams", "rtm")
        ams.add(12)
        await until(lambda: bool(ams.told), within_s=10.0)
        full = [each.full for each in ams.commands if isinstance(each, Shed)][-1]
        for _ in range(4):  # Whenever it is told anew by itself.
            await trio.sleep(RENEW_S / 4 + 1.0)
            ams.cut.cancel()
            ams.commands.clear()
            await trio.sleep(0.1)
            ams.cut = network.join("ams", ams.client.run_stream)
            await until(lambda: bool(ams.commands), within_s=LOOK_INTERVAL_S + 0.3)
            assert isinstance(ams.commands[0], Shed)
            assert ams.commands[0].full == full
        nursery.cancel_scope.cancel()


async def test_switched_off_and_on_it_waits_anew(autojump_clock: MockClock) -> None:
    off = msgspec.structs.replace(CONFIG, shedding=False)
    async with trio.open_nursery() as nursery:
        network = Network(nursery, CONFIG)
        (pop,) = await begin(network, "ams")
        pop.add(12)
        await trio.sleep(SHED_AFTER_S - 0.6)
        assert pop.told == []
        network.irs.reconfigure(off)
        await trio.sleep(2.0)
        network.irs.reconfigure(CONFIG)
        assert await until(lambda: bool(pop.told), within_s=10.0) >= SHED_AFTER_S
        network.irs.reconfigure(off)
        await trio.sleep(1.0)
        found = [each.after for each in events_of(network) if each.kind == "full"]
        assert found == ["begun", "over"]
        nursery.cancel_scope.cancel()


async def test_switched_off_again_it_opens_what_it_has_closed(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, CONFIG)
        (pop,) = await begin(network, "ams")
        pop.add(12)
        await until(lambda: bool(pop.told), within_s=10.0)
        network.irs.reconfigure(msgspec.structs.replace(CONFIG, shedding=False))
        await until(lambda: not pop.why_refused(), within_s=2 * LOOK_INTERVAL_S)
        pop.add(5)
        await trio.sleep(15.0)
        assert len(pop.told) == 3
        nursery.cancel_scope.cancel()


async def test_who_does_not_lead_says_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, CONFIG)
        (pop,) = await begin(network, "ams")
        monkeypatch.setattr(type(network.irs.seat), "moves", property(lambda _: False))
        pop.add(20)
        await trio.sleep(20.0)
        assert pop.commands == []
        monkeypatch.undo()
        await until(lambda: bool(pop.told), within_s=10.0)
        monkeypatch.setattr(type(network.irs.seat), "moves", property(lambda _: False))
        await trio.sleep(2.0)
        assert network.irs.shedding.full == []
        assert pop.why_refused(), "pops believe what they were told"
        nursery.cancel_scope.cancel()
