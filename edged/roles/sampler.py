"""Counters of a process's roles, read once a second into short histories.

It runs always, so that the first look at the status page shows the last minute already. A pass goes
over all streams in slices and lets the pumps run between them: a slice holds them up for about a
millisecond, however many streams there are.
"""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import trio
from msgspec import structs

from edged.backbone.receiver import PeerStatistics
from edged.backbone.statistics import OriginLinkStatistics
from edged.media.track import Kind
from edged.roles.health import HealthOf, describe_warning, find_warnings, merge_health
from edged.roles.status import HealthSeen
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.process import ProcessUsage, read_usage
from edged.runtime.pump import Pump
from edged.runtime.rates import History

INTERVAL_S = 1.0
SLICE_STREAMS = 50  # About 1 ms, see tests/bench/status.
SHORT_S = 2.0
FPS_S = 5.0
LONG_S = 60.0
FDS_EVERY = 5  # Samples: counting thousands of descriptors takes milliseconds.
BYTES, UNITS, VIEWERS = range(3)  # Columns of a stream.
RECEIVED, SENT = range(2)  # Columns of a link.


class Sampled(Protocol):
    """What the sampler needs of a role with a data plane."""

    name: str
    pump: Pump
    hub: Hub


class SampledPop(Sampled, Protocol):
    """And of a PoP."""

    health: HealthOf

    def viewers(self, channel: str) -> int:
        """Who watches a channel here."""

    def viewers_total(self) -> int:
        """Who watches anything here."""

    def links(self) -> list[OriginLinkStatistics]:
        """Its links to origins."""

    def served_bytes(self) -> int:
        """Bytes of bodies queued for viewers since the start."""


class SampledOrigin(Sampled, Protocol):
    """And of an origin."""

    def peers(self) -> dict[tuple[str, int], PeerStatistics]:
        """The PoP shards that are connected."""


class StreamSamples:
    """One publication in one role's hub."""

    def __init__(self, stream: LiveStream, now: float) -> None:
        self.stream = stream
        self.history = History(3)
        self.health = HealthSeen()
        self.fps_wanted: float | None = None
        self._units = -1
        self._heard_at = now
        self._warned_at: dict[str, float] = {}  # Code -> when it began.

    def sample(self, now: float, viewers: int, health: HealthOf | None, unix: float) -> None:
        """Read the counters, and judge."""
        stream = self.stream
        units = payload_bytes = frames = 0
        gop_us = 0
        self.fps_wanted = None
        for track_id, known in stream.track_statistics.items():
            units += known.units
            payload_bytes += known.payload_bytes
            track = stream.tracks[track_id]
            if track.codec.kind is Kind.VIDEO and not frames:  # The first picture of several.
                frames = known.units
                gop_us = known.gop_us
                config = track.config
                if config.frame_rate_num:
                    self.fps_wanted = config.frame_rate_num / config.frame_rate_den
        if units != self._units:
            self._units, self._heard_at = units, now
        self.history.note(now, payload_bytes, frames, viewers)
        counted = HealthSeen(
            fps=self.history.rate(UNITS, FPS_S) if frames else None,
            bitrate_bps_2s=8 * self.history.rate(BYTES, SHORT_S),
            bitrate_bps_60s=8 * self.history.rate(BYTES, LONG_S),
            gop_s=gop_us / 1e6 if gop_us > 0 else None,
            silent_s=now - self._heard_at,
        )
        view = None if health is None else health(stream.channel)
        if view is None:
            self.health = self._warn(counted, now)
        else:
            self.health = merge_health(counted, view, unix)

    def _warn(self, health: HealthSeen, now: float) -> HealthSeen:
        live_s = now - self.stream.started_at
        codes: list[str] = []
        if self.stream.waiting_since is None:  # Else there is nobody to be warned.
            codes = find_warnings(health, live_s=live_s, fps_wanted=self.fps_wanted)
        if not codes and not self._warned_at:
            return health
        self._warned_at = {code: self._warned_at.get(code, now) for code in codes}
        warnings = [
            describe_warning(
                code, health, for_s=now - self._warned_at[code], fps_wanted=self.fps_wanted
            )
            for code in codes
        ]
        return structs.replace(health, warnings=warnings)


class RoleSamples:
    """One role with a data plane."""

    def __init__(self, role: Sampled) -> None:
        self.role = role
        self.started_at = trio.current_time()
        self.history = History(2)  # Lag in ms, units.
        self.served = History(1)  # Bytes to viewers.
        self.streams: dict[str, StreamSamples] = {}
        self.links: dict[str, History] = {}  # By peer.
        self.in_bps = self.out_bps = 0.0

    def sample_streams(
        self, viewers: "SampledPop | None", now: float, unix: float
    ) -> Iterator[None]:
        """Sample every stream, stopping after each slice."""
        known, self_streams = self.streams, self.role.hub
        found: dict[str, StreamSamples] = {}
        for count, stream in enumerate(self_streams, 1):
            channel = stream.channel
            samples = known.get(channel)
            if samples is None or samples.stream is not stream:
                samples = StreamSamples(stream, now)
            found[channel] = samples
            if viewers is None:
                samples.sample(now, 0, None, unix)
            else:
                samples.sample(now, viewers.viewers(channel), viewers.health, unix)
            if not count % SLICE_STREAMS:
                yield
        self.streams = found
        self.in_bps = sum(each.health.bitrate_bps_2s for each in found.values())
        self.history.note(now, 1000 * self.role.pump.lag_s, self.role.hub.units_total)

    def sample_link(self, name: str, now: float, received: int, sent: int) -> None:
        """Sample one link or peer."""
        history = self.links.get(name)
        if history is None:
            history = self.links[name] = History(2)
        history.note(now, received, sent)

    def keep_links(self, names: set[str]) -> None:
        """Forget those that are gone."""
        for name in self.links.keys() - names:
            del self.links[name]

    def link_bps(self, name: str) -> tuple[float, float]:
        """Bits per second received from a peer and sent to it."""
        history = self.links.get(name)
        if history is None:
            return 0.0, 0.0
        return 8 * history.rate(RECEIVED, SHORT_S), 8 * history.rate(SENT, SHORT_S)


class Sampler:
    """All roles of a process."""

    def __init__(
        self,
        pops: list[SampledPop],
        origins: list[SampledOrigin],
        *,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self._unix_now = unix_now
        self.pops = [(pop, RoleSamples(pop)) for pop in pops]
        self.origins = [(origin, RoleSamples(origin)) for origin in origins]
        self.totals = History(5)  # Streams, viewers, bps in, bps out, lag in ms.
        self.usage: ProcessUsage = read_usage()
        self.started_at = trio.current_time()
        self._cpu = History(1)
        self._passes = 0

    @property
    def cpu_share(self) -> float:
        """Of one core, over the last seconds."""
        return self._cpu.rate(0, SHORT_S)

    def of(self, role: Sampled) -> RoleSamples:
        """The samples of a role."""
        return next(samples for known, samples in (*self.pops, *self.origins) if known is role)

    async def run(self) -> None:
        """Sample until cancelled."""
        due = trio.current_time()
        while True:
            for _ in self.sample(trio.current_time()):
                await trio.lowlevel.checkpoint()
            # After a pause of ours one sample is enough: they tell the present.
            due = max(due + INTERVAL_S, trio.current_time())
            await trio.sleep_until(due)

    def sample(self, now: float) -> Iterator[None]:
        """One pass, which stops after each slice."""
        count_fds = not self._passes % FDS_EVERY
        self.usage = read_usage(None if count_fds else self.usage.fds)
        self._passes += 1
        unix = self._unix_now()
        self._cpu.note(now, self.usage.cpu_s)
        for pop, samples in self.pops:
            yield from samples.sample_streams(pop, now, unix)
            links = pop.links()
            for link in links:
                samples.sample_link(link.origin, now, link.received_bytes, link.sent_bytes)
            samples.keep_links({link.origin for link in links})
            samples.served.note(now, pop.served_bytes())
            samples.out_bps = 8 * samples.served.rate(0, SHORT_S)
            yield
        for origin, samples in self.origins:
            yield from samples.sample_streams(None, now, unix)
            peers = origin.peers()
            for (name, shard), peer in peers.items():
                key = peer_key(name, shard)
                samples.sample_link(key, now, peer.received_bytes, peer.sent_bytes)
            samples.keep_links({peer_key(*key) for key in peers})
            yield
        self._sample_totals(now)

    def _sample_totals(self, now: float) -> None:
        """What the big numbers show: of PoPs, or of origins in a process without PoPs."""
        roles = [samples for _, samples in (self.pops or self.origins)]
        every = [samples for _, samples in (*self.pops, *self.origins)]
        self.totals.note(
            now,
            sum(len(samples.streams) for samples in roles),
            sum(pop.viewers_total() for pop, _ in self.pops),
            sum(samples.in_bps for samples in roles),
            sum(samples.out_bps for samples in roles),
            max((1000 * samples.role.pump.lag_s for samples in every), default=0.0),
        )


def peer_key(name: str, shard: int) -> str:
    """A PoP shard by one name: as IRS names it."""
    return f"{name}/{shard}"
