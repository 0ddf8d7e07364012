"""Drains and migrations: every PoP is told, also one that joins later, and all is counted."""

from collections.abc import Mapping

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.errors import EdgedError
from edged.irs import moving as moving_module
from edged.irs.client import PopClient
from edged.irs.moving import METRICS
from edged.irs.service import IrsConfig
from edged.media.epochs import BY_CHARS_MAX, DrainNote
from edged.media.routing import OriginState, ReportedState, RouteRequest
from edged.media.stream import PriorityClass
from edged.policy.moves import NEARER, UnitMoves
from edged.policy.pop_view import PopView
from edged.wire.table import Drain, Migrate, Moved, MoveRefused, Pick
from tests.irs.network import CLIENT, Network, until
from tests.irs.test_service import state_in_table


class Pop:
    """A PoP's client that keeps what it is told to do."""

    def __init__(self, network: Network, name: str, *, moves_streams: bool = True) -> None:
        self.commands: list[Migrate | Drain] = []
        self.client = PopClient(CLIENT, PopView(name), on_command=self.commands.append)
        self.network, self.name = network, name
        if not moves_streams:
            hello = self.client.holder.hello
            self.client.holder.hello = lambda pop, shard: msgspec.structs.replace(  # type: ignore[method-assign]
                hello(pop, shard), moves_streams=False
            )
        network.nursery.start_soon(self.client.run_duties)
        self.cut = self.join()

    def join(self) -> trio.CancelScope:
        return self.network.join(self.name, self.client.run_stream)

    async def has(self, streams: int, origin: str = "o1") -> None:
        """So many streams of ours are there, and IRS knows it."""
        for _ in range(streams):
            self.client.view.placed(origin, RouteRequest(channel="any"))
        key = f"{self.name}/0"
        units = self.network.irs.collectors.units
        await until(lambda: units().get(key, {}).get(origin) == streams)


async def begin(network: Network) -> None:
    for origin in ("o1", "o2"):
        network.add_origin(origin)
    await until(lambda: len(network.irs.collectors.capacitor.origins) == 2)


def drain(network: Network, origin: str = "o1", deadline_s: float = 60.0) -> object:
    known = network.irs.collectors.capacitor.origins
    return network.irs.moving.drain(origin, deadline_s=deadline_s, known=known)


async def test_a_drained_origin_is_marked_in_every_table_and_every_pop_told(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(moves_per_s=40.0))
        await begin(network)
        one, two = Pop(network, "lhr"), Pop(network, "ams")
        await one.has(3)
        await two.has(1)
        with capture_logs() as logs:
            seen = network.irs.moving.drain(
                "o1", deadline_s=60.0, known=network.irs.collectors.capacitor.origins
            )
        assert (seen.left, seen.left_by_pop) == (4, {"ams/0": 1, "lhr/0": 3})
        assert seen.seconds_left == 60.0
        (line,) = logs
        assert (line["event"], line["by"]) == ("origin is drained", "an operator")
        for pop in (one, two):
            await until(lambda pop=pop: state_in_table(pop.client, "o1") is OriginState.DRAIN)  # type: ignore[misc]
        await until(lambda: bool(one.commands and two.commands))
        budgets = []
        for pop in (one, two):
            (command,) = pop.commands
            assert isinstance(command, Drain)
            assert (command.origin, command.undone) == ("o1", False)
            assert command.left_s == pytest.approx(60.0, abs=0.1)
            budgets.append(command.budget_per_s)
        assert budgets == [30.0, 10.0]
        states = {known.origin: known.state for known in network.irs.status().origins}
        assert states == {"o1": OriginState.DRAIN, "o2": OriginState.UP}
        network.irs.moving.undo_drain("o1")
        await until(lambda: state_in_table(one.client, "o1") is OriginState.UP)
        await until(lambda: len(one.commands) == 2)
        assert isinstance(undone := one.commands[1], Drain)
        assert undone.undone
        assert network.irs.moving.drains_seen() == []
        nursery.cancel_scope.cancel()


async def test_a_pop_that_joins_later_is_told_before_its_table(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        await begin(network)
        drain(network, deadline_s=30.0)
        await trio.sleep(10)
        late = Pop(network, "lhr")
        told_first: list[bool] = []
        late.client._on_table = lambda _: told_first.append(bool(late.commands))
        await until(lambda: bool(told_first))
        assert told_first[0]
        (command,) = late.commands
        assert command.left_s == pytest.approx(20.0, abs=0.1)
        late.cut.cancel()
        await trio.sleep(1)
        late.join()
        await until(lambda: len(late.commands) == 2)
        await trio.sleep(25)
        late.cut.cancel()
        assert network.irs.moving.drain_seen("o1").seconds_left == 0.0
        nursery.cancel_scope.cancel()


async def test_what_is_where_is_summed_up_once_for_all_who_are_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes ms of IRS's loop in a large network: not of each PoP and drain."""
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        await begin(network)
        pops = [Pop(network, name) for name in ("ams", "fra", "lhr")]
        for pop in pops:
            await pop.has(1)
        moving, asked = network.irs.moving, 0

        def units() -> Mapping[str, Mapping[str, int]]:
            nonlocal asked
            asked += 1
            return network.irs.collectors.units()

        monkeypatch.setattr(moving, "_units", units)
        drain(network)
        assert asked == 2  # Once to tell, once to show.
        drain(network, "o2")
        asked = 0
        moving.joined("ams/0")
        assert asked == 1
        nursery.cancel_scope.cancel()


async def test_what_pops_tell_is_counted_and_shown(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        await begin(network)
        pop = Pop(network, "lhr")
        await pop.has(2)
        drain(network)
        await until(lambda: bool(pop.commands))
        moved = Moved(
            channel="alice",
            publication=31,
            home_epoch=2,
            from_origin="o1",
            to_origin="o2",
            unit_seq=6,
            why="drain",
        )
        refused = MoveRefused(number=0, channel="bob", from_origin="o1", reason="no room")
        moving = network.irs.moving
        with capture_logs() as logs:
            pop.client.send_moved(moved)
            pop.client.send_moved(msgspec.structs.replace(moved, why="no heartbeat"))
            pop.client.send_moved(msgspec.structs.replace(moved, why="migrate", number=3))
            pop.client.send_moved(refused)
            pop.client.send_moved(
                MoveRefused(
                    number=3, channel="", from_origin="o1", to_origin="o2", count=4, reason="full"
                )
            )
            await until(lambda: len(logs) == 5)
        assert [line["event"] for line in logs] == ["stream moved"] * 3 + ["stream not moved"] * 2
        assert logs[0]["publication"] == "1f"
        seen = moving.drain_seen("o1")
        assert (seen.moved, seen.refused, seen.left) == (1, {"no room": 1}, 2)
        counts = {
            (sample.labels["outcome"], sample.labels["cause"]): sample.value
            for sample in moving.read_metrics()
            if sample.name == "edged_irs_moves_total"
        }
        assert counts == {
            ("moved", "drain"): 1,
            ("moved", "failure"): 1,
            ("moved", "migrate"): 1,
            ("refused", "drain"): 1,
            ("refused", "migrate"): 4,
        }
        assert {sample.name for sample in moving.read_metrics()} == {spec.name for spec in METRICS}
        again = drain(network, deadline_s=5.0)
        assert msgspec.structs.asdict(again)["moved"] == 1  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()


async def test_reasons_are_counted_apart_up_to_a_limit(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_module, "REASONS_MAX", 2)
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        await begin(network)
        drain(network)
        for reason in ("a", "b", "c", "d", "a"):
            refused = MoveRefused(number=0, channel="x", from_origin="o1", reason=reason)
            network.irs.moving.refused("lhr/0", refused)
        assert network.irs.moving.drain_seen("o1").refused == {"a": 2, "others": 2, "b": 1}
        nursery.cancel_scope.cancel()


async def test_a_plan_s_moves_go_to_their_pops_with_their_share_of_the_budget(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(moves_per_s=20.0))
        await begin(network)
        one, two = Pop(network, "lhr"), Pop(network, "ams")
        old = Pop(network, "old", moves_streams=False)
        for pop in (one, two, old):
            await pop.has(2)
        basic, partner = PriorityClass.BASIC, PriorityClass.PARTNER
        wanted = [
            UnitMoves(
                pop=f"{where}/0",
                from_origin="o1",
                to_origin="o2",
                priority=priority,
                units=units,
                reason=NEARER,
            )
            for where, priority, units in (
                ("lhr", basic, 2),
                ("lhr", partner, 1),
                ("ams", basic, 1),
                ("old", basic, 1),
                ("gone", basic, 5),
            )
        ]
        with capture_logs() as logs:
            number = network.irs.moving.request_moves(wanted, 1000.0)
        assert logs[-1]["left_out"] == ["old/0", "gone/0"]
        await until(lambda: bool(one.commands and two.commands))
        (command,) = one.commands
        assert isinstance(command, Migrate)
        assert command.picks == (Pick("o1", "o2", "basic", 2), Pick("o1", "o2", "partner", 1))
        assert (command.moves, command.number) == ((), number)
        assert command.budget_per_s == pytest.approx(20.0 * 3 / 10)
        assert command.left_s == moving_module.MIGRATE_S_MAX
        await trio.sleep(2)
        assert old.commands == []
        assert "old" not in network.reasons, "its session stands"
        assert network.irs.moving.request_moves([], 1.0) == number + 1
        drain(network)
        assert network.irs.moving.drain_seen("o1").not_told == ["old/0"]
        samples = {sample.name: sample.value for sample in network.irs.moving.read_metrics()}
        assert samples["edged_irs_moves_wanted_total"] == 4
        assert (samples["edged_irs_drains"], samples["edged_irs_drain_streams_left"]) == (1, 6)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("picks", [2, 3])
async def test_no_more_is_asked_of_a_pop_than_it_takes_and_no_more_counted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, picks: int
) -> None:
    monkeypatch.setattr(moving_module, "PICKS_MAX", 2)
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(moves_per_s=20.0))
        await begin(network)
        pop = Pop(network, "lhr")
        await pop.has(1)
        wanted = [
            UnitMoves(
                pop="lhr/0",
                from_origin="o1",
                to_origin="o2",
                priority=priority,
                units=4,
                reason=NEARER,
            )
            for priority in list(PriorityClass)[:picks]
        ]
        network.irs.moving.request_moves(wanted, 1.0)
        await until(lambda: bool(pop.commands))
        (command,) = pop.commands
        assert isinstance(command, Migrate)
        assert [pick.count for pick in command.picks] == [4, 4]
        assert command.budget_per_s == pytest.approx(20.0 * 2 / picks)
        samples = {sample.name: sample.value for sample in network.irs.moving.read_metrics()}
        assert samples["edged_irs_moves_wanted_total"] == 8
        nursery.cancel_scope.cancel()


async def test_what_makes_no_sense_is_said(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        await begin(network)
        with pytest.raises(EdgedError, match="origin 'o9' is unknown here; known: o1, o2"):
            drain(network, "o9")
        with pytest.raises(EdgedError, match="origin 'o1' is not drained; drained: none"):
            network.irs.moving.undo_drain("o1")
        monkeypatch.setattr(moving_module, "DRAINS_MAX", 1)
        drain(network)
        drain(network)
        with pytest.raises(EdgedError, match="1 origins are drained already"):
            drain(network, "o2")
        nursery.cancel_scope.cancel()


async def test_a_drained_origin_s_own_heartbeat_is_told_too(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        origin, cut = network.add_origin("o1", free=98)
        await until(lambda: network.irs.collectors.slots_used("o1") == 2)
        drain(network)
        seen = network.irs.moving.drain_seen("o1")
        assert (seen.left, seen.held, seen.is_empty) == (0, 2, False)
        origin.free = 100
        await until(lambda: network.irs.moving.drain_seen("o1").is_empty)
        cut.cancel()
        await until(lambda: network.irs.moving.drain_seen("o1").held is None)
        assert network.irs.moving.drain_seen("o1").is_empty, "nobody knows of any"
        nursery.cancel_scope.cancel()


async def test_an_origin_that_is_drained_and_dead_is_dead(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        origin, cut = network.add_origin("o1")
        pop = Pop(network, "lhr")
        await until(lambda: state_in_table(pop.client, "o1") is OriginState.UP)
        drain(network)
        await until(lambda: state_in_table(pop.client, "o1") is OriginState.DRAIN)
        cut.cancel()
        await until(lambda: state_in_table(pop.client, "o1") is OriginState.DOWN)
        assert origin.state is ReportedState.UP
        nursery.cancel_scope.cancel()


async def test_what_a_plan_moves_pops_are_asked_for(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        await begin(network)
        pop = Pop(network, "lhr")
        await pop.has(5)
        move = UnitMoves(
            pop="lhr/0",
            from_origin="o1",
            to_origin="o2",
            priority=PriorityClass.AFFILIATE,
            units=3,
            reason="link cable",
        )
        network.irs.migrating._request([move], 5.0)
        await until(lambda: bool(pop.commands))
        (asked,) = pop.commands
        assert isinstance(asked, Migrate)
        assert asked.picks == (Pick("o1", "o2", "affiliate", 3),)
        assert asked.left_s == 5.0
        nursery.cancel_scope.cancel()


async def test_drains_are_noted_and_taken_over(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        await begin(network)
        pop = Pop(network, "ams")
        await until(lambda: "ams/0" in network.irs._pops)
        moving, asked = network.irs.moving, list[tuple[str, str, str]]()
        moving.on_asked = lambda *words: asked.append(words)
        moving.drain("o1", deadline_s=60.0, known=["o1", "o2"], by="x" * 100)
        assert [action[:2] for action in asked] == [("drain", "o1")]
        (note,) = moving.notes()
        assert (note.origin, note.left_s, note.by) == ("o1", 60.0, "x" * BY_CHARS_MAX)
        await until(lambda: len(pop.commands) == 1)
        other = DrainNote(origin="o2", since=1.0, until=9.0, left_s=8.0, by="me")
        moving.adopt([note, other])
        await until(lambda: len(pop.commands) == 2)
        assert [seen.origin for seen in moving.drains_seen()] == ["o1", "o2"]
        moving.adopt([other])
        await until(lambda: len(pop.commands) == 3)
        told = [(each.origin, each.undone) for each in pop.commands if isinstance(each, Drain)]
        assert told == [("o1", False), ("o2", False), ("o1", True)]
        assert len(asked) == 1, "nobody asked here"
        nursery.cancel_scope.cancel()
