"""Both cores against others' programs on loopback sockets: Debian's ffmpeg and nginx-rtmp."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.media.access_unit import AccessUnit
from edged.wire.rtmp import (
    FFMPEG_LIKE,
    PublishAccepted,
    PublishEnded,
    PublishRequested,
    RtmpClientOptions,
    RtmpClientSession,
    RtmpServerSession,
    parse_url,
)
from edged.wire.rtmp.client import Step
from tests.conftest import require, require_found
from tests.wire.rtmp.peers import AAC, H264, entropy, even_pieces, feed, h264_unit, unit
from tests.wire.rtmp.record import record_one

pytestmark = pytest.mark.e2e
MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
TIMEOUT_S = 10.0


def test_debians_ffmpeg_publishes_to_the_core() -> None:
    require("ffmpeg")
    source = "-f lavfi -i testsrc=size=128x72:rate=30 -f lavfi -i sine=sample_rate=44100 -t 1"
    encode = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac -f flv"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"rtmp://127.0.0.1:{listener.getsockname()[1]}/live/key"
        command = ["ffmpeg", "-loglevel", "error", *source.split(), *encode.split(), url]
        with subprocess.Popen(command) as publisher:  # noqa: S603 (our own command line)
            wire = record_one(listener)
            assert publisher.wait(TIMEOUT_S) == 0
    server = RtmpServerSession(now=0.0, entropy=entropy)
    events = feed(server, even_pieces(wire, 1448))
    assert isinstance(events[0], PublishRequested)
    assert isinstance(events[-1], PublishEnded)
    units = [event for event in events if isinstance(event, AccessUnit)]
    assert len([one for one in units if one.track_id == 1]) == 30
    assert len([one for one in units if one.track_id == 2]) >= 43
    assert server.statistics().chunk_bytes == 65536, "ffmpeg mirrors our chunk size"


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[int]:
    """Debian's nginx with its rtmp module; its port."""
    require("nginx")
    require_found(str(MODULE), found=MODULE.exists())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/log;"
        f"load_module {MODULE}; events {{}}"
        f"rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on;"
        f"record all; record_path {tmp_path}; }} }} }}"
    )
    command = ["nginx", "-p", str(tmp_path), "-c", str(conf), "-e", str(tmp_path / "log")]
    with subprocess.Popen(command) as server:  # noqa: S603 (our own command line)
        yield port
        server.terminate()
        server.wait(TIMEOUT_S)


def connect(port: int) -> socket.socket:
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


@pytest.mark.parametrize(
    "options",
    [
        RtmpClientOptions(),
        FFMPEG_LIKE,
        RtmpClientOptions(handshake_scheme=0),
        RtmpClientOptions(handshake_scheme=1),
    ],
    ids=["obs", "ffmpeg", "scheme 0", "scheme 1"],
)
def test_the_client_core_publishes_to_nginx(
    nginx: int, tmp_path: Path, options: RtmpClientOptions
) -> None:
    url = parse_url(f"rtmp://127.0.0.1:{nginx}/live/key")
    client = RtmpClientSession(now=time.monotonic(), entropy=os.urandom, url=url, options=options)
    with connect(nginx) as peer:
        events: list[object] = []
        while client.step is not Step.PUBLISHING:
            peer.sendall(client.data_to_send())
            data = peer.recv(65536)
            assert data, "nginx closed"
            events += client.receive_data(data, time.monotonic())
        assert events == [PublishAccepted()]
        client.send_metadata({"width": 128.0, "height": 72.0, "framerate": 30.0})
        client.send_track(H264)
        client.send_track(AAC)
        for index in range(10):
            client.send_unit(h264_unit(index * 3000, key=index == 0, size=20_000), H264)
            client.send_unit(unit(AAC, index * 1024, bytes(300)), AAC)
        client.close()
        peer.sendall(client.data_to_send())
        peer.settimeout(TIMEOUT_S)
        recorded = tmp_path / "key.flv"
        until = time.monotonic() + TIMEOUT_S
        while not (recorded.exists() and recorded.stat().st_size > 200_000):
            assert time.monotonic() < until, "nginx records what we send"
            time.sleep(0.02)
