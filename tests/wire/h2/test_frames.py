"""Frames as `hyperframe` reads them."""

import pytest
from hyperframe.frame import Frame, GoAwayFrame, SettingsFrame

from edged.wire.h2 import frames
from edged.wire.h2.frames import ErrorCode


def parse(wire: bytes) -> Frame:
    frame, size = Frame.parse_frame_header(memoryview(wire)[:9])
    assert len(wire) == 9 + size
    frame.parse_body(memoryview(wire)[9:])
    return frame


def test_frames_are_what_anyone_reads() -> None:
    settings = parse(frames.make_settings([(3, 128), (9, 1)]))
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {3: 128, 9: 1}
    assert [*parse(frames.SETTINGS_ACK).flags] == ["ACK"]
    goaway = parse(frames.make_goaway(7, ErrorCode.ENHANCE_YOUR_CALM, "ä"))
    assert isinstance(goaway, GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code) == (7, 11)
    assert goaway.additional_data == b"?"
    for frame in (
        frames.make_ping(bytes(8), ack=False),
        frames.make_ping(bytes(8), ack=True),
        frames.make_reset(5, ErrorCode.CANCEL),
        frames.make_window_update(5, 9),
        frames.make_headers(5, b"\x88", 16_384, end=True),
    ):
        assert parse(frame).serialize() == frame


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 25, 30])
def test_large_blocks_continue(size: int) -> None:
    block = bytes(range(size))
    wire, got = frames.make_headers(3, block, 10, end=True), b""
    kinds, flags = [], []
    while wire:
        length = int.from_bytes(wire[:3], "big")
        kinds.append(wire[3])
        flags.append(wire[4])
        got += wire[9 : 9 + length]
        wire = wire[9 + length :]
    count = max(1, (size + 9) // 10)
    assert got == block
    assert kinds == [1, *[9] * (count - 1)]
    assert [flag & 4 for flag in flags] == [*[0] * (count - 1), 4], "only the last ends it"
    assert [flag & 1 for flag in flags] == [1, *[0] * (count - 1)]


def test_codes_have_names() -> None:
    assert frames.name_code(8) == "CANCEL"
    assert frames.name_code(0xFF) == "error 0xff"
