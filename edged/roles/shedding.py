"""A PoP ends the live streams that IRS says have to go, as links cannot carry them.

IRS names so many of a class at an origin, and the full link; which these are, the newest, and
whether an order counts, `policy/shed_orders.py` decides. The publisher is told why, but not which
link: that is for the log, events and operators. Whoever comes back finds a place where the network
has room elsewhere, or is refused at the door while the link is full (`policy/full_paths.py`).
Nothing is shed without such an order: with IRS gone all stay.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from edged.media.routing import CLASSES
from edged.policy.full_paths import FullPath
from edged.policy.shed_orders import Sheddable, ShedNumbers, ShedTarget, choose_sheds
from edged.roles.placement import SHED
from edged.roles.placing import Placing
from edged.runtime.faults import contained
from edged.runtime.hub import LiveStream
from edged.runtime.metrics import Metrics, MetricSpec, Sample
from edged.wire.table import SHED_CHANNELS_MAX, Shed, ShedDone, ShedPick

SHOWN_MAX = 1000  # Of the last that were shed; `edged route explain` says it of them.
Streams = dict[tuple[str, str], list[Sheddable]]  # By origin and class.
CLASS_OF = {priority.label: priority for priority in CLASSES}

logger = structlog.get_logger("edged.pop")

SPECS = (
    MetricSpec(
        name="edged_shed_streams_total",
        help="Live streams that were ended on the word of IRS, as a link cannot carry them.",
        labels=("role", "class"),
    ),
)


def _ignore(_: ShedDone) -> None:
    pass


class Shedder:
    """The sheds of one PoP shard; synchronous, in the turn of who brings the order."""

    def __init__(
        self,
        placing: Placing,
        stop: Callable[[LiveStream, str, str], None],
        now: Callable[[], float],
    ) -> None:
        """`stop(stream, code, reason)` ends a run, and tells its publisher why."""
        self.tell: Callable[[ShedDone], None] = _ignore  # IRS, once there is a client.
        self._placing, self._stop, self._now = placing, stop, now
        self._numbers = ShedNumbers()
        self._counts: Counter[str] = Counter()  # By class.
        self._last: dict[str, tuple[float, str]] = {}  # Channel -> when and why, the newest last.

    def command(self, command: Shed) -> None:
        """End what has to go, and heed which links are full."""
        if not self._numbers.is_new(command.epoch, command.number):
            logger.warning("order to shed comes again", number=command.number, epoch=command.epoch)
            return
        now = self._now()
        self._placing.view.full.told(
            [FullPath(way.origin, CLASS_OF[way.class_], way.link) for way in command.full],
            until=now + command.full_s,
        )
        streams = self._streams(command.picks)
        for pick in command.picks:
            ended = self._shed(pick, command, streams.get((pick.origin, pick.class_), ()), now)
            self.tell(
                ShedDone(
                    epoch=command.epoch,
                    number=command.number,
                    origin=pick.origin,
                    class_=pick.class_,
                    link=pick.link,
                    wanted=pick.count,
                    ended=sum(each.units for each in ended),
                    channels=tuple(each.channel for each in ended[:SHED_CHANNELS_MAX]),
                )
            )

    def why_shed(self, channel: str) -> str:
        """When and why a channel was shed here last; "" if it was not."""
        if channel not in self._last:
            return ""
        at, why = self._last[channel]
        return f"{why}, {self._now() - at:.0f} s ago"

    def register(self, metrics: Metrics, *, role: str) -> None:
        """Have its counters read."""
        metrics.register(SPECS, partial(self._samples, role))

    def _shed(
        self, pick: ShedPick, command: Shed, streams: Iterable[Sheddable], now: float
    ) -> list[Sheddable]:
        priority, view = CLASS_OF[pick.class_], self._placing.view
        target = ShedTarget(pick.origin, priority, pick.count, pick.there, pick.link)
        have = view.units_at(pick.origin, priority)
        live = [each for each in streams if each.channel in self._placing.placements]
        chosen = choose_sheds(live, target, have=have)
        logger.warning(
            "streams are shed",
            number=command.number,
            link=pick.link,
            origin=pick.origin,
            priority=pick.class_,
            wanted=pick.count,
            streams=len(chosen),
            there=have,
        )
        ended = []
        for each in chosen:
            with contained(logger, "stream not shed", channel=each.channel):
                self._end(each, pick.link, command.number, now)
                ended.append(each)
        if ended:
            view.full.shed(pick.origin, now)
        return ended

    def _end(self, chosen: Sheddable, link: str, number: int, now: float) -> None:
        stream = self._placing.placements[chosen.channel].stream
        why = f"shed: link {link} is full, order {number}"
        logger.warning(
            "stream shed",
            channel=stream.channel,
            publication=f"{stream.stream_id.publication:x}",
            link=link,
            origin=chosen.origin,
            priority=chosen.priority.label,
            number=number,
            live_s=round(now - stream.started_at, 1),
        )
        self._placing.telling.shed(stream, chosen.origin, link, number)
        self._stop(stream, "Rejected", SHED.format(chosen.priority.label))
        self._counts[chosen.priority.label] += chosen.units
        self._last.pop(stream.channel, None)
        while len(self._last) >= SHOWN_MAX:
            del self._last[next(iter(self._last))]
        self._last[stream.channel] = (now, why)

    def _streams(self, picks: Iterable[ShedPick]) -> Streams:
        """What is live of what they name: looked through once, however many they are."""
        moves = self._placing.moves
        found: Streams = {(pick.origin, pick.class_): [] for pick in picks}
        if not found:
            return found
        for channel, placement in self._placing.placements.items():
            origin, priority = placement.decision.origin, placement.request.priority
            named = found.get((origin, priority.label))
            if named is not None and placement.stream.ended is None:
                started_at, moving = placement.stream.started_at, moves.is_moving(channel)
                cost = placement.request.cost
                named.append(Sheddable(channel, origin, priority, cost, started_at, moving))
        return found

    def _samples(self, role: str) -> Iterable[Sample]:
        for label in CLASS_OF:
            labels = {"role": role, "class": label}
            yield Sample("edged_shed_streams_total", self._counts[label], labels)
