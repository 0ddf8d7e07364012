import contextlib

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.bits import EXP_GOLOMB_ZEROS_MAX, BitReader, remove_emulation_prevention


def bytes_of(bits: str) -> bytes:
    """Bits as bytes, with zeros to the end of the last one."""
    bits += "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def exp_golomb(value: int) -> str:
    """ue(v) as text."""
    code = f"{value + 1:b}"
    return "0" * (len(code) - 1) + code


def add_emulation_prevention(rbsp: bytes) -> bytes:
    """The NAL unit of these bytes (ISO/IEC 14496-10 §7.4.1.1)."""
    nal, zeros = bytearray(), 0
    for byte in rbsp:
        if zeros == 2 and byte <= 3:
            nal.append(3)
            zeros = 0
        nal.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(nal)


@hypothesis.given(st.lists(st.tuples(st.integers(0, 40), st.integers(0)), max_size=20))
def test_fields_come_back(fields: list[tuple[int, int]]) -> None:
    fields = [(width, value % 2**width) for width, value in fields]
    reader = BitReader(
        bytes_of("".join(f"{v:b}".zfill(w) if w else "" for w, v in fields)), "field"
    )
    assert [reader.read(width) for width, _ in fields] == [value for _, value in fields]


@hypothesis.given(st.lists(st.integers(0, 2**32 - 2), max_size=10))
def test_exp_golomb_comes_back(values: list[int]) -> None:
    data = bytes_of("".join(exp_golomb(value) for value in values))
    reader = BitReader(data, "code")
    assert [reader.ue() for _ in values] == values
    reader = BitReader(data, "code")
    assert [reader.se() for _ in values] == [-(-v // 2) if v % 2 else -(v // 2) for v in values]


def test_flag_skip_left_align() -> None:
    reader = BitReader(b"\xa5\x0f", "flags")
    assert [reader.flag(), reader.flag()] == [True, False]
    reader.skip(3)
    assert (reader.position, reader.left) == (5, 11)
    reader.align()
    assert reader.read(8) == 15
    reader.align()
    assert reader.left == 0


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\0", bytes(9)])
def test_past_the_end_is_a_protocol_error_that_says_what(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="thing"):
        BitReader(data, "thing").ue()
    with pytest.raises(RemoteProtocolError, match="thing ends early"):
        BitReader(data, "thing").read(8 * len(data) + 1)
    with pytest.raises(RemoteProtocolError, match="thing ends early"):
        BitReader(data, "thing").skip(8 * len(data) + 1)


def test_exp_golomb_at_its_limit_and_past_it() -> None:
    at = bytes_of("0" * EXP_GOLOMB_ZEROS_MAX + "1" + "0" * EXP_GOLOMB_ZEROS_MAX)
    assert BitReader(at, "code").ue() == 2**32 - 1
    past = bytes_of("0" * (EXP_GOLOMB_ZEROS_MAX + 1) + "1" * 40)
    with pytest.raises(RemoteProtocolError, match="more than 32 zeros"):
        BitReader(past, "code").ue()


def test_a_bounded_field_at_its_limit_and_past_it() -> None:
    assert BitReader(bytes_of(exp_golomb(12)), "SPS").ue_max(12, "size") == 12
    with pytest.raises(RemoteProtocolError, match="SPS: size is 13, more than 12"):
        BitReader(bytes_of(exp_golomb(13)), "SPS").ue_max(12, "size")


@hypothesis.given(st.lists(st.sampled_from([0, 0, 0, 1, 3, 9]), max_size=40))
def test_emulation_prevention_goes_as_in_a_decoder(values: list[int]) -> None:
    expected, zeros = bytearray(), 0
    for value in values:
        if zeros >= 2 and value == 3:
            zeros = 0
            continue
        zeros = zeros + 1 if value == 0 else 0
        expected.append(value)
    assert remove_emulation_prevention(bytes(values)) == expected


@hypothesis.given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 9]), max_size=40).map(bytes))
def test_emulation_prevention_comes_off_again(rbsp: bytes) -> None:
    nal = add_emulation_prevention(rbsp)
    assert not any(bytes([0, 0, byte]) in nal for byte in range(3))
    assert remove_emulation_prevention(nal) == rbsp


@hypothesis.given(st.binary(max_size=12), st.lists(st.integers(0, 5), max_size=20))
def test_garbage_raises_only_a_protocol_error(data: bytes, actions: list[int]) -> None:
    reader = BitReader(data, "garbage")
    with contextlib.suppress(RemoteProtocolError):
        for action in actions:
            (
                reader.ue,
                reader.se,
                reader.flag,
                lambda: reader.read(33),
                lambda: reader.skip(7),
                reader.align,
            )[action]()
