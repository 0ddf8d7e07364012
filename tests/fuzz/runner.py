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

INPUT_S_MAX = 1.0  # Of CPU time: 4 KiB of anything; honest input of that size takes milliseconds.
RSS_MIB_MAX = 64  # What the process may grow by after its first tenth.
WARM_INPUTS = 200


class EscapedError(AssertionError):
    """An input did what none may do."""


class Report(Struct, kw_only=True):
    """What a run came to."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    input_ms_max: float = 0.0  # CPU time of the worst input.
    out_bytes_max: int = 0
    rss_mib_grown: float = 0.0  # After the first tenth.


class Fed:
    """Feeds one target and keeps the report."""

    def __init__(self, target: Target, inputs: int) -> None:
        self.target = target
        self.report = Report(target=target.name)
        self.worst = b""
        self._inputs = inputs
        self._rss_mib = 0.0
        self._began_at = time.monotonic()
        self._faults: list[dict[str, object]] = []
        structlog.configure(processors=[self._hear], cache_logger_on_first_use=False)

    def feed(self, data: bytes) -> None:
        """One input; raises EscapedError, or what the target raised."""
        report, target = self.report, self.target
        data = data[: target.bytes_max]
        began_at = time.thread_time()
        out = target.run(data)
        took_s = time.thread_time() - began_at
        report.inputs += 1
        if took_s * 1000 > report.input_ms_max and report.inputs > WARM_INPUTS:
            report.input_ms_max, self.worst = took_s * 1000, data
        report.out_bytes_max = max(report.out_bytes_max, out)
        report.seconds = time.monotonic() - self._began_at
        if report.inputs == max(self._inputs // 10, 1):
            self._rss_mib = rss_mib()
        if self._faults:
            raise EscapedError(f"logged as a fault: {self._faults.pop()}")
        if took_s > INPUT_S_MAX:
            raise EscapedError(f"{len(data)} bytes took {took_s:.2f} s, allowed are {INPUT_S_MAX}")
        if out > target.out_bytes_max:
            raise EscapedError(f"{out} bytes came out, allowed are {target.out_bytes_max}")

    def finish(self) -> Report:
        """Judge the whole run."""
        report = self.report
        report.rss_mib_grown = rss_mib() - self._rss_mib
        if report.rss_mib_grown > RSS_MIB_MAX:
            raise EscapedError(f"memory grew by {report.rss_mib_grown:.0f} MiB in a run")
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
    return pages * resource.getpagesize() / 2**20


def mutations(seeds: Sequence[bytes], rng: random.Random, bytes_max: int) -> Iterator[bytes]:
    """Inputs without end: the seeds, then seeds spoilt in a few places, and crossed."""
    yield from seeds
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(1 + rng.randrange(8)):
            MUTATORS[rng.randrange(len(MUTATORS))](data, seeds, rng)
        yield bytes(data[:bytes_max])


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


def run_seeded(target: Target, inputs: int, seed: int, failed_to: Path | None = None) -> Report:
    """The same inputs for the same seed; what fails is minimised and kept in `failed_to`."""
    fed = Fed(target, inputs)
    rng = random.Random(seed)  # noqa: S311 - inputs are to be the same again
    for _, data in zip(
        range(inputs), mutations(target.seeds(), rng, target.bytes_max), strict=False
    ):
        try:
            fed.feed(data)
        except Exception as error:
            least = minimise(data, functools.partial(fails, target, type(error)))
            if failed_to is not None:
                failed_to.mkdir(parents=True, exist_ok=True)
                (failed_to / f"{target.name}-{fed.report.inputs}").write_bytes(least)
            raise EscapedError(f"{target.name}, seed {seed}: {error!r} from {least!r}") from error
    return fed.finish()


def fails(target: Target, kind: type[Exception], data: bytes) -> bool:
    """Whether an input raises such an error."""
    try:
        Fed(target, 1).feed(data)
    except kind:
        return True
    except Exception:
        return False
    return False


def minimise(data: bytes, failing: Callable[[bytes], bool], tries_max: int = 2000) -> bytes:
    """A shorter input that fails in the same way: pieces are left out while it does."""
    size, tries = max(1, len(data) // 2), 0
    while size and tries < tries_max:
        at = 0
        while at < len(data) and tries < tries_max:
            shorter = data[:at] + data[at + size :]
            tries += 1
            if failing(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data
