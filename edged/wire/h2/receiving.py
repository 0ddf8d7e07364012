"""What one connection's frames mean (RFC 9113 §5 and §6): from frames to events."""

from collections.abc import Callable

from edged.wire.h2 import frames
from edged.wire.h2.events import Event
from edged.wire.h2.frames import (
    ACK,
    ConnectionFaultError,
    ErrorCode,
    StreamFaultError,
    name_code,
)
from edged.wire.h2.head import H2Request
from edged.wire.h2.hpack import KnownStrings
from edged.wire.h2.intake import Intake
from edged.wire.h2.limits import WINDOW_UPDATES_PER_DATA, FloodGuard, H2Limits
from edged.wire.h2.priorities import parse_priority
from edged.wire.h2.reader import Frame, FrameReader
from edged.wire.h2.sending import Sender
from edged.wire.h2.streams import StreamTable

DRAIN_MARK = b"drained?"  # The PING behind a drain's first GOAWAY.
GOODBYE_CHARS_MAX = 80


class Receiver:
    """The input of one connection; what it has to answer by itself goes to the sender."""

    __slots__ = (
        "_flood",
        "_greeted",
        "_limits",
        "_no_priorities",
        "_now",
        "_sender",
        "_streams",
        "_told_data_frames",
        "drain_acked",
        "draining",
        "fault",
        "intake",
        "peer_leaving",
        "pings",
        "progressed",
        "reader",
        "resets_received",
        "resets_sent",
        "settled",
    )

    def __init__(
        self,
        sender: Sender,
        streams: StreamTable,
        limits: H2Limits,
        known: KnownStrings | None = None,
    ) -> None:
        self.reader = FrameReader(limits)
        self.fault: ConnectionFaultError | None = None
        self.progressed = False  # The last bytes made a frame whole.
        self.settled = False  # Our SETTINGS are acknowledged.
        self.draining = False  # The peer has been told to go;
        self.drain_acked = False  # and it knows.
        self.peer_leaving = ""  # It sent GOAWAY: why.
        self.pings = self.resets_received = self.resets_sent = 0
        self._sender = sender
        self._streams = streams
        self._limits = limits
        self._flood = FloodGuard(limits.flood_s)
        self.intake = Intake(sender, streams, limits, self._flood, known)
        self._greeted = False
        self._no_priorities: int | None = None
        self._now = 0.0
        self._told_data_frames = 0

    def receive_usual(self, data: bytes, now: float) -> H2Request | None:
        """As `receive`, of a client's usual request and nothing else; if not, nothing happened."""
        if not self._greeted or self.fault is not None or self.reader.partial:
            return None
        self._now = self.intake.now = now
        return self.intake.take_usual(data)

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes; see `fault` then."""
        intake = self.intake
        self._now = intake.now = now
        events: list[Event] = []
        intake.events = events
        whole = self.reader.receive(data)
        self.progressed = bool(whole)
        try:
            for frame in whole:
                try:
                    if frame[0] == frames.HEADERS and self._greeted:
                        intake.take_headers(frame)
                    else:
                        self._take(frame)
                except StreamFaultError as of_stream:
                    self._reset(of_stream)
            if self.reader.fault is not None:
                raise self.reader.fault
        except ConnectionFaultError as fault:
            self.fault = fault
        return events

    def _take(self, frame: Frame) -> None:
        kind = frame[0]
        if not self._greeted:
            if kind != frames.SETTINGS or frame[1] & ACK:
                told = f"the first frame is of type {kind:#x}, not SETTINGS (RFC 9113 §3.4)"
                raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, told)
            self._greeted = True
        take = _TAKERS.get(kind)
        if take is None:  # RFC 9113 §5.5.
            self._flood.count("unknown frames", self._limits.unknown_max, self._now)
        else:
            take(self, frame)

    def _reset(self, fault: StreamFaultError) -> None:
        """End a stream because of what the peer did."""
        self._flood.count("streams in error", self._limits.faults_max, self._now)
        self.resets_sent += 1
        stream_id = fault.stream_id
        self._sender.send_control(frames.make_reset(stream_id, fault.code))
        self._streams.remember_reset(stream_id)
        self.intake.drop(stream_id, f"{name_code(fault.code)}: {fault}")

    # The rest.

    def _take_reset(self, frame: Frame) -> None:
        _, _, stream_id, payload, _ = frame
        self._check_open("RST_STREAM", stream_id)
        self._flood.count("streams reset", self._limits.resets_max, self._now)
        self.resets_received += 1
        self.intake.drop(
            stream_id, f"reset by the peer: {name_code(int.from_bytes(payload, 'big'))}"
        )

    def _check_open(self, name: str, stream_id: int) -> None:
        if self._streams.is_idle(stream_id):
            told = f"{name} of stream {stream_id}, the last is {self._streams.last_id}"
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, told)

    def _take_window_update(self, frame: Frame) -> None:
        _, _, stream_id, payload, _ = frame
        sender, most = self._sender, self._limits.window_updates_max
        sent = sender.data_frames - self._told_data_frames
        self._told_data_frames = sender.data_frames
        allowed = sent * WINDOW_UPDATES_PER_DATA
        self._flood.count("WINDOW_UPDATE frames", most, self._now, allowed)
        increment = int.from_bytes(payload, "big") & frames.WINDOW_BYTES_MAX
        if not stream_id:
            if not increment:
                told = "WINDOW_UPDATE of the connection by 0"
                raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, told)
            sender.add_window(increment)
            return
        self._check_open("WINDOW_UPDATE", stream_id)
        stream = self._streams.live.get(stream_id)
        if stream is None:
            return  # RFC 9113 §5.1: it may have been on its way.
        if not increment:
            raise _stream_fault(stream_id, "WINDOW_UPDATE by 0")
        sender.add_stream_window(stream, increment)

    def _take_settings(self, frame: Frame) -> None:
        _, flags, _, payload, size = frame
        limits = self._limits
        self._flood.count("SETTINGS frames", limits.settings_max, self._now)
        if flags & ACK:
            if size:
                told = f"acknowledgement of SETTINGS with {size} bytes"
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, told)
            self.settled = True
            return
        entries = size // frames.SETTING_BYTES
        if entries > limits.settings_entries_max:
            told = f"{entries} settings at once, at most {limits.settings_entries_max}"
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, told)
        for at in range(0, size, frames.SETTING_BYTES):
            key = int.from_bytes(payload[at : at + 2], "big")
            self._set(key, int.from_bytes(payload[at + 2 : at + frames.SETTING_BYTES], "big"))
        if self._no_priorities is None:
            self._no_priorities = 0
        self._sender.acknowledge_settings()

    def _set(self, key: int, value: int) -> None:
        sender, told = self._sender, ""
        code = ErrorCode.PROTOCOL_ERROR
        if key == frames.INITIAL_WINDOW_SIZE:
            if value <= frames.WINDOW_BYTES_MAX:
                sender.set_initial_window(value)
                return
            code = ErrorCode.FLOW_CONTROL_ERROR
            told = f"INITIAL_WINDOW_SIZE of {value}, at most {frames.WINDOW_BYTES_MAX}"
        elif key == frames.MAX_FRAME_SIZE:
            least, most = frames.FRAME_BYTES, frames.FRAME_BYTES_MAX
            if least <= value <= most:
                sender.frame_bytes_max = value
                return
            told = f"MAX_FRAME_SIZE of {value}, allowed are {least} to {most}"
        elif key == frames.HEADER_TABLE_SIZE:
            sender.set_table_size(value)
        elif key == frames.ENABLE_PUSH and value > 1:
            told = f"ENABLE_PUSH of {value}, allowed are 0 and 1"
        elif key == frames.NO_RFC7540_PRIORITIES:
            if value > 1 or self._no_priorities not in (None, value):
                told = f"NO_RFC7540_PRIORITIES of {value} (RFC 9218 §2.1)"
            self._no_priorities = value
        if told:
            raise ConnectionFaultError(code, told)

    def _take_ping(self, frame: Frame) -> None:
        _, flags, _, payload, _ = frame
        if flags & ACK:
            self.drain_acked = self.drain_acked or (self.draining and payload == DRAIN_MARK)
        self._flood.count("PING frames", self._limits.pings_max, self._now)
        if not flags & ACK:
            self.pings += 1
            self._sender.answer_ping(payload)

    def _take_goaway(self, frame: Frame) -> None:
        payload = frame[3]
        code = int.from_bytes(payload[4:8], "big")
        text = payload[8 : 8 + GOODBYE_CHARS_MAX].decode("ascii", "replace")
        self.peer_leaving = f"the peer leaves: {name_code(code)} {text!r}"
        self._flood.count("GOAWAY frames", self._limits.settings_max, self._now)

    def _take_priority(self, frame: Frame) -> None:
        _, _, stream_id, payload, size = frame
        self._flood.count("PRIORITY frames", self._limits.priorities_max, self._now)
        code, told = ErrorCode.PROTOCOL_ERROR, ""
        if size != frames.PRIORITY_BYTES:
            code = ErrorCode.FRAME_SIZE_ERROR
            told = f"PRIORITY frame of {size} bytes instead of {frames.PRIORITY_BYTES}"
        elif int.from_bytes(payload[:4], "big") & frames.STREAM_ID_MAX == stream_id:
            told = "the stream depends on itself"
        if not told:
            return  # RFC 9113 §5.3.2: deprecated, and we have said that we ignore it.
        if self._streams.is_idle(stream_id):  # A stream that is idle cannot be reset.
            raise ConnectionFaultError(code, f"{told} (stream {stream_id})")
        raise StreamFaultError(stream_id, code, told)

    def _take_priority_update(self, frame: Frame) -> None:
        payload = frame[3]
        self._flood.count("PRIORITY frames", self._limits.priorities_max, self._now)
        stream_id = int.from_bytes(payload[:4], "big") & frames.STREAM_ID_MAX
        value = payload[4:]
        if not stream_id & 1:
            told = f"PRIORITY_UPDATE of stream {stream_id}, which is no request's"
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, told)
        stream = self._streams.live.get(stream_id)
        if stream is not None:
            self._sender.schedule.change(stream, *parse_priority(value))
        elif stream_id > self._streams.last_id:
            early = self.intake.early
            early[stream_id] = parse_priority(value)
            most = self._limits.streams_max
            if len(early) + len(self._streams.live) > most:  # RFC 9218 §7.1.
                told = f"PRIORITY_UPDATE of more than {most} streams"
                raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, told)


def _stream_fault(stream_id: int, told: str) -> StreamFaultError:
    return StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR, told)


_TAKERS: dict[int, Callable[[Receiver, Frame], None]] = {
    frames.DATA: lambda receiver, frame: receiver.intake.take_data(frame),
    frames.PRIORITY: Receiver._take_priority,
    frames.RST_STREAM: Receiver._take_reset,
    frames.SETTINGS: Receiver._take_settings,
    frames.PING: Receiver._take_ping,
    frames.GOAWAY: Receiver._take_goaway,
    frames.WINDOW_UPDATE: Receiver._take_window_update,
    frames.PRIORITY_UPDATE: Receiver._take_priority_update,
}
