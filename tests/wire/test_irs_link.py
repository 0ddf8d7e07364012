"""Sessions with IRS: two cores joined, who may say what, silence, late timers."""

import contextlib
from collections.abc import Sequence

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.epochs import UNASKED, EpochAnswer, EpochAsk, IrsMemo
from edged.media.live import LiveAsk, LiveReport
from edged.media.reach import Audience, AudienceRow, Reach, ReachOrder
from edged.media.routing import OriginReport, PopTelemetry, ReportedState, RoutingTable
from edged.wire.irs_link import (
    ALIVE_INTERVAL_S,
    HELLO_S_MAX,
    SILENCE_S_MAX,
    CommandRefused,
    GrantBegan,
    GrantReleased,
    IrsLink,
    PeerLink,
    PeerLost,
    PushRefused,
    TableAcked,
    TableArrived,
    TableRefused,
)
from edged.wire.table import (
    FRAME_BYTES_MAX,
    Ack,
    Alive,
    Delta,
    Drain,
    Goodbye,
    Heartbeat,
    Message,
    Migrate,
    Moved,
    MoveRefused,
    Nack,
    OriginHello,
    PopHello,
    Pops,
    Shed,
    ShedDone,
    ShedPick,
    Snapshot,
    Telemetry,
    encode_frame,
    table_crc,
)
from edged.wire.table_push import ACK_S_MAX, TableHolder

EPOCH = 5
ORIGIN_HELLO = OriginHello(origin="o1", incarnation=1, address="h:1")
HEARTBEAT = Heartbeat(OriginReport("o1", 1, ReportedState.UP, 10, (10, 10, 10)))
TELEMETRY = Telemetry(PopTelemetry({}))
MOVED = Moved(
    channel="a", publication=1, home_epoch=2, from_origin="o1", to_origin="o2", unit_seq=3
)


def make_irs(now: float = 0.0) -> IrsLink:
    return IrsLink(now=now, epoch=lambda: EPOCH, entropy=lambda count: b"\7" * count)


def table(version: int, epoch: int = EPOCH) -> RoutingTable:
    return RoutingTable(epoch=epoch, version=version, issued=0.0, ttl_s=30.0, lease_ttl_s=10.0)


def feed(link: IrsLink, *messages: Message, now: float = 0.0) -> Sequence[object]:
    return link.receive_data(b"".join(encode_frame(message) for message in messages), now)


def joined(holder: TableHolder | None = None) -> tuple[IrsLink, PeerLink]:
    irs = make_irs()
    holder = holder or TableHolder()
    pop = PeerLink(holder.hello("lhr", 0), holder, 0.0)
    assert irs.receive_data(pop.data_to_send(), 0.0) == [holder.hello("lhr", 0)]
    irs.start_pushing(None)
    return irs, pop


def test_a_table_goes_over_and_is_acked() -> None:
    irs, pop = joined()
    irs.offer(table(1), 0.0)
    irs.offer(table(2), 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.1) == [TableArrived(table(1))]
    assert irs.receive_data(pop.data_to_send(), 0.25) == [TableAcked(table(1), 0.25)]
    assert pop.receive_data(irs.data_to_send(), 0.3) == [TableArrived(table(2))]
    assert irs.receive_data(pop.data_to_send(), 0.5) == [TableAcked(table(2), 0.25)]
    assert (irs.messages_sent, irs.messages_received) == (2, 3)


def test_a_nack_is_told_and_mended() -> None:
    holder = TableHolder(table(7))
    irs, pop = joined(holder)
    irs.offer(table(3), 0.0)
    reason = "v3 of epoch 5 is not newer"
    assert pop.receive_data(irs.data_to_send(), 0.0) == [PushRefused(reason)]
    assert irs.receive_data(pop.data_to_send(), 0.0) == [TableRefused(EPOCH, 7, reason)]
    irs.offer(table(8), 0.0)
    pop.receive_data(irs.data_to_send(), 0.0)
    irs.receive_data(pop.data_to_send(), 0.0)
    pop.receive_data(irs.data_to_send(), 0.0)
    assert holder.table == table(8)


def test_a_pop_of_a_newer_epoch_is_not_pushed_to_again_before_irs_has_risen() -> None:
    irs, pop = joined(TableHolder(table(1, epoch=9)))
    irs.offer(table(3), 0.0)
    pop.receive_data(irs.data_to_send(), 0.0)
    events = irs.receive_data(pop.data_to_send(), 0.0)
    assert events == [TableRefused(9, 1, "v3 of epoch 5 is not newer")]
    assert irs.data_to_send() == b""
    irs.offer(table(1, epoch=10), 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.0) == [TableArrived(table(1, epoch=10))]


def test_what_peers_tell_arrives() -> None:
    irs, pop = joined()
    pop.send(TELEMETRY, 1.0)
    pop.send(MOVED, 1.0)
    refused = MoveRefused(number=1, channel="a", from_origin="o1", reason="full")
    pop.send(refused, 1.0)
    assert irs.receive_data(pop.data_to_send(), 1.0) == [TELEMETRY, MOVED, refused]
    irs, origin = make_irs(), PeerLink(ORIGIN_HELLO, None, 0.0)
    origin.send(HEARTBEAT, 0.0)
    assert irs.receive_data(origin.data_to_send(), 0.0) == [ORIGIN_HELLO, HEARTBEAT]


def test_what_irs_commands_arrives() -> None:
    _, pop = joined()
    commands: list[Message] = [
        Migrate(moves=(), deadline=1.0, budget_per_s=1.0),
        Drain(origin="o1", until=1.0),
    ]
    commands += [Alive(5), Goodbye("bye")]
    wire = b"".join(encode_frame(command) for command in commands)
    assert pop.receive_data(wire, 0.0) == [*commands[:2], Goodbye("bye")]


def test_only_a_pop_that_moves_streams_is_told_to() -> None:
    irs, pop = joined()
    drain = Drain(origin="o1", until=1.0)
    assert irs.moves_streams
    assert irs.command(drain, 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.0) == [drain]
    older = make_irs()
    assert not older.moves_streams
    feed(older, PopHello(pop="lhr"))
    assert not older.command(drain, 0.0)
    assert older.data_to_send() == b""


SHED = Shed(epoch=EPOCH, number=1, picks=(ShedPick("o1", "basic", 2, 5, "sea"),))
SHED_DONE = ShedDone(
    epoch=EPOCH, number=1, origin="o1", class_="basic", link="sea", wanted=2, ended=2
)


def test_only_a_pop_that_knows_how_is_told_to_shed_and_what_it_did_arrives() -> None:
    irs, pop = joined()
    assert irs.sheds_streams
    assert irs.shed(SHED, 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.0) == [SHED]
    pop.send(SHED_DONE, 0.0)
    assert irs.receive_data(pop.data_to_send(), 0.0) == [SHED_DONE]
    irs.pause()
    assert not irs.shed(SHED, 0.0), "it has granted another one"
    older = make_irs()
    feed(older, PopHello(pop="lhr", moves_streams=True))
    assert not older.shed(SHED, 0.0)
    assert older.data_to_send() == b""
    with pytest.raises(RemoteProtocolError, match="unexpected Shed from irs"):
        PeerLink(PopHello(pop="lhr"), TableHolder(), 0.0).receive_data(encode_frame(SHED), 0.0)


def test_nothing_is_shed_on_the_word_of_an_older_epoch() -> None:
    _, pop = joined(TableHolder(table(1, epoch=EPOCH + 1)))
    reason = f"it is of epoch {EPOCH}, the table of {EPOCH + 1}"
    assert pop.receive_data(encode_frame(SHED), 0.0) == [CommandRefused("Shed", reason)]
    newer = msgspec.structs.replace(SHED, epoch=EPOCH + 1)
    assert pop.receive_data(encode_frame(newer), 0.0) == [newer]


@pytest.mark.parametrize(
    "messages",
    [
        (TELEMETRY,),
        (Alive(1),),
        (PopHello(pop="lhr"), PopHello(pop="lhr")),
        (PopHello(pop="lhr"), HEARTBEAT),
        (ORIGIN_HELLO, TELEMETRY),
        (ORIGIN_HELLO, Ack(epoch=1, version=1, nonce=1, crc=1)),
        (PopHello(pop="lhr", proto=2),),
    ],
)
def test_what_is_out_of_place_is_a_protocol_error(messages: tuple[Message, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        feed(make_irs(), *messages)


@pytest.mark.parametrize(
    "message",
    [
        TELEMETRY,
        PopHello(pop="x"),
        Snapshot(nonce=1, crc=1, table=table(1)),
        Drain(origin="o1", until=1.0),
    ],
)
def test_origins_take_only_alive_and_goodbye(message: Message) -> None:
    with pytest.raises(RemoteProtocolError, match="unexpected"):
        PeerLink(ORIGIN_HELLO, None, 0.0).receive_data(encode_frame(message), 0.0)


def test_answers_before_any_push_are_harmless() -> None:
    irs = make_irs()
    ack = Ack(epoch=1, version=1, nonce=1, crc=1)
    nack = Nack(epoch=1, version=1, nonce=1, reason="")
    assert feed(irs, PopHello(pop="lhr"), ack)[1:] == []
    assert feed(irs, nack) == [TableRefused(1, 1, "")]
    irs.start_pushing(None)
    assert feed(irs, ack, nack) == [TableRefused(1, 1, "")]


def test_goodbye_says_why() -> None:
    irs, pop = joined()
    irs.refuse("r" * 300, 0.0)
    (event,) = pop.receive_data(irs.data_to_send(), 0.0)
    assert event == Goodbye("r" * 200)


def test_before_its_hello_a_stranger_makes_irs_hold_little() -> None:
    with pytest.raises(RemoteProtocolError, match="irs frame of 1048576 bytes exceeds 4096"):
        make_irs().receive_data(FRAME_BYTES_MAX.to_bytes(4, "big") + b"x", 0.0)
    irs, pop = joined()
    assert irs.receive_data(FRAME_BYTES_MAX.to_bytes(4, "big") + b"x", 0.0) == []
    assert pop.receive_data(FRAME_BYTES_MAX.to_bytes(4, "big") + b"x", 0.0) == []


def test_hello_has_a_deadline() -> None:
    irs = make_irs(now=10.0)
    assert irs.next_timeout() == 10.0 + HELLO_S_MAX
    assert irs.handle_timeout(10.0 + HELLO_S_MAX - 0.01) == []
    assert irs.handle_timeout(10.0 + HELLO_S_MAX) == [PeerLost("no hello in 5 s")]


def test_irs_is_heard_once_a_second_and_silence_is_noticed_at_both_ends() -> None:
    irs, pop = joined()
    now, alive = 0.0, 0
    while True:
        now = irs.next_timeout()
        events = irs.handle_timeout(now)
        if events:
            break
        assert irs.next_timeout() > now
        alive += irs.data_to_send() == encode_frame(Alive(EPOCH))
    assert events == [PeerLost("silent for 3.0 s")]
    assert (now, alive) == (SILENCE_S_MAX, int(SILENCE_S_MAX / ALIVE_INTERVAL_S) - 1)
    assert pop.next_timeout() == SILENCE_S_MAX
    assert pop.handle_timeout(SILENCE_S_MAX - 0.1) == []
    assert pop.handle_timeout(SILENCE_S_MAX) == [PeerLost("silent for 3.0 s")]


def test_a_late_timer_of_ours_convicts_nobody() -> None:
    irs, pop = joined()
    irs.offer(table(1), 0.0)
    for link in (irs, pop):
        assert link.handle_timeout(SILENCE_S_MAX + 1.0) == []
        assert link.next_timeout() > SILENCE_S_MAX + 1.0


def test_an_unanswered_push_ends_the_session_unless_our_timer_was_late() -> None:
    irs, _ = joined()
    irs.offer(table(1), 0.0)
    feed(irs, TELEMETRY, now=1.5)
    assert irs.handle_timeout(1.5) == []
    assert irs.handle_timeout(ACK_S_MAX) == [PeerLost("did not answer a pushed table in time")]
    irs, _ = joined()
    irs.offer(table(1), 0.0)
    feed(irs, TELEMETRY, now=2.5)
    assert irs.handle_timeout(ACK_S_MAX + 0.6) == []
    assert irs.handle_timeout(2 * ACK_S_MAX + 0.6) == [
        PeerLost("did not answer a pushed table in time")
    ]


@hypothesis.given(st.binary(max_size=200))
@hypothesis.settings(max_examples=60, deadline=None)
def test_garbage_raises_only_a_protocol_error(garbage: bytes) -> None:
    irs, pop = joined()
    for link in (irs, pop):
        for data in (garbage, len(garbage).to_bytes(4, "big") + garbage):
            with contextlib.suppress(RemoteProtocolError):
                link.receive_data(data, 0.0)


def test_a_delta_from_nowhere_is_refused() -> None:
    _, pop = joined()
    delta = Delta(
        nonce=1,
        epoch=5,
        from_version=1,
        version=2,
        issued=0.0,
        ttl_s=1.0,
        lease_ttl_s=1.0,
        crc_after=table_crc(table(2)),
    )
    assert pop.receive_data(encode_frame(delta), 0.0) == [
        PushRefused("delta, but there is no table here")
    ]


def test_a_pop_is_told_of_the_others_if_it_wants_that() -> None:
    irs, pop = joined()
    irs.tell_pops(Pops(whole=True), 1.0)
    assert pop.receive_data(irs.data_to_send(), 1.0) == [Pops(whole=True)]
    older = make_irs()
    feed(older, PopHello(pop="lhr"))
    with pytest.raises(AssertionError, match="older"):
        older.tell_pops(Pops(whole=True), 1.0)


def test_an_origin_is_not_told_of_pops() -> None:
    origin = PeerLink(ORIGIN_HELLO, None, 0.0)
    with pytest.raises(RemoteProtocolError, match="unexpected Pops"):
        origin.receive_data(encode_frame(Pops(whole=True)), 0.0)


class OneGate:
    """Grants what is asked, and believes `epoch` alone."""

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.memos: list[IrsMemo] = []

    def answer(self, ask: EpochAsk, now: float) -> EpochAnswer:
        begins, self.epoch = self.epoch != ask.epoch, ask.epoch
        return EpochAnswer(number=ask.number, granted=True, begins=begins, epoch=ask.epoch)

    def why_not(self, now: float, epoch: int | None = None) -> str:
        if not self.epoch:
            return "no epoch is granted"
        return "" if epoch in (None, self.epoch) else f"epoch {epoch} is not granted"

    def keep(self, memo: IrsMemo, now: float) -> None:
        self.memos.append(memo)


def joined_by(gate: OneGate) -> tuple[IrsLink, PeerLink, TableHolder]:
    irs, holder = make_irs(), TableHolder()
    hello = msgspec.structs.replace(holder.hello("lhr", 0), grants_epochs=True)
    pop = PeerLink(hello, holder, 0.0, gate)
    assert irs.receive_data(pop.data_to_send(), 0.0) == [hello]
    assert irs.grants_epochs
    irs.start_pushing(None)
    return irs, pop, holder


ASK = EpochAsk(irs="a1", number=1, kind="want", epoch=EPOCH)


def test_what_an_irs_without_a_grant_says_is_refused_and_ignored() -> None:
    gate = OneGate()
    irs, pop, holder = joined_by(gate)
    drain = Drain(origin="o1", until=9.0)
    assert irs.command(drain, 0.0)
    irs.ask(IrsMemo(epoch=1), 0.0)
    irs.offer(table(1), 0.0)
    reason = "no epoch is granted"
    assert pop.receive_data(irs.data_to_send(), 0.0) == [
        CommandRefused("Drain", reason),
        CommandRefused("IrsMemo", reason),
        PushRefused(reason),
    ]
    assert (holder.table, gate.memos) == (None, [])
    irs.pause()
    assert irs.receive_data(pop.data_to_send(), 0.0) == [TableRefused(0, 0, reason)]
    assert irs.data_to_send() == b"", "while it is paused nothing is pushed again"
    assert not irs.command(drain, 0.0)
    irs.ask(ASK, 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.0) == [GrantBegan("a1", EPOCH)]
    (answer,) = irs.receive_data(pop.data_to_send(), 0.0)
    assert isinstance(answer, EpochAnswer)
    irs.resume()
    irs.ask(IrsMemo(epoch=2), 0.0)
    assert irs.command(drain, 0.0)
    irs.tell_reach(REACH, 0.0)
    irs.offer(table(2), 0.0)
    told = pop.receive_data(irs.data_to_send(), 0.0)
    assert told == [drain, REACH, TableArrived(table(2))]
    assert gate.memos == [IrsMemo(epoch=2)]
    irs.ask(ASK, 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.0) == [], "it went on"
    irs.ask(msgspec.structs.replace(ASK, kind="release"), 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.0) == [GrantReleased()]
    notice = EpochAnswer(number=UNASKED, granted=False, epoch=EPOCH)
    irs.receive_data(pop.data_to_send(), 0.0)
    pop.send(notice, 0.0)
    assert irs.receive_data(pop.data_to_send(), 0.0) == [notice]


def test_a_pop_is_asked_what_is_live_if_it_can_tell() -> None:
    irs, pop = joined()
    assert irs.tells_live
    ask = LiveAsk(number=1)
    irs.ask_live(ask, 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.0) == [ask]
    report = LiveReport(ask=1, number=1, removed=("x",), count=0)
    pop.send(report, 0.0)
    assert irs.receive_data(pop.data_to_send(), 0.0) == [report]
    older = make_irs()
    assert not older.tells_live
    feed(older, PopHello(pop="lhr"))
    assert not older.tells_live
    with pytest.raises(AssertionError, match="an older PoP would close on it"):
        older.ask_live(ask, 0.0)
    for origin_or_older in (ORIGIN_HELLO, PopHello(pop="lhr")):
        holder = TableHolder() if isinstance(origin_or_older, PopHello) else None
        peer = PeerLink(origin_or_older, holder, 0.0)
        with pytest.raises(RemoteProtocolError, match="unexpected LiveAsk"):
            peer.receive_data(encode_frame(ask), 0.0)


REACH = Reach(epoch=EPOCH, number=1, ttl_s=60, orders=(ReachOrder("alice", hold=True),))


def test_a_pop_that_takes_orders_of_reach_gets_them_and_tells_who_watches() -> None:
    irs, pop = joined()
    assert irs.reaches
    irs.tell_reach(REACH, 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.0) == [REACH]
    audience = Audience(rows=(AudienceRow("alice", 3),))
    pop.send(audience, 0.0)
    assert irs.receive_data(pop.data_to_send(), 0.0) == [audience]
    older = make_irs()
    assert not older.reaches
    feed(older, PopHello(pop="lhr"))
    with pytest.raises(AssertionError, match="an older PoP would close on it"):
        older.tell_reach(REACH, 0.0)
    for origin_or_older in (ORIGIN_HELLO, PopHello(pop="lhr")):
        holder = TableHolder() if isinstance(origin_or_older, PopHello) else None
        peer = PeerLink(origin_or_older, holder, 0.0)
        with pytest.raises(RemoteProtocolError, match="unexpected Reach"):
            peer.receive_data(encode_frame(REACH), 0.0)
    with pytest.raises(RemoteProtocolError, match="unexpected Audience in state origin"):
        feed(make_irs(), ORIGIN_HELLO, audience)


def test_an_origin_tells_nothing_of_what_is_live() -> None:
    irs = make_irs()
    with pytest.raises(RemoteProtocolError, match="unexpected LiveReport in state origin"):
        feed(irs, ORIGIN_HELLO, LiveReport(ask=1, number=1, count=0))


def test_a_table_of_another_epoch_than_granted_is_refused() -> None:
    irs, pop, holder = joined_by(OneGate(EPOCH))
    irs.offer(table(1, epoch=EPOCH + 1), 0.0)
    assert pop.receive_data(irs.data_to_send(), 0.0) == [
        PushRefused(f"epoch {EPOCH + 1} is not granted")
    ]
    assert holder.table is None


def test_what_was_offered_before_a_pause_is_not_pushed_after_it() -> None:
    irs, pop, _ = joined_by(OneGate(EPOCH))
    irs.offer(table(1), 0.0)
    irs.offer(table(2), 0.0)  # Waits for the ack of the first.
    assert pop.receive_data(irs.data_to_send(), 0.0) == [TableArrived(table(1))]
    irs.pause()
    irs.resume()
    irs.receive_data(pop.data_to_send(), 0.0)
    assert irs.data_to_send() == b""


def test_a_pop_with_one_irs_is_not_asked_for_epochs() -> None:
    irs, pop = joined()
    assert not irs.grants_epochs
    with pytest.raises(RemoteProtocolError, match="unexpected EpochAsk from irs"):
        feed_peer(pop, ASK)
    with pytest.raises(RemoteProtocolError, match="unexpected IrsMemo from irs"):
        feed_peer(pop, IrsMemo())


def feed_peer(link: PeerLink, message: Message) -> None:
    link.receive_data(encode_frame(message), 0.0)
