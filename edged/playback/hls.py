"""LL-HLS from memory: playlists, parts and segments as ready bytes, waiters released in one loop.

    /live/CHANNEL/master.m3u8             the multivariant playlist
    /live/CHANNEL/PUB/NAME.m3u8           a media playlist; blocks on _HLS_msn, _HLS_part
    /live/CHANNEL/PUB/NAME-DIGEST.mp4     an init segment
    /live/CHANNEL/PUB/NAME-MSN.INDEX.m4s  a part; a request for the hinted next one blocks
    /live/CHANNEL/PUB/NAME-MSN.m4s        a segment
    .../manifest.mpd                      the same as DASH, at both places (see `dash`)

No URL is per viewer and none ever names two byte strings, so a shared cache may stand in front; it
does not keep what is private, as the answers of protected channels are (`rights`).
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import structlog
import trio

from edged.errors import RemoteProtocolError
from edged.media.parts import PackagedEvent, Rendition, SegmentsListed, StreamEnded
from edged.media.stream import StreamId
from edged.playback.config import HlsConfig
from edged.playback.dash import MANIFEST
from edged.playback.edge_cache import EdgeCache
from edged.playback.hls_stream import HlsStream
from edged.playback.http import Release, do_at_once, error_response
from edged.playback.statistics import HlsStatistics
from edged.playback.waiting import Exchange, Waiters
from edged.policy.segment_cache import CacheConfig, FetchAway, Watched
from edged.policy.viewer_count import ViewerCount
from edged.runtime.faults import contained
from edged.wire.prepared import PreparedResponse
from edged.wire.request import RequestReceived

TARGET_DURATION_S = 4  # Assumed for the cache times of what is not here.
# How long a request waits for a run that is not here yet. A multivariant playlist: for two segments
# of 4.4 s, when another rendition is silent, and up to 3 s before the packager starts; hls.js gives
# up after 20 s. Media playlists and parts: for the first parts; hls.js gives up after 10 s.
FIRST_SEGMENT_S_MAX = 12.0
FIRST_PART_S_MAX = 8.0
OLD_STREAMS_MAX = 2  # Ended runs kept of one channel; an encoder that flaps must not fill memory.
# What viewers of an ended run still fetch: its window, and item 20's time. Never less than its
# playlist is long (RFC 8216bis §6.2.2, of the end of a presentation).
ENDED_KEPT_S = 120.0
WATCHED_S = 15.0  # Since the last request; one that blocks lasts 12 s at most.
SWEEP_INTERVAL_S = 5.0
MASTER = "master.m3u8"
REPLAY_HEAD = 4  # Of its events: a rendition, perhaps its init, and what is listed of it.

logger = structlog.get_logger("edged.hls")

NOT_LIVE_WHY = "the channel is not live"
NOT_LIVE = error_response(404, NOT_LIVE_WHY, cache_control="max-age=1")
NO_SUCH_NAME = error_response(
    404, "there is nothing at this address", cache_control=f"max-age={TARGET_DURATION_S}"
)
NO_SUCH_PLAYLIST_BLOCKING = error_response(  # Checklist 33: a blocking playlist's 404, 4 x TD.
    404, "there is no such playlist", cache_control=f"max-age={4 * TARGET_DURATION_S}"
)
NOT_READY_WHY = "the channel has no media here yet"

Refuse = Callable[[str], PreparedResponse]  # From the reason why a stream has not come here.


def refuse_viewer(reason: str) -> PreparedResponse:
    """As players hear of it."""
    return error_response(503, reason, fields=(("Retry-After", "1"),))


NOT_READY = refuse_viewer(NOT_READY_WHY)
FULL_WHY = "this edge holds all the channels that it has memory for"


class Channel:
    """What is known of a channel here: its runs, newest last, and who waits for one."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.streams: dict[str, HlsStream] = {}  # By publication as it stands in URLs.
        self.newest: HlsStream | None = None
        self.waiting: dict[Refuse, Waiters] = {}  # For the multivariant playlist.
        self.arriving: Waiters = {}  # For what is below a run that has yet to come here.
        self.subscribed = self.held = False  # Held: wanted here though nobody may watch it.
        self.asked_at = now
        self.count = ViewerCount(now)

    @property
    def blocked(self) -> int:
        """Requests that wait for a run."""
        return len(self.arriving) + sum(map(len, self.waiting.values()))


class HlsService:
    """All channels that are watched here. Mounted on "/live/"."""

    def __init__(
        self,
        *,
        lookup: Callable[[str], StreamId | None],
        subscribe: Callable[[str], None],
        unsubscribe: Callable[[str], None],
        now: Callable[[], float],
        spread: Callable[[Release], None] = do_at_once,
        config: HlsConfig | None = None,
        cache: CacheConfig | None = None,
        fetch: FetchAway | None = None,
    ) -> None:
        """`lookup` tells which run of a channel is live anywhere, from the directory.

        `subscribe` has the events of a channel's current and later runs given to `window_updated`,
        from a replay on; it is called once until `unsubscribe`, a refusal or the run's end.
        `spread`: the pump's. `fetch` gets a segment that an origin has listed from there.
        """
        self._lookup = lookup
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._now, self._spread = now, spread
        config = config or HlsConfig()
        self._limits, self._unwatched_s = config.window_limits(), config.unwatched_s
        self.cache = EdgeCache(cache or CacheConfig(), self._held, now=now, fetch_away=fetch)
        self._is_private: Callable[[str], bool] = lambda _: False
        self._channels: dict[str, Channel] = {}
        self.hits = 0  # Requests for media that was ready: of them there are most.
        self._released = 0
        self._fenced = self._manifests = 0
        self._past: Counter[str] = Counter()  # The windows' statistics, of those dropped.

    def reconfigure(self, config: HlsConfig) -> None:
        """Keep more or less of each stream from its next part on."""
        self._limits, self._unwatched_s = config.window_limits(), config.unwatched_s
        for channel in self._channels.values():
            for stream in channel.streams.values():
                stream.window.limits = self._limits

    def use_privacy(self, is_private: Callable[[str], bool]) -> None:
        """Have no shared cache keep what these channels are answered with."""
        self._is_private = is_private
        for channel in self._channels.values():
            for stream in channel.streams.values():
                stream.use_privacy(is_private(channel.name))

    async def run(self) -> None:
        """Give back what nobody watches, and hold the disk, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.cache.run)
            while True:
                await trio.sleep(SWEEP_INTERVAL_S)
                self.sweep(self._now())

    def respond(
        self, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        """Answer a request below "/live/", or have it wait."""
        pieces = request.path.split("/")
        channel = self._channels.get(pieces[2])
        if len(pieces) == 5:  # noqa: PLR2004 - "", live, CHANNEL, PUB, NAME
            stream = channel.streams.get(pieces[3]) if channel is not None else None
            if channel is None or stream is None:
                return self._answer_elsewhere(pieces[2], pieces[3], request, exchange, now)
            channel.asked_at = now
            response = stream.ready.get(pieces[4])
            if response is not None:
                self.hits += 1
                return response
            self._manifests += pieces[4] == MANIFEST
            return stream.respond(pieces[4], request, exchange, now, channel.count)
        if len(pieces) == 4 and pieces[3] in (MASTER, MANIFEST):  # noqa: PLR2004 - "", live, CHANNEL, NAME
            return self.respond_master(
                pieces[2],
                exchange,
                now,
                gzip=request.takes_gzip,
                dash=pieces[3] == MANIFEST,
            )
        return NO_SUCH_NAME

    def window_updated(self, stream_id: StreamId, events: Sequence[PackagedEvent]) -> None:
        """Take what the origin pushed, and release everyone who waited for it.

        Raises `RemoteProtocolError` for what no origin of ours would send; what came before counts.
        Events of what was given back, still on their way, are dropped: a run starts with a
        Rendition.
        """
        now = self._now()
        channel = self._channels.get(stream_id.channel)
        stream = self._stream(channel, stream_id, events, now) if channel is not None else None
        if channel is None or stream is None:
            self._fenced += 1
            return
        had_started, was_ready = stream.window.started, stream.window.ready
        try:
            if stream.cut_off:
                had_started = was_ready = False  # Those who wait for it do so since it was cut off.
                stream = self._go_on(channel, stream, events, now)
            else:
                stream.add(events)
        finally:
            self._tell_early(stream)
            self.cache.changed(stream)
            if any(isinstance(event, SegmentsListed) for event in events[:REPLAY_HEAD]):
                stream.prefetch()
            self._released += stream.release(now, channel.count)
            if stream.ended_at is not None and stream is channel.newest:
                channel.subscribed = False
            ended = stream.ended_at is not None
            if ended or (stream.window.started and not had_started):
                arriving, channel.arriving = channel.arriving, {}
                self._retry(arriving, now)
            if ended or (stream.window.ready and not was_ready):
                waiting, channel.waiting = channel.waiting, {}
                for exchanges in waiting.values():
                    self._retry(exchanges, now)

    def channel_unavailable(self, channel: str, reason: str) -> None:
        """The subscription was refused or lost for good; those who wait for media hear why.

        The run ends here. It, or a newer one, is subscribed to when someone opens the channel.
        """
        entry = self._channels.get(channel)
        if entry is None:
            return
        logger.info("channel unavailable", channel=channel, why=reason)
        entry.subscribed = False
        waiting, arriving = entry.waiting, entry.arriving
        entry.waiting, entry.arriving = {}, {}
        now = self._now()
        stream = entry.newest
        if stream is not None and stream.ended_at is None:
            stream.end_here(reason)
            self._released += stream.release(now, entry.count)
        for refuse, exchanges in (*waiting.items(), (refuse_viewer, arriving)):
            response = refuse(reason.replace("\n", " ")[:200])
            for exchange in exchanges:
                exchange.answer(response, now)

    def viewers(self, channel: str) -> int:
        """How many players watch the channel here, as `ViewerCount` estimates it."""
        entry = self._channels.get(channel)
        return entry.count.viewers(self._now()) if entry is not None else 0

    def renditions(self, channel: str) -> list[Rendition]:
        """What a channel's run that is live here consists of; nothing when it is not watched."""
        entry = self._channels.get(channel)
        stream = entry.newest if entry is not None else None
        if stream is None or stream.ended_at is not None:
            return []
        return [window.rendition for window in stream.window.renditions.values()]

    def hold(self, name: str) -> str:
        """Have a channel come here, and stay, before anybody asks; returns why it does not."""
        channel = self._channels.get(name)
        if channel is None or not channel.subscribed:
            newest = None if channel is None else channel.newest
            if self._coming_run(name, newest) is None or self._is_too_much(name):
                return FULL_WHY if self._is_too_much(name) else NOT_LIVE_WHY
        if channel is None:
            channel = self._channels[name] = Channel(name, self._now())
            channel.asked_at = -math.inf  # What is watched has precedence in memory.
        channel.held = True
        self._ensure_subscribed(channel)
        return ""

    def let_go(self, name: str) -> None:
        """It may go when nobody has watched it for a while."""
        if (channel := self._channels.get(name)) is not None:
            channel.held = False

    @property
    def channels(self) -> dict[str, Channel]:
        """All that are known here, by name."""
        return self._channels

    def watched(self) -> list[str]:
        """The channels that are held here."""
        return [name for name, channel in self._channels.items() if channel.newest is not None]

    def statistics(self) -> HlsStatistics:
        """What is held, and counters."""
        streams = [s for channel in self._channels.values() for s in channel.streams.values()]
        waiting = sum(channel.blocked for channel in self._channels.values())
        windows = Counter(self._past)
        for stream in streams:
            windows.update(msgspec.structs.asdict(stream.window.statistics()))
        return HlsStatistics(
            channels=len(self._channels),
            streams=len(streams),
            payload_bytes=sum(stream.window.payload_bytes for stream in streams),
            blocked=waiting + sum(stream.blocked for stream in streams),
            released_total=self._released,
            fenced_total=self._fenced,
            parts_refused_total=windows["parts_refused"],
            parts_missing_total=windows["parts_missing"],
            segments_missing_total=windows["segments_missing"],
            segments_lost_total=windows["segments_lost"],
            segments_evicted_early_total=windows["segments_evicted_early"],
            segments_evicted_needed_total=windows["segments_evicted_needed"],
            manifests_total=self._manifests,
        )

    def sweep(self, now: float) -> None:
        """Drop ended runs that were kept long enough; give back what nobody watches."""
        for channel in list(self._channels.values()):
            with contained(logger, "channel not swept", channel=channel.name):
                self._sweep(channel, now)

    def _sweep(self, channel: Channel, now: float) -> None:
        kept_s = max(ENDED_KEPT_S, self._limits.playlist_s)
        for pub, stream in list(channel.streams.items()):
            if stream.ended_at is not None and now - stream.ended_at >= kept_s:
                self._drop(channel, pub)
        unwatched = now - channel.asked_at >= self._unwatched_s and not channel.held
        if not unwatched or channel.blocked or any(s.blocked for s in channel.streams.values()):
            return
        if channel.subscribed:
            channel.subscribed = False
            self._unsubscribe(channel.name)
            logger.info("channel no longer watched here", channel=channel.name)
        for pub in [pub for pub, s in channel.streams.items() if s.ended_at is None]:
            self._drop(channel, pub)
        if not channel.streams:
            del self._channels[channel.name]

    def respond_master(
        self,
        name: str,
        exchange: Exchange,
        now: float,
        *,
        base: str = "",
        gzip: bool = False,
        dash: bool = False,
        refuse: Refuse | None = None,
    ) -> PreparedResponse | None:
        """Answer with the multivariant playlist, its URIs behind `base`, or have who asks wait.

        `dash`: with the manifest instead. `refuse` makes the answer when it does not come, of the
        reason.
        """
        channel = self._channels.get(name)
        stream = channel.newest if channel is not None else None
        if self._coming_run(name, stream) is None:
            if stream is None or stream.ended_at is not None:
                return NOT_LIVE
            if dash:
                self._manifests += 1
                response = stream.manifest(f"{base}{stream.window.prefix}/", gzip=gzip)
            else:
                response = stream.multivariant(base, gzip=gzip)
            if response is not None:
                self._channel(name, now)
                return response
        if self._is_too_much(name):
            return (refuse or refuse_viewer)(FULL_WHY)
        channel = self._channel(name, now)
        expired = NOT_READY if refuse is None else refuse(NOT_READY_WHY)
        waiting = channel.waiting.setdefault(refuse or refuse_viewer, {})
        exchange.wait(waiting, now + FIRST_SEGMENT_S_MAX, expired)
        self._ensure_subscribed(channel)
        return None

    def _answer_elsewhere(
        self, name: str, pub: str, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        """A run that is not here: it may be live elsewhere, as when a viewer changed PoPs."""
        channel = self._channels.get(name)
        live = self._coming_run(name, channel.newest if channel is not None else None)
        if live is not None and f"{live.publication:x}" == pub:
            if self._is_too_much(name):
                return refuse_viewer(FULL_WHY)
            channel = self._channel(name, now)
            exchange.wait(channel.arriving, now + FIRST_PART_S_MAX, NOT_READY)
            self._ensure_subscribed(channel)
            return None
        if request.path.endswith(".m3u8") and "_HLS_msn=" in request.query:
            return NO_SUCH_PLAYLIST_BLOCKING
        return NO_SUCH_NAME

    def _coming_run(self, name: str, newest: HlsStream | None) -> StreamId | None:
        """The run that is live elsewhere and will come here if asked for: a newer one, or again."""
        live = self._lookup(name)
        if live is None or newest is None:
            return live
        known = newest.window.stream_id.publication
        again = newest.cut_off and live.publication == known
        return live if again or live.publication > known else None

    def _ensure_subscribed(self, channel: Channel) -> None:
        """Have the channel come here; whoever asked waits already, as it may come at once."""
        if not channel.subscribed:
            channel.subscribed = True
            logger.info("channel watched here", channel=channel.name)
            self._subscribe(channel.name)

    def _is_too_much(self, name: str) -> bool:
        """Whether there is no memory for a channel that is not here."""
        return name not in self._channels and self.cache.is_full

    def _held(self) -> Watched:
        """All runs, for the cache."""
        now = self._now()
        for channel in self._channels.values():
            blocked = channel.blocked or any(s.blocked for s in channel.streams.values())
            watched = bool(blocked) or now - channel.asked_at < WATCHED_S
            for stream in channel.streams.values():
                yield stream, watched

    def _retry(self, waiting: Waiters, now: float) -> None:
        """Ask again for those who waited for a run: it is here, or never will be."""
        self._released += len(waiting)
        for exchange in waiting:
            exchange.retry(now)

    def _channel(self, name: str, now: float) -> Channel:
        """The channel that was asked for, known from now on."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, now)
        channel.asked_at = now
        return channel

    def _stream(
        self, channel: Channel, stream_id: StreamId, events: Sequence[PackagedEvent], now: float
    ) -> HlsStream | None:
        """The run that these events belong to; None when they are outdated."""
        newest = channel.newest
        begins = bool(events) and isinstance(events[0], Rendition)
        if newest is not None:
            known = newest.window.stream_id
            if stream_id < known:
                return None
            if stream_id.publication == known.publication:
                if not newest.cut_off:
                    newest.window.stream_id = stream_id
                    return newest
                if not channel.subscribed:
                    return None  # The last of the subscription that was lost.
                if stream_id == known and begins:
                    return newest
        return self._begin(channel, stream_id, now) if begins else None

    def _begin(self, channel: Channel, stream_id: StreamId, now: float) -> HlsStream:
        """A new run, or one that was cut off and can't go on with what it held."""
        newest = channel.newest
        if newest is not None and newest.ended_at is None:
            newest.add([StreamEnded(reason="superseded by a newer publication")])
            self._released += newest.release(now, channel.count)
        stream = HlsStream(
            stream_id, self._limits, now=self._now, spread=self._spread, cache=self.cache
        )
        stream.use_privacy(self._is_private(channel.name))
        if stream.window.prefix in channel.streams:
            self._drop(channel, stream.window.prefix)
        channel.newest = channel.streams[stream.window.prefix] = stream
        for pub in list(channel.streams)[: -OLD_STREAMS_MAX - 1]:
            self._drop(channel, pub)
        logger.info("stream served here", channel=channel.name, publication=stream.window.prefix)
        self._ensure_subscribed(channel)  # Right behind another's end it is not, as we know it.
        return stream

    def _go_on(
        self, channel: Channel, stream: HlsStream, replay: Sequence[PackagedEvent], now: float
    ) -> HlsStream:
        """Have a run that was cut off go on with what it held; anew if the replay contradicts."""
        logger.info("stream goes on here", channel=channel.name, publication=stream.window.prefix)
        stream.reopen()
        try:
            stream.add(replay)
        except RemoteProtocolError as error:
            logger.warning("stream begins anew", channel=channel.name, why=str(error))
            stream = self._begin(channel, stream.window.stream_id, now)
            stream.add(replay)
        return stream

    def _tell_early(self, stream: HlsStream) -> None:
        """Say once a run that its bytes do not suffice for what is to be kept."""
        window = stream.window
        if stream.told_early or not window.segments_evicted_early:
            return
        stream.told_early = True
        logger.warning(
            "media dropped early",
            channel=window.stream_id.channel,
            publication=window.prefix,
            payload_bytes_max=self._limits.payload_bytes_max,
            kept_s=min(w.kept_us for w in window.renditions.values()) / 1e6,
            retention_s=self._limits.retention_s,
            needed_s=max(map(window.needed_us, window.renditions.values())) / 1e6,
        )

    def _drop(self, channel: Channel, pub: str) -> None:
        stream = channel.streams.pop(pub)
        if channel.newest is stream:
            channel.newest = None
        self._past.update(msgspec.structs.asdict(stream.window.statistics()))
        stream.abandon(self._now())
        self.cache.gone(stream)
        logger.info("stream dropped here", channel=channel.name, publication=pub)
