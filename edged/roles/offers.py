"""What this PoP offers publishers, and what others do: told to IRS, and to who asks the API."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

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


class _Listening(Struct):
    """A plug-in that is up."""

    addresses: dict[str, str]
    codecs: tuple[str, ...]
    publishers_max: int


class IngestOffers:
    """This PoP's offer, and the others'."""

    def __init__(self, config: Config, pump: Pump, hub: Hub, uplinks: Uplinks) -> None:
        assert config.pop is not None, "offers are a PoP's"
        self.draining = False  # Who drains the PoP says so here; it takes nothing new then.
        self._pop, self._app = config.pop, config.stream_keys.apps[0]
        self._pump, self._hub, self._uplinks = pump, hub, uplinks
        self._plugins: dict[str, _Listening] = {}  # Those that are up.
        self._board = PopBoard(config.pop.name, config.pop.shard)

    def started(
        self, name: str, addresses: Mapping[str, str], codecs: Sequence[str], publishers_max: int
    ) -> None:
        """A plug-in listens: protocol -> address. Without `pop.ingest_urls` that is the offer."""
        self._plugins[name] = _Listening(dict(addresses), tuple(codecs), publishers_max)

    def resized(self, name: str, publishers_max: int) -> None:
        """A plug-in takes more or fewer publishers."""
        if (known := self._plugins.get(name)) is not None:
            known.publishers_max = publishers_max

    def stopped(self, name: str) -> None:
        """A plug-in listens no more; it may again."""
        self._plugins.pop(name, None)

    def reconfigure(self, config: Config) -> None:
        """Offer what the file says by now."""
        self._app = config.stream_keys.apps[0]

    @property
    def codecs(self) -> dict[str, tuple[str, ...]]:
        """What each protocol that is up carries."""
        return {
            protocol: plugin.codecs
            for plugin in self._plugins.values()
            for protocol in plugin.addresses
        }

    @property
    def _urls(self) -> tuple[str, ...]:
        if self._pop.ingest_urls:
            return self._pop.ingest_urls
        return tuple(
            f"{protocol}://{address}/{self._app}"
            for plugin in self._plugins.values()
            for protocol, address in plugin.addresses.items()
            if parse_address(address)[0] not in ANY_HOSTS
        )

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
        places = max(1, sum(plugin.publishers_max for plugin in self._plugins.values()))
        load = min(1.0, max(len(self._hub) / places, lag))
        state = PopState.UP
        if self.draining:
            state = PopState.DRAIN
        elif load >= 1.0:
            state = PopState.FULL
        elif not self._plugins or not self._uplinks.placing.routes.exists(ANY_STREAM):
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
