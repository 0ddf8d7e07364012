"""The speed test as an origin runs it: real children, good and bad ones."""

from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from edged.origin.speed import measure_capacity, usable_cores

pytestmark = pytest.mark.e2e


async def test_this_machine_is_measured() -> None:
    """That the loop does not wait meanwhile is in `tests/e2e/test_speed.py`, by itself."""
    with capture_logs() as logs, trio.fail_after(20):
        capacity = await measure_capacity()
    assert capacity.source == "measured", capacity.text
    (line,) = logs
    assert line["event"] == "ladder slots"
    assert line["slots"] == capacity.slots
    assert line["pictures"] >= 5


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; sys.exit('no encoder here')", "no encoder here"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it ended without an answer"),
        ("import os; os.write(0, b'nonsense')", "malformed"),
        ("import os; os.write(0, b'{\"core_slots\": 1}')", "missing required field"),
        (
            'import os; os.write(0, b\'{"core_slots":0,"tested":1,"pictures":1,"cpu_s":1}\')',
            "a core of 0 slots",
        ),
        ("import time; time.sleep(60)", "no answer for 0.5 s"),
        ("import os, time; os.close(0); time.sleep(60)", "it ended without an answer"),
    ],
    ids=["fails", "crashes", "nonsense", "half", "nothing", "hangs", "closes"],
)
async def test_a_child_that_fails_gives_assumed_slots_with_the_reason(code: str, why: str) -> None:
    began = trio.current_time()
    with capture_logs() as logs, trio.fail_after(10):
        capacity = await measure_capacity(("-c", code), limit_s=0.5 if "no answer" in why else 8.0)
    assert capacity.source == "assumed"
    assert why in capacity.text
    assert [line["log_level"] for line in logs] == ["warning"]
    assert trio.current_time() - began < 9


def test_cores_are_bounded_by_the_control_group(tmp_path: Path) -> None:
    of_self = tmp_path / "cgroup"
    group = tmp_path / "system.slice" / "edged.service"
    group.mkdir(parents=True)
    of_self.write_text("3:cpuset:/\n0::/system.slice/edged.service\n")
    for text, cores in (("50000 100000", 0.5), ("max 100000", None), ("nonsense", None)):
        (group / "cpu.max").write_text(text)
        unbounded = usable_cores(tmp_path / "absent", of_self)
        assert usable_cores(tmp_path, of_self) == (cores if cores is not None else unbounded)
    of_self.write_text("3:cpuset:/\n")
    assert usable_cores(tmp_path, of_self) >= 1
