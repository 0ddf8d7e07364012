"""A segment that a PoP asked for by name, on its way there in what live media leaves over.

It goes in pieces that are items of their own: so it never stands unfinished while live media goes
first, nor keeps others from beginning (INTERLEAVE_MAX). The layout is in `frames`.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from edged.wire.backbone.flows import BLOCKED, READY, STARVED, Chunk, Flow, FlowOwner
from edged.wire.backbone.frames import (
    EVENT_HEADER,
    EVENT_HEADER_BYTES,
    FRAGMENT_BYTES_MAX,
    FRAME_HEADER_BYTES,
    KIND_EVENT,
)
from edged.wire.backbone.messages import CODE_PIECE, PIECE_META

WHOLE: Final = "whole"  # The reason of its end.


class SegmentFlow(Flow):
    """The bytes of one segment, for one PoP."""

    def __init__(self, stream_no: int, limit: int, body: Sequence[bytes]) -> None:
        super().__init__(stream_no, limit)
        self._pieces = deque(memoryview(piece) for piece in body if piece)

    def fill(self, owner: FlowOwner, out: list[Chunk], room: int) -> int:
        """Frame one piece, or the end."""
        del owner
        if not self._pieces:
            self.end(out, WHOLE, ended=True)
            return 0
        left = self._pieces[0]
        piece = left[:FRAGMENT_BYTES_MAX]
        size = len(piece)
        cost = EVENT_HEADER_BYTES + len(PIECE_META) + size
        if cost > min(room, self.limit - self.sent):
            self.state = STARVED if cost > room else BLOCKED
            return 0
        out.append(
            EVENT_HEADER.pack(
                cost - FRAME_HEADER_BYTES,
                KIND_EVENT,
                CODE_PIECE,
                len(PIECE_META),
                self.stream_no,
                size,
            )
        )
        out.append(PIECE_META)
        out.append(piece)
        if size < len(left):
            self._pieces[0] = left[size:]
        else:
            self._pieces.popleft()
        self.sent += cost
        self.items += 1
        self.state = READY
        return cost
