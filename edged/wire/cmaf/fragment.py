"""CMAF chunks: one moof and its mdat (ISO/IEC 14496-12 §8.8, 23000-19 §7.3.2.3).

    moof: mfhd (sequence number)
          traf: tfhd (track, default-base-is-moof, [default flags])
                tfdt v1 (baseMediaDecodeTime, 64 bit)
                trun (per sample: duration, size, [flags, signed composition offset])
    mdat: the samples

Written with one `struct.pack` per fragment: it is the packager's hot path.
"""

import functools
import struct
from collections.abc import Sequence
from typing import Final

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.track import Kind
from edged.wire.cmaf.init import TRACK_ID

SAMPLES_MAX = 4096  # Of one fragment: 2.5 ms Opus packets for 10 s; bounds the layouts kept.
MDAT_BYTES_MAX = 2**31  # The mdat's size field has 32 bits.
SYNC: Final = 0x02000000  # sample_depends_on = 2: an I picture (14496-12 §8.8.3.1).
NON_SYNC: Final = 0x01010000  # sample_depends_on = 1, sample_is_non_sync_sample.
TFHD_AUDIO: Final = 0x020020  # default-base-is-moof, default-sample-flags-present.
TFHD_VIDEO: Final = 0x020000
TRUN_AUDIO: Final = 0x01000301  # v1: data offset, durations, sizes.
TRUN_VIDEO: Final = 0x01000F01  # The same, flags and composition offsets (signed in v1).
_LAYOUTS_MAX: Final = 256  # Part lengths that come again and again; a layout is some 100 bytes.


def make_fragment(
    kind: Kind,
    sequence: int,
    tfdt: int,
    units: Sequence[AccessUnit],
    durations: Sequence[int],
) -> bytes:
    """One moof and mdat of `units`, whose durations are ticks of the track's timescale.

    `tfdt` is the decode time of the first: >= 0, so whoever calls has moved negative times up.
    Raises `RemoteProtocolError` when the units do not fit one fragment.
    """
    count = len(units)
    assert count == len(durations)
    assert tfdt >= 0, "decode times are unsigned in a fragment"
    if not 0 < count <= SAMPLES_MAX:
        raise RemoteProtocolError(f"fragment of {count} samples, limit {SAMPLES_MAX}")
    payloads = [unit.payload for unit in units]
    sizes = [len(payload) for payload in payloads]
    mdat_bytes = 8 + sum(sizes)
    if mdat_bytes > MDAT_BYTES_MAX:
        raise RemoteProtocolError(f"fragment of {mdat_bytes} bytes, limit {MDAT_BYTES_MAX}")
    sequence &= 0xFFFFFFFF
    fields: list[int] = []
    if kind is Kind.VIDEO:
        for unit, duration, size in zip(units, durations, sizes, strict=True):
            fields += (
                duration,
                size,
                SYNC if unit.random_access else NON_SYNC,
                # Two's complement of 32 bits; the unit's own clock, so no tfdt offset in it.
                (unit.pts - unit.dts) & 0xFFFFFFFF,
            )
        head = _video_layout(count)
        return b"".join(
            (
                head.pack(*_video_head(sequence, tfdt, count), *fields, mdat_bytes, b"mdat"),
                *payloads,
            )
        )
    for duration, size in zip(durations, sizes, strict=True):
        fields += (duration, size)
    head = _audio_layout(count)
    return b"".join(
        (
            head.pack(*_audio_head(sequence, tfdt, count), *fields, mdat_bytes, b"mdat"),
            *payloads,
        )
    )


@functools.lru_cache(maxsize=_LAYOUTS_MAX)
def _video_layout(count: int) -> struct.Struct:
    #                     moof  mfhd   traf  tfhd    tfdt    trun
    return struct.Struct(f">I4s I4sII I4s I4sII I4sIQ I4sIII {4 * count}I I4s")


@functools.lru_cache(maxsize=_LAYOUTS_MAX)
def _audio_layout(count: int) -> struct.Struct:
    return struct.Struct(f">I4s I4sII I4s I4sIII I4sIQ I4sIII {2 * count}I I4s")


def _video_head(sequence: int, tfdt: int, count: int) -> tuple[int | bytes, ...]:
    trun_bytes = 20 + 16 * count
    traf_bytes = 8 + 16 + 20 + trun_bytes
    moof_bytes = 8 + 16 + traf_bytes
    return (
        *(moof_bytes, b"moof", 16, b"mfhd", 0, sequence, traf_bytes, b"traf"),
        *(16, b"tfhd", TFHD_VIDEO, TRACK_ID, 20, b"tfdt", 0x01000000, tfdt),
        *(trun_bytes, b"trun", TRUN_VIDEO, count, moof_bytes + 8),
    )


def _audio_head(sequence: int, tfdt: int, count: int) -> tuple[int | bytes, ...]:
    trun_bytes = 20 + 8 * count
    traf_bytes = 8 + 20 + 20 + trun_bytes
    moof_bytes = 8 + 16 + traf_bytes
    return (
        *(moof_bytes, b"moof", 16, b"mfhd", 0, sequence, traf_bytes, b"traf"),
        *(20, b"tfhd", TFHD_AUDIO, TRACK_ID, SYNC, 20, b"tfdt", 0x01000000, tfdt),
        *(trun_bytes, b"trun", TRUN_AUDIO, count, moof_bytes + 8),
    )
