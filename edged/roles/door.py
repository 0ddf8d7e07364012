"""The PoP's side of the ingest plug-in contract: key, channel's own run, place, publication.

A run outlives its publisher. Whoever comes with a valid key of the channel goes on with the run
that is live, if its tracks fit: after a loss within the grace, as a takeover else; here, or where
another PoP's run is packaged. What does not fit begins a run of its own.
"""

import secrets
import time
from collections.abc import Callable, Sequence

import structlog

from edged.api.key_callback import AskKey
from edged.backbone.directory import DirectoryRecord
from edged.errors import PublishRefusedError
from edged.ingest.plugin import (
    HttpRoute,
    PrepareReload,
    Publication,
    PublisherControl,
    PublishRequest,
)
from edged.media.events import StreamEvent, ignore_event
from edged.media.routing import RouteRequest
from edged.media.stream import Grant, StreamId
from edged.media.track import formats_of
from edged.policy.blocks import Blocks
from edged.policy.joining import Joining, can_go_on
from edged.policy.stream_keys import StreamKeys
from edged.policy.takeover import (
    EPOCH_CHANCE_BITS,
    PUBLICATION_CHANCE_BITS,
    TAKEN_OVER,
    TAKEOVERS_MAX,
    configs_from,
    takeover_id,
    takeovers,
    units_from,
)
from edged.roles.descriptions import Descriptions
from edged.roles.entrance import Entrance
from edged.roles.placement import Placement
from edged.roles.runs import Run, Runs, stop_publisher, tell_given_up
from edged.roles.telling import Telling
from edged.roles.uplinks import Uplinks
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump

LATE_S_MAX = 0.5  # Our timer later than this has slept, and who has come back may lie unread.
ENCODER_CHARS_MAX = 100  # Of its name, for people; it can be anything.

logger = structlog.get_logger("edged.pop")


class PopDoor(Runs):
    """Lets publishers in. One per PoP, for all its plug-ins."""

    def __init__(
        self,
        pump: Pump,
        hub: Hub,
        keys: StreamKeys,
        uplinks: Uplinks,
        *,
        descriptions: Descriptions | None = None,
        grace_s: float = 0.0,
        ask_key: AskKey | None = None,
        emit: Callable[[StreamEvent], object] = ignore_event,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        """`ask_key`: who else may know a key that `keys` does not. `emit` takes events."""
        descriptions = descriptions or Descriptions(hub, uplinks, pump.now)
        telling = Telling(emit, pop=uplinks.view.pop, newest=uplinks.newest)
        super().__init__(pump, hub, uplinks.placing, descriptions, telling, grace_s=grace_s)
        self.refused_total = 0
        self.accepted_total = 0
        self.routes: list[HttpRoute] = []  # What plug-ins add to the API.
        self.returned_total = 0
        self.prepares: dict[str, PrepareReload] = {}  # Of the plug-ins, by name.
        self._uplinks = uplinks
        uplinks.on_key_frame_wanted = self.want_key_frame
        self._numbers = uplinks.placing.runs
        self._placing.next_number = self._next_number
        self._entrance = Entrance(keys, ask_key, now=pump.now, unix_now=unix_now)
        self._blocks = Blocks()
        self._unix_now = unix_now
        self._draining = ""  # Why nobody is let in now.

    async def publish(self, request: PublishRequest, control: PublisherControl) -> Publication:
        """Check the key, place the stream; raises `PublishRefusedError` with code and reason."""
        try:
            self._check_open()
            grant = self._descriptions.adopt(await self._entrance.admit(request))
            self._blocks.check(grant.channel, self.pump.now())
            route = RouteRequest(
                channel=grant.channel,
                priority=grant.priority,
                tags=grant.tags,
                protocol=request.protocol,
            )
            await self._placing.routes.wait_route(route)
            publication = self._let_in(request, grant, route, control)
        except PublishRefusedError:
            self.refused_total += 1
            raise
        self.accepted_total += 1
        return publication

    def add_routes(self, routes: Sequence[HttpRoute]) -> None:
        """Keep a plug-in's HTTP handlers for the API, which is made when all have started."""
        self.routes += routes

    def on_reload(self, name: str, prepare: PrepareReload) -> None:
        """Have a plug-in's `prepare` called when the file is read again."""
        self.prepares[name] = prepare

    def refuse_all(self, reconnect_url: str | None) -> None:
        """Let nobody in from now on: this PoP drains."""
        where = f"publish to {reconnect_url}" if reconnect_url else "publish to another"
        self._draining = f"this PoP is draining; {where}"

    def admit_again(self) -> None:
        """Let publishers in as before."""
        self._draining = ""
        self.drain_undone()

    def kick(self, channel: str, reason: str, *, block_s: float = 0.0) -> bool:
        """End a publication for good; with `block_s` refuse the channel for so long.

        Says whether it was live here. Raises EdgedError when the block can't be; then nothing has
        changed.
        """
        if block_s:
            self._blocks.block(channel, reason, seconds=block_s, now=self.pump.now())
        run = self._runs.get(channel)
        if run is not None:
            self.stop(run.stream, "Rejected", f"kicked: {reason}")
        return run is not None

    def use_keys(self, keys: StreamKeys) -> list[str]:
        """Check publishers by other keys from now on; nobody is sent away.

        Returns the channels that are live though their key would no longer be let in; none where a
        service is asked, which may know them.
        """
        self._entrance.use_keys(keys)
        asks = self._entrance.asks_others
        return [] if asks else self.find_invalid(keys, self._unix_now())

    async def check(self, key: str, protocol: str, peer: str) -> Grant:
        """Whether a key would be let in now, by that protocol, without a publication.

        Raises `PublishRefusedError` as `publish` does, but not for want of a route. A wrong key
        counts.
        """
        grant = await self.identify(key, peer, protocol)
        self._blocks.check(grant.channel, self.pump.now())
        self._takes_over(grant.channel)
        return grant

    async def identify(self, key: str, peer: str, protocol: str | None = None) -> Grant:
        """Whose key it is; raises `PublishRefusedError`. A wrong key counts."""
        return await self._entrance.identify(key, peer, protocol)

    def _check_open(self) -> None:
        if self._draining:
            raise PublishRefusedError("drain", self._draining)

    def _next_number(self, channel: str) -> int:
        chance = secrets.randbits(PUBLICATION_CHANCE_BITS)
        return self._numbers.next_publication(channel, self._unix_now(), chance)

    def _takes_over(self, channel: str) -> bool:
        """Whether a publisher that comes now takes a live run over; raises when it may not."""
        run, record = self._runs.get(channel), self._uplinks.listing.lookup(channel)
        return self._numbers.takes_over(
            channel,
            here=run is not None and run.control is not None,
            listed=None if record is None else record.entry.stream_id,
            waiting=record is not None and record.entry.waiting,
            now=self.pump.now(),
        )

    # A publisher comes.

    def _let_in(
        self,
        request: PublishRequest,
        grant: Grant,
        route: RouteRequest,
        control: PublisherControl,
    ) -> Publication:
        self._check_open()  # Since it began to wait for a route.
        self._blocks.check(grant.channel, self.pump.now())
        channel = grant.channel
        run = self._runs.get(channel)
        record = self._uplinks.listing.lookup(channel)
        takes_over = self._takes_over(channel)
        if run is not None and self._can_join_here(run, grant):
            return self._join_here(run, request, grant, control)
        there = run is None or bool(run.origin)
        if there and record is not None and self._can_join_there(record, grant, route):
            if run is not None:
                self._replace(run, TAKEN_OVER)
                self._forget(run, TAKEN_OVER)
            return self._join_there(record, request, grant, route, control, takes_over=takes_over)
        self._placing.routes.check(route)  # A newcomer without a place ends no incumbent.
        return self._begin(request, grant, route, control, takes_over=takes_over)

    def _can_join_here(self, run: Run, grant: Grant) -> bool:
        stream = run.stream
        known = takeovers(stream.stream_id) < TAKEOVERS_MAX and not run.origin
        return known and stream.units > 0 and can_go_on(stream.grant, grant)

    def _can_join_there(self, record: DirectoryRecord, grant: Grant, route: RouteRequest) -> bool:
        entry = record.entry
        if not self._numbers.is_elsewhere(entry.stream_id):
            return False  # Ours, which has ended, and is listed for a moment yet.
        known = bool(entry.formats) and takeovers(entry.stream_id) < TAKEOVERS_MAX
        theirs, ours = (entry.priority, entry.tags), (grant.priority, grant.tags)
        same = theirs == ours and entry.latency == grant.latency
        return known and same and self._placing.routes.can_join(route, record.origin)

    def _join_here(
        self, run: Run, request: PublishRequest, grant: Grant, control: PublisherControl
    ) -> Publication:
        """Have a publisher go on with a run of ours, which has another one or waits."""
        tracks = run.stream.tracks
        configs = {key: (track.config_id, track.config) for key, track in tracks.items()}
        if run.control is not None:
            run.takes_over = True
            self._numbers.taken_over(grant.channel, self.pump.now())
        self._replace(run, TAKEN_OVER)
        run.request, run.control = request, control
        joining = Joining(formats_of(tracks.values()), configs)
        return self._publication(run, grant, joining)

    def _join_there(
        self,
        record: DirectoryRecord,
        request: PublishRequest,
        grant: Grant,
        route: RouteRequest,
        control: PublisherControl,
        *,
        takes_over: bool,
    ) -> Publication:
        """Have a publisher go on, from here, with a run of another PoP."""
        if (told := self._descriptions.read(grant.channel)) is not None:
            grant = grant.described(told)  # As it may have been changed there.
        chance = secrets.randbits(EPOCH_CHANCE_BITS)
        stream_id = takeover_id(record.entry.stream_id, chance)
        stream = self._open(stream_id, request, grant)
        stream.ring.note_loss(units_from(stream_id))
        run = self._runs[grant.channel] = Run(stream, request, route)
        run.control, run.takes_over, run.origin = control, takes_over, record.origin
        joining = Joining(record.entry.formats, configs_from=configs_from(stream_id))
        return self._publication(run, grant, joining)

    def _begin(
        self,
        request: PublishRequest,
        grant: Grant,
        route: RouteRequest,
        control: PublisherControl,
        *,
        takes_over: bool,
    ) -> Publication:
        """Begin a new run; an older one of ours ends."""
        channel = grant.channel
        older = self._runs.get(channel)
        stream = self._open(StreamId(channel, self._next_number(channel)), request, grant)
        run = self._runs[channel] = Run(stream, request, route)
        run.control = control
        publication = self._publication(run, grant, None)
        self._numbers.begun(stream.stream_id)
        if takes_over:
            self._numbers.taken_over(channel, self.pump.now())
        self._grace.end(channel)
        if older is not None:
            self._replace(older, TAKEN_OVER)
        try:
            placement = self._place(run)
        except BaseException:
            self._forget(run, "no origin takes it")
            raise
        if older is not None:
            self._telling.taken_over(older.stream, stream.stream_id)
        self._telling.went_live(stream, request.protocol, placement.decision.origin)
        run.live = True
        return publication

    def _open(self, stream_id: StreamId, request: PublishRequest, grant: Grant) -> LiveStream:
        stream = self._hub.open(
            stream_id, grant, started_at=self.pump.now(), came_from=_came_from(request)
        )
        stream.encoder = request.encoder[:ENCODER_CHARS_MAX]
        return stream

    def _publication(self, run: Run, grant: Grant, joining: Joining | None) -> Publication:
        publication = run.publication = Publication(
            run.stream,
            wallclock_us=lambda: int(self._unix_now() * 1e6),
            close=lambda publication, reason, lost: self._close(publication, reason, lost=lost),
            joins=joining,
            settle=None if joining is None else self._settle,
        )
        publication.grant = grant
        return publication

    def _replace(self, run: Run, reason: str) -> None:
        """Take nothing more of the publisher that a run has, and tell it why."""
        control, publication = run.control, run.publication
        run.control = run.publication = None
        if publication is not None:
            publication.over = reason
        if control is not None:
            stop_publisher(run.stream.channel, control, "Rejected", TAKEN_OVER)

    def _place(self, run: Run, *, joins: str = "") -> Placement:
        return self._placing.place(
            run.stream, run.route, lambda error: self._give_up(run, error), joins=joins
        )

    # It has shown whether it fits.

    def _settle(self, publication: Publication, fits: bool) -> LiveStream:
        """Say in which stream a publisher that was to join one goes on."""
        stream = publication.stream
        run = self._runs.get(stream.channel)
        assert run is not None, "who is replaced or gone sends no more"
        assert run.publication is publication, "who is replaced or gone sends no more"
        if run.origin:
            self._settle_there(run, fits=fits)
        elif fits:
            self._settle_here(run, publication.grant)
        else:
            self._begin_beside(run, publication.grant)
        run.takes_over = False
        return run.stream

    def _settle_here(self, run: Run, grant: Grant) -> None:
        stream, since = run.stream, run.stream.waiting_since
        stream.grant, stream.came_from = grant, _came_from(run.request)
        stream.encoder = run.request.encoder[:ENCODER_CHARS_MAX]
        stream.waiting_since = None
        self._grace.end(stream.channel)
        away_s = None if since is None else self.pump.now() - since
        self._log_join(run, waited_s=away_s)
        if run.takes_over:
            self._placing.take_over(stream)
        else:
            self._placing.waiting_changed(stream)

    def _settle_there(self, run: Run, *, fits: bool) -> None:
        """Go on with a run of another PoP at its origin, or begin one in the same stream."""
        stream, origin = run.stream, run.origin
        run.origin = ""
        if run.takes_over:
            self._numbers.taken_over(stream.channel, self.pump.now())
        if fits:
            try:
                self._place(run, joins=origin)
            except PublishRefusedError as error:
                logger.info("run cannot be joined", channel=stream.channel, why=str(error))
            else:
                self._numbers.begun(stream.stream_id)
                self._log_join(run, origin=origin)
                return
        stream.stream_id = StreamId(stream.channel, self._next_number(stream.channel))
        self._numbers.begun(stream.stream_id)
        self._place_or_stop(run)

    def _begin_beside(self, run: Run, grant: Grant) -> None:
        """A publisher that cannot go on with our run begins another, which ends that."""
        channel = grant.channel
        logger.info("tracks do not fit: a new run begins", channel=channel)
        self._grace.end(channel)
        older = run.stream
        run.stream = self._open(StreamId(channel, self._next_number(channel)), run.request, grant)
        run.live = False
        self._numbers.begun(run.stream.stream_id)
        self._telling.taken_over(older, run.stream.stream_id)
        self._place_or_stop(run)

    def _place_or_stop(self, run: Run) -> None:
        try:
            placement = self._place(run)
        except PublishRefusedError as error:
            control = run.control
            self._forget(run, "no origin takes it")
            if control is not None:
                tell_given_up(run.stream.channel, control, error)
        else:
            protocol = run.request.protocol
            self._telling.went_live(run.stream, protocol, placement.decision.origin)
            run.live = True

    def _log_join(
        self, run: Run, *, waited_s: float | None = None, origin: str | None = None
    ) -> None:
        self.returned_total += not run.takes_over
        run.live = True
        if run.takes_over:
            self._telling.taken_over(run.stream, run.stream.stream_id)
        else:
            self._telling.returned(run.stream, waited_s)
        logger.info(
            "run taken over" if run.takes_over else "publisher returned",
            channel=run.stream.channel,
            publication=f"{run.stream.stream_id.publication:x}",
            came_from=_came_from(run.request),
            waited_s=None if waited_s is None else round(waited_s, 3),
            origin=origin,
        )


def _came_from(request: PublishRequest) -> str:
    return f"{request.protocol} {request.peer}"
