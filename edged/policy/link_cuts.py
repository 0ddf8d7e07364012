"""Which links are cut, by which paths died: boolean tomography.

A link that a living path crosses is up. What is dead is explained by as few links as can be, the
one that explains most first; links that only dead paths share, always together, are told as one.
A cut is believed at once, for the paths were silent for a second already.

L3 goes round a cut link, so paths come back that do not cross it any more. It is back when a path
lives that has no other way, or whose round trip is that of the way across it, for BACK_S; or when
for UNTOLD_S nothing has died and nothing tells.
"""

from collections.abc import Collection, Mapping

from msgspec import Struct

from edged.policy.link_map import LinkMap, Pair, Way

BACK_S = 5.0
UNTOLD_S = 60.0
CONVERGENCE_S = 10.0  # So long a path may stay dead after a cut although it has another way.
RTT_MARGIN_MS = 2.0  # By which, and by
RTT_MARGIN = 0.1  # so much of the two ways' difference, it is rather the one than the other.
PATHS_SHOWN_MAX = 3


class PathState(Struct, frozen=True):
    """Whether a path lives, and its round trip."""

    alive: bool
    rtt_ms: float


class LinkChanged(Struct, frozen=True, kw_only=True):
    """A link was cut, or is back."""

    link: str
    cut: bool
    reason: str


class _Cut:
    """A link that is cut."""

    __slots__ = ("back_since", "began_at", "died_at", "rtt_ms")

    def __init__(self, now: float, rtt_ms: Mapping[tuple[str, ...], float]) -> None:
        self.began_at = self.died_at = now
        self.back_since: float | None = None
        self.rtt_ms = rtt_ms  # Of all groups of links, before.


class LinkCuts:
    """All links of one map."""

    def __init__(self, link_map: LinkMap) -> None:
        self._map = link_map
        self._cuts: dict[str, _Cut] = {}
        self.closed: frozenset[str] = frozenset()  # Not to be used, as somebody said.

    @property
    def cut(self) -> frozenset[str]:
        """The links that are cut."""
        return frozenset(self._cuts)

    @property
    def without(self) -> frozenset[str]:
        """The links that streams are not to cross."""
        return self.cut | self.closed if self.closed else self.cut

    def way(self, pair: Pair) -> Way | None:
        """What a stream crosses now; where there is no way without those links, the way with."""
        found = self._map.way(*pair, self.without)
        return found if found is not None else self._map.way(*pair)

    def update(
        self,
        paths: Mapping[Pair, PathState],
        heard: Collection[str],
        rtt_ms: Mapping[tuple[str, ...], float],
        now: float,
    ) -> list[LinkChanged]:
        """Conclude from the paths as they are. `heard`: origins that are there for sure.

        To an origin that neither is heard nor has a living path nothing dead is held against a
        link. `rtt_ms`: of groups of links, as known so far.
        """
        there = set(heard) | {origin for (_, origin), path in paths.items() if path.alive}
        dead = {pair for pair, path in paths.items() if not path.alive and pair[1] in there}
        changes = self._find_back(paths, dead, now)
        changes += self._find_cut(paths, dead, rtt_ms, now)
        return changes

    def _find_cut(
        self,
        paths: Mapping[Pair, PathState],
        dead: set[Pair],
        rtt_ms: Mapping[tuple[str, ...], float],
        now: float,
    ) -> list[LinkChanged]:
        up: set[str] = set()
        for pair, path in paths.items():
            if path.alive:
                up |= {crossing.link for crossing in self.way(pair) or ()}
        suspects: dict[str, set[Pair]] = {}
        without = self.without
        for pair in dead:
            if not self._is_explained(pair, now):
                for crossing in self.way(pair) or ():
                    if crossing.link not in up and crossing.link not in without:
                        suspects.setdefault(crossing.link, set()).add(pair)
        changes = []
        while suspects:
            most = max(len(pairs) for pairs in suspects.values())
            chosen = min(link for link, pairs in suspects.items() if len(pairs) == most)
            explained = suspects[chosen]
            alike = sorted(link for link, pairs in suspects.items() if pairs == explained)
            for link in alike:
                self._cuts[link] = _Cut(now, rtt_ms)
                changes.append(
                    LinkChanged(link=link, cut=True, reason=_why_cut(link, alike, explained))
                )
            suspects = {
                link: left
                for link, pairs in suspects.items()
                if link not in alike and (left := pairs - explained)
            }
        return changes

    def _is_explained(self, pair: Pair, now: float) -> bool:
        """Whether a cut that is known is why it is dead."""
        crossed = [self._cuts.get(crossing.link) for crossing in self._map.way(*pair) or ()]
        known = [cut for cut in crossed if cut is not None]
        if not known:
            return False
        if self._map.way(*pair, self.without) is None:
            return True
        return now - max(cut.began_at for cut in known) < CONVERGENCE_S

    def _find_back(
        self, paths: Mapping[Pair, PathState], dead: set[Pair], now: float
    ) -> list[LinkChanged]:
        changes = []
        for link, cut in list(self._cuts.items()):
            across = {
                pair
                for pair in paths
                if any(crossing.link == link for crossing in self._map.way(*pair) or ())
            }
            if across & dead:
                cut.died_at = now
            told = sorted(
                pair for pair in across if paths[pair].alive and self._crosses(pair, paths, cut)
            )
            if not told:
                cut.back_since = None
            elif cut.back_since is None:
                cut.back_since = now
            reason = ""
            if cut.back_since is not None and now - cut.back_since >= BACK_S:
                reason = f"paths cross it again: {_show(told)}"
            elif now - cut.died_at >= UNTOLD_S:
                reason = f"no path has died for {UNTOLD_S:g} s, and none tells more"
            if reason:
                del self._cuts[link]
                changes.append(LinkChanged(link=link, cut=False, reason=reason))
        return changes

    def _crosses(self, pair: Pair, paths: Mapping[Pair, PathState], cut: _Cut) -> bool:
        """Whether a living path must be across the link."""
        before, round_it = self._map.way(*pair), self._map.way(*pair, self.without)
        if round_it is None:
            return True
        across_ms, round_ms = _sum(before, cut.rtt_ms), _sum(round_it, cut.rtt_ms)
        if across_ms is None or round_ms is None:
            return False
        margin = max(RTT_MARGIN_MS, RTT_MARGIN * abs(across_ms - round_ms))
        rtt_ms = paths[pair].rtt_ms
        return abs(rtt_ms - across_ms) + margin < abs(rtt_ms - round_ms)


def _sum(way: Way | None, rtt_ms: Mapping[tuple[str, ...], float]) -> float | None:
    """The round trip along a way; None where a part of it is not known."""
    left = {crossing.link for crossing in way or ()}
    total = 0.0
    for links, value in rtt_ms.items():
        if left.issuperset(links):
            left.difference_update(links)
            total += value
    return None if left else total


def _why_cut(link: str, alike: list[str], pairs: set[Pair]) -> str:
    others = [other for other in alike if other != link]
    also = f"; not told from {', '.join(others)}" if others else ""
    return f"no living path crosses it, and died: {_show(sorted(pairs))}{also}"


def _show(pairs: list[Pair]) -> str:
    shown = ", ".join(f"{pop} to {origin}" for pop, origin in pairs[:PATHS_SHOWN_MAX])
    more = len(pairs) - PATHS_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown
