"""The child process that tries one encoder: `python -m edged.origin.encoder_probe_child ENCODER`.

It encodes generated pictures as a ladder does and looks at what comes out: each picture once and in
order, random access where it was asked for and nowhere else, and, decoded, the pictures that went
in. A driver may crash or hang over it; that is why it is a process of its own.
"""

import sys
from fractions import Fraction
from typing import cast

import av
import av.logging
import msgspec
from av.video.frame import PictureType

from edged.errors import EdgedError, EncoderError
from edged.media.ladder import LadderPlan, VideoRung
from edged.media.track import CodecConfig
from edged.origin import encoders
from edged.origin.encoders import Look
from edged.policy.ladder_encoders import EncoderProbed
from edged.runtime.child import settle_child

NICE = 10  # As a ladder's own.
MEMORY_BYTES_MAX = 3 * 2**30
WIDTH, HEIGHT, RATE = 640, 360, 30
PICTURES, KEY_EVERY = 30, 10
TIMESCALE = 90_000
STEP = TIMESCALE // RATE
DIFFERENCE_MAX = 12  # Of 255, of a picture's mean luma and of its corners': far beyond a codec's.
SQUARE = 64  # Pixels; in a corner, another one in each picture.
RUNG = VideoRung(
    name="probe",
    track_id=1,
    width=WIDTH,
    height=HEIGHT,
    frame_rate_num=RATE,
    bitrate_bps=1_000_000,
    maxrate_bps=1_100_000,
    buffer_bits=1_100_000,
    level=31,
    preset="veryfast",
    cost=0.0,
)


def make_picture(number: int) -> av.VideoFrame:
    """Grey of some brightness, with a white square in one of four corners."""
    shade = 60 + 4 * number
    frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    for place, plane in enumerate(frame.planes):
        line = bytearray([shade if place == 0 else 128]) * plane.line_size
        rows = [line] * plane.height
        if place == 0:
            left = (WIDTH - SQUARE) * (number % 2)
            marked = bytearray(line)
            marked[left : left + SQUARE] = bytes([235]) * SQUARE
            top = (HEIGHT - SQUARE) * (number // 2 % 2)
            rows = [marked if top <= y < top + SQUARE else line for y in range(plane.height)]
        plane.update(b"".join(rows))
    frame.pts, frame.time_base = number * STEP, Fraction(1, TIMESCALE)
    frame.pict_type = PictureType.I if number % KEY_EVERY == 0 else PictureType.NONE
    return frame


def probe(name: str) -> None:
    """Encode and look. Raises EncoderError that says what is wrong."""
    encoder = encoders.open_video_encoder(RUNG, LadderPlan(encoder=name), Look(), TIMESCALE)
    packets: list[av.Packet[av.VideoStream]] = []
    for number in range(PICTURES):
        frame = make_picture(number)
        if (pixels := encoders.pixel_format(encoder)) != "yuv420p":
            picture_type = frame.pict_type
            frame = frame.reformat(format=pixels)
            frame.pict_type = picture_type
        packets += encoders.encode_picture(encoder, frame)
    packets += encoders.encode_picture(encoder, None)
    times = [packet.pts for packet in packets]
    if times != [number * STEP for number in range(PICTURES)]:
        raise EncoderError(f"{name} made {len(packets)} units of {PICTURES} pictures, or disorder")
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    if keys != list(range(0, PICTURES, KEY_EVERY)):
        raise EncoderError(f"{name} has random access at pictures {keys[:8]}, not where asked")
    try:
        config = encoders.read_config(encoder, RUNG)
        payloads = [encoders.canonical_payload(bytes(packet), name) for packet in packets]
    except EdgedError as error:
        raise EncoderError(f"{name} makes no valid H.264: {error}") from error
    compare(name, config, payloads)


def compare(name: str, config: CodecConfig, payloads: list[bytes]) -> None:
    """Decode, and see whether each picture is the one that went in. Raises EncoderError."""
    decoder = encoders.open_video_decoder(config, 1)
    frames: list[av.VideoFrame] = []
    try:
        for number, payload in enumerate(payloads):
            packet = cast("av.Packet[av.VideoStream]", av.Packet(payload))
            packet.pts = packet.dts = number * STEP
            frames += decoder.decode(packet)
        frames += decoder.decode(None)
    except av.FFmpegError as error:
        raise EncoderError(f"{name} makes no valid H.264: {error}") from error
    if len(frames) != len(payloads):
        raise EncoderError(f"{name}: {len(frames)} of {len(payloads)} pictures can be decoded")
    for number, frame in enumerate(frames):
        for seen, made in zip(_look_at(frame), _look_at(make_picture(number)), strict=True):
            if abs(seen - made) > DIFFERENCE_MAX:
                raise EncoderError(f"{name}: picture {number} is not the one that went in")


def _look_at(frame: av.VideoFrame) -> list[float]:
    """The mean luma of each corner, and of the whole."""
    plane = frame.planes[0]
    data, stride = bytes(plane), plane.line_size
    corners = [(x, y) for y in (0, HEIGHT - SQUARE) for x in (0, WIDTH - SQUARE)]
    areas = [(x, y, SQUARE, SQUARE) for x, y in corners] + [(0, 0, WIDTH, HEIGHT)]
    return [
        sum(sum(data[row * stride + x : row * stride + x + width]) for row in range(y, y + height))
        / (width * height)
        for x, y, width, height in areas
    ]


def main() -> int:
    """Be a child."""
    av.logging.set_level(None)
    name = sys.argv[1]
    try:
        connection = settle_child(nice=NICE, memory_bytes_max=MEMORY_BYTES_MAX, counts="data")
        with connection:
            try:
                probe(name)
                probed = EncoderProbed(works=True, reason="")
            except EncoderError as error:
                reason = str(error).removeprefix(f"{name} ").removeprefix("is ")
                probed = EncoderProbed(works=False, reason=reason)
            connection.sendall(msgspec.json.encode(probed))
    except (EdgedError, MemoryError, av.FFmpegError) as error:
        print(f"{type(error).__name__}: {error}"[:1000], file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
