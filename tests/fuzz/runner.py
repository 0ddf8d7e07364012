"""Runs a target: what escapes, what is logged as a fault of ours, how long and how large."""

import functools
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog
from msgspec import Struct

from tests.fuzz.script import Target

INPUT_S_MAX = 0.25  # Of CPU time, for an input of the usual size; the slowest takes some 10 ms.
SHOWN_BYTES = 200  # Of an input that failed; the file has it all.
LARGE_TIMES = 16  # So much larger than usual are a few inputs: what is quadratic shows in them.
LARGE_S_MAX = 2.0  # CPU time of such a one: 16 times 0.02 s, with room; 256 times would be 5 s.
LARGE_EVERY = 512
SLOW_TRIES = 3  # One that took too long is timed again: a busy machine's caches are not its fault.
RSS_MIB_MAX = 16  # What the process may grow by between its first and its last quarter.
PEAK_MIB_MAX = 64  # And what it may hold for a moment, above the end of its first quarter.
WARM_INPUTS = 200  # What is made once is made in these: their times are not told.
MINIMISE_TRIES_MAX = 2000
MINIMISE_S_MAX = 30.0  # Slow inputs are what may be minimised.
MIB = 2**20


class EscapedError(AssertionError):
    """An input did what none may do."""


class Report(Struct, kw_only=True):
    """What a run came to."""

    target: str
    seed: int
    guided: bool = False
    inputs: int = 0
    large: int = 0  # Of them.
    seconds: float = 0.0
    input_ms_max: float = 0.0  # CPU time of the worst input of the usual size.
    large_ms_max: float = 0.0
    out_bytes_max: int = 0  # Of those of the usual size.
    rss_mib_grown: float = 0.0  # Between the first and the last quarter.
    peak_mib_grown: float = 0.0

    def __str__(self) -> str:
        how = "guided" if self.guided else "seeded"
        return (
            f"{self.target}: {self.inputs} inputs ({self.large} large), {how}, seed {self.seed}, "
            f"{self.seconds:.0f} s; worst {self.input_ms_max:.1f} ms, "
            f"large {self.large_ms_max:.1f} ms; output {self.out_bytes_max} bytes; "
            f"memory {self.rss_mib_grown:+.1f} MiB, peak {self.peak_mib_grown:+.1f} MiB"
        )


class Fed:
    """Feeds one target and keeps the report. `inputs`: how many there will be."""

    def __init__(self, target: Target, inputs: int, seed: int = 0, *, guided: bool = False) -> None:
        self.target = target
        self.report = Report(target=target.name, seed=seed, guided=guided)
        self._quarter = max(inputs // 4, 1)
        self._rss_mib = self._peak_mib = 0.0
        self._began_at = time.monotonic()
        self._faults: list[dict[str, object]] = []
        structlog.configure(processors=[self._hear], cache_logger_on_first_use=False)

    def feed(self, data: bytes) -> None:
        """One input; raises EscapedError, or what the target raised."""
        report, target = self.report, self.target
        large = len(data) > target.bytes_max
        self._faults.clear()
        s_max = LARGE_S_MAX if large else INPUT_S_MAX
        out, first_s = self._time(data)
        took_s = first_s
        for _ in range(SLOW_TRIES - 1):
            if took_s > s_max:
                took_s = min(took_s, self._time(data)[1])
        report.inputs += 1
        report.large += large
        if report.inputs > WARM_INPUTS:
            if large:
                report.large_ms_max = max(report.large_ms_max, first_s * 1000)
            else:
                report.input_ms_max = max(report.input_ms_max, first_s * 1000)
        if not large:
            report.out_bytes_max = max(report.out_bytes_max, out)
        report.seconds = time.monotonic() - self._began_at
        if report.inputs == self._quarter:
            forget_peak()
            self._rss_mib, self._peak_mib = rss_mib(), peak_mib()
        if self._faults:
            raise EscapedError(f"logged as a fault: {self._faults.pop()}")
        if took_s > s_max:
            raise EscapedError(f"{len(data)} bytes took {took_s:.2f} s of CPU time")
        if out > target.out_bytes_max * (LARGE_TIMES if large else 1):
            raise EscapedError(f"{out} bytes came out, allowed are {target.out_bytes_max}")

    def _time(self, data: bytes) -> tuple[int, float]:
        """Bytes that came out, and seconds of CPU time."""
        began_at = time.thread_time()
        try:
            out = self.target.run(data)
        except Exception as error:
            if self._faults:
                raise EscapedError(f"logged as a fault: {self._faults.pop()}") from error
            raise
        return out, time.thread_time() - began_at

    def measure(self) -> Report:
        """The report as of now."""
        report = self.report
        if report.inputs >= self._quarter:
            report.rss_mib_grown = rss_mib() - self._rss_mib
            report.peak_mib_grown = peak_mib() - self._peak_mib
        return report

    def finish(self) -> Report:
        """Judge the whole run's memory."""
        report = self.measure()
        if report.rss_mib_grown > RSS_MIB_MAX:
            raise EscapedError(f"memory grew in the run, allowed are {RSS_MIB_MAX} MiB: {report}")
        if report.peak_mib_grown > PEAK_MIB_MAX:
            raise EscapedError(f"an input took much memory, allowed {PEAK_MIB_MAX} MiB: {report}")
        return report

    def _hear(
        self, _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """A traceback in the log is a bug that something contained."""
        error = event.get("exc_info")
        if error is True:  # Of `logger.exception`.
            error = sys.exception()
        if isinstance(error, BaseException) and event["event"] not in self.target.contained:
            self._faults.append({**event, "exc_info": "".join(traceback.format_exception(error))})
        raise structlog.DropEvent


def rss_mib() -> float:
    """What the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def peak_mib() -> float:
    """The most that the process has held since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak() -> None:
    """Begin anew with what is held now (Linux's proc_pid_clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def mutations(seeds: Sequence[bytes], rng: random.Random, bytes_max: int) -> Iterator[bytes]:
    """Inputs without end: the seeds, then seeds spoilt in a few places, and crossed.

    Now and then one is repeated to LARGE_TIMES the size.
    """
    yield from (seed[:bytes_max] for seed in seeds)
    count = 0
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(1 + rng.randrange(8)):
            MUTATORS[rng.randrange(len(MUTATORS))](data, seeds, rng)
        count += 1
        if count % LARGE_EVERY == 0:
            yield _enlarged(data, rng, bytes_max * LARGE_TIMES)
        else:
            yield bytes(data[:bytes_max])


def _enlarged(data: bytearray, rng: random.Random, size: int) -> bytes:
    """An input's piece over and over, between its beginning and its end."""
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((1, 3, 16, 64, 4096)))
    piece = bytes(data[start:end]) or b"\0"
    return (bytes(data[:end]) + piece * (size // len(piece)))[:size] + bytes(data[end:])[:64]


Mutator = Callable[[bytearray, Sequence[bytes], random.Random], None]
INTERESTING = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0" * 8,
)


def _at(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def _flip(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    at, value = _at(data, rng), rng.choice(INTERESTING)
    data[at : at + len(value)] = value


def _insert(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    at = _at(data, rng)
    data[at:at] = rng.randbytes(1 + rng.randrange(16))


def _delete(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    at = _at(data, rng)
    del data[at : at + 1 + rng.randrange(32)]


def _cross(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    other = rng.choice(seeds)
    start = rng.randrange(len(other) + 1)
    at = _at(data, rng)
    data[at : at + rng.randrange(64)] = other[start : start + rng.randrange(256)]


def _repeat(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    at = _at(data, rng)
    piece = data[at : at + 1 + rng.randrange(16)]
    data[at:at] = piece * (1 + rng.randrange(8))


MUTATORS: tuple[Mutator, ...] = (_flip, _set, _insert, _delete, _cross, _repeat)


def run_seeded(
    target: Target,
    inputs: int,
    seed: int,
    failed_to: Path | None = None,
    *,
    tell: Callable[[Report], None] = lambda _: None,
) -> Report:
    """The same inputs for the same seed; what fails is minimised and kept in `failed_to`.

    `tell` hears how far the run is, a hundred times.
    """
    fed = Fed(target, inputs, seed)
    rng = random.Random(seed)  # noqa: S311 - inputs are to be the same again
    source = mutations(target.seeds(), rng, target.bytes_max)
    every = max(inputs // 100, 1)
    for count in range(1, inputs + 1):
        data = next(source)
        try:
            fed.feed(data)
        except Exception as error:
            raise keep_finding(target, seed, data, error, failed_to) from error
        if count % every == 0:
            tell(fed.measure())
    return fed.finish()


def keep_finding(
    target: Target, seed: int, data: bytes, error: Exception, failed_to: Path | None
) -> EscapedError:
    """Minimise an input that failed, and write it to a file."""
    least = minimise(data, functools.partial(fails, target, type(error)))
    name = ""
    if failed_to is not None:
        failed_to.mkdir(parents=True, exist_ok=True)
        path = failed_to / f"{target.name}-{type(error).__name__}-{len(least)}"
        path.write_bytes(least)
        name = f", kept in {path}"
    shown = repr(least[:SHOWN_BYTES]) + ("..." if len(least) > SHOWN_BYTES else "")
    return EscapedError(f"{target.name}, seed {seed}: {error!r} from {shown}{name}")


def fails(target: Target, kind: type[Exception], data: bytes) -> bool:
    """Whether an input raises such an error."""
    try:
        Fed(target, 1).feed(data)
    except Exception as error:
        return type(error) is kind
    return False


def minimise(data: bytes, failing: Callable[[bytes], bool], s_max: float = MINIMISE_S_MAX) -> bytes:
    """A shorter input that fails in the same way: pieces are left out while it does."""
    size, tries, end_at = max(1, len(data) // 2), 0, time.monotonic() + s_max

    def goes_on() -> bool:
        return tries < MINIMISE_TRIES_MAX and time.monotonic() < end_at

    while size and goes_on():
        at = 0
        while at < len(data) and goes_on():
            shorter = data[:at] + data[at + size :]
            tries += 1
            if failing(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data
