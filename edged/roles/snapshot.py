"""Makes the `Status` of a process from its roles and their samples.

What it costs is bounded: a look at every stream is one dictionary entry and one key to sort by, and
only the first ROWS_MAX of those asked for are described. Snapshots are shared: a question that was
answered less than KEPT_S ago gets the same bytes, and at most SNAPSHOTS_PER_S_MAX are made.
"""

import heapq
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
import trio
from msgspec import Struct

from edged import __version__
from edged.errors import EdgedError
from edged.media.track import Kind
from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from edged.roles.sampler import BYTES, VIEWERS, RoleSamples, Sampler, StreamSamples
from edged.roles.snapshot_network import (
    describe_irs,
    describe_origin,
    describe_pop,
    describe_route,
)
from edged.roles.status import (
    SORTS,
    HealthSeen,
    ProcessSeen,
    RoleSeen,
    Sort,
    Status,
    StreamSeen,
    TotalsSeen,
    TrackSeen,
)
from edged.runtime.hub import LiveStream

ROWS_DEFAULT = 100
ROWS_MAX = 300
FILTER_CHARS_MAX = 100
KEPT_S = 0.9  # The sampler's pace: sooner there is nothing new.
SNAPSHOTS_PER_S_MAX = 5  # Different questions; beyond it the asker is told to come again.
ANSWERS_MAX = 8  # Kept.
SILENT_S = 3.0  # Without a unit: the row says so.
RANK = {"info": 1, "warning": 2, "error": 3}

if TYPE_CHECKING:
    from edged.backbone.directory import DirectoryRecord

Role = IrsRole | OriginRole | PopRole


class StatusQuery(Struct, frozen=True, kw_only=True):
    """Which streams are wanted. `text` is looked for in channel, title, origin and address."""

    text: str = ""
    sort: Sort = "attention"
    limit: int = ROWS_DEFAULT

    @classmethod
    def parse(cls, text: str, sort: str, limit: str) -> "StatusQuery":
        """From words of a command or a URL; raises `EdgedError` for what is none."""
        if sort and sort not in SORTS:
            raise EdgedError(f"sort {sort[:40]!r} is none of {', '.join(SORTS)}")
        if limit and not (limit.isascii() and limit.isdigit() and len(limit) < 6):  # noqa: PLR2004
            raise EdgedError(f"limit {limit[:40]!r} is no number")
        if len(text) > FILTER_CHARS_MAX:
            raise EdgedError(f"filter of {len(text)} characters exceeds {FILTER_CHARS_MAX}")
        rows = min(int(limit), ROWS_MAX) if limit else ROWS_DEFAULT
        return cls(text=text.lower(), sort=SORTS[sort or "attention"], limit=rows)


class _Found:
    """A live channel, and who of this process has to do with it."""

    __slots__ = ("channel", "origin", "pop", "record", "samples", "stream", "viewers")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.pop: PopRole | None = None  # Where it is published.
        self.origin: OriginRole | None = None  # Where it is packaged.
        self.stream: LiveStream | None = None  # At the PoP, else at the origin.
        self.samples: StreamSamples | None = None  # None: it has only just begun.
        self.record: DirectoryRecord | None = None  # Of one that is only watched here.
        self.viewers: dict[str, int] = {}

    @property
    def health(self) -> HealthSeen:
        """How it comes in."""
        return self.samples.health if self.samples is not None else HealthSeen()


class Snapshots:
    """Snapshots of one process."""

    def __init__(
        self,
        roles: Sequence[Role],
        sampler: Sampler,
        *,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self._roles, self._sampler, self._unix_now = roles, sampler, unix_now
        self._pops = [role for role in roles if isinstance(role, PopRole)]
        self._origins = [role for role in roles if isinstance(role, OriginRole)]
        self._answers: dict[StatusQuery, tuple[float, bytes]] = {}
        self._made_at: deque[float] = deque(maxlen=SNAPSHOTS_PER_S_MAX)

    def answer(self, query: StatusQuery) -> bytes:
        """The status as JSON; raises `EdgedError` when too many different questions come."""
        now = trio.current_time()
        kept = self._answers.get(query)
        if kept is not None and now - kept[0] < KEPT_S:
            return kept[1]
        if len(self._made_at) == SNAPSHOTS_PER_S_MAX and now - self._made_at[0] < 1.0:
            raise EdgedError(
                f"{SNAPSHOTS_PER_S_MAX} different snapshots were made within a second; ask again"
            )
        self._made_at.append(now)
        encoded = msgspec.json.encode(self.make(query))
        self._answers.pop(query, None)
        self._answers[query] = (now, encoded)
        while len(self._answers) > ANSWERS_MAX:
            del self._answers[next(iter(self._answers))]
        return encoded

    def make(self, query: StatusQuery) -> Status:
        """Look now."""
        began = time.perf_counter()
        now, unix = trio.current_time(), self._unix_now()
        found = self._find()
        matching = [each for each in found.values() if _matches(each, query.text)]
        rows = heapq.nsmallest(query.limit, matching, key=_KEYS[query.sort])
        sampler = self._sampler
        return Status(
            at=unix,
            process=ProcessSeen(
                version=__version__,
                pid=os.getpid(),
                uptime_s=now - sampler.started_at,
                cpu_share=round(sampler.cpu_share, 4),
                rss_bytes=sampler.usage.rss_bytes,
                fds=sampler.usage.fds,
                fds_max=sampler.usage.fds_max,
            ),
            totals=self._totals(found),
            roles=[self._role(role) for role in self._roles],
            pops=[describe_pop(pop, sampler.of(pop), now, unix) for pop in self._pops],
            origins=[describe_origin(role, sampler.of(role), now) for role in self._origins],
            irs=[describe_irs(role) for role in self._roles if isinstance(role, IrsRole)],
            streams=[_describe(each, now, unix) for each in rows],
            streams_matching=len(matching),
            made_ms=round(1000 * (time.perf_counter() - began), 3),
        )

    def _find(self) -> dict[str, _Found]:
        """Every live channel that this process takes in, packages or serves."""
        found: dict[str, _Found] = {}
        for origin in self._origins:
            samples = self._sampler.of(origin).streams
            for stream in origin.hub:
                each = found[stream.channel] = _Found(stream.channel)
                each.origin, each.stream = origin, stream
                each.samples = samples.get(stream.channel)
        for pop in self._pops:
            samples = self._sampler.of(pop).streams
            for stream in pop.hub:
                each = found.get(stream.channel) or _Found(stream.channel)
                found[stream.channel] = each
                each.pop, each.stream = pop, stream
                each.samples = samples.get(stream.channel)
        for pop in self._pops:
            for channel in pop.hls.watched():
                count = pop.viewers(channel)
                known = found.get(channel)
                if known is None:
                    record = pop.uplinks.listing.lookup(channel)
                    if not count or record is None:
                        continue
                    known = found[channel] = _Found(channel)
                    known.record = record
                if count:
                    known.viewers[pop.name] = count
        return found

    def _totals(self, found: dict[str, _Found]) -> TotalsSeen:
        totals = self._sampler.totals
        warnings = [len(each.health.warnings) for each in found.values()]
        return TotalsSeen(
            streams=len(found),
            viewers=sum(sum(each.viewers.values()) for each in found.values()),
            in_bps=round(totals.latest(2)),
            out_bps=round(totals.latest(3)),
            lag_ms_max=round(max(self._lags(), default=0.0), 2),
            warnings=sum(warnings),
            warned_streams=sum(map(bool, warnings)),
            streams_history=[round(value) for value in totals.values(0)],
            viewers_history=[round(value) for value in totals.values(1)],
            in_kbps_history=[round(value / 1000) for value in totals.values(2)],
            out_kbps_history=[round(value / 1000) for value in totals.values(3)],
            lag_ms_history=[round(value, 1) for value in totals.values(4)],
        )

    def _lags(self) -> list[float]:
        pumps = [pop.pump for pop in self._pops] + [origin.pump for origin in self._origins]
        return [1000 * pump.lag_s for pump in pumps]

    def _role(self, role: Role) -> RoleSeen:
        if isinstance(role, IrsRole):
            return RoleSeen(role=role.name, kind="irs")
        samples: RoleSamples = self._sampler.of(role)
        pump = role.pump.statistics()
        return RoleSeen(
            role=role.name,
            kind="pop" if isinstance(role, PopRole) else "origin",
            connections=pump.connections,
            lag_ms=round(1000 * pump.lag_s, 2),
            lag_ms_history=[round(value, 1) for value in samples.history.values(0)],
            streams=len(role.hub),
            units_per_s=round(samples.history.rate(1, 2.0), 1),
        )


def _attention(each: _Found) -> tuple[int, int, str]:
    """What is wrong first, then what is watched most, roughly."""
    rank = max((RANK[warning.severity] for warning in each.health.warnings), default=0)
    # By powers of two, so that rows do not change places with each viewer.
    return (-rank, -sum(each.viewers.values()).bit_length(), each.channel)


def _bitrate(each: _Found) -> tuple[float, str]:
    return (-each.health.bitrate_bps_2s, each.channel)


def _newest(each: _Found) -> tuple[float, str]:
    started_at = 0.0 if each.stream is None else each.stream.started_at
    return (-started_at, each.channel)


_KEYS: dict[str, Callable[[_Found], tuple[float | str, ...]]] = {
    "attention": _attention,
    "viewers": lambda each: (-sum(each.viewers.values()), each.channel),
    "bitrate": _bitrate,
    "newest": _newest,
    "channel": lambda each: (each.channel,),
}
assert _KEYS.keys() == SORTS.keys(), "each order has its key"


def _matches(each: _Found, text: str) -> bool:
    if not text or text in each.channel.lower():
        return True
    places = []
    if each.stream is not None:
        places = [each.stream.grant.title, each.stream.came_from]
    elif each.record is not None:
        places = [each.record.entry.title, each.record.origin, each.record.entry.pop]
    if each.pop is not None:
        placement = each.pop.uplinks.placements.get(each.channel)
        places += [each.pop.name, placement.decision.origin if placement is not None else ""]
    if each.origin is not None:
        places.append(each.origin.name)
    return any(text in place.lower() for place in places)


def _describe(each: _Found, now: float, unix: float) -> StreamSeen:
    """One row."""
    stream, samples, pop, health = each.stream, each.samples, each.pop, each.health
    if stream is None:
        return _describe_elsewhere(each, unix)
    waiting_since = stream.waiting_since
    placement = None if pop is None else pop.uplinks.placements.get(each.channel)
    route = None
    if pop is not None and placement is not None:
        route = describe_route(pop.view.pop, placement, now)
    origin = route.origin if route is not None else ""
    if not origin and each.origin is not None:
        origin = each.origin.name.partition(" ")[2]
    role = pop or each.origin
    return StreamSeen(
        channel=each.channel,
        title=stream.grant.title,
        state=_state(stream, health),
        waiting_s=None if waiting_since is None else round(max(0.0, now - waiting_since), 1),
        role=role.name if role is not None else "",
        publication=f"{stream.stream_id.publication:x}",
        home_epoch=stream.stream_id.home_epoch,
        priority=stream.grant.priority.label,
        latency=_describe_latency(each, stream),
        came_from=stream.came_from,
        encoder=stream.encoder,
        live_s=round(max(0.0, now - stream.started_at), 1),
        tracks=describe_tracks(stream),
        ring_bytes=stream.ring.payload_bytes,
        ring_s=round(stream.ring.duration_us / 1e6, 2),
        gapless=stream.ring.gapless,
        viewers=sum(each.viewers.values()),
        viewers_at=each.viewers,
        origin=origin,
        route=route,
        health=health,
        ladder=None if each.origin is None else each.origin.service.ladder(each.channel),
        bitrate_kbps_history=[
            round(8e-3 * value) for value in (samples.history.rates(BYTES) if samples else ())
        ],
        viewers_history=[
            round(value) for value in (samples.history.values(VIEWERS) if samples else ())
        ],
    )


def _describe_latency(each: _Found, stream: LiveStream) -> str:
    """The class, with what it means if the stream is packaged here."""
    told = "" if each.origin is None else each.origin.service.latency(each.channel)
    return told or stream.grant.latency


def _state(stream: LiveStream, health: HealthSeen) -> Literal["live", "silent", "waiting"]:
    """Whether anything comes of a stream that is taken in or packaged here."""
    if stream.waiting_since is not None:
        return "waiting"
    return "silent" if health.silent_s >= SILENT_S else "live"


def _describe_elsewhere(each: _Found, unix: float) -> StreamSeen:
    """A channel that is only watched here."""
    assert each.record is not None, "what has no stream here was found in the directory"
    entry = each.record.entry
    return StreamSeen(
        channel=each.channel,
        title=entry.title,
        state="elsewhere",
        role="",
        publication=f"{entry.stream_id.publication:x}",
        home_epoch=entry.stream_id.home_epoch,
        priority=entry.priority.label,
        latency=entry.latency,
        came_from=f"PoP {entry.pop}" if entry.pop else "",
        live_s=round(max(0.0, unix - entry.started_at), 1),
        origin=each.record.origin,
        viewers=sum(each.viewers.values()),
        viewers_at=each.viewers,
    )


def describe_tracks(stream: LiveStream) -> list[TrackSeen]:
    """A stream's tracks as announced, pictures first."""
    tracks = sorted(stream.tracks.values(), key=lambda track: track.kind is not Kind.VIDEO)
    return [
        TrackSeen(
            kind=track.kind.value,
            codec=track.codec.value,
            codec_string=track.config.codec_string,
            width=track.config.width,
            height=track.config.height,
            fps=(
                round(track.config.frame_rate_num / track.config.frame_rate_den, 3)
                if track.config.frame_rate_num
                else None
            ),
            sample_rate=track.config.sample_rate,
            channels=track.config.channels,
        )
        for track in tracks
    ]
