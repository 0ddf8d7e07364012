"""The origins that a run has lived at: who may still hold a segment that was listed.

    A ── moves ──▶ B ── moves ──▶ C        B has nothing older than where it began; A still holds
    0 ... 41       41 ... 73      73 ...   what came before, for as long as it can be seeked to.

So a home that begins makes nothing older: only what it had, and holds no more, is lost.
"""

from collections.abc import Callable

from msgspec import Struct

from edged.media.stream import PriorityClass

HOMES_MAX = 8  # Of one run; what the oldest held before those is lost.


class Home(Struct):
    """One of them, under one home epoch."""

    origin: str
    priority: PriorityClass
    home_epoch: int
    begins: dict[str, int] = {}  # Rendition -> MSN of the oldest that it had at first.

    @property
    def which(self) -> tuple[str, int]:
        """What tells it from others."""
        return self.origin, self.home_epoch


class RunHomes:
    """Where a run came from, the last to come last."""

    def __init__(self) -> None:
        self._homes: list[Home] = []

    def came(self, origin: str, priority: PriorityClass, home_epoch: int) -> bool:
        """Something came from there; False if that is where it came from before as well."""
        which = (origin, home_epoch)
        known = next((home for home in self._homes if home.which == which), None)
        home = known or Home(origin, priority, home_epoch)
        if self._homes and home is self._homes[-1] and home.priority is priority:
            return False
        home.priority = priority
        self._homes = [other for other in self._homes if other is not home]
        self._homes = [*self._homes, home][-HOMES_MAX:]
        return True

    def newest_first(self) -> list[Home]:
        """Whom to ask for a segment, one after the other: each origin once."""
        by_origin: dict[str, Home] = {}
        for home in reversed(self._homes):
            by_origin.setdefault(home.origin, home)
        return list(by_origin.values())

    def oldest_msn(self, rendition: str, told: int, is_up: Callable[[Home], bool]) -> int:
        """The oldest segment that can be had, now that the newest home says `told` of itself.

        What is older than that is with the homes before, as far back as each of them is up.
        """
        newest = self._homes[-1]
        if told and told > newest.begins.setdefault(rendition, told):
            return told  # It has let go of some: no playlist goes on beyond the hole.
        oldest = told
        for home in reversed(self._homes[:-1]):
            if not is_up(home):
                break
            oldest = min(oldest, home.begins.get(rendition, 0))
        return oldest
