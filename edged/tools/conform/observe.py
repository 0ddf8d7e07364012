"""Follows a live stream as players do, each rendition at once; `probe` asks what players never ask.

What is kept is bounded: of a playlist what is new in it, of media digests and samples.
"""

from urllib.parse import urljoin, urlsplit

import trio
from msgspec import Struct, field
from msgspec.structs import replace

from edged.errors import EdgedError, RemoteProtocolError
from edged.tools.conform.answer import Answer
from edged.tools.conform.client import HttpClient, Link
from edged.tools.conform.media import (
    Piece,
    Place,
    bound,
    bytes_of,
    cut,
    make_piece,
    map_of,
    place_of,
    range_field,
)
from edged.wire.cmaf.reader import ReadInit, read_init
from edged.wire.m3u8_reader import (
    ReadHint,
    ReadMedia,
    ReadMultivariant,
    ReadPart,
    ReadSegment,
    is_multivariant,
    read_media,
    read_multivariant,
)

RENDITIONS_MAX = 12
HINTS_AT_ONCE_MAX = 4  # Requests for parts that are to come, of one rendition.
UNHINTED_MAX = 128  # Parts of a rendition that are fetched though no hint announced them.
PART_SHARE_MIN = 0.85  # Of PART-TARGET (RFC 8216bis §4.4.4.9).
HINTS_KNOWN_MAX = 64  # So that none is asked for twice.
INITS_MAX = 32  # Init segments of a rendition that are looked into.
VERSIONS_MAX = 1_000  # Of a rendition's playlist, the newest: 200 s of parts of 0.2 s.
LISTED_MAX = 300_000  # Segments that these list, together: of hours of DVR fewer versions are kept.
BLOCKED_S_MAX = 60.0
AGAIN_S = 0.2
WATCH_S = 0.05
MORE_S_MAX = 20.0  # Beyond the time that was asked for, in which probes end.
LISTED_S_MAX = 2.0  # From a part's last byte until the playlist lists it.
GZIP = (("accept-encoding", "gzip"),)


class Seen(Struct, frozen=True):
    """A media playlist as it was answered."""

    answer: Answer  # Without its body.
    playlist: ReadMedia
    asked: tuple[int, int | None] | None = None  # `_HLS_msn`, `_HLS_part`.


class RenditionLog(Struct, kw_only=True):
    """All that was seen of one rendition."""

    name: str  # As its URL ends, as much of it as tells it from others.
    url: str
    begun: ReadMedia | None = None  # The first playlist, where `seen` has lost it.
    seen: list[Seen] = field(default_factory=list)
    seen_before: int = 0  # Versions that are not kept.
    refused: list[tuple[tuple[int, int | None], Answer]] = field(default_factory=list)
    parts: dict[Place, Piece] = field(default_factory=dict)
    parts_before: int = 0  # Parts that are not kept.
    unhinted: int = 0  # Parts that were fetched without a hint, while it was followed.
    segments: dict[int, Piece] = field(default_factory=dict)  # Whole ones, by MSN.
    left: list[Answer] = field(default_factory=list)  # Segments that have left the playlist.
    # Parts that are listed no more, and for how long, in s.
    unlisted: list[tuple[Answer, float]] = field(default_factory=list)
    inits: dict[Place, ReadInit] = field(default_factory=dict)

    @property
    def first(self) -> ReadMedia:
        """The playlist as it was first."""
        return self.begun or self.seen[0].playlist

    @property
    def last(self) -> ReadMedia:
        """The playlist as it was last."""
        return self.seen[-1].playlist

    @property
    def blocks(self) -> bool:
        """Whether blocking reload is offered."""
        return self.last.control.get("CAN-BLOCK-RELOAD") == "YES"

    @property
    def has_video(self) -> bool:
        """Whether there are pictures in it."""
        return any(t.handler == "vide" for init in self.inits.values() for t in init.values())

    def absolute(self, uri: str) -> str:
        """A URI of its playlist as a URL; raises `RemoteProtocolError`."""
        return join(self.url, uri)

    def at(self, line: int) -> str:
        """Where something stands, as in what compilers print."""
        return f"{self.name}:{line}" if line else self.name

    def where(self, msn: int, part: int | None = None) -> str:
        """Where a segment, or a part of it, stands at last."""
        return self.at(self.last.line(msn, part))

    @property
    def fetched(self) -> list[tuple[ReadSegment, Piece]]:
        """The whole segments that were fetched."""
        found = [(self.last.segment(msn), piece) for msn, piece in sorted(self.segments.items())]
        return [(segment, piece) for segment, piece in found if segment is not None]

    def add(self, answer: Answer, asked: tuple[int, int | None] | None) -> None:
        """Another version; raises `RemoteProtocolError` if it is none."""
        playlist = read_media(answer.body)
        if self.seen:
            share(playlist, self.last)
        self.seen.append(Seen(replace(answer, body=b"", arrivals=()), playlist, asked))
        self.begun = self.begun or playlist
        listed = sum(len(one.playlist.segments) for one in self.seen)
        while len(self.seen) > VERSIONS_MAX or (listed > LISTED_MAX and len(self.seen) > 2):  # noqa: PLR2004 - a pair
            listed -= len(self.seen.pop(0).playlist.segments)
            self.seen_before += 1


class Observation(Struct, kw_only=True):
    """What was seen of a stream."""

    url: str
    multivariant: ReadMultivariant | None = None
    multivariant_answer: Answer | None = None
    renditions: list[RenditionLog] = field(default_factory=list)
    probes: dict[str, Answer] = field(default_factory=dict)  # By what was asked, of the first one.
    broken: list[str] = field(default_factory=list)  # What could not be read, or was not answered.
    link: Link | None = None
    stall_s: float = 0.0  # The longest that we were late ourselves: not to be taken for theirs.

    @property
    def main(self) -> RenditionLog:
        """The rendition that is probed."""
        return self.renditions[0]


class Follower:
    """Keeps up with the renditions of a stream, and fetches their media."""

    def __init__(self, client: HttpClient, seen: Observation) -> None:
        self._client, self._seen = client, seen
        self._open: set[str] = set()  # URLs of which the rest is being asked for.

    async def begin(self) -> None:
        """Fetch all playlists once; raises `EdgedError`."""
        seen = self._seen
        seen.link = await self._client.look(seen.url)
        first = await self._client.get(seen.url, fields=GZIP)
        if first.status != 200:  # noqa: PLR2004 - HTTP's OK
            raise RemoteProtocolError(f"{seen.url}: status {first.status}")
        urls = [seen.url]
        if is_multivariant(first.body):
            seen.multivariant, seen.multivariant_answer = read_multivariant(first.body), first
            media = [media["URI"] for media in seen.multivariant.media if "URI" in media]
            listed = [variant.uri for variant in seen.multivariant.variants] + media
            urls = list(dict.fromkeys(join(seen.url, uri) for uri in listed))
        if not 0 < len(urls) <= RENDITIONS_MAX:
            raise RemoteProtocolError(f"{len(urls)} media playlists, limit {RENDITIONS_MAX}")
        for url, name in zip(urls, names_of(urls), strict=True):
            log = RenditionLog(name=name, url=url)
            answer = await self._client.get(url, fields=GZIP, within_s=BLOCKED_S_MAX)
            if answer.status != 200:  # noqa: PLR2004
                raise RemoteProtocolError(f"{url}: status {answer.status}")
            try:
                log.add(answer, None)
            except RemoteProtocolError as error:
                raise RemoteProtocolError(f"{url}: {error}") from None
            if log.last.segments:
                await self._need_init(log, map_of(log.last.segments[-1]))
            seen.renditions.append(log)

    async def renew(self) -> None:
        """The multivariant playlist as it is at last: formats and bandwidths change."""
        seen = self._seen
        if seen.multivariant is None:
            return
        try:
            last = await self._client.get(seen.url, fields=GZIP)
            if last.status == 200:  # noqa: PLR2004 - else it has ended
                seen.multivariant = read_multivariant(last.body)
        except EdgedError as error:
            seen.broken.append(str(error))

    async def follow(self, log: RenditionLog, until: float) -> None:
        """Reload by blocking requests, and ask for each part as soon as it is hinted."""
        limiter = trio.CapacityLimiter(HINTS_AT_ONCE_MAX)
        asked: dict[Place, None] = {}
        async with trio.open_nursery() as nursery:
            while trio.current_time() < until and not log.last.ended:
                for hint in log.last.hints:
                    place = hint.uri, hint.range
                    if hint.type == "PART" and place not in asked and hint.uri not in self._open:
                        asked[place] = None
                        nursery.start_soon(self._fetch_hinted, log, hint, limiter)
                while len(asked) > HINTS_KNOWN_MAX:
                    del asked[next(iter(asked))]
                self._fetch_unhinted(log, asked, nursery, limiter)
                if not await self._reload(log):
                    return
            self._fetch_unhinted(log, asked, nursery, limiter)

    async def _reload(self, log: RenditionLog) -> bool:
        """The next version of a playlist; False when there is none to be had."""
        asked = next_part(log.last)
        url = with_query(log.url, directives(asked)) if log.blocks else log.url
        if not log.blocks:
            await trio.sleep((log.last.target_duration_s or 1) / 2)
        try:
            answer = await self._client.get(url, fields=GZIP, within_s=BLOCKED_S_MAX)
            if answer.status != 200:  # noqa: PLR2004
                if not log.blocks:
                    raise RemoteProtocolError(f"{url}: status {answer.status}")
                log.refused.append((asked, replace(answer, body=b"")))
                await trio.sleep(1.0)
                return len(log.refused) < HINTS_AT_ONCE_MAX
            before = log.last.last
            try:
                log.add(answer, asked if log.blocks else None)
            except RemoteProtocolError as error:
                raise RemoteProtocolError(f"{url}: {error}") from None
            if log.last.last == before:
                await trio.sleep(AGAIN_S)  # It should have waited.
        except EdgedError as error:
            self._seen.broken.append(str(error))
            return False
        return True

    async def _fetch_hinted(
        self, log: RenditionLog, hint: ReadHint, limiter: trio.CapacityLimiter
    ) -> None:
        place = hint.uri, hint.range
        # Without a length, all that is to come of the resource (RFC 8216bis §4.4.5.3).
        ranged = any(part.range for part in _parts(log.last))
        rest = ranged if hint.range is None else hint.range.length is None
        if rest:
            self._open.add(hint.uri)
        try:
            async with limiter:
                init = await self._hinted_init(log)
                answer = await self._ask(log, place)
            if rest:
                await self._cut_parts(log, place, answer, init)
            else:
                self._keep(log, place, answer, init, hinted=True)
        except EdgedError as error:
            self._seen.broken.append(str(error))
        finally:
            self._open.discard(hint.uri)

    async def _hinted_init(self, log: RenditionLog) -> Place | None:
        """What the next part is to be read with (RFC 8216bis §4.4.5.3)."""
        maps = [(hint.uri, hint.range) for hint in log.last.hints if hint.type == "MAP"]
        init = map_of(log.last.segments[-1]) if log.last.segments else None
        init = maps[0] if maps and init is not None else init
        await self._need_init(log, init)
        return init

    async def _cut_parts(
        self, log: RenditionLog, place: Place, answer: Answer, init: Place | None
    ) -> None:
        """Parts of the rest of a resource, which came one after the other."""
        uri, start = place[0], place[1].start if place[1] is not None else 0
        data, problem = bytes_of(answer, place)
        if problem or answer.status not in (200, 206):
            self._keep(log, place, answer, init, hinted=True)
            return
        end, until = start + len(data), trio.current_time() + LISTED_S_MAX
        whole = replace(answer, body=data)
        while True:
            listed = [part for part in _parts(log.last) if part.uri == uri and part.range]
            reach = max((r.start + (r.length or 0) for p in listed if (r := p.range)), default=0)
            if reach >= end or log.last.ended or trio.current_time() >= until:
                break
            await trio.sleep(AGAIN_S)
        for part in listed:
            assert part.range is not None, "others were left out"
            piece = cut(whole, start, part.range)
            if piece is not None:
                self._keep(log, place_of(part), piece, init, hinted=True)

    def _fetch_unhinted(
        self,
        log: RenditionLog,
        asked: dict[Place, None],
        nursery: trio.Nursery,
        limiter: trio.CapacityLimiter,
    ) -> None:
        """Ask for what tells why parts are as they are: odd ones, and those no hint announced."""
        wanted = [
            (segment, part)
            for segment, index, _ in deviating(log.last)
            for part in segment.parts[index : index + 2]
        ]
        known = {place_of(part) for part in _parts(log.first)}
        wanted += [
            (segment, part)
            for segment in log.last.segments
            for part in segment.parts
            if place_of(part) not in known
        ]
        for segment, part in wanted:
            place = place_of(part)
            if place in asked or place in log.parts or part.gap or part.uri in self._open:
                continue
            if log.unhinted >= UNHINTED_MAX:
                return
            log.unhinted += 1
            asked[place] = None
            nursery.start_soon(self._fetch_odd, log, part, segment, limiter)

    async def _fetch_odd(
        self,
        log: RenditionLog,
        part: ReadPart,
        segment: ReadSegment,
        limiter: trio.CapacityLimiter,
    ) -> None:
        try:
            async with limiter:
                await self._need_init(log, map_of(segment))
                await self._fetch_listed(log, part, segment)
        except EdgedError as error:
            self._seen.broken.append(str(error))

    async def fetch_media(self, log: RenditionLog) -> None:
        """Two whole segments, and those of their parts that are not here yet."""
        whole = [segment for segment in log.last.segments if segment.is_whole and not segment.gap]
        for segment in ([one for one in whole if one.parts] or whole)[-2:]:
            try:
                init = map_of(segment)
                await self._need_init(log, init)
                place = place_of(segment)
                answer = await self._ask(log, place)
                log.segments[segment.msn] = make_piece(place, answer, init=init, inits=log.inits)
                for part in segment.parts:
                    await self._fetch_listed(log, part, segment)
            except EdgedError as error:
                self._seen.broken.append(str(error))

    async def _fetch_listed(self, log: RenditionLog, part: ReadPart, segment: ReadSegment) -> None:
        place, init = place_of(part), map_of(segment)
        known = log.parts.get(place)
        # A part may have become another's than when it was hinted, with another init.
        stale = known is not None and known.came and init in log.inits and known.init != init
        if part.gap or (known is not None and not stale):
            return
        hinted = known is not None and known.hinted
        self._keep(log, place, await self._ask(log, place), init, hinted=hinted)

    async def _ask(self, log: RenditionLog, place: Place) -> Answer:
        return await self._client.get(
            log.absolute(place[0]), fields=range_field(place), within_s=BLOCKED_S_MAX
        )

    @staticmethod
    def _keep(
        log: RenditionLog, place: Place, answer: Answer, init: Place | None, *, hinted: bool
    ) -> None:
        log.parts[place] = make_piece(place, answer, init=init, inits=log.inits, hinted=hinted)
        log.parts_before += bound(log.parts)

    async def _need_init(self, log: RenditionLog, place: Place | None) -> None:
        if place is None or place in log.inits or len(log.inits) >= INITS_MAX:
            return
        try:
            answer = await self._ask(log, place)
            log.inits[place] = read_init(bytes_of(answer, place)[0])
        except EdgedError as error:
            log.inits[place] = {}
            self._seen.broken.append(f"{log.absolute(place[0])}: init segment: {error}")


async def watch_ourselves(seen: Observation) -> None:
    """Note how late this process gets to run, for as long as it is let."""
    while True:
        due = trio.current_time() + WATCH_S
        await trio.sleep_until(due)
        seen.stall_s = max(seen.stall_s, trio.current_time() - due)


async def observe_renditions(follower: Follower, seen: Observation, until: float) -> None:
    """Follow all renditions until then."""
    async with trio.open_nursery() as nursery:
        for log in seen.renditions:
            nursery.start_soon(follower.follow, log, until)


def deviating(playlist: ReadMedia) -> list[tuple[ReadSegment, int, bool]]:
    """Parts of another length than §4.4.4.9 wants: segment, index, and whether it is too short."""
    found: list[tuple[ReadSegment, int, bool]] = []
    target_us = playlist.part_target_us
    if target_us is None:
        return found
    for segment in playlist.segments:
        for index, part in enumerate(segment.parts):
            following = segment.parts[index + 1 : index + 2]
            excepted = part.independent or part.gap or not following or following[0].gap
            if part.duration_us > target_us:
                found.append((segment, index, False))
            elif not excepted and part.duration_us < PART_SHARE_MIN * target_us:
                found.append((segment, index, True))
    return found


def _parts(playlist: ReadMedia) -> list[ReadPart]:
    return [part for segment in playlist.segments for part in segment.parts]


def share(new: ReadMedia, old: ReadMedia) -> None:
    """Of what two versions have in common keep one."""
    for index, segment in enumerate(new.segments):
        known = old.segment(segment.msn)
        if known == segment:
            new.segments[index] = known
    for name in ("control", "tags", "tag_lines", "dateranges"):
        if getattr(new, name) == getattr(old, name):
            setattr(new, name, getattr(old, name))


def edition_of(playlist: ReadMedia) -> object:
    """What tells a version from another, whether segments are skipped in it, rightly or not."""
    if not playlist.segments:
        return playlist.media_sequence
    last = playlist.segments[-1]
    parts = [place_of(part) for part in last.parts[-1:]]
    return playlist.media_sequence, last.uri, last.range, tuple(parts), playlist.ended


def names_of(urls: list[str]) -> list[str]:
    """What to call each: the ends of their paths, as long as needed to tell one from another."""
    paths = [urlsplit(url).path.lstrip("/") for url in urls]
    for depth in range(1, max(path.count("/") for path in paths) + 2):
        names = ["/".join(path.split("/")[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return urls


def join(base: str, uri: str) -> str:
    """A URI of a playlist as a URL; raises `RemoteProtocolError`."""
    try:
        return urljoin(base, uri)
    except ValueError as error:
        raise RemoteProtocolError(f"URI {uri[:100]!r}: {error}") from None


def next_part(playlist: ReadMedia) -> tuple[int, int | None]:
    """What a player asks for next: MSN and part; the part is None where there are no parts."""
    msn, part = playlist.last
    if playlist.part_target_us is None:
        return msn + 1, None
    segment = playlist.segment(msn)
    return (msn + 1, 0) if segment is None or segment.is_whole else (msn, part + 1)


def directives(asked: tuple[int, int | None]) -> str:
    """The query that asks for a segment, or for a part of it."""
    return f"_HLS_msn={asked[0]}" + ("" if asked[1] is None else f"&_HLS_part={asked[1]}")


def with_query(url: str, query: str) -> str:
    """A URL with one more query."""
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url
