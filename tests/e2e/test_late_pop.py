"""A PoP that comes late: its first viewer goes back to the beginning, which the origin has."""

from urllib.parse import urlsplit

import pytest
import trio

from tests.conftest import require
from tests.e2e.clip import Packets, check_same, make_clip, play_ffmpeg, read_packets, run_ffmpeg
from tests.e2e.network import open_network
from tests.e2e.pair import open_pair
from tests.e2e.test_dvr import metrics_of
from tests.e2e.viewer import Viewer, fetch
from tests.wire.hls_reader import ReadSegment, read_media_playlist

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CLIP_S = 26
LATE_S = 20.0
LEAST_S = 12.0  # A playlist's, of three target durations (RFC 8216bis §6.2.2).


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
    unpushed = sum(bool(one.uri) and not one.parts for one in listed)  # Of each of two renditions;
    asked = after["edged_cache_fetches_total asked"]  # one more was pushed if it has left since.
    assert asked in (2 * unpushed, 2 * (unpushed - 1)), after
    assert unpushed >= 2
    assert given["edged_origin_segments_given_total"] == asked
    assert given["edged_origin_segments_refused_total"] == 0
    assert after["edged_playback_segments_lost_total"] == 0


@pytest.mark.slow
async def test_after_a_failover_a_late_pop_lists_what_can_be_had() -> None:
    """What came to the PoP, by itself or as it was asked for; the rest left the playlists."""
    require("ffmpeg")
    clip = make_clip(seconds=40)
    with trio.fail_after(100):
        async with open_pair(pops=("ams1", "ams2")) as pair, trio.open_nursery() as nursery:
            publish = ("-re", "-i", str(clip), "-c", "copy", "-f", "flv", pair.publish_url())
            nursery.start_soon(lambda: run_ffmpeg(*publish, timeout_s=60.0))
            await trio.sleep(LATE_S)
            late = Viewer(pair.playback("ams2"), "one")
            await late.join()
            path = urlsplit(next(t.url for name, t in late.tracks.items() if name[0] == "v")).path
            folder = path.rpartition("/")[0]

            async def listed() -> list[ReadSegment]:
                return read_media_playlist((await fetch(late.base, path)).body).segments

            assert (await listed())[0].msn == 0
            asked = (await fetch(late.base, f"{folder}/v0-2.m4s")).body
            await trio.sleep(1)
            before = (await listed())[-1].msn
            pair.origins[await pair.home()].process.kill()
            await pair.home(2)
            while (segments := await listed())[-1].msn < before + 3:  # noqa: ASYNC110 - far away
                await trio.sleep(0.2)
            assert segments[0].msn >= 2, "nobody has what nobody had asked for"
            assert not any(segment.gap for segment in segments)
            whole = [segment for segment in segments if segment.uri]
            assert sum(segment.duration_us for segment in whole) >= LEAST_S * 1e6
            for segment in whole:
                answer = await fetch(late.base, f"{folder}/{segment.uri}")
                assert answer.status == 200, segment
            assert (await fetch(late.base, f"{folder}/v0-2.m4s")).body == asked
            assert (await fetch(late.base, f"{folder}/v0-1.m4s")).status == 404
            metrics = await metrics_of(f"http://127.0.0.1:{pair.ports['ams2.metrics']}")
            assert metrics["edged_playback_segments_lost_total"] > 0
            nursery.cancel_scope.cancel()
