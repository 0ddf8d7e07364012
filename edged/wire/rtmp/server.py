"""The server's side of an RTMP connection: a publisher in, access units out, sans-IO.

Life of a session: handshake, `connect` (answered with our window, our chunk size and what we can
take), `createStream`, `publish` (asked of the shell: PublishRequested), media, and the end. What
comes before the answer to `publish` is held.
"""

from collections.abc import Callable, Sequence
from math import inf

import msgspec

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.wire.rtmp import messages as m
from edged.wire.rtmp import replies
from edged.wire.rtmp.amf0 import UNDEFINED, AmfValue
from edged.wire.rtmp.chunks import ChunkWriter
from edged.wire.rtmp.connect import ConnectInfo, parse_connect, parse_stream_name
from edged.wire.rtmp.events import (
    DataReceived,
    MetadataReceived,
    PeerTimedOut,
    PlayRefused,
    PublishEnded,
    PublishRequested,
    ServerEvent,
)
from edged.wire.rtmp.handshake import ServerHandshake, Stage
from edged.wire.rtmp.limits import CHUNK_BYTES_SMALL, RtmpLimits
from edged.wire.rtmp.messages import Command, Message
from edged.wire.rtmp.reader import make_reader
from edged.wire.rtmp.state import Phase, RtmpState, RtmpStatistics
from edged.wire.rtmp.tracks import TrackAssembler
from edged.wire.rtmp.workload import Workload

OUR_CHUNK_BYTES = 65536  # ffmpeg mirrors it; it would send 128-byte chunks otherwise.
WINDOW_BYTES = 2_500_000  # What everyone uses; only a peer that waits for acks would notice.
WINDOW_BYTES_MIN = (
    4096  # Below it we acknowledge no more often: an answer must not cost its question.
)
LATE_S_MAX = 1.0  # A timer of ours this late: we stalled, not the peer, who gets that long more.
_PING_BYTES = 6
# Looked up once: an enumeration's attributes are slow, and each piece passes here.
_PUBLISHING = Phase.PUBLISHING
_VIDEO = m.VIDEO
_MEDIA = m.MEDIA
_CONTROL, _COMMANDS, _STATUS = 2, 3, 5  # Chunk stream ids that servers use.


class RtmpServerSession:
    """One publisher's connection. Every input may leave data_to_send; see the module's head."""

    def __init__(
        self, *, now: float, entropy: Callable[[int], bytes], limits: RtmpLimits | None = None
    ) -> None:
        self._limits = limits if limits is not None else RtmpLimits()
        self._phase = Phase.HANDSHAKE
        self._handshake = ServerHandshake(now, entropy)
        self._reader = make_reader(self._limits)
        self._reader.restrict(self._limits.early_bytes_max)
        self._writer = ChunkWriter()
        self.outbox = bytearray()
        self._held: list[Message] = []
        self._held_bytes = 0
        self._media = TrackAssembler(self._limits)
        self._peer = ConnectInfo()
        self._fc_published = False
        self._streams = 0  # Message streams made by createStream.
        self._stream_id = 0  # The one published on.
        self._received = self._acknowledged = 0
        self._window = WINDOW_BYTES
        self._counters = RtmpStatistics()
        self._now = now
        self.deadline = now + self._limits.handshake_timeout_s  # When handle_timeout is due.
        self._workload = Workload(self._limits, now)
        self._pinged_at: float | None = None

    @property
    def phase(self) -> Phase:
        """How far the session is."""
        return self._phase

    @property
    def bytes_wanted(self) -> int:
        """Bytes missing of the message now being received, 1 when unknown: SO_RCVLOWAT."""
        return self._reader.bytes_wanted

    def statistics(self) -> RtmpStatistics:
        """The counters as they are now."""
        self._reader.settle()
        counters = msgspec.structs.replace(self._counters)
        counters.received_bytes, counters.chunk_bytes = self._received, self._reader.chunk_size
        media = self._media.state
        counters.tracks, counters.units = len(media.tracks), media.units
        counters.unit_bytes, counters.units_unusable = media.unit_bytes, media.units_unusable
        return counters

    def receive_data(self, data: bytes | memoryview, now: float) -> list[ServerEvent]:
        """Take bytes from the peer; `data` may be a view of a buffer that is used again.

        Raises RemoteProtocolError or UnsupportedMediaError; the session is over then.
        """
        self._now = now
        if self._phase is not _PUBLISHING:
            if self._phase is Phase.CLOSED:
                return []
            if self._phase is Phase.HANDSHAKE:
                data = self._shake_hands(data)
        self._received += len(data)
        if self._reader.chunk_size < CHUNK_BYTES_SMALL:
            self._workload.add_messages(len(data) // self._reader.chunk_size, self._now)
        media = self._media.state if self._phase is _PUBLISHING else None
        items = self._reader.receive_data(data, media)
        if self._received - self._acknowledged >= self._window:
            self._acknowledge()
        if not items:
            return []
        self._counters.messages += len(items)
        self._workload.add_messages(len(items), self._now)
        if self._reader.only_units:  # The usual case.
            self.deadline = now + self._limits.media_silence_s_max
            return items  # type: ignore[return-value]  # They are all units.
        return self._receive_items(items)

    def data_to_send(self) -> bytes:
        """What is to be written to the peer now."""
        data = bytes(self.outbox)
        self.outbox.clear()
        self._counters.sent_bytes += len(data)
        return data

    def handle_timeout(self, now: float) -> list[ServerEvent]:
        """The time has come, or will: a peer past its deadline is given up."""
        if now < self.deadline:
            return []
        if now - self.deadline > LATE_S_MAX:
            self.deadline = now + LATE_S_MAX
            return []
        limits = self._limits
        match self._phase:
            case Phase.HANDSHAKE:
                reason = f"no handshake within {limits.handshake_timeout_s:g} s"
            case Phase.PUBLISHING:
                reason = f"{self._media.describe_silence()} for {limits.media_silence_s_max:g} s"
            case _:
                reason = f"no publish within {limits.publish_timeout_s:g} s"
        if self._phase is not Phase.HANDSHAKE:
            self._send_status("error", "NetStream.Publish.Failed", f"timeout: {reason}")
        self._end()
        return [PeerTimedOut(reason)]

    def accept_publish(self, now: float) -> list[ServerEvent]:
        """The shell grants the publish that was asked: tell the peer, and go on reading."""
        assert self._phase is Phase.ASKED, "there is a publish to accept"
        self._now = now
        self._phase = Phase.PUBLISHING
        self.deadline = now + self._limits.media_silence_s_max
        self._media = TrackAssembler(self._limits)
        self._grant()
        self._send(_CONTROL, m.USER_CONTROL, m.user_control(m.STREAM_BEGIN, self._stream_id))
        if self._fc_published:  # FMLE and its kin wait for it.
            values = replies.status("status", "NetStream.Publish.Start", "publishing")
            self._send_command("onFCPublish", 0, values)
        self._send_status("status", "NetStream.Publish.Start", "publishing")
        held, self._held, self._held_bytes = self._held, [], 0
        return self._receive_items(held)

    def refuse_publish(self, code: str, description: str) -> None:
        """The shell refuses: onStatus says why, NetStream.Publish.Start is never sent.

        `code` is RTMP's, such as NetStream.Publish.BadName; then the shell closes.
        """
        assert self._phase is Phase.ASKED, "there is a publish to refuse"
        self.close(code, description)

    def close(self, code: str, description: str) -> None:
        """End the session from our side: the peer is told why; then the shell closes."""
        if self._phase is Phase.CLOSED:
            return
        if self._phase is not Phase.HANDSHAKE:
            self._send_status("error", code, description)
        self._end()

    def request_reconnect(self, description: str, tc_url: str = "") -> bool:
        """Ask the peer to publish anew, elsewhere if `tc_url` says so; whether it said it can."""
        if not self._peer.caps_ex & replies.CAPS_RECONNECT or self._phase is Phase.CLOSED:
            return False
        self._send_command("onStatus", 0, replies.reconnect_request(tc_url, description))
        return True

    def send_ping(self, now: float) -> None:
        """Ask for a sign of life; the answer, if any, sets the statistics' rtt_s."""
        assert Phase.HANDSHAKE < self._phase < Phase.CLOSED, "there is someone to ask"
        self._pinged_at = now
        body = m.user_control(m.PING_REQUEST, int(now * 1000))
        self._send(_CONTROL, m.USER_CONTROL, body)

    def state(self) -> RtmpState:
        """Everything, copied, at any byte boundary; from_state goes on from it."""
        live = RtmpState(
            phase=self._phase,
            handshake=self._handshake.state,
            reader=self._reader.state(),
            writer=self._writer.streams,
            writer_chunk_size=self._writer.chunk_size,
            outbox=bytes(self.outbox),
            held=[(h.kind, h.timestamp, h.stream_id, bytes(h.body)) for h in self._held],
            media=self._media.state,
            peer=self._peer,
            fc_published=self._fc_published,
            streams=self._streams,
            stream_id=self._stream_id,
            received=self._received,
            window=self._window,
            acknowledged=self._acknowledged,
            counters=self._counters,
        )
        return msgspec.msgpack.decode(msgspec.msgpack.encode(live), type=RtmpState)

    @classmethod
    def from_state(
        cls,
        state: RtmpState,
        *,
        now: float,
        entropy: Callable[[int], bytes],
        limits: RtmpLimits | None = None,
    ) -> "RtmpServerSession":
        """The session that `state` was taken of; it takes the state over."""
        session = cls(now=now, entropy=entropy, limits=limits)
        session._phase = state.phase
        session._handshake = ServerHandshake(now, entropy, state.handshake)
        session._reader = make_reader(session._limits, state.reader)
        session._reader.restrict(session._limits.early_bytes_max)
        session._writer = ChunkWriter(state.writer_chunk_size, state.writer)
        session.outbox = bytearray(state.outbox)
        session._held = [Message(*held) for held in state.held]
        session._held_bytes = sum(len(held.body) for held in session._held)
        session._media = TrackAssembler(session._limits, state.media)
        session._peer, session._fc_published = state.peer, state.fc_published
        session._streams, session._stream_id = state.streams, state.stream_id
        session._received, session._acknowledged = state.received, state.acknowledged
        session._window = state.window
        session._counters = state.counters
        if state.phase is Phase.PUBLISHING or (state.phase is Phase.CONNECTED and state.stream_id):
            session._grant()
        session._restart_deadline()
        return session

    def _grant(self) -> None:
        """From here on the peer is known, and may send media."""
        self._workload.grant()
        self._reader.lift()

    def _restart_deadline(self) -> None:
        limits = self._limits
        match self._phase:
            case Phase.HANDSHAKE:
                self.deadline = self._now + limits.handshake_timeout_s
            case Phase.CONNECTING | Phase.CONNECTED:
                self.deadline = self._now + limits.publish_timeout_s
            case Phase.PUBLISHING:
                self.deadline = self._now + limits.media_silence_s_max
            case Phase.ASKED | Phase.CLOSED:  # It is for the shell to answer, or to close.
                self.deadline = inf

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._restart_deadline()

    def _end(self) -> None:
        self._enter(Phase.CLOSED)
        self._held.clear()
        self._reader.settle()
        self._reader = make_reader(self._limits)  # Let go of the messages begun.

    def _shake_hands(self, data: bytes | memoryview) -> bytes | memoryview:
        answer, rest = self._handshake.receive_data(data)
        self.outbox += answer
        if self._handshake.state.stage is Stage.DONE:
            self._enter(Phase.CONNECTING)
        return rest

    def _receive_items(self, items: Sequence[Message | AccessUnit]) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        for index, item in enumerate(items):
            if isinstance(item, AccessUnit):
                self.deadline = self._now + self._limits.media_silence_s_max
                events.append(item)
            elif self._phase is _PUBLISHING and item.kind in _MEDIA:
                self._receive_media(item, events)
            elif self._phase is Phase.ASKED:
                self._hold(items[index:])
                break
            elif self._phase is not Phase.CLOSED:
                self._receive_message(item, events)
        return events

    def _hold(self, messages: Sequence[Message | AccessUnit]) -> None:
        for message in messages:
            assert isinstance(message, Message), "units are made of a granted publish only"
            self._held_bytes += len(message.body)
            if self._held_bytes > self._limits.held_bytes_max:
                raise RemoteProtocolError(
                    f"more than {self._limits.held_bytes_max} bytes before publish was answered"
                )
            message.body = bytes(message.body)
            self._held.append(message)

    def _receive_message(self, message: Message, events: list[ServerEvent]) -> None:
        kind = message.kind
        if kind in _MEDIA:
            if self._phase is not _PUBLISHING:
                self._check_late()
            else:
                self._receive_media(message, events)
            return
        self._check_work(message)
        if kind in (m.COMMAND_AMF0, m.COMMAND_AMF3):
            self._receive_command(m.decode_command(message), message.stream_id, events)
        elif kind in (m.DATA_AMF0, m.DATA_AMF3):
            self._receive_values(message, events)
        elif kind == m.AGGREGATE:
            inner = m.split_aggregate(message)
            self._counters.messages += len(inner)
            self._workload.add_messages(len(inner), self._now)
            for one in inner:
                if self._phase is Phase.PUBLISHING:
                    self._receive_message(one, events)
        elif kind in (m.USER_CONTROL, m.WINDOW_ACKNOWLEDGEMENT_SIZE, m.SET_PEER_BANDWIDTH):
            self._receive_control(message)
        elif kind not in m.PASSED_OVER:
            raise RemoteProtocolError(f"message type {kind} is not known")

    def _receive_media(self, message: Message, events: list[ServerEvent]) -> None:
        before = len(events)
        if message.kind == _VIDEO:
            self._media.receive_video(message, events)
        else:
            self._media.receive_audio(message, events)
        usual = len(events) > before and type(events[before]) is AccessUnit
        if usual or self._workload.add_events(events[before:], len(message.body)):
            self.deadline = self._now + self._limits.media_silence_s_max

    def _check_late(self) -> None:
        if not self._stream_id:  # Else it was under way when the publisher ended.
            raise RemoteProtocolError("audio or video before publish")

    def _check_work(self, message: Message) -> None:
        size = len(message.body) if message.kind in m.VALUES else 0
        if size > self._limits.command_bytes_max:
            raise RemoteProtocolError(
                f"command or data message of {size} bytes exceeds {self._limits.command_bytes_max}"
            )
        self._workload.add_commands(1, size)

    def _receive_values(self, message: Message, events: list[ServerEvent]) -> None:
        if self._phase is not Phase.PUBLISHING:
            return
        values = m.decode_values(message)
        if values and values[0] == "@setDataFrame":
            values = values[1:]
        name = values[0] if values else None
        if name == "onMetaData" and len(values) > 1 and isinstance(values[1], dict):
            before = len(events)
            self._media.receive_metadata(values[1], events)
            self._workload.add_events(events[before:], 0)  # Names may change tracks.
            events.append(MetadataReceived(values[1]))
        elif isinstance(name, str) and name != "@clearDataFrame":
            events.append(DataReceived(name, values[1:], message.timestamp))

    def _receive_control(self, message: Message) -> None:
        if message.kind == m.WINDOW_ACKNOWLEDGEMENT_SIZE:
            # Half of it, as others do: an ack in flight must not stop the peer.
            self._window = max(m.u32_of(message, "window ack size") // 2, WINDOW_BYTES_MIN)
        elif message.kind == m.SET_PEER_BANDWIDTH:  # §5.4.5: answered with our window.
            window = m.u32_of(message, "set peer bandwidth")
            self._send(_CONTROL, m.WINDOW_ACKNOWLEDGEMENT_SIZE, window.to_bytes(4, "big"))
        else:
            body = bytes(message.body[:_PING_BYTES])
            event = int.from_bytes(body[:2], "big")
            if event == m.PING_REQUEST and len(body) == _PING_BYTES:
                answer = m.PING_RESPONSE.to_bytes(2, "big") + body[2:]
                self._send(_CONTROL, m.USER_CONTROL, answer)
            elif event == m.PING_RESPONSE and self._pinged_at is not None:
                self._counters.rtt_s = self._now - self._pinged_at
                self._pinged_at = None

    def _acknowledge(self) -> None:
        self._acknowledged = self._received
        sequence = self._acknowledged & 0xFFFFFFFF  # §5.4.3: it wraps.
        self._send(_CONTROL, m.ACKNOWLEDGEMENT, sequence.to_bytes(4, "big"))

    def _receive_command(self, command: Command, stream_id: int, events: list[ServerEvent]) -> None:
        name = command.name
        if name == "connect":
            self._connect(command)
        elif name in ("_result", "_error", "onStatus"):
            return  # We ask nothing.
        elif self._phase is Phase.CONNECTING:
            raise RemoteProtocolError(f"command {name[:64]!r} before connect")
        elif name == "createStream":
            self._create_stream(command)
        elif name == "publish":
            self._publish(command, stream_id, events)
        elif name in ("FCUnpublish", "deleteStream", "closeStream"):
            self._unpublish(command, stream_id, events)
        elif name in ("play", "play2"):
            self._send_status("error", "NetStream.Play.Failed", "this server takes publishers only")
            self._end()
            events.append(PlayRefused(self._peer.app))
        elif name in (
            "releaseStream",
            "FCPublish",
            "_checkbw",
            "checkBandwidth",
            "getStreamLength",
        ):
            self._fc_published |= name == "FCPublish"
            self._reply(command, [None, UNDEFINED])
        elif command.transaction_id:
            self._send_command("_error", command.transaction_id, replies.unknown_call(name))

    def _connect(self, command: Command) -> None:
        if self._phase is not Phase.CONNECTING:
            raise RemoteProtocolError("connect for a second time")
        self._peer = parse_connect(command)
        self._enter(Phase.CONNECTED)
        window = WINDOW_BYTES.to_bytes(4, "big")
        self._send(_CONTROL, m.WINDOW_ACKNOWLEDGEMENT_SIZE, window)
        self._send(_CONTROL, m.SET_PEER_BANDWIDTH, window + bytes([m.LIMIT_DYNAMIC]))
        self._send(_CONTROL, m.SET_CHUNK_SIZE, OUR_CHUNK_BYTES.to_bytes(4, "big"))
        self._writer.chunk_size = OUR_CHUNK_BYTES
        self._reply(command, replies.connect_result())

    def _create_stream(self, command: Command) -> None:
        if self._streams >= self._limits.message_streams_max:
            raise RemoteProtocolError(
                f"createStream more than {self._limits.message_streams_max} times"
            )
        self._streams += 1
        self._reply(command, [None, float(self._streams)])

    def _publish(self, command: Command, stream_id: int, events: list[ServerEvent]) -> None:
        if self._phase is not Phase.CONNECTED:
            code, text = "NetStream.Publish.BadName", "already publishing on this connection"
            self._send_status("error", code, text, stream_id)
            return
        key, query = parse_stream_name(command.text(1))
        self._stream_id = stream_id or 1
        self._enter(Phase.ASKED)
        events.append(
            PublishRequested(
                app=self._peer.app,
                stream_key=key,
                tc_url=self._peer.tc_url,
                query=self._peer.query | query,
                encoder=self._peer.encoder,
                fourcc_list=self._peer.fourcc_list,
            )
        )

    def _unpublish(self, command: Command, stream_id: int, events: list[ServerEvent]) -> None:
        """The broadcast ends, if it is the one that the command names."""
        if command.name == "FCUnpublish":
            values = replies.status("status", "NetStream.Unpublish.Success", "unpublished")
            self._send_command("onFCUnpublish", 0, values)
            self._reply(command, [None, UNDEFINED])
        named: AmfValue = stream_id if command.name == "closeStream" else None
        if command.name == "deleteStream" and len(command.arguments) > 1:
            named = command.arguments[1]
        # Some encoders name none, or the stream by its key.
        others = isinstance(named, int | float) and named and named != self._stream_id
        if self._phase is not Phase.PUBLISHING or others:
            return
        self._send_status("status", "NetStream.Unpublish.Success", "unpublished")
        self._enter(Phase.CONNECTED)
        events.append(PublishEnded(f"publisher sent {command.name}"))

    def _reply(self, command: Command, values: list[AmfValue]) -> None:
        if command.transaction_id:
            self._send_command("_result", command.transaction_id, values)

    def _send_status(
        self, level: str, code: str, description: str, stream_id: int | None = None
    ) -> None:
        """An onStatus on a message stream: by default the one published on."""
        values = replies.status(level, code, description)
        body = m.encode_command("onStatus", 0, values)
        to = self._stream_id if stream_id is None else stream_id
        self._send(_STATUS, m.COMMAND_AMF0, body, to)

    def _send_command(self, name: str, transaction_id: float, values: list[AmfValue]) -> None:
        body = m.encode_command(name, transaction_id, values)
        self._send(_COMMANDS, m.COMMAND_AMF0, body)

    def _send(self, csid: int, kind: int, body: bytes, stream_id: int = 0) -> None:
        for chunk in self._writer.write(csid, Message(kind, 0, stream_id, body)):
            self.outbox += chunk
