"""A PoP that comes late: its first viewer goes back to the beginning, which the origin has."""

from urllib.parse import urlsplit

import pytest
import trio

from tests.conftest import require
from tests.e2e.clip import Packets, check_same, make_clip, play_ffmpeg, read_packets, run_ffmpeg
from tests.e2e.network import open_network
from tests.e2e.test_dvr import metrics_of
from tests.e2e.viewer import Viewer, fetch
from tests.wire.hls_reader import read_media_playlist

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CLIP_S = 26
LATE_S = 20.0


async def test_the_first_viewer_of_a_late_pop_goes_back_to_the_beginning() -> None:
    """Every packet that was published is played, and each segment was fetched once for two."""
    require("ffmpeg")
    clip = make_clip(seconds=CLIP_S)
    played: list[Packets] = []
    with trio.fail_after(100):
        async with open_network(channels=("one",)) as network:
            url = network.publish_url("a", "one")
            publish = ("-re", "-i", str(clip), "-c", "copy", "-f", "flv", url)
            late = Viewer(network.playback("b"), "one")
            metrics = {
                host: f"http://127.0.0.1:{network.ports[f'{host}.metrics']}"
                for host in ("b", "origin")
            }

            async def play() -> None:
                played.append(await play_ffmpeg(late.master_url))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: run_ffmpeg(*publish, timeout_s=60.0))
                await trio.sleep(LATE_S)
                await late.join()
                (video, _) = late.tracks.values()
                answer = await fetch(late.base, urlsplit(video.url).path)
                listed = read_media_playlist(answer.body).segments
                assert listed[0].msn == 0, "all of it is in the playlist at once"
                for _ in range(2):
                    nursery.start_soon(play)
            after, given = await metrics_of(metrics["b"]), await metrics_of(metrics["origin"])
    for packets in played:
        check_same(read_packets(clip), packets)
    asked = 2 * (len(listed) - 2)  # Of two renditions those that were not pushed: all but two.
    assert after["edged_cache_fetches_total asked"] == asked, after
    assert given["edged_origin_segments_given_total"] == asked
    assert given["edged_origin_segments_refused_total"] == 0
    assert after["edged_playback_segments_lost_total"] == 0
