"""A whole network of roles in this process, by configuration, on free ports of loopback."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import trio
from msgspec import Struct

from edged.config import Config, parse_config
from edged.roles.all_in_one import Process
from edged.runtime.listeners import parse_address
from tests.backbone.network import free_address
from tests.ingest.rtmp_peer import Encoder
from tests.wire.rtmp.peers import AAC, H264, h264_unit, unit

KEY = "key-of-alice"


def configure(raw: dict[str, object]) -> Config:
    config, problems = parse_config(raw)
    assert problems == []
    assert config is not None
    return config


def raw_network(folder: Path, *, pops: tuple[str, ...] = ("west",)) -> list[dict[str, object]]:
    """The files of an IRS, an origin and PoPs."""
    irs, backbone = free_address(), free_address()
    common: dict[str, object] = {
        "admin": {"socket": str(folder / "admin.sock")},
        "metrics": {"listen": "127.0.0.1:0"},
    }
    client: dict[str, object] = {"irs_client": {"addresses": [irs]}}
    raws = [
        {"irs": {"listen": irs, "warmup_s": 0.0}, **common},
        {"origin": {"name": "fra1", "listen": backbone}, **client, **common},
    ]
    raws += [
        {
            "pop": {"name": name, "reach": {}},
            "ingest": {"rtmp": {"listen": "127.0.0.1:0"}},
            "playback": {"listen": "127.0.0.1:0"},
            "stream_keys": {"static": [{"channel": "alice", "key": KEY, "title": "Alice"}]},
            **client,
            **common,
        }
        for name in pops
    ]
    return raws


class Network(Struct):
    process: Process
    addresses: dict[str, dict[str, str]]
    scope: trio.CancelScope

    def rtmp(self, pop: str = "west") -> str:
        return self.addresses[f"pop {pop}"]["rtmp"]

    async def get(self, path: str, pop: str = "west") -> tuple[int, bytes]:
        return await get(self.addresses[f"pop {pop}"]["http"], path)


@contextlib.asynccontextmanager
async def running(*configs: Config) -> AsyncIterator[Network]:
    process = Process(configs)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(process.run)
        yield Network(process, addresses, nursery.cancel_scope)
        nursery.cancel_scope.cancel()


async def get(address: str, path: str) -> tuple[int, bytes]:
    """One HTTP request; status and body."""
    head, body = await get_whole(address, path)
    return int(head.split()[1]), body


async def get_whole(address: str, path: str) -> tuple[bytes, bytes]:
    """One HTTP request; status line with fields, and body."""
    host, port = parse_address(address)
    async with await trio.open_tcp_stream(host, port) as stream:
        request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        await stream.send_all(request.encode())
        answer = b""
        with trio.fail_after(10):
            while data := await stream.receive_some(65536):
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def broadcast(peer: Encoder, seconds: float = 6.0) -> None:
    """That much H.264 at 30 fps and AAC, all at once, a key frame every 2 s."""
    peer.session.send_metadata({"framerate": 30.0})
    peer.session.send_track(H264)
    peer.session.send_track(AAC)
    sound = 0
    for frame in range(int(seconds * 30)):
        peer.session.send_unit(h264_unit(frame * 3000, key=frame % 60 == 0), H264)
        while sound / 48_000 < (frame + 1) / 30:
            peer.session.send_unit(unit(AAC, sound, b"sound"), AAC)
            sound += 1024
    await peer.flush()
