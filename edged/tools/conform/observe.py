"""Follows a live stream as players do, each rendition at once, and asks what players never ask."""

from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import trio
from msgspec import Struct, field

from edged.errors import EdgedError, RemoteProtocolError
from edged.tools.conform.client import Answer, HttpClient, Link
from edged.wire.cmaf.reader import ReadInit, read_init
from edged.wire.m3u8_reader import (
    ReadMedia,
    ReadMultivariant,
    is_multivariant,
    read_media,
    read_multivariant,
)

RENDITIONS_MAX = 12
HINTS_AT_ONCE_MAX = 4  # Requests for parts that are to come, of one rendition.
BLOCKED_S_MAX = 60.0
AGAIN_S = 0.2
MORE_S_MAX = 20.0  # Beyond the time that was asked for, in which probes end.
GZIP = (("accept-encoding", "gzip"),)


class Seen(Struct, frozen=True):
    """A media playlist as it was answered."""

    answer: Answer
    playlist: ReadMedia
    asked: tuple[int, int | None] | None = None  # `_HLS_msn`, `_HLS_part`.


class FetchedPart(Struct, frozen=True):
    """A part that was asked for when it was hinted, or listed."""

    uri: str
    answer: Answer
    hinted: bool = False


class RenditionLog(Struct, kw_only=True):
    """All that was seen of one rendition."""

    name: str  # As its URI ends.
    url: str
    seen: list[Seen] = field(default_factory=list)
    refused: list[tuple[tuple[int, int | None], Answer]] = field(default_factory=list)
    parts: dict[str, FetchedPart] = field(default_factory=dict)  # By URI.
    segments: dict[int, Answer] = field(default_factory=dict)  # Whole ones, by MSN.
    left: list[Answer] = field(default_factory=list)  # Segments that have left the playlist.
    init: ReadInit | None = None

    @property
    def first(self) -> ReadMedia:
        """The playlist as it was first."""
        return self.seen[0].playlist

    @property
    def last(self) -> ReadMedia:
        """The playlist as it was last."""
        return self.seen[-1].playlist

    def absolute(self, uri: str) -> str:
        """A URI of its playlist as a URL; raises `RemoteProtocolError`."""
        return join(self.url, uri)


class Observation(Struct, kw_only=True):
    """What was seen of a stream."""

    url: str
    multivariant: ReadMultivariant | None = None
    multivariant_answer: Answer | None = None
    renditions: list[RenditionLog] = field(default_factory=list)
    probes: dict[str, Answer] = field(default_factory=dict)  # By what was asked, of the first one.
    broken: list[str] = field(default_factory=list)  # What could not be read, or was not answered.
    link: Link | None = None

    @property
    def main(self) -> RenditionLog:
        """The rendition that is probed."""
        return self.renditions[0]


async def observe(
    url: str,
    seconds: float,
    *,
    insecure: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Observation:
    """Watch the stream whose playlist is at `url` for so long; raises `EdgedError` without one."""
    client = HttpClient(insecure=insecure)
    try:
        return await _Observer(client, Observation(url=url), tell).run(seconds)
    finally:
        await client.close()


class _Observer:
    def __init__(self, client: HttpClient, seen: Observation, tell: Callable[[str], None]) -> None:
        self._client, self._seen, self._tell = client, seen, tell

    async def run(self, seconds: float) -> Observation:
        seen = self._seen
        await self._begin()
        self._tell(f"{len(seen.renditions)} renditions, watching for {seconds:g} s")
        until = trio.current_time() + seconds
        with trio.move_on_at(until + MORE_S_MAX) as scope:
            async with trio.open_nursery() as nursery:
                for log in seen.renditions:
                    nursery.start_soon(self._follow, log, until)
                nursery.start_soon(self._probe, until)
            for log in seen.renditions:
                await self._fetch_media(log)
        if scope.cancelled_caught:
            seen.broken.append(f"the server left something unanswered for {MORE_S_MAX:g} s")
        return seen

    async def _begin(self) -> None:
        seen = self._seen
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
        for url in urls:
            log = RenditionLog(name=urlsplit(url).path.rpartition("/")[2], url=url)
            answer = await self._client.get(url, fields=GZIP, within_s=BLOCKED_S_MAX)
            if answer.status != 200:  # noqa: PLR2004
                raise RemoteProtocolError(f"{url}: status {answer.status}")
            log.seen.append(Seen(answer, read_media(answer.body)))
            await self._fetch_init(log)
            seen.renditions.append(log)
        seen.link = await self._client.look(seen.url)

    async def _fetch_init(self, log: RenditionLog) -> None:
        uri = next((s.map_uri for s in reversed(log.first.segments) if s.map_uri), "")
        if not uri:
            return
        try:
            log.init = read_init((await self._client.get(log.absolute(uri))).body)
        except EdgedError as error:
            self._seen.broken.append(f"{log.name}: init segment: {error}")

    async def _follow(self, log: RenditionLog, until: float) -> None:
        """Reload by blocking requests, and ask for each part as soon as it is hinted."""
        hints = trio.CapacityLimiter(HINTS_AT_ONCE_MAX)
        asked: set[str] = set()
        async with trio.open_nursery() as nursery:
            while trio.current_time() < until and not log.last.ended:
                for hint in log.last.hints:
                    if hint.type == "PART" and hint.uri not in asked:
                        asked.add(hint.uri)
                        nursery.start_soon(self._fetch_part, log, hint.uri, hints)
                if not await self._reload(log):
                    return

    async def _reload(self, log: RenditionLog) -> bool:
        """The next version of a playlist; False when there is none to be had."""
        asked = next_part(log.last)
        query = f"_HLS_msn={asked[0]}" + ("" if asked[1] is None else f"&_HLS_part={asked[1]}")
        blocks = log.last.control.get("CAN-BLOCK-RELOAD") == "YES"
        url = with_query(log.url, query) if blocks else log.url
        if not blocks:
            await trio.sleep((log.last.target_duration_s or 1) / 2)
        try:
            answer = await self._client.get(url, fields=GZIP, within_s=BLOCKED_S_MAX)
            if answer.status != 200:  # noqa: PLR2004
                log.refused.append((asked, answer))
                await trio.sleep(1.0)
                return len(log.refused) < HINTS_AT_ONCE_MAX
            log.seen.append(Seen(answer, read_media(answer.body), asked if blocks else None))
            if log.seen[-1].playlist.last == log.seen[-2].playlist.last:
                await trio.sleep(AGAIN_S)  # It should have waited.
        except EdgedError as error:
            self._seen.broken.append(str(error))
            return False
        return True

    async def _fetch_part(self, log: RenditionLog, uri: str, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            try:
                answer = await self._client.get(log.absolute(uri), within_s=BLOCKED_S_MAX)
                log.parts[uri] = FetchedPart(uri, answer, hinted=True)
            except EdgedError as error:
                self._seen.broken.append(str(error))

    async def _probe(self, until: float) -> None:
        """Ask the first rendition's server what only checks ask."""
        log = self._seen.main
        await trio.sleep(0.5)
        last, parts = log.last.last
        whole = max(log.last.last_whole, 0)
        unknown = urljoin(log.url, "there-is-no-such-name.m4s")
        asks = {
            "old": with_query(log.url, f"_HLS_msn={max(log.last.media_sequence - 3, 0)}"),
            "part alone": with_query(log.url, "_HLS_part=0"),
            "far": with_query(log.url, f"_HLS_msn={last + 20}"),
            "far part": with_query(log.url, f"_HLS_msn={last}&_HLS_part={parts + 1000}"),
            "beyond": with_query(log.url, self._beyond(log, whole)),
            "reserved": with_query(log.url, "_HLS_of_no_meaning=1"),
            "skip": with_query(log.url, "_HLS_skip=YES"),
            "skip v2": with_query(log.url, "_HLS_skip=v2"),
            "unknown": unknown,
            "unknown playlist": with_query(urljoin(log.url, "no-such-list.m3u8"), "_HLS_msn=1"),
            "plain": log.url,
            "whole": with_query(log.url, f"_HLS_msn={max(log.last.last[0], whole + 1)}"),
        }
        for name, url in asks.items():
            await self._ask(name, url)
        # Twice at once, of what is yet to come.
        msn, part = next_part(log.last)
        twice = with_query(
            log.url, f"_HLS_msn={msn}" + ("" if part is None else f"&_HLS_part={part}")
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, "once", twice)
            nursery.start_soon(self._ask, "again", twice)
        # What has left the playlist, at last.
        first = log.first.segments[0] if log.first.segments else None
        await trio.sleep_until(until)
        if first is not None and first.uri and log.last.media_sequence > first.msn:
            try:
                log.left.append(await self._client.get(log.absolute(first.uri)))
            except EdgedError as error:
                self._seen.broken.append(str(error))

    @staticmethod
    def _beyond(log: RenditionLog, msn: int) -> str:
        """The part behind the last of a whole segment."""
        segment = log.last.segment(msn)
        return f"_HLS_msn={msn}&_HLS_part={len(segment.parts) if segment else 0}"

    async def _ask(self, name: str, url: str) -> None:
        try:
            answer = await self._client.get(url, fields=GZIP, within_s=BLOCKED_S_MAX)
            self._seen.probes[name] = answer
        except EdgedError as error:
            self._seen.broken.append(f"{name}: {error}")

    async def _fetch_media(self, log: RenditionLog) -> None:
        """Two whole segments, and those of their parts that are not here yet."""
        whole = [segment for segment in log.last.segments if segment.is_whole and segment.parts]
        for segment in whole[-2:]:
            try:
                log.segments[segment.msn] = await self._client.get(log.absolute(segment.uri))
                for part in segment.parts:
                    if part.uri not in log.parts and not part.gap:
                        answer = await self._client.get(log.absolute(part.uri))
                        log.parts[part.uri] = FetchedPart(part.uri, answer)
            except EdgedError as error:
                self._seen.broken.append(str(error))


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


def with_query(url: str, query: str) -> str:
    """A URL with one more query."""
    return f"{url}{'&' if '?' in url else '?'}{query}"
