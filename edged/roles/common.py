"""What all roles share: how a stream is described, and metrics of the pump and the hub."""

import secrets
from collections.abc import Callable, Iterable

from msgspec import Struct

from edged.media.track import Kind
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.metrics import Metrics, MetricSpec, Sample
from edged.runtime.pump import Pump
from edged.runtime.tls import MutualTls, TlsFiles

INSTANCE_BITS = 63

Commit = Callable[[], list[str]]  # Takes a file read again into use; what is to be known of it.


class StreamLine(Struct, kw_only=True):
    """One live stream as a role sees it: a line of `edged streams`."""

    role: str
    channel: str
    publication: str
    home_epoch: int
    came_from: str
    goes_to: str
    video: str
    audio: str
    seconds: float
    mbps: float
    gop_s: float
    ring_mib: float
    viewers: int
    state: str = "live"  # Or that it waits for its publisher, and how long by now.
    fps: float | None = None  # Measured.
    latency: str = ""  # The class, at an origin with what it means there.
    health: str = ""  # "ok", or the codes of its warnings; "": not sampled yet.
    ladder: str = ""  # How its ladder fares; "": none is made here.


def new_instance() -> int:
    """Chance that names this start of a process."""
    return secrets.randbits(INSTANCE_BITS)


def prepare_mutual(tls: MutualTls | None, files: TlsFiles | None) -> Callable[[], None]:
    """Check a role's certificates, and return what takes them into use.

    Whether there are any does not change while it runs.
    """
    if tls is None or files is None:
        return lambda: None
    return tls.prepare(files)


def describe_stream(
    role: str, stream: LiveStream, now: float, *, goes_to: str, viewers: int, latency: str = ""
) -> StreamLine:
    """Read a stream's counters."""
    seconds = max(now - stream.started_at, 1e-3)
    payload_bytes = sum(known.payload_bytes for known in stream.track_statistics.values())
    gops = [known.gop_us for known in stream.track_statistics.values() if known.gop_us]
    return StreamLine(
        role=role,
        channel=stream.channel,
        publication=f"{stream.stream_id.publication:x}",
        home_epoch=stream.stream_id.home_epoch,
        came_from=stream.came_from,
        goes_to=goes_to,
        video=_describe_tracks(stream, Kind.VIDEO),
        audio=_describe_tracks(stream, Kind.AUDIO),
        seconds=round(seconds, 1),
        mbps=round(payload_bytes * 8 / seconds / 1e6, 3),
        gop_s=round(max(gops, default=0) / 1e6, 2),
        ring_mib=round(stream.ring.payload_bytes / 2**20, 2),
        viewers=viewers,
        state=describe_state(stream, now),
        latency=latency or stream.grant.latency,
    )


def describe_state(stream: LiveStream, now: float) -> str:
    """Whether a stream is live, or waits for its publisher."""
    if stream.waiting_since is None:
        return "live"
    return f"waiting for its publisher {max(0.0, now - stream.waiting_since):.0f} s"


def _describe_tracks(stream: LiveStream, kind: Kind) -> str:
    found = []
    for track in stream.tracks.values():
        config = track.config
        if track.kind is not kind:
            continue
        if kind is Kind.VIDEO:
            rate = config.frame_rate_num / config.frame_rate_den if config.frame_rate_num else 0
            size = f" {config.width}x{config.height}" if config.width else ""
            found.append(f"{track.codec}{size}{f' {rate:.4g} fps' if rate else ''}")
        else:
            found.append(f"{track.codec} {config.sample_rate / 1000:g} kHz")
    return ", ".join(found)


SPECS = (
    MetricSpec(name="edged_pump_turns_total", help="Turns of the pump's loop.", labels=("role",)),
    MetricSpec(
        name="edged_pump_events_total", help="Sockets visited by the pump.", labels=("role",)
    ),
    MetricSpec(name="edged_pump_connections", help="Sockets in the pump.", labels=("role",)),
    MetricSpec(
        name="edged_pump_lag_seconds",
        help="How late the loop ran lately (decaying maximum).",
        labels=("role",),
    ),
    MetricSpec(name="edged_hub_streams", help="Live streams in the hub.", labels=("role",)),
    MetricSpec(name="edged_hub_ring_bytes", help="Payload held by all rings.", labels=("role",)),
    MetricSpec(
        name="edged_hub_units_total",
        help="Access units received.",
        labels=("role",),
    ),
)


class RoleMetrics:
    """Pump and hub of one role."""

    def __init__(self, role: str, pump: Pump, hub: Hub) -> None:
        self._labels = {"role": role}
        self._pump, self._hub = pump, hub

    def register(self, metrics: Metrics) -> None:
        """Have them read at each scrape."""
        metrics.register(SPECS, self.read)

    def read(self) -> Iterable[Sample]:
        """The values of now."""
        pump = self._pump.statistics()
        values = (
            pump.turns,
            pump.events,
            pump.connections,
            pump.lag_s,
            len(self._hub),
            self._hub.ring_bytes,
            self._hub.units_total,
        )
        return [
            Sample(spec.name, value, self._labels)
            for spec, value in zip(SPECS, values, strict=True)
        ]
