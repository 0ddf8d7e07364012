"""All roles of one process, in one nursery: a host's file, or a whole network for the demo.

Roles start in the order in which they need each other: IRS, origins, PoPs. They meet only over
their listeners, as they would on different hosts.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from edged.api.admin import Arguments, Handler, answer, serve_admin
from edged.config import Config
from edged.errors import EdgedError
from edged.irs.seat import SeatSeen
from edged.media.routing import RouteRequest
from edged.playback.http import HttpServer, Response, Router
from edged.policy.rules_snapshot import RulesSnapshot
from edged.policy.well import LinkStatus
from edged.roles import live, reach
from edged.roles.admin_http import History, no_history, serve_admin_http
from edged.roles.common import StreamLine
from edged.roles.fitness import Health
from edged.roles.irs import IrsRole
from edged.roles.operations import Operations
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole, RouteAnswer
from edged.roles.routes import describe_routes, parse_request
from edged.roles.rules_snapshot import take_snapshot
from edged.roles.sampler import RoleSamples, Sampler
from edged.roles.snapshot import Snapshots, StatusQuery
from edged.roles.status import RoutesSeen
from edged.runtime import faults
from edged.runtime.metrics import CONTENT_TYPE, Metrics
from edged.runtime.notify import ServiceManager
from edged.runtime.process import settle_memory
from edged.runtime.process_metrics import SPECS, ProcessMetrics
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor
from edged.wire.request import RequestReceived

Role = IrsRole | OriginRole | PopRole
RoleMaker = Callable[[Config, Metrics], Role]

logger = structlog.get_logger("edged")


class Process:
    """The roles of one process and what they share: metrics and the admin door."""

    def __init__(
        self,
        configs: Sequence[Config],
        path: Path | None = None,
        manager: ServiceManager | None = None,
        *,
        shard: int | None = None,
    ) -> None:
        """`path`: the file of the one configuration, to be read again, as that shard's.

        `manager` is told of it.
        """
        assert configs, "a process plays at least one role"
        self._shared = configs[0]
        self.metrics = Metrics()
        self.metrics.register(SPECS, ProcessMetrics().read)
        self.metrics.register(faults.SPECS, faults.read_faults)
        self.supervisor = Supervisor("process")
        self.supervisor.register(self.metrics)
        self.snapshots: Snapshots | None = None  # Once it runs.
        self._sampler: Sampler | None = None
        self.roles: list[Role] = [
            make(config, self.metrics)
            for table, make in _MAKERS
            for config in configs
            if getattr(config, table) is not None
        ]
        self.operations = Operations(self.roles, self._shared, path, manager, shard=shard)

    async def run(
        self,
        *,
        task_status: trio.TaskStatus[dict[str, dict[str, str]]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run until cancelled; starts with every role's bound addresses."""
        async with trio.open_nursery() as nursery:
            started: dict[str, dict[str, str]] = {}
            for role in self.roles:
                started[role.name] = await nursery.start(role.run)
                logger.info("role started", role=role.name, **started[role.name])
            sampler = self._sampler = self._make_sampler()
            self.supervisor.start_soon(nursery, "sampler", sampler.run)
            self.snapshots = Snapshots(self.roles, sampler)
            handlers = self._handlers(nursery)
            admin = partial(serve_admin, self._shared.admin, handlers)
            await self.supervisor.start(nursery, "admin", admin)
            bound: str = await self.supervisor.start(nursery, "metrics", self._serve_metrics)
            started["metrics"] = {"http": bound}
            if self._shared.admin.listen is not None:
                command = partial(answer, handlers=handlers)
                page = partial(
                    serve_admin_http,
                    self._shared.admin,
                    self.snapshots.answer,
                    command,
                    self._history(),
                )
                address: str = await self.supervisor.start(nursery, "admin page", page)
                started["admin"] = {"http": address}
            settle_memory()
            task_status.started(started)

    def streams(self) -> list[StreamLine]:
        """The live streams of all roles, with what the sampler has seen of them."""
        lines = []
        for role in self.roles:
            seen = {} if isinstance(role, IrsRole) else self._samples(role).streams
            for line in role.streams():
                if (samples := seen.get(line.channel)) is not None:
                    health = samples.health
                    line.fps = None if health.fps is None else round(health.fps, 1)
                    line.health = ", ".join(each.code for each in health.warnings) or "ok"
                lines.append(line)
        return lines

    def routes(self) -> list[RoutesSeen]:
        """What each PoP of this process routes by, and where its streams went."""
        now, unix = trio.current_time(), time.time()
        return [describe_routes(pop, self._samples(pop), now, unix) for pop in self._pops()]

    def links(self) -> list[LinkStatus]:
        """The backbone's links, as the IRS of this process knows them."""
        services = [role.service for role in self.roles if isinstance(role, IrsRole)]
        if not services:
            raise EdgedError("this edged is no IRS: ask the one that has [[irs.links]]")
        return [
            link for service in services for link in service.shedding.show(service.links.status())
        ]

    def irs_status(self) -> list[SeatSeen]:
        """What the IRS of this process is among others."""
        services = [role.service for role in self.roles if isinstance(role, IrsRole)]
        if not services:
            raise EdgedError("this edged is no IRS: ask the one that has [irs]")
        return [service.seat.status() for service in services]

    def _history(self) -> History:
        watches = [role.service.watch for role in self.roles if isinstance(role, IrsRole)]
        return watches[0].lines if watches else no_history

    def health(self) -> Health:
        """Whether its roles can do their work."""
        faults = [fault for role in self.roles for fault in role.faults()]
        return Health(roles=[role.name for role in self.roles], faults=faults)

    def explain(self, asked: RouteRequest) -> list[RouteAnswer]:
        """Where a channel goes, or such a stream of it would, at each PoP of this process."""
        return [pop.explain(asked) for pop in self._pops()]

    def _pops(self) -> list[PopRole]:
        pops = [role for role in self.roles if isinstance(role, PopRole)]
        if not pops:
            raise EdgedError("this edged is no PoP: it routes nothing")
        return pops

    def _make_sampler(self) -> Sampler:
        return Sampler(
            [role for role in self.roles if isinstance(role, PopRole)],
            [role for role in self.roles if isinstance(role, OriginRole)],
        )

    def _samples(self, role: OriginRole | PopRole) -> RoleSamples:
        assert self._sampler is not None, "the process runs"
        return self._sampler.of(role)

    def _handlers(self, nursery: trio.Nursery) -> dict[str, Handler]:
        def streams(arguments: Arguments) -> object:
            del arguments
            return self.streams()

        def route_explain(arguments: Arguments) -> object:
            return self.explain(parse_request(arguments))

        def health(arguments: Arguments) -> object:
            del arguments
            return self.health()

        def status(arguments: Arguments) -> object:
            assert self.snapshots is not None, "the process runs"
            words = [arguments.get(name, "") for name in ("filter", "sort", "limit")]
            return msgspec.Raw(self.snapshots.answer(StatusQuery.parse(*words)))

        def rules_snapshot(arguments: Arguments) -> object:
            del arguments
            now, unix = trio.current_time(), time.time()
            pops = tuple(take_snapshot(pop, now, unix) for pop in self._pops())
            return RulesSnapshot(pops=pops)

        def routes(arguments: Arguments) -> object:
            del arguments
            return self.routes()

        def links(arguments: Arguments) -> object:
            del arguments
            return self.links()

        def irs_status(arguments: Arguments) -> object:
            del arguments
            return self.irs_status()

        known: dict[str, Handler] = {
            "streams": streams,
            "route-explain": route_explain,
            "routes": routes,
            "rules-snapshot": rules_snapshot,
            "links": links,
            "irs-status": irs_status,
            "status": status,
            "health": health,
        }
        known |= live.make_handlers(self.roles) | reach.make_handlers(self.roles)
        return known | self.operations.handlers(nursery)

    async def _serve_metrics(self, *, task_status: trio.TaskStatus[str]) -> None:
        def metrics(request: RequestReceived) -> Response:
            del request
            return Response(
                body=self.metrics.render(), content_type=CONTENT_TYPE, cache_control="no-store"
            )

        pump, router = Pump(), Router()
        router.get("/metrics", metrics)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            await HttpServer(router, cors=False).serve(
                pump, self._shared.metrics.listen, task_status=task_status
            )


_MAKERS: tuple[tuple[str, RoleMaker], ...] = (
    ("irs", IrsRole),
    ("origin", OriginRole),
    ("pop", PopRole),
)
