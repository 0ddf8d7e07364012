"""Which response goes first (RFC 9218): urgency, then one by one or, if incremental, in turns.

    u=0..7 (3 if not told), i (not, if not told): a field of the request, or a PRIORITY_UPDATE frame

Within an urgency the responses that are of use only when whole go first, in the order in which they
were asked for; then the incremental ones, a frame each in turn.
"""

import functools
from bisect import insort
from collections.abc import Iterator
from typing import Final

from edged.wire.h2.streams import Rank, Stream

DEFAULT = (3, False)
KNOWN_MAX: Final = 256  # Browsers know some ten values.
VALUE_BYTES_MAX: Final = 64  # Longer ones say nothing that is known today.


@functools.lru_cache(KNOWN_MAX)
def _parse(value: bytes) -> tuple[int, bool]:
    urgency, incremental = DEFAULT
    for member in value.split(b","):
        key, _, told = member.partition(b";")[0].strip(b" \t").partition(b"=")
        if key == b"u" and len(told) == 1 and b"0" <= told <= b"7":
            urgency = int(told)
        elif key == b"i" and told in (b"", b"?1", b"?0"):
            incremental = told != b"?0"
    return urgency, incremental


def parse_priority(value: bytes) -> tuple[int, bool]:
    """Urgency and whether incremental; what is not understood is as if not told (RFC 9218 §4)."""
    return _parse(value) if len(value) <= VALUE_BYTES_MAX else DEFAULT


def _rank_of(stream: Stream) -> Rank:
    return stream.rank


class Schedule:
    """The streams with something to send, in their order. At most as many as may be open."""

    __slots__ = ("_turn", "queue")

    def __init__(self) -> None:
        self.queue: list[Stream] = []  # To be looked at: whether there is any costs no call.
        self._turn = 0

    def __iter__(self) -> Iterator[Stream]:
        """In the order in which they go; the schedule stays as it is meanwhile."""
        return iter(self.queue)

    def add(self, stream: Stream) -> None:
        """Put a stream in its place, behind those of its rank."""
        place = stream.id
        if stream.incremental:
            self._turn += 1
            place = self._turn
        stream.rank = (stream.urgency, stream.incremental, place)
        insort(self.queue, stream, key=_rank_of)

    def discard(self, stream: Stream) -> None:
        """Forget a stream, if it is here."""
        for at, candidate in enumerate(self.queue):  # Usually the first.
            if candidate is stream:
                del self.queue[at]
                return

    def pass_turn(self, stream: Stream) -> None:
        """A stream has had its turn; of those that go in turns it is the last now."""
        if stream.incremental and len(self.queue) > 1:
            self.discard(stream)
            self.add(stream)

    def change(self, stream: Stream, urgency: int, incremental: bool) -> None:
        """Give a stream another priority, and its place if it is here."""
        if (stream.urgency, stream.incremental) == (urgency, incremental):
            return
        stream.urgency, stream.incremental = urgency, incremental
        if any(candidate is stream for candidate in self.queue):
            self.discard(stream)
            self.add(stream)

    def clear(self) -> None:
        """Forget all."""
        self.queue.clear()
