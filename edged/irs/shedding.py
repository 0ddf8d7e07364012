"""What IRS has PoPs shed: streams that links cannot carry, wherever they are moved; who is told.

    planner ── order ─▶ Shed to the PoPs that have them: so many of a class, and they pick which
            ── keep ──▶ Shed to all whose ways cross these links: which are full, now and renewed
    PoPs    ── ShedDone ─▶ log, counts; what is left is told by their telemetry

An order is sent once. One that is lost with its session, or with IRS, is not made good: what PoPs
tell next decides. So nobody sheds for a planner that is gone, and a new one begins with what is.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import structlog
from msgspec import structs

from edged.media.routing import CLASSES, ORIGINS_MAX, ClassLabel
from edged.policy.flows import LinkLimit
from edged.policy.full_links import FULL_S, FullLinks
from edged.policy.full_paths import FullPath
from edged.policy.planner import PopDemand
from edged.policy.shed_orders import (
    ShedOrder,
    ShedsAsked,
    digest_of_sheds,
    make_shed_orders,
    units_of,
)
from edged.policy.shedding import UnitSheds
from edged.policy.well import LinkStatus, direction_name
from edged.runtime.metrics import MetricSpec, Sample
from edged.wire.irs_link import IrsLink
from edged.wire.table import PICKS_MAX, FullWay, Shed, ShedDone, ShedPick

RENEW_S = 3.0  # Of those that are full; one that joins hears of them within it.

METRICS = (
    MetricSpec(
        name="edged_irs_sheds_ordered_total",
        help="Live streams that PoPs were ordered to end, as links cannot carry them",
        labels=("class",),
    ),
    MetricSpec(
        name="edged_irs_sheds_total",
        help="Live streams that PoPs ended by such an order, as they told",
        labels=("class",),
    ),
    MetricSpec(
        name="edged_irs_links_closed",
        help="Links over which streams were shed, and that are full",
    ),
)

Ways = tuple[FullWay, ...]

log = structlog.get_logger("edged.irs.shedding")


class Session(Protocol):
    """What it needs of a PoP's session."""

    link: IrsLink

    def wake(self) -> None:
        """Something is to be sent."""


def _ignore(sheds: Sequence[UnitSheds]) -> None:
    del sheds


class Shedding:
    """The sheds that IRS wants. All of it is synchronous; `now` is monotonic."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        epoch: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        """`sessions`: by PoP shard; `epoch`: under which they listen to us."""
        self.enabled = True
        self.asked: ShedsAsked | None = None  # Last, by a plan.
        self.on_opened: Callable[[str], None] = lambda _: None  # A link has room again.
        self.on_ordered: Callable[[Sequence[UnitSheds]], None] = _ignore
        self._sessions, self._epoch, self._now = sessions, epoch, now
        self._number = 0
        self._full = FullLinks()
        # By PoP shard, as it was told last, and in which session.
        self._ways: dict[str, tuple[Session, Ways]] = {}
        self._renew_at = 0.0
        self._counts: Counter[tuple[str, str]] = Counter()  # "ordered" or "ended", class.

    def order(
        self,
        sheds: Sequence[UnitSheds],
        pops: Sequence[PopDemand],
        limits: Sequence[LinkLimit],
    ) -> None:
        """Have PoPs end these; `pops`, `limits`: what the plan was made of.

        One that is not connected, or too old, is left out, which is logged: the next plan sees that
        its streams are still there.
        """
        self._full.shed(sheds)
        ways, now, epoch = self._ways_now(limits), self._now(), self._epoch()
        orders = make_shed_orders(sheds, units_of(pops), targets_max=PICKS_MAX)
        self._number += 1
        number = self._number
        told = [order for order in orders if self._send(order.pop, ways, now, order=order)]
        self.asked = ShedsAsked(
            epoch=epoch,
            number=number,
            targets_max=PICKS_MAX,
            told=tuple(order.pop for order in told),
            digest=digest_of_sheds(told, epoch, number),
        )
        for order in told:
            for target in order.targets:
                self._counts["ordered", target.priority.label] += target.units
        heard = set(self.asked.told)
        left_out = [order.pop for order in orders if order.pop not in heard]
        log.warning(
            "streams have to go",
            number=number,
            streams=sum(order.units for order in told),
            links=sorted({each.link for each in sheds}),
            classes=sorted({each.priority.label for each in sheds}),
            pops=len(told),
            left_out=left_out or None,
        )
        self.on_ordered(sheds)
        self._tell_ways(ways, now, but=self.asked.told)

    def keep(self, pops: Iterable[PopDemand], limits: Sequence[LinkLimit]) -> None:
        """Look which links are still full, and tell PoPs, twice a second."""
        now = self._now()
        why, opened = "has room again", self._full.look(limits, pops, now)
        if not self.enabled:
            why, opened = "nothing is shed any more", [*opened, *self._full.names]
            self._full.clear()
        for link in opened:
            log.info("link is open to what was shed", link=link, why=why)
            self.on_opened(link)
        if self._ways or self._full.names:
            self._tell_ways(self._ways_now(limits), now)

    def stand_by(self) -> None:
        """Say nothing more: another IRS plans. PoPs believe what they were told for FULL_S."""
        self._full.clear()
        self._ways = {}

    def done(self, pop: str, done: ShedDone) -> None:
        """A PoP has ended some."""
        self._counts["ended", done.class_] += done.ended
        log.warning(
            "streams were shed",
            pop=pop,
            number=done.number,
            origin=done.origin,
            link=done.link,
            priority=done.class_,
            wanted=done.wanted,
            streams=done.ended,
            channels=list(done.channels) or None,
        )

    @property
    def full(self) -> list[str]:
        """Links that are closed to classes that were shed."""
        return sorted(self._full.names)

    def show(self, links: Iterable[LinkStatus]) -> list[LinkStatus]:
        """The same, and to whom they are closed each way."""
        classes = {name: priority.label for name, priority in self._full.names.items()}
        return [
            structs.replace(
                link,
                closed=(
                    classes.get(direction_name(link.link, link.ends[1]), ""),
                    classes.get(direction_name(link.link, link.ends[0]), ""),
                ),
            )
            for link in links
        ]

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        for priority in CLASSES:
            labels, label = {"class": priority.label}, priority.label
            yield Sample("edged_irs_sheds_ordered_total", self._counts["ordered", label], labels)
            yield Sample("edged_irs_sheds_total", self._counts["ended", label], labels)
        yield Sample("edged_irs_links_closed", len(self._full.names))

    def _ways_now(self, limits: Sequence[LinkLimit]) -> dict[str, Ways]:
        """Of each PoP shard that is here and has any."""
        paths = self._full.paths(limits)
        return {
            key: _as_told(found)
            for key in self._sessions
            if (found := paths.get(key.partition("/")[0], ()))
        }

    def _tell_ways(self, ways: Mapping[str, Ways], now: float, *, but: Iterable[str] = ()) -> None:
        """Tell whom it is news for; and all, each RENEW_S."""
        renew = now >= self._renew_at
        if renew:
            self._renew_at = now + RENEW_S
        told = set(but)
        for key in [*ways, *(self._ways.keys() - ways.keys())]:
            session, before = self._ways.get(key, (None, ()))
            changed = ways.get(key, ()) != before or session is not self._sessions.get(key)
            if key not in told and (changed or renew):
                self._number += 1
                if not self._send(key, ways, now):
                    self._ways.pop(key, None)

    def _send(
        self, key: str, ways: Mapping[str, Ways], now: float, *, order: ShedOrder | None = None
    ) -> bool:
        session, full = self._sessions.get(key), ways.get(key, ())
        targets = () if order is None else order.targets
        message = Shed(
            epoch=self._epoch(),
            number=self._number,
            picks=tuple(
                ShedPick(
                    target.origin,
                    cast("ClassLabel", target.priority.label),
                    target.units,
                    target.there,
                    target.link,
                )
                for target in targets
            ),
            full=full,
            full_s=FULL_S,
        )
        if session is None or not session.link.shed(message, now):
            return False
        session.wake()
        if full:
            self._ways[key] = (session, full)
        else:
            self._ways.pop(key, None)
        return True


def _as_told(paths: Sequence[FullPath]) -> Ways:
    return tuple(
        FullWay(path.origin, cast("ClassLabel", path.priority.label), path.link)
        for path in paths[:ORIGINS_MAX]
    )
