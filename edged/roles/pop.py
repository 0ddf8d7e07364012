"""The PoP: takes publishers in, places and forwards their streams, serves viewers."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio
from msgspec import Struct

from edged.api import metrics as api_metrics
from edged.api.key_callback import KeyCallback
from edged.api.webhooks import Webhooks, check_ca
from edged.backbone.local_end import LocalEnd
from edged.backbone.statistics import OriginLinkStatistics
from edged.config import Config
from edged.ingest.plugin import DRAINING
from edged.irs.client import PopClient
from edged.media.routing import RouteRequest
from edged.playback import metrics as playback_metrics
from edged.playback.hls import HlsService
from edged.playback.http import HttpServer, Router
from edged.playback.pages import LiveChannel, mount_streams, mount_time
from edged.playback.web.pages import make_pages, mount_pages, read_hls
from edged.policy.pop_view import PopView
from edged.policy.reach_config import PopReachConfig
from edged.policy.routing_table import Decision, Explanation, explain_origin
from edged.policy.stream_keys import StreamKeys
from edged.roles import fitness, pop_metrics
from edged.roles.api import PopSide, make_api
from edged.roles.channel_ways import ChannelWay
from edged.roles.common import (
    Commit,
    RoleMetrics,
    StreamLine,
    describe_stream,
    new_instance,
    prepare_mutual,
)
from edged.roles.descriptions import Descriptions
from edged.roles.door import PopDoor
from edged.roles.draining import Drainer
from edged.roles.fitness import Fault
from edged.roles.ingest_health import IngestHealth
from edged.roles.live_rows import LiveRows
from edged.roles.offers import IngestOffers
from edged.roles.plugins import Plugins
from edged.roles.reaching import Reaching
from edged.roles.rehoming import Rehomer
from edged.roles.relaying import Relaying
from edged.roles.reloading import quietly, take_into_use
from edged.roles.rights import RightsOffice
from edged.roles.shedding import Shedder
from edged.roles.telling import Telling
from edged.roles.uplinks import Uplinks
from edged.runtime.event_stream import EventStream
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.listeners import has_inherited
from edged.runtime.metrics import Metrics
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor
from edged.runtime.tls import MutualTls, PublicTls, keep_certificates

if TYPE_CHECKING:
    from edged.api.service import ApiService
    from edged.roles.health import HealthOf

STOP_S_MAX = 0.5  # To tell publishers why, and origins that the streams have ended.
STOP_POLL_S = 0.01
# To hear who is live before the first viewer asks, who would be told that nobody is.
LISTED_S_MAX = 1.0

logger = structlog.get_logger("edged.pop")


class RouteAnswer(Struct, kw_only=True):
    """What a PoP has decided for a channel, and would decide now: `edged route explain`."""

    pop: str  # "ams1", or "ams1/2" for one of its shards.
    channel: str
    live: bool  # Published here.
    placed: Decision | None  # As it was decided then, if it is live.
    table_age_s: float | None  # None without a table.
    now: Explanation
    request: RouteRequest | None = None  # The stream, as it is or as it was asked about.
    shed: str = ""  # When and why it was shed here last; "" if it was not.
    way: ChannelWay | None = None  # How viewers here get it.


class PopRole:
    """One PoP shard, in one nursery."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        assert config.pop is not None, "the role is chosen by its table"
        self._config = config
        self._pop = config.pop
        shard = config.pop.shard
        self._place = f"{config.pop.name}/{shard}" if shard else config.pop.name
        self.name = f"pop {self._place}"
        self.pump = Pump(share_ports=shard > 0)
        self.hub = Hub()
        self._tls = None if config.pop.tls is None else MutualTls(config.pop.tls)
        self.view = PopView(config.pop.name)
        self.supervisor = Supervisor(self.name)
        local = LocalEnd(
            role="pop",
            name=config.pop.name,
            shard=shard,
            instance=new_instance(),
            marks=config.backbone.dscp,
        )
        tls = None if self._tls is None else self._tls.client
        self.uplinks = Uplinks(
            self.pump, self.hub, self.view, local, tls, supervisor=self.supervisor
        )
        self.irs: PopClient | None = None  # Once it has begun to run.
        self.events = EventStream(config.pop.name)
        self.webhooks = Webhooks(config.webhooks, self.events)
        self.descriptions = Descriptions(self.hub, self.uplinks, self.pump.now)
        self.ingest_health = IngestHealth(
            self.hub,
            config.ingest_health,
            now=self.pump.now,
            unix_now=time.time,
            emit=self.events.emit,
        )
        # How each publication comes in, as the status page has it.
        self.health: HealthOf = self.ingest_health.health
        callback = config.stream_keys.callback
        self._key_callback = None if callback is None else KeyCallback(callback, config.pop.name)
        self.door = self._make_door(StreamKeys.from_config(config.stream_keys))
        self.offers = IngestOffers(config, self.pump, self.hub, self.uplinks)
        self.plugins = Plugins(config, self.door, self.offers)
        self.api: ApiService | None = None  # Made when all plug-ins have started.
        self.uplinks.placing.telling = telling = Telling(self.events.emit)
        self.descriptions.on_changed = telling.described
        self.rehomer = Rehomer(self.uplinks, self.pump.now)
        telling.on_rehomed = self.rehomer.moved
        self.shedder = Shedder(self.uplinks.placing, self.door.stop, self.pump.now)
        self.hls = HlsService(
            lookup=self.uplinks.lookup,
            subscribe=self.uplinks.parts.subscribe,
            unsubscribe=self._unsubscribe,
            now=self.pump.now,
            spread=self.pump.spread,
            config=config.playback.hls,
            cache=config.playback.cache,
            fetch=self.uplinks.parts.fetch,
        )
        self.uplinks.parts.playback = self.hls
        self.reaching = Reaching(self._place, config.pop.reach, self.hls, self.pump.now)
        self.relaying = self._make_relaying(local)
        router = Router()
        mount_time(router, time.time)
        mount_streams(router, self._live_channels)
        mount_pages(router, make_pages(read_hls()))
        self.http = HttpServer(router)
        self.rights = RightsOffice(config, self.http, self.hls)
        self._metrics = metrics
        self.drainer = Drainer(self.name, self, self.pump.now)
        self._public: PublicTls | None = None
        self._register_metrics(metrics)

    def _make_relaying(self, local: LocalEnd) -> Relaying:
        relaying = Relaying(
            self._pop.reach or PopReachConfig(),
            self.reaching.orders,
            self.uplinks.parts,
            channels=lambda: self.hls.channels,
            origin_of=self.uplinks.origin_of,
            origin_ms=self.uplinks.origin_ms,
            pump=self.pump,
            local=local,
            fence=self.uplinks.fence,
            client_tls=None if self._tls is None else self._tls.client,
            server_tls=None if self._tls is None else self._tls.server,
            supervisor=self.supervisor,
        )
        self.reaching.relays = self.uplinks.parts.relays = relaying
        self.uplinks.relay_link = relaying.links.get
        return relaying

    def _unsubscribe(self, channel: str) -> None:
        self.uplinks.parts.unsubscribe(channel)
        self.relaying.gone(channel, "nobody watches it here any more")

    def _make_door(self, keys: StreamKeys) -> PopDoor:
        return PopDoor(
            self.pump,
            self.hub,
            keys,
            self.uplinks,
            descriptions=self.descriptions,
            grace_s=self._pop.publisher_grace_s,
            ask_key=None if self._key_callback is None else self._key_callback.ask,
            emit=self.events.emit,
        )

    def _register_metrics(self, metrics: Metrics) -> None:
        RoleMetrics(self.name, self.pump, self.hub).register(metrics)
        self.supervisor.register(metrics)
        metrics.register(pop_metrics.SPECS, partial(pop_metrics.read, self))
        metrics.register(fitness.SPECS, partial(fitness.read_pop_metrics, self))
        if self._key_callback is not None:
            self._key_callback.register(metrics, role=self.name)
        for part in (
            self.events,
            self.rehomer,
            self.shedder,
            self.webhooks,
            self.ingest_health,
            self.rights,
            self.reaching,
            self.relaying,
        ):
            part.register(metrics, role=self.name)
        playback_metrics.register(metrics, self.http, self.hls, role=self.name)

    async def run(
        self, *, task_status: trio.TaskStatus[dict[str, str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; starts with the bound addresses of all listeners."""
        async with (
            _outliving(partial(self.supervisor.run, "webhooks", self.webhooks.run)),
            _outliving(self.pump.run),
            _outliving(self.uplinks.run),
        ):
            try:
                async with trio.open_nursery() as nursery:
                    task_status.started(await self._start(nursery))
            finally:
                self.door.stop_all("Rejected", "the PoP is stopping; connect again")
                # Bounded: the pump sends what it can without blocking.
                with trio.CancelScope(shield=True), trio.move_on_after(STOP_S_MAX):
                    await self.door.wait_empty()
                    while any(link.forwardings and link.up for link in self.uplinks.statistics()):  # noqa: ASYNC110 - once, at the end
                        await trio.sleep(STOP_POLL_S)
                    await self.webhooks.wait_sent()

    async def _start(self, nursery: trio.Nursery) -> dict[str, str]:
        await self._start_routing(nursery)
        if self.pump.share_ports or has_inherited():  # Callers go to siblings meanwhile, or wait.
            await self.uplinks.wait_listed(LISTED_S_MAX)
        if self._key_callback is not None:
            await self.supervisor.start(nursery, "key callback", self._key_callback.run)
        addresses = await self.plugins.start(nursery)
        if self._config.api.enabled:
            await self._start_api(nursery)
        addresses |= await self._start_playback(nursery)
        relay: str = await nursery.start(self.relaying.run)
        addresses |= {"relay": relay} if relay else {}
        self.supervisor.start_soon(nursery, "hls", self.hls.run)
        self.supervisor.start_soon(nursery, "reach", self.reaching.run)
        self.supervisor.start_soon(nursery, "door", self.door.run)
        self.supervisor.start_soon(nursery, "ingest health", self.ingest_health.run)
        if self._tls is not None:
            certificates = partial(keep_certificates, self._tls)
            self.supervisor.start_soon(nursery, "certificates", certificates)
        return addresses

    async def _start_routing(self, nursery: trio.Nursery) -> None:
        assert self._config.irs_client is not None, "checked with the file"
        self.irs = PopClient(
            self._config.irs_client,
            self.view,
            shard=self._pop.shard,
            on_table=self.rehomer.table_changed,
            on_states=self.uplinks.states_changed,
            on_command=self.rehomer.command,
            on_shed=self.shedder.command,
            on_joined=self.rehomer.joined,
            on_taken_over=self.rehomer.taken_over,
            on_pops=self.offers.told,
            offer=self.offers.own,
            on_reach=self.reaching.ordered,
            live=LiveRows(self.hub, self.uplinks.placements, self.pump.now, time.time),
            tls=None if self._tls is None else self._tls.client,
            marks=self._config.backbone.dscp,
        )
        self.rehomer.tell = self.shedder.tell = self.irs.send_moved
        self.reaching.tell = self.irs.send_audience
        await self.supervisor.start(nursery, "irs client", self.irs.run)
        self.supervisor.start_soon(nursery, "re-homing", self.rehomer.run)

    async def _start_api(self, nursery: trio.Nursery) -> None:
        side = PopSide(
            self.hub,
            self.uplinks,
            self.door,
            self.hls,
            descriptions=self.descriptions,
            offers=self.offers,
            gate=self.rights.gate,
        )
        self.api = make_api(self._config, self.pump, side, self.offers, self.door.routes)
        self.http.mount("/api/", self.api, any_method=True)
        api_metrics.register(self._metrics, self.api.counters, role=self.name)
        await self.supervisor.start(nursery, "api", self.api.run)

    async def _start_playback(self, nursery: trio.Nursery) -> dict[str, str]:
        playback = self._config.playback
        addresses: dict[str, str] = {}

        http = partial(self.http.serve, self.pump, playback.listen)
        addresses["http"] = await self.supervisor.start(nursery, "http listener", http)
        if playback.tls is not None:
            protocols = ("h2", "http/1.1") if playback.tls.http2 else ("http/1.1",)
            public = PublicTls(str(playback.tls.certificate), str(playback.tls.key), protocols)
            self._public = public
            certificates = partial(keep_certificates, public)
            self.supervisor.start_soon(nursery, "https certificates", certificates)

            async def https(*, task_status: trio.TaskStatus[str]) -> None:
                assert playback.tls is not None
                await self.http.serve(
                    self.pump, playback.tls.listen, tls=public.context, task_status=task_status
                )

            addresses["https"] = await self.supervisor.start(nursery, "https listener", https)
        return addresses

    def prepare_reload(self, new: Config) -> Commit:
        """Check what is new for this role, and return what takes it into use."""
        keys = StreamKeys.from_config(new.stream_keys)
        assert new.pop is not None, "a role that comes or goes needs a restart"
        grace_s = new.pop.publisher_grace_s
        takes = {"tls": prepare_mutual(self._tls, new.pop.tls)}
        if self._public is not None and new.playback.tls is not None:
            files = new.playback.tls
            takes["playback.tls"] = self._public.prepare(str(files.certificate), str(files.key))
        take_plugins = self.plugins.prepare_reload(new)
        for webhook in new.webhooks:
            check_ca(webhook)

        takes |= {
            "playback.hls": partial(self.hls.reconfigure, new.playback.hls),
            "playback.cache": partial(self.hls.cache.reconfigure, new.playback.cache),
            "playback.rights": self.rights.prepare_reload(new),
            "pop.publisher_grace_s": partial(self.door.use_grace, grace_s),
            "pop.reach": partial(self.reaching.reconfigure, new.pop.reach),
            "webhooks": partial(self.webhooks.reload, new.webhooks),
            "irs_client": partial(self._use_irs_client, new),
            "stream_keys.apps": partial(self.offers.reconfigure, new),
        }

        def commit() -> list[str]:
            self._config = new
            notes = [  # A bug in one keeps no other from what the file says.
                note
                for key, take in takes.items()
                for note in take_into_use(f"{self.name}: {key}", quietly(take))
            ]
            what = "is live, though its stream key is no longer valid; `edged kick` ends it"

            def use_keys() -> list[str]:
                return [f"channel {channel!r} {what}" for channel in self.door.use_keys(keys)]

            notes += take_into_use(f"{self.name}: stream_keys", use_keys)
            return notes + take_plugins()

        return commit

    def _use_irs_client(self, new: Config) -> None:
        if self.irs is not None and new.irs_client is not None:
            self.irs.config = new.irs_client

    # What its drain asks (`Drainable`).

    drain_notice_s = 0.0  # Publishers hear it with the answer.

    def drain_begin(self, reconnect_url: str | None) -> None:
        """Refuse publishers; viewers are served, each answer closing its connection."""
        self.door.refuse_all(reconnect_url)
        self.http.drain(True)
        self.offers.draining = self.reaching.draining = True

    def drain_undo(self) -> None:
        """Let publishers in again."""
        self.door.admit_again()
        self.http.drain(False)
        self.offers.draining = self.reaching.draining = False

    def drain_awaited(self) -> bool:
        """Publishers are there to be told; for runs that only wait for theirs nobody is."""
        return len(self.door.published) > self.door.waiting

    def drain_streams(self) -> list[LiveStream]:
        """The publications of this PoP."""
        return self.door.published

    def drain_one(self, stream: LiveStream, reconnect_url: str | None) -> None:
        """Have its publisher go elsewhere."""
        self.door.drain(stream, reconnect_url)

    def drain_end(self, stream: LiveStream) -> None:
        """Stop its publisher, who was asked in vain."""
        self.door.stop(stream, "Rejected", DRAINING)

    # What people ask.

    def streams(self) -> list[StreamLine]:
        """The streams published here."""
        now = self.pump.now()
        lines = []
        for stream in self.hub:
            placement = self.uplinks.placements.get(stream.channel)
            goes_to = placement.decision.origin if placement is not None else "nowhere"
            lines.append(
                describe_stream(
                    self.name,
                    stream,
                    now,
                    goes_to=goes_to,
                    viewers=self.hls.viewers(stream.channel),
                )
            )
        return lines

    def faults(self) -> list[Fault]:
        """What keeps it from its work."""
        return fitness.find_pop_faults(self)

    def viewers(self, channel: str) -> int:
        """How many watch a channel here."""
        return self.hls.viewers(channel)

    def viewers_total(self) -> int:
        """How many watch anything here."""
        return sum(map(self.hls.viewers, self.hls.watched()))

    def links(self) -> list[OriginLinkStatistics]:
        """How each link to an origin fares."""
        return self.uplinks.statistics()

    def served_bytes(self) -> int:
        """Bytes of bodies queued for viewers since the start."""
        return self.http.statistics().body_bytes_total

    @property
    def shard(self) -> int:
        """Which of several processes of its PoP it is; 0: it is alone."""
        return self._pop.shard

    def explain(self, asked: RouteRequest) -> RouteAnswer:
        """Where a channel goes, or a stream of that sort would go now, and why."""
        channel = asked.channel
        placement = self.uplinks.placements.get(channel)
        request = placement.request if placement is not None else asked
        explanation = explain_origin(request, self.view, self.pump.now())
        table = self.view.table
        return RouteAnswer(
            pop=self._place,
            channel=channel,
            live=placement is not None,
            placed=placement.decision if placement is not None else None,
            table_age_s=None if table is None else max(0.0, time.time() - table.issued),
            now=explanation,
            request=request,
            shed=self.shedder.why_shed(channel),
            way=self.reaching.way(channel),
        )

    def _live_channels(self) -> Iterable[LiveChannel]:
        return [
            LiveChannel(
                channel=record.entry.stream_id.channel,
                title=record.entry.title,
                since=record.entry.started_at,
                viewers=self.hls.viewers(record.entry.stream_id.channel),
            )
            for record in self.uplinks.listing
        ]


@contextlib.asynccontextmanager
async def _outliving(run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run a service until the block has ended, also when what ends it is a cancellation."""

    async def run_in_scope(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await run()

    async with trio.open_nursery() as nursery:
        scope: trio.CancelScope = await nursery.start(run_in_scope)
        scope.shield = True  # Not before: a start that is cancelled must end.
        try:
            yield
        finally:
            scope.cancel()
