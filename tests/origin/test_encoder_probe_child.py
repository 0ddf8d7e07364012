"""What counts as an encoder that works: x264 does, and one that is wrong anywhere does not."""

from collections.abc import Callable

import av
import pytest

from edged.errors import EncoderError
from edged.origin import encoder_probe_child, encoders
from edged.origin.encoder_probe_child import PICTURES, make_picture, probe

Packets = list["av.Packet[av.VideoStream]"]


def test_x264_works() -> None:
    probe("libx264")


def test_pictures_differ_and_say_where_random_access_is_to_be() -> None:
    looks = {tuple(encoder_probe_child._look_at(make_picture(n))) for n in range(PICTURES)}
    assert len(looks) == PICTURES


def drop(packets: Packets) -> Packets:
    return [packet for packet in packets if packet.pts != 3_000 * 7]


def garble(packets: Packets) -> Packets:
    """As a driver does that hands out a buffer of before."""
    for packet in packets:
        if packet.pts and packet.is_keyframe:
            packet.update(bytes(packet)[:60] + bytes(packet.size - 60))
    return packets


def forget_keys(packets: Packets) -> Packets:
    for packet in packets:
        packet.is_keyframe = packet.pts == 0
    return packets


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (drop, "29 units of 30 pictures"),
        (forget_keys, r"random access at pictures \[0\]"),
        (garble, "is not the one that went in|can be decoded|no valid H.264"),
    ],
)
def test_one_that_is_wrong_does_not(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Packets], Packets], why: str
) -> None:
    encode = encoders.encode_picture

    def encode_and_spoil(encoder: av.VideoCodecContext, frame: av.VideoFrame | None) -> Packets:
        return spoil(encode(encoder, frame))

    monkeypatch.setattr(encoders, "encode_picture", encode_and_spoil)
    with pytest.raises(EncoderError, match=why):
        probe("libx264")


def test_one_that_encodes_something_else_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = encoders.encode_picture

    def encode_grey(encoder: av.VideoCodecContext, frame: av.VideoFrame | None) -> Packets:
        if frame is not None:
            plane = frame.planes[0]
            plane.update(bytes([60]) * plane.buffer_size)
        return encode(encoder, frame)

    monkeypatch.setattr(encoders, "encode_picture", encode_grey)
    with pytest.raises(EncoderError, match="is not the one that went in"):
        probe("libx264")


def test_one_that_is_not_there_does_not() -> None:
    with pytest.raises(EncoderError, match="not in this build of FFmpeg"):
        probe("h264_of_nobody")
