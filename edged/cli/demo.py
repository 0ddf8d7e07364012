"""`edged demo`: a whole network in one process, with a picture in it.

An IRS, an origin and two PoPs, each with its real listeners on loopback and real connections
between them; and a test publisher that sends a generated picture to the first PoP.
"""

import contextlib
import hashlib
import secrets
import socket
import time
from pathlib import Path
from typing import Annotated

import msgspec
import trio
import typer
from msgspec import Struct
from rich.panel import Panel
from rich.table import Table

from edged.api.admin import demo_directory, require_private
from edged.cli.output import console, print_json
from edged.cli.run import until_signal
from edged.config import Config, parse_config
from edged.policy.stream_keys import make_static_key
from edged.roles.all_in_one import Process
from edged.runtime.log import LogConfig, configure_logging
from edged.tools.test_picture import PictureConfig, TestPicture
from edged.tools.test_publisher import expand_urls, publish

TEST_CHANNEL = "demo"
OWN_CHANNEL = "mine"
RTMP_PORT = 1935
PLAYBACK_PORT = 8080
TOKEN_BYTES = 24
POPS = ("west", "east")
# What the network page draws: all of it is here, but a network has places.
MAP: dict[str, object] = {
    "sites": [
        {"name": "west", "pops": ["west"], "latitude": 37.8, "longitude": -122.4},
        {"name": "middle", "origins": ["origin"], "latitude": 41.9, "longitude": -87.6},
        {"name": "east", "pops": ["east"], "latitude": 40.7, "longitude": -74.0},
    ],
    "links": [
        {"name": "west-middle", "ends": ["west", "middle"], "mbps": 10_000},
        {"name": "middle-east", "ends": ["middle", "east"], "mbps": 10_000},
    ],
}


class DemoAddresses(Struct, frozen=True, kw_only=True):
    """Where things are: what the demo prints."""

    watch: dict[str, str]  # PoP -> page of the test picture.
    rtmp: dict[str, str]  # PoP -> server URL for an encoder.
    playback: dict[str, str]  # PoP -> base URL.
    metrics: str
    channel: str
    stream_key: str
    admin: str
    status: str  # The status page; what is behind "#" lets in, and no server or log sees it.


class _Keys(Struct):
    """The demo's stream keys, kept so that an encoder needs to be set up once."""

    test: str
    own: str


def demo(
    *,
    publisher: Annotated[
        bool, typer.Option("--publisher/--no-publisher", help="Publish the test picture.")
    ] = True,
    any_port: Annotated[
        bool, typer.Option("--any-port", help="Take free ports instead of 1935 and 8080.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="For its keys and admin socket; else one per user.")
    ] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log what happens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as JSON.")] = False,
) -> None:
    """Run a whole network on this machine: IRS, origin, two PoPs and a moving picture."""
    configure_logging(LogConfig(level="info" if verbose else "error"))
    folder = folder or demo_directory()
    keys = load_keys(folder)
    addresses, configs = plan_demo(keys, folder, any_port=any_port)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(Process(configs).run)
            if as_json:
                print_json(addresses)
            else:
                console.print(describe(addresses, publisher=publisher))
            if publisher:
                nursery.start_soon(_publish, addresses.rtmp[POPS[0]], keys.test)

    trio.run(until_signal, main)
    if not as_json:
        console.print("stopped")


async def _publish(server: str, key: str) -> None:
    source = TestPicture(PictureConfig(title="EDGED DEMO"))
    await publish(expand_urls(server, key), source, unix_now=time.time)


def load_keys(folder: Path) -> _Keys:
    """The keys of an earlier demo of this user, or new ones; the folder must be private."""
    with contextlib.suppress(FileExistsError):  # What it is, is looked at next.
        folder.mkdir(mode=0o700, parents=True)
    require_private(folder)
    path = folder / "stream-keys.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Keys)
    except (OSError, msgspec.DecodeError):
        keys = _Keys(
            test=make_static_key(secrets.token_bytes), own=make_static_key(secrets.token_bytes)
        )
        path.touch(mode=0o600)
        path.write_bytes(msgspec.json.encode(keys))
        return keys


def plan_demo(keys: _Keys, folder: Path, *, any_port: bool) -> tuple[DemoAddresses, list[Config]]:
    """Choose ports and write the four configurations, as files of four hosts would say it."""
    ports = _Ports(any_port=any_port)
    irs, backbone, metrics, page = (f"127.0.0.1:{ports.take()}" for _ in range(4))
    rtmp = {pop: ports.take(RTMP_PORT + index) for index, pop in enumerate(POPS)}
    playback = {pop: ports.take(PLAYBACK_PORT + index) for index, pop in enumerate(POPS)}
    ports.release()
    token = secrets.token_urlsafe(TOKEN_BYTES)  # Of this demo only: nobody has to keep it.
    common: dict[str, object] = {
        "admin": {
            "socket": str(folder / "admin.sock"),
            "listen": page,
            "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
        },
        "metrics": {"listen": metrics},
    }
    raws: list[dict[str, object]] = [
        {"irs": {"listen": irs, "warmup_s": 0.0, **MAP}, **common},
        {
            "origin": {"name": "origin", "listen": backbone, "address": backbone},
            "irs_client": {"addresses": [irs]},
            **common,
        },
    ]
    raws += [
        {
            "pop": {"name": pop},
            "irs_client": {"addresses": [irs]},
            "ingest": {"rtmp": {"listen": f"127.0.0.1:{rtmp[pop]}"}},
            "playback": {"listen": f"127.0.0.1:{playback[pop]}"},
            "stream_keys": {
                "static": [
                    {"channel": TEST_CHANNEL, "key": keys.test, "title": "edged test picture"},
                    {"channel": OWN_CHANNEL, "key": keys.own, "title": "Your own stream"},
                ]
            },
            **common,
        }
        for pop in POPS
    ]
    configs = []
    for raw in raws:
        config, problems = parse_config(raw)
        assert not problems, problems
        assert config is not None, "there is nothing wrong with it"
        configs.append(config)
    base = {pop: f"http://127.0.0.1:{playback[pop]}" for pop in POPS}
    addresses = DemoAddresses(
        watch={pop: f"{base[pop]}/watch/{TEST_CHANNEL}" for pop in POPS},
        rtmp={pop: f"rtmp://127.0.0.1:{rtmp[pop]}/live" for pop in POPS},
        playback=base,
        metrics=f"http://{metrics}/metrics",
        channel=OWN_CHANNEL,
        stream_key=keys.own,
        admin=str(folder / "admin.sock"),
        status=f"http://{page}/#{token}",
    )
    return addresses, configs


def describe(addresses: DemoAddresses, *, publisher: bool) -> Panel:
    """What the demo prints: where to watch, and what to put into an encoder."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column(overflow="fold")
    if publisher:
        for pop, url in addresses.watch.items():
            role = "publishes here" if pop == POPS[0] else "brings it over the backbone"
            table.add_row(f"watch at {pop}", f"[bold cyan]{url}[/]  [dim]{role}[/]")
        table.add_row("", "")
    table.add_row("publish your own", "OBS: Settings, Stream, Service: Custom")
    for pop, url in addresses.rtmp.items():
        table.add_row(f"server ({pop})", f"[bold]{url}[/]")
    table.add_row("stream key", f"[bold]{addresses.stream_key}[/]")
    for pop, url in addresses.playback.items():
        table.add_row(f"watch it at {pop}", f"[cyan]{url}/watch/{addresses.channel}[/]")
    table.add_row("", "")
    table.add_row("status page", f"[bold cyan]{addresses.status}[/]")
    table.add_row("look inside", "edged top; edged routes; edged route explain demo")
    table.add_row("metrics", addresses.metrics)
    return Panel(
        table, title="edged demo: IRS, origin, two PoPs", subtitle="Ctrl-C ends it", expand=False
    )


class _Ports:
    """Free ports on loopback, held open until all are chosen so that none is given twice."""

    def __init__(self, *, any_port: bool) -> None:
        self._any = any_port
        self._held: list[socket.socket] = []

    def take(self, wanted: int = 0) -> int:
        """The port wanted if it is free, else any that is."""
        for port in (0,) if self._any else (wanted, 0):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                sock.close()
                continue
            self._held.append(sock)
            return int(sock.getsockname()[1])
        raise AssertionError("port 0 always binds")

    def release(self) -> None:
        """Let go of them, for the listeners."""
        for sock in self._held:
            sock.close()
