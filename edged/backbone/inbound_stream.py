"""One stream of units that comes in over the backbone, and how far it has got."""

from typing import TYPE_CHECKING

from edged.media.stream import StreamId
from edged.runtime.hub import LiveStream

if TYPE_CHECKING:
    from edged.backbone.session import BackboneSession
    from edged.wire.backbone.messages import RenditionAck


class Inbound:
    """One stream that comes in."""

    def __init__(self, stream: LiveStream, peer: str, now: float) -> None:
        self.stream = stream
        self.peer = peer  # Role and name of who sends it.
        self.session: BackboneSession | None = None
        self.stream_no = 0
        self.orphaned_at = now  # Until a session has it.
        self.started_at = now
        self.received_seq = -1
        self.packaged_seq = -1
        self.renditions: list[RenditionAck] = []
        self.units_lost = 0
        self.acked: tuple[int, int] = (-2, -2)
        self.renditions_changed = False
        self.splice = b""
        self.splice_changed = False

    @property
    def stream_id(self) -> StreamId:
        """Which run of which channel it is."""
        return self.stream.stream_id

    @property
    def waits(self) -> bool:
        """Whether its publisher, or who sends it, is lost and may come back."""
        return self.session is None or self.stream.waiting_since is not None
