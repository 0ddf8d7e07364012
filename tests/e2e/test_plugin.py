"""Plug-ins of others: installed as packages, found by their entry points, at fault for themselves.

tests/plugins/toy is what the README shows; tests/plugins/faulty fails when it is told to.
"""

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.track import Codec
from edged.wire.rtmp import Closed
from tests.e2e.clip import check_same, make_clip, read_packets, read_units
from tests.e2e.network import Edged, open_edged, run_edged, take_ports, wait_until
from tests.e2e.publisher import Publisher, publish_clip, publish_units
from tests.e2e.viewer import Viewer, fetch

pytestmark = pytest.mark.e2e

PLUGINS = Path(__file__).parents[1] / "plugins"
MAY_IMPORT = ("edged.errors", "edged.ingest.plugin", "edged.media", "edged.runtime")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages, built and installed into a folder of their own."""
    target = tmp_path_factory.mktemp("site")
    for name in ("toy", "faulty"):
        source = tmp_path_factory.mktemp("source") / name
        shutil.copytree(PLUGINS / name, source)  # Building leaves nothing in ours.
        subprocess.run(  # noqa: S603 - our own arguments
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--no-deps", "--no-build-isolation", "--target", str(target), str(source)],
            check=True, timeout=120,
        )  # fmt: skip
    return target


class Setting(Struct):
    folder: Path
    environ: dict[str, str]
    at: dict[str, str]
    pop: Edged

    async def run(self, *arguments: str, code: int = 0) -> str:
        """A command, with the plug-ins installed; what it says."""
        out, errors = await run_edged(self.folder, *arguments, code=code, environ=self.environ)
        return out + errors


def config_text(folder: Path, at: dict[str, str], ingest: str) -> str:
    keys = "".join(
        f'[[stream_keys.static]]\nchannel = "{channel}"\nkey = "key-of-{channel}-only"\n'
        for channel in ("one", "two")
    )
    return (
        f'[irs]\nlisten = "{at["irs"]}"\nwarmup_s = 0.0\n'
        f'[origin]\nname = "fra1"\nlisten = "{at["backbone"]}"\n[pop]\nname = "ams1"\n'
        f'[irs_client]\naddresses = ["{at["irs"]}"]\n[ingest.rtmp]\nlisten = "{at["rtmp"]}"\n'
        f'{ingest}[playback]\nlisten = "{at["http"]}"\n{keys}'
        f'[admin]\nsocket = "{folder}/admin.sock"\n[metrics]\nlisten = "{at["metrics"]}"\n'
    )


@contextlib.asynccontextmanager
async def open_setting(installed: Path) -> AsyncIterator[Setting]:
    """A whole network in one process, with both plug-ins."""
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        names = ("irs", "backbone", "rtmp", "http", "metrics", "toy", "faulty")
        at = {what: f"127.0.0.1:{port}" for what, port in take_ports(names).items()}
        ingest = "".join(f'[ingest.{name}]\nlisten = "{at[name]}"\n' for name in ("toy", "faulty"))
        ingest += f'broken_file = "{folder}/broken"\n'
        (folder / "all.toml").write_text(config_text(folder, at, ingest))
        environ = {"PYTHONPATH": with_path(installed)}
        async with open_edged(
            folder, "all", "run", "-c", "all.toml", environ=environ, faulty=True
        ) as pop:
            await pop.wait_log("role started", count=3)
            await pop.wait_log("backbone session started", count=8)
            yield Setting(folder, environ, at, pop)


def with_path(installed: Path) -> str:
    return os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH"))))


class ToyClient:
    """Publishes as the toy's wire has it."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)

    async def greet(self, key: str) -> tuple[trio.SocketStream, str]:
        stream = await trio.open_tcp_stream(self._host, self._port)
        await stream.send_all(f"{key}\n".encode())
        with trio.fail_after(15):
            return stream, (await stream.receive_some(4096)).decode()

    async def publish(self, clip: Path, key: str, seconds: float = float("inf")) -> None:
        """The clip's pictures, in real time."""
        stream, answer = await self.greet(key)
        assert answer == "ok\n"
        with trio.move_on_after(seconds):
            await send_blocks(stream, clip)


def blocks(clip: Path) -> Iterator[tuple[float, bytes]]:
    """When each block is due, and its bytes: first the avcC."""
    tracks, units = read_units(clip)
    (track,) = [track for track in tracks if track.codec is Codec.H264]

    def block(payload: bytes, unit: AccessUnit | None = None) -> bytes:
        times = (0, 0) if unit is None else (unit.dts, unit.pts)
        ms = [round(time * 1000 / track.timescale) + 1000 for time in times]
        return b"".join(number.to_bytes(4, "big") for number in (len(payload), *ms)) + payload

    yield 0.0, block(track.config.record)
    for unit in units:
        if unit.track_id == track.track_id:
            yield max(0.0, unit.dts / track.timescale), block(unit.payload, unit)


async def test_a_plug_in_of_anothers_publishes(installed: Path) -> None:
    clip = make_clip(seconds=6)
    with trio.fail_after(80):
        async with open_setting(installed) as setting, trio.open_nursery() as nursery:
            toy = ToyClient(setting.at["toy"])
            stream, answer = await toy.greet("no-such-key")
            await stream.aclose()
            assert answer.startswith("refused unknown_key: the stream key is not valid here")
            nursery.start_soon(toy.publish, clip, "key-of-one-only")
            viewer = await Viewer(f"http://{setting.at['http']}", "one").watch()
            for track in viewer.tracks.values():
                track.check_flow()
            sent = {"video": read_packets(clip)["video"]}
            check_same(sent, viewer.packets())
            (line,) = [
                line for line in setting.pop.log("stream placed") if line["channel"] == "one"
            ]
            assert line["origin"] == "fra1"


async def test_another_protocol_takes_a_channel_over(installed: Path) -> None:
    """The plug-in's publisher from RTMP's: pictures alone, so that it stays one run."""
    clip = make_clip(seconds=30)
    tracks, units = read_units(clip)
    pictures = [track for track in tracks if track.codec is Codec.H264]
    frames = [unit for unit in units if unit.track_id == pictures[0].track_id]
    with trio.fail_after(80):
        async with open_setting(installed) as setting, trio.open_nursery() as nursery:
            url = f"rtmp://{setting.at['rtmp']}/live/key-of-one-only"
            viewer = Viewer(f"http://{setting.at['http']}", "one")

            async def publish(*, task_status: trio.TaskStatus[Publisher]) -> None:
                await publish_units(pictures, frames, url, task_status=task_status)

            first = await nursery.start(publish)
            nursery.start_soon(viewer.watch)
            await seen_further(viewer)
            stream, answer = await ToyClient(setting.at["toy"]).greet("key-of-one-only")
            assert answer == "ok\n"
            nursery.start_soon(send_blocks, stream, clip)
            with trio.fail_after(5):
                closed = await first.wait_for(Closed)
            assert closed == Closed("NetStream.Publish.Rejected", "taken over by a newer publisher")
            await seen_further(viewer)
            # Two must not evict each other for ever: the third has to wait, here for good.
            third, answer = await ToyClient(setting.at["toy"]).greet("key-of-one-only")
            await third.aclose()
            assert answer.startswith("refused takeover: channel 'one' is live")
            (track,) = viewer.tracks.values()
            assert (track.discontinuities, track.gaps, track.ended) == (1, 0, False)
            (line,) = setting.pop.log("run taken over")
            assert line["channel"] == "one"
            nursery.cancel_scope.cancel()


async def send_blocks(stream: trio.SocketStream, clip: Path) -> None:
    """The clip's pictures in real time."""
    async with stream:
        begun_at = trio.current_time()
        for due_s, block in blocks(clip):
            await trio.sleep_until(begun_at + due_s)
            await stream.send_all(block)


async def seen_further(viewer: Viewer) -> None:
    """The viewer gets ten parts more of each rendition."""
    before = {name: len(track.arrivals) for name, track in viewer.tracks.items()}
    await wait_until(
        lambda: (
            bool(viewer.tracks)
            and all(
                len(track.arrivals) >= before.get(name, 0) + 10
                for name, track in viewer.tracks.items()
            )
        ),
        15,
    )


async def test_what_a_session_does_wrong_ends_that_session(installed: Path) -> None:
    """The peer's mistakes and the plug-in's bugs, in the pump and in a task; others go on."""
    clip = make_clip(seconds=8)
    with trio.fail_after(80):
        async with open_setting(installed) as setting, trio.open_nursery() as nursery:
            toy = ToyClient(setting.at["toy"])
            nursery.start_soon(toy.publish, clip, "key-of-one-only")
            viewer = Viewer(f"http://{setting.at['http']}", "one")
            nursery.start_soon(viewer.watch)
            for wrong in ("x" * 2000, "key-of-two-only\n" + "\xff" * 40):
                stream = await trio.open_tcp_stream(*address_of(setting.at["toy"]))
                async with stream:
                    await stream.send_all(wrong.encode("latin-1"))
                    await until_closed(stream)
            for command in ("raise", "raise later"):
                async with await trio.open_tcp_stream(*address_of(setting.at["faulty"])) as stream:
                    assert await stream.receive_some(10) == b"hello\n"
                    await stream.send_all(command.encode())
                    await until_closed(stream)
            assert len(setting.pop.log("session failed")) == 2
            assert setting.pop.log("part failed, the others go on") == []
            await wait_until(
                lambda: bool(viewer.tracks) and all(t.ended for t in viewer.tracks.values()), 20
            )
            check_same({"video": read_packets(clip)["video"]}, viewer.packets())


async def test_a_plug_in_that_dies_is_run_again_and_the_pop_goes_on(installed: Path) -> None:
    clip = make_clip(seconds=8)
    with trio.fail_after(80):
        async with open_setting(installed) as setting, trio.open_nursery() as nursery:
            nursery.start_soon(
                publish_clip, clip, f"rtmp://{setting.at['rtmp']}/live/key-of-one-only"
            )
            viewer = Viewer(f"http://{setting.at['http']}", "one")
            nursery.start_soon(viewer.watch)
            assert "pop ams1: fit" in await setting.run("health", "-c", "all.toml")
            await trio.Path(setting.folder / "broken").touch()
            die = await trio.open_tcp_stream(*address_of(setting.at["faulty"]))
            await die.send_all(b"die")
            line = await setting.pop.wait_log("part failed, the others go on")
            assert (line["part"], line["level"]) == ("ingest.faulty", "error")
            assert line["reason"] == 'KeyError: "the plug-in\'s own bug"'
            said = await setting.run("health", "-c", "all.toml", code=1)
            assert re.search(r"ingest plug-in 'faulty' is down: (KeyError|RuntimeError)", said)
            await trio.Path(setting.folder / "broken").unlink()
            await setting.pop.wait_log("part started again")
            async with await trio.open_tcp_stream(*address_of(setting.at["faulty"])) as stream:
                assert await stream.receive_some(10) == b"hello\n"
            assert "pop ams1: fit" in await setting.run("health", "-c", "all.toml")
            metrics = (await fetch(f"http://{setting.at['metrics']}", "/metrics")).body.decode()
            failures = {
                plugin: float(count)
                for plugin, count in re.findall(
                    r'plugin_failures_total{plugin="(\w+)",role="pop ams1"} (\S+)', metrics
                )
            }
            assert failures["faulty"] >= 1
            assert failures["rtmp"] == failures["toy"] == 0
            await die.aclose()
            await wait_until(
                lambda: bool(viewer.tracks) and all(t.ended for t in viewer.tracks.values()), 20
            )
            for track in viewer.tracks.values():
                track.check_flow()
            check_same(read_packets(clip), viewer.packets())


async def test_check_names_what_is_wrong_with_plug_ins(installed: Path, tmp_path: Path) -> None:
    at = dict.fromkeys(("irs", "backbone", "rtmp", "http", "metrics"), "127.0.0.1:0")
    ingest = (
        '[ingest.toy]\nlissten = ":1"\npublishers_max = 0\n'
        "[ingest.unloadable]\n[ingest.nosuch]\n[ingest.faulty]\n"
    )
    (tmp_path / "all.toml").write_text(config_text(tmp_path, at, ingest))
    text, _ = await run_edged(
        tmp_path, "check", "-c", "all.toml", "--json", code=2,
        environ={"PYTHONPATH": with_path(installed)},
    )  # fmt: skip
    problems = {problem["key"]: problem["message"] for problem in json.loads(text)["problems"]}
    assert problems["ingest.toy.lissten"].startswith("unknown key; did you mean 'listen'?")
    assert "0 is not allowed" in problems["ingest.toy.publishers_max"]
    assert problems["ingest.unloadable"] == (
        "plug-in edged_unloadable:plugin cannot be loaded: ModuleNotFoundError:"
        " No module named 'a_library_that_nobody_has'"
    )
    assert problems["ingest.nosuch"].startswith("no such plug-in; installed: faulty, rtmp")
    assert problems["ingest.faulty.listen"].startswith("is missing")


@pytest.mark.parametrize("name", ["toy/edged_toy.py", "faulty/edged_faulty.py"])
def test_they_import_the_contract_and_nothing_else_of_edged(name: str) -> None:
    for node in ast.walk(ast.parse((PLUGINS / name).read_text())):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [entry.name for entry in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            if module.partition(".")[0] == "edged":
                assert module.startswith(MAY_IMPORT), module


def address_of(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def until_closed(stream: trio.SocketStream) -> None:
    with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(4096):
            pass
