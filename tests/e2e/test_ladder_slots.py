"""Slots of ladders end to end: a partner preempts, and rungs go on at another origin."""

import re
import tempfile
from pathlib import Path

import msgspec
import pytest
import trio

from edged.roles.common import StreamLine
from edged.roles.status import Status
from tests.conftest import require
from tests.e2e.browser import open_browser
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.network import open_edged, run_edged, take_ports
from tests.e2e.pair import Pair, open_pair
from tests.e2e.test_watch_page import STATE
from tests.e2e.viewer import fetch
from tests.wire.hls_reader import ReadSegment, read_media_playlist

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

LADDER = """
[origin.ladder]
preset = "ultrafast"
slots = {slots}
rungs = [{{height = 120, kbps = 200}}, {{height = 90, kbps = 100}}]
"""
TOKEN = "the-token-of-this-network"  # noqa: S105 - it opens nothing


async def segments(http: str, name: str, channel: str = "one") -> list[ReadSegment]:
    """A rendition's playlist of now, by its name in the multivariant playlist."""
    answer = await fetch(http, f"/live/{channel}/master.m3u8")
    found = re.search(rf"^(.*/{name}\.m3u8)$", answer.body.decode(), re.MULTILINE)
    if answer.status != 200 or found is None:
        return []
    media = await fetch(http, f"/live/{channel}/{found[1]}")
    return read_media_playlist(media.body).segments if media.status == 200 else []


async def until_made(http: str, name: str, after: int = -1, channel: str = "one") -> int:
    """Until a rung has a whole segment that is media, of a later number than that; which."""
    with trio.fail_after(25):
        while True:
            for segment in await segments(http, name, channel):
                if segment.msn > after and segment.uri and not segment.gap:
                    return segment.msn
            await trio.sleep(0.2)


async def homes(pair: Pair, count: int) -> str:
    with trio.fail_after(20):
        return await pair.home(count)


async def test_rungs_go_on_when_their_origin_dies_and_another_takes_over() -> None:
    require("ffmpeg")
    clip = make_clip(seconds=40)
    ladder = LADDER.format(slots=100)
    with trio.fail_after(100):
        async with open_pair(origin_tables=ladder) as pair, trio.open_nursery() as nursery:
            nursery.start_soon(publish_ffmpeg, clip, pair.publish_url())
            home = await homes(pair, 1)
            await pair.origins[home].wait_log("ladder started")
            for name in ("v120p", "v90p"):
                await until_made(pair.http, name, 0)
            before = max(segment.msn for segment in await segments(pair.http, "v0"))
            pair.origins[home].process.kill()
            other = await homes(pair, 2)
            assert other != home
            await pair.origins[other].wait_log("ladder started")
            for name in ("v120p", "v90p"):
                await until_made(pair.http, name, before + 1)
                rung, source = await segments(pair.http, name), await segments(pair.http, "v0")
                times = {s.msn: s.date_time for s in source}
                common = [s for s in rung if s.msn in times and not s.gap]
                assert [s.date_time for s in common] == [times[s.msn] for s in common]
            assert not any(s.gap for s in source), "the source has it all"
            assert len(pair.pop.log("publisher started")) == 1
            nursery.cancel_scope.cancel()


def write_config(folder: Path) -> tuple[Path, dict[str, str]]:
    """All roles in one process, with slots for one ladder."""
    ports = take_ports(["irs", "backbone", "rtmp", "http", "page", "metrics"])
    at = {what: f"127.0.0.1:{port}" for what, port in ports.items()}
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    path = folder / "one.toml"
    path.write_text(f"""
[irs]
listen = "{at["irs"]}"
warmup_s = 0.0
[origin]
name = "fra1"
listen = "{at["backbone"]}"
{LADDER.format(slots=3)}
[irs_client]
addresses = ["{at["irs"]}"]
[pop]
name = "ams1"
[ingest.rtmp]
listen = "{at["rtmp"]}"
[playback]
listen = "{at["http"]}"
[[stream_keys.static]]
channel = "one"
key = "key-of-one-only"
title = "A basic stream"
[[stream_keys.static]]
channel = "star"
key = "key-of-star-only"
class = "partner"
title = "A partner's"
[admin]
socket = "{folder}/admin.sock"
listen = "{at["page"]}"
token_file = "{folder}/token"
[metrics]
listen = "{at["metrics"]}"
""")
    return path, at


async def ladder_of(folder: Path, channel: str) -> str:
    """What `edged streams` says of it."""
    out, _ = await run_edged(folder, "streams", "--json", "--socket", f"{folder}/admin.sock")
    lines = msgspec.json.decode(out, type=list[StreamLine])
    return next((line.ladder for line in lines if line.channel == channel and line.ladder), "")


async def until_ladder(folder: Path, channel: str, pattern: str) -> str:
    with trio.fail_after(20):
        while True:
            text = await ladder_of(folder, channel)
            if re.match(pattern, text):
                return text
            await trio.sleep(0.3)


async def test_a_partner_preempts_and_all_who_look_are_told() -> None:
    require("ffmpeg", "chromium")
    clip = make_clip(seconds=60)
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name, trio.fail_after(110):
        folder = Path(name)
        path, at = write_config(folder)
        rtmp, http = f"rtmp://{at['rtmp']}/live", f"http://{at['http']}"
        async with (
            open_edged(folder, "all", "run", "-c", str(path)) as edged,
            open_browser() as browser,
            trio.open_nursery() as nursery,
        ):
            await edged.wait_log("backbone session started", count=4)
            nursery.start_soon(publish_ffmpeg, clip, f"{rtmp}/key-of-one-only")
            await until_made(http, "v120p", 0)
            await until_ladder(folder, "one", r"ladder: 120p 90p")
            nursery.start_soon(publish_ffmpeg, clip, f"{rtmp}/key-of-star-only")
            told = await until_ladder(folder, "one", "ladder preempted")
            assert told == "ladder preempted for partner star; it needs 2 of 3 slots"
            await until_ladder(folder, "star", r"ladder: 120p 90p")
            for rung in ("v120p", "v90p"):
                await until_made(http, rung, channel="star")

            watch = await browser.open_page()
            await watch.navigate(f"{http}/watch/star")
            await watch.wait_for(f"{STATE} === 'live'", 20)
            await watch.wait_for("document.querySelector('video').currentTime > 1", 10)
            labels = "[...document.querySelectorAll('#quality span')].map(o => o.textContent)"
            assert await watch.evaluate(labels) == ["Auto", "180p30", "120p30", "90p30"]
            master = (await fetch(http, "/live/star/master.m3u8")).body.decode()
            assert master.count("#EXT-X-STREAM-INF") == 4, "and the sound alone, not for hls.js"
            await watch.close()

            page = await browser.open_page(1440, 900)
            await page.navigate(f"http://{at['page']}/#{TOKEN}")
            row = "document.querySelector('[data-channel=one]')"
            await page.wait_for(f"{row}?.textContent.includes('preempted for partner star')", 10)
            head = "document.getElementById('headline').textContent"
            assert await page.evaluate(head) == "1 ladder at fra1 waits for compute"
            await page.evaluate("document.querySelector('[data-channel=star] .row').click()")
            facts = "document.querySelector('[data-channel=star] .facts')?.textContent"
            await page.wait_for(f"/Ladder120p 90p.*\\(2 slots\\)/.test({facts})", 10)
            assert not [line for line in page.console if "401" not in line]

            answer = await fetch(f"http://{at['metrics']}", "/metrics")
            text = answer.body.decode()
            for line in (
                'edged_ladder_slots{role="origin fra1",which="total"} 3.0',
                'edged_ladder_slots{role="origin fra1",which="used"} 2.0',
                'edged_ladder_preempted_streams{role="origin fra1"} 1.0',
                'edged_ladder_preemptions_total{role="origin fra1"} 1.0',
            ):
                assert line in text
            out, _ = await run_edged(
                folder, "top", "--once", "--json", "--socket", f"{folder}/admin.sock"
            )
            status = msgspec.json.decode(out, type=Status)
            ladders = {each.channel: each.ladder for each in status.streams}
            assert ladders["one"] is not None
            assert (ladders["one"].state, ladders["one"].rungs) == ("preempted", [])
            source = await segments(http, "v0")
            assert source
            assert not any(segment.gap for segment in source)
            nursery.cancel_scope.cancel()
