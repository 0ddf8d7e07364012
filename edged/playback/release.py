"""Many who wait for the same answer get it, as time allows."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edged.runtime.sends import send_to_all
from edged.wire.prepared import JOIN_BYTES_MAX, PreparedResponse

if TYPE_CHECKING:
    from edged.playback.waiting import Exchange

ANSWERS_PER_LOOK = 8  # At the clock, of a release;
BYTES_PER_LOOK = 128 * 1024  # fewer of large ones: under TLS that takes 0.1 ms and more.
SENDS_PER_LOOK = 64  # Where the bytes just leave, at 7 us each.


class Release:
    """A group's answers, given as time allows: thousands take longer than publishers may wait.

    First all are sent, in the order in which they came, then each is accounted for.
    """

    def __init__(
        self,
        group: "dict[Exchange, None]",
        response: PreparedResponse,
        now: Callable[[], float],
    ) -> None:
        self._group, self._response, self._now = group, response, now
        self._order = iter(list(group))  # Who leaves meanwhile is no longer in the group.
        self._sent: list[Exchange] = []  # And not settled.

    @property
    def all_are_sent(self) -> bool:
        """Whether nobody waits any more, though not all may be accounted for."""
        return not self._group

    def __call__(self, until: float) -> bool:
        """Answer until then, as they came; returns whether there is more to do."""
        group, sent, now = self._group, self._sent, self._now()
        while group:
            if self._response.size <= JOIN_BYTES_MAX:
                self._send_some(now)
            else:  # It is in pieces, or the kernel holds it.
                self._answer_some(now)
            if (now := self._now()) >= until or not group:  # Others first, then the bookkeeping.
                return bool(group or sent)
        while sent:
            for _ in range(min(ANSWERS_PER_LOOK, len(sent))):
                sent.pop().settle(now)
            if (now := self._now()) >= until:
                break
        return bool(sent)

    def _send_some(self, now: float) -> None:
        """Send to the next few at once, and answer those for whom it is not as simple as that."""
        response = self._response
        simple: list[Exchange] = []
        odd: list[Exchange] = []
        for exchange in self._next(SENDS_PER_LOOK):
            (simple if exchange.answer_ahead(response) else odd).append(exchange)
            if len(odd) >= ANSWERS_PER_LOOK:
                break
        if simple:
            try:
                (data,) = simple[0].stamped(response, now)
                send_to_all([exchange.connection for exchange in simple], data)
            except Exception as error:  # They count as answered, and may not be: it ends them.
                for exchange in simple:
                    exchange.connection.pump.fail(exchange.connection, error)
            self._sent += simple
        for exchange in odd:
            exchange.answer(response, now)

    def _answer_some(self, now: float) -> None:
        response = self._response
        per_look = max(1, min(ANSWERS_PER_LOOK, BYTES_PER_LOOK // (response.size + 1)))
        for exchange in self._next(per_look):
            exchange.answer(response, now)

    def _next(self, count: int) -> Iterator["Exchange"]:
        """The next of those who still wait; each leaves the group."""
        group = self._group
        for exchange in self._order:
            if exchange in group:
                del group[exchange]
                yield exchange
                count -= 1
                if not count:
                    return
        self._order = iter(list(group))  # Of nobody, unless some came late.


def do_at_once(work: Callable[[float], bool]) -> None:
    """What a pump spreads (`Pump.spread`), where there is none: all of it now."""
    while work(math.inf):
        pass
