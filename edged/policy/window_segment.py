"""What a window holds of one segment."""

from msgspec import Struct, field
from msgspec.structs import replace

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
    away: bool = False  # At an origin, which gives it by name: no `parts` have come.
    fetched: bytes | None = None  # What it gave, while that is kept.
    first: Part | None = None  # Its first part without the payload, once its parts are gone.

    @property
    def opening(self) -> Part | None:
        """Its first part, perhaps without the payload; None if that never came."""
        return self.parts[0] if self.parts else self.first

    def forget_parts(self) -> None:
        """They can no longer be asked for, nor listed."""
        opening = self.opening
        self.first = None if opening is None else replace(opening, payload=b"")
        self.parts, self.entry.parts, self.entry.parts_text = [], [], ""
        self.entry.parts_rendered = 0
