"""Answers that stand for a second, by the very bytes of their requests.

When a part has come, thousands ask for it with the same bytes. Whoever made the answer is asked
for it by the first few; for the rest of that second a connection at rest is served without them
(`serving`). Its handler says when it is at rest: `Connection.standing` is its server's table then.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from edged.runtime.kernel_bytes import KERNEL_BYTES_MAX, KernelBytes

if TYPE_CHECKING:
    from edged.runtime.connection import Connection

REQUEST_BYTES_MAX = 2048  # Browsers send 500 to 900.
ANSWERS_MAX = 4096  # Parts of a second, by kinds of players.
ANSWERS_PER_ASKER_MAX = 32  # One who asks for very many things leaves room for the others'.
BYTES_MAX = 64 * 2**20  # Of all: what a quiet server keeps alive until it is asked again.


class StandingAnswer:
    """What to send, and how often it was."""

    __slots__ = ("chunks", "fd", "held", "size", "times", "what")

    def __init__(self, what: object, chunks: tuple[bytes, ...], held: KernelBytes | None) -> None:
        self.what = what  # Its maker's.
        self.chunks = chunks
        self.held = held  # The same, where the kernel has it.
        self.fd = -1 if held is None else held.fd
        self.size = sum(map(len, chunks))
        self.times = 0


class StandingAnswers:
    """All of a server, of one second. Bounded: what comes beyond is answered as else."""

    def __init__(
        self,
        on_short: "Callable[[Connection, StandingAnswer, float], None]",
        *,
        answers_max: int = ANSWERS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        """`on_short` hears that the kernel did not take an answer whole: the rest is queued."""
        self.on_short = on_short
        self.until = -math.inf  # They stand for so long.
        self.answers: dict[bytes, StandingAnswer] = {}
        self._answers_max, self._bytes_max = answers_max, bytes_max
        self._whats: set[object] = set()  # Whose bytes are counted: many kinds of players ask.
        self._bytes = 0
        self._asked: dict[int, int] = {}  # How many each asker added.

    def find(self, request: memoryview, now: float) -> StandingAnswer | None:
        """What stands for these bytes."""
        if now >= self.until or len(request) > REQUEST_BYTES_MAX:
            return None
        return self.answers.get(bytes(request))

    def add(
        self,
        request: bytes,
        what: object,
        chunks: tuple[bytes, ...],
        held: KernelBytes | None = None,
        *,
        asker: int = 0,
    ) -> None:
        """Have that stand for a request that comes as these bytes and nothing else."""
        answer, asked = StandingAnswer(what, chunks, held), self._asked.get(asker, 0)
        more = 0 if what in self._whats else answer.size
        if (
            len(request) <= REQUEST_BYTES_MAX
            and answer.size <= KERNEL_BYTES_MAX
            and self._bytes + more <= self._bytes_max
            and len(self.answers) < self._answers_max
            and asked < ANSWERS_PER_ASKER_MAX
            and request not in self.answers
        ):
            self.answers[request] = answer
            self._whats.add(what)
            self._bytes += more
            self._asked[asker] = asked + 1

    def counts(self) -> Iterable[tuple[object, int]]:
        """What was sent since it was last asked for, and how often."""
        for answer in self.answers.values():
            if answer.times:
                times, answer.times = answer.times, 0
                yield answer.what, times

    def begin(self, until: float) -> None:
        """Let go of all, after a last look at `counts`; what comes now stands for so long."""
        self.answers.clear()
        self._whats.clear()
        self._asked.clear()
        self._bytes = 0
        self.until = until
