import msgspec
import pytest

from edged.wire.rtmp.limits import CHUNK_BYTES_MAX, CHUNK_BYTES_SMALL, RtmpLimits


def test_the_defaults_make_sense_together() -> None:
    limits = RtmpLimits()
    assert limits.message_bytes_max <= CHUNK_BYTES_MAX, "a message's length has 24 bits"
    assert limits.message_bytes_max < limits.buffered_bytes_max
    assert limits.command_bytes_max < limits.held_bytes_max
    assert limits.early_command_bytes_max < limits.early_bytes_max < limits.message_bytes_max
    assert limits.command_bytes_max <= limits.command_bytes_per_s_max, "one is allowed"
    assert CHUNK_BYTES_SMALL == 128


def test_limits_do_not_change() -> None:
    with pytest.raises(AttributeError):
        RtmpLimits().message_bytes_max = 1  # type: ignore[misc]  # That is what is tested.
    assert msgspec.structs.replace(RtmpLimits(), tracks_max=1).tracks_max == 1
