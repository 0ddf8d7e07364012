"""From the parts of one origin to those of the next, without a hole and without a mixed segment.

    old home: ... 41.2 41.3 | 42.0 42.1 42.2 | 43.0 ...   shown until the new one has caught up;
    new home:     41.2 41.3 | 42.0 42.1 42.2 | 43.0 ...   then that

When a live stream moves, both origins make its parts for a while; when an origin has died, its
successor makes again what that had made last. The source's parts are alike, byte for byte: which
home brings one does not matter. A rung that is encoded is another at each: it changes where a
segment begins, and amid one only if the old home falls silent. So a rendition whose new parts equal
those shown is changed at once, and another at the end of a segment.
"""

import math
from collections.abc import Iterable

from msgspec import Struct

from edged.media.parts import PackagedEvent, Part, Rendition, SegmentEnded, StreamEnded

HANDOVER_S_MAX = 6.0  # A segment, and the time in which a ladder begins anew.
SILENT_S_MAX = 1.0  # Of the old home, while the new one has more: parts come twice as often.
EVENTS_MAX = 4096  # Kept of the new home: more than a window's replay and HANDOVER_S_MAX have.
RECENT_MAX = 64  # Parts of a rendition to compare with: a new home is some behind at first.

Place = tuple[int, int]  # MSN and index of a part.

NOWHERE: Place = (-1, -1)


class _Rendition(Struct):
    """One rendition on its way from home to home."""

    is_shown: bool = False  # Something of it is, from before this began or from the old home.
    last: Place = NOWHERE  # The newest part that is shown,
    ended_msn: int = -1  # and the newest segment whose end is.
    recent: dict[Place, Part] = {}  # Of those shown.
    is_exact: bool | None = None  # Whether both homes make the same; None: not known yet.
    changed: bool = False  # The new home's is shown.
    newest: Place = NOWHERE  # Of the new home,
    kept: list[PackagedEvent] = []  # which is not shown yet.
    silent_since: float = math.inf  # The old home, while the new one has more to show.

    def show(self, event: PackagedEvent) -> bool:
        """Whether it was not shown before; it is now."""
        if isinstance(event, Part):
            place = (event.msn, event.index)
            if place <= self.last:
                return False
            self.last = place
            self.recent[place] = event
            if len(self.recent) > RECENT_MAX:
                del self.recent[next(iter(self.recent))]
        elif isinstance(event, SegmentEnded):
            if event.msn <= self.ended_msn:
                return False
            self.ended_msn = event.msn
        return True

    def compare(self, part: Part) -> None:
        """Learn from a part that both homes have made, if this is one, whether they differ."""
        known = self.recent.get((part.msn, part.index))
        if self.is_exact is None and known is not None and known.payload:
            self.is_exact = known.payload == part.payload


class Handover:
    """One run of a channel. Feed it what either home pushes; it returns what is to be shown."""

    def __init__(self, shown: Iterable[tuple[str, Part | None]], now: float) -> None:
        """`shown`: the renditions of the run, and the newest part of each that viewers have."""
        self._until = now + HANDOVER_S_MAX
        self.is_over = False  # Nothing of the old home's is shown any more.
        self._renditions: dict[str, _Rendition] = {}
        self._kept = 0
        for name, part in shown:
            known = self._renditions[name] = _Rendition(is_shown=True)
            if part is not None:
                known.show(part)

    @property
    def due_at(self) -> float:
        """When `handle_timeout` has something to do; inf: never."""
        if self.is_over:
            return math.inf
        silent = [known.silent_since + SILENT_S_MAX for known in self._renditions.values()]
        return min((self._until, *silent))

    @property
    def is_done(self) -> bool:
        """Whether the new home has come to all that is shown: no need to look any more."""
        return self.is_over and all(
            known.newest >= known.last or not known.is_shown for known in self._renditions.values()
        )

    def take_old(self, events: list[PackagedEvent], now: float) -> list[PackagedEvent]:
        """Take what the old home pushed."""
        out: list[PackagedEvent] = []
        for event in events:
            if self.is_over:
                break
            if isinstance(event, StreamEnded):
                return out + self.force()  # The new home tells the end.
            known = self._known(_name_of(event))
            if known.changed:
                continue
            known.is_shown = True
            if known.show(event):
                out.append(event)
            known.silent_since = now if known.newest > known.last else math.inf
            if known.is_exact is None:
                for kept in known.kept:
                    if isinstance(kept, Part):
                        known.compare(kept)
            self._consider(known, out, ended=event if isinstance(event, SegmentEnded) else None)
        return out

    def take_new(self, events: list[PackagedEvent], now: float) -> list[PackagedEvent]:
        """Take what the new home pushed."""
        out: list[PackagedEvent] = []
        for event in events:
            if isinstance(event, StreamEnded) or self._kept >= EVENTS_MAX:
                out += self.force()
            if isinstance(event, StreamEnded):
                out.append(event)
                continue
            known = self._known(_name_of(event))
            if isinstance(event, Part):
                known.newest = max(known.newest, (event.msn, event.index))
                known.compare(event)
            if known.changed:
                if known.show(event):
                    out.append(event)
                continue
            known.kept.append(event)
            self._kept += 1
            if known.newest > known.last and known.silent_since == math.inf:
                known.silent_since = now
            self._consider(known, out)
        return out

    def handle_timeout(self, now: float) -> list[PackagedEvent]:
        """Go on with the new home where the old one is silent, or has had its time."""
        if now >= self._until:
            return self.force()
        out: list[PackagedEvent] = []
        for known in self._renditions.values():
            if not known.changed and now >= known.silent_since + SILENT_S_MAX:
                self._change(known, out)
        return out

    def force(self) -> list[PackagedEvent]:
        """Have the new home's shown from here on, whatever the old one lacks."""
        out: list[PackagedEvent] = []
        for known in self._renditions.values():
            if not known.changed:
                self._change(known, out)
        self.is_over = True
        return out

    def _known(self, name: str) -> _Rendition:
        known = self._renditions.get(name)
        if known is None:
            known = self._renditions[name] = _Rendition(changed=self.is_over)
        return known

    def _consider(
        self, known: _Rendition, out: list[PackagedEvent], ended: SegmentEnded | None = None
    ) -> None:
        """Change homes with a rendition if this is the moment for it."""
        caught_up = known.newest >= known.last
        begins = ended is not None and known.newest[0] >= ended.msn
        if (known.is_exact and caught_up) or (known.is_exact is False and begins):
            if ended is not None and not known.is_exact:
                known.last = max(known.last, (ended.msn, 2**31))  # The rest of it is not ours.
            self._change(known, out)

    def _change(self, known: _Rendition, out: list[PackagedEvent]) -> None:
        known.changed, known.silent_since = True, math.inf
        self._kept -= len(known.kept)
        out += [event for event in known.kept if known.show(event)]
        known.kept = []
        if all(each.changed for each in self._renditions.values() if each.is_shown):
            self.is_over = True
            for each in self._renditions.values():
                if not each.changed:  # Of the new home alone.
                    self._change(each, out)


def _name_of(event: PackagedEvent) -> str:
    if isinstance(event, Rendition):
        return event.name
    return "" if isinstance(event, StreamEnded) else event.rendition
