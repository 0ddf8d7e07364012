"""Sessions between IRS and its peers, sans-IO: who may say what when, keepalive, silence.

    IrsLink (at IRS)      HELLO ── pop-hello ──▶ POP      ack, nack, telemetry, moved, move-refused
                                                          epoch-answer (also unasked), live,
                                                          audience, shed-done
                          HELLO ── origin-hello ─▶ ORIGIN  heartbeat
    PeerLink (at a PoP or origin) says hello at once; then snapshot, delta, migrate, drain, shed,
    pops, epoch-ask, memo, live-ask, reach (PoPs only), alive and goodbye come in.

A peer speaks at least once a second (telemetry, heartbeats, alive). After SILENCE_S_MAX it is lost;
but when our own timer fired late, the silence may be ours, and its count begins anew.
"""

import enum
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.media.epochs import EpochAnswer, EpochAsk, IrsMemo
from edged.media.live import LiveAsk, LiveReport
from edged.media.reach import Audience, Reach
from edged.media.routing import RoutingTable
from edged.wire.table import (
    FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
    PROTO,
    REASON_CHARS_MAX,
    Ack,
    Alive,
    Command,
    Delta,
    Drain,
    FrameReader,
    Goodbye,
    Heartbeat,
    Message,
    Migrate,
    Moved,
    MoveRefused,
    Nack,
    News,
    OriginHello,
    PopHello,
    Pops,
    Shed,
    ShedDone,
    Snapshot,
    Telemetry,
    encode_frame,
)
from edged.wire.table_push import TableHolder, TablePusher

HELLO_S_MAX = 5.0
ALIVE_INTERVAL_S = 1.0
SILENCE_S_MAX = 3 * ALIVE_INTERVAL_S
TIMER_LATE_S_MAX = 0.5  # Later than this, what the peer said may lie unread on our side.


class PeerLost(Struct, frozen=True):
    """The peer fell silent, or did not answer in time; the session is over."""

    reason: str


class TableAcked(Struct, frozen=True):
    """The PoP has put this table in force; `delay_s` after it was pushed."""

    table: RoutingTable
    delay_s: float


class TableRefused(Struct, frozen=True):
    """The PoP refused a push; its last good table is (epoch, version). A Snapshot follows."""

    epoch: int
    version: int
    reason: str


class TableArrived(Struct, frozen=True):
    """A new table is in force here."""

    table: RoutingTable


class PushRefused(Struct, frozen=True):
    """A push was not usable, and IRS has been told."""

    reason: str


class CommandRefused(Struct, frozen=True):
    """A message of an IRS that has no grant here; it is ignored."""

    message: str
    reason: str


class GrantBegan(Struct, frozen=True):
    """This session has the grant from now on, as it had not before; `irs` is whose run it is."""

    irs: str
    epoch: int


class GrantReleased(Struct, frozen=True):
    """An IRS has given back what was granted to it, or what it took for that."""


class Gate(Protocol):
    """Whether an IRS is believed, at a PoP that has several; each may raise RemoteProtocolError."""

    def answer(self, ask: EpochAsk, now: float) -> EpochAnswer:
        """Grant what is asked, or not."""

    def why_not(self, now: float, epoch: int | None = None) -> str:
        """Why nothing is taken from it, or no table of this epoch; "" if it is."""

    def keep(self, memo: IrsMemo, now: float) -> None:
        """Keep this for other IRSs."""


class State(enum.Enum):
    """Of a session at IRS."""

    HELLO = "hello"
    POP = "pop"
    ORIGIN = "origin"


_IRS_TRANSITIONS: dict[tuple[State, type[Message]], State] = {
    (State.HELLO, PopHello): State.POP,
    (State.HELLO, OriginHello): State.ORIGIN,
    (State.POP, Ack): State.POP,
    (State.POP, Nack): State.POP,
    (State.POP, Telemetry): State.POP,
    (State.POP, Moved): State.POP,
    (State.POP, MoveRefused): State.POP,
    (State.POP, ShedDone): State.POP,
    (State.POP, EpochAnswer): State.POP,
    (State.POP, LiveReport): State.POP,
    (State.POP, Audience): State.POP,
    (State.ORIGIN, Heartbeat): State.ORIGIN,
}

IrsEvent = (
    PopHello
    | OriginHello
    | Heartbeat
    | Telemetry
    | Moved
    | MoveRefused
    | ShedDone
    | EpochAnswer
    | LiveReport
    | Audience
    | TableAcked
    | TableRefused
    | PeerLost
)
PeerEvent = (
    TableArrived
    | PushRefused
    | Migrate
    | Drain
    | Shed
    | Pops
    | GrantBegan
    | GrantReleased
    | LiveAsk
    | Reach
    | CommandRefused
    | Goodbye
    | PeerLost
)


class _Timed:
    """What both ends share: frames in and out, and when the peer was last heard."""

    def __init__(self, now: float, *, first_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._reader = FrameReader(first_bytes_max)
        self._outbox = bytearray()
        self._heard_at = self._spoke_at = now
        self.messages_received = self.messages_sent = 0

    def data_to_send(self) -> bytes:
        """Take what is to be sent."""
        data, self._outbox = bytes(self._outbox), bytearray()
        return data

    def _send(self, message: Message, now: float) -> None:
        self._spoke_at = now
        self.messages_sent += 1
        self._outbox += encode_frame(message)

    def _read(self, data: bytes | bytearray, now: float) -> list[Message]:
        self._heard_at = now
        messages = self._reader.receive_data(data)
        self.messages_received += len(messages)
        return messages

    def _silent_at(self) -> float:
        return self._heard_at + SILENCE_S_MAX

    def _check_silence(self, now: float) -> list[PeerLost]:
        late_s = now - self._silent_at()
        if late_s < 0:
            return []
        if late_s > TIMER_LATE_S_MAX:
            self._heard_at = now
            return []
        return [PeerLost(f"silent for {now - self._heard_at:.1f} s")]


class IrsLink(_Timed):
    """A session as IRS sees it."""

    def __init__(
        self, *, now: float, epoch: Callable[[], int], entropy: Callable[[int], bytes]
    ) -> None:
        super().__init__(now, first_bytes_max=HELLO_BYTES_MAX)
        self.state = State.HELLO
        self.pusher: TablePusher | None = None
        self.twin = ""  # The address of ours by which the peer has a session already.
        self.paused = False  # The PoP has not granted us an epoch: it would take nothing.
        self._epoch = epoch
        self._entropy = entropy
        self._opened_at = now
        self._hello: PopHello | None = None

    def receive_data(self, data: bytes | bytearray, now: float) -> list[IrsEvent]:
        """Take what arrived; raises RemoteProtocolError, after which `refuse` says goodbye."""
        events: list[IrsEvent] = []
        for message in self._read(data, now):
            state = _IRS_TRANSITIONS.get((self.state, type(message)))
            if state is None:
                kind = type(message).__name__
                raise RemoteProtocolError(f"unexpected {kind} in state {self.state.value}")
            self.state = state
            match message:
                case PopHello() | OriginHello():
                    _check_proto(message.proto)
                    self._hello = message if isinstance(message, PopHello) else None
                    events.append(message)
                case Heartbeat() | Telemetry() | Moved() | MoveRefused():
                    events.append(message)
                case EpochAnswer() | LiveReport() | Audience() | ShedDone():
                    events.append(message)
                case Ack():
                    events += self._receive_ack(message, now)
                case Nack():
                    events += self._receive_nack(message, now)
        return events

    def start_pushing(self, known: RoutingTable | None) -> None:
        """Accept the PoP; `known` is the table that it last acked in an earlier session."""
        assert self._hello is not None, "only PoPs are pushed to"
        self.pusher = TablePusher(self._hello, known, self._entropy)

    def offer(self, table: RoutingTable, now: float) -> None:
        """Push this table as soon as the one under way has been answered."""
        assert self.pusher is not None, "start_pushing comes first"
        assert not self.paused, "who offers has been granted an epoch"
        self.pusher.offer(table)
        self._push(now)

    def tell_pops(self, pops: Pops, now: float) -> None:
        """Tell the PoP of the others; only if its hello wants that."""
        assert self._hello is not None, "only PoPs are told"
        assert self._hello.wants_pops, "an older PoP would close on it"
        self._send(pops, now)

    @property
    def grants_epochs(self) -> bool:
        """Whether the PoP is to be asked before it is pushed to."""
        return self._hello is not None and self._hello.grants_epochs

    def ask(self, ask: EpochAsk | IrsMemo, now: float) -> None:
        """Ask a PoP that grants epochs for one, or leave a memo with it."""
        assert self.grants_epochs, "an older PoP would close on it"
        self._send(ask, now)

    @property
    def tells_live(self) -> bool:
        """Whether the PoP can be asked what is live there."""
        return self._hello is not None and self._hello.tells_live

    def ask_live(self, ask: LiveAsk, now: float) -> None:
        """Ask a PoP what is live there."""
        assert self.tells_live, "an older PoP would close on it"
        self._send(ask, now)

    @property
    def reaches(self) -> bool:
        """Whether the PoP takes orders of what to hold, and from whom to take it."""
        return self._hello is not None and self._hello.reaches

    def tell_reach(self, reach: Reach, now: float) -> None:
        """Send a PoP its orders; only to one that listens to us."""
        assert self.reaches, "an older PoP would close on it"
        self._send(reach, now)

    def withdraw(self) -> None:
        """Forget what was offered and has not been pushed."""
        if self.pusher is not None:
            self.pusher.withdraw()

    def pause(self) -> None:
        """Push nothing until `resume`: what was offered and not pushed is forgotten."""
        self.paused = True
        self.withdraw()

    def resume(self) -> None:
        """Push again what will be offered."""
        self.paused = False

    @property
    def moves_streams(self) -> bool:
        """Whether the PoP does what a `command` says."""
        return self._hello is not None and self._hello.moves_streams

    def command(self, command: Migrate | Drain, now: float) -> bool:
        """Have the PoP move streams; False: it is too old, or would not listen to us."""
        assert self._hello is not None, "only PoPs have streams to move"
        if listens := self.moves_streams and not self.paused:
            self._send(command, now)
        return listens

    @property
    def sheds_streams(self) -> bool:
        """Whether the PoP does what a `shed` says."""
        return self._hello is not None and self._hello.sheds_streams

    def shed(self, command: Shed, now: float) -> bool:
        """Have the PoP end streams; False: it is too old, or would not listen to us."""
        if listens := self.sheds_streams and not self.paused:
            self._send(command, now)
        return listens

    def refuse(self, reason: str, now: float) -> None:
        """End the session with a reason; the shell flushes, then closes."""
        self._send(Goodbye(reason[:REASON_CHARS_MAX], self.twin), now)

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to do."""
        if self.state is State.HELLO:
            return self._opened_at + HELLO_S_MAX
        due = min(self._silent_at(), self._spoke_at + ALIVE_INTERVAL_S)
        return due if self.pusher is None else min(due, self.pusher.next_timeout())

    def handle_timeout(self, now: float) -> list[IrsEvent]:
        """Send what keeps the session alive, or find the peer lost."""
        if self.state is State.HELLO:
            late = now >= self._opened_at + HELLO_S_MAX
            return [PeerLost(f"no hello in {HELLO_S_MAX:g} s")] if late else []
        if lost := self._check_silence(now):
            return [*lost]
        if self.pusher is not None and now >= self.pusher.next_timeout():
            if now - self.pusher.next_timeout() > TIMER_LATE_S_MAX:
                self.pusher.restart_timer(now)
            else:
                return [PeerLost("did not answer a pushed table in time")]
        if now >= self._spoke_at + ALIVE_INTERVAL_S:
            self._send(Alive(self._epoch()), now)
        return []

    def _receive_ack(self, ack: Ack, now: float) -> list[IrsEvent]:
        if self.pusher is None:
            return []
        pushed_at = self.pusher.pushed_at
        table = self.pusher.receive_ack(ack)
        self._push(now)
        return [] if table is None else [TableAcked(table, now - pushed_at)]

    def _receive_nack(self, nack: Nack, now: float) -> list[IrsEvent]:
        if self.pusher is not None:
            self.pusher.receive_nack(nack)
            self._push(now)
        return [TableRefused(nack.epoch, nack.version, nack.reason)]

    def _push(self, now: float) -> None:
        assert self.pusher is not None
        push = None if self.paused else self.pusher.next_push(now)
        if push is not None:
            self._send(push, now)


class PeerLink(_Timed):
    """A session as a PoP (with a `holder`) or an origin sees it. Says hello at once."""

    def __init__(
        self,
        hello: PopHello | OriginHello,
        holder: TableHolder | None,
        now: float,
        gate: Gate | None = None,
    ) -> None:
        """`gate`: of a PoP that grants epochs."""
        super().__init__(now)
        assert (holder is not None) == isinstance(hello, PopHello), "PoPs alone hold tables"
        self._holder, self._gate = holder, gate
        self._tells_live = isinstance(hello, PopHello) and hello.tells_live
        self._reaches = isinstance(hello, PopHello) and hello.reaches
        self._sheds = isinstance(hello, PopHello) and hello.sheds_streams
        self._send(hello, now)

    def receive_data(self, data: bytes | bytearray, now: float) -> list[PeerEvent]:
        """Take what arrived; raises RemoteProtocolError."""
        events: list[PeerEvent] = []
        for message in self._read(data, now):
            match message:
                case Alive():
                    pass
                case Goodbye():
                    events.append(message)
                case Snapshot() | Delta() if self._holder is not None:
                    events.append(self._receive_push(message, self._holder, now))
                case Migrate() | Drain() | Shed() | Pops() | Reach() if self._obeys(message):
                    events.append(self._refuse(message, now) or message)
                case LiveAsk() if self._tells_live:
                    events.append(message)
                case EpochAsk() if self._gate is not None:
                    events += self._grant(message, self._gate, now)
                case IrsMemo() if self._gate is not None:
                    if refused := self._refuse(message, now):
                        events.append(refused)
                    else:
                        self._gate.keep(message, now)
                case _:
                    raise RemoteProtocolError(f"unexpected {type(message).__name__} from irs")
        return events

    def send(
        self,
        message: Heartbeat | Telemetry | News | EpochAnswer | LiveReport | Audience,
        now: float,
    ) -> None:
        """Queue what this peer tells."""
        self._send(message, now)

    def next_timeout(self) -> float:
        """When the silence is too long."""
        return self._silent_at()

    def handle_timeout(self, now: float) -> list[PeerEvent]:
        """Find IRS lost, if it is."""
        return [*self._check_silence(now)]

    def _receive_push(
        self, push: Snapshot | Delta, holder: TableHolder, now: float
    ) -> TableArrived | PushRefused:
        epoch = push.table.epoch if isinstance(push, Snapshot) else push.epoch
        reason = "" if self._gate is None else self._gate.why_not(now, epoch)
        answer = holder.refuse(push, reason) if reason else holder.receive(push)
        self._send(answer, now)
        if isinstance(answer, Nack):
            return PushRefused(answer.reason)
        assert holder.table is not None
        return TableArrived(holder.table)

    def _grant(self, ask: EpochAsk, gate: Gate, now: float) -> list[GrantBegan | GrantReleased]:
        answer = gate.answer(ask, now)
        self._send(answer, now)
        if ask.kind == "release":
            return [GrantReleased()]
        return [GrantBegan(ask.irs, ask.epoch)] if answer.begins else []

    def _obeys(self, message: Command | Pops | Reach) -> bool:
        known = {Reach: self._reaches, Shed: self._sheds}.get(type(message), True)
        return known and self._holder is not None

    def _refuse(self, message: Message, now: float) -> CommandRefused | None:
        reason = "" if self._gate is None else self._gate.why_not(now)
        if isinstance(message, Shed) and not reason:
            reason = self._why_old(message.epoch, now)
        return CommandRefused(type(message).__name__, reason) if reason else None

    def _why_old(self, epoch: int, now: float) -> str:
        """Why an order of an epoch is none to end streams by; raises RemoteProtocolError."""
        if self._gate is not None:
            return self._gate.why_not(now, epoch)
        table = None if self._holder is None else self._holder.table
        if table is not None and epoch < table.epoch:
            return f"it is of epoch {epoch}, the table of {table.epoch}"
        return ""


def _check_proto(proto: int) -> None:
    if proto != PROTO:
        raise RemoteProtocolError(f"protocol {proto} is not spoken here, this is {PROTO}")
