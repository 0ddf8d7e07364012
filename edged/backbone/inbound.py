"""Streams of units that come over the backbone into this process's hub.

Used by an origin for what PoPs forward, and by a PoP for the units it subscribes to. A stream
outlives its session by ORPHAN_S_MAX: the sender resumes it, on a new session, after the last unit
that came. Another sender may take it over, under a newer epoch of the same run: it stays the same
stream to all who read it here.
"""

import math
from collections.abc import Callable, Iterator

import structlog
from msgspec import Struct

from edged.backbone.acks import in_messages
from edged.backbone.fence import Fence, explain_fence
from edged.backbone.inbound_stream import Inbound
from edged.backbone.session import BackboneSession
from edged.errors import EdgedError, PublishRefusedError, UnsupportedMediaError
from edged.media.access_unit import AccessUnit
from edged.media.routing import Terms
from edged.media.stream import Description, Grant, StreamId
from edged.media.track import Track
from edged.runtime.hub import TRACKS_MAX, FencedError, Hub, LiveStream
from edged.wire.backbone.messages import (
    FEATURE_DESCRIPTIONS,
    DescriptionWanted,
    KeyFrameWanted,
    Message,
    RenditionAck,
    StreamAccepted,
    StreamAck,
    StreamClosed,
    StreamDescribed,
    StreamOpened,
    StreamRefused,
    StreamWaiting,
    TrackChanged,
    UnitsAcked,
)

ORPHAN_S_MAX = (
    15.0  # A PoP reconnects within backoff's 5 s; then its failover has moved the stream.
)
WANTED_FROM_OLDEST = -1
CHANNEL_CHARS_MAX = 256  # Channels are parts of URLs, log lines and the directory.

logger = structlog.get_logger("edged.backbone")

Admit = Callable[[StreamId, Grant, list[Track], Terms], None]
Opened = Callable[[LiveStream, StreamOpened], None]
Closed = Callable[[LiveStream, str], None]
Described = Callable[[LiveStream], None]
Changed = Callable[[Inbound], None]


class _FencedByError(FencedError):
    """The run is not the newest; `newest` is."""

    def __init__(self, stream_id: StreamId, newest: StreamId, *, live: bool) -> None:
        self.newest = newest
        super().__init__(explain_fence(stream_id, newest, live=live))


class InboundStatistics(Struct, frozen=True, kw_only=True):
    """Counters of what came in."""

    streams: int
    orphans: int
    opened: int
    resumed: int
    taken_over: int  # Gone on with from another PoP, or another publisher of the same.
    fenced: int  # Streams refused because a newer run is there or was.
    units_lost: int


class InboundStreams:
    """All streams of units that come in; ends and openings are told to the role by callables."""

    def __init__(
        self,
        hub: Hub,
        fence: Fence,
        *,
        admit: Admit,
        opened: Opened,
        closed: Closed,
        described: Described = lambda _: None,
        changed: Changed = lambda _: None,
    ) -> None:
        """`changed`: a stream is another's now, or has begun or ceased to wait."""
        self._hub, self._fence = hub, fence
        self._admit, self._opened, self._closed = admit, opened, closed
        self._described = described
        self._changed = changed
        self._taken_over_count = 0
        self._streams: dict[str, Inbound] = {}
        self._by_session: dict[BackboneSession, dict[int, Inbound]] = {}
        self._dirty: dict[Inbound, None] = {}
        self._opened_count = self._resumed_count = self._fenced_count = self._lost_count = 0

    def handle(self, session: BackboneSession, message: Message, now: float) -> bool:
        """Act on a sender's message; False if it is not about a stream that comes in."""
        match message:
            case StreamOpened():
                self.open(session, message, now)
            case TrackChanged():
                self.track_changed(session, message)
            case StreamDescribed(stream_no, title, category, labels):
                inbound = self._by_session.get(session, {}).get(stream_no)
                if inbound is not None:
                    told = Description(title=title, category=category, labels=labels)
                    self._describe(inbound.stream, told)
            case StreamClosed():
                self.closed(session, message)
            case StreamWaiting():
                inbound = self._by_session.get(session, {}).get(message.stream_no)
                if inbound is not None:
                    self._set_waiting(inbound, now if message.waiting else None)
            case _:
                return False
        return True

    def open(self, session: BackboneSession, message: StreamOpened, now: float) -> None:
        """Take a stream that a peer offers, resume one, or refuse it with the reason."""
        try:
            inbound, wanted_seq = self._take(session, message, now)
        except PublishRefusedError as refusal:
            self._refuse(session, message.stream_no, refusal.code, refusal.reason)
        except _FencedByError as fence:
            self._refuse(session, message.stream_no, "fenced", str(fence), fence.newest)
        except EdgedError as error:
            self._refuse(session, message.stream_no, "unsupported_media", str(error))
        except Exception as bug:  # A bug that it meets ends it, and not its session's others.
            logger.exception("stream failed", channel=message.stream_id.channel)
            self._refuse(session, message.stream_no, "internal", f"internal error: {bug!r}")
            if (half := self.find(message.stream_id)) is not None:
                self._end(half, "internal error")
        else:
            inbound.session, inbound.stream_no = session, message.stream_no
            inbound.orphaned_at = math.inf
            inbound.acked = (-2, -2)
            inbound.renditions_changed = inbound.splice_changed = True
            self._set_waiting(inbound, now if message.waiting else None)
            self._by_session.setdefault(session, {})[message.stream_no] = inbound
            self._dirty[inbound] = None
            session.send(StreamAccepted(message.stream_no, wanted_seq))

    def units_received(
        self, session: BackboneSession, stream_no: int, units: list[AccessUnit]
    ) -> None:
        """Append to the hub. Hot path at the origin."""
        inbound = self._by_session.get(session, {}).get(stream_no)
        if inbound is None:
            return  # Refused in this very batch of bytes.
        stream = inbound.stream
        stream_id = stream.stream_id
        newest = self._fence.newest(stream_id.channel)
        if newest is not stream_id and newest is not None and stream_id < newest:
            self._stop_fenced(inbound, newest)
            return
        if stream.ended is not None:
            self.stop(inbound, "stopped", stream.ended)
            return
        ring = stream.ring
        first = units[0].seq
        if first < ring.next_seq:
            units = [unit for unit in units if unit.seq >= ring.next_seq]
            if not units:
                return  # A resumed stream's start of the GOP, which is here already.
            first = units[0].seq
        begins = first == ring.next_seq or inbound.received_seq < 0
        if begins and units[-1].seq - first == len(units) - 1:
            stream.append(units)
        else:
            self._append_with_gaps(inbound, units)
        inbound.received_seq = units[-1].seq
        self._dirty[inbound] = None

    def track_changed(self, session: BackboneSession, message: TrackChanged) -> None:
        """A track is new or has a new configuration."""
        inbound = self._by_session.get(session, {}).get(message.stream_no)
        if inbound is not None and inbound.stream.ended is None:
            try:
                inbound.stream.set_track(message.track)
            except EdgedError as error:
                self.stop(inbound, "unsupported_media", str(error))

    def closed(self, session: BackboneSession, message: StreamClosed) -> None:
        """The sender's last word: the publication is over, or only this path of it."""
        inbound = self._by_session.get(session, {}).pop(message.stream_no, None)
        if inbound is None:
            return
        reason = message.reason[:200]
        inbound.stream.goes_on = not message.ended
        self._end(inbound, reason if message.ended else f"sent elsewhere: {reason}")

    def session_lost(self, session: BackboneSession, now: float) -> None:
        """Keep the session's streams for a while: their sender will resume them."""
        for inbound in self._by_session.pop(session, {}).values():
            if inbound.session is session:
                inbound.session = None
                inbound.orphaned_at = now
                self._changed(inbound)

    def expire(self, now: float) -> None:
        """End the streams that nobody resumed, and those whose publication was ended here."""
        for inbound in list(self._streams.values()):
            if inbound.stream.ended is not None:
                self.stop(inbound, "stopped", inbound.stream.ended)
            elif now - inbound.orphaned_at >= ORPHAN_S_MAX:
                self._end(inbound, f"{inbound.peer} is lost")

    def find(self, stream_id: StreamId) -> Inbound | None:
        """The stream, if it comes in here."""
        inbound = self._streams.get(stream_id.channel)
        return inbound if inbound is not None and inbound.stream_id == stream_id else None

    def stop(
        self, inbound: Inbound, code: str, reason: str, newest: StreamId | None = None
    ) -> None:
        """Refuse what is still to come of a stream and end it here; `newest`: what fences it."""
        inbound.stream.goes_on = inbound.stream.goes_on or code in ("drain", "preempted")
        if inbound.session is not None:
            self._by_session.get(inbound.session, {}).pop(inbound.stream_no, None)
            self._refuse(inbound.session, inbound.stream_no, code, reason, newest)
        self._end(inbound, f"{code}: {reason}")

    def packaged(
        self,
        stream_id: StreamId,
        packaged_seq: int,
        renditions: list[RenditionAck],
        splice: bytes = b"",
    ) -> None:
        """Parts were pushed; a successor goes on from `splice` and the units after that seq."""
        inbound = self.find(stream_id)
        if inbound is not None:
            inbound.packaged_seq = max(inbound.packaged_seq, packaged_seq)
            if splice and splice is not inbound.splice:
                inbound.splice, inbound.splice_changed = splice, True
            inbound.renditions = renditions
            inbound.renditions_changed = True
            self._dirty[inbound] = None

    def want_key_frame(self, stream_id: StreamId, track_id: int) -> None:
        """Ask the sender, who asks the broadcaster."""
        inbound = self.find(stream_id)
        if inbound is not None and inbound.session is not None:
            inbound.session.send(KeyFrameWanted(inbound.stream_no, track_id))

    def want_description(self, message: DescriptionWanted) -> None:
        """Pass on to the channel's PoP what was asked for at another."""
        inbound = self._streams.get(message.channel)
        session = None if inbound is None else inbound.session
        if session is not None and FEATURE_DESCRIPTIONS in session.peer.features:
            session.send(message)

    def send_acks(self) -> None:
        """Ack, in one message per session, the streams that moved since the last call."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        acks: dict[BackboneSession, list[StreamAck]] = {}
        for inbound in dirty:
            position = (inbound.received_seq, inbound.packaged_seq)
            changed = inbound.renditions_changed or inbound.splice_changed
            if inbound.session is None or (position == inbound.acked and not changed):
                continue
            ack = StreamAck(
                inbound.stream_no,
                inbound.stream_id.home_epoch,
                inbound.received_seq,
                inbound.packaged_seq,
                inbound.renditions if inbound.renditions_changed else [],
                inbound.splice if inbound.splice_changed else b"",
            )
            inbound.acked = position
            inbound.renditions_changed = inbound.splice_changed = False
            acks.setdefault(inbound.session, []).append(ack)
        for session, moved in acks.items():
            for some in in_messages(moved):
                session.send(UnitsAcked(some))

    def __iter__(self) -> Iterator[Inbound]:
        return iter(list(self._streams.values()))

    def statistics(self) -> InboundStatistics:
        """Counters since the start."""
        streams = self._streams.values()
        return InboundStatistics(
            streams=len(streams),
            orphans=sum(1 for inbound in streams if inbound.session is None),
            opened=self._opened_count,
            resumed=self._resumed_count,
            taken_over=self._taken_over_count,
            fenced=self._fenced_count,
            units_lost=self._lost_count,
        )

    def _take(
        self, session: BackboneSession, message: StreamOpened, now: float
    ) -> tuple[Inbound, int]:
        stream_id = message.stream_id
        live = self._streams.get(stream_id.channel)
        if live is not None and live.stream_id == stream_id and live.stream.ended is None:
            newest = self._fence.newest(stream_id.channel)
            if message.takes_over and live.peer != _name(session):
                # Two PoPs at once, and by chance with one number: the first has it.
                raise _FencedByError(stream_id, stream_id, live=True)
            if newest is None or stream_id >= newest:
                return self._resume(live, session, message)
            self._stop_fenced(live, newest)
            live = None
        self._check(message, live)
        if message.takes_over and live is not None and _goes_on(live, stream_id):
            return self._take_over(live, session, message)
        if message.takes_over and not message.splice and message.packaged_seq >= 0:
            raise PublishRefusedError("lost_state", "the run that it was to go on with is not here")
        self._admit(stream_id, message.grant, message.tracks, message.terms)
        # It holds a slot: nothing from here on can fail.
        self._fence.admit(stream_id)
        if live is not None and live.stream.ended is not None:
            self.stop(live, "stopped", live.stream.ended)
        elif live is not None:
            self._stop_fenced(live, stream_id, live=True)
        peer = _name(session)
        stream = self._hub.open(
            stream_id, message.grant, started_at=now, came_from=f"backbone {peer}"
        )
        for track in message.tracks:
            stream.set_track(track)
        inbound = self._streams[stream_id.channel] = Inbound(stream, peer, now)
        inbound.packaged_seq, inbound.splice = message.packaged_seq, message.splice
        wanted_seq = WANTED_FROM_OLDEST
        if message.splice:  # It is known to the unit where another origin stopped.
            wanted_seq = message.packaged_seq + 1
            stream.ring.note_loss(wanted_seq)
        self._opened_count += 1
        logger.info(
            "stream opened",
            channel=stream_id.channel,
            publication=f"{stream_id.publication:x}",
            home_epoch=stream_id.home_epoch,
            source=peer,
            packaged_seq=message.packaged_seq,
        )
        self._opened(stream, message)
        return inbound, wanted_seq

    def _check(self, message: StreamOpened, live: Inbound | None) -> None:
        """Raise EdgedError if the stream cannot be taken; an older run is not touched yet."""
        stream_id = message.stream_id
        if not 0 < len(stream_id.channel) <= CHANNEL_CHARS_MAX:
            raise PublishRefusedError(
                "protocol",
                f"channel of {len(stream_id.channel)} characters, allowed are {CHANNEL_CHARS_MAX}",
            )
        if message.grant.channel != stream_id.channel:
            raise PublishRefusedError("protocol", "the grant is for another channel")
        if len({track.track_id for track in message.tracks}) > TRACKS_MAX:
            raise UnsupportedMediaError(
                f"channel {stream_id.channel!r}: more than {TRACKS_MAX} tracks in one publication"
            )
        newest = self._fence.newest(stream_id.channel)
        held = self._hub.get(stream_id.channel)
        if held is not None and (newest is None or newest < held.stream_id):
            newest = held.stream_id  # Published in this very process, or forgotten by the fence.
        if newest is None:
            return
        is_ours = live is not None and live.stream is held
        if stream_id < newest or (stream_id == newest and not is_ours and self._is_live(newest)):
            raise _FencedByError(stream_id, newest, live=self._is_live(newest))

    def _is_live(self, stream_id: StreamId) -> bool:
        held = self._hub.get(stream_id.channel)
        return held is not None and held.stream_id == stream_id

    def _stop_fenced(self, inbound: Inbound, newest: StreamId, *, live: bool = False) -> None:
        live = live or self._is_live(newest)
        reason = explain_fence(inbound.stream_id, newest, live=live)
        # A newer home of the same run: its viewers stay, they only come to it.
        inbound.stream.goes_on = newest.publication == inbound.stream_id.publication
        self.stop(inbound, "fenced", reason, newest)

    def _resume(
        self, inbound: Inbound, session: BackboneSession, message: StreamOpened
    ) -> tuple[Inbound, int]:
        """The same run again, on another session; the newest session is right."""
        for track in message.tracks:
            inbound.stream.set_track(track)
        self._describe(inbound.stream, message.grant.description)
        if inbound.session is not None:
            self._by_session.get(inbound.session, {}).pop(inbound.stream_no, None)
            if inbound.session is not session:
                self._refuse(inbound.session, inbound.stream_no, "moved", "resumed elsewhere")
        self._resumed_count += 1
        logger.info(
            "stream resumed", channel=inbound.stream_id.channel, from_seq=inbound.received_seq + 1
        )
        if inbound.received_seq >= 0:
            return inbound, inbound.received_seq + 1
        return inbound, inbound.packaged_seq + 1 if inbound.splice else WANTED_FROM_OLDEST

    def _describe(self, stream: LiveStream, told: Description) -> None:
        if stream.grant.description != told:
            stream.grant = stream.grant.described(told)
            self._described(stream)

    def _take_over(
        self, inbound: Inbound, session: BackboneSession, message: StreamOpened
    ) -> tuple[Inbound, int]:
        """The same run from another sender, or of another publisher: who sent it is told."""
        stream, stream_id = inbound.stream, message.stream_id
        if len(stream.tracks.keys() | {track.track_id for track in message.tracks}) > TRACKS_MAX:
            raise UnsupportedMediaError(f"more than {TRACKS_MAX} tracks in one publication")
        self._admit(stream_id, message.grant, message.tracks, message.terms)
        for track in message.tracks:
            stream.set_track(track)
        self._fence.admit(stream_id)
        if inbound.session is not None:
            reason = explain_fence(inbound.stream_id, stream_id, live=True)
            self._by_session.get(inbound.session, {}).pop(inbound.stream_no, None)
            self._refuse(inbound.session, inbound.stream_no, "fenced", reason, stream_id)
        logger.info(
            "stream taken over",
            channel=stream_id.channel,
            publication=f"{stream_id.publication:x}",
            home_epoch=stream_id.home_epoch,
            source=_name(session),
            before=inbound.peer,
            received_seq=inbound.received_seq,
        )
        stream.stream_id, stream.grant = stream_id, message.grant
        inbound.peer = _name(session)
        stream.came_from = f"backbone {inbound.peer}"
        # Units of another PoP are numbered from far above: nothing between them is lost.
        wanted_seq = max(stream.ring.next_seq, message.first_seq)
        stream.ring.note_loss(wanted_seq)
        inbound.received_seq = wanted_seq - 1
        self._taken_over_count += 1
        return inbound, wanted_seq

    def _set_waiting(self, inbound: Inbound, since: float | None) -> None:
        """Note whether a stream waits for its publisher, and have those told who ask."""
        inbound.stream.waiting_since = since
        self._changed(inbound)

    def _append_with_gaps(self, inbound: Inbound, units: list[AccessUnit]) -> None:
        """Append runs without gaps, and note what is lost between them."""
        stream, start = inbound.stream, 0
        for index in range(1, len(units) + 1):
            if index < len(units) and units[index].seq == units[index - 1].seq + 1:
                continue
            first, ring = units[start].seq, stream.ring
            if first > ring.next_seq and inbound.received_seq >= 0:
                inbound.units_lost += first - ring.next_seq
                self._lost_count += first - ring.next_seq
                ring.note_loss(first)
            stream.append(units[start:index])
            inbound.received_seq = units[index - 1].seq
            start = index

    def _refuse(
        self,
        session: BackboneSession,
        stream_no: int,
        code: str,
        reason: str,
        newest: StreamId | None = None,
    ) -> None:
        self._fenced_count += newest is not None
        session.link.receiver.refuse(stream_no)
        session.send(StreamRefused(stream_no, code[:64], reason[:500], newest))

    def _end(self, inbound: Inbound, reason: str) -> None:
        if self._streams.get(inbound.stream_id.channel) is inbound:
            del self._streams[inbound.stream_id.channel]
        self._dirty.pop(inbound, None)
        self._hub.close(inbound.stream, reason)
        logger.info(
            "stream closed",
            channel=inbound.stream_id.channel,
            publication=f"{inbound.stream_id.publication:x}",
            reason=reason,
            received_seq=inbound.received_seq,
            packaged_seq=inbound.packaged_seq,
            units_lost=inbound.units_lost,
        )
        self._closed(inbound.stream, reason)


def _name(session: BackboneSession) -> str:
    return f"{session.peer.role}/{session.peer.name}"


def _goes_on(inbound: Inbound, stream_id: StreamId) -> bool:
    """Whether a run that comes in goes on under this newer epoch of it."""
    return inbound.stream.ended is None and inbound.stream_id.publication == stream_id.publication
