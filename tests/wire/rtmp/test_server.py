import collections
import contextlib
import hashlib
from math import inf

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media import aac
from edged.media.access_unit import AccessUnit
from edged.media.track import Codec
from edged.wire.rtmp import (
    FFMPEG_LIKE,
    Closed,
    DataReceived,
    MetadataReceived,
    PeerTimedOut,
    Phase,
    PlayRefused,
    PublishAccepted,
    PublishEnded,
    PublishRefused,
    PublishRequested,
    ReconnectRequested,
    RtmpClientOptions,
    RtmpLimits,
    RtmpServerSession,
    RtmpState,
    ServerEvent,
    TrackAnnounced,
    UnitsUnusable,
    amf0,
    flv,
)
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.amf0 import UNDEFINED, AmfValue, EcmaArray
from edged.wire.rtmp.chunks import ChunkReader, ChunkWriter, ReaderState
from edged.wire.rtmp.handshake import PACKET_BYTES
from edged.wire.rtmp.messages import Command, Message
from edged.wire.rtmp.server import LATE_S_MAX, OUR_CHUNK_BYTES, WINDOW_BYTES
from edged.wire.rtmp.workload import BURST_S, CONFIG_COST
from tests.wire.rtmp.peers import (
    AAC,
    H264,
    accepted_pair,
    accepting,
    asked_pair,
    entropy,
    even_pieces,
    exchange,
    feed,
    h264_unit,
    pieces,
    unit,
)
from tests.wire.rtmp.record import CAPTURE, ORACLE

HANDSHAKE = b"\x03" + bytes(PACKET_BYTES) + bytes(PACKET_BYTES)
CONNECT_VALUES: list[AmfValue] = [{"app": "live", "flashVer": "test"}]


class Raw:
    """A peer that says what we like, message by message."""

    def __init__(self, limits: RtmpLimits | None = None) -> None:
        self.server = RtmpServerSession(now=0.0, entropy=entropy, limits=limits)
        self._writer = ChunkWriter()
        self._reader = ChunkReader(RtmpLimits())
        assert self.server.receive_data(HANDSHAKE, 0.0) == []
        self.server.data_to_send()

    def send(
        self, kind: int, body: bytes, stream_id: int = 0, timestamp: int = 0, now: float = 0.0
    ) -> list[ServerEvent]:
        wire = self._writer.write(3, Message(kind, timestamp, stream_id, body))
        return self.server.receive_data(b"".join(wire), now)

    def call(
        self, name: str, values: list[AmfValue], transaction_id: float = 7, stream_id: int = 0
    ) -> list[ServerEvent]:
        return self.send(m.COMMAND_AMF0, m.encode_command(name, transaction_id, values), stream_id)

    def heard(self) -> list[Message]:
        """What the server said since the last time."""
        return self._reader.receive_data(self.server.data_to_send())

    def commands(self) -> list[Command]:
        return [m.decode_command(i) for i in self.heard() if i.kind == m.COMMAND_AMF0]

    def publish(self) -> "Raw":
        self.call("connect", CONNECT_VALUES)
        self.call("createStream", [None])
        (asked,) = self.call("publish", [None, "key", "live"], stream_id=1)
        assert isinstance(asked, PublishRequested)
        assert self.server.accept_publish(0.0) == []
        self.heard()
        return self


def units_of(events: list[ServerEvent]) -> list[AccessUnit]:
    return [event for event in events if isinstance(event, AccessUnit)]


def test_a_publish_as_asked() -> None:
    _, server, asked = asked_pair()
    assert server.phase is Phase.ASKED
    assert (asked.app, asked.stream_key, asked.query) == ("live", "secret", {"token": "1"})
    assert asked.tc_url == "rtmp://127.0.0.1/live"
    assert asked.encoder == "FMLE/3.0 (compatible; edged)"
    assert asked.fourcc_list == ("avc1", "hvc1", "av01", "vp09", "mp4a", "Opus")


def test_connect_is_answered_in_the_order_that_encoders_need() -> None:
    raw = Raw()
    raw.call("connect", CONNECT_VALUES, transaction_id=1)
    window, bandwidth, chunk_size, result = raw.heard()
    assert (window.kind, bytes(window.body)) == (5, WINDOW_BYTES.to_bytes(4, "big"))
    assert (bandwidth.kind, bytes(bandwidth.body)) == (6, WINDOW_BYTES.to_bytes(4, "big") + b"\x02")
    assert (chunk_size.kind, bytes(chunk_size.body)) == (1, b"\0\1\0\0")
    assert OUR_CHUNK_BYTES >= 64 * 1024
    command = m.decode_command(result)
    assert (command.name, command.transaction_id) == ("_result", 1.0)
    assert command.members(1)["code"] == "NetConnection.Connect.Success"


def test_the_commands_of_an_encoder_are_answered() -> None:
    raw = Raw()
    raw.call("connect", CONNECT_VALUES)
    raw.heard()
    for name in ("releaseStream", "FCPublish", "_checkbw"):
        raw.call(name, [None, "key"], transaction_id=3)
        assert raw.commands() == [Command("_result", 3.0, [None, UNDEFINED])]
    raw.call("createStream", [None], transaction_id=4)
    assert raw.commands() == [Command("_result", 4.0, [None, 1.0])]
    raw.call("nonsense", [None], transaction_id=5)
    (error,) = raw.commands()
    assert (error.name, error.transaction_id) == ("_error", 5.0)
    assert error.members(1)["code"] == "NetConnection.Call.Failed"
    raw.call("nonsense", [None], transaction_id=0)
    raw.call("_result", [None], transaction_id=5)
    assert raw.commands() == []
    (_,) = raw.call("publish", [None, "key", "live"], stream_id=1)
    raw.server.accept_publish(0.0)
    heard = raw.heard()
    assert bytes(heard[0].body) == m.user_control(m.STREAM_BEGIN, 1)
    told, status = [m.decode_command(i) for i in heard[1:]]
    assert told.name == "onFCPublish"
    assert (status.name, heard[2].stream_id) == ("onStatus", 1)
    assert status.members(1)["code"] == "NetStream.Publish.Start"


def test_a_refusal_says_why_and_never_start() -> None:
    client, server, _ = asked_pair()
    server.refuse_publish("NetStream.Publish.BadName", "the key has expired")
    down = server.data_to_send()
    assert b"NetStream.Publish.Start" not in down
    assert client.receive_data(down, 0.0) == [
        PublishRefused("NetStream.Publish.BadName", "the key has expired")
    ]
    assert server.phase is Phase.CLOSED
    assert server.deadline == inf
    assert server.receive_data(b"whatever it sends now", 0.0) == []
    server.close("again", "is nothing")
    assert server.data_to_send() == b""


def test_closing_a_broadcast() -> None:
    client, server = accepted_pair()
    server.close("NetStream.Publish.Rejected", "taken over")
    assert client.receive_data(server.data_to_send(), 0.0) == [
        Closed("NetStream.Publish.Rejected", "taken over")
    ]
    shaking = RtmpServerSession(now=0.0, entropy=entropy)
    shaking.close("x", "there is nobody to tell")
    assert shaking.data_to_send() == b""


def test_a_reconnect_is_asked_only_of_who_can() -> None:
    client, server = accepted_pair()
    assert server.request_reconnect("update", "rtmp://other/live")
    assert exchange(client, server)[0] == [ReconnectRequested("rtmp://other/live", "update")]
    assert not Raw().publish().server.request_reconnect("update")


def test_units_and_metadata_arrive() -> None:
    client, server = accepted_pair()
    client.send_metadata({"framerate": 30.0, "encoder": "x"})
    client.send_track(H264)
    client.send_track(AAC)
    sent = [h264_unit(0, pts=6000, key=True, size=9000), unit(AAC, 0, b"aac"), h264_unit(3000)]
    for one in sent:
        client.send_unit(one, H264 if one.track_id == 1 else AAC)
    _, events = exchange(client, server)
    assert events[:3] == [
        MetadataReceived(EcmaArray(framerate=30.0, encoder="x")),
        TrackAnnounced(H264),
        TrackAnnounced(AAC),
    ]
    assert units_of(events) == sent
    statistics = server.statistics()
    assert (statistics.tracks, statistics.units, statistics.chunk_bytes) == (2, 3, 4096)
    assert statistics.received_bytes > 9000
    assert statistics.sent_bytes > 2 * PACKET_BYTES


def test_what_is_sent_before_the_answer_is_held() -> None:
    client, server, _ = asked_pair()
    up = feed_ahead()
    assert server.receive_data(memoryview(up), 0.0) == []
    events = server.accept_publish(0.0)
    assert isinstance(events[0], TrackAnnounced)
    assert len(units_of(events)) == 2
    assert client.receive_data(server.data_to_send(), 0.0) == [PublishAccepted()]


def feed_ahead() -> bytes:
    """Media as a client sends it that does not wait; the chunk size is as asked_pair left it."""
    writer = ChunkWriter(4096)
    bodies = [flv.make_config(Codec.H264, H264.config.record)]
    bodies += [
        flv.make_frames(Codec.H264, h264_unit(0, key=True, size=size).payload, key=True)
        for size in (10, 5000)
    ]
    sent = [writer.write(10, Message(m.VIDEO, 40 * i, 1, body)) for i, body in enumerate(bodies)]
    return b"".join(b"".join(chunks) for chunks in sent)


def test_held_bytes_at_the_limit_and_one_past_it() -> None:
    ahead = feed_ahead()
    reader = ChunkReader(RtmpLimits(), ReaderState(4096))
    size = sum(len(message.body) for message in reader.receive_data(ahead))
    _, server, _ = asked_pair(limits=RtmpLimits(held_bytes_max=size))
    server.receive_data(ahead, 0.0)
    _, server, _ = asked_pair(limits=RtmpLimits(held_bytes_max=size - 1))
    with pytest.raises(RemoteProtocolError, match="bytes before publish was answered"):
        server.receive_data(ahead, 0.0)


@pytest.mark.parametrize("name", ["FCUnpublish", "deleteStream", "closeStream"])
def test_a_broadcast_ends_in_good_order_and_may_begin_again(name: str) -> None:
    raw = Raw().publish()
    assert raw.call(name, [None, "key"]) == [PublishEnded(f"publisher sent {name}")]
    codes = [command.members(1).get("code") for command in raw.commands()]
    assert codes[-1] == "NetStream.Unpublish.Success"
    assert raw.call("deleteStream", [None, 1.0]) == []
    assert raw.send(m.VIDEO, b"\x17\x01\0\0\0late") == []  # It was under way.
    assert raw.server.deadline == RtmpLimits().publish_timeout_s
    (asked,) = raw.call("publish", [None, "key", "live"], stream_id=1)
    assert isinstance(asked, PublishRequested)
    raw.server.accept_publish(0.0)
    (told,) = raw.send(m.VIDEO, b"\x17\x01\0\0\0\0\0\0\x01\x65")
    assert told == UnitsUnusable(1, "h264 access unit on track 1 before its configuration")


def test_units_without_configuration_are_counted_and_no_sign_of_life() -> None:
    raw = Raw().publish()
    for ms in range(3):
        raw.send(m.VIDEO, b"\x17\x01\0\0\0\0\0\0\x01\x65", timestamp=ms)
    statistics = raw.server.statistics()
    assert (statistics.units_unusable, statistics.units) == (3, 0)
    assert raw.server.deadline == RtmpLimits().media_silence_s_max


@pytest.mark.parametrize(("count", "units"), [(1, "1 access unit"), (3, "3 access units")])
def test_who_never_sends_a_configuration_hears_of_it(count: int, units: str) -> None:
    raw = Raw(RtmpLimits(media_silence_s_max=8)).publish()
    for ms in range(count):
        raw.send(m.VIDEO, b"\x17\x01\0\0\0\0\0\0\x01\x65", timestamp=ms)
    reason = f"no sequence header, and so nothing of {units} that can be decoded, for 8 s"
    assert raw.server.handle_timeout(8.0) == [PeerTimedOut(reason)]
    assert raw.commands()[-1].members(1)["description"] == f"timeout: {reason}"


@pytest.mark.parametrize("begun", [True, False])
def test_who_falls_silent_is_not_told_of_what_came_too_early(begun: bool) -> None:
    raw = Raw(RtmpLimits(media_silence_s_max=8)).publish()
    raw.send(m.VIDEO, b"\x17\x01\0\0\0\0\0\0\x01\x65")
    raw.send(m.VIDEO, flv.make_config(Codec.H264, H264.config.record))
    if begun:
        raw.send(m.VIDEO, b"\x17\x01\0\0\0\0\0\0\x01\x65", timestamp=40)
    assert raw.server.handle_timeout(8.0) == [PeerTimedOut("no audio or video for 8 s")]


def test_nor_of_one_track_while_another_has_its_own() -> None:
    raw = Raw(RtmpLimits(media_silence_s_max=8)).publish()
    raw.send(m.VIDEO, flv.make_config(Codec.H264, H264.config.record))
    raw.send(m.AUDIO, b"\xaf\x01frame")
    assert raw.server.handle_timeout(8.0) == [PeerTimedOut("no audio or video for 8 s")]


def test_names_that_change_all_the_time_are_bounded_like_configurations() -> None:
    raw = Raw().publish()
    raw.send(m.VIDEO, flv.make_config(Codec.H264, H264.config.record))
    wire = [
        amf0.encode(["onMetaData", {"videoTrackIdInfoMap": {"0": {"name": f"rung {number}"}}}])
        for number in range(20_000)
    ]
    sent = iter(wire)
    with pytest.raises(RemoteProtocolError, match="commands in a burst"):
        collections.deque((raw.send(m.DATA_AMF0, body) for body in sent), maxlen=0)
    rest = len(list(sent))
    assert 0 < rest < len(wire)


def test_a_second_publish_is_refused_and_harms_nothing() -> None:
    raw = Raw().publish()
    assert raw.call("publish", [None, "other", "live"], stream_id=2) == []
    (status,) = raw.heard()
    assert status.stream_id == 2, "its own stream's, not the live one's"
    assert m.decode_command(status).members(1)["code"] == "NetStream.Publish.BadName"
    assert raw.server.phase is Phase.PUBLISHING


def test_another_message_streams_end_is_not_ours() -> None:
    raw = Raw().publish()
    assert raw.call("deleteStream", [None, 5.0]) == []
    assert raw.call("closeStream", [None], stream_id=5) == []
    assert raw.server.phase is Phase.PUBLISHING
    assert raw.call("deleteStream", [None, 1.0]) == [PublishEnded("publisher sent deleteStream")]


def test_before_the_grant_few_commands_are_taken() -> None:
    limits = RtmpLimits()
    raw = Raw()
    raw.call("connect", CONNECT_VALUES)
    for _ in range(limits.early_commands_max - 1):
        raw.call("FCUnpublish", [None])
    with pytest.raises(RemoteProtocolError, match="more than 64 commands before publish"):
        raw.call("FCUnpublish", [None])
    raw = Raw()
    raw.call("connect", CONNECT_VALUES)
    with pytest.raises(RemoteProtocolError, match="of more than 16384 bytes before publish"):
        raw.call("x", [None] * limits.early_command_bytes_max)


def test_before_the_grant_little_is_held() -> None:
    limits = RtmpLimits()
    raw = Raw()
    raw.call("connect", CONNECT_VALUES)
    begun = ChunkWriter().write(9, Message(m.VIDEO, 0, 1, bytes(limits.early_bytes_max)))
    raw.server.receive_data(begun[0], 0.0)
    begun = ChunkWriter().write(10, Message(m.VIDEO, 0, 1, b"x"))
    with pytest.raises(RemoteProtocolError, match="messages begun hold 262145 bytes"):
        raw.server.receive_data(begun[0], 0.0)
    raw = Raw()  # Nor by the process that takes such a session over.
    raw.call("connect", CONNECT_VALUES)
    successor = RtmpServerSession.from_state(raw.server.state(), now=0.0, entropy=entropy)
    begun = ChunkWriter().write(9, Message(m.VIDEO, 0, 1, bytes(limits.early_bytes_max + 1)))
    with pytest.raises(RemoteProtocolError, match="message of 262145 bytes"):
        successor.receive_data(begun[0], 0.0)
    raw = Raw().publish()  # Afterwards the usual limits hold.
    raw.send(m.VIDEO, b"\x57" + bytes(limits.early_bytes_max))


def test_commands_a_second_at_the_limit_and_one_past_it() -> None:
    raw = Raw(RtmpLimits(commands_per_s_max=3)).publish()
    for now, count in ((10.0, 3 * BURST_S), (11.0, 3)):
        for _ in range(count):
            raw.send(m.USER_CONTROL, m.user_control(m.PING_REQUEST, 0), now=now)
    with pytest.raises(RemoteProtocolError, match=f"more than {3 * BURST_S} commands in a burst"):
        raw.send(m.USER_CONTROL, m.user_control(m.PING_REQUEST, 0), now=11.5)


def test_new_configurations_count_as_commands() -> None:
    configs = [flv.make_config(Codec.AAC, aac.make_config(48_000, n % 2 + 1)) for n in range(200)]
    raw = Raw().publish()
    taken = BURST_S * RtmpLimits().commands_per_s_max // CONFIG_COST
    for n, config in enumerate(configs[:taken]):
        assert isinstance(raw.send(m.AUDIO, config, now=20.0)[0], TrackAnnounced), n
    with pytest.raises(RemoteProtocolError, match="commands in a burst"):
        raw.send(m.AUDIO, configs[taken], now=20.5)


def test_metadata_in_a_video_message_is_a_command_and_no_sign_of_life() -> None:
    raw = Raw(RtmpLimits(commands_per_s_max=1)).publish()
    body = bytes([0x84]) + b"avc1" + amf0.encode(["colorInfo", {"x": 1.0}])
    for _ in range(BURST_S):
        (told,) = raw.send(m.VIDEO, body, now=3.0)
        assert isinstance(told, DataReceived)
    assert raw.server.deadline == RtmpLimits().media_silence_s_max
    with pytest.raises(RemoteProtocolError, match="commands in a burst"):
        raw.send(m.VIDEO, body, now=3.0)
    large = bytes([0x84]) + b"avc1" + bytes(RtmpLimits().command_bytes_max + 1)
    with pytest.raises(RemoteProtocolError, match="metadata of 65537 bytes exceeds 65536"):
        Raw().publish().send(m.VIDEO, large)


def test_tiny_chunks_count_as_messages() -> None:
    body = b"\x57" + bytes(7999)  # A seek mark: no media.
    for chunk_size, fits in ((1, False), (2, True)):
        raw = Raw(RtmpLimits(messages_per_s_max=5000)).publish()
        raw.send(m.SET_CHUNK_SIZE, chunk_size.to_bytes(4, "big"))
        wire = b"".join(ChunkWriter(chunk_size).write(9, Message(m.VIDEO, 0, 1, body)))
        if fits:
            raw.server.receive_data(wire[:9000], 5.0)
            raw.server.receive_data(wire[9000:], 6.0)
        else:
            with pytest.raises(RemoteProtocolError, match="more than 5000 messages within"):
                raw.server.receive_data(wire, 5.0)


def test_playing_is_refused() -> None:
    raw = Raw()
    raw.call("connect", CONNECT_VALUES)
    raw.heard()
    assert raw.call("play", [None, "key"]) == [PlayRefused("live")]
    (status,) = raw.commands()
    assert status.members(1)["code"] == "NetStream.Play.Failed"
    assert raw.server.phase is Phase.CLOSED


def test_data_messages() -> None:
    raw = Raw()
    raw.call("connect", CONNECT_VALUES)
    assert raw.send(m.DATA_AMF0, amf0.encode(["onMetaData", {}])) == []  # Of no broadcast.
    raw = Raw().publish()
    values: dict[str, AmfValue] = {"framerate": 25.0}
    for kind, wrapper in ((m.DATA_AMF0, b""), (m.DATA_AMF3, b"\0")):
        body = wrapper + amf0.encode(["@setDataFrame", "onMetaData", values])
        assert raw.send(kind, body) == [MetadataReceived(values)]
    assert raw.send(m.DATA_AMF0, amf0.encode(["onMetaData", values])) == [MetadataReceived(values)]
    assert raw.send(m.DATA_AMF0, amf0.encode(["onCuePoint", values]), timestamp=40) == [
        DataReceived("onCuePoint", [values], 40)
    ]
    for ignored in (["@clearDataFrame", "onMetaData"], [None], []):
        assert raw.send(m.DATA_AMF0, amf0.encode(ignored)) == []


def test_an_aggregate_is_taken_apart() -> None:
    raw = Raw().publish()
    bodies = [
        flv.make_config(Codec.AAC, AAC.config.record),
        flv.make_frames(Codec.AAC, b"one", key=True),
        flv.make_frames(Codec.AAC, b"two", key=True),
    ]
    tags = b"".join(
        bytes([m.AUDIO]) + len(body).to_bytes(3, "big") + ms.to_bytes(3, "big") + bytes(4)
        + body + bytes(4)
        for ms, body in zip((500, 500, 521), bodies, strict=True)
    )  # fmt: skip
    events = raw.send(m.AGGREGATE, tags, 1, timestamp=1000)
    assert events[0] == TrackAnnounced(AAC)
    assert [(u.dts, u.payload) for u in units_of(events)] == [(48_000, b"one"), (49_024, b"two")]


def test_pings_both_ways() -> None:
    raw = Raw()
    raw.send(m.USER_CONTROL, m.user_control(m.PING_REQUEST, 77))
    (pong,) = raw.heard()
    assert bytes(pong.body) == m.user_control(m.PING_RESPONSE, 77)
    raw.send(m.USER_CONTROL, b"\0\x06")  # Cut short: nothing to answer.
    raw.send(m.USER_CONTROL, m.user_control(m.PING_RESPONSE, 1))
    assert raw.heard() == []
    assert raw.server.statistics().rtt_s is None
    raw.server.send_ping(1.5)
    (ping,) = raw.heard()
    assert bytes(ping.body) == m.user_control(m.PING_REQUEST, 1500)
    raw.send(m.USER_CONTROL, m.user_control(m.PING_RESPONSE, 1500), now=1.75)
    assert raw.server.statistics().rtt_s == 0.25


def test_acknowledgements_by_half_the_window_that_is_asked() -> None:
    raw = Raw().publish()
    raw.send(m.WINDOW_ACKNOWLEDGEMENT_SIZE, (20_000).to_bytes(4, "big"))
    before = raw.server.statistics().received_bytes
    raw.send(m.ACKNOWLEDGEMENT, bytes(4))
    raw.send(m.SHARED_OBJECT_AMF0, bytes(9_900 - before))
    assert raw.heard() == []
    raw.send(m.SHARED_OBJECT_AMF0, bytes(200))
    (ack,) = raw.heard()
    assert ack.kind == m.ACKNOWLEDGEMENT
    assert int.from_bytes(ack.body, "big") == raw.server.statistics().received_bytes
    raw.send(m.WINDOW_ACKNOWLEDGEMENT_SIZE, bytes(4))  # No ack for each byte.
    raw.send(m.SHARED_OBJECT_AMF0, bytes(3000))
    assert raw.heard() == []


def test_set_peer_bandwidth_is_answered() -> None:
    raw = Raw()
    raw.send(m.SET_PEER_BANDWIDTH, (5000).to_bytes(4, "big") + b"\0")
    (window,) = raw.heard()
    assert (window.kind, bytes(window.body)) == (5, (5000).to_bytes(4, "big"))


def test_deadlines_of_each_phase() -> None:
    limits = RtmpLimits(handshake_timeout_s=5, publish_timeout_s=10, media_silence_s_max=8)
    server = RtmpServerSession(now=100.0, entropy=entropy, limits=limits)
    assert server.deadline == 105.0
    server.receive_data(HANDSHAKE[:100], 104.0)  # A trickle gains nothing.
    assert server.deadline == 105.0
    assert server.handle_timeout(104.9) == []
    assert server.handle_timeout(105.0) == [PeerTimedOut("no handshake within 5 s")]
    assert server.deadline == inf
    server = RtmpServerSession(now=100.0, entropy=entropy, limits=limits)
    server.receive_data(HANDSHAKE, 101.0)
    server.receive_data(b"\x03", 110.0)
    assert server.handle_timeout(111.0) == [PeerTimedOut("no publish within 10 s")]


def test_media_silence_counts_units_and_configurations() -> None:
    raw = Raw(RtmpLimits(media_silence_s_max=8)).publish()
    assert raw.server.deadline == 8.0
    audio = flv.make_config(Codec.AAC, AAC.config.record)
    raw.send(m.AUDIO, audio, now=5.0)
    assert raw.server.deadline == 13.0
    raw.send(m.USER_CONTROL, m.user_control(m.PING_REQUEST, 0), now=6.0)
    begun = ChunkWriter().write(9, Message(m.VIDEO, 0, 1, bytes(1000)))
    for at, chunk in enumerate(begun[:-1]):  # A trickle of a message that never ends.
        raw.server.receive_data(chunk, 7.0 + at / 2)
    assert raw.server.deadline == 13.0
    for nothing in (b"", b"\x57\x00"):  # An empty message and a seek mark: no sign of media.
        raw.send(m.VIDEO, nothing, now=12.0)
    raw.send(m.AUDIO, audio, now=12.0)  # The same configuration again.
    raw.send(m.DATA_AMF0, amf0.encode(["onTextData", 1.0]), now=12.0)
    assert raw.server.deadline == 13.0
    reason = "no audio or video for 8 s"
    assert raw.server.handle_timeout(13.0) == [PeerTimedOut(reason)]


def test_a_late_timer_of_ours_gives_the_peer_more_time() -> None:
    _, server = accepted_pair()
    due = server.deadline
    late = due + LATE_S_MAX + 0.1
    assert server.handle_timeout(late) == []
    assert server.deadline == late + LATE_S_MAX
    assert server.handle_timeout(late + LATE_S_MAX) != []
    _, server = accepted_pair()
    assert server.handle_timeout(due + LATE_S_MAX) != []


def test_messages_a_second_at_the_limit_and_one_past_it() -> None:
    raw = Raw(RtmpLimits(messages_per_s_max=20))
    for now in (1.0, 2.0):
        for _ in range(20):
            raw.send(m.ACKNOWLEDGEMENT, bytes(4), now=now)
    with pytest.raises(RemoteProtocolError, match="more than 20 messages within a second"):
        raw.send(m.ACKNOWLEDGEMENT, bytes(4), now=2.9)


def test_message_streams_at_the_limit_and_one_past_it() -> None:
    raw = Raw(RtmpLimits(message_streams_max=2))
    raw.call("connect", CONNECT_VALUES)
    raw.call("createStream", [None])
    raw.call("createStream", [None])
    with pytest.raises(RemoteProtocolError, match="createStream more than 2 times"):
        raw.call("createStream", [None])


def test_command_bytes_at_the_limit_and_one_past_it() -> None:
    raw = Raw().publish()
    limit = RtmpLimits().command_bytes_max
    body = amf0.encode(["onTextData", "x" * (limit - 16)])
    raw.send(m.DATA_AMF0, body + bytes(limit - len(body)) if len(body) > limit else body)
    with pytest.raises(RemoteProtocolError, match=f"of {limit + 1} bytes exceeds {limit}"):
        raw.send(m.DATA_AMF0, bytes(limit + 1))
    raw = Raw().publish()
    with pytest.raises(RemoteProtocolError, match=f"of {limit + 1} bytes exceeds {limit}"):
        raw.send(m.COMMAND_AMF0, bytes(limit + 1))


def test_what_comes_out_of_turn() -> None:
    with pytest.raises(RemoteProtocolError, match="command 'createStream' before connect"):
        Raw().call("createStream", [None])
    with pytest.raises(RemoteProtocolError, match="audio or video before publish"):
        Raw().send(m.VIDEO, b"\x17")
    with pytest.raises(RemoteProtocolError, match="message type 99 is not known"):
        Raw().send(99, b"")
    raw = Raw().publish()
    with pytest.raises(RemoteProtocolError, match="connect for a second time"):
        raw.call("connect", CONNECT_VALUES)


def capture_units() -> list[ServerEvent]:
    server = RtmpServerSession(now=0.0, entropy=entropy)
    return feed(server, even_pieces(CAPTURE.read_bytes(), 1448))


def test_debians_ffmpeg_unit_for_unit() -> None:
    """The recorded publish of Debian's ffmpeg has just what ffmpeg says is in its file."""
    events = capture_units()
    asked = events[0]
    assert isinstance(asked, PublishRequested)
    assert (asked.app, asked.stream_key, asked.query) == ("live", "secret", {"session": "1"})
    assert asked.encoder.startswith("FMLE/3.0 (compatible; Lavf")
    assert isinstance(events[1], MetadataReceived)
    assert events[-1] == PublishEnded("publisher sent FCUnpublish")
    units = units_of(events)
    for stream, track_id, ticks in ((0, 1, 6), (1, 2, 1)):  # 90,000 / 15,360 is 5.859...
        expected = oracle(stream)
        ours = [one for one in units if one.track_id == track_id]
        assert [len(one.payload) for one in ours] == [row[2] for row in expected]
        assert [digest(one.payload) for one in ours] == [row[3] for row in expected]
        scale = 90_000 / 15_360 if track_id == 1 else 1
        dts = [round((row[0] - expected[0][0]) * scale) for row in expected]
        assert [one.dts - ours[0].dts for one in ours] == dts, ticks
        shown = [round((row[1] - row[0]) * scale) for row in expected]
        assert [one.pts - one.dts for one in ours] == shown
    assert [one.random_access for one in units if one.track_id == 1] == 2 * [True, *29 * [False]]


def oracle(stream: int) -> list[tuple[int, int, int, str]]:
    """dts, pts, size and MD5 of each packet of a stream, in its own timescale."""
    rows = [line.split(",") for line in ORACLE.read_text().splitlines() if line[0] != "#"]
    return [
        (int(row[1]), int(row[2]), int(row[4]), row[5].strip())
        for row in rows
        if int(row[0]) == stream
    ]


def digest(payload: bytes) -> str:
    return hashlib.md5(payload, usedforsecurity=False).hexdigest()


@hypothesis.given(st.lists(st.integers(0, 18_830), max_size=12))
@hypothesis.settings(max_examples=15, deadline=None)
def test_any_split_and_any_hand_over_of_the_capture_give_the_same(cuts: list[int]) -> None:
    wire = CAPTURE.read_bytes()
    server = RtmpServerSession(now=0.0, entropy=entropy)
    events: list[ServerEvent] = []
    sent = b""
    for piece in pieces(wire, cuts):
        events += feed(server, [piece])
        packed = msgspec.msgpack.encode(server.state())
        state = msgspec.msgpack.decode(packed, type=RtmpState)
        server = RtmpServerSession.from_state(state, now=0.0, entropy=entropy)
        sent += server.data_to_send()
    assert events == capture_units()
    whole = RtmpServerSession(now=0.0, entropy=entropy)
    feed(whole, [wire])
    assert sent == whole.data_to_send()


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=15, deadline=None)
def test_a_hand_over_at_each_step_of_a_broadcast(data: st.DataObject) -> None:
    options = data.draw(st.sampled_from([None, FFMPEG_LIKE, RtmpClientOptions(amf3_commands=True)]))
    client, _, _ = asked_pair(options)
    _, server, _ = asked_pair(options)
    server.accept_publish(0.0)
    client.receive_data(server.data_to_send(), 0.0)
    client.send_track(H264)
    client.send_track(AAC)
    for index in range(6):
        client.send_unit(h264_unit(index * 3000, pts=(index + 2) * 3000, size=700), H264)
        client.send_unit(unit(AAC, index * 1024, b"aac"), AAC)
    client.close()
    wire = client.data_to_send()
    cut = data.draw(st.integers(0, len(wire)))
    whole = RtmpServerSession.from_state(server.state(), now=0.0, entropy=entropy)
    events = feed(server, [wire[:cut]])
    successor = RtmpServerSession.from_state(server.state(), now=50.0, entropy=entropy)
    assert successor.deadline > 50.0
    assert successor.bytes_wanted == server.bytes_wanted
    events += feed(successor, [wire[cut:]])
    assert events == feed(whole, [wire])


def test_a_hand_over_while_a_publish_is_decided() -> None:
    _, server, _ = asked_pair()
    server.receive_data(feed_ahead(), 0.0)
    successor = RtmpServerSession.from_state(server.state(), now=9.0, entropy=entropy)
    assert successor.deadline == inf
    assert successor.accept_publish(9.0) == server.accept_publish(0.0)
    shaking = RtmpServerSession(now=0.0, entropy=entropy)
    successor = RtmpServerSession.from_state(shaking.state(), now=9.0, entropy=entropy)
    assert successor.deadline == 9.0 + RtmpLimits().handshake_timeout_s
    raw = Raw()
    successor = RtmpServerSession.from_state(raw.server.state(), now=9.0, entropy=entropy)
    assert successor.deadline == 9.0 + RtmpLimits().publish_timeout_s


def test_a_state_is_a_copy() -> None:
    client, server = accepted_pair()
    client.send_track(H264)
    exchange(client, server)
    state = server.state()
    before = msgspec.msgpack.encode(state)
    client.send_unit(h264_unit(0, key=True), H264)
    exchange(client, server)
    assert msgspec.msgpack.encode(state) == before


@hypothesis.given(st.binary(max_size=300), st.booleans(), st.floats(0, 100))
@hypothesis.settings(max_examples=100, deadline=None)
def test_garbage_raises_only_what_it_may(garbage: bytes, publishing: bool, now: float) -> None:
    server = Raw().publish().server if publishing else RtmpServerSession(now=0.0, entropy=entropy)
    with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
        accepting(server, server.receive_data(garbage, now))
        server.handle_timeout(now)
        assert server.deadline > now or server.handle_timeout(now) == []


@hypothesis.given(st.integers(0, 18_800), st.binary(min_size=1, max_size=40))
@hypothesis.settings(max_examples=60, deadline=None)
def test_a_spoiled_capture_raises_only_what_it_may(at: int, garbage: bytes) -> None:
    wire = bytearray(CAPTURE.read_bytes())
    wire[at : at + len(garbage)] = garbage
    server = RtmpServerSession(now=0.0, entropy=entropy)
    with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
        feed(server, even_pieces(bytes(wire), 4000))
