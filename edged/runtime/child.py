"""Child processes that do dangerous work: a socket to speak by, and no way to outlive the parent.

The parent's side is `open_child`: the child has the socket as its standard input, a pipe as its
standard error, and no other descriptor. The child's side is `settle_child`: it dies with its
parent, gives way to others, and may take so much memory and no more. Linux only.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal

import trio
from msgspec import Struct

from edged.errors import EdgedError

PR_SET_PDEATHSIG = 1
PARENT_VARIABLE = "EDGED_PARENT_PID"
REAP_S_MAX = 5.0  # A killed process is gone sooner, unless the kernel is stuck.
STDERR_BYTES = 4096
MemoryCounted = Literal["addresses", "data"]
# Of the parent's environment: what finds programs and modules, and no secret.
ENVIRONMENT_KEPT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


class Child(Struct):
    """A running child."""

    stream: trio.SocketStream
    errors: trio.abc.ReceiveStream  # Its standard error.
    process: "subprocess.Popen[bytes]"
    pidfd: int

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def wait(self) -> int:
        """Wait for its end; its exit code, or minus the signal."""
        while (code := self.process.poll()) is None:
            await trio.lowlevel.wait_readable(self.pidfd)
        return code

    def kill(self) -> None:
        """End it, stopped or not."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


@contextlib.asynccontextmanager
async def open_child(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Run this Python with these arguments; at the end it is killed, and always reaped."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        process = _spawn(arguments, theirs, environment or {})
    assert process.stderr is not None, "it was asked for"
    ours.setblocking(False)
    errors = trio.lowlevel.FdStream(os.dup(process.stderr.fileno()))
    process.stderr.close()
    child = Child(
        stream=trio.SocketStream(trio.socket.from_stdlib_socket(ours)),
        errors=errors,
        process=process,
        pidfd=os.pidfd_open(process.pid),
    )
    try:
        yield child
    finally:
        child.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_S_MAX):
            await child.wait()
        os.close(child.pidfd)
        await trio.aclose_forcefully(child.stream)
        await trio.aclose_forcefully(errors)


def _spawn(
    arguments: Sequence[str], theirs: socket.socket, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """In this thread, not one of Trio's: the kernel kills the child with the THREAD it came from,
    and Trio's end when they have been idle for 10 s. It takes some 2 ms (vfork).
    """
    kept = {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}
    return subprocess.Popen(  # noqa: S603 - our own modules
        [sys.executable, *arguments],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**kept, PARENT_VARIABLE: str(os.getpid()), **environment},
        close_fds=True,
    )


def settle_child(
    *, nice: int, memory_bytes_max: int, counts: MemoryCounted = "addresses"
) -> socket.socket:
    """In the child, first of all; returns the socket to the parent.

    `counts`: of what it may have so much. A GPU's driver reserves far more addresses than there is
    memory; of "data", which can be written to, it may have no more than others.

    Raises EdgedError if the parent is gone already, or if this is no child.
    """
    parent = os.environ.get(PARENT_VARIABLE, "")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise EdgedError(f"prctl: {os.strerror(ctypes.get_errno())}")
    if str(os.getppid()) != parent:  # It went before we asked to hear of it.
        raise EdgedError(f"the parent, process {parent or '(none)'}, is gone")
    try:
        os.nice(nice)
    except PermissionError as error:  # A filter of system calls: it competes, and works.
        sys.stderr.write(f"its priority stays as it is: nice({nice}): {error}\n")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    what = resource.RLIMIT_AS if counts == "addresses" else resource.RLIMIT_DATA
    resource.setrlimit(what, (memory_bytes_max, memory_bytes_max))
    # Both may come to the whole group or unit; the parent, which drains first, says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return socket.socket(fileno=os.dup(0))
