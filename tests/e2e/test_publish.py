"""Published here, watched there: real encoders in, and what the edge serves is what they sent."""

import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.conftest import require
from tests.e2e.clip import (
    RATE,
    SIZE,
    check_same,
    check_spacing,
    make_clip,
    play_ffmpeg,
    publish_ffmpeg,
    publish_pyav,
    read_packets,
    run_ffmpeg,
)
from tests.e2e.network import open_demo, open_network
from tests.e2e.publisher import publish_clip
from tests.e2e.viewer import Viewer

pytestmark = pytest.mark.e2e

AAC_UNIT = Fraction(1024, 48_000)


async def probe(url: str) -> dict[str, dict[str, object]]:
    """What ffprobe says of each stream, by kind."""
    with trio.fail_after(20):
        done = await trio.run_process(
            ["ffprobe", "-v", "error", "-show_streams", "-of", "json", url], capture_stdout=True
        )
    return {stream["codec_type"]: stream for stream in json.loads(done.stdout)["streams"]}


async def test_ffmpeg_publishes_west_and_plays_east() -> None:
    require("ffmpeg", "ffprobe")
    clip = make_clip()
    published = read_packets(clip)
    assert any(packet.pts != packet.dts for packet in published["video"]), "with B-frames"
    with trio.fail_after(60):
        async with open_demo() as demo:
            viewer = Viewer(demo.playback("east"), "mine")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_ffmpeg, clip, demo.publish_url("west"))
                await viewer.watch()
            for track in viewer.tracks.values():
                track.check_flow()
            check_same(published, viewer.packets())
            check_spacing(viewer.packets()["video"], Fraction(1, RATE))
            check_spacing(viewer.packets()["audio"], AAC_UNIT)
            # The whole run is still there; now FFmpeg plays it, with its own reading of HLS.
            playlist = viewer.tracks["v0"].url
            streams = await probe(playlist)
            assert streams["video"]["codec_name"] == "h264"
            assert (streams["video"]["width"], streams["video"]["height"]) == SIZE
            assert Fraction(str(streams["video"]["avg_frame_rate"])) == RATE
            assert b"RESOLUTION=320x180" in viewer.master
            assert b"FRAME-RATE=30.000" in viewer.master


async def test_ffmpeg_plays_live_what_ffmpeg_publishes() -> None:
    """The multivariant playlist, read live by FFmpeg (no LL-HLS) until its end: framemd5."""
    require("ffmpeg")
    clip = make_clip()
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            nursery.start_soon(publish_ffmpeg, clip, demo.publish_url("east"))
            viewer = Viewer(demo.playback("west"), "mine")
            await viewer.join()
            await trio.sleep(2.5)  # FFmpeg does not wait for a first segment.
            played = await play_ffmpeg(viewer.master_url)
            check_same(read_packets(clip), played)


async def test_obs_like_publisher() -> None:
    clip = make_clip()
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            viewer = Viewer(demo.playback("east"), "mine")
            nursery.start_soon(publish_clip, clip, demo.publish_url("west"))
            await viewer.watch()
            for track in viewer.tracks.values():
                track.check_flow()
            check_same(read_packets(clip), viewer.packets())


async def decode(url: str) -> int:
    """The pictures that FFmpeg decodes without an error."""
    text = await run_ffmpeg(
        "-live_start_index", "0", "-xerror", "-i", url, "-map", "0:v:0", "-f", "framemd5", "-"
    )
    return sum(not line.startswith("#") for line in text.splitlines())


async def play_and_check(base: str, channel: str, clip: Path, codecs: Sequence[bytes]) -> None:
    """Watch a run to its end: the same payloads, named rightly, and FFmpeg decodes them all."""
    viewer = await Viewer(base, channel).watch()
    published = read_packets(clip)
    check_same(published, viewer.packets())
    for codec in codecs:
        assert codec in viewer.master
    assert await decode(viewer.tracks["v0"].url) == len(published["video"])


CODECS = {"hevc": b"hvc1.1.", "av1": b"av01.0.", "vp9": b"vp09.00.", "aac": b"mp4a.40.2",
          "opus": b"opus"}  # fmt: skip


@pytest.mark.parametrize("pairs", [("hevc-aac", "av1-opus"), ("vp9-opus", "hevc-opus")])
async def test_pyav_publishes_enhanced_rtmp(pairs: Sequence[str]) -> None:
    """FFmpeg's newer muxer, two publishers at once at different PoPs."""
    await publish_enhanced(publish_pyav, pairs)


@pytest.mark.parametrize("pairs", [("vp9-aac", "hevc-aac"), ("av1-opus", "vp9-opus")])
async def test_our_client_publishes_enhanced_rtmp(pairs: Sequence[str]) -> None:
    """The same from our client core, with OBS's chunks."""
    await publish_enhanced(publish_clip, pairs)


async def publish_enhanced(
    publish: Callable[[Path, str], Awaitable[object]], pairs: Sequence[str]
) -> None:
    require("ffmpeg")
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            places = (("mine", "west", "east"), ("demo", "east", "west"))
            for pair, (channel, there, here) in zip(pairs, places, strict=True):
                video, _, audio = pair.partition("-")
                clip = make_clip(video, audio, seconds=4)
                codecs = (CODECS[video], CODECS[audio])
                nursery.start_soon(publish, clip, demo.publish_url(there, channel))
                nursery.start_soon(play_and_check, demo.playback(here), channel, clip, codecs)


async def test_whole_network_under_tls() -> None:
    """Processes of their own; RTMPS with a record per chunk in at a, watched at b."""
    clip = make_clip()
    with trio.fail_after(60):
        async with open_network() as network, trio.open_nursery() as nursery:
            context = ssl.create_default_context(cafile=str(network.folder / "certs/ca.pem"))
            context.check_hostname = False  # The certificate names pop a, not an address.
            one, two = Viewer(network.playback("b"), "one"), Viewer(network.playback("b"), "two")
            nursery.start_soon(publish_ffmpeg, clip, network.publish_url("a", "two"))
            publisher = await nursery.start(
                lambda task_status: publish_clip(
                    clip, network.publish_url("a", "one", "rtmps"), tls=context,
                    task_status=task_status,
                )
            )  # fmt: skip
            async with trio.open_nursery() as viewers:
                viewers.start_soon(one.watch)
                viewers.start_soon(two.watch)
            for viewer in (one, two):
                for track in viewer.tracks.values():
                    track.check_flow()
                check_same(read_packets(clip), viewer.packets())
            assert publisher.records > len(read_packets(clip)["video"])
            started = network.hosts["a"].edged.log("publisher started")
            assert {line["protocol"] for line in started} == {"rtmp", "rtmps"}
            for host in network.hosts.values():
                assert "plain TCP" not in host.edged.log_text()
                assert not any(key in host.edged.log_text() for key in network.keys.values())


async def test_timestamps_wrap_without_a_gap() -> None:
    """4 h 39 m: 24 bits become extended timestamps. 49 days: 32 bits begin anew."""
    clip = make_clip()
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            for channel, wrap_ms in (("mine", 0xFFFFFF), ("demo", 0xFFFFFFFF)):
                nursery.start_soon(
                    partial(
                        publish_clip, clip, demo.publish_url("west", channel),
                        start_ms=wrap_ms - 3000,
                    )
                )  # fmt: skip
            async with trio.open_nursery() as watching:
                viewers = [Viewer(demo.playback("east"), name) for name in ("mine", "demo")]
                for viewer in viewers:
                    watching.start_soon(viewer.watch)
            for viewer in viewers:
                for track in viewer.tracks.values():
                    track.check_flow()
                check_same(read_packets(clip), viewer.packets())
                check_spacing(viewer.packets()["video"], Fraction(1, RATE))
