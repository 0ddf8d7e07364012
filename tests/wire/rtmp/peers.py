"""Two cores joined, and media to send between them, for the tests of this folder."""

import functools
import itertools
from collections.abc import Iterable, Sequence

from edged.media import aac, h264, opus
from edged.media.access_unit import AccessUnit
from edged.media.track import Codec, CodecConfig, Track
from edged.wire.rtmp import (
    ClientEvent,
    PublishAccepted,
    PublishRequested,
    RtmpClientOptions,
    RtmpClientSession,
    RtmpLimits,
    RtmpServerSession,
    ServerEvent,
    parse_url,
)

URL = parse_url("rtmp://127.0.0.1/live/secret?token=1")
# Of a 128x72, 30 frames a second x264 stream: tests/captures/ffmpeg-h264-aac.
SPS = bytes.fromhex("6764000aacd9420bf9701100000300010000030 03c0f12259601".replace(" ", ""))
PPS = bytes.fromhex("68ebe084b22c")
H264_CONFIG = h264.parse_config(h264.make_record([SPS], [PPS]))
H264 = Track(track_id=1, codec=Codec.H264, timescale=90_000, config=H264_CONFIG)
AAC_CONFIG = aac.parse_config(aac.make_config(48_000, 2))
AAC = Track(track_id=2, codec=Codec.AAC, timescale=48_000, config=AAC_CONFIG)
OPUS_CONFIG = opus.parse_config(
    opus.make_record(
        opus.Header(
            channels=2,
            pre_skip=312,
            input_sample_rate=48_000,
            output_gain=0,
            family=0,
            mapping=b"",
        )
    )
)
OPUS = Track(track_id=2, codec=Codec.OPUS, timescale=48_000, config=OPUS_CONFIG)
OPUS_20_MS = b"\xfc"  # TOC byte: CELT, 20 ms, stereo, one frame.


@functools.cache
def entropy(size: int) -> bytes:
    """Bytes that are the same in every run."""
    return bytes(index * 7 % 251 for index in range(size))


def track_of(config: CodecConfig, track_id: int) -> Track:
    """A track of that configuration with the timescale that RTMP gives it."""
    timescale = 90_000 if config.codec.kind == "video" else config.sample_rate
    return Track(track_id=track_id, codec=config.codec, timescale=timescale, config=config)


def unit(
    track: Track, dts: int, payload: bytes, *, pts: int | None = None, key: bool = True
) -> AccessUnit:
    """A unit as the server core makes it: without seq and wallclock."""
    return AccessUnit(
        track_id=track.track_id,
        seq=0,
        config_id=track.config_id,
        pts=dts if pts is None else pts,
        dts=dts,
        wallclock_us=0,
        payload=payload,
        random_access=key,
    )


def h264_unit(
    dts: int, *, pts: int | None = None, key: bool = False, size: int = 100, track: Track = H264
) -> AccessUnit:
    """One slice of `size` bytes in all, IDR or not."""
    nal = bytes([0x65 if key else 0x41]) + bytes(size - 5)
    return unit(track, dts, len(nal).to_bytes(4, "big") + nal, pts=pts, key=key)


def exchange(
    client: RtmpClientSession, server: RtmpServerSession, now: float = 0.0
) -> tuple[list[ClientEvent], list[ServerEvent]]:
    """Carry bytes both ways until both are silent."""
    ours: list[ClientEvent] = []
    theirs: list[ServerEvent] = []
    while True:
        up = client.data_to_send()
        if up:
            theirs += server.receive_data(up, now)
        down = server.data_to_send()
        if down:
            ours += client.receive_data(down, now)
        if not up and not down:
            return ours, theirs


def asked_pair(
    options: RtmpClientOptions | None = None, limits: RtmpLimits | None = None
) -> tuple[RtmpClientSession, RtmpServerSession, PublishRequested]:
    """A client and a server that has been asked to publish."""
    client = RtmpClientSession(now=0.0, entropy=entropy, url=URL, options=options)
    server = RtmpServerSession(now=0.0, entropy=entropy, limits=limits)
    ours, theirs = exchange(client, server)
    assert not ours
    (asked,) = theirs
    assert isinstance(asked, PublishRequested)
    return client, server, asked


def accepted_pair(
    options: RtmpClientOptions | None = None, limits: RtmpLimits | None = None
) -> tuple[RtmpClientSession, RtmpServerSession]:
    """A client and a server that publish."""
    client, server, _ = asked_pair(options, limits)
    assert server.accept_publish(0.0) == []
    ours, theirs = exchange(client, server)
    assert ours == [PublishAccepted()]
    assert theirs == []
    return client, server


def pieces(wire: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`wire` cut at those places."""
    places = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    return [wire[start:end] for start, end in itertools.pairwise(places)]


def even_pieces(wire: bytes, size: int) -> list[bytes]:
    """`wire` in pieces of `size` bytes."""
    return [wire[start : start + size] for start in range(0, len(wire), size)]


def feed(server: RtmpServerSession, parts: Iterable[bytes], now: float = 0.0) -> list[ServerEvent]:
    """Give the pieces in a buffer that is used again; a publish is accepted at once."""
    events: list[ServerEvent] = []
    for piece in parts:
        buffer = bytearray(piece)
        events += accepting(server, server.receive_data(memoryview(buffer), now))
        buffer[:] = len(buffer) * b"\xee"  # Whoever kept a view of it is found out.
    return events


def accepting(server: RtmpServerSession, events: Sequence[ServerEvent]) -> list[ServerEvent]:
    """The events, and those that follow when a publish among them is accepted."""
    out = list(events)
    if any(isinstance(event, PublishRequested) for event in events):
        out += server.accept_publish(0.0)
    return out
