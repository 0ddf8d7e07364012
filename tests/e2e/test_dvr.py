"""Seeking back: FFmpeg plays a live stream from its beginning, which is on the PoP's disk."""

from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import require
from tests.e2e.clip import Packets, check_same, make_clip, play_ffmpeg, read_packets, run_ffmpeg
from tests.e2e.network import open_network
from tests.e2e.viewer import Viewer, fetch

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

CLIP_S = 76
SEEK_S = 62.0  # 28 s of it are in memory then, and what 2.5 MiB hold of the rest.
POPS = """
[playback.hls]
playlist_s = 600.0
retention_s = 610.0
payload_bytes_max = 2621440
[playback.cache]
directory = "cache"
"""
ORIGIN_KEYS = "playlist_s = 600.0\npayload_bytes_max = 2621440\n"
ORIGIN = '[origin.cache]\ndirectory = "origin-cache"\n'


MEDIA_METRICS = ("edged_cache", "edged_playback_evicted", "edged_playback_segments", "edged_origin")


async def metrics_of(base: str) -> dict[str, float]:
    """Those of what is kept, by name and source or place."""
    text = (await fetch(base, "/metrics")).body.decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if name.startswith(MEDIA_METRICS):
                of = labels.get("source") or labels.get("place")
                found[f"{name} {of}" if of else name] = value
    return found


def stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.m4s"))


async def test_a_player_goes_back_to_the_beginning_of_a_live_stream() -> None:
    """Every packet that was published is played, byte for byte, from disk and from memory.

    At a PoP that was watched all the time, and at one that had nothing of it: from the origin's.
    """
    require("ffmpeg")
    clip = make_clip(seconds=CLIP_S)
    with trio.fail_after(200):
        async with open_network(
            channels=("one",), pops=POPS, origin=ORIGIN, origin_keys=ORIGIN_KEYS
        ) as network:
            url = network.publish_url("a", "one")
            publish = ("-re", "-i", str(clip), "-c", "copy", "-f", "flv", url)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: run_ffmpeg(*publish, timeout_s=100.0))
                viewer = Viewer(network.playback("b"), "one")
                nursery.start_soon(viewer.watch)
                await trio.sleep(SEEK_S)
                metrics = f"http://127.0.0.1:{network.ports['b.metrics']}"
                before = await metrics_of(metrics)
                assert before["edged_cache_spilled_total"] > 10, before
                assert before["edged_cache_bytes disk"] > 500_000, before
                on_disk = await trio.to_thread.run_sync(stored, network.folder / "cache")
                assert on_disk >= before["edged_cache_bytes disk"]
                late: list[Packets] = []

                async def play_late() -> None:
                    late.append(await play_ffmpeg(Viewer(network.playback("a"), "one").master_url))

                nursery.start_soon(play_late)
                played = await play_ffmpeg(viewer.master_url)
                after = await metrics_of(metrics)
                port = network.ports["origin.metrics"]
                given = await metrics_of(f"http://127.0.0.1:{port}")
            assert after["edged_cache_fetches_total disk"] > 10, after
            assert after["edged_cache_lost_total"] == after["edged_cache_dropped_total"] == 0
            assert after["edged_playback_evicted_early_total"] == 0
    check_same(read_packets(clip), played)
    assert given["edged_origin_spilled_total"] > 10, given
    assert given["edged_origin_window_bytes disk"] > 500_000, given
    assert given["edged_origin_segments_given_total"] > 20, given
    assert given["edged_origin_segments_refused_total"] == 0
    (late_packets,) = late
    check_same(read_packets(clip), late_packets)
    check_same(read_packets(clip), viewer.packets())
