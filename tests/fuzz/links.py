"""Fuzz target of the backbone's wire core alone: one end of a session, whole and in pieces."""

from collections.abc import Iterator, Sequence

import msgspec

from edged.errors import EdgedError, PeerLostError
from edged.runtime.pump import RECEIVE_BYTES
from edged.wire.backbone import frames as f
from edged.wire.backbone import messages as b
from edged.wire.backbone.events import EventReceived, Expected, MessageReceived, UnitsReceived
from edged.wire.backbone.link import BackboneLink, Event
from tests.fuzz.network import EVENTS, encoded, hello, opened, origin_messages, pop_messages
from tests.fuzz.script import Script, Target, block, in_pieces

MEDIA = ("pop", "fra1"), ("origin", "ams")
PING = b"\0" * 8
STEP_RAW, STEP_FRAME, STEP_MESSAGE, STEP_UNIT, STEP_EVENT, STEP_FRAGMENT = range(6)
KINDS = (1, 2, 3, 4, 5, 0x10, 0x11, 0x12, 0, 0xFF)
HEARD_BYTES_MAX = 64 * 2**10  # What is held of a few KiB of input, with room.


def written(script: Script, messages: Sequence[b.Message]) -> bytes:
    """What the peer writes by the script: right frames, spoilt ones, and anything."""
    wire = bytearray()
    while not script.done:
        choice = script.number()
        step, flags = choice % 6, choice // 6
        if step == STEP_RAW:
            wire += script.block()
        elif step == STEP_FRAME:
            wire += _frame(KINDS[flags % len(KINDS)], script.block())
        elif step == STEP_MESSAGE:
            body = bytearray(msgspec.msgpack.encode(messages[flags % len(messages)]))
            for _ in range(script.below(3)):
                at = script.number(2) % (len(body) or 1)
                body[at : at + script.below(3)] = script.take(script.below(4))
            wire += _frame(f.KIND_MESSAGE, bytes(body))
        elif step == STEP_UNIT:
            wire += _unit(script, 1 + flags % 4, whole=flags < 32)
        elif step == STEP_EVENT:
            wire += _event(script, 1 + flags % 4)
        else:
            piece = script.block()
            head = f.FRAGMENT_HEADER.pack(4 + len(piece), f.KIND_FRAGMENT, 1 + flags % 4)
            wire += head + piece
    return bytes(wire)


def _frame(kind: int, body: bytes) -> bytes:
    return f._FRAME_HEADER.pack(len(body), kind) + body


def _unit(script: Script, no: int, *, whole: bool) -> bytes:
    seq, body = script.number(), script.block()
    size = len(body) if whole else len(body) + script.number(2)
    length = f.UNIT_HEADER_BYTES - f.FRAME_HEADER_BYTES + len(body)
    fields = (length, f.KIND_UNIT, seq & 7, 1 + (seq & 1), no, script.below(2), size, seq)
    return f.UNIT_HEADER.pack(*fields, seq * 1500, seq * 1500, 10**15 + seq, 0) + body


def _event(script: Script, no: int) -> bytes:
    code, plain, body = encoded(EVENTS[script.below(len(EVENTS))])
    meta, change = bytearray(plain), script.number()
    if change:
        meta[script.below(len(meta))] ^= change
    length = f.EVENT_HEADER_BYTES - f.FRAME_HEADER_BYTES + len(meta) + len(body)
    sizes = (code, len(meta), no, len(body) + script.below(3))
    return f.EVENT_HEADER.pack(length, f.KIND_EVENT, *sizes) + bytes(meta) + body


PIECES_MAX = 8192  # Else a long input's time is that of its cutting.


def run_link(data: bytes) -> int:
    """Either end hears the same bytes whole and in pieces, understands the same, and holds little.

    The first byte says which end and whether the peer begins with a right hello; the second, how
    the bytes are cut.
    """
    script = Script(data)
    flags, size = script.number(), 1 + script.number() % 128
    client, control = bool(flags & 1), bool(flags & 2)
    wire = written(script, origin_messages() if client else pop_messages())
    if flags & 4:
        wire = _peer_hello(client=client, control=control) + wire
    whole = Heard(client=client, control=control)
    split = Heard(client=client, control=control)
    for piece in in_pieces(wire, RECEIVE_BYTES):  # As the pump reads at most: "at once" is one go.
        whole.hear(piece)
    for piece in in_pieces(wire, max(size, len(wire) // PIECES_MAX)):
        split.hear(piece)
    assert whole.told == split.told, "what is heard does not depend on how TCP cut it"
    return whole.close()


class Heard:
    """One end, and all that it understood, in each stream's own order."""

    def __init__(self, *, client: bool, control: bool) -> None:
        (our, peer) = MEDIA if client else MEDIA[::-1]
        purpose: b.Purpose = "control" if control else "media"
        ours = msgspec.structs.replace(hello(*our, purpose), instance=77)
        expected = Expected(roles=frozenset({peer[0]}), name=peer[1] if client else None)
        self.link = BackboneLink(ours, expected, client=client, now=1.0)
        self.told: dict[str, list[object]] = {}
        self.out = 0
        self._over = False

    def hear(self, data: bytes) -> None:
        """Take bytes, until the session is refused."""
        if self._over:
            return
        try:
            events = self.link.receive_data(data, 1.0)
        except EdgedError as error:
            self._note(self.link.take_events())
            self._tell("", f"{type(error).__name__}: {error}")
            self.link.refuse(error)
            self._over = True
            return
        self._note(events)
        assert self.link.next_timeout() > 1.0, "a timeout is never in the past"
        self._collect()

    def close(self) -> int:
        """Let time pass until the peer is lost; how much was said."""
        held = self.link.receiver.statistics().partial_bytes
        assert held < HEARD_BYTES_MAX, f"{held} bytes are held"
        now = 1.0
        for _ in range(0 if self._over else 50):
            now = max(self.link.next_timeout(), now + 0.01)
            try:
                self.link.handle_timeout(now)
            except PeerLostError:
                break
            self._collect()
        self._collect()
        return self.out

    def _collect(self) -> None:
        self.out += sum(map(len, self.link.data_to_send(2**20)))

    def _note(self, events: Sequence[Event]) -> None:
        for event in events:
            for place, what in _places(event):
                self._tell(place, what)

    def _tell(self, place: str, what: object) -> None:
        self.told.setdefault(place, []).append(repr(what))


def _places(event: Event) -> Iterator[tuple[str, object]]:
    """Units come in batches that depend on the reads; their order in a stream does not."""
    if isinstance(event, UnitsReceived):
        yield from ((f"units {event.stream_no}", unit) for unit in event.units)
    elif isinstance(event, EventReceived):
        yield f"events {event.stream_no}", event.event
    else:
        yield "", event.message if isinstance(event, MessageReceived) else event


def _peer_hello(*, client: bool, control: bool) -> bytes:
    who = MEDIA[1] if client else MEDIA[0]
    return b.make_hello_frame(hello(*who, "control" if control else "media"))


def link_seeds() -> Sequence[bytes]:
    """Sessions of each kind with all messages; streams of units and events; pieces; credit."""

    def step(kind: int, flags: int = 0) -> bytes:
        return bytes([kind + 6 * flags])

    counts = {0: len(pop_messages()), 1: len(origin_messages())}
    seeds = []
    for flags in range(8):
        count = min(counts[flags & 1], 42)
        seeds.append(
            bytes([flags, 6]) + b"".join(step(STEP_MESSAGE, n) + b"\0" for n in range(count))
        )
    open_it = step(STEP_MESSAGE) + b"\0"
    units = b"".join(step(STEP_UNIT) + bytes([n]) + block(bytes(9)) + b"\0" for n in range(12))
    parts = step(STEP_UNIT, 32) + b"\0" + block(bytes(9)) + b"\0\x0f\0"
    more = (step(STEP_FRAGMENT) + block(bytes(5))) * 3
    events = b"".join(step(STEP_EVENT) + bytes([n, 0, 0]) for n in range(8))
    credit = step(STEP_FRAME, 4) + block(bytes(8) + b"\1\0\0\0" + b"\0\0\0\1" + b"\xff" * 8)
    ping = step(STEP_FRAME, 2) + block(PING) + step(STEP_FRAME, 3) + block(b"\0" * 7 + b"\1")
    server = open_it + units + parts + more + credit + ping
    at_client = step(STEP_MESSAGE, 9) + b"\0" + events + step(STEP_MESSAGE, 11) + b"\0" + credit
    raw = b.make_message_frame(opened(1)) + _frame(f.KIND_PING, PING)
    return [
        *seeds,
        b"\4\x40" + server,
        b"\4\0" + server,
        b"\5\x20" + at_client,
        b"\4\x09" + step(STEP_RAW) + block(raw[:239]),
        b"\0\x09" + step(STEP_RAW) + block(_peer_hello(client=False, control=False)),
    ]


TARGETS = [Target(name="link", run=run_link, seeds=link_seeds)]
