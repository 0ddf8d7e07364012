"""The latency classes of channels: by what name keys ask for one, and what viewers are told of it.

A class is chosen with the stream key. What its name means, in milliseconds, the origin's
configuration says; the answer travels with each rendition, so every PoP tells viewers the same.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

LatencyLabel = Literal["default", "low", "ultra", "standard"]
DEFAULT: Literal["default"] = "default"  # What `[origin.packager]` itself says.
LATENCY_LABELS: tuple[LatencyLabel, ...] = ("default", "low", "ultra", "standard")
PART_HOLD_BACK_MS_MAX = 30_000  # Beyond it a stream is no low-latency one.
HOLD_BACK_S_MAX = 300


class Latency(Struct, frozen=True, kw_only=True):
    """What viewers are told of a stream's latency; the same in all of its renditions, for good.

    The hold-backs are the least that playlists say; RFC 8216bis §4.4.3.8 and Apple's authoring
    rules may ask for more. 0: no more than those.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z]{1,16}\Z")] = DEFAULT
    parts: bool = True  # False: playlists list whole segments alone.
    part_hold_back_ms: Annotated[int, Meta(ge=0, le=PART_HOLD_BACK_MS_MAX)] = 0
    hold_back_s: Annotated[int, Meta(ge=0, le=HOLD_BACK_S_MAX)] = 0


DEFAULT_LATENCY = Latency()
