import contextlib
from itertools import pairwise

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media import opus
from edged.media.track import Codec
from tests.media.samples import box, demux, encode_audio


def test_configuration_of_what_ffmpeg_makes() -> None:
    sample = encode_audio("libopus", frames=8)
    record = box(sample.file, b"dOps")
    assert opus.dops_from_head(sample.extradata) == record
    assert opus.head_from_dops(record) == sample.extradata
    config = opus.parse_config(record)
    assert config.codec is Codec.OPUS
    assert (config.record, config.codec_string) == (record, "opus")
    assert (config.sample_rate, config.channels, config.samples_per_unit) == (48_000, 2, 0)
    assert opus.parse_record(record).pre_skip == 312


def test_six_channels_have_a_mapping() -> None:
    sample = encode_audio("libopus", layout="5.1", frames=2)
    header = opus.parse_head(sample.extradata)
    assert (header.channels, header.family, header.mapping[:2]) == (6, 1, b"\4\2")
    assert opus.dops_from_head(sample.extradata) == box(sample.file, b"dOps")
    assert opus.head_from_dops(opus.make_record(header)) == sample.extradata


def test_durations_are_the_muxers() -> None:
    stored = demux(encode_audio("libopus", frames=8).file)
    times = [packet.pts for packet in stored]
    steps = [after - before for before, after in pairwise(times)]
    assert [opus.packet_duration(packet.data) for packet in stored[:-1]] == steps
    assert steps[0] == 960


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (b"\x00", 480),  # SILK 10 ms.
        (b"\x18", 2880),  # SILK 60 ms.
        (b"\x19", 5760),  # Two of them.
        (b"\x1a\x01", 5760),
        (b"\x60", 480),  # Hybrid 10 ms.
        (b"\x78", 960),
        (b"\x80", 120),  # CELT 2.5 ms.
        (b"\xf8", 960),
        (b"\x83\x30", 5760),  # Forty-eight frames of 2.5 ms.
        (b"\xfb\xc6", 5760),  # Six of 20 ms, padded and of different sizes.
    ],
)
def test_durations_by_the_table(packet: bytes, samples: int) -> None:
    assert opus.packet_duration(packet) == samples


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"", "without a byte"),
        (b"\xfb", "before its frame count"),
        (b"\xfb\x00", "of 0 samples"),
        (b"\xfb\x07", "of 6720 samples, not within 1 to 5760"),
        (b"\x83\x31", "of 5880 samples"),
    ],
)
def test_packets_that_cannot_be(packet: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        opus.packet_duration(packet)


def test_headers_that_cannot_be() -> None:
    head = encode_audio("libopus", frames=8).extradata
    record = opus.dops_from_head(head)
    for cut in range(len(record)):
        with pytest.raises(RemoteProtocolError):
            opus.parse_config(record[:cut])
    for cut in range(len(head)):
        with pytest.raises(RemoteProtocolError):
            opus.parse_head(head[:cut])
    for data, message in (
        (b"\0\0" + record[2:], "no channels"),
        (b"\0\3" + record[2:], "3 channels in mapping family 0"),
        (record[:10] + b"\1\1\1", "ends within its channel mapping"),
        (record[:10] + b"\1\0\0\0\0", "0 streams"),
        (record[:10] + b"\1\1\2\0\0", "1 streams, 2 of them coupled"),
    ):
        with pytest.raises(RemoteProtocolError, match=message):
            opus.parse_config(data)
    with pytest.raises(UnsupportedMediaError, match="dOps of version 1"):
        opus.parse_config(b"\1" + record[1:])
    opus.parse_head(head[:8] + b"\x0f" + head[9:])
    with pytest.raises(UnsupportedMediaError, match="OpusHead of version 16"):
        opus.parse_head(head[:8] + b"\x10" + head[9:])


@hypothesis.given(
    st.builds(
        opus.Header,
        channels=st.integers(1, 2),
        pre_skip=st.integers(0, 2**16 - 1),
        input_sample_rate=st.integers(0, 2**32 - 1),
        output_gain=st.integers(-(2**15), 2**15 - 1),
        family=st.just(0),
        mapping=st.just(b""),
    )
)
def test_headers_come_back(header: opus.Header) -> None:
    assert opus.parse_record(opus.make_record(header)) == header
    assert opus.parse_head(opus.make_head(header)) == header
    assert opus.dops_from_head(opus.head_from_dops(opus.make_record(header))) == opus.make_record(
        header
    )


@hypothesis.given(st.binary(max_size=30))
def test_garbage_raises_only_errors_of_the_media(data: bytes) -> None:
    for attempt in (
        lambda: opus.parse_config(data),
        lambda: opus.parse_config(b"\0" + data),
        lambda: opus.head_from_dops(b"\0\2\1\x38" + data),
        lambda: opus.dops_from_head(b"OpusHead\1" + data),
        lambda: opus.dops_from_head(data),
        lambda: opus.packet_duration(data),
    ):
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            attempt()
