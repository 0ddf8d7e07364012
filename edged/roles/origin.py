"""The origin: takes units in over the backbone, packages them, pushes parts to the PoPs."""

from functools import partial

import structlog
import trio

from edged.backbone.local_end import LocalEnd
from edged.backbone.receiver import BackboneServer, PeerStatistics
from edged.config import Config
from edged.errors import PublishRefusedError, RemoteProtocolError
from edged.irs.client import OriginClient
from edged.media.parts import PackagedEvent
from edged.media.routing import OriginReport, ReportedState, Terms
from edged.media.stream import Grant, StreamId
from edged.media.track import Track
from edged.origin.held_stream import Given
from edged.origin.packager import Progress
from edged.origin.service import OriginService
from edged.roles import fitness, path_metrics, window_metrics
from edged.roles.common import (
    Commit,
    RoleMetrics,
    StreamLine,
    describe_stream,
    new_instance,
    prepare_mutual,
)
from edged.roles.draining import Drainer
from edged.roles.fitness import Fault
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.metrics import Metrics
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor
from edged.runtime.tls import MutualTls, keep_certificates
from edged.wire.backbone.messages import RenditionAck, StreamOpened
from edged.wire.table import OriginHello

DRAIN_NOTICE_S = 0.3  # Three heartbeats: then PoPs know that others are to be chosen.
DRAINING = "the origin is draining"

logger = structlog.get_logger("edged.origin")


class OriginRole:
    """One origin, in one nursery; the `OriginHost` of its backbone server."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        assert config.origin is not None, "the role is chosen by its table"
        self._config = config.origin
        self._client_config, self._marks = config.irs_client, config.backbone.dscp
        self.name = f"origin {config.origin.name}"
        self.pump = Pump()
        self.hub = Hub()
        self._instance = new_instance()
        self._tls = None if config.origin.tls is None else MutualTls(config.origin.tls)
        self._state = ReportedState.UP
        self.irs: OriginClient | None = None  # Once it has begun to run.
        self.supervisor = Supervisor(self.name)
        self.service = OriginService(
            config.origin,
            publish=self._publish,
            packaged=self._packaged,
            failed=self._failed,
            now=self.pump.now,
        )
        self.server = BackboneServer(
            self.pump,
            self.hub,
            self,
            local=LocalEnd(
                role="origin",
                name=config.origin.name,
                instance=self._instance,
                marks=config.backbone.dscp,
            ),
            listen=config.origin.listen,
            tls=None if self._tls is None else self._tls.server,
            supervisor=self.supervisor,
            probe_port=config.origin.probe_port,
        )
        self.drainer = Drainer(self.name, self, self.pump.now)
        RoleMetrics(self.name, self.pump, self.hub).register(metrics)
        self.supervisor.register(metrics)
        specs = (
            *fitness.SPECS,
            *fitness.ORIGIN_SPECS,
            *fitness.LADDER_SPECS,
            *window_metrics.SPECS,
        )
        metrics.register(specs, partial(fitness.read_origin_metrics, self))
        probes = partial(path_metrics.read_answers, self.name, self.server.probes)
        metrics.register(path_metrics.ANSWER_SPECS, probes)

    async def run(
        self, *, task_status: trio.TaskStatus[dict[str, str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; starts with the backbone's address."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pump.run)
            if self._tls is not None:
                certificates = partial(keep_certificates, self._tls)
                self.supervisor.start_soon(nursery, "certificates", certificates)
            if self.service.ladders is not None:
                await self.supervisor.start(nursery, "ladders", self.service.ladders.run)
            self.supervisor.start_soon(nursery, "windows", self.service.run)
            address: str = await nursery.start(self.server.run)
            if self._client_config is not None:
                hello = OriginHello(
                    origin=self._config.name,
                    incarnation=self._instance,
                    address=self._config.address or address,
                    domain=self._config.domain,
                )
                self.irs = OriginClient(
                    self._client_config,
                    hello,
                    self.report,
                    tls=None if self._tls is None else self._tls.client,
                    marks=self._marks,
                )
                await self.supervisor.start(nursery, "irs client", self.irs.run)
            task_status.started({"backbone": address})

    def streams(self) -> list[StreamLine]:
        """The live streams as this role sees them."""
        now = self.pump.now()
        lines = []
        for stream in self.hub:
            line = describe_stream(
                self.name,
                stream,
                now,
                goes_to="LL-HLS" if self.service.has_parts(stream.channel) else "HLS",
                viewers=0,
                latency=self.service.latency(stream.channel),
            )
            ladder = self.service.ladder(stream.channel)
            line.ladder = "" if ladder is None else ladder.text
            lines.append(line)
        return lines

    def faults(self) -> list[Fault]:
        """What keeps it from its work."""
        return fitness.find_origin_faults(self)

    def peers(self) -> dict[tuple[str, int], PeerStatistics]:
        """The PoP shards that are connected."""
        return self.server.peers()

    def prepare_reload(self, new: Config) -> Commit:
        """Check what is new for this role, and return what takes it into use."""
        config, client_config = new.origin, new.irs_client
        assert config is not None, "a role that comes or goes needs a restart"
        take_tls = prepare_mutual(self._tls, config.tls)

        def commit() -> list[str]:
            self._config = config
            self.service.reconfigure(config)
            if self.irs is not None and client_config is not None:
                self.irs.config = client_config
            take_tls()
            return []

        return commit

    # What its drain asks (`Drainable`).

    drain_notice_s = DRAIN_NOTICE_S

    def drain_begin(self, reconnect_url: str | None) -> None:
        """Say so with the next heartbeat, and refuse what is still offered."""
        del reconnect_url  # PoPs know the other origins.
        self._state = ReportedState.DRAIN

    def drain_undo(self) -> None:
        """Take streams again."""
        self._state = ReportedState.UP

    def drain_awaited(self) -> bool:
        """Streams are handed on while others can still ask for them."""
        return bool(self.drain_streams())

    def drain_streams(self) -> list[LiveStream]:
        """The streams packaged here."""
        return list(self.hub)

    def drain_one(self, stream: LiveStream, reconnect_url: str | None) -> None:
        """Have its PoP go on with a stream at another origin."""
        del reconnect_url
        self.server.stop_stream(stream.stream_id, "drain", DRAINING)

    def drain_end(self, stream: LiveStream) -> None:
        """The same: it has been let go of before, unless its PoP was away."""
        self.drain_one(stream, None)

    # What the backbone server asks (`OriginHost`).

    def admit(self, stream_id: StreamId, grant: Grant, tracks: list[Track], terms: Terms) -> None:
        """Let a stream in, perhaps in place of another, or raise `PublishRefusedError`."""
        if self._state is not ReportedState.UP:
            raise PublishRefusedError("drain", DRAINING)
        victim = self.service.admit(stream_id, grant, tracks, terms)
        if victim is not None:
            reason = f"a stream of class {grant.priority.label} needs its place"
            logger.warning("stream preempted", channel=victim.channel, by=stream_id.channel)
            self.server.preempt_stream(victim, reason)

    def stream_opened(self, stream: LiveStream, opened: StreamOpened) -> None:
        """Package it; one that was packaged elsewhere before goes on from where that stopped."""
        reason = "nothing tells how to go on from what was packaged before"
        if opened.packaged_seq < 0 or opened.splice:
            try:
                self.service.open(stream, opened.splice)
            except RemoteProtocolError as error:
                reason = str(error)
            else:
                return
        self.pump.at_flush(
            lambda: self.server.stop_stream(
                stream.stream_id, "lost_state", f"{reason}; publish again"
            )
        )

    def stream_closed(self, stream: LiveStream, reason: str) -> None:
        """The stream left the hub."""
        self.service.close(stream, reason)

    def replay(
        self, channel: str, *, lists: bool, cold: bool
    ) -> tuple[StreamId, list[PackagedEvent]] | None:
        """What a late subscriber gets first."""
        return self.service.replay(channel, lists=lists, cold=cold)

    def give_segment(self, stream_id: StreamId, rendition: str, msn: int, given: Given) -> None:
        """Have `given` called with a segment's bytes, or with why there are none."""
        self.service.give_segment(stream_id, rendition, msn, given)

    def report(self) -> OriginReport:
        """The heartbeat of now."""
        return OriginReport(
            origin=self._config.name,
            incarnation=self._instance,
            state=self._state,
            slots_total=self.service.slots.total,
            slots_free=self.service.free(),
            ladder_free=self.service.ladder_free(),
            source_only_free=self.service.slots.source_only_free,
            preemptible=self.service.slots.preemptible(),
            ladder_cost=self.service.ladder_cost(),
        )

    # What the service tells.

    def _publish(self, stream_id: StreamId, event: PackagedEvent) -> None:
        self.server.publish_event(stream_id, event)

    def _packaged(self, stream_id: StreamId, progress: Progress) -> None:
        marks = [
            RenditionAck(
                mark.name,
                mark.msn,
                mark.part,
                mark.tfdt,
                mark.discontinuity_sequence,
                mark.init_digest,
            )
            for mark in progress.renditions
        ]
        self.server.packaged(stream_id, progress.packaged_seq, marks, progress.splice)

    def _failed(self, stream_id: StreamId, reason: str) -> None:
        self.pump.at_flush(lambda: self.server.stop_stream(stream_id, "unsupported_media", reason))
