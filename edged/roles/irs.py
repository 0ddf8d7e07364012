"""The IRS role: the routing service, alone in its nursery. It has no data plane and no pump."""

import secrets
import time
from functools import partial

import trio

from edged.config import Config, make_sources
from edged.irs import (
    history,
    journal,
    links,
    live_board,
    migrating,
    moving,
    planner,
    reach,
    seat,
    shedding,
    sources,
    state,
    watch,
)
from edged.irs.service import METRICS, IrsService
from edged.roles.common import Commit, StreamLine, prepare_mutual
from edged.roles.draining import Drainer
from edged.roles.fitness import Fault, find_irs_faults
from edged.runtime.metrics import Metrics
from edged.runtime.supervision import Supervisor
from edged.runtime.tls import MutualTls, keep_certificates


class IrsRole:
    """The routing service of a network."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        assert config.irs is not None, "the role is chosen by its table"
        self.name = "irs"
        self._tls = None if config.irs.tls is None else MutualTls(config.irs.tls)
        self.supervisor = Supervisor(self.name)
        self.service = IrsService(
            config.irs,
            entropy=secrets.token_bytes,
            now_unix=time.time,
            tls=None if self._tls is None else self._tls.server,
            supervisor=self.supervisor,
            marks=config.backbone.dscp,
        )
        self.drainer = Drainer(
            self.name,
            None,
            trio.current_time,
            note="nothing to drain: PoPs go on with their tables",
        )
        metrics.register(METRICS, self.service.read_metrics)
        metrics.register(planner.METRICS, self.service.planner.read_metrics)
        metrics.register(moving.METRICS, self.service.moving.read_metrics)
        metrics.register(migrating.METRICS, self.service.migrating.read_metrics)
        metrics.register(shedding.METRICS, self.service.shedding.read_metrics)
        metrics.register(links.METRICS, self.service.links.read_metrics)
        metrics.register(seat.METRICS, self.service.seat.read_metrics)
        metrics.register(state.METRICS, self.service.seat.keeper.read_metrics)
        metrics.register(live_board.METRICS, self.service.live.read_metrics)
        metrics.register(reach.METRICS, self.service.reach.read_metrics)
        metrics.register(sources.METRICS, self.service.sources.read_metrics)
        metrics.register(watch.METRICS, self.service.watch.read_metrics)
        self.service.sources.use(make_sources(config.irs.sources))
        self.journal = self._keep_journal(config.irs.journal, metrics)
        self.history = self._keep_history(config.irs.history, metrics)
        self.supervisor.register(metrics)

    async def run(
        self, *, task_status: trio.TaskStatus[dict[str, str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; starts with the address bound."""
        async with trio.open_nursery() as nursery:
            address: str = await nursery.start(self.service.run)
            if self._tls is not None:
                certificates = partial(keep_certificates, self._tls)
                self.supervisor.start_soon(nursery, "certificates", certificates)
            if self.journal is not None:
                self.supervisor.start_soon(nursery, "irs journal", self.journal.run)
            if self.history is not None:
                self.supervisor.start_soon(nursery, "irs demand", self.history.run)
            task_status.started({"irs": address})

    def prepare_reload(self, new: Config) -> Commit:
        """Check what is new for this role, and return what takes it into use."""
        config = new.irs
        assert config is not None, "a role that comes or goes needs a restart"
        take_tls = prepare_mutual(self._tls, config.tls)
        # Those whose table is as it was go on, with what they know.
        anew = config.sources != self.service.config.sources
        made = make_sources(config.sources) if anew else {}

        def commit() -> list[str]:
            self.service.reconfigure(config)
            if anew:
                self.service.sources.use(made)
            take_tls()
            return []

        return commit

    def _keep_journal(
        self, config: journal.JournalConfig | None, metrics: Metrics
    ) -> journal.Journal | None:
        if config is None:
            return None
        service = self.service
        kept = journal.Journal(
            config,
            stamp=lambda: (service.epoch, service.version),
            now_unix=time.time,
            pushed=lambda: service.pushed,
            asked=lambda: service.moving.asked,
            sheds_asked=lambda: service.shedding.asked,
        )
        service.planner.keepers.append(kept.keep)
        service.migrating.keepers.append(kept.keep_moves)
        metrics.register(journal.METRICS, kept.read_metrics)
        return kept

    def _keep_history(
        self, config: history.HistoryConfig | None, metrics: Metrics
    ) -> history.History | None:
        if config is None:
            return None
        service = self.service
        kept = history.History(
            config,
            lambda: history.network_of(
                service.collectors, service.config, service.config.reserve_fraction
            ),
            time.time,
            warmup_s=service.config.warmup_s,
        )
        service.collectors.on_told = kept.told
        metrics.register(history.METRICS, kept.read_metrics)
        return kept

    def streams(self) -> list[StreamLine]:
        """IRS carries no streams."""
        return []

    def faults(self) -> list[Fault]:
        """What keeps it from its work."""
        return find_irs_faults(self)
