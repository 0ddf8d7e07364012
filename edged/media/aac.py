"""AAC: AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1) and ADTS (§1.A.3.2).

AudioSpecificConfig: 5 object type, 4 frequency index [24 frequency], 4 channel configuration,
    [with SBR or PS: extension frequency, core object type], GASpecificConfig,
    [0x2b7: SBR said backward-compatibly [0x548: and PS]]
"""

from msgspec import Struct

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media.bits import BitReader
from edged.media.track import Codec, CodecConfig

SAMPLE_RATES = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
    *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)
CONFIG_BYTES_MAX = 512  # The longest program_config_element with its comment, and the rest.
SAMPLE_RATE_MAX = 96_000
ADTS_HEADER_BYTES = 7
ADTS_FRAMES_MAX = 256  # In one buffer; a TS access unit or PES packet holds a few.
AOT_LC = 2
AOT_SBR = 5
AOT_PS = 29
_AOT_ESCAPE = 31
_RATE_ESCAPE = 15
_SYNC_EXTENSION_SBR = 0x2B7
_SYNC_EXTENSION_PS = 0x548
_SBR_BITS_MIN = 16  # §1.6.2.1 looks no further with fewer left.
_PS_BITS = 12
_ADTS_SYNC = 0xFFF
# Table 1.19: channels of a channel configuration; 0 has a program_config_element.
_CHANNELS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 8, 11: 7, 12: 8, 14: 8}
_NAMES = {1: "Main", 3: "SSR", 4: "LTP", 23: "LD", 39: "ELD", 42: "USAC (xHE-AAC)"}


class AudioConfig(Struct, frozen=True, kw_only=True):
    """A decoded AudioSpecificConfig.

    `sample_rate` and `samples_per_unit` are the core's: an HE-AAC unit of 1024 core samples at 24
    kHz decodes to 2048 samples at `output_sample_rate` 48 kHz.
    """

    object_type: int  # 2 LC, 5 HE (SBR), 29 HEv2 (SBR and PS): as the codec string names it.
    sample_rate: int
    output_sample_rate: int
    channels: int  # As decoded: with PS two.
    samples_per_unit: int


class AdtsHeader(Struct, frozen=True, kw_only=True):
    """A decoded ADTS header."""

    object_type: int
    sample_rate: int
    channel_configuration: int
    header_bytes: int  # 7, or 9 with a CRC.
    frame_bytes: int  # Header included.


def parse_config(record: bytes) -> CodecConfig:
    """The configuration in an AudioSpecificConfig."""
    config = parse_audio_specific_config(record)
    return CodecConfig(
        codec=Codec.AAC,
        record=record,
        codec_string=f"mp4a.40.{config.object_type}",
        sample_rate=config.sample_rate,
        channels=config.channels,
        samples_per_unit=config.samples_per_unit,
    )


def parse_audio_specific_config(record: bytes) -> AudioConfig:
    """Decode an AudioSpecificConfig.

    Object types other than LC, with or without SBR and PS, raise UnsupportedMediaError.
    """
    if len(record) > CONFIG_BYTES_MAX:
        raise RemoteProtocolError(
            f"AudioSpecificConfig of {len(record)} bytes exceeds {CONFIG_BYTES_MAX}"
        )
    bits = BitReader(record, "AudioSpecificConfig")
    object_type = core_type = _read_object_type(bits)
    sample_rate = output_rate = _read_sample_rate(bits)
    configuration = bits.read(4)
    if object_type in (AOT_SBR, AOT_PS):
        output_rate = _read_sample_rate(bits)
        core_type = _read_object_type(bits)
    if core_type != AOT_LC:
        raise UnsupportedMediaError(
            f"AAC object type {core_type} {_NAMES.get(core_type, '')}".rstrip()
            + " is not supported: only LC, HE and HEv2 are"
        )
    samples_per_unit = 960 if bits.flag() else 1024
    if bits.flag():  # dependsOnCoreCoder
        bits.skip(14)
    bits.skip(1)  # extensionFlag: of no effect with LC.
    channels = _CHANNELS.get(configuration, 0)
    if configuration == 0:
        channels = _read_program_channels(bits)
    if not channels:
        raise UnsupportedMediaError(f"AAC channel configuration {configuration} is not known")
    if object_type == AOT_LC:
        object_type, output_rate = _read_sync_extension(bits, sample_rate)
    if object_type == AOT_PS:
        channels = 2
    return AudioConfig(
        object_type=object_type,
        sample_rate=sample_rate,
        output_sample_rate=output_rate,
        channels=channels,
        samples_per_unit=samples_per_unit,
    )


def make_config(sample_rate: int, channels: int) -> bytes:
    """The AudioSpecificConfig of AAC-LC with 1024 samples a unit."""
    configuration = next((key for key, value in _CHANNELS.items() if value == channels), None)
    if configuration is None or not 0 < sample_rate <= SAMPLE_RATE_MAX:
        raise UnsupportedMediaError(
            f"AAC has no configuration of {channels} channels, {sample_rate} Hz"
        )
    if sample_rate in SAMPLE_RATES:
        head = AOT_LC << 11 | SAMPLE_RATES.index(sample_rate) << 7 | configuration << 3
        return head.to_bytes(2, "big")
    escaped = AOT_LC << 35 | _RATE_ESCAPE << 31 | sample_rate << 7 | configuration << 3
    return escaped.to_bytes(5, "big")


def parse_adts(data: bytes) -> AdtsHeader:
    """Decode the ADTS header that `data` begins with."""
    if len(data) < ADTS_HEADER_BYTES:
        raise RemoteProtocolError(f"ADTS header of {len(data)} bytes, {ADTS_HEADER_BYTES} needed")
    bits = BitReader(data[:ADTS_HEADER_BYTES], "ADTS header")
    if bits.read(12) != _ADTS_SYNC:
        raise RemoteProtocolError(f"no ADTS sync word: {data[:4].hex()}")
    bits.skip(1)  # ID: MPEG-4 or MPEG-2.
    if bits.read(2):
        raise RemoteProtocolError("ADTS: layer is not 0")
    header_bytes = ADTS_HEADER_BYTES if bits.flag() else ADTS_HEADER_BYTES + 2
    object_type = bits.read(2) + 1
    rate_index = bits.read(4)
    if rate_index >= len(SAMPLE_RATES):
        raise RemoteProtocolError(f"ADTS: sampling frequency index {rate_index} is reserved")
    bits.skip(1)
    configuration = bits.read(3)
    bits.skip(4)
    frame_bytes = bits.read(13)
    if frame_bytes < header_bytes:
        raise RemoteProtocolError(f"ADTS: a frame of {frame_bytes} bytes, less than its header")
    bits.skip(11)  # adts_buffer_fullness
    if bits.read(2):
        raise UnsupportedMediaError("ADTS with several raw data blocks in a frame")
    return AdtsHeader(
        object_type=object_type,
        sample_rate=SAMPLE_RATES[rate_index],
        channel_configuration=configuration,
        header_bytes=header_bytes,
        frame_bytes=frame_bytes,
    )


def adts_config(header: AdtsHeader) -> bytes:
    """The AudioSpecificConfig of a stream with this ADTS header."""
    if header.object_type != AOT_LC or not header.channel_configuration:
        raise UnsupportedMediaError(
            f"ADTS of object type {header.object_type}, channel configuration "
            f"{header.channel_configuration}: only LC with a known layout is supported"
        )
    return make_config(header.sample_rate, _CHANNELS[header.channel_configuration])


def strip_adts(data: bytes) -> list[bytes]:
    """The raw AAC frames of a buffer of whole ADTS frames."""
    frames: list[bytes] = []
    position = 0
    while position < len(data):
        header = parse_adts(data[position : position + ADTS_HEADER_BYTES])
        end = position + header.frame_bytes
        if end > len(data):
            raise RemoteProtocolError(f"ADTS: a frame ends at byte {end} of {len(data)}")
        if len(frames) >= ADTS_FRAMES_MAX:
            raise RemoteProtocolError(f"more than {ADTS_FRAMES_MAX} ADTS frames in a buffer")
        frames.append(data[position + header.header_bytes : end])
        position = end
    return frames


def _read_object_type(bits: BitReader) -> int:
    object_type = bits.read(5)
    return 32 + bits.read(6) if object_type == _AOT_ESCAPE else object_type


def _read_sample_rate(bits: BitReader) -> int:
    index = bits.read(4)
    if index == _RATE_ESCAPE:
        rate = bits.read(24)
        if not 0 < rate <= SAMPLE_RATE_MAX:
            raise RemoteProtocolError(
                f"AudioSpecificConfig: sample rate {rate} is not within 1 to {SAMPLE_RATE_MAX}"
            )
        return rate
    if index >= len(SAMPLE_RATES):
        raise RemoteProtocolError(f"AudioSpecificConfig: frequency index {index} is reserved")
    return SAMPLE_RATES[index]


def _read_program_channels(bits: BitReader) -> int:
    """Count the channels of a program_config_element (§4.4.1.1)."""
    bits.skip(4 + 2 + 4)  # Tag, object type, frequency index.
    front, side, back, lfe = bits.read(4), bits.read(4), bits.read(4), bits.read(2)
    data, coupling = bits.read(3), bits.read(4)
    for width in (4, 4, 3):  # Mono mixdown, stereo mixdown, matrix mixdown.
        if bits.flag():
            bits.skip(width)
    channels = lfe
    for _ in range(front + side + back):
        channels += 2 if bits.flag() else 1
        bits.skip(4)
    bits.skip(4 * lfe + 4 * data + 5 * coupling)
    bits.align()  # From the start of the AudioSpecificConfig.
    bits.skip(8 * bits.read(8))  # comment_field_data
    return channels


def _read_sync_extension(bits: BitReader, sample_rate: int) -> tuple[int, int]:
    """SBR and PS signalled backward-compatibly at the end (§1.6.6.1).

    Returns the object type and the output sample rate.
    """
    if bits.left < _SBR_BITS_MIN or bits.read(11) != _SYNC_EXTENSION_SBR:
        return AOT_LC, sample_rate
    if _read_object_type(bits) != AOT_SBR or not bits.flag():
        return AOT_LC, sample_rate
    output_rate = _read_sample_rate(bits)
    if bits.left >= _PS_BITS and bits.read(11) == _SYNC_EXTENSION_PS and bits.flag():
        return AOT_PS, output_rate
    return AOT_SBR, output_rate
