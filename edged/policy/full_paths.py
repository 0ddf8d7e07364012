"""A PoP's ways over full links, as IRS tells them: which streams may not go there, and until when.

Where streams were shed of this PoP, its own leases count them still, as if their places were free:
until a table has come that was made without them, leases do not count there either.
"""

import math
from collections.abc import Iterable

from msgspec import Struct

from edged.media.stream import PriorityClass

TOLD_S = 3.0  # From a shed on until IRS has been told, and plans without: two telemetries and more.


class FullPath(Struct, frozen=True, array_like=True):
    """The way to an origin crosses a full link; `priority`: the highest class shed of it."""

    origin: str
    priority: PriorityClass
    link: str


class FullPaths:
    """Of one PoP shard. Every change says `now`, monotonic."""

    def __init__(self) -> None:
        self._paths: dict[str, FullPath] = {}  # By origin.
        self._until = -math.inf
        self._shut: dict[str, float] = {}  # Origin -> when a stream of ours was shed there.

    def told(self, paths: Iterable[FullPath], *, until: float) -> None:
        """These, and no others, are over full links until then."""
        self._paths = {path.origin: path for path in paths}
        self._until = until
        self._shut = {name: at for name, at in self._shut.items() if name in self._paths}

    def shed(self, origin: str, now: float) -> None:
        """Streams of ours were shed there."""
        self._shut[origin] = now

    def table_changed(self, now: float) -> None:
        """A table is in force: one that came late enough knows what was shed."""
        if self._shut:
            self._shut = {name: at for name, at in self._shut.items() if now < at + TOLD_S}

    def why(self, origin: str, priority: PriorityClass, now: float, *, leased: bool = False) -> str:
        """Why a stream of a class may not go there, "" if it may; `leased`: a lease has room."""
        if not self._paths or now >= self._until:
            return ""
        path = self._paths.get(origin)
        if path is None or priority < path.priority or (leased and origin not in self._shut):
            return ""
        return f"link {path.link} is full"

    def keeps_from(self, origins: Iterable[str], priority: PriorityClass, now: float) -> bool:
        """Whether it is a full link that a stream may not go to some of these."""
        return any(self.why(name, priority, now) for name in origins)
