"""Child processes: what they have, what they may take, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trio

from edged.runtime.child import open_child

pytestmark = pytest.mark.e2e
DEADLINE_S = 20.0
SETTLED = """
import os, sys
from edged.runtime.child import settle_child
connection = settle_child(nice=7, memory_bytes_max=2**30)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def test_it_has_a_socket_a_priority_and_nothing_else() -> None:
    script = (
        SETTLED
        + """
fds = sorted(int(name) for name in os.listdir("/proc/self/fd"))
print("words for the log", file=sys.stderr, flush=True)
assert connection.recv(10) == b"hello"
connection.sendall(f"{os.nice(0)} {len(fds)} {'HOME' in os.environ}".encode())
"""
    )
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        with trio.fail_after(DEADLINE_S):
            async with open_child(["-c", script]) as child:
                await child.stream.send_all(b"hello")
                nice, fds, has_home = (await child.stream.receive_some(100)).split()
                assert await child.errors.receive_some(100) == b"words for the log\n"
                assert await child.wait() == 0
    finally:
        os.close(held)
    assert int(nice) >= 7
    assert int(fds) == 5, "standard three, the socket's copy, and the listing's own"
    assert has_home == b"False", "the environment may hold secrets"


async def test_one_that_may_not_be_nice_works_and_says_so() -> None:
    refuse = (
        "import os\n"
        "def refuse(nice): raise PermissionError(1, 'Operation not permitted')\n"
        "os.nice = refuse\n"
    )
    script = refuse + SETTLED + "connection.sendall(b'done')"
    with trio.fail_after(DEADLINE_S):
        async with open_child(["-c", script]) as child:
            assert await child.stream.receive_some(100) == b"done"
            told = await child.errors.receive_some(1000)
            assert await child.wait() == 0
    assert told.startswith(b"its priority stays as it is: nice(7): [Errno 1]")


async def test_it_is_killed_and_reaped_at_the_end_stopped_or_not() -> None:
    with trio.fail_after(DEADLINE_S):
        async with open_child(["-c", "import time; time.sleep(60)"]) as child:
            os.kill(child.pid, signal.SIGSTOP)
        assert child.process.poll() == -signal.SIGKILL
        with trio.CancelScope() as scope:
            async with open_child(["-c", "import time; time.sleep(60)"]) as child:
                scope.cancel()
                await trio.sleep_forever()
    assert child.process.poll() == -signal.SIGKILL


async def test_a_driver_may_reserve_addresses_and_take_no_more_memory_than_others() -> None:
    script = (
        SETTLED.replace("2**30", "2**28, counts='data'")
        + """
import mmap
anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
reserved = mmap.mmap(-1, 2**34, flags=anonymous | 0x4000, prot=0)  # MAP_NORESERVE, PROT_NONE
connection.sendall(b"reserved")
bytearray(2**29)
"""
    )
    with trio.fail_after(DEADLINE_S):
        async with open_child(["-c", script]) as child:
            assert await child.stream.receive_some(100) == b"reserved"
            said = b""
            while data := await child.errors.receive_some(1000):
                said += data
            assert await child.wait() == 1
    assert b"MemoryError" in said


async def test_it_leaves_no_core_and_no_signal_but_the_parent_ends_it() -> None:
    """Signals to the whole group are the parent's, which drains first."""
    script = (
        SETTLED
        + """
import resource, signal
for number in (signal.SIGINT, signal.SIGTERM):
    os.kill(os.getpid(), number)
connection.sendall(str(resource.getrlimit(resource.RLIMIT_CORE)).encode())
"""
    )
    with trio.fail_after(DEADLINE_S):
        async with open_child(["-c", script]) as child:
            assert await child.stream.receive_some(100) == b"(0, 0)"
            assert await child.wait() == 0


async def test_too_much_memory_is_refused() -> None:
    script = SETTLED + "bytearray(2 * 2**30)"
    with trio.fail_after(DEADLINE_S):
        async with open_child(["-c", script]) as child:
            said = b""
            while data := await child.errors.receive_some(4096):
                said += data
            assert await child.wait() == 1
    assert b"MemoryError" in said


async def test_it_lives_on_when_threads_of_the_parent_end() -> None:
    """The kernel's signal is tied to the thread that made the child: that must be the loop's."""
    script = SETTLED + "connection.sendall(b'x'); connection.recv(1)"
    with trio.fail_after(DEADLINE_S):
        async with open_child(["-c", script]) as child:
            await child.stream.receive_some(1)
            thread = threading.Thread(target=lambda: None)
            thread.start()
            thread.join()
            assert child.process.poll() is None
            await child.stream.send_all(b"x")
            assert await child.wait() == 0


def test_it_goes_with_its_parent() -> None:
    child = SETTLED + "connection.sendall(b'x')\nimport time; time.sleep(60)"
    parent = f"""
import trio
from edged.runtime.child import open_child
async def main():
    async with open_child(["-c", {child!r}]) as child:
        await child.stream.receive_some(1)
        print(child.pid, flush=True)
        await trio.sleep(60)
trio.run(main)
"""
    arguments = [sys.executable, "-c", parent]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)


def test_who_is_no_child_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGED_PARENT_PID", raising=False)
    script = (
        "from edged.runtime.child import settle_child\n"
        "try: settle_child(nice=0, memory_bytes_max=2**30)\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout == "the parent, process (none), is gone\n"
