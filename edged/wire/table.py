"""What IRS, PoPs and origins say to each other, and the table file; sans-IO.

On TCP: frames of u32 length (big-endian) + one msgpack map, tagged by `type`:

    PoP    -> IRS  pop-hello, ack, nack, telemetry, moved
    IRS    -> PoP  snapshot, delta, migrate, drain, pops, alive, goodbye
    PoP    -> IRS  move-refused, to one that has sent a migrate or a drain
    IRS    -> PoP  epoch-ask, memo; PoP -> IRS  epoch-answer: if the PoP's hello says so
    IRS    -> PoP  live-ask; PoP -> IRS  live: if the PoP's hello says so
    IRS    -> PoP  reach; PoP -> IRS  audience, to one that has sent a reach: if its hello says so
    IRS    -> PoP  shed; PoP -> IRS  shed-done, to each that ends something: if its hello says so
    origin -> IRS  origin-hello, heartbeat
    IRS    -> origin  alive, goodbye

On disk (the last good table of a PoP): magic "EDGT", u16 format, u32 CRC-32 of the body, u32 length
of the body, body = msgpack of RoutingTable.

A table's CRC is CRC-32 of its msgpack, which is deterministic: Structs keep their order.
"""

import struct
import zlib
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from edged.errors import RemoteProtocolError
from edged.media.epochs import EpochAnswer, EpochAsk, IrsMemo
from edged.media.live import LiveAsk, LiveReport
from edged.media.reach import Audience, Reach
from edged.media.routing import (
    ORIGINS_MAX,
    RULES_MAX,
    Address,
    ClassLabel,
    Count,
    Name,
    OriginReport,
    OriginRow,
    PopRow,
    PopTelemetry,
    RoutingTable,
    Rule,
    Seconds,
    Text,
    Unix,
)

PROTO = 1
HEADER_BYTES = 4
HELLO_BYTES_MAX = 4096  # Names and an address; before it we do not know who makes us wait for it.
FRAME_BYTES_MAX = 2**20  # A snapshot with the most rules and rows that configuration allows.
POPS_MAX = 512  # Shards of the network; a row is about 100 bytes.
MOVES_MAX = 1000  # Of one Migrate: a second's worth at the rate that cleared a cut link.
PICKS_MAX = 1000  # Of one Migrate: from and to every origin, by class, is more than a plan has.
MOVES_PER_S = 20.0  # Of a drain whose IRS says nothing of it.
SHED_CHANNELS_MAX = 3  # Named of those that ended together, as the page shows; the log has all.
REASON_CHARS_MAX = 200

FILE_MAGIC = b"EDGT"
FILE_FORMAT = 1
_FILE_HEADER = struct.Struct(">4sHII")
FILE_BYTES_MAX = _FILE_HEADER.size + FRAME_BYTES_MAX

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Crc = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Reason = Annotated[str, Meta(max_length=REASON_CHARS_MAX)]


class PopHello(Struct, frozen=True, tag="pop-hello", kw_only=True):
    """First from a PoP: who it is, and the table it has (all 0: none)."""

    proto: Number = PROTO
    pop: Name
    shard: Annotated[int, Meta(ge=0, le=4095)] = 0
    epoch: Number = 0
    version: Number = 0
    crc: Crc = 0
    wants_pops: bool = False  # It knows the message `pops`; those before it would close on one.
    wants_kept: bool = False  # It knows `kept` of a table; those before it compute another CRC.
    rules_proto: Number = 1  # As RULES_PROTO of the PoP; it refuses tables with other keys.
    moves_streams: bool = False  # It does what `migrate` and `drain` say; older ones only read it.
    tells_live: bool = False  # It answers a `live-ask`; those before it would close on one.
    reaches: bool = False  # It takes the orders of a `reach`; those before it would close on one.
    sheds_streams: bool = False  # It obeys a `shed`; those before it would close on one.
    grants_epochs: bool = False  # It has more IRSs than one, and takes tables of whom it granted.
    by: Address = ""  # As which of them it reaches us; "": it names one, or is too old to say.

    @property
    def key(self) -> str:
        """Name of the shard, to which leases are given."""
        return f"{self.pop}/{self.shard}"


class OriginHello(Struct, frozen=True, tag="origin-hello", kw_only=True):
    """First from an origin: who it is, and where PoPs reach its backbone listener."""

    proto: Number = PROTO
    origin: Name
    incarnation: Number
    address: Address
    domain: Annotated[str, Meta(max_length=64)] = ""
    by: Address = ""  # As of PopHello.


class Heartbeat(Struct, frozen=True, tag="heartbeat"):
    """10 per second from an origin, sent by the application so that a frozen one shows."""

    report: OriginReport


class Snapshot(Struct, frozen=True, tag="snapshot", kw_only=True):
    """A whole table."""

    nonce: Number
    crc: Crc
    table: RoutingTable


class Delta(Struct, frozen=True, tag="delta", kw_only=True):
    """What has changed since `from_version`; also renews leases when nothing else has."""

    nonce: Number
    epoch: Number
    from_version: Number
    version: Number
    issued: Unix
    ttl_s: Seconds
    lease_ttl_s: Seconds
    changed: Annotated[tuple[OriginRow, ...], Meta(max_length=ORIGINS_MAX)] = ()
    removed: Annotated[tuple[Name, ...], Meta(max_length=ORIGINS_MAX)] = ()
    rules: Annotated[tuple[Rule, ...], Meta(max_length=RULES_MAX)] | None = None  # None: as before.
    crc_after: Crc
    # Whole; not set: as before.
    kept: Annotated[dict[Name, Count], Meta(max_length=ORIGINS_MAX)] | UnsetType = UNSET


class Ack(Struct, frozen=True, tag="ack", kw_only=True):
    """The push with this nonce is in force."""

    epoch: Number
    version: Number
    nonce: Number
    crc: Crc


class Nack(Struct, frozen=True, tag="nack", kw_only=True):
    """The push with this nonce was not usable; the last good table is (epoch, version)."""

    epoch: Number
    version: Number
    nonce: Number
    reason: Reason


class Telemetry(Struct, frozen=True, tag="telemetry"):
    """Once a second from a PoP; also proves that it lives."""

    told: PopTelemetry


class Moved(Struct, frozen=True, tag="moved", kw_only=True):
    """A PoP has re-homed a live stream: on the word of IRS, or after a failure."""

    channel: Text
    publication: Number
    home_epoch: Number
    from_origin: Name
    to_origin: Name
    unit_seq: Number  # The first unit that the new home got.
    why: Reason = ""  # "migrate", "drain", or what was wrong with the old home.
    number: Number = 0  # Of the Migrate; 0: of none.


class MoveRefused(Struct, frozen=True, tag="move-refused", kw_only=True):
    """A stream stays where it is, undisturbed, though IRS wanted it elsewhere, and why.

    Of a drain it is told once of each stream, which is tried again. `channel` "": of so many
    (`count`) of a `Pick` no stream was moved by the deadline; `class_` is its class, "" of a PoP
    that is too old to say.
    """

    number: Number  # Of the Migrate; 0: of a drain.
    channel: Text
    from_origin: Name
    to_origin: Annotated[str, Meta(max_length=63)] = ""  # "": wherever there is room.
    count: Number = 1
    reason: Reason
    class_: ClassLabel | Literal[""] = ""


class Move(Struct, frozen=True, array_like=True):
    """One stream that IRS wants elsewhere."""

    channel: Text
    from_origin: Name
    to_origin: Name


class Pick(Struct, frozen=True, array_like=True):
    """So many streams of a class that IRS wants elsewhere: which, the PoP chooses."""

    from_origin: Name
    to_origin: Name
    class_: ClassLabel
    count: Annotated[int, Meta(ge=1, le=2**31)]


class Migrate(Struct, frozen=True, tag="migrate", kw_only=True):
    """Re-home these live streams, at most `budget_per_s` of them a second."""

    moves: Annotated[tuple[Move, ...], Meta(max_length=MOVES_MAX)]
    deadline: Unix  # What has not begun by then stays.
    budget_per_s: Annotated[float, Meta(gt=0, le=1e6)]
    picks: Annotated[tuple[Pick, ...], Meta(max_length=PICKS_MAX)] = ()
    number: Number = 0  # Rises within an epoch; answers name it.
    left_s: Seconds = 0.0  # Until the deadline, which the PoP counts from: clocks differ.


class Drain(Struct, frozen=True, tag="drain", kw_only=True):
    """Take every stream off this origin by then, and send nothing new there, until it is undone.

    A PoP is told of all drains at the beginning of a session, before its first table: one of which
    it is not told then is undone, too.
    """

    origin: Name
    until: Unix
    undone: bool = False
    left_s: Seconds = 0.0  # As of Migrate.
    budget_per_s: Annotated[float, Meta(gt=0, le=1e6)] = MOVES_PER_S


class ShedPick(Struct, frozen=True, array_like=True):
    """So many streams of a class at an origin that have to go: which, the PoP chooses.

    `there`: how many there were by its telemetry. It leaves as many as this is more than `count`:
    what has gone by itself, or by another order, is not ended once more.
    """

    origin: Name
    class_: ClassLabel
    count: Annotated[int, Meta(ge=1, le=2**31)]
    there: Count
    link: Text  # Which is full.


class FullWay(Struct, frozen=True, array_like=True):
    """The way to an origin crosses a full link, over which streams were shed up to this class."""

    origin: Name
    class_: ClassLabel
    link: Text


class Shed(Struct, frozen=True, tag="shed", kw_only=True):
    """End these live streams now, and let new ones of their class over full links by lease alone.

    Obeyed once: only if (epoch, number) is newer than that of every one before.
    """

    epoch: Number
    number: Number  # Rises within an epoch.
    picks: Annotated[tuple[ShedPick, ...], Meta(max_length=PICKS_MAX)] = ()
    full: Annotated[tuple[FullWay, ...], Meta(max_length=ORIGINS_MAX)] = ()  # All that there are.
    full_s: Seconds = 0.0  # So long they are believed without being told again.


class ShedDone(Struct, frozen=True, tag="shed-done", kw_only=True):
    """What came of one pick of a `shed`: fewer ended where fewer were there by then."""

    epoch: Number
    number: Number
    origin: Name
    class_: ClassLabel
    link: Text
    wanted: Count
    ended: Count
    channels: Annotated[tuple[Text, ...], Meta(max_length=SHED_CHANNELS_MAX)] = ()  # The first.


class PopKey(Struct, frozen=True, array_like=True):
    """Which PoP shard."""

    pop: Name
    shard: Annotated[int, Meta(ge=0, le=4095)]


class Pops(Struct, frozen=True, tag="pops", kw_only=True):
    """Once a second: which PoPs there are for publishers, and what changed of them since.

    It is no part of the table, whose CRC covers all that it has: older peers could not agree on it.
    """

    whole: bool  # The first of a session: what was told before holds no more.
    changed: Annotated[tuple[PopRow, ...], Meta(max_length=POPS_MAX)] = ()
    removed: Annotated[tuple[PopKey, ...], Meta(max_length=POPS_MAX)] = ()


class Alive(Struct, frozen=True, tag="alive"):
    """Once a second from IRS, so that a dead path shows."""

    epoch: Number


class Goodbye(Struct, frozen=True, tag="goodbye"):
    """The last message of a session that IRS ends, and why."""

    reason: Reason
    twin: Address = ""  # The peer has a session by this address of ours already.


Message = (
    PopHello
    | OriginHello
    | Heartbeat
    | Snapshot
    | Delta
    | Ack
    | Nack
    | Telemetry
    | Moved
    | MoveRefused
    | Migrate
    | Drain
    | Shed
    | ShedDone
    | Pops
    | EpochAsk
    | EpochAnswer
    | IrsMemo
    | LiveAsk
    | LiveReport
    | Reach
    | Audience
    | Alive
    | Goodbye
)

Command = Migrate | Drain | Shed  # What IRS wants of live streams.
News = Moved | MoveRefused | ShedDone  # What came of it.

_encoder = msgspec.msgpack.Encoder()
_message_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_table_decoder = msgspec.msgpack.Decoder(RoutingTable)


def encode_frame(message: Message) -> bytes:
    """Make one frame."""
    body = _encoder.encode(message)
    assert len(body) <= FRAME_BYTES_MAX, "configuration must have bounded the table"
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def encoded_bytes(item: Struct) -> int:
    """How much of a frame it takes."""
    return len(_encoder.encode(item))


class FrameReader:
    """Cuts messages out of a byte stream; holds one unfinished frame at most.

    The first frame may be limited more tightly: it comes from a stranger.
    """

    def __init__(self, first_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._inbox = bytearray()
        self._bytes_max = first_bytes_max

    def receive_data(self, data: bytes | bytearray) -> list[Message]:
        """Return the messages that are now whole; raises RemoteProtocolError."""
        self._inbox += data
        messages: list[Message] = []
        start = 0
        while len(self._inbox) - start >= HEADER_BYTES:
            size = int.from_bytes(self._inbox[start : start + HEADER_BYTES], "big")
            if size > self._bytes_max:
                raise RemoteProtocolError(f"irs frame of {size} bytes exceeds {self._bytes_max}")
            end = start + HEADER_BYTES + size
            if len(self._inbox) < end:
                break
            messages.append(_decode_message(self._inbox[start + HEADER_BYTES : end]))
            self._bytes_max = FRAME_BYTES_MAX
            start = end
        del self._inbox[:start]
        return messages


def _decode_message(body: bytes | bytearray) -> Message:
    try:
        return _message_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"irs frame of {len(body)} bytes: {error}") from error


def table_crc(table: RoutingTable) -> int:
    """CRC-32 of the table as both ends must have it."""
    return zlib.crc32(_encoder.encode(table))


def _in_order(kept: dict[str, int] | UnsetType) -> list[tuple[str, int]] | UnsetType:
    """Their order counts in the CRC."""
    return UNSET if kept is UNSET else list(kept.items())


def make_delta(before: RoutingTable, after: RoutingTable, nonce: int) -> Delta:
    """Say what turns `before` into `after`; both of one epoch."""
    assert before.epoch == after.epoch, "tables of different epochs have no delta"
    old = {row.origin: row for row in before.rows}
    new = {row.origin for row in after.rows}
    return Delta(
        nonce=nonce,
        epoch=after.epoch,
        from_version=before.version,
        version=after.version,
        issued=after.issued,
        ttl_s=after.ttl_s,
        lease_ttl_s=after.lease_ttl_s,
        changed=tuple(row for row in after.rows if old.get(row.origin) != row),
        removed=tuple(name for name in old if name not in new),
        rules=None if before.rules == after.rules else after.rules,
        crc_after=table_crc(after),
        kept=UNSET if _in_order(before.kept) == _in_order(after.kept) else after.kept,
    )


def apply_delta(table: RoutingTable, delta: Delta) -> RoutingTable:
    """Return the table after the delta; whether it is the one meant, its CRC tells."""
    rows = {row.origin: row for row in table.rows}
    for name in delta.removed:
        rows.pop(name, None)
    rows.update({row.origin: row for row in delta.changed})
    return RoutingTable(
        epoch=delta.epoch,
        version=delta.version,
        issued=delta.issued,
        ttl_s=delta.ttl_s,
        lease_ttl_s=delta.lease_ttl_s,
        rows=tuple(rows[name] for name in sorted(rows)),
        rules=table.rules if delta.rules is None else delta.rules,
        kept=table.kept if delta.kept is UNSET else delta.kept,
    )


def encode_file(table: RoutingTable) -> bytes:
    """Make the content of the table file."""
    body = _encoder.encode(table)
    return _FILE_HEADER.pack(FILE_MAGIC, FILE_FORMAT, zlib.crc32(body), len(body)) + body


def decode_file(data: bytes) -> RoutingTable:
    """Read a table file; raises RemoteProtocolError saying what is wrong with it."""
    if len(data) < _FILE_HEADER.size:
        raise RemoteProtocolError(
            f"table file of {len(data)} bytes is cut short: its header has {_FILE_HEADER.size}"
        )
    magic, file_format, crc, size = _FILE_HEADER.unpack_from(data)
    if magic != FILE_MAGIC:
        raise RemoteProtocolError(f"no table file: it begins with {magic!r}, not {FILE_MAGIC!r}")
    if file_format != FILE_FORMAT:
        raise RemoteProtocolError(f"table file of format {file_format}, known is {FILE_FORMAT}")
    body = data[_FILE_HEADER.size :]
    if len(body) != size:
        raise RemoteProtocolError(f"table file holds {len(body)} bytes of table, not {size}")
    if zlib.crc32(body) != crc:
        raise RemoteProtocolError(
            f"table file is corrupt: crc {zlib.crc32(body):08x}, not {crc:08x}"
        )
    try:
        return _table_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"table file: {error}") from error
