"""What `[playback]` takes, and what becomes of it."""

from pathlib import Path

import msgspec
import pytest

from edged.playback.config import HlsConfig, PlaybackConfig
from edged.policy.edge_cache import CacheLimits
from edged.policy.segment_cache import CacheConfig


def test_config_reaches_the_window() -> None:
    limits = HlsConfig(playlist_s=12.0, retention_s=22.0, payload_bytes_max=2**20).window_limits()
    assert (limits.playlist_s, limits.retention_s, limits.payload_bytes_max) == (12, 22, 2**20)


def test_item_20_holds_for_every_config() -> None:
    with pytest.raises(ValueError, match="retention_s 21 is less than playlist_s"):
        HlsConfig(playlist_s=12.0, retention_s=21.0)


def test_config_table() -> None:
    config = msgspec.toml.decode(
        """
        listen = "127.0.0.1:0"
        [hls]
        playlist_s = 20.0
        [tls]
        certificate = "a.pem"
        key = "b.pem"
        """,
        type=PlaybackConfig,
        dec_hook=lambda kind, value: kind(value),  # Paths, as the loader does.
    )
    assert config.hls.window_limits().playlist_s == 20.0
    assert config.tls is not None
    assert config.tls.listen == "[::]:8443"
    with pytest.raises(msgspec.ValidationError, match="retention_s 1 is less than"):
        msgspec.toml.decode("[hls]\nretention_s = 1", type=PlaybackConfig)


def test_hours_can_be_listed_and_a_day_cannot() -> None:
    text = "[hls]\nplaylist_s = {}\nretention_s = 90000\npayload_bytes_max = 1073741824"
    config = msgspec.toml.decode(text.format(21_600), type=PlaybackConfig)
    assert config.hls.window_limits().playlist_s == 21_600
    with pytest.raises(msgspec.ValidationError, match=r"<= 21600.*hls.playlist_s"):
        msgspec.toml.decode(text.format(21_601), type=PlaybackConfig)


def test_without_a_directory_there_is_no_disk() -> None:
    assert CacheConfig().limits() == CacheLimits(memory_bytes_max=4 * 2**30, disk_bytes_max=0)
    text = '[cache]\ndirectory = "/var/cache/edged"\nmemory_bytes_max = 67108864'
    cache = msgspec.toml.decode(
        text, type=PlaybackConfig, dec_hook=lambda kind, value: kind(value)
    ).cache
    assert cache.directory == Path("/var/cache/edged")
    assert cache.limits() == CacheLimits(memory_bytes_max=2**26, disk_bytes_max=32 * 2**30)
    for key in ("memory_bytes_max", "disk_bytes_max"):
        with pytest.raises(msgspec.ValidationError, match=rf">= 67108864.*cache.{key}"):
            msgspec.toml.decode(f"[cache]\n{key} = 67108863", type=PlaybackConfig)
