"""By how many threads one ladder is made: what a core does alone is left to one.

A ladder's process has one thread of its own, which scales (helped by as many as encode), and also
decodes and encodes unless these have threads of theirs. Several of a decoder or encoder each have a
picture at a time, so with each beyond the first rungs come a picture later, but for AV1, of which
all are at the same: there are no more than are needed, and THREADS_MAX at most.
"""

import itertools
import math
from collections.abc import Sequence

from msgspec import Struct

THREADS_MAX = 4  # 3 pictures later are 50 ms at 60 fps.
# Of one thread, what each more is worth. (Measured, by the CPU time of the busiest of 4: one needs
# 3.3 times as much for AV1 of 2160p, 3.5 for H.264, 3.6 for H.265; 4.5 to encode 1080p.)
WORTH = 0.8
# Of encoding, what stays with who calls x264, however many threads there are. (Measured.)
OWN_PART = 0.3


class Threads(Struct, frozen=True, kw_only=True):
    """Of one ladder."""

    decode: int = 1
    encode: int = 1  # Of each encoder.

    @property
    def delay_pictures(self) -> int:
        """By which rungs come later than with one thread."""
        return self.decode + self.encode - 2


def does(threads: int, core: float) -> float:
    """What so many threads do of which one does `core`."""
    return core * (1 + WORTH * (threads - 1))


def choose_threads(
    decode: float, scale: float, encodes: Sequence[float], *, core: float, cores: int
) -> Threads | str:
    """The fewest that do it in real time; or what they cannot do.

    `encodes`: what each encoder costs that may have threads; what others do is in `scale`.
    """
    most = max(1, min(cores, THREADS_MAX))
    numbers = itertools.product(range(1, most + 1), repeat=2)
    largest, all_encodes = max(encodes, default=0.0), math.fsum(encodes)
    for by_encode, by_decode in sorted(numbers, key=sum):
        own = scale + all_encodes * (1.0 if by_encode == 1 else OWN_PART)
        own += decode if by_decode == 1 else 0.0
        if own <= core and decode <= does(by_decode, core) and largest <= does(by_encode, core):
            return Threads(decode=by_decode, encode=by_encode)
    for what, cost in (("decoding", decode), ("encoding", largest)):
        if cost > does(most, core):
            return f"{what} of {cost:.0f} is too much for {most} threads of {core:.0f}"
    return f"what one thread does of it is too much for {core:.0f}"
