"""What the status costs a PoP: `python -m tests.bench.status`.

For some numbers of live streams: the longest slice of a sampling pass (it holds the pump up), the
pass as a share of a core, and a snapshot with its JSON, which is made at most a few times a second.
In CPU time, so that other programs of the machine do not count.
"""

import statistics
import time

import msgspec
import trio

from edged.roles.sampler import SLICE_STREAMS, Sampler
from edged.roles.snapshot import ROWS_DEFAULT, ROWS_MAX, Snapshots, StatusQuery
from tests.roles.crowd import add_stream, make_pop, send

COUNTS = (1, 300, 2000)
PASSES = 70  # The histories are full.
SNAPSHOTS = 30


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, medians but for the longest slice."""

    streams: int
    slice_ms_p99: float
    pass_ms: float
    snapshot_ms: float
    snapshot_most_ms: float  # Of ROWS_MAX rows.
    json_kib: float


async def measure(count: int) -> Costs:
    """One PoP with so many streams, each with a second of sound and picture."""
    pop = make_pop()
    for number in range(count):
        send(add_stream(pop, f"channel{number}", title="A title as people give"), 1.0)
    sampler = Sampler([pop], [])
    snapshots = Snapshots([pop], sampler)
    slices: list[float] = []
    passes: list[float] = []
    now = trio.current_time()
    for number in range(PASSES):
        began = before = time.thread_time()
        for _ in sampler.sample(now + number):
            slices.append(1000 * (time.thread_time() - before))
            before = time.thread_time()
        passes.append(1000 * (time.thread_time() - began))
    plain, size = time_snapshots(snapshots, ROWS_DEFAULT)
    most, _ = time_snapshots(snapshots, ROWS_MAX)
    slices.sort()
    return Costs(
        streams=count,
        slice_ms_p99=slices[int(0.99 * (len(slices) - 1))],
        pass_ms=statistics.median(passes[-10:]),
        snapshot_ms=plain,
        snapshot_most_ms=most,
        json_kib=size / 1024,
    )


def time_snapshots(snapshots: Snapshots, limit: int) -> tuple[float, int]:
    """Median milliseconds of a snapshot with its JSON, and the bytes of that."""
    query = StatusQuery(limit=limit)
    took, size = [], 0
    for _ in range(SNAPSHOTS):
        began = time.thread_time()
        size = len(msgspec.json.encode(snapshots.make(query)))
        took.append(1000 * (time.thread_time() - began))
    return statistics.median(took), size


async def main() -> None:
    """Print a line per count."""
    print(f"slices of {SLICE_STREAMS} streams; snapshots of {ROWS_DEFAULT} and {ROWS_MAX} rows")
    for count in COUNTS:
        costs = await measure(count)
        print(
            f"{costs.streams:5} streams: slice p99 {costs.slice_ms_p99:.2f} ms, "
            f"pass {costs.pass_ms:.2f} ms ({costs.pass_ms / 10:.2f} % of a core), "
            f"snapshot {costs.snapshot_ms:.1f} ms, at most {costs.snapshot_most_ms:.1f} ms, "
            f"JSON {costs.json_kib:.0f} KiB"
        )


if __name__ == "__main__":
    trio.run(main)
