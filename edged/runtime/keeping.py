"""Parts of a process that others write, such as ingest plug-ins: kept running, and heard of.

Nothing here knows what the parts do. `keep_running` runs one as long as the process, and lets it
neither end that nor hold its start up; it knows whether the part is up, and if not, why (edged's
own services are run by `supervision`). `run_for` is for a session's own task.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
import trio

from edged.errors import ConfigError, EdgedError
from edged.runtime.connection import Connection

START_S_MAX = 30.0  # A part that has not started by then has failed.
RESTART_S_MIN = 1.0
RESTART_S_MAX = 60.0  # Doubled from the one to the other: what fails at once is not tried for ever.
STEADY_S = 60.0  # Who ran so long is started again quickly.
REASON_CHARS_MAX = 300

logger = structlog.get_logger("edged.keeping")


class Part:
    """How one part fares."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = False
        self.failure = "it has not started yet"  # Why it is not up; the last one once it is.
        self.failures_total = 0


class RunPart(Protocol):
    """A part's main task; starts with its listeners' names and bound addresses."""

    def __call__(self, *, task_status: trio.TaskStatus[dict[str, str]]) -> Awaitable[None]:
        """Run until cancelled."""


async def keep_running(
    part: Part,
    run: RunPart,
    *,
    task_status: trio.TaskStatus[dict[str, str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a part until cancelled, and again when it fails, returns, or does not start in time.

    Starts with its addresses, or with none when its first start fails: the others need not wait. A
    `ConfigError` in its first start is raised: somebody can mend it before anything runs.
    """
    told, delay_s = False, RESTART_S_MIN
    while True:
        begun_at = trio.current_time()
        error: Exception | None = None
        part.failure = "it ended by itself"
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(START_S_MAX):
                    addresses: dict[str, str] = await nursery.start(run)
                part.up = True
                if told:
                    logger.info("part started again", part=part.name, **addresses)
                else:
                    task_status.started(addresses)
                    told = True
        except Exception as failed:
            error = failed
            part.failure = _describe(failed)
        part.up = False
        mistakes = [leaf for leaf in _leaves(error) if isinstance(leaf, ConfigError)]
        if mistakes and not told:
            raise mistakes[0]
        part.failures_total += 1
        if trio.current_time() - begun_at >= STEADY_S:
            delay_s = RESTART_S_MIN
        logger.error(
            "part failed, the others go on",
            part=part.name,
            reason=part.failure,
            restart_s=delay_s,
            failures=part.failures_total,
            exc_info=error,
        )
        if not told:
            task_status.started({})
            told = True
        await trio.sleep(delay_s)
        delay_s = min(2 * delay_s, RESTART_S_MAX)


async def run_for(connection: Connection, work: Callable[[], Awaitable[None]]) -> None:
    """Run a task of a session: what it raises ends that session, and nobody else's.

    An `EdgedError` is the peer's, or the network's: its text is the reason. Anything else is a bug,
    and logged with its traceback.
    """
    try:
        await work()
    except Exception as error:
        mistakes = _leaves(error)
        if all(isinstance(leaf, EdgedError) for leaf in mistakes):
            connection.abort("; ".join(map(str, mistakes)))
        else:
            logger.exception("session failed", peer=connection.peer)
            connection.abort(f"internal error: {error!r}")


def _leaves(error: BaseException | None) -> list[BaseException]:
    """What groups hold, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [] if error is None else [error]


def _describe(error: BaseException) -> str:
    told = [
        f"it did not start in {START_S_MAX:g} s"
        if isinstance(leaf, trio.TooSlowError)
        else str(leaf)
        if isinstance(leaf, EdgedError)
        else f"{type(leaf).__name__}: {leaf}"
        for leaf in _leaves(error)
    ]
    return "; ".join(told)[:REASON_CHARS_MAX]
