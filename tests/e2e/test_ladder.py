"""The ladder end to end: a stream, its rungs beside it, and an encoder that is killed."""

import json
import os
import re
import signal

import pytest
import trio

from tests.conftest import require
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.network import Network, open_network
from tests.e2e.viewer import fetch

pytestmark = [pytest.mark.e2e, pytest.mark.light, pytest.mark.timeout(120)]

LADDER = """
[origin.ladder]
preset = "ultrafast"
rungs = [{height = 120, kbps = 200}, {height = 90, kbps = 100}]
"""
MASTER = "/live/one/master.m3u8"


async def playlist(network: Network, path: str) -> str:
    answer = await fetch(network.playback("b"), path)
    assert answer.status == 200, (path, answer.status)
    return answer.body.decode()


async def media_paths(network: Network) -> dict[str, str]:
    """The media playlists of the variants, by the rendition's name."""
    lines = (await playlist(network, MASTER)).splitlines()
    uris = [line for line in lines if line and not line.startswith("#")]
    return {uri.rpartition("/")[2].removesuffix(".m3u8"): f"/live/one/{uri}" for uri in uris}


def starts(text: str) -> dict[int, str]:
    """When each segment begins, by its number."""
    lines = text.splitlines()
    first = next(int(line.partition(":")[2]) for line in lines if "MEDIA-SEQUENCE" in line)
    dates = [line for line in lines if line.startswith("#EXT-X-PROGRAM-DATE-TIME")]
    return {first + number: date for number, date in enumerate(dates)}


async def probe(url: str, seconds: float) -> list[tuple[int, int, int]]:
    """Size of the pictures, and how many ffprobe reads in so many seconds."""
    shown = "stream=codec_type,width,height,nb_read_packets"
    done = await trio.run_process(
        [
            *("ffprobe", "-v", "error", "-count_packets", "-of", "json"),
            *("-read_intervals", f"%+{seconds:g}", "-show_entries", shown, url),
        ],
        capture_stdout=True,
    )
    return [
        (int(stream["width"]), int(stream["height"]), int(stream["nb_read_packets"]))
        for stream in json.loads(done.stdout)["streams"]
        if stream["codec_type"] == "video"
    ]


async def check_rung(url: str, size: str) -> None:
    """As ffprobe reads it."""
    ((width, height, pictures),) = await probe(url, 3)
    assert f"{width}x{height}" == size
    assert pictures > 60


async def check_in_step(network: Network, name: str, media: dict[str, str]) -> None:
    """The segments of a rung begin when the source's do."""
    rung = starts(await playlist(network, media[name]))
    source = starts(await playlist(network, media["v0"]))
    common = sorted(rung.keys() & source.keys())
    assert len(common) >= 2
    assert [rung[msn] for msn in common] == [source[msn] for msn in common]


async def until_whole(network: Network, path: str, msn: int) -> None:
    """Until a rung has a segment of that number or later, whole, behind what was absent."""
    with trio.fail_after(15):
        while True:
            text = await playlist(network, path)
            whole = [block for block in text.split("#EXTINF:")[1:] if block]
            after = max(starts(text)) - 1
            if after >= msn and "GAP" not in whole[-1] and "GAP" not in text.splitlines()[-6]:
                return
            await trio.sleep(0.3)


async def test_a_ladder_beside_the_source_and_the_death_of_its_encoder() -> None:
    require("ffmpeg", "ffprobe")
    clip = make_clip(seconds=36)
    with trio.fail_after(100):
        async with (
            open_network(channels=("one",), origin=LADDER) as network,
            trio.open_nursery() as nursery,
        ):
            origin = network.hosts["origin"].edged
            measured = await origin.wait_log("ladder slots")
            assert int(str(measured["slots"])) > 0
            nursery.start_soon(publish_ffmpeg, clip, network.publish_url("a", "one"))
            started = await origin.wait_log("ladder started")
            await network.hosts["b"].edged.wait_log("backbone session started")
            with trio.fail_after(10):
                while (await fetch(network.playback("b"), MASTER)).status != 200:  # noqa: ASYNC110
                    await trio.sleep(0.1)  # Until the directory has told who is live.
            master = await playlist(network, MASTER)
            sizes = re.findall(r"RESOLUTION=(\d+x\d+)", master)
            assert [size.partition("x")[2] for size in sizes] == ["180", "120", "90"], master
            media = await media_paths(network)
            assert list(media) == ["v0", "v120p", "v90p", "a0"], "and the sound alone"
            await trio.sleep(4)
            for name in ("v120p", "v90p"):
                await check_in_step(network, name, media)
            async with trio.open_nursery() as probing:
                for name, size in zip(("v120p", "v90p"), sizes[1:], strict=True):
                    probing.start_soon(check_rung, network.playback("b") + media[name], size)

            os.kill(int(str(started["pid"])), signal.SIGKILL)
            await origin.wait_log("ladder failed, begun anew")
            before = max(starts(await playlist(network, media["v0"])))
            await origin.wait_log("ladder started", count=2)
            await until_whole(network, media["v120p"], before + 2)
            source = await playlist(network, media["v0"])
            assert "GAP" not in source, "the source goes on"
            assert max(starts(source)) >= before + 3
            await check_in_step(network, "v120p", media)
            nursery.cancel_scope.cancel()
