"""What the load generator sends: real codec configurations, then a pattern of units for ever.

The H.264 and AAC configurations, slice headers and frame headers come from a tiny encode by FFmpeg;
the rest of each payload is noise without zero bytes (so it holds no start code), and the marker
that native/generator.c stamps. Chunked as OBS does: 4096-byte chunks, and a type 1 header (a
timestamp delta) for each message, so that the pattern repeats unchanged.
"""

import io
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import av

PERIOD_S: Final = 8  # As in generator.c: 240 pictures, 375 AAC frames.
FRAME_RATE: Final = 30
SAMPLE_RATE: Final = 48_000
PICTURES: Final = PERIOD_S * FRAME_RATE
AUDIO_FRAMES: Final = PERIOD_S * SAMPLE_RATE // 1024
GOP_PICTURES: Final = 60
STREAM_BITS_PER_S: Final = 6_250_000  # Video and audio, without RTMP's own headers.
AUDIO_PAYLOAD_BYTES: Final = 427  # 160 kbit/s.
IDR_TIMES_MEAN: Final = 5.0  # An IDR is this many times the mean picture.
CHUNK_BYTES: Final = 4096
MARKER_BYTES: Final = 24  # As in native/common.h.
HEADER_BYTES_KEPT: Final = 32  # Of the real slices and AAC frames.

AUDIO: Final = 8
VIDEO: Final = 9
_CHUNK_STREAM: Final = {AUDIO: 4, VIDEO: 6}
_VIDEO_TAG: Final = {
    True: b"\x17\x01\x00\x00\x00",
    False: b"\x27\x01\x00\x00\x00",
}  # AVC NALU, composition time 0.
_AUDIO_TAG: Final = b"\xaf\x01"


AmfValue = str | float | None | Mapping[str, "AmfValue"]


class Encoded(NamedTuple):
    """What is taken from the real encode."""

    video_config: bytes  # FLV tag bodies, as RTMP carries them.
    audio_config: bytes
    idr: bytes  # The start of a NAL unit.
    non_idr: bytes
    audio: bytes  # The start of a raw AAC frame.


class Unit(NamedTuple):
    """One message of the pattern; its payload's last MARKER_BYTES are the marker's place."""

    type: int
    delta_ms: int
    payload: bytes


def _flv_tags(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 9 + 4
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        yield data[at], data[at + 11 : at + 11 + size]
        at += 11 + size + 4


def _nal_units(payload: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(payload):
        size = int.from_bytes(payload[at : at + 4], "big")
        yield payload[at + 4 : at + 4 + size]
        at += 4 + size


def _pictures(rng: random.Random) -> Iterator[av.VideoFrame]:
    for _ in range(4):
        picture = av.VideoFrame(1920, 1080, "yuv420p")
        for plane in picture.planes:
            plane.update(rng.randbytes(plane.buffer_size))
        yield picture


def _sounds(rng: random.Random) -> Iterator[av.AudioFrame]:
    for n in range(8):
        sound = av.AudioFrame("s16", "stereo", 1024)
        sound.planes[0].update(rng.randbytes(sound.planes[0].buffer_size))
        sound.sample_rate, sound.pts = SAMPLE_RATE, n * 1024
        yield sound


def encode() -> Encoded:
    """Encode a few pictures and a little sound, and keep what makes a stream look real."""
    out, rng = io.BytesIO(), random.Random(1)  # noqa: S311 - no secret
    with av.open(out, "w", format="flv") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE)
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        video.options = {
            "preset": "ultrafast",
            "bf": "0",
            "threads": "1",
        }
        audio = container.add_stream("aac", rate=SAMPLE_RATE)
        for picture in _pictures(rng):
            container.mux(video.encode(picture))
        for sound in _sounds(rng):
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    tags = list(_flv_tags(out.getvalue()))
    nals = [
        n for kind, body in tags if kind == VIDEO and body[1] == 1 for n in _nal_units(body[5:])
    ]
    frames = [body[2:] for kind, body in tags if kind == AUDIO and body[1] == 1]
    return Encoded(
        video_config=next(body for kind, body in tags if kind == VIDEO and body[1] == 0),
        audio_config=next(body for kind, body in tags if kind == AUDIO and body[1] == 0),
        idr=next(nal for nal in nals if nal[0] & 31 == 5)[:HEADER_BYTES_KEPT],
        non_idr=next(nal for nal in nals if nal[0] & 31 == 1)[:HEADER_BYTES_KEPT],
        audio=max(frames, key=len)[:HEADER_BYTES_KEPT],
    )


def _whole_marker(size: int) -> int:
    """The message size nearest below whose marker no chunk boundary cuts."""
    return size - size % CHUNK_BYTES if 0 < size % CHUNK_BYTES < MARKER_BYTES else size


def _picture_sizes(rng: random.Random) -> list[int]:
    """Message sizes of a period's pictures: a large IDR each GOP, the others around their mean."""
    audio_bytes = AUDIO_FRAMES * (len(_AUDIO_TAG) + AUDIO_PAYLOAD_BYTES)
    mean = (PERIOD_S * STREAM_BITS_PER_S / 8 - audio_bytes) / PICTURES
    sizes: list[int] = []
    while len(sizes) < PICTURES:
        weights = [rng.uniform(0.5, 1.5) for _ in range(GOP_PICTURES - 1)]
        share = (GOP_PICTURES - IDR_TIMES_MEAN) * mean / sum(weights)
        sizes.append(_whole_marker(round(IDR_TIMES_MEAN * mean)))
        sizes += [_whole_marker(round(weight * share)) for weight in weights]
    return sizes


def _tick_ms(n: int, rate: float) -> int:
    return round(n * 1000 / rate)


def make_units(encoded: Encoded) -> list[Unit]:
    """One period in the order of its timestamps, which end at PERIOD_S so that it can repeat."""
    rng = random.Random(1)  # noqa: S311 - no secret
    noise = bytes(rng.choices(range(1, 256), k=200_000))
    timed: list[tuple[int, Unit]] = []
    for n, size in enumerate(_picture_sizes(rng)):
        is_idr = n % GOP_PICTURES == 0
        tag, head = _VIDEO_TAG[is_idr], encoded.idr if is_idr else encoded.non_idr
        nal_bytes = size - len(tag) - 4
        payload = tag + nal_bytes.to_bytes(4, "big") + head + noise[: nal_bytes - len(head)]
        at, after = _tick_ms(n, FRAME_RATE), _tick_ms(n + 1, FRAME_RATE)
        timed.append((after, Unit(VIDEO, after - at, payload)))
    for n in range(AUDIO_FRAMES):
        payload = _AUDIO_TAG + encoded.audio + noise[: AUDIO_PAYLOAD_BYTES - len(encoded.audio)]
        at, after = _tick_ms(n, SAMPLE_RATE / 1024), _tick_ms(n + 1, SAMPLE_RATE / 1024)
        timed.append((after, Unit(AUDIO, after - at, payload)))
    return [unit for _, unit in sorted(timed, key=lambda item: item[0])]


def _chunks(header: bytes, chunk_stream: int, payload: bytes) -> bytes:
    pieces = [payload[at : at + CHUNK_BYTES] for at in range(0, len(payload), CHUNK_BYTES)]
    return header + bytes([0xC0 | chunk_stream]).join(pieces)


def _message(chunk_stream: int, kind: int, message_stream: int, payload: bytes) -> bytes:
    """A whole message with a type 0 header and timestamp 0."""
    sizes = bytes(3) + len(payload).to_bytes(3, "big") + bytes([kind])
    header = bytes([chunk_stream]) + sizes + message_stream.to_bytes(4, "little")
    return _chunks(header, chunk_stream, payload)


def make_pattern(units: Sequence[Unit]) -> tuple[bytes, list[int]]:
    """The period's chunks, and where in them each unit's marker lies."""
    pattern, markers = bytearray(), []
    for unit in units:
        stream = _CHUNK_STREAM[unit.type]
        sizes = unit.delta_ms.to_bytes(3, "big") + len(unit.payload).to_bytes(3, "big")
        pattern += _chunks(
            bytes([0x40 | stream]) + sizes + bytes([unit.type]), stream, unit.payload
        )
        markers.append(len(pattern) - MARKER_BYTES)
    return bytes(pattern), markers


def _amf(value: AmfValue) -> bytes:
    if value is None:
        return b"\x05"
    if isinstance(value, str):
        return b"\x02" + _amf_key(value)
    if isinstance(value, Mapping):
        return b"\x03" + b"".join(_amf_key(k) + _amf(v) for k, v in value.items()) + b"\x00\x00\x09"
    return b"\x00" + struct.pack(">d", value)


def _amf_key(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _command(*values: AmfValue, message_stream: int = 0) -> bytes:
    return _message(3, 20, message_stream, b"".join(map(_amf, values)))


def make_session(encoded: Encoded, url: str, key: str) -> list[bytes]:
    """What one publisher says, in the four blobs that generator.c sends in turn."""
    app = url.rpartition("/")[2]
    metadata: dict[str, AmfValue] = {
        "width": 1920.0,
        "height": 1080.0,
        "framerate": float(FRAME_RATE),
        "videocodecid": 7.0,
        "audiocodecid": 10.0,
        "audiosamplerate": float(SAMPLE_RATE),
        "audiochannels": 2.0,
        "encoder": "edged ingest bench",
    }
    set_chunk_size = _message(2, 1, 0, CHUNK_BYTES.to_bytes(4, "big"))
    connect = {
        "app": app,
        "type": "nonprivate",
        "flashVer": "FMLE/3.0",
        "swfUrl": url,
        "tcUrl": url,
    }
    return [
        set_chunk_size + _command("connect", 1.0, connect),
        _command("releaseStream", 2.0, None, key)
        + _command("FCPublish", 3.0, None, key)
        + _command("createStream", 4.0, None),
        _command("publish", 5.0, None, key, "live", message_stream=1),
        _message(4, 18, 1, _amf("@setDataFrame") + _amf("onMetaData") + _amf(metadata))
        + _message(_CHUNK_STREAM[VIDEO], VIDEO, 1, encoded.video_config)
        + _message(_CHUNK_STREAM[AUDIO], AUDIO, 1, encoded.audio_config),
    ]


def write_files(directory: Path, url: str, keys: Sequence[str]) -> None:
    """Write what generator.c reads: `url` is rtmp://HOST/APP, each of `keys` one publisher's."""
    encoded = encode()
    pattern, markers = make_pattern(make_units(encoded))
    (directory / "pattern.bin").write_bytes(pattern)
    (directory / "markers.bin").write_bytes(b"".join(at.to_bytes(4, "big") for at in markers))
    sessions = (blob for key in keys for blob in make_session(encoded, url, key))
    (directory / "sessions.bin").write_bytes(
        b"".join(len(b).to_bytes(4, "big") + b for b in sessions)
    )
