"""A PoP moves what IRS wants moved, and tells what came of it."""

import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from edged.backbone.receiver import BackboneServer
from edged.errors import PublishRefusedError
from edged.media.routing import Match, RouteRequest, RoutingTable, Rule
from edged.policy.pop_view import DRAINED
from edged.policy.rehoming import NONE_LEFT, TOO_LATE
from edged.roles import rehoming as rehoming_module
from edged.roles.rehoming import Rehomer
from edged.roles.status import DrainedSeen
from edged.runtime.metrics import Metrics
from edged.wire.table import Drain, Migrate, Move, Moved, MoveRefused, Pick
from tests.backbone.network import Origin, append, until
from tests.roles.setting import Pop, packaged, running_pop

CHANNELS = ("alice", "bob", "carol")


class Network:
    """Three streams at one origin, and another with room."""

    def __init__(self, pop: Pop, one: Origin, two: Origin, server: BackboneServer) -> None:
        self.pop, self.one, self.two, self.server = pop, one, two, server
        self.told: list[Moved | MoveRefused] = []
        self.rehomer = Rehomer(pop.uplinks, pop.pump.now)
        self.rehomer.tell = self.told.append
        pop.uplinks.placing.telling.on_rehomed = self.rehomer.moved
        self.metrics = Metrics()
        self.rehomer.register(self.metrics, role="pop ams1")

    @property
    def homes(self) -> dict[str, str]:
        placements = self.pop.uplinks.placements
        return {name: placement.decision.origin for name, placement in placements.items()}

    @property
    def refused(self) -> list[MoveRefused]:
        return [word for word in self.told if isinstance(word, MoveRefused)]

    def drain(self, *, left_s: float = 1.0, undone: bool = False) -> None:
        self.rehomer.command(
            Drain(origin="one", until=1e9, left_s=left_s, undone=undone, budget_per_s=100.0)
        )

    def read(self, name: str, **labels: str) -> float | None:
        return self.metrics._registry.get_sample_value(name, {"role": "pop ams1", **labels})


@contextlib.asynccontextmanager
async def network(*, runs: bool = True) -> AsyncIterator[Network]:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        for channel in CHANNELS:
            await packaged(pop, one, server, channel)
        await until(lambda: all(map(pop.view.capacitor.report, ("one", "two"))))
        made = Network(pop, one, two, server)
        if runs:
            assert pop.uplinks._nursery is not None
            pop.uplinks._nursery.start_soon(made.rehomer.run)
        yield made
        assert pop.given_up == []


def migrate(*moves: Move, picks: tuple[Pick, ...] = (), left_s: float = 5.0) -> Migrate:
    return Migrate(
        moves=moves, picks=picks, deadline=1e9, left_s=left_s, budget_per_s=50.0, number=3
    )


async def test_named_streams_move_and_irs_hears_of_each() -> None:
    async with network() as net:
        net.rehomer.command(migrate(Move("alice", "one", "two"), Move("carol", "one", "two")))
        await until(lambda: len(net.told) == 2)
        assert net.homes == {"alice": "two", "bob": "one", "carol": "two"}
        assert net.told[0] == Moved(
            channel="alice",
            publication=1,
            home_epoch=2,
            from_origin="one",
            to_origin="two",
            unit_seq=6,
            why="migrate",
            number=3,
        )
        assert net.read("edged_rehoming_moved_total", cause="migrate") == 2
        assert net.read("edged_rehoming_lingering") == 2


async def test_the_pop_picks_as_many_of_a_class_as_it_is_told_to() -> None:
    async with network() as net:
        picks = (Pick("one", "two", "basic", 2), Pick("one", "two", "partner", 1))
        net.rehomer.command(migrate(picks=picks))
        await until(lambda: len(net.told) == 3)
        assert sorted(net.homes.values()) == ["one", "two", "two"]
        (refused,) = net.refused
        assert refused == MoveRefused(
            number=3,
            channel="",
            from_origin="one",
            to_origin="two",
            reason=NONE_LEFT,
            class_="partner",
        )


async def test_what_a_rule_keeps_is_not_even_tried_in_place_of_others() -> None:
    """At one move each five seconds: one that is refused would have cost the turn."""
    async with network() as net:
        rule = Rule(name="stay", match=Match(channel="alice"), pin="one")
        net.pop.push_table(net.one, net.two, rules=(rule,))
        slow = msgspec.structs.replace(migrate(picks=(Pick("one", "two", "basic", 1),)), left_s=4.0)
        net.rehomer.command(msgspec.structs.replace(slow, budget_per_s=0.2))
        await until(lambda: len(net.told) == 1)
        assert net.homes == {"alice": "one", "bob": "two", "carol": "one"}
        assert net.pop.uplinks.placing.moves.why_never("alice", "two").startswith("rule pins")
        assert net.pop.uplinks.placing.moves.why_never("bob", "one") == ""
        assert net.pop.uplinks.placing.moves.why_never("dave", "one") == "", "it is not there"


async def test_a_full_origin_gets_nothing_and_nothing_is_disturbed() -> None:
    async with network() as net:
        net.two.refusal = PublishRefusedError("full", "no slot is free")
        net.rehomer.command(migrate(picks=(Pick("one", "two", "basic", 2),)))
        await until(lambda: net.refused)
        (refused,) = net.refused
        assert (refused.channel, refused.count) == ("", 2)
        assert "held after a refusal" in refused.reason or "full" in refused.reason
        assert set(net.homes.values()) == {"one"}
        for channel in CHANNELS:
            placement = net.pop.uplinks.placements[channel]
            append(placement.stream, 3)
            assert placement.forwarding.reopened == 0
        await until(lambda: all(len(net.one.units(channel)) == 13 for channel in CHANNELS))
        assert net.read("edged_rehoming_refused_total") == 3
        assert net.one.closed == []


async def test_a_move_that_a_rule_forbids_is_refused_with_the_reason() -> None:
    async with network() as net:
        net.pop.push_table(net.one, net.two, rules=(Rule(name="stay", pin="one"),))
        net.rehomer.command(migrate(Move("bob", "one", "two"), Move("dave", "one", "two")))
        await until(lambda: len(net.refused) == 2)
        assert [(word.channel, word.reason) for word in net.refused] == [
            ("bob", "rule pins the stream to one"),
            ("dave", "it is not there"),
        ]


async def test_what_cannot_begin_by_the_deadline_stays() -> None:
    async with network() as net:
        net.rehomer.command(migrate(Move("bob", "one", "two"), left_s=0.0))
        assert [word.reason for word in net.refused] == [TOO_LATE]
        assert set(net.homes.values()) == {"one"}


async def test_a_drain_empties_an_origin_and_new_streams_avoid_it() -> None:
    async with network() as net:
        net.drain()
        assert net.rehomer.drained() == [DrainedSeen(origin="one", left=3, seconds_left=1.0)]
        assert net.read("edged_rehoming_waiting") == 3
        assert net.pop.view.by_name["one"].blocked == DRAINED
        net.pop.place(net.pop.open("dave"), RouteRequest(channel="dave"))
        await until(lambda: set(net.homes.values()) == {"two"})
        assert {word.why for word in net.told if isinstance(word, Moved)} == {"drain"}
        assert [drained.left for drained in net.rehomer.drained()] == [0]
        net.drain(undone=True)
        assert net.rehomer.drained() == []
        assert net.pop.view.by_name["one"].blocked == ""


async def test_what_nobody_takes_stays_at_a_drained_origin_and_is_tried_again() -> None:
    async with network() as net:
        net.two.refusal = PublishRefusedError("full", "no slot is free")
        net.drain(left_s=0.1)
        await until(lambda: len(net.refused) == 3)
        assert set(net.homes.values()) == {"one"}
        net.two.refusal = None
        await until(lambda: set(net.homes.values()) == {"two"})
        assert len(net.refused) == 3, "of each it is told once"


async def test_more_drains_than_are_known_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with network(runs=False) as net:
        monkeypatch.setattr("edged.policy.rehoming.DRAINS_MAX", 0)
        net.drain()
        (refused,) = net.refused
        assert (refused.from_origin, refused.count) == ("one", 3)
        assert "origins are drained already" in refused.reason
        assert net.rehomer.drained() == []


async def test_a_drain_that_irs_does_not_repeat_in_a_new_session_is_undone() -> None:
    async with network(runs=False) as net:
        table = net.pop.view.table
        assert isinstance(table, RoutingTable)
        net.drain()
        net.rehomer.table_changed(table)
        assert net.rehomer.drained(), "of the same session"
        net.rehomer.joined()
        net.drain()
        net.rehomer.table_changed(table)
        assert net.rehomer.drained(), "it was repeated"
        net.rehomer.joined()
        assert net.rehomer.drained(), "IRS may be silent for long"
        net.rehomer.table_changed(table)
        assert net.rehomer.drained() == []
        assert net.pop.view.drained == frozenset()


async def test_a_move_after_a_failure_is_told_too() -> None:
    async with network(runs=False) as net:
        placement = net.pop.uplinks.placements["bob"]
        net.server.stop_stream(placement.stream.stream_id, "drain", "the origin is stopping")
        await until(lambda: net.told)
        (moved,) = net.told
        assert isinstance(moved, Moved)
        assert (moved.channel, moved.why, moved.number) == (
            "bob",
            "drain: the origin is stopping",
            0,
        )
        assert moved.unit_seq == 6
        assert net.read("edged_rehoming_moved_total", cause="failure") == 1


async def test_a_bug_in_one_move_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with network(runs=False) as net:
        real = net.pop.uplinks.placing.moves.begin

        def begin(channel: str, *rest: object) -> str:
            if channel == "alice":
                raise KeyError("bug")
            return real(channel, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(net.pop.uplinks.placing.moves, "begin", begin)
        net.rehomer.command(migrate(Move("alice", "one", "two"), Move("bob", "one", "two")))
        net.rehomer.turn()
        assert [word.reason for word in net.refused] == ["internal error"]
        monkeypatch.setattr(net.rehomer, "_now", lambda: net.pop.pump.now() + 1)
        net.rehomer.turn()
        await until(lambda: net.homes["bob"] == "two")
        assert rehoming_module.TURN_S_MIN * 100 <= 1
