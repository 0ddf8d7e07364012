"""Commands run in this process, and a network in another thread for them to talk to."""

import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import trio
from typer.testing import CliRunner

from edged.cli.main import make_app

WAIT_S_MAX = 10.0


class Answer:
    """What a command printed, and how it ended."""

    def __init__(self, *arguments: str | Path) -> None:
        result = CliRunner().invoke(make_app(), [str(argument) for argument in arguments])
        self.code = result.exit_code
        self.out = result.stdout
        self.err = result.stderr
        self.error = result.exception if not isinstance(result.exception, SystemExit) else None


@contextlib.contextmanager
def in_a_thread(main: Callable[..., Awaitable[None]]) -> Iterator[str]:
    """Run an async main elsewhere while commands run here; yields what it started with."""
    started = threading.Event()
    token: list[trio.lowlevel.TrioToken] = []
    scope = trio.CancelScope()
    values: list[str] = []

    async def run() -> None:
        token.append(trio.lowlevel.current_trio_token())
        with scope:
            async with trio.open_nursery() as nursery:
                values.append(await nursery.start(main))
                started.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    try:
        assert started.wait(WAIT_S_MAX), "it did not start"
        yield values[0]
    finally:
        with contextlib.suppress(trio.RunFinishedError):
            token[0].run_sync_soon(scope.cancel)
        thread.join(WAIT_S_MAX)


@contextlib.contextmanager
def interrupting(path: Path, number: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """Send this process a signal once a file is there, as the command under test makes it."""

    def wait() -> None:
        for _ in range(int(WAIT_S_MAX / 0.005)):
            if path.exists():
                break
            stop.wait(0.005)
        os.kill(os.getpid(), number)

    stop = threading.Event()
    thread = threading.Thread(target=wait)
    before = signal.signal(number, lambda *_: None)  # Should it come too late, or too early.
    thread.start()
    try:
        yield
    finally:
        thread.join(WAIT_S_MAX)
        signal.signal(number, before)
