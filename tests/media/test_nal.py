import contextlib

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media import nal

# As encoders make them: no start code inside, no zero byte at the end.
NALS = st.lists(
    st.binary(min_size=1, max_size=300)
    .map(lambda data: data.replace(b"\0\0", b"\0\3") + b"\x80")
    .filter(lambda data: b"\0\0\1" not in data),
    min_size=1,
    max_size=8,
)


@hypothesis.given(NALS)
def test_byte_stream_and_length_prefixed_round_trip(nals: list[bytes]) -> None:
    payload = nal.join_length_prefixed(nals)
    assert nal.split_length_prefixed(payload) == nals
    stream = nal.to_annexb(payload)
    assert nal.split_annexb(stream) == nals
    assert nal.from_annexb(stream) == payload
    assert nal.to_annexb(nal.from_annexb(stream)) == stream
    assert nal.to_annexb(payload, [b"\x67", b"\x68"]) == b"\0\0\0\1\x67\0\0\0\1\x68" + stream


@hypothesis.given(NALS, st.lists(st.integers(0, 3), min_size=8, max_size=8), st.integers(0, 5))
def test_start_codes_of_any_length_and_trailing_zeros(
    nals: list[bytes], zeros: list[int], trailing: int
) -> None:
    stream = b"".join(bytes(2 + z) + b"\1" + n for n, z in zip(nals, zeros, strict=False))
    assert nal.from_annexb(stream + bytes(trailing)) == nal.join_length_prefixed(nals)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_lengths_of_any_size_become_four_bytes(size: int) -> None:
    nals = [b"\x09\x10", bytes(200), b"\x65" + bytes(3)]
    payload = b"".join(len(n).to_bytes(size, "big") + n for n in nals)
    assert nal.normalise_lengths(payload, size) == nal.join_length_prefixed(nals)


def test_four_byte_lengths_are_not_copied() -> None:
    payload = nal.join_length_prefixed([b"\x65abc", b"\x01"])
    assert nal.normalise_lengths(payload, 4) is payload


@pytest.mark.parametrize(
    "payload", [b"\0\0\0\2\x65", b"\0\0\0", b"\0\0\0\1\x65\xff\xff\xff\xff", b"\0\0\0\1\x65\0"]
)
def test_lengths_that_do_not_add_up_are_a_protocol_error(payload: bytes) -> None:
    for check in (nal.split_length_prefixed, nal.check_length_prefixed, nal.to_annexb):
        with pytest.raises(RemoteProtocolError, match=r"NAL unit [01] ends at byte"):
            check(payload)


def test_empty_nal_units_are_left_out() -> None:
    assert nal.split_length_prefixed(b"\0\0\0\0\0\0\0\1\x65\0\0\0\0") == [b"\x65"]
    assert nal.split_annexb(b"\0\0\1\0\0\1\x65") == [b"\x65"]
    assert nal.split_length_prefixed(b"") == []
    nal.check_length_prefixed(b"\0\0\0\0")


def test_a_byte_stream_begins_with_a_start_code() -> None:
    for data in (b"\x65\0\0\1\x65", b"\x65"):
        with pytest.raises(RemoteProtocolError, match="does not begin"):
            nal.split_annexb(data)


def test_number_of_nal_units_at_the_limit_and_past_it() -> None:
    at = nal.join_length_prefixed([b"\x01"] * nal.NALS_PER_UNIT_MAX)
    nal.check_length_prefixed(at)
    assert nal.from_annexb(nal.to_annexb(at)) == at
    past = at + b"\0\0\0\1\1"
    for check in (nal.split_length_prefixed, nal.check_length_prefixed):
        with pytest.raises(RemoteProtocolError, match="more than 2048 NAL units"):
            check(past)
    with pytest.raises(RemoteProtocolError, match="more than 2048 NAL units"):
        nal.split_annexb(nal.to_annexb(at) + b"\0\0\1\1")


def test_parameter_sets_at_the_limit_and_past_it() -> None:
    half = nal.RECORD_BYTES_MAX // 2
    nal.check_record_bytes([bytes(half - 6)], [b"", b""])
    with pytest.raises(RemoteProtocolError, match="32769 bytes exceed 32768"):
        nal.check_record_bytes([bytes(half - 3)], [b""])


@hypothesis.given(st.binary(max_size=60), st.integers(1, 4))
def test_garbage_raises_only_a_protocol_error(data: bytes, size: int) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert nal.split_length_prefixed(nal.normalise_lengths(data, size)) is not None
    with contextlib.suppress(RemoteProtocolError):
        nal.from_annexb(data)
    with contextlib.suppress(RemoteProtocolError):
        nal.from_annexb(b"\0\0\1" + data)
