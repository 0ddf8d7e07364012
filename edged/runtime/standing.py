"""Answers that stand for a second, by the path of their requests.

When a part has come, thousands ask for it. Whoever made the answer is asked for it by the first;
for the rest of that second a connection at rest is served without them (`serving`), if all that
follows its request line has come before, to the byte: players of one kind send the same. Its
handler says when it is at rest: `Connection.standing` is its server's table then.
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
HEADS_MAX = 4096  # Kinds of players, by what they send behind their request line.
BYTES_MAX = 64 * 2**20  # Of all: what a quiet server keeps alive until it is asked again.


_GET, _HTTP_1_1 = b"GET ", b" HTTP/1.1"
_VISIBLE = bytes(range(0x21, 0x7F))


def split_request(request: bytes) -> tuple[bytes, bytes] | None:
    """Path and all that follows the request line, of a GET whose query says nothing to anybody."""
    line, _, head = request.partition(b"\r\n")
    if not (line.startswith(_GET) and line.endswith(_HTTP_1_1)):
        return None
    path, _, query = line[len(_GET) : -len(_HTTP_1_1)].partition(b"?")
    return None if query.translate(None, _VISIBLE) else (path, head)


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
        self.answers: dict[bytes, StandingAnswer] = {}  # By path.
        self.heads: set[bytes] = set()  # What may follow the request line; for longer than that.
        self._answers_max, self._bytes_max = answers_max, bytes_max
        self._whats: set[object] = set()  # Whose bytes are counted: many kinds of players ask.
        self._bytes = 0
        self._asked: dict[int, int] = {}  # How many each asker added.

    def find(self, request: memoryview, now: float) -> StandingAnswer | None:
        """What stands for these bytes."""
        if now >= self.until or len(request) > REQUEST_BYTES_MAX:
            return None
        split = split_request(bytes(request))
        if split is None or split[1] not in self.heads:
            return None
        return self.answers.get(split[0])

    def add(
        self,
        request: bytes,
        what: object,
        chunks: tuple[bytes, ...],
        held: KernelBytes | None = None,
        *,
        asker: int = 0,
    ) -> None:
        """Have that stand for a request that comes as these bytes and nothing else.

        It has to be the answer whatever the query is, and whatever is behind the request line of
        any other request that comes here.
        """
        split = split_request(request)
        if split is None:
            return
        path, head = split
        answer, asked = StandingAnswer(what, chunks, held), self._asked.get(asker, 0)
        if len(request) > REQUEST_BYTES_MAX or asked >= ANSWERS_PER_ASKER_MAX:
            return
        self._asked[asker] = asked + 1
        if len(self.heads) < HEADS_MAX:
            self.heads.add(head)
        more = 0 if what in self._whats else answer.size
        if (
            answer.size <= KERNEL_BYTES_MAX
            and self._bytes + more <= self._bytes_max
            and len(self.answers) < self._answers_max
            and path not in self.answers
        ):
            self.answers[path] = answer
            self._whats.add(what)
            self._bytes += more

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
        if len(self.heads) >= HEADS_MAX:
            self.heads.clear()
        self.until = until
