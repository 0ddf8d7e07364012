"""The command line against what runs, as a person would use it."""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import ssl
import tempfile
import termios
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.network import (
    EDGED,
    END_S_MAX,
    PORTS,
    Demo,
    Edged,
    environment,
    open_demo,
    open_edged,
    open_network,
    run_edged,
    take_ports,
    wait_until,
    write_configs,
)
from tests.e2e.viewer import Viewer, fetch

pytestmark = pytest.mark.e2e

TOP_S_MAX = 15.0  # Its start and two looks: it takes some 2 s.
# As terminals take them (ECMA-48; the other screen is xterm's).
CURSOR_HOME, SCREEN_BEGINS, SCREEN_ENDS = b"\x1b[H", b"\x1b[?1049h", b"\x1b[?1049l"
ESCAPE = re.compile(rb"\x1b\[[0-?]*[@-~]")


async def test_demo_shows_its_picture_answers_and_ends_at_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """`edged demo` as it comes, `edged streams`, `edged route explain`, and Ctrl-C."""
    with trio.fail_after(60):
        async with open_demo("--publisher") as demo:
            viewer = Viewer(demo.playback("east"), "demo")
            await viewer.watch(seconds=3)
            for track in viewer.tracks.values():
                track.check_flow()
            assert b"RESOLUTION=1280x720" in viewer.master
            assert (await fetch(demo.playback("east"), "/watch/demo")).status == 200

            text, _ = await run_edged(demo.folder, "streams", "--json")
            lines = json.loads(text)
            assert {line["role"] for line in lines} == {"pop west", "origin origin"}
            west = next(line for line in lines if line["role"] == "pop west")
            assert west["channel"] == "demo"
            assert west["goes_to"] == "origin"
            assert west["video"].startswith("h264 1280x720")
            assert west["audio"] == "aac 48 kHz"
            text, _ = await run_edged(demo.folder, "streams")
            assert "demo" in text

            text, _ = await run_edged(demo.folder, "route", "explain", "demo", "--json")
            routes = {route["pop"]: route for route in json.loads(text)}
            assert routes["west"]["live"]
            assert routes["west"]["placed"]["origin"] == "origin"
            assert not routes["east"]["live"]
            assert routes["east"]["now"]["decision"]["origin"] == "origin"
            text, _ = await run_edged(demo.folder, "route", "explain", "demo")
            assert re.search(r"is published here and goes to origin", text)
            await see_top_live(demo)

            seconds = await demo.interrupt()
            assert seconds < END_S_MAX
            assert demo.process.returncode == 0
            assert (demo.folder / "demo.out").read_bytes().startswith(b"{")
        _, errors = await run_edged(tmp_path_factory.mktemp("none"), "streams", code=1)
        assert "no edged runs here" in errors


async def see_top_live(demo: Demo) -> None:
    """`edged top` in a terminal: looks again and again, and on Ctrl-C leaves all as it was."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 140))
    process = await trio.lowlevel.open_process(
        ["env", "--default-signal=INT", EDGED, "top", "--interval", "0.3"],  # Else as our own is.
        stdin=theirs, stdout=theirs, stderr=theirs,
        env={**environment(demo.folder), "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    shown, looks, has_ended = b"", set[bytes](), False
    try:
        async with trio.lowlevel.FdStream(ours) as screen:
            with trio.fail_after(TOP_S_MAX), contextlib.suppress(trio.BrokenResourceError):
                while True:  # Until nobody has the other end open.
                    shown += await screen.receive_some(65536)
                    whole = shown.split(CURSOR_HOME)[1:-1]
                    looks = {each for each in whole if b" demo " in ESCAPE.sub(b"", each)}
                    if len(looks) > 1 and not has_ended:
                        has_ended = True
                        process.send_signal(signal.SIGINT)
        with trio.fail_after(END_S_MAX):
            assert await process.wait() == 0, shown
    finally:
        if process.poll() is None:
            process.kill()
            with trio.CancelScope(shield=True):  # Nothing survives a kill.
                await process.wait()
    assert len(looks) > 1, "it shows the channel, and not for ever the same"
    before, _, inside = shown.partition(SCREEN_BEGINS)
    inside, _, after = inside.partition(SCREEN_ENDS)
    assert b"up " in inside
    assert (ESCAPE.sub(b"", before), ESCAPE.sub(b"", after).strip()) == (b"", b"")
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l"), "the cursor is shown again"


async def test_publish_for_three_seconds() -> None:
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            viewer = Viewer(demo.playback("east"), "mine")
            nursery.start_soon(viewer.watch)
            arguments = ("--key", demo.keys["mine"], "--seconds", "3", "--size", "320x180")
            out, errors = await run_edged(
                demo.folder, "publish", demo.addresses.rtmp["west"], *arguments
            )
            assert "accepted" in out
            assert "ended" in out
            assert demo.keys["mine"] not in out + errors
            await wait_until(
                lambda: bool(viewer.tracks) and all(t.ended for t in viewer.tracks.values())
            )
            seconds = sum(part.duration_us for part in viewer.tracks["v0"].arrivals) / 1e6
            assert 2 < seconds < 4
            nursery.cancel_scope.cancel()


async def test_publish_with_a_wrong_key_says_why() -> None:
    with trio.fail_after(40):
        async with open_demo() as demo:
            _, errors = await run_edged(
                demo.folder, "publish", demo.addresses.rtmp["west"], "--key", "no-such-key", code=1
            )
            assert "the stream key is not valid here" in errors
            assert "no-such-key" not in errors


async def test_keys_and_check(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("keys")
    text, _ = await run_edged(folder, "key", "new", "mychannel", "--json")
    made = json.loads(text)
    assert made["channel"] == "mychannel"
    assert len(made["key"]) >= 27
    text, _ = await run_edged(folder, "key", "new", "mychannel")
    assert re.search(r'\[\[stream_keys.static\]\]\nchannel = "mychannel"\nkey = "\S+"\n', text)

    good = '[irs]\nlisten = "127.0.0.1:0"\n'
    (folder / "good.toml").write_text(good)
    text, _ = await run_edged(folder, "check", "-c", "good.toml")
    assert "is fine; roles: irs" in text
    (folder / "bad.toml").write_text(
        '[pop]\nname = "A PoP"\n[ingest.rtmp]\nlistenn = ":1935"\npublishers_max = 0\n'
        '[playback]\nlisten = "nowhere"\n[log]\nlevel = "loud"\n'
    )
    _, errors = await run_edged(folder, "check", "-c", "bad.toml", code=2)
    for key in ("pop.name", "ingest.rtmp", "listenn", "publishers_max", "log.level", "irs_client",
                "playback.listen"):  # fmt: skip
        assert key in errors, f"{key} is missing in: {errors}"
    text, _ = await run_edged(folder, "check", "-c", "bad.toml", "--json", code=2)
    assert len(json.loads(text)["problems"]) >= 5
    _, errors = await run_edged(folder, "run", "-c", "bad.toml", code=2)
    assert "pop.name" in errors


async def test_strangers_are_refused() -> None:
    """A PoP's certificate makes no origin, a stranger's CA nothing, and so its keys."""
    with trio.fail_after(90):
        async with open_network() as network:
            folder = network.folder
            false = network.hosts["origin"].config.read_text()
            for true, other in (
                ("certs/origin-origin.", "certs/pop-a."),
                (str(network.ports["backbone"]), "0"),
                ("origin.sock", "false.sock"),
                (str(network.ports["origin.metrics"]), "0"),
                (str(network.ports["origin.status"]), "0"),
            ):
                assert true in false
                false = false.replace(true, other)
            (folder / "false.toml").write_text(false)
            refusal = "certificate of pop/a may not speak for origin/origin"
            async with open_edged(folder, "false", "run", "-c", "false.toml") as pretender:
                for edged in (pretender, network.hosts["irs"].edged):
                    await wait_until(partial(says, edged, refusal), 10)
            await knock_as_stranger(folder, network.ports["irs"])
            irs = network.hosts["irs"].edged
            await wait_until(partial(says, irs, "certificate verify failed"))
            await knock_as_stranger(folder, network.ports["backbone"])
            # A signed key of another network's secret is no key here.
            (folder / "other.toml").write_text(
                '[irs]\n[stream_keys.secrets]\nmain = "0123456789abcdef0123456789abcdef"\n'
            )
            foreign, _ = await run_edged(folder, "key", "new", "one", "-c", "other.toml")
            url = f"rtmp://127.0.0.1:{network.ports['a.rtmp']}/live"
            _, errors = await run_edged(folder, "publish", url, "--key", foreign.strip(), code=1)
            assert "not valid here" in errors
            assert foreign.strip() not in errors + network.hosts["a"].edged.log_text()
            # The network goes on with the true origin.
            text, _ = await run_edged(
                folder, "route", "explain", "one", "--socket", str(folder / "a.sock"), "--json"
            )
            assert json.loads(text)[0]["now"]["decision"]["origin"] == "origin"


async def test_origin_logs_whom_it_refused(tmp_path: Path) -> None:
    with trio.fail_after(40):
        await run_edged(tmp_path, "cert", "ca", "test")
        await run_edged(tmp_path, "cert", "host", "origin", "origin")
        ports = take_ports(PORTS)
        config = write_configs(tmp_path, ports, {})["origin"]
        async with open_edged(tmp_path, "origin", "run", "-c", str(config)) as origin:
            await origin.wait_log("role started")
            await knock_as_stranger(tmp_path, ports["backbone"])
            await wait_until(partial(says, origin, "CERTIFICATE_VERIFY_FAILED"), 2)


async def knock_as_stranger(folder: Path, port: int) -> None:
    """With a certificate for the right name, of a CA that nobody knows: TLS itself refuses."""
    theirs = folder / "theirs"
    if not theirs.exists():
        await run_edged(folder, "cert", "ca", "strangers", "--dir", "theirs")
        await run_edged(folder, "cert", "host", "pop", "a", "--dir", "theirs")
    context = ssl.create_default_context(cafile=str(folder / "certs/ca.pem"))
    context.check_hostname = False
    context.load_cert_chain(theirs / "pop-a.pem", theirs / "pop-a.key")
    plain = await trio.open_tcp_stream("127.0.0.1", port)
    async with trio.SSLStream(plain, context, https_compatible=True) as stream:
        with trio.fail_after(2), contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""


def says(edged: Edged, text: str) -> bool:
    return text in edged.log_text()


async def test_the_service_manager_is_told_when_it_is_ready_and_when_it_stops() -> None:
    """By the protocol of sd_notify(3), as systemd/edged@.service asks for it."""
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name, trio.fail_after(30):
        folder = Path(name)
        (folder / "irs.toml").write_text(
            '[irs]\nlisten = "127.0.0.1:0"\n[metrics]\nlisten = "127.0.0.1:0"\n'
            f'[admin]\nsocket = "{folder}/admin.sock"\n'
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"{folder}/notify")
            heard = trio.socket.from_stdlib_socket(manager)
            environ = {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "300000"}
            async with open_edged(
                folder, "irs", "run", "-c", f"{folder}/irs.toml", environ=environ
            ) as edged:
                assert await heard.recv(4096) == b"READY=1\nSTATUS=irs"
                for _ in range(3):
                    assert await heard.recv(4096) == b"WATCHDOG=1"
                edged.process.terminate()
                while (said := await heard.recv(4096)) == b"WATCHDOG=1":
                    pass
                assert said.startswith(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=")
                await edged.process.wait()
