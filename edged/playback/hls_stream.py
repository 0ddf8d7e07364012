"""One run of a channel at the edge: its window, the bytes made from it, and who waits for more."""

from collections.abc import Callable, Sequence

from edged.errors import RemoteProtocolError
from edged.media.parts import InitSegment, PackagedEvent, Part, StreamEnded
from edged.media.playlist import media_numbers, segment_name
from edged.media.stream import StreamId
from edged.media.track import Kind
from edged.playback.dash import MANIFEST, MANIFEST_TYPE, DashManifests
from edged.playback.edge_cache import EdgeCache
from edged.playback.http import (
    CORS,
    RESPONSE_BYTES_MAX,
    Release,
    do_at_once,
    error_response,
    too_large,
)
from edged.playback.playlist import (
    GZIPPED,
    POLLED,
    POLLED_GZIP,
    VARIES,
    Form,
    Multivariants,
    Playlist,
    entity_tag,
)
from edged.playback.waiting import Exchange, Waiters
from edged.policy.blocking_reload import (
    BLOCK_TARGETS_MAX,
    NO_DIRECTIVES,
    choose_answer,
    parse_directives,
)
from edged.policy.delivery_directives import PlaylistEdge, Reject, ReloadDirectives, Wait
from edged.policy.segment_cache import CacheConfig
from edged.policy.viewer_count import ViewerCount
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.wire.prepared import PreparedResponse, prepare
from edged.wire.request import RequestReceived

PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
MEDIA_TYPES = {Kind.VIDEO: "video/mp4", Kind.AUDIO: "audio/mp4", Kind.DATA: "application/mp4"}
KEEP_TARGETS = 6  # x target duration: cache time of what never changes (RFC 8216bis, Appendix C).
MISSING_BLOCKING_TARGETS = 4  # The same, of a blocking playlist's 404.
# And of what is private: a browser, too, asks again for who shows another token, or none.
VARIES_BY_VIEWER = "Authorization, Cookie"
MEDIA_ETAG = '"1"'  # Each address has one byte string for ever.
RANGES = (("Accept-Ranges", "bytes"),)
READ_S_MAX = 8.0  # From disk or the origin; hls.js asks again after 10 s.
SOON = (("Retry-After", "1"),)
TOO_MUCH_READ = error_response(503, "too much is being read or fetched", fields=SOON)
NOT_READ = error_response(503, f"it took longer than {READ_S_MAX:g} s to get it")
NOT_FETCHED = error_response(503, "the origin cannot be asked now", fields=SOON)


class HlsStream:
    """One run of a channel."""

    def __init__(
        self,
        stream_id: StreamId,
        limits: WindowLimits,
        *,
        now: Callable[[], float],
        spread: Callable[[Release], None] = do_at_once,
        cache: EdgeCache | None = None,
    ) -> None:
        """`spread` has a release done, over as many turns of the pump as it takes."""
        self.cache = cache or EdgeCache(CacheConfig(), list, now=now)
        self.folder = self.cache.folder()  # What of it is on disk.
        self.known_to_cache = True  # Until it is let go.
        self.leaving_bytes = 0  # On their way to the disk.
        self.window = StreamWindow(stream_id, limits)
        self.ready: dict[str, PreparedResponse] = {}  # Parts, segments, inits: by name, made once.
        self.ended_at: float | None = None
        self.cut_off = self._private = False  # See `end_here` and `use_privacy`.
        self.told_early = False  # The service's note: what its window dropped early is in the log.
        self._now, self._spread = now, spread
        self.playlists: dict[str, Playlist] = {}
        self._part_waiters: dict[str, Waiters] = {}  # By the name that a playlist hints at.
        self._read_waiters: dict[str, Waiters] = {}  # By the name of what is read or fetched.
        self._multivariants = Multivariants(self.window)
        self._manifests = DashManifests(self.window)

    @property
    def blocked(self) -> int:
        """Requests that wait here."""
        waiting = sum(map(len, (*self._part_waiters.values(), *self._read_waiters.values())))
        return waiting + sum(playlist.blocked for playlist in self.playlists.values())

    @property
    def target_duration_s(self) -> int:
        """TARGETDURATION, which all renditions share."""
        windows = self.window.renditions.values()
        return max((window.rendition.target_duration_s for window in windows), default=1)

    def add(self, events: Sequence[PackagedEvent]) -> None:
        """Take events and drop what they push out; raises `RemoteProtocolError` for absurd ones."""
        window = self.window
        for event in events:
            changed = window.add(event)
            if changed and isinstance(event, InitSegment):
                self._drop_inits(self._playlist(event.rendition))
            if changed and isinstance(event, Part | InitSegment):
                self.cache.counters.fetched_origin += 1
        self.tidy()
        if window.ended is not None and self.ended_at is None:
            self.ended_at = self._now()

    def tidy(self) -> None:
        """Let go of what was made of segments that the window has dropped."""
        for name in self.window.renditions:
            self._drop_evicted(self._playlist(name))

    def forget(self, rendition: str, msn: int) -> None:
        """Let go of what was made of a segment, as its media is to leave memory."""
        for name in self._playlist(rendition).names.pop(msn, ()):
            self.ready.pop(name, None)

    def prefetch(self) -> None:
        """Have what is away come here of a playlist of the least length: its origin may be lost."""
        for rendition, msn in self.window.away_needed():
            self._fetch(rendition, msn)

    def fetched(self, rendition: str, msn: int, data: bytes | None) -> bool:
        """A segment came, or it is lost; returns whether it is kept for who asks next."""
        name = segment_name(rendition, msn)
        kept = data is not None and msn in self.window.renditions[rendition].segments
        response = self._missing() if data is None else self._prepare_media([data], rendition)
        if kept:
            self.ready[name] = response
            self._playlist(rendition).names.setdefault(msn, []).append(name)
        self._spread(Release(self._read_waiters.pop(name, {}), response, self._now))
        return kept

    def not_fetched(self, rendition: str, msn: int) -> None:
        """A segment did not come from its origin this time."""
        waiting = self._read_waiters.pop(segment_name(rendition, msn), {})
        self._spread(Release(waiting, NOT_FETCHED, self._now))

    def reopen(self) -> None:
        """Go on with a run that ended here only: a replay of it comes next.

        What it held stays, for those who have its names. What was made of it is made again, as that
        was not for caches, and its last segment will be longer.
        """
        self.cut_off = False
        self.ended_at = None
        self.window.reopen()
        self._forget_made()

    def use_privacy(self, private: bool) -> None:
        """Whether shared caches are to leave it alone."""
        if private != self._private:
            self._private = private
            self._forget_made()

    def _forget_made(self) -> None:
        """Have all responses made anew."""
        self.ready.clear()
        self._multivariants.forget_made()
        self._manifests.forget()
        for playlist in self.playlists.values():
            playlist.names.clear()
            playlist.init_names.clear()
            playlist.forget_made()

    def end_here(self, reason: str) -> None:
        """Nothing more of the run comes here, though it may go on elsewhere.

        What is made from now on is not for caches: the last segment is cut short.
        """
        self.cut_off = True
        self.add([StreamEnded(reason=reason)])

    def release(self, now: float, count: ViewerCount) -> int:
        """Answer everyone whose wait is over; returns how many."""
        released = 0
        main = self.window.main
        for name, playlist in list(self.playlists.items()):
            if playlist.first and (playlist.window.shown or self.ended_at is not None):
                first, playlist.first = playlist.first, {}
                released += len(first)
                for exchange in first:
                    exchange.retry(now)
            if not playlist.waiting:
                continue
            answered = self._release_playlist(playlist)
            released += answered
            if answered and name in main:
                count.note_released(answered, now, name)
        for name in list(self._part_waiters):
            response = self._make(name)
            if response is None and not self.window.is_hinted(name):
                response = self._no_media(name)  # An abandoned hint.
            if response is not None:
                waiters = self._part_waiters.pop(name)
                released += len(waiters)
                self._spread(Release(waiters, response, self._now))
        return released

    def abandon(self, now: float) -> None:
        """Answer everyone who still waits: nothing more will come."""
        groups = [*self._part_waiters.values(), *self._read_waiters.values()]
        for playlist in self.playlists.values():
            groups += [playlist.first, *playlist.waiting.values()]
            playlist.first, playlist.waiting = {}, {}
        self._part_waiters, self._read_waiters = {}, {}
        response = self._missing()
        for group in groups:
            for exchange in group:
                exchange.answer(response, now)

    def multivariant(self, base: str = "", *, gzip: bool = False) -> PreparedResponse | None:
        """The multivariant playlist; None until every rendition is there to be named.

        Its URIs begin with `base`, for who serves it at another address.
        """
        return self._multivariants.respond(self._prepare_playlist, base=base, gzip=gzip)

    def manifest(self, base: str = "", *, gzip: bool = False) -> PreparedResponse | None:
        """The DASH manifest, as `multivariant`; None as well while nothing but gaps has come."""
        return self._manifests.respond(self._prepare_manifest, base=base, gzip=gzip)

    def respond(
        self,
        name: str,
        request: RequestReceived,
        exchange: Exchange,
        now: float,
        count: ViewerCount,
    ) -> PreparedResponse | None:
        """Answer a request for what is not in `ready`, or have it wait."""
        if name.endswith(".m3u8"):
            return self._answer_playlist(name[: -len(".m3u8")], request, exchange, now, count)
        if name == MANIFEST:
            exchange.polled = count.note_poll(exchange.polled, now)
            return self.manifest(gzip=request.takes_gzip) or self._missing(0)
        response, counters = self._make(name), self.cache.counters
        if response is not None:
            counters.hits += 1
            return response
        if self.window.is_hinted(name):
            # RFC 8216bis §6.2.6: a request for a hinted part is answered when all of it is there.
            self._count_waiting(bool(self._part_waiters.setdefault(name, {})))
            exchange.wait(self._part_waiters[name], self._until(now), self._too_long())
            return None
        return self._answer_stored(name, exchange, now, count)

    def _answer_stored(
        self, name: str, exchange: Exchange, now: float, count: ViewerCount
    ) -> PreparedResponse | None:
        """Have who asks for what is on disk, or away, wait for it: got once for all who do."""
        rendition, where = name.partition("-")[0], media_numbers(name)
        if where is None or where[1] is not None:
            return self._no_media(name)
        size = self.window.elsewhere_bytes_of(rendition, where[0])
        if size is None:
            return self._no_media(name)
        if size > RESPONSE_BYTES_MAX:
            return too_large(name, RESPONSE_BYTES_MAX)
        count.note_asked(rendition, now)
        others = name in self._read_waiters
        if not self._fetch(rendition, where[0]):
            return TOO_MUCH_READ
        self._count_waiting(others)
        waiting = self._read_waiters.get(name)
        if waiting is None:
            return self.ready.get(name) or self._missing()  # It is known already.
        exchange.wait(waiting, now + READ_S_MAX, NOT_READ)
        return None

    def _fetch(self, rendition: str, msn: int) -> bool:
        """Have a segment come from disk or from its origin, unless it does; False: not now."""
        name = segment_name(rendition, msn)
        if name in self._read_waiters:
            return True
        self._read_waiters[name] = {}
        away = self.window.away_bytes_of(rendition, msn) is not None
        if (self.cache.fetch_away if away else self.cache.fetch)(self, rendition, msn):
            return True
        del self._read_waiters[name]
        return False

    def _count_waiting(self, others: bool) -> None:
        """Of those who wait for the same the first is a miss."""
        counters = self.cache.counters
        counters.collapsed += others
        counters.misses += not others

    def _answer_playlist(
        self,
        name: str,
        request: RequestReceived,
        exchange: Exchange,
        now: float,
        count: ViewerCount,
    ) -> PreparedResponse | None:
        try:
            directives = parse_directives(request.query)
        except RemoteProtocolError as error:
            # Item 33: nothing will ever make it answerable, unlike what is only too far ahead.
            return error_response(
                400, str(error), cache_control=self._cache_control(self.target_duration_s)
            )
        window = self.window.renditions.get(name)
        if window is None or (self.ended_at is not None and not window.shown):
            return self._missing(MISSING_BLOCKING_TARGETS if directives.msn is not None else 1)
        if window.rendition.away:
            return self._missing(0)  # Players change to another variant at once.
        count.note_asked(name, now)
        playlist = self._playlist(name)
        if not window.shown:
            exchange.wait(playlist.first, self._until(now), self._too_long())
            return None
        gzip = request.takes_gzip
        if directives.msn is not None:
            blocking = Form(True, directives.skip, gzip)
            return self._answer_reload(playlist, directives, blocking, exchange, now)
        if name in self.window.main:
            exchange.polled = count.note_poll(exchange.polled, now)
        if directives is NO_DIRECTIVES:
            made, form = playlist.polled(gzip=gzip), POLLED_GZIP if gzip else POLLED
        else:
            made, form = None, Form(False, directives.skip, gzip)
        return made or self._render(playlist, form)

    def _answer_reload(
        self,
        playlist: Playlist,
        directives: ReloadDirectives,
        form: Form,
        exchange: Exchange,
        now: float,
    ) -> PreparedResponse | None:
        answer = choose_answer(directives, self._edge(playlist))
        if isinstance(answer, Wait):
            group = playlist.waiting.setdefault((answer, form), {})
            exchange.wait(group, self._until(now), self._too_long())
            return None
        if isinstance(answer, Reject):
            return error_response(400, answer.reason)
        return self._render(playlist, form)

    def _release_playlist(self, playlist: Playlist) -> int:
        missing = playlist.window.rendition.away or not playlist.window.shown
        answered = 0
        for key in playlist.reached(ended=self.window.ended is not None):
            group = playlist.waiting.pop(key)
            answered += len(group)
            response = self._missing(0) if missing else self._render(playlist, key[1])
            self._spread(Release(group, response, self._now))
        return answered

    def _edge(self, playlist: Playlist) -> PlaylistEdge:
        return playlist.edge(ended=self.window.ended is not None)

    def _render(self, playlist: Playlist, form: Form) -> PreparedResponse:
        return playlist.render(self.window, form, self._prepare_playlist)

    def _prepare_playlist(self, body: bytes, form: Form) -> PreparedResponse:
        lasting_s = KEEP_TARGETS * self.target_duration_s
        age_s = lasting_s if form.blocking else self._plain_age_s()
        fields = GZIPPED if form.gzip else VARIES
        return self._prepare([body], PLAYLIST_TYPE, age_s, fields, etag=entity_tag(body))

    def _prepare_manifest(self, body: bytes, gzip: bool) -> PreparedResponse:
        coding = GZIPPED if gzip else VARIES
        return self._prepare([body], MANIFEST_TYPE, 1, coding, etag=entity_tag(body))

    def _make(self, name: str) -> PreparedResponse | None:
        """The response for a part, segment or init by its name; None for what is not held."""
        rendition, _, rest = name.partition("-")
        if rendition not in self.window.renditions:
            return None
        playlist = self._playlist(rendition)
        body: list[bytes] | None = None
        if rest.endswith(".mp4"):
            digest = rest[: -len(".mp4")]
            data = self.window.init(rendition, digest)
            if data is not None:
                body = [data]
                playlist.init_names[digest] = name
        else:
            body = self._media(name, rendition)
        if body is None:
            return None
        if sum(map(len, body)) > RESPONSE_BYTES_MAX:
            return too_large(name, RESPONSE_BYTES_MAX)
        response = self.ready[name] = self._prepare_media(body, rendition)
        return response

    def _prepare_media(self, body: list[bytes], rendition: str) -> PreparedResponse:
        kind = self.window.renditions[rendition].rendition.kind
        return self._prepare(
            body,
            MEDIA_TYPES[kind],
            KEEP_TARGETS * self.target_duration_s,
            RANGES,
            lasting=not (self.cut_off or self._private),
            etag="" if self.cut_off else MEDIA_ETAG,
        )

    def _media(self, name: str, rendition: str) -> list[bytes] | None:
        """The body of a part or of a segment."""
        where = media_numbers(name)
        if where is None:
            return None
        msn, index = where
        if index is None:
            body = self.window.segment(rendition, msn)
        elif not self.window.renditions[rendition].has_parts:
            return None  # No playlist names it.
        else:
            part = self.window.part(rendition, msn, index)
            body = [part.payload] if part is not None and not part.gap else None
        if body is not None:
            self._playlist(rendition).names.setdefault(msn, []).append(name)
        return body

    def _drop_evicted(self, playlist: Playlist) -> None:
        oldest_msn = next(iter(playlist.window.segments), -1)
        if oldest_msn != playlist.oldest_msn:
            playlist.oldest_msn = oldest_msn
            for msn in [msn for msn in playlist.names if msn < oldest_msn]:
                for name in playlist.names.pop(msn):
                    self.ready.pop(name, None)

    def _drop_inits(self, playlist: Playlist) -> None:
        for digest in [d for d in playlist.init_names if d not in playlist.window.inits]:
            self.ready.pop(playlist.init_names.pop(digest), None)

    def _playlist(self, name: str) -> Playlist:
        playlist = self.playlists.get(name)
        if playlist is None:
            playlist = self.playlists[name] = Playlist(self.window.renditions[name])
        return playlist

    def _plain_age_s(self) -> int:
        return max(1, self.target_duration_s // 2)

    def _until(self, now: float) -> float:
        """RFC 8216bis §6.2.5.2: blocked for longer than three target durations is an error."""
        return now + BLOCK_TARGETS_MAX * self.target_duration_s

    def _too_long(self) -> PreparedResponse:
        seconds = BLOCK_TARGETS_MAX * self.target_duration_s
        return error_response(503, f"nothing new came within {seconds} s")

    def _no_media(self, name: str) -> PreparedResponse:
        """A 404; not for caches when the name may come to exist, at the live edge or beyond it."""
        window = self.window.renditions.get(name.partition("-")[0])
        where = media_numbers(name)
        soon = window is not None and where is not None and where[0] >= window.last_msn
        return self._missing(0 if soon else 1)

    def _missing(self, targets: int = 1) -> PreparedResponse:
        """A 404 for so many target durations; 0: not for caches."""
        return error_response(
            404,
            "there is nothing at this address",
            cache_control=self._cache_control(targets * self.target_duration_s),
        )

    def _prepare(
        self,
        body: list[bytes],
        content_type: str,
        age_s: int,
        fields: tuple[tuple[str, str], ...],
        *,
        lasting: bool = False,
        etag: str = "",
    ) -> PreparedResponse:
        cache_control = self._cache_control(age_s)
        if self._private:
            others = [field for field in fields if field[0] != "Vary"]
            varies = [value for name, value in fields if name == "Vary"]
            fields = (*others, ("Vary", ", ".join((*varies, VARIES_BY_VIEWER))))
        return prepare(
            200,
            body,
            content_type=content_type,
            cache_control=cache_control,
            fields=(*CORS, *fields),
            lasting=lasting,
            etag=etag,
        )

    def _cache_control(self, age_s: int) -> str:
        if self.cut_off or not age_s:
            return "no-store"
        return f"private, max-age={age_s}" if self._private else f"max-age={age_s}"
