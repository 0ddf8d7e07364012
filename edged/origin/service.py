"""The origin's service: admits streams by slots, packages each, keeps its window for late PoPs."""

import time
from collections.abc import Callable, Iterator
from typing import Annotated

import structlog
import trio
from msgspec import Meta, Struct, structs

from edged.errors import RemoteProtocolError
from edged.media.parts import (
    PackagedEvent,
    Part,
    Rendition,
    SegmentEnded,
    SegmentsListed,
    StreamEnded,
)
from edged.media.routing import PLAIN_TERMS, ByClass, Terms
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Kind, Track
from edged.origin.held_stream import Given, HeldStream
from edged.origin.ladder import Ladder
from edged.origin.ladders import Ladders
from edged.origin.packager import Packager, Progress
from edged.policy.ladder import LadderConfig
from edged.policy.ladder_slots import SlotCounts
from edged.policy.ladder_words import LadderSeen
from edged.policy.latency import PackagerConfig, choose_latency, describe_latency
from edged.policy.segment_cache import GONE, CacheConfig, SegmentCache
from edged.policy.slots import Slots
from edged.policy.window_limits import WindowLimits
from edged.policy.window_replay import make_replay
from edged.runtime.hub import LiveStream
from edged.runtime.segment_store import SegmentStore
from edged.runtime.tls import TlsFiles

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}\Z"  # As in `edged://ROLE/NAME` of a certificate.
ENDED_KEPT_S = 120.0  # Of an ended stream, or as long as its playlist is: PoPs serve it so long.
ENDED_RUNS_MAX = 2  # Of one channel, as PoPs keep; an encoder that flaps must not fill memory.
ENDED_MAX = 1000  # Ended streams kept; the cache's rule lets go of most of their media before.
SWEEP_INTERVAL_S = 5.0
# A run that left goes on elsewhere, and PoPs follow it there. Who has not by then is told that it
# is over: it may have waited for a place for LOST_S_MAX, 10 s, in vain.
FOLLOWED_S_MAX = 15.0

logger = structlog.get_logger("edged.origin")


class OriginConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[origin]`: this process packages streams."""

    name: Annotated[str, Meta(pattern=NAME_PATTERN)]
    listen: str = "[::]:7410"  # The backbone: PoPs connect here.
    address: str = ""  # HOST:PORT where PoPs reach it; what IRS tells them. Default: `listen`.
    # UDP, where PoPs' probes of the path are answered; None: that of `listen`. 0: nowhere.
    probe_port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    slots: Annotated[int, Meta(ge=1, le=100_000)] = 500  # Streams that it admits.
    slots_reserve: Annotated[int, Meta(ge=0, le=100_000)] = 0  # Of these, kept for partners.
    # Streams beyond the slots, without a ladder, where a rule asks for it. None: a tenth of slots.
    slots_source_only: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    domain: Annotated[str, Meta(max_length=64)] = ""  # Failure domain, such as a rack or a site.
    packager: PackagerConfig = PackagerConfig()
    # As the PoPs' `[playback.hls]`: what one that comes late lists of a stream,
    playlist_s: Annotated[float, Meta(ge=12, le=21_600)] = 30.0
    # what it can have beyond that,
    retention_s: Annotated[float, Meta(ge=0)] = 90.0
    # and how much of that stays in memory.
    payload_bytes_max: Annotated[int, Meta(ge=2**20)] = 256 * 2**20
    cache: CacheConfig = CacheConfig()
    ladder: LadderConfig | None = None  # Without it streams are not encoded again.
    tls: TlsFiles | None = None  # This origin's identity; needed unless all peers are on loopback.

    def __post_init__(self) -> None:
        """The reserve is part of the slots."""
        if self.slots_reserve > self.slots:
            raise ValueError(f"slots_reserve {self.slots_reserve} exceeds slots {self.slots}")

    @property
    def source_only_max(self) -> int:
        """How many streams are taken beyond the slots."""
        return self.slots // 10 if self.slots_source_only is None else self.slots_source_only

    def window_limits(self) -> WindowLimits:
        """How much is held of a stream."""
        return WindowLimits(
            playlist_s=self.playlist_s,
            retention_s=self.retention_s,
            payload_bytes_max=self.payload_bytes_max,
        )


def _nothing() -> None:
    pass


class _Packaged:
    """One stream here: its packager and its window."""

    def __init__(self, stream: LiveStream, packager: Packager, held: HeldStream) -> None:
        self.stream = stream
        self.packager = packager
        self.held = held
        self.window = held.window
        self.unwatch: Callable[[], None] = _nothing
        self.ladder: Ladder | None = None
        self.offers_sound_alone = False
        self.held_end: StreamEnded | None = None  # Until its rungs have ended, too.
        self.is_closed = False  # It is here only for that.
        self.events = 0
        self.events_told = 0
        self.oldest_told: dict[str, int] = {}  # By rendition: the MSN of what is held.


class OriginStatistics(Struct, frozen=True, kw_only=True):
    """What is packaged here."""

    streams: int
    slots_total: int
    slots_used: int
    source_only: int  # Streams without a slot.
    preempted_total: int  # Streams that gave way to one of a higher class.
    parts_total: int
    window_bytes: int  # In memory,
    stored_bytes: int  # and on disk.
    ended: int  # Streams that have ended, of which something is kept.
    spilled_total: int  # Segments brought to disk,
    dropped_total: int  # dropped for want of room,
    lost_total: int  # and not to be read.
    evicted_early_total: int  # Dropped as their stream had reached payload_bytes_max.
    disk_usable: bool
    disk_failures_total: int
    ladders: int  # That are made.
    ladder_restarts_total: int
    rungs_shed: int
    ladder_slots: SlotCounts | None  # None: no ladders are made here.


class OriginService:
    """All streams of an origin. All of it is synchronous."""

    def __init__(
        self,
        config: OriginConfig,
        *,
        publish: Callable[[StreamId, PackagedEvent], None],
        packaged: Callable[[StreamId, Progress], None],
        failed: Callable[[StreamId, str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`publish` pushes an event to the PoPs, `packaged` acknowledges, `failed` gives up."""
        self._config = config
        self._now = now
        directory = config.cache.directory
        self.disk = None if directory is None else SegmentStore(directory, now=now)
        self.cache = SegmentCache(
            config.cache.limits(),
            self._held,
            now=now,
            store=self.disk,
            became_full=_became_full,
        )
        self._ended: dict[StreamId, HeldStream] = {}
        self._left: dict[str, tuple[StreamId, float]] = {}  # Runs that are to go on elsewhere.
        self._evicted_early = 0  # Of streams that are gone.
        self._publish, self._packaged, self._failed = publish, packaged, failed
        self._streams: dict[str, _Packaged] = {}
        self._parts = 0
        self.slots = Slots(config.slots, config.slots_reserve, config.source_only_max)
        ladder = config.ladder
        self.ladders = None if ladder is None else Ladders(ladder.slots, encoder=ladder.encoder)

    def reconfigure(self, config: OriginConfig) -> None:
        """Have other slots at once, and other parts for streams from now on.

        More or less is kept of each stream from its next part on.
        """
        self._config = config
        self.cache.limit(config.cache.limits())
        for held, _ in self._held():
            held.window.limits = config.window_limits()
        self.slots.resize(config.slots, config.slots_reserve, config.source_only_max)
        self._promote()

    async def run(self) -> None:
        """Hold the disk, if there is one, and let go of what has ended, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self.disk is not None:
                nursery.start_soon(self.disk.run)
            while True:
                await trio.sleep(SWEEP_INTERVAL_S)
                self.sweep()

    def admit(
        self,
        stream_id: StreamId,
        grant: Grant,
        tracks: list[Track],
        terms: Terms = PLAIN_TERMS,
    ) -> StreamId | None:
        """Let a stream in, or raise `PublishRefusedError`.

        Returns the stream that has to give way to it, if one has: the caller ends that.
        """
        del tracks  # The plug-ins let in only what the packager can carry.
        return self.slots.take(stream_id, grant.priority, terms)

    def open(self, stream: LiveStream, splice: bytes = b"") -> None:
        """Begin to package a stream, or go on where another origin stopped (`Progress.splice`).

        Raises RemoteProtocolError if the splice cannot be read.
        """
        figures, problem = choose_latency(self._config.packager, stream.grant.latency)
        if problem:
            logger.warning("unknown latency class", channel=stream.channel, why=problem)
        packager = Packager(
            stream,
            figures,
            lambda event: self._event(entry, event),
            splice=splice,
        )
        older = self._streams.get(stream.channel)
        if older is not None:
            self._finish(older, "a newer publication or epoch is here")
            self._end(older)
            self._leave(older)
        held = HeldStream(stream.stream_id, self._config.window_limits(), self.cache)
        entry = _Packaged(stream, packager, held)
        if self.ladders is not None and self._config.ladder is not None:
            entry.offers_sound_alone = self._config.ladder.offers_sound_alone(stream.grant.priority)
            entry.ladder = ladder = Ladder(
                stream,
                self._config.ladder,
                packager.config,
                lambda event: self._event(entry, event),
                self.ladders,
            )
            packager.on_segment_start(ladder.begin_segment)
            self.ladders.begin(ladder, held=self.slots.is_source_only(stream.channel))
        entry.unwatch = stream.watch(lambda _: self._wake(entry))
        self._streams[stream.channel] = entry
        self._left.pop(stream.channel, None)
        logger.info(
            "stream opened",
            channel=stream.channel,
            publication=f"{stream.stream_id.publication:x}",
            priority=stream.grant.priority.label,
            source_only=self.slots.is_source_only(stream.channel) or None,
            latency=describe_latency(packager.config),
        )

    def close(self, stream: LiveStream, reason: str) -> None:
        """The stream left: end its playlists and give its slot back."""
        self.slots.give_back(stream.stream_id)
        self._promote()
        entry = self._streams.get(stream.channel)
        if entry is not None and entry.stream is stream:
            self._finish(entry, reason)
            entry.is_closed = True
            if stream.goes_on:
                self._left[stream.channel] = (stream.stream_id, self._now())
            if entry.held_end is None:
                del self._streams[stream.channel]
                self._leave(entry)

    def replay(
        self, channel: str, *, lists: bool = False, cold: bool = False
    ) -> tuple[StreamId, list[PackagedEvent]] | None:
        """What a late subscriber gets first, as `window_replay`; None when nothing is packaged."""
        entry = self._streams.get(channel)
        if entry is None:
            return None
        events = make_replay(entry.window, lists=lists, cold=cold)
        return (entry.stream.stream_id, events) if events else None

    def give_segment(self, stream_id: StreamId, rendition: str, msn: int, given: Given) -> None:
        """Have `given` called with a whole segment, or with the code of why there is none."""
        entry, which = self._streams.get(stream_id.channel), _run_of(stream_id)
        held = self._ended.get(stream_id)
        if entry is not None and _run_of(entry.stream.stream_id) == which:
            held = entry.held
        if held is None or not held.has(rendition, msn):
            # A run that comes back, or goes on under another epoch, begins behind what it left.
            left = [one for known, one in self._ended.items() if _run_of(known) == which]
            held = next((one for one in reversed(left) if one.has(rendition, msn)), held)
        if held is None:
            given(GONE)
        else:
            held.give(rendition, msn, given)

    def sweep(self) -> None:
        """Let go of streams that ended long enough ago, and end what went on nowhere."""
        for channel, (stream_id, left_at) in list(self._left.items()):
            if self._now() - left_at >= FOLLOWED_S_MAX:
                del self._left[channel]
                self._publish(stream_id, StreamEnded(reason="it has left this origin"))
        kept_s, now = max(ENDED_KEPT_S, self._config.playlist_s), self._now()
        for key, held in list(self._ended.items()):
            assert held.ended_at is not None, "it has ended"
            if now - held.ended_at >= kept_s or len(self._ended) > ENDED_MAX:
                del self._ended[key]
                self._let_go(held)

    def latency(self, channel: str) -> str:
        """How a stream is cut here, in plain words; empty for one that is not packaged."""
        entry = self._streams.get(channel)
        return "" if entry is None else describe_latency(entry.packager.config)

    def has_parts(self, channel: str) -> bool:
        """Whether viewers are told of a stream's parts."""
        entry = self._streams.get(channel)
        return entry is None or entry.packager.config.latency.parts

    def free(self) -> tuple[int, int, int]:
        """Free slots by class, for the heartbeat."""
        free = [self.slots.free(priority) for priority in PriorityClass]
        return (free[0], free[1], free[2])

    def ladder_free(self) -> ByClass | None:
        """Slots that a new ladder of each class could have; None: no ladders are made here."""
        config = self._config.ladder
        if self.ladders is None or config is None:
            return None
        first, second, third = (
            free if priority.label in config.classes else 0
            for priority, free in zip(PriorityClass, self.ladders.free(), strict=True)
        )
        return (first, second, third)

    def ladder_cost(self) -> int:
        """Slots that a usual ladder takes; 0: none are made here."""
        config = self._config.ladder
        return 0 if self.ladders is None or config is None else self.ladders.usual_cost(config)

    def ladder(self, channel: str) -> LadderSeen | None:
        """How a channel's ladder fares; None if it has none here."""
        entry = self._streams.get(channel)
        if self.ladders is None or entry is None or entry.ladder is None:
            return None
        return self.ladders.describe(entry.ladder)

    def statistics(self) -> OriginStatistics:
        """What is packaged here."""
        known = self.ladders
        ladders = [] if known is None else [each.statistics() for each in known.running]
        restarts = 0 if known is None else known.restarts_total
        counts = None if known is None else known.counts()
        cached = self.cache.statistics()
        return OriginStatistics(
            ladders=0 if counts is None else counts.holding,
            ladder_restarts_total=restarts + sum(each.restarts for each in ladders),
            rungs_shed=sum(len(each.shed) for each in ladders),
            ladder_slots=counts,
            streams=len(self._streams),
            slots_total=self.slots.total,
            slots_used=self.slots.used,
            source_only=self.slots.used_beyond,
            preempted_total=self.slots.preempted_total,
            parts_total=self._parts,
            ended=len(self._ended),
            disk_failures_total=0 if self.disk is None else self.disk.failures,
            evicted_early_total=self._evicted_early
            + sum(each.window.segments_evicted_early for each, _ in self._held()),
            window_bytes=cached.memory_bytes,
            stored_bytes=cached.stored_bytes,
            disk_usable=cached.disk_usable,
            spilled_total=self.cache.counters.spilled,
            dropped_total=self.cache.counters.dropped,
            lost_total=self.cache.counters.lost,
        )

    def _promote(self) -> None:
        """Streams without a slot get what is free, and their ladders with it."""
        for stream_id in self.slots.promote():
            entry = self._streams.get(stream_id.channel)
            logger.info("stream has a slot now", channel=stream_id.channel)
            if self.ladders is not None and entry is not None and entry.ladder is not None:
                self.ladders.release(entry.ladder)

    def _held(self) -> Iterator[tuple[HeldStream, bool]]:
        """All that is held, for the cache: what has ended goes before what is live."""
        for entry in self._streams.values():
            yield entry.held, True
        for held in self._ended.values():
            yield held, False

    def _leave(self, entry: _Packaged) -> None:
        """A stream is no longer packaged here; PoPs may still ask for what it was."""
        held, stream_id = entry.held, entry.stream.stream_id
        if not held.window.renditions:
            self._let_go(held)
            return
        held.ended_at = self._now()
        older = self._ended.pop(stream_id, None)
        self._ended[stream_id] = held
        if older is not None:
            self._let_go(older)
        known = [known for known in self._ended if known.channel == stream_id.channel]
        for oldest in known[:-ENDED_RUNS_MAX]:
            self._let_go(self._ended.pop(oldest))
        self.sweep()

    def _let_go(self, held: HeldStream) -> None:
        self._evicted_early += held.window.segments_evicted_early
        self.cache.gone(held)
        held.abandon()

    def _wake(self, entry: _Packaged) -> None:
        stream_id = entry.stream.stream_id
        try:
            entry.packager.wake()
            if entry.events != entry.events_told:
                entry.events_told = entry.events
                self._packaged(stream_id, entry.packager.progress())
        except Exception as error:  # A bug that this stream meets ends this stream only.
            logger.exception("packager failed", channel=stream_id.channel)
            entry.unwatch()
            self._failed(stream_id, f"internal error: {error!r}")
            return
        if entry.packager.failed is not None:
            self._failed(stream_id, entry.packager.failed)

    def _event(self, entry: _Packaged, event: PackagedEvent) -> None:
        if isinstance(event, StreamEnded) and entry.ladder is not None:
            entry.held_end = event  # The rungs' last parts come before that.
            if entry.stream.ended is None:
                self._end(entry)
            else:
                entry.ladder.drain(lambda: self._end(entry))
            return
        if isinstance(event, Rendition) and entry.offers_sound_alone:
            event = structs.replace(event, alone=event.kind is Kind.AUDIO)
        entry.events += 1
        self._parts += isinstance(event, Part)
        try:
            entry.window.add(event)
        except RemoteProtocolError as error:  # Our own segmenter's event: a bug, told as one.
            logger.exception("window refused an event", channel=entry.stream.channel)
            raise AssertionError(str(error)) from error
        self.cache.changed(entry.held)
        self._publish(entry.stream.stream_id, event)
        if isinstance(event, SegmentEnded):
            self._tell_oldest(entry, event.rendition)

    def _tell_oldest(self, entry: _Packaged, rendition: str) -> None:
        """Have PoPs list no more what is no longer held here, for want of room perhaps."""
        oldest_msn = next(iter(entry.window.renditions[rendition].segments), 0)
        if entry.oldest_told.setdefault(rendition, oldest_msn) != oldest_msn:
            entry.oldest_told[rendition] = oldest_msn
            event = SegmentsListed(rendition=rendition, oldest_msn=oldest_msn)
            self._publish(entry.stream.stream_id, event)

    def _end(self, entry: _Packaged) -> None:
        """All rungs have ended, or have had their time."""
        event, entry.held_end = entry.held_end, None
        if event is None:
            return
        if entry.ladder is not None:
            entry.ladder.end()
            entry.ladder = None
        self._event(entry, event)
        if entry.is_closed and self._streams.get(entry.stream.channel) is entry:
            del self._streams[entry.stream.channel]
            self._leave(entry)

    def _finish(self, entry: _Packaged, reason: str) -> None:
        entry.unwatch()
        entry.unwatch = _nothing  # It refers back to the entry: 30 MiB, if the collector is late.
        try:
            entry.packager.close(reason)
        except Exception:  # What failed in `_wake` may fail again here.
            logger.exception("packager failed to end", channel=entry.stream.channel)
            self._publish(entry.stream.stream_id, StreamEnded(reason=reason))
        if entry.ladder is not None and entry.held_end is None:
            entry.ladder.stop()
            entry.ladder = None


def _became_full(memory_bytes: int, memory_bytes_max: int) -> None:
    logger.warning(
        "cache is full of what cannot go",
        memory_bytes=memory_bytes,
        memory_bytes_max=memory_bytes_max,
    )


def _run_of(stream_id: StreamId) -> tuple[str, int]:
    """What is the same under all its epochs."""
    return stream_id.channel, stream_id.publication
