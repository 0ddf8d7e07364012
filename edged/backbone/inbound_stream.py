"""One stream of units that comes in over the backbone, and how far it has got."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import structlog

from edged.errors import EdgedError
from edged.media.stream import StreamId
from edged.runtime.hub import LiveStream

if TYPE_CHECKING:
    from edged.backbone.session import BackboneSession
    from edged.wire.backbone.messages import RenditionAck

logger = structlog.get_logger("edged.backbone")

Stop = Callable[["Inbound", str, str], None]  # With a code and the reason.


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


def stop_failed(
    streams: Iterable[Inbound],
    stop: Stop,
    session: "BackboneSession",
    stream_no: int,
    error: Exception,
) -> None:
    """End the stream that a bug of ours has met; its session and the others in it go on.

    What the peer does wrong (an EdgedError) is raised again: the session is to judge it.
    """
    if isinstance(error, EdgedError):
        raise error
    found = [each for each in streams if (each.session, each.stream_no) == (session, stream_no)]
    channels = [each.stream_id.channel for each in found]
    logger.error("stream failed", channel=channels, stream_no=stream_no, exc_info=error)
    for inbound in found:
        stop(inbound, "internal", f"internal error: {error!r}")
