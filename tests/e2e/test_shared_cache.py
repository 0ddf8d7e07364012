"""A shared cache in front of a PoP: nginx, as anyone would set it up."""

import collections
import contextlib
import getpass
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from tests.conftest import require
from tests.e2e.clip import check_same, make_clip, read_packets
from tests.e2e.network import open_demo, take_ports
from tests.e2e.publisher import publish_clip
from tests.e2e.viewer import Viewer, fetch

pytestmark = pytest.mark.e2e

VIEWERS = 12
CONFIG = """\
daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    log_format short '$request_uri $status $upstream_cache_status';
    access_log {folder}/access.log short;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache keys_zone=live:4m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache live;
            proxy_cache_lock on;
            proxy_cache_lock_age 15s;
            proxy_cache_lock_timeout 15s;
        }}
    }}
}}
"""


class Cache(Struct, frozen=True):
    base: str
    log: Path

    def fetches(self) -> collections.Counter[str]:
        """How often each address was fetched from the PoP."""
        lines = [line.split(" ") for line in self.log.read_text().splitlines()]
        return collections.Counter(uri for uri, _, cached in lines if cached != "HIT")

    def requests(self) -> int:
        return len(self.log.read_text().splitlines())


@contextlib.asynccontextmanager
async def open_nginx(folder: Path, upstream: str) -> AsyncIterator[Cache]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        require("nginx")
    assert program is not None
    port = take_ports(["nginx"])["nginx"]
    config = folder / "nginx.conf"
    config.write_text(
        CONFIG.format(user=getpass.getuser(), folder=folder, port=port, upstream=upstream)
    )
    process = await trio.lowlevel.open_process(
        [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    )
    try:
        base = f"http://127.0.0.1:{port}"
        with trio.fail_after(10):
            while True:
                assert process.poll() is None, (folder / "error.log").read_text()
                with contextlib.suppress(OSError):
                    await fetch(base, "/time")
                    break
                await trio.sleep(0.05)
        yield Cache(base, folder / "access.log")
    finally:
        process.terminate()
        with trio.CancelScope(shield=True), trio.move_on_after(5):
            await process.wait()
        if process.poll() is None:
            process.kill()


async def test_many_viewers_through_one_cache_cost_one_fetch_each() -> None:
    clip = make_clip()
    with trio.fail_after(80):
        async with (
            open_demo() as demo,
            open_nginx(demo.folder, demo.playback("east")) as cache,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(publish_clip, clip, demo.publish_url("west"))
            viewers = [Viewer(cache.base, "mine") for _ in range(VIEWERS)]
            await viewers[0].join()
            async with trio.open_nursery() as watching:
                for viewer in viewers:
                    watching.start_soon(viewer.watch)
            for viewer in viewers:
                check_same(read_packets(clip), viewer.packets())
                # nginx looks every 500 ms whether an object that it waits for has come.
                for track in viewer.tracks.values():
                    track.check_flow(stall_s_max=3.0)
            media = {
                uri: count
                for uri, count in cache.fetches().items()
                if ".m4s" in uri or ".mp4" in uri or "_HLS_msn" in uri
            }
            assert len(media) > 60
            twice = {uri: count for uri, count in media.items() if count > 1}
            assert not twice
            assert cache.requests() > VIEWERS * len(media) / 3


async def test_viewers_share_every_url() -> None:
    """No address is one viewer's own, and nothing is set that would make a cache keep apart."""
    clip = make_clip()
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            nursery.start_soon(publish_clip, clip, demo.publish_url("west"))
            one, two = Viewer(demo.playback("east"), "mine"), Viewer(demo.playback("east"), "mine")
            west = Viewer(demo.playback("west"), "mine")
            async with trio.open_nursery() as watching:
                for viewer in (one, two, west):
                    watching.start_soon(viewer.watch)

            def media(viewer: Viewer) -> set[str]:
                found = {url.removeprefix(viewer.base) for url in viewer.urls}
                return {url for url in found if "?" not in url}

            assert media(one) == media(two) == media(west)
            assert one.master == two.master == west.master
            for path in media(one):
                answers = [await fetch(viewer.base, path) for viewer in (one, two, west)]
                if path.endswith((".m4s", ".mp4")):
                    assert answers[0].body == answers[1].body == answers[2].body
                for answer in answers:
                    assert "set-cookie" not in answer.fields
                    # Text has two codings; whoever takes gzip shares the one.
                    text = path.endswith(".m3u8") and answer.status == 200
                    assert answer.fields.get("vary", "") == ("Accept-Encoding" if text else "")
                    assert answer.fields["access-control-allow-origin"] == "*"
