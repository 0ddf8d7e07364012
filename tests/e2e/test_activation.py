"""Socket activation: a restart refuses nobody, whoever holds the listening sockets open."""

import contextlib
import os
import socket
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from tests.conftest import require
from tests.e2e.clip import check_same, make_clip, read_packets
from tests.e2e.network import Edged, open_edged, take_ports, wait_until
from tests.e2e.publisher import publish_clip
from tests.e2e.viewer import Viewer, fetch

pytestmark = pytest.mark.e2e

KEY = "key-of-one-only"
# What a service manager does between fork and exec: descriptors from 3 on, and for whom they are.
BECOME = (
    "import os, sys\n"
    "fds = [int(fd) for fd in sys.argv[1].split(',')]\n"
    "for fd in fds: os.dup2(fd, 100 + fd)\n"
    "for place, fd in enumerate(fds): os.dup2(100 + fd, 3 + place)\n"
    "os.environ['LISTEN_PID'] = str(os.getpid())\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class Manager(Struct):
    """Plays the service manager: it holds the sockets, and starts a PoP again and again."""

    folder: Path
    sockets: dict[str, socket.socket]
    starts: int = 0

    def url(self, name: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.sockets[name].getsockname()[1]}"

    @contextlib.asynccontextmanager
    async def start_pop(self) -> AsyncIterator[Edged]:
        self.starts += 1
        fds = [sock.fileno() for sock in self.sockets.values()]
        async with open_edged(
            self.folder, f"pop-{self.starts}", "run", "-c", str(self.folder / "pop.toml"),
            through=become(fds), pass_fds=fds,
            environ={"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(self.sockets)},
        ) as pop:  # fmt: skip
            yield pop


def become(fds: Sequence[int]) -> tuple[str, ...]:
    return (sys.executable, "-c", BECOME, ",".join(map(str, fds)))


@contextlib.asynccontextmanager
async def open_manager() -> AsyncIterator[Manager]:
    """An IRS and an origin that run, and the sockets of a PoP that does not yet."""
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            sockets = {
                what: stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                for what in ("rtmp", "http", "stray")
            }
            at = {what: f"127.0.0.1:{s.getsockname()[1]}" for what, s in sockets.items()}
            at |= {what: f"127.0.0.1:{p}" for what, p in take_ports(["irs", "backbone"]).items()}
            client = f'[irs_client]\naddresses = ["{at["irs"]}"]\n'
            texts = {
                "irs": f'[irs]\nlisten = "{at["irs"]}"\nwarmup_s = 0.0\n',
                "origin": f'[origin]\nname = "fra1"\nlisten = "{at["backbone"]}"\n{client}',
                "pop": f'[pop]\nname = "ams1"\n{client}table_file = "{folder}/table"\n'
                f'[ingest.rtmp]\nlisten = "{at["rtmp"]}"\n[playback]\nlisten = "{at["http"]}"\n'
                f'[[stream_keys.static]]\nchannel = "one"\nkey = "{KEY}"\n',
            }
            for host, text in texts.items():
                path = folder / f"{host}.toml"
                common = f'[admin]\nsocket = "{folder}/{host}.sock"\n'
                path.write_text(text + common + '[metrics]\nlisten = "127.0.0.1:0"\n')
                if host != "pop":
                    await stack.enter_async_context(
                        open_edged(folder, host, "run", "-c", str(path))
                    )
            yield Manager(folder, sockets)


async def test_a_restart_refuses_nobody() -> None:
    """Who comes while no PoP runs is served by the next: a page, a publisher and its viewer."""
    clip = make_clip(seconds=4)
    with trio.fail_after(90):
        async with open_manager() as manager, trio.open_nursery() as nursery:
            async with manager.start_pop() as first:
                await first.wait_log("inherited socket", count=2)
                assert (await fetch(manager.url("http"), "/streams.json")).body == b"[]"
                closed = await first.wait_log(
                    "inherited socket closed, no listener has its address"
                )
                assert str(closed["socket"]).endswith("(stray)")
            # Nobody accepts now, and yet they can connect.
            answers: list[bytes] = []

            async def ask() -> None:
                answers.append((await fetch(manager.url("http"), "/streams.json")).body)

            for _ in range(20):
                nursery.start_soon(ask)
            nursery.start_soon(publish_clip, clip, f"{manager.url('rtmp', 'rtmp')}/live/{KEY}")
            await trio.sleep(0.5)
            assert answers == []
            async with manager.start_pop() as second:
                viewer = await Viewer(manager.url("http"), "one").watch()
                check_same(read_packets(clip), viewer.packets())
                assert len(answers) == 20
                assert len(second.log("publisher started")) == 1


async def test_nothing_that_is_started_gets_the_sockets() -> None:
    """Descriptors 3 and 4 are closed on exec; that the variables are gone is in the unit tests."""
    with trio.fail_after(60):
        async with open_manager() as manager, manager.start_pop() as pop:
            await pop.wait_log("inherited socket", count=2)
            for fd in (3, 4):
                text = await trio.Path(f"/proc/{pop.process.pid}/fdinfo/{fd}").read_text()
                flags = int(text.split("flags:")[1].split()[0], 8)
                assert flags & os.O_CLOEXEC


async def test_by_systemds_own_tool(tmp_path: Path) -> None:
    """It speaks the protocol as systemd does: it starts edged at the first connection."""
    require("systemd-socket-activate")
    port = take_ports(["metrics"])["metrics"]
    (tmp_path / "irs.toml").write_text(
        f'[irs]\nlisten = "127.0.0.1:0"\n[metrics]\nlisten = "127.0.0.1:{port}"\n'
        f'[admin]\nsocket = "{tmp_path}/admin.sock"\n'
    )
    through: tuple[str, ...] = (
        "systemd-socket-activate",
        "-l",
        f"127.0.0.1:{port}",
        "--fdname=metrics",
    )
    if path := os.environ.get("PYTHONPATH"):  # It hands on little of the environment.
        through += (f"--setenv=PYTHONPATH={path}",)

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    with trio.fail_after(40):
        async with open_edged(
            tmp_path, "irs", "run", "-c", f"{tmp_path}/irs.toml", through=through
        ) as irs:
            await wait_until(lambda: "Listening on" in irs.log_text())
            assert "edged_irs_plans_total" in await trio.to_thread.run_sync(scrape)
            assert (await irs.wait_log("inherited socket"))["listen"] == (
                f"127.0.0.1:{port} (metrics)"
            )
