"""One public HTTPS port carries it all: playlists, pages, the API, an upgrade, by both versions."""

import json
import ssl
from pathlib import Path

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.backbone.network import until
from tests.conftest import require
from tests.e2e.browser import open_browser
from tests.e2e.proxy import Bottleneck, Weather, open_proxy
from tests.ingest.rtmp_peer import encoder
from tests.playback.test_upgrades import EchoTaker
from tests.roles.network import KEY, broadcast
from tests.roles.test_operations import hosting
from tests.tools.conform.test_client import serving
from tests.tools.conform.test_probe import http

pytestmark = pytest.mark.e2e

REFUSED = {"https": 5, "http": 2}  # So often in a row.
LARGE_BYTES = 1_000_000  # 10 s of that network's uplink: the answer comes long before its end.
FORMAT = "\n%{http_version} %{http_code}"


async def curl(*arguments: str) -> tuple[str, str, int]:
    """Body, version and status."""
    command = ["curl", "-sk", "--max-time", "10", "-w", FORMAT, *arguments]
    done = await trio.run_process(command, capture_stdout=True, check=False)
    assert done.returncode == 0, done
    body, _, last = done.stdout.decode().rpartition("\n")
    version, status = last.split()
    return body, version, int(status)


@pytest.mark.parametrize(("option", "version"), [("--http1.1", "1.1"), ("--http2", "2")])
async def test_all_by_one_port(option: str, version: str, tmp_path: Path) -> None:
    require("curl")
    with trio.fail_after(40):
        async with hosting(tmp_path) as host, encoder(host.rtmp(), KEY) as peer:
            await peer.accepted()
            await broadcast(peer)
            await until(lambda: host.pop.uplinks.lookup("alice"))
            host.pop.http.upgrades.mount("/chat/ws", EchoTaker())
            base = f"https://{host.rtmp('https')}"

            async def ask(path: str, *more: str) -> tuple[str, int]:
                body, told, status = await curl(option, *more, f"{base}{path}")
                assert told == version
                return body, status

            playlist, status = await ask("/live/alice/master.m3u8")
            assert (playlist[:7], status) == ("#EXTM3U", 200)
            page, status = await ask("/watch/alice")
            assert ("<video" in page, status) == (True, 200)
            api = "/api/v1/streams/alice"
            shown, status = await ask(api)
            assert (json.loads(shown)["channel"], status) == ("alice", 200)
            playlist, status = await ask(f"{api}/playlist.m3u8")
            assert (playlist[:7], status) == ("#EXTM3U", 200)
            bearer = ("-X", "PATCH", "--oauth2-bearer", KEY)
            changed, status = await ask(api, *bearer, "--json", '{"title": "New"}')
            assert (json.loads(changed)["title"], status) == ("New", 200)
            large = json.dumps({"title": "x" * 20_000})
            assert (await ask(api, *bearer, "--json", large))[1] == 413
            assert (await ask(api, "-X", "DELETE"))[1] == 405
            wanted = json.dumps({"stream_key": KEY, "codec": "h264"})
            offer, status = await ask("/api/v1/streams/ingest", "--json", wanted)
            assert ("rtmp" in offer, status) == (True, 200)
            assert (await ask("/metrics"))[1] == 404, "what is not public is not here"
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            url = f"wss://{host.rtmp('https')}/chat/ws"
            async with open_websocket_url(url, ssl_context=context) as websocket:
                await websocket.send_message("hello")
                assert await websocket.get_message() == "hello"


async def test_a_body_that_is_too_large_is_refused_early_and_heard_of_on_another_site(
    tmp_path: Path,
) -> None:
    """RFC 9113 §8.1: the answer, then RST_STREAM (NO_ERROR); by HTTP/1.1 the server listens on."""
    require("chromium")
    weather = Weather(rtt_s=0.1, up=Bottleneck(LARGE_BYTES / 10))
    with trio.fail_after(60):
        async with (
            hosting(tmp_path) as host,
            serving(http(lambda _: b"<!doctype html><title>Another site</title>")) as (site, _),
            open_browser() as browser,
        ):
            page = await browser.open_page()
            await page.navigate(f"{site}/")
            for scheme, times in REFUSED.items():
                port = int(host.rtmp(scheme).rpartition(":")[2])
                async with open_proxy(port, weather) as proxy:
                    url = f"{scheme}://127.0.0.1:{proxy.port}/api/v1/streams/ingest"
                    begun_at = trio.current_time()
                    for _ in range(times):
                        told = await page.evaluate(post(url))
                        assert told == [413, "body exceeds 65536 bytes\n"], page.console
                    assert trio.current_time() - begun_at < times * 5, "they came early"
                    if scheme == "https":
                        assert host.pop.http.h2_connections == proxy.connections == 1


def post(url: str) -> str:
    """What a page does, and the answer that it sees."""
    body = f"body: 'x'.repeat({LARGE_BYTES})"
    kind = "headers: {'content-type': 'application/json'}"  # Which a preflight has to allow.
    return f"""fetch("{url}", {{ method: "POST", {kind}, {body} }}).then(
        async (answer) => [answer.status, await answer.text()],
        (error) => [0, String(error)])"""
