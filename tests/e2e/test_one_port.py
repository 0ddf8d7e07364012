"""One public HTTPS port carries it all: playlists, pages, the API, an upgrade, by both versions."""

import json
import ssl
from pathlib import Path

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.backbone.network import until
from tests.conftest import require
from tests.ingest.rtmp_peer import encoder
from tests.playback.test_upgrades import EchoTaker
from tests.roles.network import KEY, broadcast
from tests.roles.test_operations import hosting

pytestmark = pytest.mark.e2e

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
