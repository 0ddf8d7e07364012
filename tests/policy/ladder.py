"""Synthetic publications of several rungs of video and several audio tracks."""

from collections.abc import Iterable, Sequence
from fractions import Fraction

import msgspec
from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.track import Track
from tests.policy.synthetic import (
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)

WIDTHS = (1920, 1280, 640, 320)


class Rung(Struct, frozen=True, kw_only=True):
    """One rung: its GOPs begin `offset_s` after those of a rung with none."""

    gop_s: float = 2
    offset_s: float = 0
    rate: Fraction = Fraction(30)
    reorder: int = 0
    shift: int = 0  # Ticks by which all its times are off.


def rung_tracks(rungs: Sequence[Rung]) -> list[Track]:
    return [
        msgspec.structs.replace(video_track(rung.rate, width=WIDTHS[index]), track_id=2 * index + 1)
        for index, rung in enumerate(rungs)
    ]


def rung_units(
    index: int, rung: Rung, seconds: float, reorder_max: int = 0
) -> Iterable[AccessUnit]:
    times = video_times(rung.rate, seconds)
    first = sum(dts < rung.offset_s * 90_000 for dts in times)
    before = video_units(times[:first], rung.gop_s, reorder=rung.reorder)
    after = video_units(times[first:], rung.gop_s, reorder=rung.reorder)
    # Pictures are presented at the same time whether their encoder reorders them or not.
    shift = rung.shift + reorder_max - rung.reorder
    for unit in (*before, *after):
        unit.track_id = 2 * index + 1
        unit.dts += shift
        unit.pts += shift
        yield unit


def make_ladder(
    rungs: Sequence[Rung], seconds: float = 13, audio: int = 1
) -> tuple[list[Track], list[AccessUnit]]:
    """Tracks, and units as they arrive; audio tracks have the ids 2, 4, ..."""
    tracks = rung_tracks(rungs)
    reorder = max(rung.reorder for rung in rungs)
    streams = [
        (90_000, rung_units(index, rung, seconds, reorder)) for index, rung in enumerate(rungs)
    ]
    for index in range(audio):
        track_id = 2 * index + 2
        tracks.append(audio_track(track_id=track_id))
        streams.append((48_000, audio_units(seconds, track_id=track_id)))
    units = in_order(*streams)
    for unit in units:
        unit.payload = unit.seq.to_bytes(4, "big") * (10 - min(unit.track_id, 8))
    return tracks, units
