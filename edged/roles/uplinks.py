"""A PoP's way to the origins: links kept as the table says, streams placed, parts subscribed to.

This is where routing policy, the backbone's sender and the playback edge meet. Everything but the
links' own tasks is synchronous, in the pump's turn.
"""

import random
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from edged.backbone.directory import Directory, DirectoryRecord
from edged.backbone.fence import Fence
from edged.backbone.forwarding import Forwarding
from edged.backbone.sender import OriginLink, OriginLinkStatistics
from edged.backbone.session import LocalEnd
from edged.errors import ConfigError, EdgedError, PublishRefusedError, RouteUnavailableError
from edged.media.parts import PackagedEvent, StreamEnded
from edged.media.routing import OriginReport, RouteRequest, RoutingTable
from edged.media.stream import PriorityClass, StreamId
from edged.policy.capacitor import StateChanged
from edged.policy.pop_view import PopView
from edged.policy.routing_table import Decision, choose_origin
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump
from edged.wire.backbone.messages import DirectoryDelta

if TYPE_CHECKING:
    from edged.backbone.feeds import FeedSubscription

RTT_INTERVAL_S = 1.0
ROUTE_WAIT_S_MAX = 3.0  # A publisher that is there before the first origin; encoders wait longer.
SESSIONS = (None, *PriorityClass)  # Control, and media of each class.

logger = structlog.get_logger("edged.pop")


class Feeds(Protocol):
    """The playback edge, as far as parts come to it."""

    def window_updated(self, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        """Take what an origin pushed."""

    def channel_unavailable(self, channel: str, reason: str) -> None:
        """No parts will come for now, and why."""


class Placement:
    """A publication and where it goes."""

    def __init__(
        self,
        stream: LiveStream,
        request: RouteRequest,
        decision: Decision,
        forwarding: Forwarding,
        give_up: Callable[[str, str], None],
    ) -> None:
        self.stream = stream
        self.request = request
        self.decision = decision
        self.forwarding = forwarding
        self.give_up = give_up  # Called with code and reason when no origin takes it.


class _Link:
    def __init__(self, link: OriginLink, scope: trio.CancelScope) -> None:
        self.link = link
        self.scope = scope


class Uplinks:
    """All links of one PoP shard; the `LinkOwner` of each."""

    def __init__(
        self, pump: Pump, hub: Hub, view: PopView, local: LocalEnd, tls: ssl.SSLContext | None
    ) -> None:
        self.view = view
        self.listing = Directory()
        self.placements: dict[str, Placement] = {}
        self.playback: Feeds | None = None
        self._pump, self._hub, self._local, self._tls = pump, hub, local, tls
        self._rng = random.Random()  # noqa: S311 - jitter of reconnects, no secret
        self._fence = Fence()
        self._links: dict[str, _Link] = {}
        self._nursery: trio.Nursery | None = None
        self._subscriptions: dict[str, tuple[str, FeedSubscription]] = {}
        self._wanted: dict[str, None] = {}  # Channels subscribed to by playback.
        self._gathered: dict[StreamId, list[PackagedEvent]] = {}
        self._changed = trio.Event()
        self._been_up = False
        self.listing.watch(self._directory_changed)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the links of the table until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            if self.view.table is not None:
                self.table_changed(self.view.table)
            while True:
                await trio.sleep(RTT_INTERVAL_S)
                for entry in list(self._links.values()):
                    entry.link.expire(self._pump.now())
                self._tidy()
                self._measure()

    # The table.

    def table_changed(self, table: RoutingTable) -> None:
        """Open links to new origins, move those that moved, close those that left."""
        if self._nursery is None:
            return
        rows = {row.origin: row for row in table.rows if row.address}
        for name in [name for name in self._links if name not in rows]:
            gone = self._links.pop(name)
            gone.scope.cancel()
            cut_off = self._forget_subscriptions(name)
            self._give_up_placements(name)
            self.listing.forget(name)  # Those that are elsewhere too are followed there.
            for channel in cut_off:
                if channel not in self._subscriptions:
                    self._feed_ended(channel, "no_route", f"origin {name} left the network")
            self.view.set_link(name, up=False, now=self._pump.now(), reason="not in the table")
            logger.info("origin left the table", origin=name)
        for name, row in rows.items():
            try:
                if name in self._links:
                    self._links[name].link.move(row.address)
                else:
                    self._open(name, row.address)
            except ConfigError as error:
                logger.error("origin cannot be used", origin=name, reason=str(error))  # noqa: TRY400 - an operator's mistake, not ours

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
            fence=self._fence,
        )
        self._links[name] = _Link(link, trio.CancelScope())
        self._nursery.start_soon(self._run_link, self._links[name])

    async def _run_link(self, entry: _Link) -> None:
        with entry.scope:
            await entry.link.run()

    # Streams out.

    async def wait_route(self, request: RouteRequest) -> None:
        """Give a PoP that has just started the time to reach its origins.

        Returns as soon as there is a route, or no hope of one: nothing is coming up, or the time is
        over; `place` then says why not.
        """
        with trio.move_on_after(ROUTE_WAIT_S_MAX):
            while not self._is_routable(request) and self._is_coming_up():
                await self._changed.wait()

    def _is_routable(self, request: RouteRequest) -> bool:
        try:
            choose_origin(request, self.view, self._pump.now())
        except RouteUnavailableError:
            return False
        return True

    def _is_coming_up(self) -> bool:
        """No table has come, or none of the links to its origins was ever up."""
        return not self._been_up

    def check_route(self, request: RouteRequest) -> None:
        """Raise `PublishRefusedError` if no origin would take the stream now, before it is made.

        The channel's older run here, if any, gives its place back to the newcomer.
        """
        older = self.placements.get(request.channel)
        if older is not None:
            self.view.released(older.decision.origin, older.request)
        try:
            choose_origin(request, self.view, self._pump.now())
        except RouteUnavailableError as error:
            self.view.note_request(request, placed=False)
            raise PublishRefusedError("no_route", str(error)) from error
        finally:
            if older is not None:
                self.view.placed(older.decision.origin, older.request)

    def place(
        self, stream: LiveStream, request: RouteRequest, give_up: Callable[[str, str], None]
    ) -> Placement:
        """Choose an origin and begin to forward; raises `PublishRefusedError` with the reasons."""
        older = self.placements.get(stream.channel)
        if older is not None:  # Taken over here: the older run's ring has ended, its place is free.
            self._release(older)
        try:
            decision = choose_origin(request, self.view, self._pump.now())
        except RouteUnavailableError as error:
            self.view.note_request(request, placed=False)
            raise PublishRefusedError("no_route", str(error)) from error
        try:
            forwarding = self._links[decision.origin].link.forward(stream)
        except EdgedError as error:
            raise PublishRefusedError("full", str(error)) from error
        if forwarding.refusal is not None:
            raise forwarding.refusal
        self.view.note_request(request, placed=True)
        self.view.placed(decision.origin, request)
        placement = Placement(stream, request, decision, forwarding, give_up)
        self.placements[stream.channel] = placement
        logger.info(
            "stream placed",
            channel=stream.channel,
            origin=decision.origin,
            rule=decision.rule,
            matched=decision.matched or None,
            table=f"{self.view.version}",
        )
        return placement

    def end(self, stream: LiveStream) -> None:
        """The publication ended: its forwarding ends with the ring, its place is free now."""
        placement = self.placements.get(stream.channel)
        if placement is not None and placement.stream is stream:
            self._release(placement)

    def _release(self, placement: Placement) -> None:
        self.placements.pop(placement.stream.channel, None)
        self.view.released(placement.decision.origin, placement.request)
        if placement.forwarding.state == "waiting":  # Else the end of its ring ends it.
            self._stop_forwarding(placement.forwarding, "the publication is over")

    def _stop_forwarding(self, forwarding: Forwarding, reason: str) -> None:
        entry = self._links.get(forwarding.origin)
        if entry is not None:
            entry.link.stop_forwarding(forwarding, reason)

    def _give_up(self, placement: Placement, code: str, reason: str) -> None:
        self._release(placement)
        self._stop_forwarding(placement.forwarding, reason)
        placement.give_up(code, reason)

    def _tidy(self) -> None:
        """Stop what has no way to end by itself."""
        for entry in self._links.values():
            for forwarding in entry.link.forwardings:
                if forwarding.state == "waiting" and forwarding.stream.ended is not None:
                    # Its link was lost before the rest of its ring had gone.
                    entry.link.stop_forwarding(forwarding, "the publication is over")
        for placement in list(self.placements.values()):
            forwarding = placement.forwarding
            if forwarding.finished and placement.stream.ended is None:
                logger.error(
                    "forwarding broke off",
                    channel=placement.stream.channel,
                    origin=forwarding.origin,
                    reason=forwarding.closed_reason,
                )
                self._give_up(placement, "internal", forwarding.closed_reason)

    def _give_up_placements(self, origin: str) -> None:
        """Its streams have no way there any more; published again, they are placed anew."""
        for placement in list(self.placements.values()):
            if placement.decision.origin == origin:
                self._give_up(
                    placement, "no_route", f"origin {origin} left the table; publish again"
                )

    def statistics(self) -> list[OriginLinkStatistics]:
        """How each link fares."""
        return [entry.link.statistics() for entry in self._links.values()]

    # Parts in.

    def lookup(self, channel: str) -> StreamId | None:
        """The newest run of a channel anywhere in the network."""
        record = self.listing.lookup(channel)
        return None if record is None else record.entry.stream_id

    def record(self, channel: str) -> DirectoryRecord | None:
        """The directory's record of a channel."""
        return self.listing.lookup(channel)

    def subscribe(self, channel: str) -> None:
        """Have a channel's parts pushed here, with a replay, from where its newest run is."""
        self._cancel(channel)
        self._wanted[channel] = None
        self._follow(channel)

    def unsubscribe(self, channel: str) -> None:
        """No more of it."""
        self._wanted.pop(channel, None)
        self._cancel(channel)

    def _follow(self, channel: str) -> None:
        record = self.listing.lookup(channel)
        if record is None or record.origin not in self._links:
            return
        known = self._subscriptions.get(channel)
        if known is not None:
            if known[0] == record.origin:
                return
            self._cancel(channel)
        subscription = self._links[record.origin].link.subscribe_parts(
            channel,
            self._event,
            on_end=lambda code, reason: self._feed_ended(channel, code, reason),
            priority=PriorityClass.BASIC,
        )
        self._subscriptions[channel] = (record.origin, subscription)

    def _cancel(self, channel: str) -> None:
        known = self._subscriptions.pop(channel, None)
        if known is not None and known[0] in self._links:
            self._links[known[0]].link.unsubscribe(known[1])

    def _forget_subscriptions(self, origin: str) -> list[str]:
        """Its link is gone; should the origin come back, it gets a new link and new ones."""
        channels = [name for name, (where, _) in self._subscriptions.items() if where == origin]
        for channel in channels:
            del self._subscriptions[channel]
        return channels

    def _event(self, stream_id: StreamId, event: PackagedEvent) -> None:
        """Gather a turn's events: a replay reaches playback in one call, not part by part."""
        events = self._gathered.get(stream_id)
        if events is None:
            events = self._gathered[stream_id] = []
        events.append(event)
        self._pump.at_flush(self._deliver)

    def _deliver(self) -> None:
        """Tell playback, older runs first.

        A run's end ends the subscription, here as for playback. The next run, though its first
        events may be here already, is subscribed to when playback asks, perhaps in `window_updated`
        of either run: its replay comes then.
        """
        gathered, self._gathered = self._gathered, {}
        for stream_id, events in sorted(gathered.items(), key=lambda item: item[0]):
            if isinstance(events[-1], StreamEnded):
                self.unsubscribe(stream_id.channel)
            if self.playback is not None:
                self._update(self.playback, stream_id, events)

    def _update(self, playback: Feeds, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        """Tell playback of one run; what goes wrong there ends that channel's subscription only."""
        channel = stream_id.channel
        try:
            playback.window_updated(stream_id, events)
        except EdgedError as error:
            logger.error(  # noqa: TRY400 - the origin's fault: its traceback is of no use here
                "origin's events refused", channel=channel, reason=str(error)
            )
            reason = f"broken media: {error}"
        except Exception:
            logger.exception("playback failed", channel=channel)
            reason = "internal error"
        else:
            return
        self.unsubscribe(channel)
        try:
            playback.channel_unavailable(channel, reason)
        except Exception:  # What failed above may fail again here.
            logger.exception("playback failed to end a channel", channel=channel)

    def _feed_ended(self, channel: str, code: str, reason: str) -> None:
        self._subscriptions.pop(channel, None)
        self._wanted.pop(channel, None)
        if self.playback is not None:
            self.playback.channel_unavailable(channel, f"{code}: {reason}")

    def _directory_changed(self, channel: str) -> None:
        placement, newest = self.placements.get(channel), self.lookup(channel)
        if placement is not None and newest is not None and placement.stream.stream_id < newest:
            self._give_up(placement, "fenced", "taken over by a newer publication elsewhere")
        if channel in self._wanted:
            self._follow(channel)

    # What links tell (`LinkOwner`).

    def heartbeat(self, report: OriginReport) -> None:
        """An origin says how it is."""
        self.states_changed(self.view.heartbeat(report, self._pump.now()))
        if not self._been_up:
            self._tell_changed()

    def directory(self, delta: DirectoryDelta) -> bool:
        """An origin says who is live there."""
        return self.listing.apply(delta)

    def link_up(self, origin: str, priority: PriorityClass | None) -> None:
        """A session stands; the link is up when all do."""
        del priority
        if self._set_link(origin, ""):
            self._been_up = True
        self._tell_changed()

    def link_lost(self, origin: str, priority: PriorityClass | None, reason: str) -> None:
        """A session is lost, and being reconnected."""
        del priority
        self._set_link(origin, reason)

    def accepted(self, forwarding: Forwarding) -> None:
        """The origin took a stream: after a refusal it is trusted again."""
        self.view.accepted(forwarding.origin)

    def refused(self, forwarding: Forwarding, code: str, reason: str) -> None:
        """The origin has the final word: try another, or give the publisher up."""
        placement = self.placements.get(forwarding.stream.channel)
        if placement is None or placement.forwarding is not forwarding:
            return
        self._release(placement)
        if code in ("full", "drain") and forwarding.packaged_seq < 0:  # Else it needs a splice.
            self.view.refused(forwarding.origin, self._pump.now())
            try:
                self.place(placement.stream, placement.request, placement.give_up)
            except PublishRefusedError as error:
                placement.give_up(error.code, error.reason)
            return
        placement.give_up(code, f"origin {forwarding.origin}: {reason}")

    def key_frame_wanted(self, forwarding: Forwarding, track_id: int) -> None:
        """Nothing to do: RTMP has no means to ask its encoder."""

    def states_changed(self, changes: Sequence[StateChanged]) -> None:
        """What heartbeats, or their silence, made of origins."""
        for change in changes:
            logger.info("origin state", origin=change.origin, state=change.after, why=change.reason)

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _measure(self) -> None:
        for name, entry in self._links.items():
            control = entry.link.statistics().control
            if control is not None and control.rtt_s is not None:
                self.view.observe_rtt(name, control.rtt_s * 1000)

    def _set_link(self, origin: str, reason: str) -> bool:
        """Note how a link stands; returns whether it is up."""
        entry = self._links.get(origin)
        if entry is None:
            return False  # The last word of a link whose origin has just left the table.
        up = all(entry.link.is_up(priority) for priority in SESSIONS)
        self.view.set_link(origin, up=up, now=self._pump.now(), reason=reason)
        if up:
            self._measure()
        return up
