"""What this PoP offers publishers, and what others do: told to IRS, and to who asks the API."""

from collections.abc import Mapping, Sequence

from edged.config import Config
from edged.media.routing import LOAD_STEP, IngestOffer, PopRow, PopState, RouteRequest
from edged.policy.pop_board import PopBoard
from edged.roles.uplinks import Uplinks
from edged.runtime.hub import Hub
from edged.runtime.listeners import SHED_LAG_S, parse_address
from edged.runtime.pump import Pump
from edged.wire.table import Pops

ANY_STREAM = RouteRequest(channel="-")  # One that no rule is about.
ANY_HOSTS = frozenset({"::", "0.0.0.0"})  # noqa: S104 - compared with, not listened on


class IngestOffers:
    """This PoP's offer, and the others'."""

    def __init__(self, config: Config, pump: Pump, hub: Hub, uplinks: Uplinks) -> None:
        assert config.pop is not None, "offers are a PoP's"
        self.draining = False  # Who drains the PoP says so here; it takes nothing new then.
        self.codecs: dict[str, tuple[str, ...]] = {}  # Protocol -> what it carries.
        self._pop, self._app = config.pop, config.stream_keys.apps[0]
        self._pump, self._hub, self._uplinks = pump, hub, uplinks
        self._urls: tuple[str, ...] = config.pop.ingest_urls
        self._publishers_max = 0
        self._board = PopBoard(config.pop.name, config.pop.shard)

    def started(
        self, addresses: Mapping[str, str], codecs: Sequence[str], publishers_max: int
    ) -> None:
        """A plug-in listens: protocol -> address. Without `pop.ingest_urls` that is the offer."""
        self._publishers_max += publishers_max
        for protocol, address in addresses.items():
            self.codecs[protocol] = tuple(codecs)
            if not self._pop.ingest_urls and parse_address(address)[0] not in ANY_HOSTS:
                self._urls = (*self._urls, f"{protocol}://{address}/{self._app}")

    def told(self, pops: Pops) -> None:
        """IRS tells of the other PoPs."""
        self._board.apply(
            whole=pops.whole,
            changed=pops.changed,
            removed=[(key.pop, key.shard) for key in pops.removed],
            now=self._pump.now(),
        )

    def own(self) -> IngestOffer:
        """What this PoP offers now."""
        lag = self._pump.lag_s / SHED_LAG_S
        places = max(1, self._publishers_max)
        load = min(1.0, max(len(self._hub) / places, lag))
        state = PopState.UP
        if self.draining:
            state = PopState.DRAIN
        elif load >= 1.0:
            state = PopState.FULL
        elif not self._uplinks.placing.has_route(ANY_STREAM):
            state = PopState.NO_ROUTE
        return IngestOffer(self._urls, state, round(round(load / LOAD_STEP) * LOAD_STEP, 2))

    def row(self) -> PopRow:
        """The same as others see it."""
        return PopRow(self._pop.name, self._pop.shard, self.own())

    def others(self) -> list[PopRow]:
        """What the other PoPs offer; nothing when IRS has fallen silent."""
        return self._board.others(self._pump.now())

    def why_failing(self) -> list[str]:
        """Why a load balancer should send nobody here; empty when it may."""
        view = self._uplinks.view
        reasons = {
            "loop_lag": self._pump.lag_s > SHED_LAG_S,
            "no_table": view.table is None,
            "no_origin": not view.reached,
            "draining": self.draining,
        }
        return [reason for reason, holds in reasons.items() if holds]
