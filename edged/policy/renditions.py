"""What a rendition is announced as, from its track and how its units follow each other."""

import hashlib

from edged.errors import RemoteProtocolError
from edged.media.latency import DEFAULT_LATENCY, Latency
from edged.media.parts import Rendition
from edged.media.picture import Picture, describe_picture
from edged.media.track import Kind, Track
from edged.policy.cadence import US, Cadence


def describe_rendition(
    name: str,
    track: Track,
    cadence: Cadence,
    target_duration_s: int,
    latency: Latency = DEFAULT_LATENCY,
) -> Rendition:
    """The rendition of a track; a rate that was measured counts more than one that is said."""
    config = track.config
    rate_num, rate_den = config.frame_rate_num, config.frame_rate_den
    if track.kind is Kind.VIDEO and cadence.rate is not None:
        rate_num, rate_den = cadence.rate.numerator, cadence.rate.denominator
    picture = _picture(track)
    return Rendition(
        name=name,
        kind=track.kind,
        timescale=track.timescale,
        codec_string=config.codec_string,
        part_target_us=-(-cadence.part_ticks * US // track.timescale),
        target_duration_s=target_duration_s,
        width=config.width,
        height=config.height,
        sar_num=picture.sar_num,
        sar_den=picture.sar_den,
        frame_rate_num=rate_num,
        frame_rate_den=rate_den,
        channels=config.channels,
        language=track.language,
        label=track.name,
        latency=latency,
    )


def _picture(track: Track) -> Picture:
    try:
        return describe_picture(track.config)
    except RemoteProtocolError:  # Who writes the init segment of it says what is wrong.
        return Picture()


def init_digest(init: bytes) -> str:
    """Names an init segment's bytes, in its URI."""
    return hashlib.sha256(init).hexdigest()[:16]
