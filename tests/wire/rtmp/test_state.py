import msgspec

from edged.wire.rtmp.state import Phase, RtmpState, RtmpStatistics
from tests.wire.rtmp.peers import H264, accepted_pair, exchange, h264_unit


def test_a_state_is_plain_data() -> None:
    client, server = accepted_pair()
    client.send_track(H264)
    client.send_unit(h264_unit(0, key=True, size=9000), H264)
    exchange(client, server)
    state = server.state()
    assert state.phase is Phase.PUBLISHING
    packed = msgspec.msgpack.encode(state)
    again = msgspec.msgpack.decode(packed, type=RtmpState)
    assert msgspec.msgpack.encode(again) == packed
    assert again == state
    assert b"secret" not in packed, "the key stays with the grant"


def test_the_statistics_begin_at_nothing() -> None:
    assert RtmpStatistics().chunk_bytes == 128
    assert RtmpStatistics().rtt_s is None
