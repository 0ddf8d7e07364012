"""What befalls the network: the scenario's events, put on a run's timeline."""

from collections.abc import Callable

from edged.policy.drain import Drain
from edged.tools.simulate.board import TICK_S
from edged.tools.simulate.engine import Network
from edged.tools.simulate.scenario import (
    CapacityLost,
    Event,
    IrsDead,
    LinkCut,
    OriginDead,
    OriginFrozen,
    StaleTelemetry,
    Upgrade,
)
from edged.tools.simulate.streams import Site, Stream


def schedule(network: Network) -> None:
    """Have every event happen, and be over, in its time. Flash crowds are the demand's own."""
    for event in network.scenario.events:
        begin, end = _changes(network, event)
        at = event.at_h * 3600
        network.call_at(at, begin)
        if event.for_h:
            network.call_at(at + event.for_h * 3600, end)


Call = Callable[[], None]


def _changes(network: Network, event: Event) -> tuple[Call, Call]:  # noqa: PLR0911 - one a kind
    """What happens when an event begins, and when it is over."""
    policy = network.policy
    match event:
        case OriginDead() | OriginFrozen():
            site, falls = _site(network, event.origin), isinstance(event, OriginDead)
            return lambda: network.lose(site, link_falls=falls), lambda: network.restore(site)
        case CapacityLost():
            site = _site(network, event.origin)
            left = int(site.configured * event.left)
            return (lambda: _resize(network, site, left)), (
                lambda: _resize(network, site, site.configured)
            )
        case LinkCut():
            link = event.link
            return (lambda: network.set_link(link, up=False)), (
                lambda: network.set_link(link, up=True)
            )
        case IrsDead():
            return (lambda: policy.irs_changed(network.now, up=False)), (
                lambda: policy.irs_changed(network.now, up=True)
            )
        case StaleTelemetry():
            age_s, usual = event.age_s, network.scenario.irs.telemetry_age_s
            return (lambda: policy.telemetry_aged(age_s)), (lambda: policy.telemetry_aged(usual))
        case Upgrade():
            return _Upgrade(network, event).begin, _nothing
        case _:
            return _nothing, _nothing


class _Upgrade:
    """Origins drained and restarted, one after the other."""

    def __init__(self, network: Network, event: Upgrade) -> None:
        self._network, self._event = network, event
        names = event.origins or tuple(site.name for site in network.sites)
        self._left = [_site(network, name) for name in names]

    def begin(self) -> None:
        """Drain the next; nothing new goes there, and one by one its streams are let go."""
        if not self._left:
            return
        network = self._network
        site = self._left.pop(0)
        network.policy.about_to_change(network.now)
        site.drains = True
        drain = Drain(
            list(site.streams), now=network.now, deadline_s=self._event.drain_s, notice_s=1.0
        )
        self._step(site, drain)

    def _step(self, site: Site, drain: Drain[Stream]) -> None:
        network = self._network
        for stream in drain.take_due(network.now):
            network.let_go(stream, site)
        if drain.is_over(network.now):
            network.lose(site, link_falls=True)
            network.call_at(network.now + self._event.restart_s, lambda: self._restart(site))
        else:
            after = max(network.now + TICK_S, min(drain.next_timeout(), drain.ends_at))
            network.call_at(after, lambda: self._step(site, drain))

    def _restart(self, site: Site) -> None:
        network = self._network
        network.restore(site)
        network.call_at(network.now + self._event.pause_s, self.begin)


def _resize(network: Network, site: Site, total: int) -> None:
    network.policy.about_to_change(network.now)
    site.resize(total)


def _site(network: Network, name: str) -> Site:
    return next(site for site in network.sites if site.name == name)


def _nothing() -> None:
    pass
