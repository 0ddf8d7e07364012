"""Item 30: what a multivariant playlist says of its variants, against what their media is."""

import itertools

from edged.errors import RemoteProtocolError
from edged.tools.conform.item import Item, Judgement, NotSeen
from edged.tools.conform.media import map_of, place_of
from edged.tools.conform.observe import Observation, RenditionLog, join
from edged.tools.conform.timeline import segments_of
from edged.wire.cmaf.reader import ReadTrack
from edged.wire.m3u8_reader import ReadMultivariant, ReadSegment, ReadVariant
from edged.wire.m3u8_values import US, integer

VIDEO_CODECS = ("avc", "hvc", "hev", "av01", "vp0", "dvh")
# By sample entry, other names of it in CODECS (RFC 6381; the case of letters says nothing).
NAMES = {"vp08": ("vp08", "vp8"), "vp09": ("vp09", "vp9"), "encv": (), "enca": ()}
PEAK_SHARE_MAX = 1.1  # Of BANDWIDTH: a live playlist is not written anew for each segment.
PEAK_TARGETS = 0.5, 1.5  # How long what a peak is measured over lasts (RFC 8216bis §4.4.6.2).
RATE_SHARE_MAX = 0.1  # That FRAME-RATE may be off: what few pictures tell of it.
STEPS_MIN = 10  # From picture to picture; fewer tell nothing.
EVEN_RATIO_MAX = 1.5  # Of the longest to the shortest: else FRAME-RATE is an upper bound.


def multivariant(seen: Observation) -> Judgement:
    """30."""
    if seen.multivariant is None:
        return NotSeen("this is a media playlist")
    problems: list[str] = []
    for variant in seen.multivariant.variants:
        where = f"EXT-X-STREAM-INF of {variant.uri}"
        needed = ["BANDWIDTH", "AVERAGE-BANDWIDTH", "CODECS"]
        codecs = _codecs(variant)
        if any(codec.startswith(VIDEO_CODECS) for codec in codecs):
            needed += ["RESOLUTION", "FRAME-RATE"]
        missing = [name for name in needed if not variant.attributes.get(name)]
        if missing:
            problems.append(f"{where}: no {', '.join(missing)}")
        own = _log_of(seen, variant.uri)
        beside = _beside(seen, seen.multivariant, variant)
        found = [
            *_formats(codecs, own, beside),
            *_bandwidth(variant, own, beside),
            *(_picture(variant, own) if own is not None else []),
        ]
        problems += [f"{where}: {what}" for what in found]
    return problems


def _codecs(variant: ReadVariant) -> list[str]:
    told = variant.attributes.get("CODECS", "")
    return [codec.strip().lower() for codec in told.split(",") if codec.strip()]


def _log_of(seen: Observation, uri: str) -> RenditionLog | None:
    url = join(seen.url, uri)
    return next((log for log in seen.renditions if log.url == url), None)


def _beside(
    seen: Observation, playlist: ReadMultivariant, variant: ReadVariant
) -> list[RenditionLog]:
    """Sound that is played with a variant: one of these."""
    group = variant.attributes.get("AUDIO")
    uris = [
        media["URI"]
        for media in playlist.media
        if media.get("TYPE") == "AUDIO" and media.get("GROUP-ID") == group and "URI" in media
    ]
    logs = [_log_of(seen, uri) for uri in uris if uri != variant.uri]
    return [log for log in logs if log is not None]


def _tracks(log: RenditionLog) -> list[ReadTrack]:
    """What its playlist lists at last, as far as init segments were looked into."""
    places = [map_of(segment) for segment in log.last.segments]
    return [
        track
        for place in dict.fromkeys(places)
        if place is not None
        for track in log.inits.get(place, {}).values()
    ]


def _formats(codecs: list[str], own: RenditionLog | None, beside: list[RenditionLog]) -> list[str]:
    """Formats that CODECS leaves out."""
    if not codecs:
        return []
    found: dict[str, str] = {}
    for log in [own, *beside]:
        for track in _tracks(log) if log is not None else []:
            for name in track.formats:
                wanted = NAMES.get(name, (name.lower(),))
                if wanted and not any(codec.split(".")[0] in wanted for codec in codecs):
                    found.setdefault(name, log.name if log is not None else "")
    return [
        f'CODECS="{",".join(codecs)}" leaves out {name}, which is in {where}'
        for name, where in found.items()
    ]


def _bandwidth(
    variant: ReadVariant, own: RenditionLog | None, beside: list[RenditionLog]
) -> list[str]:
    """A peak above BANDWIDTH, and an average above the peak."""
    told = {
        name: integer(value, name)
        for name in ("BANDWIDTH", "AVERAGE-BANDWIDTH")
        if (value := variant.attributes.get(name))
    }
    bandwidth_bps = told.get("BANDWIDTH")
    if bandwidth_bps is None:
        return []
    problems = []
    average_bps = told.get("AVERAGE-BANDWIDTH", 0)
    if average_bps > bandwidth_bps:
        problems.append(f"AVERAGE-BANDWIDTH={average_bps}, which is above BANDWIDTH")
    peak_bps = _peak_bps(own) if own is not None else 0
    peak_bps += max((_peak_bps(log) for log in beside), default=0)
    if peak_bps > PEAK_SHARE_MAX * bandwidth_bps:
        problems.append(f"BANDWIDTH={bandwidth_bps}, of its segments come up to {peak_bps} bit/s")
    return problems


def _peak_bps(log: RenditionLog) -> int:
    """The highest rate of segments, one or several, that were fetched, or all parts of which."""
    least_us, most_us = (share * (log.last.target_duration_s or 0) * US for share in PEAK_TARGETS)
    sizes = [(segment.media_us, _size(log, segment)) for segment in segments_of(log)
             if segment.is_whole and not segment.gap]  # fmt: skip
    peak_bps = 0
    for first in range(len(sizes)):
        took_us = count = 0
        for lasts_us, size in sizes[first:]:
            took_us += lasts_us
            if size is None or took_us > most_us:
                break
            count += size
            if took_us >= max(least_us, 1):
                peak_bps = max(peak_bps, count * 8 * US // took_us)
    return peak_bps


def _size(log: RenditionLog, segment: ReadSegment) -> int | None:
    """Bytes of a whole segment; None: not all of it came."""
    piece = log.segments.get(segment.msn)
    if piece is not None and piece.came:
        return piece.size
    pieces = [log.parts.get(place_of(part)) for part in segment.parts]
    came = [piece.size for piece in pieces if piece is not None and piece.came]
    return sum(came) if came and len(came) == len(segment.parts) else None


def _picture(variant: ReadVariant, log: RenditionLog) -> list[str]:
    """RESOLUTION and FRAME-RATE that its media contradicts."""
    problems = []
    told = variant.attributes.get("RESOLUTION")
    sizes = dict.fromkeys(size for track in _tracks(log) for size in track.sizes)
    if told and sizes:
        width, _, height = told.partition("x")
        if (integer(width, "RESOLUTION"), integer(height, "RESOLUTION")) not in sizes:
            shown = ", ".join(f"{width}x{height}" for width, height in sizes)
            problems.append(f"RESOLUTION={told}, its init segment says {shown}")
    rate, steps = variant.attributes.get("FRAME-RATE"), _steps_s(log)
    if not rate or len(steps) < STEPS_MIN:
        return problems
    try:
        told_fps = float(rate)
    except ValueError:
        raise RemoteProtocolError(f"FRAME-RATE {rate[:60]!r} is no decimal number") from None
    seen_fps = len(steps) / sum(steps)
    is_even = max(steps) <= EVEN_RATIO_MAX * min(steps)
    if seen_fps > (1 + RATE_SHARE_MAX) * told_fps or (
        is_even and seen_fps < (1 - RATE_SHARE_MAX) * told_fps
    ):
        problems.append(f"FRAME-RATE={rate}, its pictures come at {seen_fps:.3f}")
    return problems


def _steps_s(log: RenditionLog) -> list[float]:
    """From picture to picture, in decoding order."""
    steps: list[float] = []
    for piece in log.segments.values():
        init = log.inits.get(piece.init, {}) if piece.init is not None else {}
        for number, samples in piece.tracks.items():
            track = init.get(number)
            if track is not None and track.handler == "vide":
                times = [sample.dts / track.timescale for sample in samples]
                steps += [b - a for a, b in itertools.pairwise(times) if b > a]
    return steps


ITEMS = (
    Item(30, "Apple must", "variants say codecs, bandwidths, resolution and frame rate, rightly",
         multivariant),
)  # fmt: skip
