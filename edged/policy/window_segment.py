"""What a window holds of one segment."""

from msgspec import Struct, field

from edged.media.parts import Part, SegmentEnded
from edged.media.playlist import SegmentEntry


class WindowSegment(Struct, kw_only=True):
    """One segment and its parts; `None` stands for a part that never came."""

    entry: SegmentEntry
    init_digest: str
    ended: SegmentEnded | None = None
    parts: list[Part | None] = field(default_factory=list)
    payload_bytes: int = 0  # Of its media, wherever that is.
    leaving: bool = False  # On its way to the disk, and still here.
    stored: bool = False  # On disk: `parts` are gone.
