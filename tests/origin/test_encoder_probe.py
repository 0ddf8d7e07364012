"""Encoders are tried in real processes: good ones, absent ones, and those that crash or hang."""

import pytest
import trio
from structlog.testing import capture_logs

from edged.origin.encoder_probe import MODULE, find_encoders
from edged.policy.ladder import X264
from edged.policy.ladder_encoders import HARDWARE

pytestmark = pytest.mark.e2e
NVENC, QSV, VAAPI = HARDWARE
# Says of whatever it is asked what the real probe finds of x264.
AS_X264 = (
    "-c",
    "import runpy, sys; sys.argv[1] = 'libx264';"
    f"runpy.run_module('{MODULE}', run_name='__main__', alter_sys=False)",
)


async def test_what_this_machine_has_is_logged_with_the_reason() -> None:
    with capture_logs() as logs, trio.fail_after(20):
        found = await find_encoders("auto")
    assert found.encoders[-1] == X264
    assert {*found.encoders, *found.missing} == {*HARDWARE, X264}
    assert all(found.missing.values())
    (line,) = logs
    assert (line["event"], line["configured"]) == ("ladder encoder", "auto")
    assert line["text"] == found.explain("auto")
    assert all(why in line["text"] for why in found.missing.values()) or len(found.encoders) > 1


async def test_x264_needs_no_process() -> None:
    with capture_logs() as logs:
        found = await find_encoders("x264", ("-c", "import os; os.abort()"))
    assert (found.encoders, found.missing) == ((X264,), {})
    assert logs[0]["text"] == "encoder x264, as configured"


async def test_one_that_works_is_found_in_the_order_of_preference() -> None:
    with trio.fail_after(20):
        found = await find_encoders("auto", AS_X264)
    assert found.encoders == (NVENC, QSV, VAAPI, X264)
    assert found.explain("auto") == "encoder h264_nvenc: found here"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; sys.exit('no such device')", "no such device"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its driver crashed"),
        ("import os; os.write(0, b'nonsense')", "malformed"),
        ('import os; os.write(0, b\'{"works":false,"reason":"no"}\')', "no"),
        ('import os; os.write(0, b\'{"works":false,"reason":""}\')', "does not work"),
        ("import time; time.sleep(60)", "no answer for 0.5 s"),
    ],
    ids=["fails", "crashes", "nonsense", "says no", "says nothing", "hangs"],
)
async def test_one_that_fails_is_left_out_with_the_reason(code: str, why: str) -> None:
    began = trio.current_time()
    with trio.fail_after(10):
        found = await find_encoders("vaapi", ("-c", code), limit_s=0.5 if "0.5" in why else 8.0)
    assert found.encoders == (X264,)
    assert why in found.missing[VAAPI]
    assert found.explain("vaapi").startswith("encoder x264, not vaapi as configured: ")
    assert trio.current_time() - began < 9
