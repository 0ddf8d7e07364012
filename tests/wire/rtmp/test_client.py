import contextlib
from math import inf

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.track import Codec, Track
from edged.wire.rtmp import (
    FFMPEG_LIKE,
    Closed,
    PeerTimedOut,
    PublishAccepted,
    PublishEnded,
    PublishRefused,
    RtmpClientOptions,
    RtmpClientSession,
    TrackAnnounced,
)
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.amf0 import AmfValue
from edged.wire.rtmp.chunks import ChunkReader, ChunkWriter
from edged.wire.rtmp.client import ACCEPT_TIMEOUT_S, Step
from edged.wire.rtmp.handshake import PACKET_BYTES
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.messages import Message
from tests.wire.rtmp.peers import (
    AAC,
    H264,
    H264_CONFIG,
    OPUS,
    OPUS_20_MS,
    URL,
    accepted_pair,
    asked_pair,
    entropy,
    exchange,
    h264_unit,
    track_of,
    unit,
)

BEHAVIOURS = {
    "obs": RtmpClientOptions(),
    "ffmpeg": FFMPEG_LIKE,
    "enhanced": RtmpClientOptions(enhanced=True),
    "amf3": RtmpClientOptions(amf3_commands=True, handshake_scheme=0),
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_broadcast_of_each_kind_of_encoder(name: str) -> None:
    client, server = accepted_pair(BEHAVIOURS[name])
    assert client.step is Step.PUBLISHING
    second = track_of(H264_CONFIG, 3)
    client.send_track(H264)
    client.send_track(AAC)
    client.send_track(second)
    sent = [
        (h264_unit(0, pts=6000, key=True, size=20_000), H264),
        (unit(AAC, 0, b"aac"), AAC),
        (h264_unit(0, key=True, track=second), second),
        (h264_unit(3000, pts=3000), H264),
        (h264_unit(6000, pts=15_000), H264),
    ]
    for one, track in sent:
        client.send_unit(one, track)
    _, events = exchange(client, server)
    assert events[:3] == [TrackAnnounced(H264), TrackAnnounced(AAC), TrackAnnounced(second)]
    units = [event for event in events[3:] if isinstance(event, AccessUnit)]
    assert units == [one for one, _ in sent]
    assert client.statistics().units == 5
    client.close()
    _, events = exchange(client, server)
    assert events == [PublishEnded("publisher sent FCUnpublish")]


def test_chunk_sizes() -> None:
    """OBS keeps to 4096; ffmpeg mirrors the server, and begins with 128."""
    _, server = accepted_pair(BEHAVIOURS["obs"])
    assert server.statistics().chunk_bytes == 4096
    _, server = accepted_pair(FFMPEG_LIKE)
    assert server.statistics().chunk_bytes == 65536


def test_each_chunk_alone_as_obs_sends_it() -> None:
    client, _ = accepted_pair()
    client.send_track(H264)
    client.chunks_to_send()
    client.send_unit(h264_unit(0, key=True, size=10_000), H264)
    queued = client.queued_bytes
    chunks = client.chunks_to_send()
    assert [len(chunk) for chunk in chunks] == [4096 + 8, 4097, 1 + 10_005 - 8192]
    assert sum(map(len, chunks)) == queued
    assert client.data_to_send() == b""


def test_opus_and_nanoseconds() -> None:
    client, server = accepted_pair()
    client.send_track(OPUS)
    client.send_unit(unit(OPUS, 0, OPUS_20_MS), OPUS, nano=1)
    client.send_unit(unit(OPUS, 960, OPUS_20_MS), OPUS)
    _, events = exchange(client, server)
    assert events[0] == TrackAnnounced(OPUS)
    assert [event.dts for event in events[1:] if isinstance(event, AccessUnit)] == [0, 960]


def test_two_audio_tracks() -> None:
    client, server = accepted_pair()
    second = Track(track_id=4, codec=Codec.AAC, timescale=48_000, config=AAC.config)
    client.send_track(AAC)
    client.send_track(second)
    assert exchange(client, server)[1] == [TrackAnnounced(AAC), TrackAnnounced(second)]


def test_a_server_that_does_not_answer() -> None:
    client = RtmpClientSession(now=10.0, entropy=entropy, url=URL)
    assert client.next_timeout() == 10.0 + ACCEPT_TIMEOUT_S
    assert client.handle_timeout(10.0 + ACCEPT_TIMEOUT_S - 0.1) == []
    (lost,) = client.handle_timeout(10.0 + ACCEPT_TIMEOUT_S)
    assert lost == PeerTimedOut("no answer to handshake within 15.0 s")
    assert client.next_timeout() == inf
    assert client.receive_data(b"too late", 99.0) == []
    client, _ = accepted_pair()
    assert client.next_timeout() == inf


class Server:
    """A server that says what we like."""

    def __init__(self) -> None:
        self.client = RtmpClientSession(now=0.0, entropy=entropy, url=URL)
        self._writer = ChunkWriter()
        self._reader = ChunkReader(RtmpLimits())
        self.client.data_to_send()
        self.client.receive_data(b"\x03" + bytes(2 * PACKET_BYTES), 0.0)
        self._reader.receive_data(self.client.data_to_send()[PACKET_BYTES:])

    def say(self, kind: int, body: bytes) -> list[object]:
        wire = b"".join(self._writer.write(3, Message(kind, 0, 0, body)))
        return list(self.client.receive_data(wire, 0.0))

    def call(self, name: str, transaction_id: float, values: list[AmfValue]) -> list[object]:
        return self.say(m.COMMAND_AMF0, m.encode_command(name, transaction_id, values))

    def heard(self) -> list[Message]:
        return self._reader.receive_data(self.client.data_to_send())


def test_connect_refused() -> None:
    server = Server()
    info: dict[str, AmfValue] = {
        "level": "error",
        "code": "NetConnection.Connect.Rejected",
        "description": "no such app",
    }
    assert server.call("_error", 9, [None, info]) == []  # To what we did not ask.
    assert server.call("_error", 1, [None, info]) == [
        PublishRefused("NetConnection.Connect.Rejected", "no such app")
    ]
    assert server.client.step is Step.CLOSED
    assert server.call("_result", 1, [None]) == []


def test_a_stream_id_that_is_none() -> None:
    for value in ("1", 0.0, float("nan")):
        server = Server()
        server.call("_result", 1, [None])
        with pytest.raises(RemoteProtocolError, match="createStream gave the stream id"):
            server.call("_result", 4, [None, value])


def test_answers_to_a_server_and_its_status() -> None:
    server = Server()
    server.say(m.USER_CONTROL, m.user_control(m.PING_REQUEST, 5))
    server.say(m.USER_CONTROL, m.user_control(m.STREAM_BEGIN, 5))
    server.say(m.SET_PEER_BANDWIDTH, (1000).to_bytes(4, "big") + b"\2")
    server.say(m.WINDOW_ACKNOWLEDGEMENT_SIZE, (80).to_bytes(4, "big"))
    server.say(m.ACKNOWLEDGEMENT, (77).to_bytes(4, "big"))
    server.say(m.SET_CHUNK_SIZE, (300).to_bytes(4, "big"))
    pong, window, ack = server.heard()
    assert bytes(pong.body) == m.user_control(m.PING_RESPONSE, 5)
    assert (window.kind, bytes(window.body)) == (5, (1000).to_bytes(4, "big"))
    assert ack.kind == m.ACKNOWLEDGEMENT
    assert server.client.statistics().acknowledged_bytes == 77
    assert server.call("onStatus", 0, [None, {"level": "status", "code": "X"}]) == []


def test_the_end_of_a_broadcast_by_the_server() -> None:
    client, server = accepted_pair()
    server.close("NetConnection.Connect.AppShutdown", "drain")
    assert exchange(client, server)[0] == [Closed("NetConnection.Connect.AppShutdown", "drain")]
    client.close()
    assert client.data_to_send() == b""


def test_events_in_one_piece_with_the_acceptance() -> None:
    client, server, _ = asked_pair()
    server.accept_publish(0.0)
    server.close("A.B", "at once")
    assert client.receive_data(server.data_to_send(), 0.0) == [
        PublishAccepted(),
        Closed("A.B", "at once"),
    ]


@hypothesis.given(st.binary(max_size=200), st.booleans())
@hypothesis.settings(max_examples=60, deadline=None)
def test_garbage_raises_only_a_protocol_error(garbage: bytes, shaken: bool) -> None:
    client = RtmpClientSession(now=0.0, entropy=entropy, url=URL)
    head = b"\x03" + bytes(2 * PACKET_BYTES) if shaken else b""
    with contextlib.suppress(RemoteProtocolError):
        client.receive_data(head + garbage, 0.0)
