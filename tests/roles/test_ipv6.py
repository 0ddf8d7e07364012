"""Publishers and viewers of a PoP over IPv6 and IPv4: HTTP/1.1, HTTP/2 and RTMP, real listeners."""

import socket
from pathlib import Path

import pytest
import trio

from edged.config import load_config
from edged.roles.all_in_one import Process
from edged.runtime.listeners import parse_address
from tests.conftest import require
from tests.ingest.rtmp_peer import encoder
from tests.roles.network import KEY, broadcast
from tests.roles.test_operations import Host

pytestmark = pytest.mark.e2e


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


async def curl(*arguments: str) -> str:
    done = await trio.run_process(
        ["curl", "-sk", "--max-time", "10", *arguments], capture_stdout=True, check=False
    )
    assert done.returncode == 0, done
    return done.stdout.decode()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this host")
@pytest.mark.parametrize(
    ("listen", "hosts"),
    [("[::1]:0", ("[::1]",)), ("[::]:0", ("[::1]", "127.0.0.1"))],
    ids=["IPv6 alone", "both"],
)
async def test_playback_and_ingest(listen: str, hosts: tuple[str, ...], tmp_path: Path) -> None:
    require("curl")
    host = Host(tmp_path)
    for key in ("playback.listen", "playback.tls.listen", "ingest.rtmp.listen"):
        host.set(key, listen)
    host.process = Process([load_config(host.path)], host.path)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            host.addresses = await nursery.start(host.process.run)
            ports = {
                name: parse_address(address)[1] for name, address in host.addresses["pop a"].items()
            }
            async with encoder(f"{hosts[0]}:{ports['rtmp']}", KEY) as peer:
                await peer.accepted()
                await broadcast(peer)
                for name in hosts:
                    for protocol, scheme in (
                        ("--http1.1", "http"),
                        ("--http1.1", "https"),
                        ("--http2", "https"),
                    ):
                        url = f"{scheme}://{name}:{ports[scheme]}/live/alice/master.m3u8"
                        asked = ("-g", protocol, "-w", "\n%{http_version} %{http_code}", url)
                        while (answer := await curl(*asked)).endswith(" 404"):  # noqa: ASYNC110 - the directory takes its time
                            await trio.sleep(0.05)
                        assert answer.startswith("#EXTM3U"), answer
                        version = "2" if protocol == "--http2" else "1.1"
                        assert answer.endswith(f"\n{version} 200"), answer
            nursery.cancel_scope.cancel()
