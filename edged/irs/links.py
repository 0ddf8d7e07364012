"""The Well's feed and its readers: what PoPs tell goes in, limits and prices come out.

Twice a second what is new is taken; a link that is cut, or back, is planned with at once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import structlog
import trio
from msgspec import Meta, Struct

from edged.irs.collectors import Collectors
from edged.media.routing import OriginState, PopTelemetry
from edged.policy.flows import LinkLimit
from edged.policy.link_map import (
    LINKS_MAX,
    PATHS_MAX,
    SITES_MAX,
    LinkConfig,
    LinkMap,
    PathConfig,
    SiteConfig,
)
from edged.policy.network_sample import LinkPlace, NetworkMap, SitePlace
from edged.policy.restrictions import Restriction, strictest
from edged.policy.well import LinkStatus, Well
from edged.runtime.metrics import MetricSpec, Sample

UPDATE_INTERVAL_S = 0.5
PRICED = ("up", "unknown")  # Others cost all that there is.
LATE_S_MAX = 1.0  # After a pause of ours, what PoPs told meanwhile is heard first.

METRICS = (
    MetricSpec(name="edged_irs_links", help="Configured links by state", labels=("state",)),
    MetricSpec(
        name="edged_irs_link_utilisation",
        help="The part of a link's bandwidth in use, other load included where it shows",
        labels=("link", "towards"),
    ),
    MetricSpec(
        name="edged_irs_link_price_seconds",
        help="Round trip that is worth taking to avoid the link",
        labels=("link",),
    ),
    MetricSpec(
        name="edged_irs_link_rtt_seconds",
        help="Round trip of the link alone, where it can be told from others'",
        labels=("link",),
    ),
    MetricSpec(
        name="edged_irs_link_loss",
        help="Loss on the link alone, where it can be told from others'",
        labels=("link",),
    ),
)
STATES = ("up", "cut", "closed", "unknown")

log = structlog.get_logger("edged.irs.links")


class BackboneConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `[irs]` has of the backbone, and of what else may be wrong in the network."""

    sites: Annotated[tuple[SiteConfig, ...], Meta(max_length=SITES_MAX)] = ()
    links: Annotated[tuple[LinkConfig, ...], Meta(max_length=LINKS_MAX)] = ()
    paths: Annotated[tuple[PathConfig, ...], Meta(max_length=PATHS_MAX)] = ()
    # Whether streams are ended, basic first, that links cannot carry wherever they are moved.
    shedding: bool = True
    sources: dict[str, dict[str, object]] = {}  # A table per plug-in, as its own Struct.


def place_all(config: BackboneConfig) -> NetworkMap:
    """Where everything on the map is."""
    return NetworkMap(
        sites=tuple(SitePlace(site.name, site.latitude, site.longitude) for site in config.sites),
        links=tuple(LinkPlace(link.name, link.ends, link.mbps) for link in config.links),
        site_of_pop={pop: site.name for site in config.sites for pop in site.pops},
        site_of_origin={origin: site.name for site in config.sites for origin in site.origins},
    )


class BackboneLinks:
    """The links of a network, as its IRS knows them."""

    def __init__(self, collectors: Collectors, config: BackboneConfig) -> None:
        self.on_changed: Callable[[], None] = lambda: None  # Something is to be planned with.
        self.places = NetworkMap()  # For who draws it.
        self._collectors = collectors
        self._config = BackboneConfig()
        self._taken: dict[str, PopTelemetry] = {}  # The last of each shard.
        self._priced: set[str] = set()
        self._restricted: dict[str, Restriction] = {}  # Links.
        self._failed = False  # At fitting them, last time.
        self._limits: tuple[LinkLimit, ...] | None = None  # Of this moment, once asked for.
        self.well = Well(LinkMap())
        self.configure(config)

    def configure(self, config: BackboneConfig) -> None:
        """Take a map into use; what was known stays if it is the same."""
        before, self._config = self._config, config
        self.places = place_all(config)
        maps = [
            (each.links, [site.contents for site in each.sites], each.paths)
            for each in (before, config)
        ]
        if maps[0] == maps[1]:
            return
        self.well = Well(LinkMap(config.links, config.sites, config.paths))
        self.well.restrict(self._restricted)
        self._taken, self._priced, self._limits = {}, set(), None
        self._collectors.tolls_ms = {}

    def restrict(self, restrictions: Sequence[Restriction]) -> None:
        """Use links and origins no more than failure sources say, from now on."""
        self._collectors.restricted = strictest(restrictions, "origin")
        self._restricted = strictest(restrictions, "link")
        self.well.restrict(self._restricted)
        self._limits = None
        self.on_changed()

    async def run(self) -> None:
        """Conclude from what PoPs tell until cancelled."""
        while True:
            due = trio.current_time() + UPDATE_INTERVAL_S
            await trio.sleep_until(due)
            if trio.current_time() - due < LATE_S_MAX:
                self.update(trio.current_time())

    def update(self, now: float) -> None:
        """Take what is new, and conclude."""
        well, capacitor = self.well, self._collectors.capacitor
        if not well.map.links:
            return
        here = {pop.pop: pop.told for pop in self._collectors.pops() if pop.connected}
        for key in self._taken.keys() - here.keys():
            well.forget(key)
        for key, told in here.items():
            if self._taken.get(key) is not told:  # Else it is what it told before.
                well.observe(key, told, now)
        self._taken = here
        heard = [
            name for name in capacitor.origins if capacitor.state(name) is not OriginState.DOWN
        ]
        changes = well.update(now, heard=heard)
        for change in changes:
            if change.cut:
                log.warning("link is cut", link=change.link, reason=change.reason)
            else:
                log.info("link is back", link=change.link, reason=change.reason)
        self._note_prices()
        if well.failure and not self._failed:
            log.warning("round trips of links are not known", reason=well.failure)
        self._failed = bool(well.failure)
        self._limits = None
        self._collectors.tolls_ms = well.tolls_ms()
        if changes:
            self.on_changed()

    def limits(self) -> tuple[LinkLimit, ...]:
        """What the backbone can carry now, as the solver takes it."""
        if self._limits is None:
            self._limits = self.well.limits()
        return self._limits

    def status(self) -> list[LinkStatus]:
        """Every link, by name."""
        return self.well.links()

    def read_metrics(self) -> Iterator[Sample]:
        """Values of METRICS."""
        links = self.status()
        for state in STATES:
            count = sum(link.state == state for link in links)
            yield Sample("edged_irs_links", count, {"state": state})
        for link in links:
            labels = {"link": link.link}
            for towards, use in zip(reversed(link.ends), link.utilisation, strict=True):
                yield Sample("edged_irs_link_utilisation", use, {**labels, "towards": towards})
            yield Sample("edged_irs_link_price_seconds", link.price_ms / 1000, labels)
            if len(link.told_as) > 1:
                continue
            if link.rtt_ms is not None:
                yield Sample("edged_irs_link_rtt_seconds", link.rtt_ms / 1000, labels)
            if link.loss is not None:
                yield Sample("edged_irs_link_loss", link.loss, labels)

    def _note_prices(self) -> None:
        links = {link.link: link for link in self.status()}
        priced = {name for name, link in links.items() if link.price_ms and link.state in PRICED}
        for name in sorted(priced - self._priced):
            use = round(max(links[name].utilisation), 3)
            log.warning("link is filling", link=name, utilisation=use)
        for name in sorted(self._priced - priced):
            use = round(max(links[name].utilisation), 3)
            log.info("link is not filling any more", link=name, utilisation=use)
        self._priced = priced
