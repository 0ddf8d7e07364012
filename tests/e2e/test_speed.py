"""An origin's loop goes on while the machine is measured for its slots."""

import pytest
import trio

from edged.origin.speed import measure_capacity
from tests.e2e.machine import watch_machine

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

LAG_S_MAX = 0.5


async def test_the_loop_does_not_wait_while_the_machine_is_measured() -> None:
    with trio.fail_after(20):
        async with watch_machine() as stillness:  # In this very loop.
            capacity = await measure_capacity()
    assert capacity.source == "measured", capacity.text
    assert stillness.late_s_max < LAG_S_MAX
