"""IRS with its real clients: everyone acked, failures masked in time, mismatches mended."""

import socket
import ssl

import msgspec
import pytest
import trio
from msgspec import UNSET
from structlog.testing import capture_logs
from trio.testing import MockClock, memory_stream_pair

from edged.irs.client import IrsClientConfig, OriginClient, PopClient
from edged.irs.peer import Peer
from edged.irs.service import (
    METRICS,
    IrsConfig,
    IrsService,
    find_problems,
)
from edged.irs.session import connect
from edged.media.epochs import EPOCH_AHEAD_S_MAX
from edged.media.routing import (
    IngestOffer,
    Match,
    OriginState,
    PopState,
    ReportedState,
    RouteRequest,
    RoutingTable,
    Rule,
)
from edged.policy.pop_board import PopBoard
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_origin
from edged.policy.rule_examples import RuleEntry, RuleExample, bare
from edged.runtime.dscp import CS6
from edged.runtime.tls import Identity
from edged.wire import table_push as table_push_module
from edged.wire.table import (
    Ack,
    Delta,
    FrameReader,
    Goodbye,
    Heartbeat,
    Message,
    Moved,
    OriginHello,
    PopHello,
    Pops,
    Snapshot,
    apply_delta,
    encode_frame,
    table_crc,
)
from edged.wire.table_push import TableHolder
from tests.irs.network import CLIENT, NOW_UNIX, Network, Origin, entropy_from, until


def state_in_table(pop: PopClient, origin: str) -> OriginState | None:
    table = pop.holder.table
    rows = {} if table is None else {row.origin: row for row in table.rows}
    return rows[origin].state if origin in rows else None


def quota_in_table(pop: PopClient, origin: str) -> int:
    assert pop.holder.table is not None
    return next(row.quota for row in pop.holder.table.rows if row.origin == origin)


def all_acked(network: Network, *pops: PopClient) -> bool:
    acked = network.irs.status().acked
    return all(
        pop.holder.table is not None and acked.get(f"{pop.view.pop}/0") == pop.holder.table.stamp
        for pop in pops
    )


async def test_two_origins_and_two_pops_are_all_acked(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(rules=(RuleEntry(name="pin", pin="o1"),)))
        for origin in ("o1", "o2"):
            network.add_origin(origin)
        one, _ = network.add_pop("lhr")
        two, _ = network.add_pop("ams")
        took_s = await until(
            lambda: (
                all_acked(network, one, two)
                and state_in_table(one, "o1") is state_in_table(two, "o2") is OriginState.UP
                and state_in_table(one, "o2") is state_in_table(two, "o1") is OriginState.UP
            )
        )
        assert took_s < 0.2
        await until(lambda: quota_in_table(one, "o1") + quota_in_table(two, "o1") == 99)
        assert {quota_in_table(one, "o1"), quota_in_table(two, "o1")} == {49, 50}
        assert one.view.rules
        assert one.holder.table is not None
        assert one.holder.table.rows[0].address == "o1:1941"
        status = network.irs.status()
        assert [(known.origin, known.state) for known in status.origins] == [
            ("o1", OriginState.UP),
            ("o2", OriginState.UP),
        ]
        nursery.cancel_scope.cancel()


async def test_an_origin_that_stops_beating_is_masked_within_400_ms(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        _, cut = network.add_origin("o1")
        network.add_origin("o2")
        one, _ = network.add_pop("lhr")
        two, _ = network.add_pop("ams")
        await trio.sleep(3.03)
        assert state_in_table(one, "o1") is OriginState.UP
        cut.cancel()
        await until(lambda: state_in_table(one, "o1") is OriginState.SUSPECT, within_s=0.25)
        took_s = 0.0
        for pop in (one, two):
            took_s += await until(lambda pop=pop: state_in_table(pop, "o1") is OriginState.DOWN)  # type: ignore[misc]
        assert took_s < 0.2  # After the suspicion: 400 ms in all.
        assert state_in_table(one, "o2") is OriginState.UP
        request = RouteRequest(channel="alice")
        for origin in ("o1", "o2"):
            one.view.set_link(origin, up=True, now=trio.current_time())
        decision = choose_origin(request, one.view, trio.current_time())
        assert decision.origin == "o2"
        assert decision.alternatives == {"o1": "masked in the table: down"}
        nursery.cancel_scope.cancel()


async def test_a_drain_and_a_return_reach_the_tables(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        origin, cut = network.add_origin("o1")
        pop, _ = network.add_pop("lhr")
        await trio.sleep(1)
        origin.state = ReportedState.DRAIN
        await until(lambda: state_in_table(pop, "o1") is OriginState.DRAIN, within_s=0.2)
        assert quota_in_table(pop, "o1") == 0
        origin.state = ReportedState.UP
        await until(lambda: state_in_table(pop, "o1") is OriginState.UP, within_s=0.2)
        cut.cancel()
        await until(lambda: state_in_table(pop, "o1") is OriginState.DOWN)
        network.add_origin("o1")
        await until(lambda: state_in_table(pop, "o1") is OriginState.PROBATION)
        await trio.sleep(5)
        assert 40 <= quota_in_table(pop, "o1") <= 50  # The ramp: 10 % a second.
        await until(lambda: state_in_table(pop, "o1") is OriginState.UP, within_s=6)
        nursery.cancel_scope.cancel()


async def test_reconfigured_every_pop_gets_a_new_table_at_once(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        network.add_origin("o1")
        pop, _ = network.add_pop("lhr")
        await trio.sleep(1)
        before = pop.holder.table
        assert before is not None
        rules = (RuleEntry(avoid=("o1",), examples=(RuleExample(channel="alice"),)),)
        network.irs.reconfigure(
            IrsConfig(push_interval_s=5.0, lease_ttl_s=60.0, table_ttl_s=70.0, rules=rules)
        )
        await until(lambda: pop.holder.table is not before, within_s=0.2)
        table = pop.holder.table
        assert table is not None
        assert (table.lease_ttl_s, table.ttl_s) == (60.0, 70.0)
        assert table.rules == (Rule(avoid=("o1",)),), "examples stay where they are written"
        version = network.irs.version
        await trio.sleep(20)
        assert network.irs.version - version <= 6  # By the new interval.
        assert len(network.irs.status().pops) == 1
        nursery.cancel_scope.cancel()


async def test_a_pop_of_before_gets_rules_without_what_it_does_not_know(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = RuleEntry(name="vip", avoid=("o1",), on_full="preempt", dscp="af41")
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(rules=(rule,)))
        network.add_origin("o1")
        newer, _ = network.add_pop("lhr")
        await until(lambda: all_acked(network, newer))
        monkeypatch.setattr(table_push_module, "RULES_PROTO", 1)  # As its hello says.
        with capture_logs() as logs:
            older, _ = network.add_pop("ams")
            await until(lambda: all_acked(network, newer, older))
        assert [line["pop"] for line in logs if "too old" in line["event"]] == ["ams/0"]
        assert newer.holder.table is not None
        assert older.holder.table is not None
        assert newer.holder.table.rules == bare((rule,))
        assert older.holder.table.rules == (Rule(name="vip", avoid=("o1",)),)
        await trio.sleep(5)
        assert network.irs.nacks == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
@pytest.mark.parametrize("marks", [True, False])
async def test_sockets_carry_the_dscp_of_control(listen: str, *, marks: bool) -> None:
    service = IrsService(
        IrsConfig(listen=listen),
        entropy=entropy_from(1),
        now_unix=lambda: NOW_UNIX,
        marks=marks,
    )
    accepted: list[trio.SocketStream] = []

    async def note(stream: trio.SocketStream, *_: object) -> str:
        accepted.append(stream)
        await trio.sleep_forever()
        return ""

    service.handle = note  # type: ignore[method-assign, assignment] # Its socket is all we want.
    async with trio.open_nursery() as nursery:
        address: str = await nursery.start(service.run)
        stream = await connect(address, None, role="irs", timeout_s=3.0, marks=marks)
        assert isinstance(stream, trio.SocketStream)
        with trio.fail_after(3):
            while not accepted:  # noqa: ASYNC110
                await trio.sleep(0.01)
        for end in (stream, accepted[0]):
            if end.socket.family == socket.AF_INET6:
                seen = end.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
            else:
                seen = end.socket.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
            assert seen == (CS6 << 2 if marks else 0)
            await end.aclose()
        nursery.cancel_scope.cancel()


async def test_leases_follow_what_pops_tell_and_never_exceed_what_is_free(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        origin, _ = network.add_origin("o1")
        one, _ = network.add_pop("lhr")
        two, _ = network.add_pop("ams")
        await trio.sleep(1)
        request = RouteRequest(channel="alice", cost=30)
        one.view.placed("o1", request)
        one.view.note_request(request, placed=True)
        origin.free = 70
        await trio.sleep(3)
        mine, theirs = quota_in_table(one, "o1") - 30, quota_in_table(two, "o1")
        assert mine + theirs == 70 - 1
        assert mine > theirs
        nursery.cancel_scope.cancel()


async def test_no_lease_is_given_where_rules_forbid_and_pins_come_first(
    autojump_clock: MockClock,
) -> None:
    """All of pop a may go to o1 alone, so o1's slots are a's before they are b's."""
    rules = (RuleEntry(match=Match(pop="a"), pin="o1"),)
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(rules=rules))
        network.add_origin("o1", free=4)
        network.add_origin("o2", free=100)
        one, _ = network.add_pop("a")
        other, _ = network.add_pop("b")
        for pop in (one, other):
            pop.view.observe_rtt("o1", 5.0)
            pop.view.observe_rtt("o2", 9.0)
        request = RouteRequest(channel="alice")
        await until(lambda: one.holder.table is not None and len(one.holder.table.rows) == 2)
        for _ in range(30):
            await trio.sleep(1.0)
            for pop in (one, other):
                pop.view.note_request(request, placed=False)
        ours, theirs = (
            {origin: quota_in_table(pop, origin) for origin in ("o1", "o2")} for pop in (one, other)
        )
        assert ours["o2"] == 0
        assert theirs["o2"] >= 99
        assert ours["o1"] > theirs["o1"]
        nursery.cancel_scope.cancel()


async def test_a_version_or_crc_mismatch_is_nacked_and_mended(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        network.add_origin("o1")
        pop, _ = network.add_pop("lhr")
        await until(lambda: all_acked(network, pop) and state_in_table(pop, "o1") is not None)
        for version in (None, 0):
            table = pop.holder.table
            assert table is not None
            pop.holder.table = (
                msgspec.structs.replace(table, rows=())
                if version is None
                else msgspec.structs.replace(table, version=version)
            )
            refused = pop.pushes_refused
            await until(lambda refused=refused: pop.pushes_refused == refused + 1)  # type: ignore[misc]
            await until(lambda: all_acked(network, pop), within_s=0.1)
            assert pop.holder.crc == table_crc(network.irs.tables["lhr/0"])
        assert network.irs.nacks == 2
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for sample in network.irs.read_metrics()
        }
        assert samples["edged_irs_nacks_total",] == 2
        assert samples["edged_irs_pushes_total", "snapshot"] == 3
        assert samples["edged_irs_pushes_total", "delta"] >= 2
        assert samples["edged_irs_sessions", "pop"] == 1
        assert samples["edged_irs_origins", "up"] == 1
        assert {spec.name for spec in METRICS} == {name for name, *_ in samples}
        nursery.cancel_scope.cancel()


async def test_a_session_resumes_with_a_delta(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        network.add_origin("o1")
        pop, cut = network.add_pop("lhr")
        await trio.sleep(1.5)
        assert all_acked(network, pop)
        cut.cancel()
        await trio.sleep(0.5)
        network.join("lhr", pop.run_stream)
        await trio.sleep(1.5)
        assert all_acked(network, pop)
        pushed = [s for s in network.irs.read_metrics() if s.name == "edged_irs_pushes_total"]
        assert next(s.value for s in pushed if s.labels["kind"] == "snapshot") == 1
        nursery.cancel_scope.cancel()


async def test_pushes_are_counted_until_a_replaced_session_has_ended_and_after(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        network.add_origin("o1")
        network.add_pop("lhr")
        await trio.sleep(1)
        counts: list[float] = []

        def count() -> None:
            samples = network.irs.read_metrics()
            counts.append(sum(s.value for s in samples if s.name == "edged_irs_pushes_total"))

        left = network.irs._left

        def watched(session: Peer, reason: str) -> None:
            count()
            left(session, reason)
            count()

        count()
        monkeypatch.setattr(network.irs, "_left", watched)
        network.join("lhr again", PopClient(CLIENT, PopView("lhr")).run_stream)
        await trio.sleep(1)
        count()
        assert len(counts) == 4
        assert 0 < counts[0] <= counts[1] == counts[2] < counts[3]
        nursery.cancel_scope.cancel()


async def test_a_newer_session_replaces_the_older(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        network.add_origin("o1")
        network.add_pop("lhr")
        await trio.sleep(1)
        again = PopClient(CLIENT, PopView("lhr"))
        network.join("lhr again", again.run_stream)
        origin = Origin("o1")
        network.join("o1 again", origin.client.run_stream)
        await trio.sleep(1)
        assert network.reasons["irs of lhr"] == "replaced by a newer session"
        assert network.reasons["lhr"] == "irs ended the session: replaced by a newer session"
        assert network.reasons["o1"] == "irs ended the session: replaced by a newer session"
        assert all_acked(network, again)
        assert state_in_table(again, "o1") is OriginState.UP
        nursery.cancel_scope.cancel()


async def test_irs_outbids_a_pop_that_has_a_newer_table(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        network.add_origin("o1")
        other, _ = network.add_pop("ams")
        await trio.sleep(3)
        assert other.holder.table is not None
        pop = PopClient(CLIENT, PopView("lhr"))
        epoch = network.irs.epoch + 50
        pop.holder = TableHolder(
            msgspec.structs.replace(other.holder.table, epoch=epoch, version=70, rows=())
        )
        network.join("lhr", pop.run_stream)
        await until(lambda: all_acked(network, pop, other))
        assert network.irs.epoch == epoch + 1
        assert state_in_table(pop, "o1") is OriginState.UP
        # And one whose table turns out newer in the middle of a session.
        pop.holder.table = msgspec.structs.replace(network.irs.tables["lhr/0"], version=10**6)
        await until(lambda: network.irs.epoch == epoch + 2)
        await until(lambda: all_acked(network, pop, other))
        assert pop.holder.table.epoch == epoch + 2
        nursery.cancel_scope.cancel()


async def talk(network: Network, *messages: Message, identity: Identity | None = None) -> str:
    """Say these things as a stranger; returns the goodbye."""
    ours, theirs = memory_stream_pair()
    network.nursery.start_soon(network.irs.handle, ours, "stranger", identity)
    await theirs.send_all(b"".join(encode_frame(message) for message in messages))
    reader = FrameReader()
    while data := await theirs.receive_some():
        for message in reader.receive_data(data):
            if isinstance(message, Goodbye):
                return message.reason
    return "closed without a word"


HELLO = OriginHello(origin="o1", incarnation=1, address="h:1")


@pytest.mark.parametrize(
    ("messages", "identity", "reason"),
    [
        ((PopHello(pop="lhr", proto=9),), None, "protocol 9 is not spoken here, this is 1"),
        (
            (PopHello(pop="lhr", epoch=int(NOW_UNIX) + EPOCH_AHEAD_S_MAX + 1),),
            None,
            "epoch 2015360001 of lhr/0 lies years ahead, 2015360000 is the most",
        ),
        (
            (PopHello(pop="lhr"),),
            Identity("pop", "ams"),
            "certificate of pop/ams may not speak for pop/lhr",
        ),
        (
            (PopHello(pop="lhr"),),
            Identity("origin", "lhr"),
            "certificate of origin/lhr may not speak for pop/lhr",
        ),
        ((HELLO,), Identity("pop", "o1"), "certificate of pop/o1 may not speak for origin/o1"),
        ((HELLO, Heartbeat(Origin("o2").report())), None, "heartbeat of 'o2' from 'o1'"),
        ((Heartbeat(Origin("o2").report()),), None, "unexpected Heartbeat in state hello"),
        ((), None, "no hello in 5 s"),
        (
            (OriginHello(origin="o1", incarnation=1, address="h:\N{SUPERSCRIPT TWO}"),),
            None,
            "origin 'o1': address 'h:\N{SUPERSCRIPT TWO}' is not \"HOST:PORT\""
            " with a port of 0 to 65535",
        ),
        (
            (OriginHello(origin="o1", incarnation=1, address="[::]:7410"),),
            None,
            "origin 'o1': address '[::]:7410' cannot be connected to",
        ),
        (
            (OriginHello(origin="o1", incarnation=1, address="h:0"),),
            None,
            "origin 'o1': address 'h:0' cannot be connected to",
        ),
    ],
)
async def test_refusals_say_why(
    messages: tuple[Message, ...],
    identity: Identity | None,
    reason: str,
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        assert await talk(network, *messages, identity=identity) == reason
        nursery.cancel_scope.cancel()


async def test_sessions_and_origins_are_bounded(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, sessions_max=8, origins_max=4)
        streams = []

        async def open_session(*messages: Message) -> None:
            ours, theirs = memory_stream_pair()
            streams.append(theirs)
            nursery.start_soon(network.irs.handle, ours, "crowd", None)
            await theirs.send_all(b"".join(encode_frame(message) for message in messages))

        for n in range(4):
            await open_session(OriginHello(origin=f"o{n}", incarnation=1, address="h:1"))
        await trio.sleep(0.1)
        extra = OriginHello(origin="extra", incarnation=1, address="h:1")
        assert await talk(network, extra) == "origin 'extra' is one more than 4"
        for _ in range(8):  # Silent ones keep nobody out,
            await open_session()
        await trio.sleep(0.1)
        assert await talk(network, extra) == "origin 'extra' is one more than 4"
        for n in range(4):
            await open_session(PopHello(pop=f"p{n}"))
        await trio.sleep(0.1)
        assert await talk(network, HELLO) == "closed without a word"  # but known peers do.
        nursery.cancel_scope.cancel()


@pytest.mark.e2e
async def test_connections_that_never_finish_the_handshake_make_room() -> None:
    irs = IrsService(
        IrsConfig(listen="127.0.0.1:0"),
        entropy=entropy_from(3),
        now_unix=lambda: NOW_UNIX,
        tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        sessions_max=2,
    )
    async with trio.open_nursery() as nursery:
        host, _, port = (await nursery.start(irs.run)).partition(":")
        silent = []
        for _ in range(3):
            silent.append(await trio.open_tcp_stream(host, int(port)))
            await trio.sleep(0.05)
        with trio.fail_after(1):
            assert await silent[0].receive_some() == b""
        assert (irs._places.given_up, len(irs._places)) == (1, 2)
        for stream in silent:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_who_has_to_make_room_replaces_nobody(autojump_clock: MockClock) -> None:
    """Its hello may be here already, unread: it comes too late, and the older session stays."""
    async with trio.open_nursery() as nursery:
        network = Network(nursery, sessions_max=2)
        older, late = memory_stream_pair(), memory_stream_pair()
        nursery.start_soon(network.irs.handle, older[0], "older", None)
        await older[1].send_all(encode_frame(PopHello(pop="lhr")))
        await trio.sleep(0.1)
        nursery.start_soon(network.irs.handle, late[0], "late", None)
        await trio.sleep(0.1)
        place = next(iter(network.irs._places._silent))
        del network.irs._places._silent[place]  # As `take` does for a newcomer in this turn.
        await late[1].send_all(encode_frame(PopHello(pop="lhr")))
        await trio.sleep(0.1)
        assert [session.peer for session in network.irs._pops.values()] == ["older"]
        nursery.cancel_scope.cancel()


async def test_tables_of_pops_that_are_gone_are_forgotten(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        one, cut_one = network.add_pop("lhr")
        two, cut_two = network.add_pop("ams")
        await until(lambda: all_acked(network, one, two))
        cut_one.cancel()
        await trio.sleep(5)
        assert "lhr/0" in network.irs.tables  # It may be back, and go on by delta.
        await trio.sleep(6)
        cut_two.cancel()
        await trio.sleep(0.1)
        assert set(network.irs.tables) == {"ams/0"}
        nursery.cancel_scope.cancel()


async def test_moves_are_logged(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        pop, _ = network.add_pop("lhr")
        await trio.sleep(0.1)
        moved = Moved(
            channel="alice",
            publication=1,
            home_epoch=2,
            from_origin="o1",
            to_origin="o2",
            unit_seq=9,
        )
        with capture_logs() as logs:
            pop.send_moved(moved)
            await trio.sleep(0.1)
        assert [(line["event"], line["channel"], line["origin"]) for line in logs] == [
            ("stream moved", "alice", "o2")
        ]
        nursery.cancel_scope.cancel()


async def test_after_a_restart_pops_keep_their_table_until_the_origins_were_heard(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        first = Network(nursery)
        first.add_origin("o1")
        pop, cut = first.add_pop("lhr")
        fresh_pop = PopClient(CLIENT, PopView("ams"))
        await until(lambda: state_in_table(pop, "o1") is OriginState.UP)
        cut.cancel()
        second = Network(nursery, IrsConfig(warmup_s=2.0))
        second.join("lhr", pop.run_stream)
        second.join("ams", fresh_pop.run_stream)
        await trio.sleep(1.5)
        assert state_in_table(pop, "o1") is OriginState.UP  # Kept, though the new IRS has none.
        assert fresh_pop.holder.table is not None
        second.add_origin("o1")
        await trio.sleep(2)
        assert all_acked(second, pop, fresh_pop)
        assert second.irs.epoch > first.irs.epoch
        assert state_in_table(pop, "o1") is OriginState.UP
        nursery.cancel_scope.cancel()


async def test_an_irs_that_has_heard_no_origin_takes_nobody_s_table_away(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = Network(nursery), Network(nursery)
        first.add_origin("o1")
        pop, cut = first.add_pop("lhr")
        await until(lambda: state_in_table(pop, "o1") is OriginState.UP)
        cut.cancel()
        second.join("lhr", pop.run_stream)
        await trio.sleep(2 * second.irs.config.warmup_s)
        assert state_in_table(pop, "o1") is OriginState.UP
        second.add_origin("o2")
        await until(lambda: state_in_table(pop, "o2") is OriginState.UP)
        nursery.cancel_scope.cancel()


def test_config_contradictions_are_refused() -> None:
    assert IrsConfig(lease_ttl_s=2.0, push_interval_s=1.0, table_ttl_s=2.0)
    with pytest.raises(ValueError, match="lease_ttl_s 1 must be at least twice push_interval_s 1"):
        IrsConfig(lease_ttl_s=1.0, push_interval_s=1.0)
    with pytest.raises(ValueError, match=r"table_ttl_s 1\.5 must be at least .*, or masks expire"):
        IrsConfig(table_ttl_s=1.5, push_interval_s=1.0)
    text = 'listen = "[::1]:1940"\n[[rules]]\nmatch = {glob = "a*"}\npin = "o1"'
    assert msgspec.toml.decode(text, type=IrsConfig).rules[0].pin == "o1"


def test_the_warm_up_lasts_until_origins_are_back() -> None:
    assert find_problems(IrsConfig(), IrsClientConfig(addresses=("h:1",))) == []
    slow = IrsClientConfig(addresses=("h:1",), connect_timeout_s=4.0, reconnect_s_max=2.0)
    assert slow.back_s_max == 7.0
    (problem,) = find_problems(IrsConfig(), slow)
    assert problem == (
        "irs.warmup_s: 5 is less than the 7 s in which origins are back"
        " (irs_client.connect_timeout_s 4 + 1.5 x irs_client.reconnect_s_max 2):"
        " PoPs would get tables without them"
    )
    assert find_problems(IrsConfig(warmup_s=7.0), slow) == []
    assert find_problems(IrsConfig(warmup_s=0.0), slow) == []  # Nobody's table is to be kept.


@pytest.mark.e2e
async def test_on_real_sockets_all_are_acked_and_a_silent_origin_is_masked() -> None:
    irs = IrsService(
        IrsConfig(listen="127.0.0.1:0"), entropy=entropy_from(2), now_unix=lambda: NOW_UNIX
    )
    async with trio.open_nursery() as nursery:
        address = await nursery.start(irs.run)
        config = IrsClientConfig(addresses=(address,), telemetry_interval_s=0.2)
        frozen = trio.Event()
        nursery.start_soon(beat_until, frozen, address, Origin("o1"))
        living = Origin("o2")
        hello = OriginHello(origin="o2", incarnation=1, address="h:2")
        nursery.start_soon(OriginClient(config, hello, living.report).run)
        pops = [PopClient(config, PopView(name)) for name in ("lhr", "ams")]
        for pop in pops:
            await nursery.start(pop.run)
        await until(
            lambda: (
                all(state_in_table(pop, "o1") is OriginState.UP for pop in pops)
                and all(state_in_table(pop, "o2") is OriginState.UP for pop in pops)
                and set(irs.status().acked) == {"lhr/0", "ams/0"}
            )
        )
        await trio.sleep(0.3)
        frozen.set()
        took_s = await until(
            lambda: all(state_in_table(pop, "o1") is OriginState.DOWN for pop in pops)
        )
        assert took_s < 0.6, "about 400 ms, and half as much again for a busy machine"
        assert all(state_in_table(pop, "o2") is OriginState.UP for pop in pops)
        nursery.cancel_scope.cancel()


async def beat_until(frozen: trio.Event, address: str, origin: Origin) -> None:
    """An origin that freezes: its kernel keeps the connection, but nothing more is said."""
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    hello = OriginHello(origin=origin.name, incarnation=1, address="h:1")
    async with stream:
        await stream.send_all(encode_frame(hello))
        while not frozen.is_set():
            await stream.send_all(encode_frame(Heartbeat(origin.report())))
            await trio.sleep(0.1)
        await trio.sleep_forever()


async def test_pops_hear_of_each_other_of_changes_and_of_who_left(
    autojump_clock: MockClock,
) -> None:
    boards = {name: PopBoard(name, 0) for name in ("ams", "fra")}
    loads = dict.fromkeys(boards, 0.0)

    def client_of(name: str) -> PopClient:
        def hear(pops: Pops) -> None:
            removed = [(key.pop, key.shard) for key in pops.removed]
            now = trio.current_time()
            boards[name].apply(whole=pops.whole, changed=pops.changed, removed=removed, now=now)

        def offer() -> IngestOffer:
            return IngestOffer((f"rtmp://{name}/live",), PopState.UP, loads[name])

        return PopClient(CLIENT, PopView(name), on_pops=hear, offer=offer)

    def seen(name: str) -> list[tuple[str, float]]:
        return [(row.pop, row.ingest.load) for row in boards[name].others(trio.current_time())]

    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        scopes = {}
        for name in boards:
            client = client_of(name)
            nursery.start_soon(client.run_duties)
            scopes[name] = network.join(name, client.run_stream)
        network.add_pop("old")  # It makes no offer, and is told all the same.
        await until(lambda: seen("ams") == [("fra", 0.0)] and seen("fra") == [("ams", 0.0)])
        loads["fra"] = 0.5
        took_s = await until(lambda: seen("ams") == [("fra", 0.5)])
        assert took_s <= 2.1  # Telemetry once a second, pushes once a second.
        scopes["fra"].cancel()
        await until(lambda: seen("ams") == [])
        nursery.cancel_scope.cancel()


async def test_a_pop_of_an_older_version_is_not_told_of_the_others(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        ours, theirs = memory_stream_pair()
        nursery.start_soon(network.irs.handle, ours, "old", None)
        await theirs.send_all(encode_frame(PopHello(pop="old")))
        reader, heard = FrameReader(), list[Message]()
        with trio.move_on_after(2.5):
            while True:
                heard += reader.receive_data(bytes(await theirs.receive_some(65536)))
        assert heard
        assert not any(isinstance(message, Pops) for message in heard)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("knows", [True, False])
async def test_a_pop_of_an_older_version_is_not_told_of_kept_units(
    autojump_clock: MockClock, knows: bool
) -> None:
    """It would compute another CRC, and refuse every table."""
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(reserve_fraction=0.03))
        network.add_origin("o1")
        ours, theirs = memory_stream_pair()
        nursery.start_soon(network.irs.handle, ours, "lhr", None)
        await theirs.send_all(encode_frame(PopHello(pop="lhr", wants_kept=knows)))
        reader = FrameReader()
        tables: list[RoutingTable] = []
        while not any(table.rows for table in tables):
            for message in reader.receive_data(await theirs.receive_some()):
                if isinstance(message, Snapshot):
                    tables.append(message.table)
                    await theirs.send_all(
                        encode_frame(
                            Ack(
                                epoch=message.table.epoch,
                                version=message.table.version,
                                nonce=message.nonce,
                                crc=table_crc(message.table),
                            )
                        )
                    )
                elif isinstance(message, Delta):
                    table = apply_delta(tables[-1], message)
                    tables.append(table)
                    assert table_crc(table) == message.crc_after
        assert tables[-1].kept == ({"o1": 3} if knows else UNSET)
        assert tables[-1].rows[0].quota == 97
        nursery.cancel_scope.cancel()
