"""Which chunk reader sessions have: the compiled one, where the package was built with it."""

from collections.abc import Sequence
from typing import Protocol

from edged.media.access_unit import AccessUnit
from edged.wire.rtmp import chunks
from edged.wire.rtmp.chunks import ReaderState
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.messages import Message
from edged.wire.rtmp.tracks import AssemblerState

try:
    from edged.wire.rtmp import fast
except ImportError:  # No C compiler was there when the package was built, or it is another Python.
    HAS_FAST = False
else:
    HAS_FAST = True
_compiled = HAS_FAST


class ChunkReader(Protocol):
    """What both readers are; see `chunks.ChunkReader`."""

    only_units: bool  # Whether all that `receive_data` returned last are units.
    chunk_size: int

    @property
    def bytes_wanted(self) -> int:
        """Bytes on the wire until a message may be whole."""

    def receive_data(
        self, data: bytes | memoryview, media: AssemblerState | None = None, /
    ) -> Sequence[Message | AccessUnit]:
        """What `data` completes; access units only where `media` is given, and of its tracks."""

    def settle(self) -> None:
        """Note in `media` what the units changed of it; before anyone else looks at it."""

    def restrict(self, bytes_max: int) -> None:
        """Take no message longer than that, nor begun ones that hold more together."""

    def lift(self) -> None:
        """Take what the limits allow."""

    def state(self) -> ReaderState:
        """All of it; plain data."""


def is_compiled() -> bool:
    """Whether sessions that begin now have the compiled one."""
    return _compiled


def use_compiled(wanted: bool) -> None:
    """Have sessions from now on use the compiled one, if there is one, or the one in Python."""
    global _compiled  # noqa: PLW0603 - the choice is the process's
    _compiled = wanted and HAS_FAST


def make_reader(limits: RtmpLimits, state: ReaderState | None = None) -> ChunkReader:
    """A reader at a connection's begin, or one that goes on from `state`."""
    if _compiled:
        return fast.ChunkReader(limits, state)
    return chunks.ChunkReader(limits, state)
