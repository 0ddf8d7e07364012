"""Fuzz targets between hosts: backbone sessions at both ends, IRS sessions, tables, splices."""

import contextlib
import functools
import random
import zlib
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, cast
from unittest import mock

import msgspec

from edged.backbone.local_end import LocalEnd
from edged.backbone.receiver import HEARTBEAT_TICKS
from edged.backbone.segment_fetches import SegmentKey
from edged.backbone.sender import ORIGIN_ROLES
from edged.backbone.session import BackboneSession
from edged.config import Config
from edged.errors import EdgedError
from edged.irs.collectors import Collectors
from edged.media.access_unit import AccessUnit
from edged.media.parts import (
    InitSegment,
    ListedSegment,
    PackagedEvent,
    Rendition,
    SegmentEnded,
    SegmentPiece,
    SegmentsListed,
    StreamEnded,
)
from edged.media.routing import (
    OriginReport,
    OriginRow,
    OriginState,
    PopTelemetry,
    ReportedState,
    RouteRequest,
    RoutingTable,
    Rule,
)
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Kind
from edged.origin.service import OriginConfig, OriginService
from edged.playback.hls import HlsService
from edged.policy.planner import plan_leases
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_origin, explain_origin
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.segmenter import Segmenter
from edged.policy.splice import read_state, save
from edged.roles import origin as origin_role
from edged.roles.origin import OriginRole
from edged.roles.uplinks import Uplinks
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.metrics import Metrics
from edged.wire import table as t
from edged.wire.backbone import frames as f
from edged.wire.backbone import messages as b
from edged.wire.irs_link import IrsLink, PeerLink, TableAcked
from edged.wire.table_push import TableHolder
from tests.fuzz import epochs
from tests.fuzz.fakes import NoNursery, StillConnection, StillPump
from tests.fuzz.script import Script, Target, block, in_pieces
from tests.policy.synthetic import (
    CmafWriter,
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)
from tests.wire.backbone.builders import make_part
from tests.wire.rtmp.peers import AAC, H264

if TYPE_CHECKING:
    import trio

    from edged.runtime.connection import Connection
    from edged.runtime.pump import Pump

INSTANCE = 5
STREAM = StreamId("alice", 7, 1)
NEWER = StreamId("alice", 8, 1)
REPORT = OriginReport("ams", INSTANCE, ReportedState.UP, 10, (5, 5, 5), 1.0)
ENTRY = b.DirectoryEntry(stream_id=STREAM, renditions=2)
RENDITION = Rendition(
    name="v0",
    kind=Kind.VIDEO,
    timescale=90_000,
    codec_string="avc1.64001f",
    part_target_us=200_000,
    target_duration_s=4,
)
PIECE = bytes(48)
LISTED = tuple(ListedSegment(msn, 180_000, 10**15 + msn, 2 * len(PIECE)) for msn in range(4))
EVENTS: list[PackagedEvent | SegmentPiece] = [
    RENDITION,
    InitSegment(rendition="v0", digest="0" * 16, data=b"init"),
    make_part(0, 0),
    make_part(0, 1),
    SegmentEnded(rendition="v0", msn=0, parts=2, duration=200),
    make_part(1, 0),
    msgspec.structs.replace(RENDITION, name="a0", kind=Kind.AUDIO, timescale=48_000),
    StreamEnded(reason="over"),
    SegmentsListed(rendition="v0", oldest_msn=0, init_digest="0" * 16, segments=LISTED),
    SegmentPiece(PIECE),
]


def encoded(event: PackagedEvent | SegmentPiece) -> tuple[int, bytes, bytes]:
    """Its code, meta and body, as its side sends them."""
    if isinstance(event, SegmentPiece):
        return b.CODE_PIECE, b.PIECE_META, event.payload
    made = b.encode_event(event)
    return made.code, made.meta, made.body


def hello(role: str, name: str, purpose: b.Purpose) -> b.Hello:
    """What a peer says first."""
    return b.Hello(
        proto=b.PROTO,
        role=role,
        name=name,
        shard=0,
        instance=INSTANCE if role == "origin" else 9,
        purpose=purpose,
        priority=PriorityClass.BASIC if purpose == "media" else PriorityClass.PARTNER,
        features=b.FEATURES,
    )


def opened(no: int, stream_id: StreamId = STREAM, **fields: object) -> b.StreamOpened:
    """An offer of a stream."""
    values: dict[str, object] = {
        "stream_no": no,
        "stream_id": stream_id,
        "grant": Grant(channel=stream_id.channel),
        "tracks": [H264, AAC],
        "first_seq": 0,
    }
    return b.StreamOpened(**(values | fields))  # type: ignore[arg-type]


@functools.cache
def splice() -> bytes:
    """What an origin hands on after three segments."""
    tracks = (video_track(Fraction(30)), audio_track())
    pictures = video_units(video_times(Fraction(30), 7), 2)
    units = in_order((90_000, pictures), (48_000, audio_units(7)))
    segmenter = Segmenter(SegmenterConfig(), CmafWriter())
    for track in tracks:
        segmenter.add_track(track)
    for unit in units:
        unit.payload = b"x" * 20
        segmenter.add_unit(unit)
    return save(segmenter)


@functools.cache
def pop_messages() -> list[b.Message]:
    """What a PoP may say, and what it may not."""
    return [
        opened(1),
        opened(2, StreamId("bob", 3, 1)),
        opened(3, NEWER),
        opened(4, StreamId("carol", 7, 2), splice=splice(), packaged_seq=100),
        opened(5, StreamId("alice", 8, 2), takes_over=True),
        b.StreamClosed(1, "over", True),
        b.StreamClosed(1, "elsewhere", False),
        b.StreamWaiting(1, True),
        b.TrackChanged(1, msgspec.structs.replace(H264, config_id=1)),
        b.TrackChanged(1, msgspec.structs.replace(AAC, track_id=7)),
        b.StreamDescribed(1, "title", "category", ("a",)),
        b.SubscribeParts(1, "alice"),
        b.SubscribeUnits(2, "alice"),
        b.Unsubscribe(1),
        b.StreamAccepted(2, -1),
        b.StreamRefused(2, "full", "no room", None),
        b.KeyFrameWanted(2, 1),
        b.DirectoryWanted(0),
        b.DescriptionWanted("alice", "title", None, None),
        b.Heartbeat(REPORT),
        b.SessionClosed("drain", "leaving"),
        b.SegmentWanted(1, STREAM, "v0", 0),
        b.SegmentWanted(2, NEWER, "a0", 1),
    ]


@functools.cache
def origin_messages() -> list[b.Message]:
    """What an origin may say, and what it may not."""
    mark = b.RenditionAck("v0", 3, 0, 100, 0, "0" * 16)
    return [
        b.StreamAccepted(1, -1),
        b.StreamAccepted(1, 5),
        b.StreamRefused(1, "fenced", "newer", NEWER),
        b.StreamRefused(1, "full", "no slot", None),
        b.UnitsAcked([b.StreamAck(1, 1, 20, 10, [mark], splice())]),
        b.UnitsAcked([b.StreamAck(1, 1, 40, -1)]),
        b.KeyFrameWanted(1, 1),
        b.SubscriptionAccepted(1),
        b.SubscriptionRefused(1, "not_live", "gone"),
        b.EventsOpened(1, 1, STREAM, 4),
        b.EventsOpened(2, 1, NEWER, 0),
        opened(3, STREAM, sub_no=2),
        b.StreamClosed(1, "over", True),
        b.StreamClosed(3, "moved", False),
        b.TrackChanged(3, msgspec.structs.replace(H264, config_id=1)),
        b.Heartbeat(REPORT),
        b.DirectoryDelta(
            origin="ams",
            incarnation=INSTANCE,
            version=2,
            from_version=0,
            changed=[ENTRY],
            removed=[],
        ),
        b.DirectoryDelta(
            origin="ams",
            incarnation=INSTANCE,
            version=3,
            from_version=2,
            changed=[msgspec.structs.replace(ENTRY, stream_id=NEWER)],
            removed=["alice"],
        ),
        b.DescriptionWanted("alice", "title", None, None),
        b.SessionClosed("drain", "leaving"),
        b.SegmentOpened(4, 1, 2 * len(PIECE)),
        b.StreamClosed(4, "over", True),
        b.SegmentRefused(2, "gone", "not held"),
        b.ProbesOffered(9, 1, bytes(32)),
    ]


PIECES_MAX = 8192  # Then frames come whole: a long input's time would be that of its cutting.
OPS = 8
OP_MESSAGE, OP_SPOILT, OP_UNIT, OP_EVENT, OP_FRAGMENT, OP_TIME, OP_RAW, OP_FRAME = range(OPS)
KINDS = (1, 2, 3, 4, 5, 0x10, 0x11, 0x12)  # Others come with OP_RAW.


def op(kind: int, flags: int = 0) -> bytes:
    """One step's first byte."""
    return bytes([kind + OPS * flags])


def frame(kind: int, body: bytes) -> bytes:
    """A frame, whether its length is allowed or not."""
    return f._FRAME_HEADER.pack(len(body), kind) + body


class Talk:
    """A peer's side of one session, by a script; subclasses have our side."""

    messages: Sequence[b.Message]

    def __init__(self, data: bytes) -> None:
        self.script = Script(data)
        self.pump = StillPump()
        self.connection = StillConnection(self.pump)
        self.seq: dict[int, int] = {}
        self.piece = 1 + self.script.number(2)
        self.pieces_left = PIECES_MAX

    @property
    def session(self) -> BackboneSession:
        """Our end."""
        raise NotImplementedError

    def tick(self) -> None:
        """What our side does in time."""

    def run(self) -> int:
        """To the script's end, or the session's."""
        while not self.script.done and self.connection.lost is None:
            self.step()
        self.connection.abort("the script is over")
        self.pump.turn()
        self.pump.time += 60
        self.tick()
        self.pump.turn()
        return self.connection.sent_bytes

    def step(self) -> None:
        """One frame, or some time."""
        choice = self.script.number()
        kind, flags = choice % OPS, choice // OPS
        if kind == OP_TIME:
            self.wait()
        elif kind == OP_RAW:
            self.feed(self.script.block())
        elif kind == OP_UNIT:
            self.feed(self.unit(1 + flags % 4, flags >> 2))
        elif kind == OP_EVENT:
            self.feed(self.event(flags))
        elif kind == OP_FRAGMENT:
            body = self.script.block()
            head = f.FRAGMENT_HEADER.pack(4 + len(body), f.KIND_FRAGMENT, 1 + flags % 4)
            self.feed(head + body)
        elif kind == OP_FRAME:
            self.feed(frame(KINDS[flags % len(KINDS)], self.script.block()))
        else:
            message = self.messages[flags % len(self.messages)]
            self.feed(b.make_message_frame(message) if kind == OP_MESSAGE else self.spoilt(message))

    def wait(self) -> None:
        """Let time pass on our side."""
        self.pump.time += self.script.number(2) / 256
        if self.pump.time >= self.connection.timeout_at:
            self.session.handle_timeout(self.pump.time)
        if self.connection.lost is None:
            self.tick()
            self.pump.turn()

    def spoilt(self, message: b.Message) -> bytes:
        """A message with a few bytes changed."""
        script = self.script
        whole = bytearray(msgspec.msgpack.encode(message))
        for _ in range(1 + script.below(3)):
            at = script.number(2) % len(whole)
            whole[at : at + script.below(3)] = script.take(script.below(4))
            whole = whole or bytearray(1)
        return frame(f.KIND_MESSAGE, bytes(whole))

    def event(self, flags: int) -> bytes:
        """A packaged event, as it is or spoilt."""
        script = self.script
        code, plain, body = encoded(EVENTS[script.below(len(EVENTS))])
        meta = bytearray(plain)
        if flags & 4:
            meta[script.below(len(meta))] = script.number()
        length = f.EVENT_HEADER_BYTES - f.FRAME_HEADER_BYTES + len(meta) + len(body)
        no, size = 1 + flags % 4, len(body) + (flags & 8)
        head = f.EVENT_HEADER.pack(length, f.KIND_EVENT, code, len(meta), no, size)
        return head + bytes(meta) + body

    def unit(self, no: int, flags: int) -> bytes:
        """A unit that follows the last, or does not."""
        script = self.script
        leap = script.number() if flags & 4 else 1
        seq = max(0, self.seq.get(no, -1) + leap)
        self.seq[no] = seq
        body = script.block()
        track = 1 + script.below(3) if flags & 2 else 1 + seq % 2
        dts = script.number(8) - 2**63 if flags & 1 else seq * 1500
        return (
            f.UNIT_HEADER.pack(
                f.UNIT_HEADER_BYTES - f.FRAME_HEADER_BYTES + len(body),
                f.KIND_UNIT,
                seq % 8 == 0,
                track,
                no,
                0,
                len(body) + (script.number() if flags & 4 else 0),
                seq,
                dts,
                dts,
                10**15 + seq,
                0,
            )
            + body
        )

    def feed(self, data: bytes) -> None:
        """As the pump would."""
        size = max(self.piece, len(data) // 32) if self.pieces_left > 0 else len(data)
        for piece in in_pieces(data, size):
            self.pieces_left -= 1
            if self.connection.lost is not None:
                return
            self.session.data_received(memoryview(bytearray(piece)), self.pump.time)
            self.pump.turn()


class AtOrigin(Talk):
    """A whole origin, which hears a PoP."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.messages = pop_messages()
        config = Config(origin=OriginConfig(name="ams", listen="127.0.0.1:0", slots=3))
        pump = functools.partial(StillPump.itself, self.pump)  # A Mock would be a class each time.
        with mock.patch.object(origin_role, "Pump", new=pump):
            self.role = OriginRole(config, Metrics())
        self._session = self.role.server._make_session(cast("Connection", self.connection))
        self.connection.handler = self._session
        purpose: b.Purpose = "control" if self.script.number() & 1 else "media"
        self.feed(b.make_hello_frame(hello("pop", "fra1", purpose)))

    @property
    def session(self) -> BackboneSession:
        return self._session

    def tick(self) -> None:
        for _ in range(HEARTBEAT_TICKS):
            self.role.server.tick(self.pump.time)


class AtPop(Talk):
    """A PoP with a publisher and a viewer, which hears an origin."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.messages = origin_messages()
        self.hub = Hub()
        pump = cast("Pump", self.pump)
        local = LocalEnd(role="pop", name="fra1", instance=9)
        self.uplinks = Uplinks(pump, self.hub, PopView("fra1"), local, None)
        self.uplinks._nursery = cast("trio.Nursery", NoNursery())
        self.hls = HlsService(
            lookup=self.uplinks.lookup,
            subscribe=self.uplinks.parts.subscribe,
            unsubscribe=self.uplinks.parts.unsubscribe,
            now=self.pump.now,
            fetch=self.uplinks.parts.fetch,
        )
        self.uplinks.parts.playback = self.hls
        row = OriginRow("ams", "127.0.0.1:1", OriginState.UP, 10)
        self.view = self.uplinks.view
        table = RoutingTable(
            epoch=1, version=1, issued=1e9, ttl_s=30.0, lease_ttl_s=10.0, rows=(row,)
        )
        self.view.accept_table(table, self.pump.time)
        self.uplinks.table_changed(table)
        link = self.uplinks._links["ams"].link
        purpose: b.Purpose = "control" if self.script.number() & 1 else "media"
        priority = PriorityClass.BASIC if purpose == "media" else PriorityClass.PARTNER
        self._session = BackboneSession(
            pump,
            cast("Connection", self.connection),
            link,
            local.hello(purpose, priority),
            roles=ORIGIN_ROLES,
            name="ams",
            client=True,
        )
        self.connection.handler = self._session
        self.feed(b.make_hello_frame(hello("origin", "ams", purpose)))
        stream = self.hub.open(STREAM, Grant(channel="alice"), started_at=0.0, came_from="fuzz")
        for track in (H264, AAC):
            stream.set_track(track)
        link.forward(stream)
        units = [
            AccessUnit(
                track_id=1,
                seq=seq,
                config_id=0,
                pts=seq * 3000,
                dts=seq * 3000,
                wallclock_us=10**15,
                payload=b"unit" * 9,
                random_access=seq % 10 == 0,
            )
            for seq in range(30)
        ]
        stream.append(units)
        self.hls._ensure_subscribed(self.hls._channel("alice", self.pump.time))
        link.subscribe_parts("alice", self.uplinks.parts.receive)
        link.subscribe_units("alice", lambda _: None)
        self.fetched: list[bytes | str] = []
        for msn in range(2):
            link.fetch_segment(
                PriorityClass.BASIC, SegmentKey(STREAM, "v0", msn), self.fetched.append
            )
        self.pump.turn()

    @property
    def session(self) -> BackboneSession:
        return self._session

    def tick(self) -> None:
        self.uplinks._tick(self.pump.time)
        self.hls.sweep(self.pump.time)


def run_origin(data: bytes) -> int:
    """An origin hears a PoP that says anything."""
    return AtOrigin(data).run()


def run_uplink(data: bytes) -> int:
    """A PoP hears an origin that says anything."""
    return AtPop(data).run()


def backbone_seeds(count: int) -> Sequence[bytes]:
    """Every message in turn; units and events in plenty; on both kinds of session."""
    messages = b"".join(op(OP_MESSAGE, flags) for flags in range(min(count, 31)))
    units = b"".join(op(OP_UNIT) + block(bytes(20)) for _ in range(40))
    events = b"".join(op(OP_EVENT) + bytes([index]) for index in range(len(EVENTS)))
    spoilt = b"".join(op(OP_SPOILT, n % 31) + bytes([1, 0, n, 1, 1, 0x91]) for n in range(60))
    subscribe = op(OP_MESSAGE, 11) + op(OP_MESSAGE, 12)
    opens = op(OP_MESSAGE, 9) + events
    piece = op(OP_EVENT, 3) + bytes([len(EVENTS) - 1])
    fetched = op(OP_MESSAGE, 20) + 2 * piece + op(OP_MESSAGE, 21) + op(OP_MESSAGE, 22)
    played = 8 * (40 * (op(OP_UNIT) + block(b"xy")) + op(OP_TIME) + b"\0\1")
    wanted = op(OP_MESSAGE, 21) + op(OP_MESSAGE, 22) + op(OP_TIME) + b"\1\0"
    return [
        b"\xff\xff\0" + messages,
        b"\xff\xff\1" + messages,
        b"\0\x20\0" + op(OP_MESSAGE) + subscribe + units + op(OP_TIME) + b"\1\0" + units,
        b"\xff\xff\0" + opens + events,
        b"\xff\xff\0" + opens + fetched,
        b"\xff\xff\0" + op(OP_MESSAGE) + played + wanted,
        b"\xff\xff\0" + op(OP_MESSAGE, 11) + units + op(OP_FRAGMENT) + block(b"more"),
        b"\xff\xff\0" + op(OP_MESSAGE) + spoilt,
        b"\xff\xff\0" + op(OP_FRAME, 4) + block(bytes(12)) + op(OP_RAW) + block(b"garbage"),
    ]


# IRS.

EXPLAINS_MAX = 2000  # Of a run.
TABLE = RoutingTable(
    epoch=1,
    version=1,
    issued=1e9,
    ttl_s=30.0,
    lease_ttl_s=10.0,
    rows=(
        OriginRow("ams", "10.0.0.1:7410", OriginState.UP, 10, 1.0, 2, "a"),
        OriginRow("fra", "10.0.0.2:7410", OriginState.SUSPECT, 3),
    ),
    rules=(
        msgspec.convert({"name": "r", "match": {"glob": "a*"}, "prefer": ["ams"]}, Rule),
        msgspec.convert({"match": {"tag": "x"}, "group_by": "team:", "max_rtt_ms": 50.0}, Rule),
    ),
)


def newer(version: int, quota: int = 4, rows: int = 2) -> RoutingTable:
    """A table after TABLE."""
    changed = tuple(msgspec.structs.replace(row, quota=quota) for row in TABLE.rows[:rows])
    return msgspec.structs.replace(TABLE, version=version, rows=changed)


@functools.cache
def irs_messages() -> list[t.Message]:
    """What both sides may say."""
    nonce = 7
    return [
        t.PopHello(pop="fra1", shard=0),
        t.OriginHello(origin="ams", incarnation=1, address="10.0.0.1:7410"),
        t.Heartbeat(REPORT),
        t.Telemetry(PopTelemetry({"ams": (1, 0, 0)})),
        t.Snapshot(nonce=nonce, table=TABLE, crc=t.table_crc(TABLE)),
        t.make_delta(TABLE, newer(2), nonce),
        t.make_delta(newer(2), newer(3, rows=1), nonce),
        t.Alive(1),
        t.Goodbye("bye"),
        t.Drain(origin="ams", until=1e9),
        *epochs.MESSAGES,
    ]


def run_irs(data: bytes) -> int:
    """One session at either end, with what stands behind it: the plan, or the view."""
    script = Script(data)
    form = script.number()
    at_irs, grants = bool(form & 1), bool(form & 2)
    collectors, pop = Collectors(), _AtPop()
    behind = epochs.Behind()
    now, out = 10.0, 0
    irs = IrsLink(now=now, epoch=lambda: 1, entropy=lambda count: b"\7" * count)
    holder = TableHolder()
    peer = PeerLink(holder.hello("fra1", 0), holder, now, behind.pop.gate if grants else None)
    link: IrsLink | PeerLink = irs if at_irs else peer
    try:
        while not script.done:
            choice = script.number()
            kind, flags = choice % 4, choice // 4
            message = irs_messages()[flags % len(irs_messages())]
            body = bytearray(msgspec.msgpack.encode(message))
            if kind == 0:
                now += script.number() / 64
                link.handle_timeout(now)
                behind.handle_timeout(link, now)
            elif kind == 1:
                body = bytearray(script.block())
            elif kind == 2:
                for _ in range(1 + script.below(3)):
                    at = script.number(2) % len(body or b"\0")
                    body[at : at + script.below(3)] = script.take(script.below(6))
                body = _with_crc(body)
            events = link.receive_data(len(body).to_bytes(t.HEADER_BYTES, "big") + body, now)
            behind.take(link, events, now)
            _act(link, events, collectors, pop, now)
            out += len(link.data_to_send())
    except EdgedError as error:
        if isinstance(link, IrsLink):
            link.refuse(str(error), now)
        out += len(link.data_to_send())
    behind.check(now)
    if holder.table is not None:
        assert t.decode_file(t.encode_file(holder.table)) == holder.table
    plan_leases(collectors.supplies(now), collectors.demands(now, 10.0), reserve_fraction=0.002)
    return out


def _with_crc(body: bytearray) -> bytearray:
    """A spoilt table with the right checksum gets further."""
    try:
        message = t._message_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return body
    if isinstance(message, t.Snapshot):
        message = msgspec.structs.replace(message, crc=t.table_crc(message.table))
        return bytearray(msgspec.msgpack.encode(message))
    if isinstance(message, t.Delta) and message.epoch == TABLE.epoch:
        base = TABLE if message.from_version == 1 else newer(2)
        with contextlib.suppress(EdgedError):
            after = t.apply_delta(base, message)
            message = msgspec.structs.replace(message, crc_after=t.table_crc(after))
            return bytearray(msgspec.msgpack.encode(message))
    return body


class _AtPop:
    """What a PoP does with a table: put it in force, and decide by it."""

    def __init__(self) -> None:
        self.view = PopView("fra1")
        self._explains_left = EXPLAINS_MAX

    def take(self, table: RoutingTable, now: float) -> None:
        """Decisions are explained until there were many: operators ask for that, now and then."""
        self.view.accept_table(table, now)
        for row in table.rows:
            self.view.set_link(row.origin, up=True, now=now)
        for channel in ("alice", "bob"):
            request = RouteRequest(channel=channel, tags=("x", "team:a"))
            if self._explains_left > 0:
                self._explains_left -= 1
                explain_origin(request, self.view, now)
                continue
            with contextlib.suppress(EdgedError):
                choose_origin(request, self.view, now)


def _act(
    link: IrsLink | PeerLink,
    events: Sequence[object],
    collectors: Collectors,
    pop: _AtPop,
    now: float,
) -> None:
    """What the services do with it, decisions included."""
    for event in events:
        match event:
            case t.PopHello():
                collectors.pop_joined(event.key)
                assert isinstance(link, IrsLink)
                link.start_pushing(None)
                link.offer(TABLE, now)
            case t.OriginHello():
                collectors.origin_joined(event)
            case t.Heartbeat(report):
                collectors.heartbeat(report, now)
            case t.Telemetry(told):
                collectors.telemetry("fra1/0", told, now) if collectors.pops() else None
            case TableAcked():
                pass
            case _ if hasattr(event, "table"):
                pop.take(event.table, now)
            case _:
                pass


def irs_seeds() -> Sequence[bytes]:
    """Each message as it is, from either end; a session of a PoP; spoilt ones."""
    whole = [bytes([3 + 4 * index]) for index in range(len(irs_messages()))]
    spoilt = b"".join(
        bytes([2 + 4 * index]) + bytes([1, 0, at, 1, 1, 0x91])
        for index in range(len(irs_messages()))
        for at in (3, 20, 40)
    )
    return [
        b"\0" + b"".join(whole[4:8]),
        b"\1" + whole[0] + whole[3] + bytes([0, 64]),
        b"\1" + whole[1] + whole[2],
        b"\0" + spoilt,
        b"\1" + spoilt,
        b"\0" + bytes([1]) + block(msgspec.msgpack.encode(irs_messages()[4])),
        *epochs.seeds(len(irs_messages()) - len(epochs.MESSAGES)),
    ]


def run_table_file(data: bytes) -> int:
    """A table file of any content, with the right checksum or without."""
    if data[:1] == b"\0":
        body = data[1:]
        head = t._FILE_HEADER.pack(t.FILE_MAGIC, t.FILE_FORMAT, zlib.crc32(body), len(body))
        data = b"\0" + head + body
    with contextlib.suppress(EdgedError):
        table = t.decode_file(data[1:])
        view = PopView("fra1")
        view.accept_table(table, 10.0, from_disk=True)
        explain_origin(RouteRequest(channel="alice", tags=("x", "team:a")), view, 10.0)
    return 0


def table_seeds() -> Sequence[bytes]:
    """A file, and a body for which the header is made."""
    return [b"\1" + t.encode_file(TABLE), b"\0" + msgspec.msgpack.encode(TABLE)]


# Splices.


def run_splice(data: bytes) -> int:
    """A successor reads a state, and goes on with units until the end."""
    script = Script(data)
    state = bytearray(splice())
    if script.number() & 1:
        state = bytearray(script.block())
    else:
        for _ in range(1 + script.below(4)):
            at = script.number(2) % (len(state) or 1)
            state[at : at + script.below(3)] = script.take(script.below(4))
    try:
        after = read_state(bytes(state)).packaged_seq
    except EdgedError:
        return 0
    service = OriginService(
        OriginConfig(name="ams"),
        publish=lambda *_: None,
        packaged=lambda *_: None,
        failed=lambda *_: None,
    )
    stream = LiveStream(STREAM, Grant(channel="alice"), started_at=0.0, came_from="fuzz")
    for track in (video_track(Fraction(30)), audio_track()):
        stream.set_track(track)
    if after >= 0:
        stream.ring.note_loss(after + 1)
    try:
        service.open(stream, bytes(state))
    except EdgedError:
        return 0
    units = [unit.replaced() for unit in _later_units() if unit.seq > after]
    for at in range(0, len(units), 20):
        stream.append(units[at : at + 20])
    service.close(stream, "over")
    return service.statistics().parts_total


@functools.cache
def _later_units() -> list[AccessUnit]:
    pictures = video_units(video_times(Fraction(30), 9), 2)
    units = in_order((90_000, pictures), (48_000, audio_units(9)))
    for unit in units:
        unit.payload = b"x" * 20
    least = read_state(splice()).packaged_seq
    return [unit for unit in units if unit.seq > least][:200]


def splice_seeds() -> Sequence[bytes]:
    """The state with an edit here and there; a state of its own."""
    rng = random.Random(2)  # noqa: S311 - seeds are the same in every run
    edits = [b"\0" + rng.randbytes(24) for _ in range(40)]
    return [*edits, b"\1" + block(splice())]


# What a spoilt splice may come to, in its own stream only; each is the stream's end.
BY_SPLICE = frozenset(
    {"packager failed", "packager failed to end", "window refused an event"},
)
TARGETS = [
    Target(
        name="origin",
        run=run_origin,
        seeds=lambda: backbone_seeds(len(pop_messages())),
        contained=frozenset({"packager failed", "packager failed to end"}),  # By its splice.
    ),
    Target(
        name="uplink",
        run=run_uplink,
        seeds=lambda: backbone_seeds(len(origin_messages())),
    ),
    # A byte is a whole message.
    Target(name="irs", run=run_irs, seeds=irs_seeds, bytes_max=1024),
    Target(name="table", run=run_table_file, seeds=table_seeds),
    Target(
        name="splice",
        run=run_splice,
        seeds=splice_seeds,
        contained=BY_SPLICE,
    ),
]
