"""Many who wait for the same answer get it, as time allows."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from edged.wire.h1 import PreparedResponse

if TYPE_CHECKING:
    from edged.playback.http import HttpConnection

ANSWERS_PER_LOOK = 8  # At the clock, of a release;
BYTES_PER_LOOK = 128 * 1024  # fewer of large ones: under TLS that takes 0.1 ms and more.


class Release:
    """A group's answers, given as time allows: thousands take longer than publishers may wait."""

    def __init__(
        self,
        group: "dict[HttpConnection, None]",
        response: PreparedResponse,
        now: Callable[[], float],
    ) -> None:
        self._group, self._response, self._now = group, response, now

    def __call__(self, until: float) -> bool:
        """Answer until then, the last who came first; returns whether there are more."""
        group, response, now = self._group, self._response, self._now()
        per_look = max(1, min(ANSWERS_PER_LOOK, BYTES_PER_LOOK // (response.size + 1)))
        while group:
            for _ in range(per_look):
                if not group:
                    break
                exchange, _ = group.popitem()
                exchange.answer(response, now)
            if (now := self._now()) >= until:
                break
        return bool(group)


def do_at_once(work: Callable[[float], bool]) -> None:
    """What a pump spreads (`Pump.spread`), where there is none: all of it now."""
    while work(math.inf):
        pass
