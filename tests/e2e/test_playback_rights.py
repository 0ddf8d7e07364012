"""Protected channels in Chromium with stock hls.js: by the URL, by a cookie, from elsewhere."""

import re
import subprocess
import time
from pathlib import Path
from urllib.parse import urljoin

import msgspec
import pytest
import trio

from edged.playback.http import HttpServer, Response, Router
from edged.playback.rights import RightsGate, make_open
from edged.playback.token_keys import TokenKey, TokenKeys, import_key, sign_token
from edged.playback.web.pages import read_hls
from edged.policy.latency import PackagerConfig, choose_latency
from edged.policy.playback_rights import FORMS, Form, PlaybackRights, RightsConfig
from edged.runtime.pump import Pump
from edged.tools.conform.report import Report, Verdict
from tests.conftest import require
from tests.e2e.browser import open_browser
from tests.e2e.conformance import check_shown
from tests.e2e.dash_player import look, play_dash, take_dashjs
from tests.e2e.network import run_edged
from tests.e2e.test_dash import READ_S, read_ffmpeg
from tests.e2e.test_shared_cache import open_nginx
from tests.e2e.test_watch_page import STATE, require_player
from tests.e2e.tiny_edge import CHANNEL, TinyEdge, open_tiny_edge

pytestmark = pytest.mark.e2e

KEY = import_key("HS256", b"put-at-least-32-characters-of-chance-here")
WINDOW_S = 30.0


def token(expires_s: float = 60.0, channels: str = CHANNEL) -> str:
    claims: dict[str, object] = {"channels": channels, "exp": time.time() + expires_s}
    return sign_token(claims, KEY, algorithm="HS256")


SHOWN = {
    "query": "",
    "header": "Authorization: Bearer TOKEN",
    "cookie": "Cookie: edged_token=TOKEN",
}


async def curl(*arguments: str) -> tuple[str, int]:
    """Body and status."""
    command = ["curl", "-s", "--max-time", "14", "-w", "\\n%{http_code}", *arguments]
    done = await trio.run_process(command, capture_stdout=True, check=False)
    body, _, status = done.stdout.decode(errors="replace").rpartition("\n")
    return body, int(status)


def protect(edge: TinyEdge, *forms: Form) -> RightsGate:
    gate = RightsGate(
        edge.server, edge.hls, proxies=(), unix_now=time.time, window_s=lambda: WINDOW_S
    )
    keys = TokenKeys({"a": TokenKey("HS256", KEY)})
    config = RightsConfig(channels=("*",), forms=forms or FORMS, clock_skew_s=0.0)
    gate.use(PlaybackRights(config, keys.verify))
    return gate


async def test_the_watch_page_plays_by_its_url_until_the_token_ends() -> None:
    require_player()
    with trio.fail_after(45):
        async with (
            open_tiny_edge() as edge,
            open_browser() as browser,
            trio.open_nursery() as nursery,
        ):
            gate = protect(edge, "query", "path")
            nursery.start_soon(edge.broadcast, 60.0)
            page = await browser.open_page()
            await page.navigate(f"{edge.address}/watch/{CHANNEL}")
            await page.wait_for(f"{STATE} === 'denied'")
            text = "document.getElementById('veil-text').textContent"
            assert await page.evaluate(text) == (
                f"channel '{CHANNEL}' is protected: show a token by one of query, path"
            )
            expires_s = 9.0
            await page.navigate(f"{edge.address}/watch/{CHANNEL}?token={token(expires_s)}")
            ends_at = trio.current_time() + expires_s
            await page.wait_for(f"{STATE} === 'live'", 8)
            assert await page.evaluate("document.cookie") == ""
            assert gate.statistics().granted_total > 5
            await page.wait_for(f"{STATE} === 'denied'", 20)
            assert trio.current_time() > ends_at - 0.1
            assert "the token expired at" in str(await page.evaluate(text))
            assert gate.statistics().verified_total == 1
            nursery.cancel_scope.cancel()


async def test_the_watch_page_plays_by_a_cookie_of_its_site() -> None:
    require_player()
    with trio.fail_after(45):
        async with (
            open_tiny_edge() as edge,
            open_browser() as browser,
            trio.open_nursery() as nursery,
        ):
            gate = protect(edge, "cookie")
            nursery.start_soon(edge.broadcast, 60.0)
            page = await browser.open_page()
            await page.navigate(f"{edge.address}/")
            await page.evaluate(f"document.cookie = 'edged_token={token()}; path=/live/{CHANNEL}'")
            await page.navigate(f"{edge.address}/watch/{CHANNEL}")
            await page.wait_for(f"{STATE} === 'live'", 15)
            before = gate.statistics().granted_total
            await trio.sleep(2)
            told = gate.statistics()
            assert told.granted_total > before + 5
            assert (told.verified_total, told.refused_total) == (1, {})
            nursery.cancel_scope.cancel()


PLAY = """
new Promise((resolve) => {
  const video = document.createElement("video");
  video.muted = true;
  document.body.append(video);
  const hls = new Hls(SETTINGS);
  hls.on(Hls.Events.ERROR, (_, data) => data.fatal && resolve([data.details, data.response?.code]));
  video.addEventListener("timeupdate", () => video.currentTime > 0.5 && resolve(["plays", 200]));
  hls.loadSource("SOURCE");
  hls.attachMedia(video);
  video.play();
})
"""


async def start_site(nursery: trio.Nursery) -> str:
    """Another site, with an empty page; its address."""
    router = Router()
    router.get("/", lambda _: Response(content_type="text/html", body=b"<!doctype html>"))
    nursery.start_soon((pump := Pump()).run)
    address: str = await nursery.start(HttpServer(router).serve, pump, "127.0.0.1:0")
    return address


async def test_a_page_of_another_site_plays_and_sees_why_not() -> None:
    """Cross-origin: stock hls.js sends no cookies there, and sees a refusal's status by CORS."""
    require_player()
    with trio.fail_after(45):
        async with (
            open_tiny_edge() as edge,
            open_browser() as browser,
            trio.open_nursery() as nursery,
        ):
            protect(edge)
            nursery.start_soon(edge.broadcast, 60.0)
            site = await start_site(nursery)
            page = await browser.open_page()
            await page.navigate(f"http://{site}/")
            hls = read_hls()
            assert hls is not None
            await page.evaluate(f"{hls.decode()}; true")
            master = f"{edge.address}/live/{CHANNEL}/master.m3u8"

            async def play(source: str, settings: str = "{}") -> object:
                script = PLAY.replace("SOURCE", source).replace("SETTINGS", settings)
                return await page.evaluate(script)

            assert await play(f"{master}?token={token()}") == ["plays", 200]
            bearer = "{ xhrSetup: (xhr) => xhr.setRequestHeader('Authorization', 'Bearer TOKEN') }"
            assert await play(master, bearer.replace("TOKEN", token())) == ["plays", 200]
            assert await play(master) == ["manifestLoadError", 401]
            other = token(channels="other")
            assert await play(f"{master}?token={other}") == ["manifestLoadError", 403]
            nursery.cancel_scope.cancel()


DASH_AFTER_S = 14.0  # Players of DASH begin 12 s behind.
SHOWN_FRAMES = "document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames > 60"


async def test_players_of_dash_play_by_a_token_in_the_query_or_the_path() -> None:
    """dash.js on another site's page, and FFmpeg; both see why not, without one."""
    require("ffmpeg", "npm", "chromium")
    take_dashjs()
    with trio.fail_after(60):
        async with (
            open_tiny_edge() as edge,
            open_browser() as browser,
            trio.open_nursery() as nursery,
        ):
            gate = protect(edge, "query", "path")
            nursery.start_soon(edge.broadcast, 60.0)
            site = await start_site(nursery)
            await trio.sleep(DASH_AFTER_S)
            manifest = f"/live/{CHANNEL}/manifest.mpd"
            query = f"{edge.address}{manifest}?token={token()}"
            path = f"{edge.address}/t/{token()}{manifest}"
            for url in (query, path):
                assert (await read_ffmpeg(url))["audio"] > READ_S * 40
                page = await browser.open_page()
                await page.navigate(f"http://{site}/")
                await play_dash(page, url)
                await page.wait_for(SHOWN_FRAMES, 15)
                assert (await look(page)).errors == []
                await page.close()
            assert gate.statistics().refused_total == {}
            assert gate.statistics().verified_total == 2
            page = await browser.open_page()
            await page.navigate(f"http://{site}/")
            await play_dash(page, f"{edge.address}{manifest}")
            await page.wait_for("errors.length > 0", 15)
            assert "manifest.mpd is not available" in str(await page.evaluate("errors[0]"))
            assert any("status of 401" in line for line in page.console), page.console
            with pytest.raises(subprocess.CalledProcessError) as refused:
                await read_ffmpeg(f"{edge.address}{manifest}")
            assert b"401 Unauthorized" in refused.value.stderr
            nursery.cancel_scope.cancel()


async def test_a_shared_cache_hands_nothing_to_who_shows_nothing(tmp_path: Path) -> None:
    """nginx as anyone would set it up: what one viewer has fetched is not another's."""
    with trio.fail_after(30):
        async with open_tiny_edge() as edge, trio.open_nursery() as nursery:
            gate = protect(edge)
            nursery.start_soon(edge.broadcast, 25.0)
            async with open_nginx(tmp_path, edge.address) as cache:
                master = f"{cache.base}/live/{CHANNEL}/master.m3u8"
                fields = {form: (("-H", field) if field else ()) for form, field in SHOWN.items()}
                for form, more in fields.items():
                    filled = [text.replace("TOKEN", token()) for text in more]
                    target = master + (f"?token={token()}" if form == "query" else "")
                    playlist, status = await curl(*filled, target)
                    assert status == 200, form
                    (uri, *_) = [line for line in playlist.splitlines() if line[:1] != "#"]
                    media = urljoin(target, uri)
                    shown, status = await curl(*filled, media)
                    (init, *_) = re.findall('#EXT-X-MAP:URI="([^"]+)"', shown)
                    assert (await curl(*filled, urljoin(media, init)))[1] == 200
                    naked = re.sub("/t/[^/]+/", "/", media)
                    for target in (master, naked, urljoin(naked, init)):
                        assert (await curl(target))[1] == 401, (form, target)
                        wrong = ("-H", f"Authorization: Bearer {token(channels='other')}")
                        assert (await curl(*wrong, target))[1] == 403, (form, target)
                assert "HIT" not in cache.log.read_text()
                gate.use(make_open())
                assert (await curl(master))[1] == 200
            nursery.cancel_scope.cancel()


async def conform(url: str, folder: Path, code: int = 1) -> tuple[dict[int, Verdict], str]:
    """What `edged conform` finds, by item, and what it says of errors."""
    out, errors = await run_edged(folder, "conform", url, "--json", "--seconds", "5", code=code)
    if not out:
        return {}, errors
    report = msgspec.json.decode(out, type=Report)
    assert report.broken == []
    return {verdict.number: verdict for verdict in report.verdicts}, errors


async def test_a_protected_channel_conforms_by_a_url_with_its_token(tmp_path: Path) -> None:
    """All that is against the letter is the lack of TLS here."""
    master = f"/live/{CHANNEL}/master.m3u8"
    low, _ = choose_latency(PackagerConfig(), "low")
    with trio.fail_after(55):
        async with open_tiny_edge(segmenter=low) as edge, trio.open_nursery() as nursery:
            protect(edge)
            nursery.start_soon(edge.broadcast, 50.0)
            await trio.sleep(14.0)  # Then delta updates leave something out.
            query, _ = await conform(f"{edge.address}{master}?token={token()}", tmp_path)
            path, _ = await conform(f"{edge.address}/t/{token()}{master}", tmp_path)
            none, errors = await conform(f"{edge.address}{master}", tmp_path)
            nursery.cancel_scope.cancel()
    for verdicts in (query, path):  # 31 is HTTP/2, for which there is no TLS.
        assert {number for number, each in verdicts.items() if each.status == "fail"} == {31}
        check_shown("by a token", verdicts)
    assert none == {}
    assert "status 401" in errors
