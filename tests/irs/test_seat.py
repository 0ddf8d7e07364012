"""Two IRSs in one process: who is active, what its successor knows, and what a restart keeps."""

import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, memory_stream_pair

from edged.errors import EdgedError, RemoteProtocolError
from edged.irs import state as state_module
from edged.irs.client import IrsClientConfig, OriginClient, PopClient
from edged.irs.peer import Peer
from edged.irs.seat import HAND_OVER_S_MAX, METRICS, SETTLE_S, STAND_BY_S
from edged.irs.service import IrsConfig, IrsService
from edged.irs.state import IrsState, StateFile
from edged.media.epochs import (
    EPOCH_AHEAD_S_MAX,
    EPOCH_LEASE_S,
    REVISION_MAX,
    DrainNote,
    EpochAnswer,
    EpochAsk,
    IrsMemo,
)
from edged.media.routing import OriginState, RoutingTable
from edged.policy.pop_view import PopView
from edged.wire.table import (
    Ack,
    Drain,
    FrameReader,
    Migrate,
    OriginHello,
    PopHello,
    Snapshot,
    encode_frame,
)
from tests.irs.network import NOW_UNIX, Network, Origin, entropy_from, until

BOTH = ("irs-a:1940", "irs-b:1940")
CLIENT = IrsClientConfig(addresses=BOTH)
TAKEN_OVER_S = EPOCH_LEASE_S + 1.0


class Irs:
    """One IRS, and its paths to PoPs and origins."""

    def __init__(self, address: str, config: IrsConfig, *, seed: int = 1) -> None:
        self.address = address
        self.service = IrsService(
            config, entropy=entropy_from(seed), now_unix=lambda: NOW_UNIX + trio.current_time()
        )
        self.scope = trio.CancelScope()

    @property
    def is_active(self) -> bool:
        return self.service.seat.leads and self.service.seat.claim.activations > 0

    async def run(self) -> None:
        with self.scope:
            await self.service.run_planning()

    def kill(self) -> None:
        """Nothing more comes of it; its sockets close."""
        self.scope.cancel()


class Pop:
    """A PoP of both, that keeps what it is told to do."""

    def __init__(self, name: str) -> None:
        self.commands: list[Migrate | Drain] = []
        self.joined = self.taken_over = 0
        self.client = PopClient(
            CLIENT,
            PopView(name),
            on_command=self.commands.append,
            on_joined=self._count_joined,
            on_taken_over=self._count_taken_over,
        )

    def _count_joined(self) -> None:
        self.joined += 1

    def _count_taken_over(self) -> None:
        self.taken_over += 1

    @property
    def epoch(self) -> int:
        table = self.client.holder.table
        return 0 if table is None else table.epoch

    def state_of(self, origin: str) -> OriginState | None:
        table = self.client.holder.table
        rows = {} if table is None else {row.origin: row.state for row in table.rows}
        return rows.get(origin)


class World:
    """Two IRSs, PoPs and origins."""

    def __init__(self, nursery: trio.Nursery, *, pops: int = 3, config: IrsConfig) -> None:
        self.nursery = nursery
        self.irss = [Irs(address, config, seed=at + 1) for at, address in enumerate(BOTH)]
        self.pops = [Pop(f"p{at}") for at in range(pops)]
        for irs in self.irss:
            nursery.start_soon(irs.run)
        for pop in self.pops:
            nursery.start_soon(pop.client.run_duties)
            for irs in self.irss:
                self.join(irs, pop.client)
        for name in ("o1", "o2"):
            hello = OriginHello(origin=name, incarnation=1, address=f"{name}:1941")
            client = OriginClient(CLIENT, hello, Origin(name).report)
            for irs in self.irss:
                self.join(irs, client)

    def join(self, irs: Irs, client: PopClient | OriginClient) -> trio.CancelScope:
        """Connect; the path ends with the IRS, or when the scope is cancelled."""
        ours, theirs = memory_stream_pair()
        cut = trio.CancelScope()

        async def serve() -> None:
            async with trio.open_nursery() as nursery:

                async def handle() -> None:
                    await irs.service.handle(ours, "peer", None)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(handle)
                while not (irs.scope.cancel_called or cut.cancel_called):  # noqa: ASYNC110
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

        async def use() -> None:
            with cut:
                await client.run_stream(theirs, irs.address)

        self.nursery.start_soon(serve)
        self.nursery.start_soon(use)
        return cut

    async def active(self) -> tuple[Irs, Irs]:
        """The active one and the other, once there is one whose tables are everywhere."""
        await until(lambda: len([irs for irs in self.irss if irs.is_active]) == 1)
        first, second = sorted(self.irss, key=lambda irs: not irs.is_active)
        await until(lambda: all(pop.epoch == first.service.epoch for pop in self.pops))
        return first, second


@contextlib.asynccontextmanager
async def open_world(*, pops: int = 3, config: IrsConfig | None = None) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, pops=pops, config=config or IrsConfig(warmup_s=0.0))
        nursery.cancel_scope.cancel()


async def test_the_standby_takes_over_within_a_lease_and_a_second(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world:
        first, second = await world.active()
        assert second.service.seat.status().standing == "standby"
        assert second.service.seat.status().active_at in ("", first.address)
        assert len(second.service.collectors.supplies(trio.current_time())) == 2, "it hears all"
        await until(lambda: world.pops[0].state_of("o1") is OriginState.UP)
        for pop in world.pops:
            pop.taken_over = 0  # At the start two may ask at a time.
        with capture_logs() as logs:
            first.kill()
            took_s = await until(lambda: second.is_active)
            assert took_s <= TAKEN_OVER_S
            now = trio.current_time()
            assert all(pop.client.view.lease_until > now for pop in world.pops), "they go on by it"
            epoch = second.service.epoch
            pushed_s = await until(lambda: all(pop.epoch == epoch for pop in world.pops))
        assert pushed_s < 1.0
        assert epoch > first.service.epoch
        assert [pop.taken_over for pop in world.pops] == [1, 1, 1]
        assert not [line for line in logs if line["event"] == "table refused"]
        assert world.pops[0].state_of("o1") is OriginState.UP, "it was warm"
        assert not second.service.seat.moves
        await trio.sleep(SETTLE_S)
        assert second.service.seat.moves


async def test_who_ends_in_good_order_is_followed_at_once(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        first, second = await world.active()
        await trio.sleep(1.5)
        first.service.moving.drain("o1", deadline_s=60.0, known=["o1", "o2"])
        await trio.sleep(0.01)
        version = first.service.version
        with capture_logs() as logs:
            await first.service.seat.hand_over()
            took_s = await until(lambda: second.is_active)
        assert took_s <= 0.1
        (given,) = [line for line in logs if line["event"] == "epochs given back"]
        assert (given["pops"], given["unanswered"]) == (3, None)
        assert second.service.seat.status().drained == ["o1"], "though it has not looked since"
        await until(lambda: all(pop.epoch == second.service.epoch for pop in world.pops))
        await trio.sleep(20)
        assert first.service.version > version, "it goes on planning"
        assert not first.is_active
        assert second.is_active
        assert [pop.client.pushes_refused for pop in world.pops] == [0, 0, 0]
        await first.service.seat.hand_over()  # It has nothing more to give.
        first.kill()
        await trio.sleep(5)
        assert second.is_active


async def test_an_end_waits_for_no_pop_for_long(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        first, second = await world.active()
        await trio.sleep(1.5)  # The other has looked.
        for pop in world.pops[:1]:
            link, _ = pop.client.sessions[first.address]
            link.receive_data = lambda data, now: []  # type: ignore[method-assign]  # It is frozen.
        began_at = trio.current_time()
        with capture_logs() as logs:
            await first.service.seat.hand_over()
        assert trio.current_time() - began_at == pytest.approx(HAND_OVER_S_MAX)
        (given,) = [line for line in logs if line["event"] == "epochs given back"]
        assert given["unanswered"] == 1
        assert await until(lambda: second.is_active) <= 0.1


async def test_an_operator_has_another_be_active(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        first, second = await world.active()
        await trio.sleep(1.5)
        with pytest.raises(EdgedError, match="stands by; the active one is irs"):
            second.service.seat.stand_by()
        first.service.seat.stand_by()
        assert await until(lambda: second.is_active) <= 0.1
        await until(lambda: first.service.seat.status().active_at == second.address)
        await trio.sleep(10)
        assert second.is_active, "it stays as it is"
        assert not first.is_active
        assert [action.what for action in first.service.seat.status().actions] == ["stand by"]
        first.kill()
        await trio.sleep(1)
        second.service.seat.stand_by()
        assert not second.is_active
        took_s = await until(lambda: second.is_active)
        assert took_s == pytest.approx(STAND_BY_S, abs=0.1), "nobody else has taken over"


async def test_nobody_can_take_over_where_pops_name_one_irs(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        pop, _ = network.add_pop("p")
        await until(lambda: network.irs.seat.leads and bool(pop.sessions))
        with pytest.raises(EdgedError, match="no pop names another irs beside this one"):
            network.irs.seat.stand_by()
        await network.irs.seat.hand_over()
        assert network.irs.seat.leads, "it needs no grant"
        nursery.cancel_scope.cancel()


async def test_drains_hold_after_a_take_over_and_a_standby_takes_none(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world:
        first, second = await world.active()
        known = ["o1", "o2"]
        await trio.sleep(1.5)
        with pytest.raises(EdgedError, match=f"stands by; the active one is {first.address}"):
            second.service.seat.check_leads()
        first.service.seat.check_leads()
        first.service.moving.drain("o1", deadline_s=60.0, known=known)
        await until(lambda: second.service.seat.status().drained == ["o1"])
        assert [len(pop.commands) for pop in world.pops] == [1, 1, 1], "of the active one"
        for pop in world.pops:
            pop.joined = 0
            second.service.seat._begun.add(f"{pop.client.view.pop}/0")  # Of a campaign long lost.
        first.kill()
        await until(lambda: second.is_active)
        await until(lambda: all(len(pop.commands) == 2 for pop in world.pops))
        (seen,) = second.service.moving.drains_seen()
        assert (seen.origin, seen.seconds_left < 58.0) == ("o1", True)
        for pop in world.pops:
            again = pop.commands[-1]
            assert isinstance(again, Drain)
            assert (again.origin, again.undone) == ("o1", False)
            assert pop.client.holder.table is not None
            await until(lambda pop=pop: pop.state_of("o1") is OriginState.DRAIN)  # type: ignore[misc]
            assert pop.joined == 1
        second.service.moving.undo_drain("o1")
        await until(lambda: all(pop.state_of("o1") is OriginState.UP for pop in world.pops))


async def test_one_that_is_cut_off_from_the_majority_stops_and_the_others_go_on(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, pops=0, config=IrsConfig(warmup_s=0.0))
        pops = [Pop(f"p{at}") for at in range(3)]
        cuts = {
            (irs.address, at): world.join(irs, pop.client)
            for irs in world.irss
            for at, pop in enumerate(pops)
        }
        world.pops = pops
        first, second = await world.active()
        with capture_logs() as logs:
            for at in (0, 1):
                cuts[first.address, at].cancel()
            await until(lambda: not first.is_active)
            await until(lambda: second.is_active)
            epoch = second.service.epoch
            await until(lambda: all(pop.epoch == epoch for pop in pops))
        assert any(line["event"] == "irs stands by" for line in logs)
        version = first.service.version
        await trio.sleep(3)
        assert first.service.version > version, "it goes on planning"
        assert not first.is_active
        assert [pop.epoch for pop in pops] == [epoch] * 3
        assert [pop.client.pushes_refused for pop in pops] == [0] * 3
        nursery.cancel_scope.cancel()


async def test_a_restart_keeps_drains_and_never_goes_back(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "END_S_MAX", math.inf)  # Threads take no time here.
    config = IrsConfig(warmup_s=0.0, state_file=str(tmp_path / "irs.sqlite"))
    async with trio.open_nursery() as nursery:
        network = Network(nursery, config)
        network.add_origin("o1")
        await until(lambda: bool(network.irs.collectors.capacitor.origins))
        network.irs.moving.drain("o1", deadline_s=60.0, known=["o1"])
        epoch = network.irs.epoch
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    network.irs.seat.keeper.close()
    async with trio.open_nursery() as nursery:
        again = Network(nursery, config)  # Its clock is where it was then.
        assert again.irs.epoch == epoch + 1
        await trio.testing.wait_all_tasks_blocked()
        assert [seen.origin for seen in again.irs.moving.drains_seen()] == ["o1"]
        commands: list[Migrate | Drain] = []
        pop = PopClient(
            IrsClientConfig(addresses=BOTH[:1]), PopView("p"), on_command=commands.append
        )
        again.join("p", pop.run_stream)
        await until(lambda: bool(commands))
        assert [action.what for action in again.irs.seat.status().actions] == ["drain"]
        again.irs.moving.undo_drain("o1")
        nursery.cancel_scope.cancel()
    again.irs.seat.keeper.close()
    file = StateFile(tmp_path / "irs.sqlite")
    assert file.load().memo.drains == ()
    assert [action.what for action in file.actions()] == ["undo drain", "drain"]
    file.save(IrsState(epoch=int(NOW_UNIX + EPOCH_AHEAD_S_MAX) + 5))
    file.close()
    with capture_logs() as logs:
        third = IrsService(config, entropy=entropy_from(1), now_unix=lambda: NOW_UNIX)
    assert third.epoch == int(NOW_UNIX), "a fault is not handed on"
    assert any("lies years ahead" in str(line["event"]) for line in logs)
    third.seat.keeper.close()


async def test_pops_of_one_irs_alone_need_no_grant(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        network.add_origin("o1")
        pop, _ = network.add_pop("p")
        took_s = await until(lambda: pop.view.table is not None)
        assert took_s < 0.1
        seen = network.irs.seat.status()
        assert (seen.standing, seen.leads, seen.majority) == ("alone", True, 0)
        network.irs.seat.check_leads()
        values = {sample.name: sample.value for sample in network.irs.seat.read_metrics()}
        assert values["edged_irs_active"] == 1
        assert set(values) == {spec.name for spec in METRICS}
        nursery.cancel_scope.cancel()


async def test_pops_known_of_an_earlier_run_count(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "irs.sqlite"
    file = StateFile(path)
    file.save(IrsState(pops={f"p{at}/0": NOW_UNIX for at in range(3)}))
    file.close()
    async with trio.open_nursery() as nursery:
        irs = Irs(BOTH[0], IrsConfig(warmup_s=0.0, state_file=str(path)))
        nursery.start_soon(irs.run)
        world = World(nursery, pops=0, config=IrsConfig())
        pops = [Pop("p0"), Pop("p1")]
        world.join(irs, pops[0].client)
        await trio.sleep(1)
        assert not irs.service.seat.leads
        with pytest.raises(EdgedError, match="0 of 3 pops grant it an epoch, 2 must"):
            irs.service.seat.check_leads()
        world.join(irs, pops[1].client)
        assert await until(lambda: irs.service.seat.leads) < 2.0
        nursery.cancel_scope.cancel()
    irs.service.seat.keeper.close()


async def test_an_irs_that_has_just_begun_undoes_no_drain(autojump_clock: MockClock) -> None:
    """It and a PoP of its site may meet before they meet the rest: a majority of one."""
    async with trio.open_nursery() as nursery:
        world = World(nursery, pops=0, config=IrsConfig(warmup_s=0.0))
        first, _ = world.irss
        world.pops = [Pop(f"p{at}") for at in range(3)]
        for pop in world.pops:
            nursery.start_soon(pop.client.run_duties)
            world.join(first, pop.client)
        await until(lambda: first.is_active)
        await trio.sleep(5)
        first.service.moving.drain("o1", deadline_s=600.0, known=["o1", "o2"])
        await trio.sleep(2)
        other = Irs(BOTH[1], IrsConfig(warmup_s=5.0), seed=9)
        nursery.start_soon(other.run)
        near = Pop("p3")
        nursery.start_soon(near.client.run_duties)
        world.join(other, near.client)
        await trio.sleep(0.2)
        assert not other.service.seat.leads
        for pop in world.pops:
            world.join(other, pop.client)
        world.join(first, near.client)
        await trio.sleep(10)
        assert first.service.seat.leads
        assert first.service.seat.status().drained == ["o1"]
        assert other.service.seat.status().drained == ["o1"]
        undone = [each for pop in world.pops for each in pop.commands if getattr(each, "undone", 0)]
        assert undone == []
        nursery.cancel_scope.cancel()


async def test_a_pop_whose_first_answer_was_late_is_pushed_to(autojump_clock: MockClock) -> None:
    """What it granted then is over when the answer comes; it goes on granting without a break."""
    service = IrsService(
        IrsConfig(warmup_s=0.0), entropy=entropy_from(1),
        now_unix=lambda: NOW_UNIX + trio.current_time(),
    )  # fmt: skip
    peers: dict[str, Peer] = {}
    granted: set[str] = set()
    waiting: list[tuple[str, EpochAsk]] = []
    take = service.seat.claim.take_asks
    stalled_until = 0.0

    def asks() -> list[tuple[str, EpochAsk]]:
        taken = take()
        waiting.extend(taken)
        return taken

    service.seat.claim.take_asks = asks  # type: ignore[method-assign]

    def join(pop: str) -> None:
        peer = Peer(service, memory_stream_pair()[0], pop, lambda: True)
        hello = encode_frame(PopHello(pop=pop, grants_epochs=True))
        for event in peer.link.receive_data(hello, trio.current_time()):
            peer.handle(event)
        peers[f"{pop}/0"] = peer

    async def answer() -> None:
        while True:
            await trio.sleep(0.005)
            for pop, ask in list(waiting):
                if pop == "late/0" and trio.current_time() < stalled_until:
                    continue
                waiting.remove((pop, ask))
                grants = ask.kind == "want"
                begins = grants and pop not in granted
                granted.update({pop} if grants else ())
                peers[pop].handle(
                    EpochAnswer(
                        number=ask.number, granted=grants, begins=begins, epoch=ask.epoch * grants
                    )
                )

    service.seat.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.seat.run)
        nursery.start_soon(answer)
        for pop in ("a", "b", "c"):
            join(pop)
        await trio.sleep(2)
        assert service.seat.leads
        stalled_until = trio.current_time() + 2.9
        join("late")
        await trio.sleep(6)
        late = peers["late/0"].link
        assert not late.paused
        assert "late/0" in service.seat.listeners()
        nursery.cancel_scope.cancel()


def open_peer() -> tuple[IrsService, Peer]:
    """An IRS and its session of a PoP that grants epochs, which has been asked once."""
    service = IrsService(
        IrsConfig(warmup_s=0.0), entropy=entropy_from(1), now_unix=lambda: NOW_UNIX
    )
    peer = Peer(service, memory_stream_pair()[0], "p", lambda: True)
    hello = encode_frame(PopHello(pop="p", grants_epochs=True))
    for event in peer.link.receive_data(hello, trio.current_time()):
        peer.handle(event)
    return service, peer


async def test_a_memo_of_years_ahead_ends_that_session(autojump_clock: MockClock) -> None:
    _, peer = open_peer()
    memo = IrsMemo(epoch=2**62, revision=1)
    for answer in (
        EpochAnswer(number=1, granted=True, epoch=1, stamp=(2**62, 1)),
        EpochAnswer(number=1, granted=True, epoch=1, memo=memo),
    ):
        with pytest.raises(RemoteProtocolError, match="lies years ahead"):
            peer.handle(answer)


async def test_what_waits_under_a_lower_epoch_is_not_pushed(autojump_clock: MockClock) -> None:
    """The PoP would refuse it, and again, until the session ends."""
    service, peer = open_peer()
    epoch = service.epoch
    peer.handle(EpochAnswer(number=1, granted=False, epoch=0))
    peer.handle(EpochAnswer(number=2, granted=True, begins=True, epoch=epoch))
    assert service.seat.listeners() == {"p/0"}
    tables = [
        RoutingTable(epoch=epoch, version=version, issued=0.0, ttl_s=30.0, lease_ttl_s=10.0)
        for version in (1, 2)
    ]
    reader = FrameReader()
    for table in tables:
        peer.link.offer(table, trio.current_time())
    *_, pushed = reader.receive_data(peer.link.data_to_send())
    assert isinstance(pushed, Snapshot)
    service.seat.raise_epoch(epoch + 1)
    ack = Ack(epoch=epoch, version=1, nonce=pushed.nonce, crc=pushed.crc)
    peer.link.receive_data(encode_frame(ack), trio.current_time())
    assert peer.link.pusher is not None
    assert peer.link.pusher.acked == tables[0]
    (asked,) = reader.receive_data(peer.link.data_to_send())
    assert isinstance(asked, EpochAsk)
    assert asked.epoch == epoch + 1


async def test_under_a_raised_epoch_pops_have_a_table_at_once(autojump_clock: MockClock) -> None:
    """Not only with the next renewal, though nothing in it is different."""
    config = IrsConfig(warmup_s=0.0, push_interval_s=10.0, lease_ttl_s=60.0)
    async with open_world(config=config) as world:
        first, _ = await world.active()
        epoch = first.service.epoch + 1
        first.service.seat.raise_epoch(epoch)
        assert await until(lambda: all(pop.epoch == epoch for pop in world.pops)) < 1.0
        assert [pop.client.pushes_refused for pop in world.pops] == [0] * 3


async def test_beyond_its_revisions_a_memo_has_another_epoch(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        seat = network.irs.seat
        seat.claim.memo = (seat.epoch, REVISION_MAX - 1)
        seat._restamp()
        assert seat.claim.memo == (seat.epoch, REVISION_MAX)
        seat._restamp()
        assert seat.claim.memo == (seat.epoch + 1, 1)
        nursery.cancel_scope.cancel()


async def test_what_a_file_says_late_is_not_undone_by_an_older_word_of_a_pop(
    autojump_clock: MockClock,
) -> None:
    service, peer = open_peer()
    seat = service.seat
    note = DrainNote(origin="o1", since=NOW_UNIX, until=NOW_UNIX + 60)
    seat._loaded(IrsState(memo=IrsMemo(epoch=5, revision=3, drains=(note,))))
    assert seat.status().drained == ["o1"]
    peer.handle(EpochAnswer(number=1, granted=False, epoch=0, memo=IrsMemo(epoch=5, revision=2)))
    assert seat.status().drained == ["o1"]
    peer.handle(EpochAnswer(number=2, granted=False, epoch=0, memo=IrsMemo(epoch=5, revision=4)))
    assert seat.status().drained == [], "of a newer one it is"
