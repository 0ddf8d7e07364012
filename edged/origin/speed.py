"""How fast this machine makes ladders: a short test in a child process, when an origin starts."""

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
import trio

from edged.policy.ladder_capacity import (
    CORE_SLOTS_MAX,
    LadderCapacity,
    Speed,
    assumed_capacity,
    measured_capacity,
)
from edged.runtime.child import STDERR_BYTES, Child, open_child

MODULE = "edged.origin.speed_child"
TEST_S = 1.2  # Of making the ladder, beside half a second to begin.
TEST_S_MAX = 10.0  # On a machine so busy, what is found is worth nothing.
CORES_MAX = 4  # Tested at once; the others are alike.
ANSWER_BYTES_MAX = 4096
GONE_S_MAX = 1.0  # From its last word to its end.
CGROUP = Path("/sys/fs/cgroup")
CGROUP_OF_SELF = Path("/proc/self/cgroup")

logger = structlog.get_logger("edged.ladder")


async def measure_capacity(
    command: Sequence[str] = ("-m", MODULE), *, limit_s: float = TEST_S_MAX
) -> LadderCapacity:
    """The slots of this machine; assumed ones, and why, if the test fails."""
    cores = usable_cores()
    tested = max(1, min(CORES_MAX, math.floor(cores)))
    began = trio.current_time()
    said: list[str] = []
    speed: Speed | None = None
    why = f"no answer for {limit_s:g} s"
    with trio.move_on_after(limit_s):
        try:
            answer = await ask_child([*command, str(TEST_S), str(tested)], said)
            speed = msgspec.json.decode(answer, type=Speed) if answer else None
        except (OSError, msgspec.DecodeError) as error:
            why = str(error)
        else:
            why = said[-1] if said else "it ended without an answer"
        if speed is not None and not 0 < speed.core_slots <= CORE_SLOTS_MAX:
            why, speed = f"a core of {speed.core_slots:g} slots is unlikely", None
    took_s = round(trio.current_time() - began, 2)
    if speed is None:
        capacity = assumed_capacity(cores, why)
        logger.warning("ladder slots", text=capacity.text, slots=capacity.slots, took_s=took_s)
        return capacity
    capacity = measured_capacity(speed, cores)
    logger.info(
        "ladder slots",
        text=capacity.text,
        slots=capacity.slots,
        core_slots=round(speed.core_slots, 1),
        cores=cores,
        tested=speed.tested,
        pictures=speed.pictures,
        cpu_s=round(speed.cpu_s, 2),
        took_s=took_s,
    )
    return capacity


async def ask_child(arguments: Sequence[str], said: list[str]) -> bytes:
    """What a child answers before it ends; nothing, and in `said` its last lines, if it fails."""
    answer = bytearray()
    async with open_child(arguments) as child, trio.open_nursery() as nursery:
        nursery.start_soon(_read_errors, child, said)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while len(answer) < ANSWER_BYTES_MAX and (
                data := await child.stream.receive_some(ANSWER_BYTES_MAX)
            ):
                answer += data
        if answer:
            nursery.cancel_scope.cancel()
        else:
            nursery.cancel_scope.deadline = trio.current_time() + GONE_S_MAX
    return bytes(answer)


async def _read_errors(child: Child, said: list[str]) -> None:
    """The lines of its standard error, the last ones."""
    text = bytearray()
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        while data := await child.errors.receive_some(STDERR_BYTES):
            text += data
            del text[:-STDERR_BYTES]
            said[:] = text.decode(errors="replace").strip().splitlines()


def usable_cores(cgroup: Path = CGROUP, of_self: Path = CGROUP_OF_SELF) -> float:
    """Cores that this process may use: by its affinity, and by the quota of its control group."""
    cores = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = of_self.read_text().splitlines()
        path = next(line for line in lines if line.startswith("0::")).removeprefix("0::")
        quota, period = (cgroup / path.lstrip("/") / "cpu.max").read_text().split()
        if quota != "max" and int(quota) > 0 and int(period) > 0:
            cores = min(cores, int(quota) / int(period))
    return cores
