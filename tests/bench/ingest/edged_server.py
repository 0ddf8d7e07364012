"""edged's PoP under measurement, and what the sink must say to be its origin."""

import contextlib
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from edged.media.routing import OriginReport, ReportedState
from edged.media.stream import PriorityClass
from edged.roles.pop import RouteAnswer
from edged.runtime.tls import Identity, TlsFiles
from edged.tools.cert import make_authority, make_host_certificate
from edged.wire.backbone.messages import (
    PROTO,
    DirectoryDelta,
    Heartbeat,
    Hello,
    Purpose,
    make_hello_frame,
    make_message_frame,
)
from tests.bench.ingest.measure import Bench, Server
from tests.bench.ingest.processes import START_TIMEOUT_S, BenchError, Process
from tests.ports import take_port

ORIGIN: Final = "sink"
POP: Final = "bench"
IRS: Final = "irs"
STREAM_WINDOW_BYTES: Final = 16 * 2**20  # As in native/sink_backbone.c.
SESSION_WINDOW_BYTES: Final = 64 * 2**20
EDGED: Final = ("-c", "from edged.cli.main import main; main()")
PLAYBACK: Final = 'listen = "127.0.0.1:0"'
TOKEN_SHA256: Final = "0" * 64  # Nobody asks.
ROOT: Final = Path(__file__).parents[3]
ANSWER_BYTES_MAX: Final = 2**20
SLOTS: Final = 100_000  # Never the limit here.
REPORT: Final = OriginReport(ORIGIN, 1, ReportedState.UP, SLOTS, (SLOTS, SLOTS, SLOTS))

_POP = """\
[pop]
name = "{pop}"
{tls}
[irs_client]
addresses = ["127.0.0.1:{irs_port}"]
table_file = "{directory}/table"

[ingest.rtmp]
listen = "127.0.0.1:{rtmp_port}"

[ingest.rtmp.tls]
listen = "127.0.0.1:{rtmps_port}"
certificate = "{public.certificate}"
key = "{public.key}"

[[webhooks]]
name = "bench"
url = "http://127.0.0.1:{hooks_port}/"
secret = "a-secret-of-the-bench-that-is-long-enough"

[stream_keys.callback]
url = "http://127.0.0.1:{hooks_port}/"

[playback]
{playback}

[metrics]
listen = "127.0.0.1:{metrics_port}"

[admin]
socket = "{directory}/admin.sock"
listen = "127.0.0.1:{status_port}"
token_sha256 = "{token}"

[log]
format = "json"

{keys}
"""


class Ports(Struct, frozen=True):
    """irs.py's first line."""

    port: int
    hooks: int  # Where webhooks and questions about keys are answered.


class AdminAnswer(Struct, frozen=True):
    """The admin door's answer to route-explain: one for each PoP of the process."""

    result: list[RouteAnswer] = []  # The PoP's own types, so that a change of theirs shows here.
    error: str = ""


def write_sink_files(directory: Path, *, tls: bool) -> None:
    """Write the frames that native/sink_backbone.c sends; and certificates, for TLS."""
    delta = DirectoryDelta(
        origin=ORIGIN, incarnation=1, version=1, from_version=0, changed=[], removed=[]
    )
    frames = {
        "hello_control.bin": _make_hello("control", PriorityClass.PARTNER),
        "heartbeat.bin": make_message_frame(Heartbeat(REPORT)),
        "directory.bin": make_message_frame(delta),
    }
    for priority in PriorityClass:
        frames[f"hello_media_{priority.value}.bin"] = _make_hello("media", priority)
    for name, frame in frames.items():
        (directory / name).write_bytes(frame)
    if tls:
        _write_certificates(directory)


def _make_hello(purpose: Purpose, priority: PriorityClass) -> bytes:
    hello = Hello(
        proto=PROTO,
        role="origin",
        name=ORIGIN,
        shard=1,
        instance=1,
        purpose=purpose,
        priority=priority,
        session_window=SESSION_WINDOW_BYTES,
        stream_window=STREAM_WINDOW_BYTES,
    )
    return make_hello_frame(hello)


def _write_certificates(directory: Path) -> None:
    now = time.time()
    make_authority(directory, "bench", now=now)
    for identity in (Identity("origin", ORIGIN), Identity("pop", POP), Identity("irs", IRS)):
        make_host_certificate(directory, identity, now=now)
    for suffix in ("pem", "key"):
        (directory / f"origin-{ORIGIN}.{suffix}").rename(directory / f"sink.{suffix}")


def tls_files(directory: Path, stem: str) -> TlsFiles:
    """The files that `write_sink_files` made for one host."""
    return TlsFiles(
        ca=str(directory / "ca.pem"),
        certificate=str(directory / f"{stem}.pem"),
        key=str(directory / f"{stem}.key"),
    )


def public_files(directory: Path) -> TlsFiles:
    """A certificate for those outside, made when it is first asked for."""
    public = directory / "public"
    if not public.exists():
        public.mkdir()
        make_authority(public, "bench", now=time.time())
        make_host_certificate(public, Identity("pop", POP), now=time.time())
    return tls_files(public, f"pop-{POP}")


def make_pop_config(
    streams: int,
    directory: Path,
    ports: dict[str, int],
    files: TlsFiles | None,
    playback: str = PLAYBACK,
) -> tuple[str, list[str]]:
    """The PoP's TOML, with all that it can do beside, and its publishers' keys."""
    keys = [f"bench-key-{number}" for number in range(streams)]
    tables = [
        f'[[stream_keys.static]]\nchannel = "bench{number}"\nkey = "{key}"\n'
        for number, key in enumerate(keys)
    ]
    tls = ""
    if files is not None:
        named = {"ca": files.ca, "certificate": files.certificate, "key": files.key}
        tls = "\n".join(["[pop.tls]", *(f'{name} = "{path}"' for name, path in named.items()), ""])
    text = _POP.format(
        pop=POP, directory=directory, tls=tls, keys="\n".join(tables), playback=playback,
        public=public_files(directory), token=TOKEN_SHA256, **ports,
    )  # fmt: skip
    return text, keys


@contextlib.contextmanager
def edged(
    streams: int,
    sink_port: int,
    bench: Bench,
    *,
    tls: bool,
    samples: Path | None,
    program: Sequence[str] = EDGED,
    playback: str = PLAYBACK,
) -> Iterator[Server]:
    """Start the PoP, with the sink as the network's only origin. Raises BenchError.

    `program` is Python's arguments up to `run`; `playback` is the table's text.
    """
    directory, cores = bench.directory, bench.cores
    irs: list[str | Path] = [sys.executable, "-m", "tests.bench.ingest.irs"]
    irs += [f"127.0.0.1:{sink_port}", *([directory] if tls else [])]
    with Process(irs, core=cores.load, log=directory / "irs.log", cwd=ROOT) as irs_process:
        told = irs_process.hear(Ports)
        ports = {
            "irs_port": told.port,
            "hooks_port": told.hooks,
            **{f"{name}_port": take_port() for name in ("rtmp", "rtmps", "metrics", "status")},
        }
        files = tls_files(directory, f"pop-{POP}") if tls else None
        text, keys = make_pop_config(streams, directory, ports, files, playback)
        configuration = directory / "pop.toml"
        configuration.write_text(text)
        run: list[str | Path] = [sys.executable, *program]
        if samples is not None:
            run = [sys.executable, "-m", "tests.bench.ingest.sampler", samples]
        run += ["run", "-c", configuration]
        with Process(run, core=cores.server, log=directory / "edged.log", cwd=ROOT) as process:
            _await_route(process, directory / "admin.sock", "bench0")
            url = f"rtmp://127.0.0.1:{ports['rtmp_port']}/live"
            metrics = f"http://127.0.0.1:{ports['metrics_port']}/metrics"
            yield Server(process, ports["rtmp_port"], url, keys, lambda: read_ring_bytes(metrics))


def _await_route(process: Process, door: Path, channel: str) -> None:
    """Wait until the PoP would place a stream. Raises BenchError with its reason."""
    deadline, reason = time.monotonic() + START_TIMEOUT_S, "it does not answer"
    while time.monotonic() < deadline:
        process.check()
        with contextlib.suppress(OSError):
            answer = _ask_route(door, channel)
            if answer.result and not answer.result[0].now.refusal:
                return
            reason = answer.error or answer.result[0].now.refusal
        time.sleep(0.1)
    raise BenchError(f"the PoP has no route: {reason}; its log: {process.tail()}")


def _ask_route(door: Path, channel: str) -> AdminAnswer:
    question = {"command": "route-explain", "arguments": {"channel": channel}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(5.0)
        asking.connect(str(door))
        asking.sendall(msgspec.json.encode(question) + b"\n")
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < ANSWER_BYTES_MAX:
            data = asking.recv(65536)
            if not data:
                break
            answer += data
    return msgspec.json.decode(answer, type=AdminAnswer)


def read_ring_bytes(url: str) -> int:
    """Sum `edged_hub_ring_bytes` on the metrics page. Raises BenchError when it is not there."""
    try:
        with urllib.request.urlopen(url, timeout=5.0) as page:  # noqa: S310 - our own server
            lines = page.read().decode().splitlines()
    except OSError as error:
        raise BenchError(f"{url}: {error}") from error
    found = [line for line in lines if line.startswith("edged_hub_ring_bytes")]
    if not found:
        raise BenchError(f"{url} has no edged_hub_ring_bytes")
    return int(sum(float(line.split()[-1]) for line in found))
