"""Processes of the bench: started on a core, read from /proc, ended by their own pid."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from edged.errors import EdgedError

START_TIMEOUT_S: Final = 15.0
REPLY_TIMEOUT_S: Final = 30.0
EXIT_TIMEOUT_S: Final = 10.0
LINE_BYTES_MAX: Final = 2**20


T = TypeVar("T")


class Complaint(msgspec.Struct, frozen=True):
    """What the C programs say before they give up."""

    error: str | None = None


class BenchError(EdgedError):
    """This run measured nothing; the message says why."""


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Processes started inside run on `core` only (None: anywhere)."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """A child that we started; its `with` block ends it."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        core: int | None,
        log: Path,
        cwd: Path | None = None,
    ) -> None:
        self.name = Path(arguments[0]).name
        self.log = log
        with log.open("wb") as errors, on_core(core):
            self._popen = subprocess.Popen(  # noqa: S603 - our own arguments
                [str(argument) for argument in arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
            )
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._popen.pid

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._popen.poll() is None:
                self._popen.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(EXIT_TIMEOUT_S)
                break
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def check(self) -> None:
        """Raises BenchError when the process has ended."""
        if self._popen.poll() is not None:
            raise BenchError(f"{self.name} ended with {self._popen.returncode}: {self.tail()}")

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def tail(self) -> str:
        """The end of what it wrote on stderr."""
        return self.log.read_text(errors="replace")[-2000:].strip()

    def say(self, line: str) -> None:
        stdin = self._popen.stdin
        assert stdin is not None, "made with a pipe"
        try:
            stdin.write(line.encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            self.hear(Complaint)  # Its last line says why it left.
            raise BenchError(f"{self.name} has closed its stdin") from None

    def hear(self, expected: type[T], timeout_s: float = REPLY_TIMEOUT_S) -> T:
        """The next line of its stdout. Raises BenchError: none came in time, or a complaint did."""
        line = self._read_line(time.monotonic() + timeout_s)
        if (complaint := msgspec.json.decode(line, type=Complaint).error) is not None:
            raise BenchError(f"{self.name}: {complaint}")
        return msgspec.json.decode(line, type=expected)

    def _read_line(self, deadline: float) -> bytes:
        stdout = self._popen.stdout
        assert stdout is not None, "made with a pipe"
        poller = select.poll()  # select(2) ends at descriptor 1,024.
        poller.register(stdout, select.POLLIN)
        while b"\n" not in self._unread:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poller.poll(1000 * left_s):
                raise BenchError(f"{self.name} said nothing in time: {self.tail()}")
            data = os.read(stdout.fileno(), 65536)
            self._unread += data
            if not data or len(self._unread) > LINE_BYTES_MAX:
                raise BenchError(f"{self.name} ended or babbles: {self.tail()}")
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def wait_until_listening(process: Process, port: int) -> None:
    """Raises BenchError when the server ended, or does not accept within START_TIMEOUT_S."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        process.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise BenchError(f"{process.name} does not listen on {port}: {process.tail()}")


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    pids = [pid]
    for known in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{known}/task").iterdir():
                pids += [int(child) for child in (task / "children").read_text().split()]
    return pids


def cpu_s(pids: Iterable[int]) -> float:
    """CPU time used by the processes' threads, user and kernel, in seconds.

    From schedstat. What loopback does in the sender's context, up to the receiver's socket, counts
    as the sender's, unless the kernel accounts for interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING).
    """
    total_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def system_s(pids: Iterable[int]) -> float:
    """CPU time that the processes spent in the kernel, in seconds; sampled at ticks, so rougher."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def core_busy_s(core: int) -> float:
    """How long the core has not been idle, in seconds, from /proc/stat."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, ticks)
            return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    raise BenchError(f"/proc/stat has no cpu{core}")


def memory_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of the processes (memory shared with others counts in part)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
