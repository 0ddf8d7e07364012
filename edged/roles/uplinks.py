"""A PoP's way to the origins: links kept as the table says, and let go of by what is heard of them.

This is where routing policy, the backbone's sender and the playback edge meet. Everything but the
links' own tasks, the ticks and parts that were held back is synchronous, in the pump's turn.
"""

import random
import ssl
from collections.abc import Callable, Sequence

import structlog
import trio

from edged.backbone.directory import Directory
from edged.backbone.fence import Fence
from edged.backbone.forwarding import Forwarding
from edged.backbone.inbound import ORPHAN_S_MAX
from edged.backbone.local_end import LocalEnd
from edged.backbone.path_probes import Carried, PathProbes
from edged.backbone.sender import OriginLink
from edged.backbone.session import BackboneSession
from edged.backbone.statistics import OriginLinkStatistics
from edged.errors import ConfigError
from edged.media.routing import OriginReport, OriginState, PathProbe, RoutingTable
from edged.media.stream import DescriptionChange, PriorityClass, StreamId
from edged.policy.capacitor import StateChanged
from edged.policy.departures import LOST_S_MAX, Verdict, judge_origin
from edged.policy.pop_view import PopView
from edged.roles.parts_in import PartsIn
from edged.roles.parts_sources import is_relay
from edged.roles.placement import Placement
from edged.roles.placing import Placing
from edged.runtime.faults import contained
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor
from edged.wire.backbone.messages import DirectoryDelta, ProbesOffered

TICK_S = 0.25  # What has waited is judged.
LISTED_POLL_S = 0.02
TICK_LATE_S_MAX = 0.5  # Later than this we have slept, and what we waited for may lie unread.
SESSIONS = (None, *PriorityClass)  # Control, and media of each class.

assert LOST_S_MAX < ORPHAN_S_MAX, "who comes back in time must find its streams at the origin"

logger = structlog.get_logger("edged.pop")


class _Link:
    """The link to one origin."""

    def __init__(self, link: OriginLink, now: float) -> None:
        self.link = link
        self.scope = trio.CancelScope()
        self.listed = True  # In the table.
        self.lost_at: float | None = now  # When the last session was lost; None while one stands.
        self.forgotten = False  # It has been lost for so long that nothing of it counts.

    @property
    def busy(self) -> bool:
        """Whether streams go there or parts come from there."""
        return bool(self.link.forwardings) or self.link.statistics().subscriptions > 0


class Uplinks:
    """All links of one PoP shard; the `LinkOwner` of each."""

    def __init__(
        self,
        pump: Pump,
        hub: Hub,
        view: PopView,
        local: LocalEnd,
        tls: ssl.SSLContext | None,
        *,
        supervisor: Supervisor | None = None,
    ) -> None:
        """`supervisor` begins each link's sessions and the tick anew, each by itself."""
        self.view = view
        self.listing = Directory()
        self.placing = Placing(pump, view, self.listing, self._link)
        self.parts = PartsIn(pump, self.listing, self._link)
        self.paths = PathProbes(pump.now, self._path_measured)
        self.relay_link: Callable[[str], OriginLink | None] = lambda _: None  # To a PoP shard.
        self.on_description_wanted: Callable[[str, DescriptionChange], None] = lambda *_: None
        self.on_key_frame_wanted: Callable[[LiveStream], None] = lambda _: None
        self._pump, self._hub, self._local, self._tls = pump, hub, local, tls
        self._rng = random.Random()  # noqa: S311 - jitter of reconnects, no secret
        self.fence = Fence()
        self._links: dict[str, _Link] = {}
        self._unusable: dict[str, str] = {}  # Origin -> its address that was said to be wrong.
        self._supervisor = supervisor or Supervisor(f"pop {local.name}")
        self._nursery: trio.Nursery | None = None
        self.listing.watch(self._directory_changed)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the links of the table until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            if self.view.table is not None:
                self.table_changed(self.view.table)
            self._supervisor.start_soon(nursery, "parts in", self.parts.run)
            self._supervisor.start_soon(nursery, "path probes", self.paths.run)
            await self._supervisor.keep("uplinks tick", self._run_ticks)

    @property
    def placements(self) -> dict[str, Placement]:
        """The publications that go out from here, by channel."""
        return self.placing.placements

    def lookup(self, channel: str) -> StreamId | None:
        """The newest run of a channel anywhere in the network."""
        record = self.listing.lookup(channel)
        return None if record is None else record.entry.stream_id

    def origin_of(self, channel: str) -> str:
        """Where the newest run of a channel is; "" where it is not live."""
        record = self.listing.lookup(channel)
        return "" if record is None else record.origin

    def origin_ms(self, origin: str) -> float | None:
        """The round trip to an origin, as far as it is measured."""
        path = self.view.path(origin)
        return None if path is None else path.rtt_ms

    def newest(self, channel: str) -> tuple[StreamId, str] | None:
        """The newest run of a channel anywhere, and the PoP that it is published at."""
        record = self.listing.lookup(channel)
        return None if record is None else (record.entry.stream_id, record.entry.pop)

    def tell_description(self, channel: str) -> None:
        """Have the network hear how a publication of ours is described now."""
        placement = self.placing.placements.get(channel)
        if placement is not None:
            placement.forwarding.describe()

    def want_description(self, channel: str, change: DescriptionChange) -> bool:
        """Ask the PoP where a channel is published, by its origin; False: there is no way."""
        record = self.listing.lookup(channel)
        link = None if record is None else self._link(record.origin)
        return link is not None and link.want_description(channel, change)

    async def wait_listed(self, within_s: float) -> bool:
        """Wait until every origin of the table that is up has told who is live there.

        One that cannot be reached is not waited for: the table may be older than that. False if
        that takes too long, as when there is no table.
        """
        with trio.move_on_after(within_s):
            while not self._is_listed():  # noqa: ASYNC110 - once, at the start
                await trio.sleep(LISTED_POLL_S)
            return True
        return False

    def _is_listed(self) -> bool:
        table = self.view.table
        rows = [] if table is None else [row for row in table.rows if row.address]
        up = [row.origin for row in rows if row.state is not OriginState.DOWN]
        return bool(up) and all(map(self._is_heard_or_unreachable, up))

    def _is_heard_or_unreachable(self, origin: str) -> bool:
        entry = self._links.get(origin)
        unreachable = entry is not None and entry.link.unreachable
        return unreachable or self.listing.has_heard(origin)

    def statistics(self) -> list[OriginLinkStatistics]:
        """How each link fares."""
        return [entry.link.statistics() for entry in self._links.values()]

    # The table.

    def table_changed(self, table: RoutingTable) -> None:
        """Open links to new origins, move those that moved, let go of those that nothing needs."""
        if self._nursery is None:
            return
        rows = {row.origin: row for row in table.rows if row.address}
        now = self._pump.now()
        for name, entry in list(self._links.items()):
            was_listed, entry.listed = entry.listed, name in rows
            self._judge(name, entry, now)
            if was_listed and not entry.listed and name in self._links:
                logger.warning("origin is missing from the table, kept while in use", origin=name)
        for name in self._unusable.keys() - rows.keys():
            del self._unusable[name]
        for name, row in rows.items():
            self._connect(name, row.address)
        self.placing.routes.changed()

    def _connect(self, name: str, address: str) -> None:
        """Have a link to where an origin is; what is wrong with the address is said once."""
        if self._unusable.get(name) == address:
            return
        try:
            if name in self._links:
                self._links[name].link.move(address)
            else:
                self._open(name, address)
        except ConfigError as error:
            self._unusable[name] = address
            logger.error("origin cannot be used", origin=name, reason=str(error))  # noqa: TRY400 - an operator's mistake, not ours
        else:
            self._unusable.pop(name, None)

    def _open(self, name: str, address: str) -> None:
        assert self._nursery is not None
        link = OriginLink(
            self._pump,
            self._hub,
            self,
            local=self._local,
            origin=name,
            address=address,
            tls=self._tls,
            rng=self._rng,
            fence=self.fence,
        )
        self._links[name] = _Link(link, self._pump.now())
        self.paths.add(link)
        self._nursery.start_soon(self._run_link, self._links[name])

    async def _run_link(self, entry: _Link) -> None:
        with entry.scope:
            await self._supervisor.keep("link", entry.link.run, of=entry.link.origin)

    def _link(self, origin: str) -> OriginLink | None:
        if is_relay(origin):
            return self.relay_link(origin)
        entry = self._links.get(origin)
        return None if entry is None else entry.link

    # Time.

    async def _run_ticks(self) -> None:
        while True:
            due = self._pump.now() + TICK_S
            await trio.sleep_until(due)
            late_s = self._pump.now() - due
            if late_s > TICK_LATE_S_MAX:
                self._slept(late_s)
            self._tick(self._pump.now())

    def _tick(self, now: float) -> None:
        for name, entry in list(self._links.items()):
            entry.link.expire(now)
            self._judge(name, entry, now)
        self.placing.tick(now)
        self._stop_ended()

    def _slept(self, late_s: float) -> None:
        """Time in which we were not there counts against nobody."""
        self.placing.slept(late_s)
        for entry in self._links.values():
            if entry.lost_at is not None:
                entry.lost_at += late_s

    def _judge(self, name: str, entry: _Link, now: float) -> None:
        lost_s = 0.0 if entry.lost_at is None else now - entry.lost_at
        state = self.view.capacitor.state(name)
        verdict = judge_origin(listed=entry.listed, busy=entry.busy, lost_s=lost_s, state=state)
        if verdict is Verdict.DROP:
            del self._links[name]
            self.paths.remove(name)
            entry.scope.cancel()
            self.view.set_link(name, up=False, now=now, reason="not in the table")
            self._cut_off(name, "left the table")
            logger.info("origin left the table", origin=name)
        elif verdict is Verdict.FORGET and not entry.forgotten:
            entry.forgotten = True
            self._cut_off(name, f"lost for {lost_s:.0f} s")
            logger.warning("origin is lost", origin=name, lost_s=round(lost_s))

    def _cut_off(self, origin: str, why: str) -> None:
        """Nothing goes there and nothing comes from there any more."""
        channels = self.parts.cut_off(origin)
        self.placing.cut_off(origin, why)
        self.listing.forget(origin)  # What is elsewhere too is followed there.
        self.parts.end(channels)

    def _stop_ended(self) -> None:
        """Stop what has no way to end by itself: its link was lost before its ring had gone."""
        for entry in self._links.values():
            for forwarding in entry.link.forwardings:
                if forwarding.state == "waiting" and forwarding.stream.ended is not None:
                    entry.link.stop_forwarding(forwarding, "the publication is over")

    def _path_measured(self, origin: str, path: PathProbe, carried: Carried) -> None:
        self.view.observe_path(origin, path)
        self.view.carried_mbps[origin] = carried

    # What links tell (`LinkOwner`).

    def heartbeat(self, report: OriginReport) -> None:
        """An origin says how it is."""
        self.states_changed(self.view.heartbeat(report, self._pump.now()))

    def directory(self, delta: DirectoryDelta) -> bool:
        """An origin says who is live there."""
        return self.listing.apply(delta)

    def link_up(self, origin: str, priority: PriorityClass | None) -> None:
        """A session stands; the link is up when all do."""
        del priority
        self._set_link(origin, "")
        self.placing.routes.changed()

    def link_lost(self, origin: str, priority: PriorityClass | None, reason: str) -> None:
        """A session is lost, and being reconnected."""
        del priority
        self._set_link(origin, reason)

    def accepted(self, forwarding: Forwarding) -> None:
        """The origin took a stream."""
        self.placing.accepted(forwarding)

    def refused(self, forwarding: Forwarding, code: str, reason: str) -> None:
        """The origin does not take a stream, or no more."""
        self.placing.refused(forwarding, code, reason)

    def description_wanted(self, channel: str, change: DescriptionChange) -> None:
        """At another PoP someone changed a publication of ours."""
        self.on_description_wanted(channel, change)

    def key_frame_wanted(self, forwarding: Forwarding, track_id: int) -> None:
        """A reader there, or beyond, needs a random access point of a publication of ours."""
        del track_id  # A publisher is asked for all its tracks: rungs begin together.
        stream = self._hub.get(forwarding.stream_id.channel)
        if stream is not None and stream.stream_id == forwarding.stream_id:
            self.on_key_frame_wanted(stream)

    def probes_offered(self, session: BackboneSession, offer: ProbesOffered) -> None:
        """An origin answers probes."""
        self.paths.offered(session.peer.name, session.connection.sock, offer)

    def states_changed(self, changes: Sequence[StateChanged]) -> None:
        """What heartbeats, or their silence, made of origins."""
        for change in changes:
            logger.info("origin state", origin=change.origin, state=change.after, why=change.reason)
        if changes:
            self.placing.routes.changed()

    def _directory_changed(self, channel: str) -> None:
        record = self.listing.lookup(channel)
        for tell in (self.placing.listed, self.parts.listed):
            # Else the others of the same delta would not be heard of, nor the next deltas.
            with contained(logger, "directory entry failed", channel=channel):
                tell(channel, record)

    def _set_link(self, origin: str, reason: str) -> None:
        """Note how a link stands."""
        entry = self._links.get(origin)
        if entry is None:
            return  # The last word of a link whose origin has just left the table.
        now = self._pump.now()
        standing = [entry.link.is_up(priority) for priority in SESSIONS]
        if any(standing):
            entry.lost_at, entry.forgotten = None, False
        elif entry.lost_at is None:
            entry.lost_at = now
        self.view.set_link(origin, up=all(standing), now=now, reason=reason)
        if all(standing):
            self._begin_with_ping(origin, entry)

    def _begin_with_ping(self, origin: str, entry: _Link) -> None:
        """The first word on the path: it ranks the origin before probes and TCP tell more."""
        control = entry.link.statistics().control
        if self.view.path(origin) is None and control is not None and control.rtt_s is not None:
            self.view.observe_rtt(origin, control.rtt_s * 1000)
