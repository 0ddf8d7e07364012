"""Real networks for the end-to-end tests: `edged` processes on free ports of loopback.

Each process logs JSON lines into a file of its own, and is ended by its pid when its context ends.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import trio
from msgspec import Struct

from edged.cli.demo import DemoAddresses
from tests.e2e.proxy import Weather, open_proxy
from tests.ports import take_port

EDGED = str(Path(sys.executable).with_name("edged"))  # Beside the Python that runs the tests.
START_TIMEOUT_S = 30.0  # A cold start on a busy machine.
END_S_MAX = 4.0  # Ctrl-C ends a network within 2 s; a busy machine gets twice that.
POLL_S = 0.05
LOG_WAIT_S = 10.0
ORIGIN_IN_FLIGHT = 2**20  # To a far origin: a warm connection of 80 Mbps at 100 ms.

LogLine = dict[str, object]


class Edged:
    """One process."""

    def __init__(self, process: trio.Process, log: Path) -> None:
        self.process = process
        self._log = log

    def log_text(self) -> str:
        """All that it wrote on standard error."""
        return self._log.read_text(errors="replace")

    def log(self, event: str = "") -> list[LogLine]:
        """Its log lines, or those of one event."""
        lines: list[LogLine] = [
            msgspec.json.decode(line, type=dict[str, object])
            for line in self.log_text().splitlines()
            if line.startswith("{") and line.endswith("}")
        ]
        return [line for line in lines if not event or line["event"] == event]

    async def wait_log(self, event: str, *, count: int = 1) -> LogLine:
        """Wait for the `count`th line of an event."""
        with trio.move_on_after(LOG_WAIT_S):
            while len(lines := self.log(event)) < count:
                self.check()
                await trio.sleep(POLL_S)
            return lines[count - 1]
        raise AssertionError(
            f"no {count} {event!r} in {LOG_WAIT_S:g} s:\n{self.log_text()[-4000:]}"
        )

    def check(self) -> None:
        """It still runs."""
        code = self.process.poll()
        assert code is None, f"ended with {code}:\n{self.log_text()[-4000:]}"

    async def interrupt(self) -> float:
        """Ctrl-C; the seconds until it ended."""
        begun_at = trio.current_time()
        self.process.send_signal(signal.SIGINT)
        with trio.move_on_after(4 * END_S_MAX):
            await self.process.wait()
            return trio.current_time() - begun_at
        raise AssertionError(f"did not end on Ctrl-C:\n{self.log_text()[-4000:]}")


@contextlib.asynccontextmanager
async def open_edged(
    folder: Path,
    name: str,
    *arguments: str,
    doomed: bool = False,
    faulty: bool = False,
    environ: Mapping[str, str] | None = None,
    through: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[Edged]:
    """Run `edged ARGUMENTS`; its standard output is FOLDER/NAME.out.

    `through` is a command that becomes it, with descriptors that are passed on.
    At the end it must go in good order, unless it is `doomed` and the test has killed it, and must
    not have failed inside meanwhile.
    """
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [*through, EDGED, *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
            stdout=out,
            stderr=log,
            cwd=folder,
            env={**environment(folder), **(environ or {})},
        )
    edged = Edged(process, folder / f"{name}.log")
    try:
        yield edged
        if process.poll() is None:
            seconds = await edged.interrupt()
            assert seconds < END_S_MAX, f"{name} took {seconds:.1f} s to end"
        killed = doomed and process.returncode == -signal.SIGKILL
        assert killed or process.returncode == 0, edged.log_text()[-4000:]
    except BaseException:
        sys.stderr.write(f"--- the log of {name}\n{edged.log_text()[-12000:]}\n")
        raise
    finally:
        if process.poll() is None:
            process.kill()
            with trio.CancelScope(shield=True):  # Nothing survives a kill.
                await process.wait()
    assert faulty or "Traceback" not in edged.log_text(), edged.log_text()


async def wait_until(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    """Look again and again until it holds; what a process says in a file can't wake us."""
    with trio.fail_after(within_s):
        while True:
            if holds():
                return
            await trio.sleep(POLL_S)


def environment(folder: Path) -> dict[str, str]:
    """Ours, with a folder for temporary files (the demo's admin socket is there) of its own."""
    return {**os.environ, "TMPDIR": str(folder)}


async def run_edged(
    folder: Path,
    *arguments: str,
    code: int = 0,
    timeout_s: float = 30.0,
    environ: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Run an `edged` command to its end; its output and its errors."""
    with trio.fail_after(timeout_s):
        done = await trio.run_process(
            [EDGED, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=folder,
            env={**environment(folder), **(environ or {})},
        )
    out, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, f"{arguments} gave {done.returncode}: {out}{errors}"
    return out, errors


class Demo(Edged):
    """A running demo."""

    def __init__(self, edged: Edged, folder: Path, addresses: DemoAddresses) -> None:
        super().__init__(edged.process, edged._log)
        self.folder = folder
        self.addresses = addresses
        keys = next(folder.glob("edged-*/stream-keys.json"))
        known = msgspec.json.decode(keys.read_bytes(), type=dict[str, str])
        self.keys = {"demo": known["test"], "mine": known["own"]}

    def publish_url(self, pop: str = "west", channel: str = "mine") -> str:
        """Where an encoder publishes, with the key."""
        return f"{self.addresses.rtmp[pop]}/{self.keys[channel]}"

    def playback(self, pop: str = "east") -> str:
        """Where viewers go."""
        return self.addresses.playback[pop]


@contextlib.asynccontextmanager
async def open_demo(*flags: str) -> AsyncIterator[Demo]:
    """Run `edged demo` on free ports, without its publisher unless `flags` say otherwise."""
    flags = flags or ("--no-publisher",)
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        arguments = ("demo", "--any-port", "--json", "--verbose", *flags)
        async with open_edged(folder, "demo", *arguments) as edged:
            with trio.fail_after(START_TIMEOUT_S):
                while not (text := (folder / "demo.out").read_bytes()).endswith(b"}\n"):
                    edged.check()
                    await trio.sleep(POLL_S)
            yield Demo(edged, folder, msgspec.json.decode(text, type=DemoAddresses))


class Host(Struct, frozen=True):
    """One host of a network of several processes."""

    edged: Edged
    config: Path


class Network(Struct, frozen=True, kw_only=True):
    """IRS, origin, PoP a and PoP b as processes of their own, under TLS."""

    folder: Path
    hosts: dict[str, Host]  # "irs", "origin", "a", "b".
    ports: dict[str, int]  # "irs", "backbone", "a.rtmp", "a.rtmps", "a.http", ...
    keys: dict[str, str]  # Channel -> stream key.

    def publish_url(self, pop: str, channel: str, scheme: str = "rtmp") -> str:
        """Where an encoder publishes, with the key."""
        return f"{scheme}://127.0.0.1:{self.ports[f'{pop}.{scheme}']}/live/{self.keys[channel]}"

    def playback(self, pop: str) -> str:
        """Where viewers go."""
        return f"http://127.0.0.1:{self.ports[f'{pop}.http']}"


CHANNELS = ("one", "two", "three", "four")
HOSTS = ("irs", "origin", "a", "b")
PORTS = (
    *("irs", "backbone"),
    *(f"{pop}.{what}" for pop in "ab" for what in ("rtmp", "rtmps", "http", "https")),
    *(f"{host}.{what}" for host in HOSTS for what in ("metrics", "status")),
)
TOKEN = "the-token-of-this-network"  # noqa: S105 - it opens nothing


@contextlib.asynccontextmanager
async def open_network(
    *,
    doomed: Sequence[str] = (),
    channels: Sequence[str] = CHANNELS,
    origin: str = "",
    pops: str = "",
    latencies: Mapping[str, str] | None = None,
    origin_rtt_s: float = 0.0,
    origin_keys: str = "",
) -> AsyncIterator[Network]:
    """Make a CA and certificates with `edged cert`, and run each host with `edged run`.

    `doomed`: hosts that the test kills; `origin`, `pops`: more of the origin's and PoPs' files;
    `latencies`: of channels' keys; `origin_rtt_s`: how far away the origin is from the PoPs;
    `origin_keys`: more of its table `[origin]`.
    """
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        await make_certificates(folder, {"irs": "irs", "origin": "origin", "a": "pop", "b": "pop"})
        ports = take_ports(PORTS)
        keys = {channel: f"key-of-{channel}-only" for channel in channels}
        configs = write_configs(folder, ports, keys, latencies or {})
        for host, more in (("origin", origin), ("a", pops), ("b", pops)):
            configs[host].write_text(configs[host].read_text() + more)
        async with contextlib.AsyncExitStack() as stack:
            if origin_rtt_s:
                weather = Weather(rtt_s=origin_rtt_s, in_flight_bytes_max=ORIGIN_IN_FLIGHT)
                relay = await stack.enter_async_context(open_proxy(ports["backbone"], weather))
                origin_keys += f'address = "127.0.0.1:{relay.port}"\n'
            text = configs["origin"].read_text()
            configs["origin"].write_text(text.replace("[origin]\n", f"[origin]\n{origin_keys}", 1))
            hosts = {}
            for host, path in configs.items():
                edged = await stack.enter_async_context(
                    open_edged(folder, host, "run", "-c", str(path), doomed=host in doomed)
                )
                hosts[host] = Host(edged, path)
            network = Network(folder=folder, hosts=hosts, ports=ports, keys=keys)
            for pop in ("a", "b"):
                await hosts[pop].edged.wait_log("role started")
                await hosts[pop].edged.wait_log("backbone session started", count=4)
            yield network


_certificates: dict[tuple[tuple[str, str], ...], dict[str, bytes]] = {}


async def make_certificates(folder: Path, roles: Mapping[str, str]) -> None:
    """A CA's, and those of hosts with these roles, as `edged cert` makes them.

    Networks of one test process with the same hosts have the same: each would take seconds.
    """
    hosts = tuple(sorted(roles.items()))
    if hosts not in _certificates:
        await run_edged(folder, "cert", "ca", "test")
        async with trio.open_nursery() as nursery:
            for host, role in hosts:
                nursery.start_soon(run_edged, folder, "cert", "host", role, host)
        made = sorted((folder / "certs").iterdir())
        _certificates[hosts] = {path.name: path.read_bytes() for path in made}
        return
    (folder / "certs").mkdir()
    for name, content in _certificates[hosts].items():
        (folder / "certs" / name).write_bytes(content)
        (folder / "certs" / name).chmod(0o600)


def write_configs(
    folder: Path,
    ports: dict[str, int],
    keys: dict[str, str],
    latencies: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """The files of the four hosts, in the order in which they start."""
    irs, backbone = f"127.0.0.1:{ports['irs']}", f"127.0.0.1:{ports['backbone']}"
    texts = {
        "irs": f'[irs]\nlisten = "{irs}"\nwarmup_s = 0.0\n{tls("irs", "irs")}',
        "origin": f'[origin]\nname = "origin"\nlisten = "{backbone}"\n{tls("origin", "origin")}'
        f'[irs_client]\naddresses = ["{irs}"]\n',
    }
    static = "".join(
        f'[[stream_keys.static]]\nchannel = "{channel}"\nkey = "{key}"\n'
        f'latency = "{(latencies or {}).get(channel, "default")}"\n'
        for channel, key in keys.items()
    )
    for pop in ("a", "b"):
        texts[pop] = (
            f'[pop]\nname = "{pop}"\n{tls("pop", pop)}'
            f'[irs_client]\naddresses = ["{irs}"]\n'
            f'[ingest.rtmp]\nlisten = "127.0.0.1:{ports[f"{pop}.rtmp"]}"\n'
            f'[ingest.rtmp.tls]\nlisten = "127.0.0.1:{ports[f"{pop}.rtmps"]}"\n'
            f'certificate = "certs/pop-{pop}.pem"\nkey = "certs/pop-{pop}.key"\n'
            f'[playback]\nlisten = "127.0.0.1:{ports[f"{pop}.http"]}"\n'
            f'[playback.tls]\nlisten = "127.0.0.1:{ports[f"{pop}.https"]}"\n'
            f'certificate = "certs/pop-{pop}.pem"\nkey = "certs/pop-{pop}.key"\n{static}'
        )
    paths = {}
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    for host, text in texts.items():
        paths[host] = folder / f"{host}.toml"
        common = (
            f'[admin]\nsocket = "{folder}/{host}.sock"\n'
            f'listen = "127.0.0.1:{ports[f"{host}.status"]}"\ntoken_file = "{token}"\n'
            f'[metrics]\nlisten = "127.0.0.1:{ports[f"{host}.metrics"]}"\n'
        )
        paths[host].write_text(text + common)
    return paths


def tls(role: str, name: str) -> str:
    """The table of a host's identity."""
    files = f'certificate = "certs/{role}-{name}.pem"\nkey = "certs/{role}-{name}.key"\n'
    return f'[{role}.tls]\nca = "certs/ca.pem"\n{files}'


def take_ports(names: Sequence[str]) -> dict[str, int]:
    """A port for each."""
    return {name: take_port() for name in names}
