"""How much a window holds, and what is counted of it."""

from msgspec import Struct


class WindowLimits(Struct, frozen=True, kw_only=True):
    """How much of a stream is listed and kept."""

    playlist_s: float = 30.0  # Listed; never less than three target durations.
    # Kept beyond that, for slow viewers and clips; longer where players may ask for longer
    # (`needed_us`). 0 is for a place that no player asks: nothing is kept.
    retention_s: float = 90.0
    payload_bytes_max: int = 256 * 2**20  # 120 s at 17 Mbps; beyond it the oldest go early.


class WindowStatistics(Struct, frozen=True, kw_only=True):
    """What went wrong since the start."""

    parts_refused: int
    parts_missing: int
    segments_missing: int
    segments_lost: int
    segments_evicted_early: int
    segments_evicted_needed: int
