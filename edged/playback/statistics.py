"""What is counted of playback."""

from msgspec import Struct


class HttpStatistics(Struct, frozen=True):
    """Counters since the start."""

    connections: int
    h2_connections: int
    connections_total: int
    responses_total: dict[int, int]  # By status.
    body_bytes_total: int
    refused_total: int
    stalled_total: int
    upgraded_total: int


class HlsStatistics(Struct, frozen=True):
    """What is held now, and counters since the start."""

    channels: int
    streams: int
    payload_bytes: int
    blocked: int
    released_total: int
    fenced_total: int
    parts_refused_total: int
    parts_missing_total: int
    segments_missing_total: int
    segments_lost_total: int
    segments_evicted_early_total: int
    segments_evicted_needed_total: int
    manifests_total: int
