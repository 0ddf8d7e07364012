"""Asks a stream's server what players do not ask, and watches the stream meanwhile."""

import itertools
from collections.abc import Callable, Sequence
from urllib.parse import urljoin

import trio
from msgspec.structs import replace

from edged.errors import EdgedError, RemoteProtocolError
from edged.tools.conform.answer import Answer
from edged.tools.conform.client import HttpClient
from edged.tools.conform.media import PROBED_RANGE, Place, place_of, range_field
from edged.tools.conform.observe import (
    BLOCKED_S_MAX,
    GZIP,
    MORE_S_MAX,
    Follower,
    Observation,
    RenditionLog,
    directives,
    edition_of,
    next_part,
    observe_renditions,
    watch_ourselves,
    with_query,
)
from edged.wire.m3u8_reader import ReadSegment, read_media
from edged.wire.m3u8_values import US

IDENTITY = (("accept-encoding", "identity"),)
KEPT_TARGETS = 3  # For how many a part is to be had when it is listed no more.
LATE_S = 1.0  # Before which it is asked for.
RACES_MAX = 5  # How often requests for one version may be answered by two.

Ask = tuple[str, Sequence[tuple[str, str]]]  # What is added to the query, and the fields.


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
        seen = Observation(url=url)
        follower = Follower(client, seen)
        await follower.begin()
        tell(f"{len(seen.renditions)} renditions, watching for {seconds:g} s")
        until = trio.current_time() + seconds
        with trio.move_on_at(until + MORE_S_MAX) as scope:
            async with trio.open_nursery() as watching:
                watching.start_soon(watch_ourselves, seen)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(observe_renditions, follower, seen, until)
                    nursery.start_soon(Prober(client, seen).run, until)
                watching.cancel_scope.cancel()
            for log in seen.renditions:
                await follower.fetch_media(log)
            await follower.renew()
        if scope.cancelled_caught:
            seen.broken.append(f"the server left something unanswered for {MORE_S_MAX:g} s")
        return seen
    finally:
        await client.close()


class Prober:
    """Asks the first rendition's server."""

    def __init__(self, client: HttpClient, seen: Observation) -> None:
        self._client, self._seen = client, seen

    async def run(self, until: float) -> None:
        """All that is to be asked."""
        log = self._seen.main
        await trio.sleep(0.5)
        last, _ = log.last.last
        whole = max(log.last.last_whole, 0)
        unknown = urljoin(log.url, "there-is-no-such-name.m4s")
        asks = {
            "old": with_query(log.url, f"_HLS_msn={max(log.last.media_sequence - 3, 0)}"),
            "part alone": with_query(log.url, "_HLS_part=0"),
            "far": with_query(log.url, f"_HLS_msn={last + 20}"),
            # Of a segment that was whole by then it would be the first of the next one.
            "far part": with_query(log.url, f"_HLS_msn={last + 1}&_HLS_part=1000"),
            "beyond": with_query(log.url, self._beyond(log, whole)),
            "reserved": with_query(log.url, "_HLS_of_no_meaning=1"),
            "unknown": unknown,
            "unknown playlist": with_query(urljoin(log.url, "no-such-list.m3u8"), "_HLS_msn=1"),
            "plain": log.url,
            "whole": with_query(log.url, f"_HLS_msn={max(log.last.last[0], whole + 1)}"),
        }
        for name, url in asks.items():
            await self._ask(name, url)
        # Twice at once, of what is yet to come.
        twice = with_query(log.url, directives(next_part(log.last)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, "once", twice)
            nursery.start_soon(self._ask, "again", twice)
        await self._at_once({"gzip": ("", GZIP), "identity": ("", IDENTITY)})
        await self._ask("skip before", log.url)
        await self._at_once(
            {
                "skip": ("_HLS_skip=YES", GZIP),
                "skip v2": ("_HLS_skip=v2", GZIP),
                "skip entire": ("", GZIP),
            }
        )
        await self._ask_for_a_range(log)
        await self._ask_for_what_left(log, until)

    async def _ask_for_what_left(self, log: RenditionLog, until: float) -> None:
        """A segment that has left the playlist, and a part that has, at last."""
        await trio.sleep_until(until)
        now = trio.current_time()
        try:
            segment = _left(log, now)
            if segment is not None:
                log.left.append(await self._take(log, place_of(segment)))
            part = _unlisted(log, now)
            if part is not None:
                answer = await self._take(log, part[0])
                log.unlisted.append((answer, answer.asked_at - part[1]))
        except EdgedError as error:
            self._seen.broken.append(str(error))

    async def _take(self, log: RenditionLog, place: Place) -> Answer:
        url, fields = log.absolute(place[0]), range_field(place)
        return replace(await self._client.get(url, fields=fields), body=b"", arrivals=())

    async def _ask_for_a_range(self, log: RenditionLog) -> None:
        """Some bytes of the last whole segment that is a file, and all of them."""
        files = [
            one for one in log.last.segments if one.is_whole and not one.gap and one.range is None
        ]
        if files:
            url = log.absolute(files[-1].uri)
            await self._ask("entire", url, ())
            await self._ask("range", url, range_field(("", PROBED_RANGE)))

    async def _at_once(self, asks: dict[str, Ask]) -> None:
        """Several requests for the same version; again while they are answered by two."""
        log = self._seen.main
        for _ in range(RACES_MAX):
            wanted = directives(next_part(log.last)) if self._may_wait(log) else ""
            async with trio.open_nursery() as nursery:
                for name, (query, fields) in asks.items():
                    url = with_query(with_query(log.url, wanted), query)
                    nursery.start_soon(self._ask, name, url, fields)
            found = [self._seen.probes[name] for name in asks if name in self._seen.probes]
            if len({version_of(answer) for answer in found} - {None}) <= 1:
                return

    @staticmethod
    def _may_wait(log: RenditionLog) -> bool:
        return log.blocks and not log.last.ended

    @staticmethod
    def _beyond(log: RenditionLog, msn: int) -> str:
        """The part behind the last of a whole segment."""
        segment = log.last.segment(msn)
        return f"_HLS_msn={msn}&_HLS_part={len(segment.parts) if segment else 0}"

    async def _ask(self, name: str, url: str, fields: Sequence[tuple[str, str]] = GZIP) -> None:
        try:
            answer = await self._client.get(url, fields=fields, within_s=BLOCKED_S_MAX)
            self._seen.probes[name] = replace(answer, arrivals=())
        except EdgedError as error:
            self._seen.broken.append(f"{name}: {error}")


def _left(log: RenditionLog, now: float) -> ReadSegment | None:
    """Of the segments that have left the playlist the oldest that is to be had still."""
    longest_us = max(sum(one.media_us for one in each.playlist.segments) for each in log.seen)
    for before, one in itertools.pairwise(log.seen):
        for segment in before.playlist.segments:
            if segment.msn >= one.playlist.media_sequence:
                break
            kept_s = (segment.media_us + longest_us) / US
            in_time = now < one.answer.head_at + kept_s - LATE_S
            if in_time and segment.is_whole and not segment.gap:
                return segment
    return None


def _unlisted(log: RenditionLog, now: float) -> tuple[Place, float] | None:
    """Of the parts that are listed no more the oldest that is to be had still, and since when."""
    kept_s = KEPT_TARGETS * (log.last.target_duration_s or 0)
    for before, one in itertools.pairwise(log.seen):
        if now >= one.answer.asked_at + kept_s - LATE_S:
            continue
        for segment in before.playlist.segments:
            later = one.playlist.segment(segment.msn)
            there = {place_of(part) for part in later.parts} if later is not None else set()
            gone = [p for p in segment.parts if place_of(p) not in there and not p.gap]
            if gone:
                return place_of(gone[0]), one.answer.head_at
    return None


def version_of(answer: Answer) -> object:
    """What tells a version of a playlist from another, delta updates included."""
    if answer.status != 200:  # noqa: PLR2004 - HTTP's OK
        return None
    try:
        playlist = read_media(answer.body)
    except RemoteProtocolError:
        return None
    reports = tuple((one.uri, one.last_msn, one.last_part) for one in playlist.reports)
    return edition_of(playlist), reports
