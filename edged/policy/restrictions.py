"""What may not be used, or only in part, and why: the words of failure sources.

Capacitor and Well find out for themselves. What else knows of an origin or a link (a calendar of
maintenance, a region's control plane) says it in restrictions; where several speak of the same, the
strictest holds.
"""

import math
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from edged.media.routing import ByClass

Kind = Literal["origin", "link"]


class Restriction(Struct, frozen=True, kw_only=True):
    """An origin or a link, how much of it may be used, for how long, and why.

    `usable`: of its slots or its bandwidth; 0: nothing new goes there. Times are Unix seconds.
    """

    kind: Kind
    name: str
    reason: str
    usable: float = 0.0
    since: float = -math.inf
    until: float = math.inf

    @property
    def said(self) -> tuple[Kind, str, str, float]:
        """What it says, whenever it ends: a source may say each time anew how long from now."""
        return (self.kind, self.name, self.reason, self.usable)

    def holds(self, now_unix: float) -> bool:
        """Whether it is in force."""
        return self.since <= now_unix < self.until


def strictest(restrictions: Iterable[Restriction], kind: Kind) -> dict[str, Restriction]:
    """By name, the one that leaves least of it; of equals the one that lasts longest."""
    found: dict[str, Restriction] = {}
    for each in restrictions:
        if each.kind != kind:
            continue
        known = found.get(each.name)
        if known is None or (each.usable, -each.until) < (known.usable, -known.until):
            found[each.name] = each
    return found


def restrict_room(room: ByClass, slots_total: int, usable: float) -> ByClass:
    """What is left of the free units of each class when only a part of all slots may be used."""
    closed = math.ceil((1 - min(1.0, max(0.0, usable))) * slots_total)
    partner, affiliate, basic = (max(0, units - closed) for units in room)
    return (partner, affiliate, basic)
