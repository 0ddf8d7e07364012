"""`[playback]`: what viewers connect to, and what is kept for them."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from edged.policy.playback_rights import RightsConfig
from edged.policy.segment_cache import CacheConfig
from edged.policy.window_limits import WindowLimits

SEGMENT_S_MAX = 10.0  # Ours last 4.5 s at most; a stream with long GOPs may have longer ones.


class HlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[playback.hls]`: what the edge keeps of each stream that is watched."""

    playlist_s: Annotated[float, Meta(ge=12, le=21_600)] = 30.0  # The DVR window.
    retention_s: Annotated[float, Meta(ge=0)] = 90.0  # Beyond: slow viewers, and clips.
    payload_bytes_max: Annotated[int, Meta(ge=2**20)] = 256 * 2**20  # Of one stream, in memory.
    # Without a request for so long, a channel's subscription is given back.
    unwatched_s: Annotated[float, Meta(ge=60, le=86_400)] = 60.0

    def __post_init__(self) -> None:
        """RFC 8216bis §6.2.2: a segment stays for its own and the longest playlist's duration.

        Streams whose target duration asks for more get more from their window.
        """
        least_s = self.playlist_s + SEGMENT_S_MAX
        if self.retention_s < least_s:
            raise ValueError(
                f"retention_s {self.retention_s:g} is less than playlist_s + {SEGMENT_S_MAX:g},"
                f" which is {least_s:g}"
            )

    def window_limits(self) -> WindowLimits:
        """The same for the window."""
        return WindowLimits(
            playlist_s=self.playlist_s,
            retention_s=self.retention_s,
            payload_bytes_max=self.payload_bytes_max,
        )


class PlaybackTlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[playback.tls]`: HTTPS beside HTTP."""

    certificate: Path
    key: Path
    listen: str = "[::]:8443"
    http2: bool = True  # Offered to who speaks it; else HTTP/1.1 alone.


class PlaybackConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[playback]`: what viewers connect to."""

    listen: str = "[::]:8080"
    hls: HlsConfig = HlsConfig()
    rights: RightsConfig = RightsConfig()
    cache: CacheConfig = CacheConfig()
    tls: PlaybackTlsConfig | None = None
