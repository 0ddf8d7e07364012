"""Roles let go of what they have, within a deadline: `edged drain`, and the end of a process.

A role that drains takes nothing new and lets go of its streams one by one (`policy/drain.py`); what
is still there at the deadline is ended. It stays so until that is undone or the process ends.
"""

import enum
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import structlog
import trio
from msgspec import Struct

from edged.policy.drain import Drain
from edged.runtime.hub import LiveStream

TICK_S = 0.1  # How late one is let go, or seen to have left.

logger = structlog.get_logger("edged")


class DrainState(enum.StrEnum):
    """How far it is."""

    SERVING = "serving"
    DRAINING = "draining"
    DRAINED = "drained"


class DrainLine(Struct, frozen=True, kw_only=True):
    """One role of `edged drain`."""

    role: str
    state: DrainState
    left: int  # Streams that are still here.
    total: int  # There were at the beginning.
    seconds_left: float
    note: str = ""


class Drainable(Protocol):
    """What a role is to its drain. All of it is synchronous."""

    @property
    def drain_notice_s(self) -> float:
        """How long others need to hear that nothing new is taken here."""

    def drain_begin(self, reconnect_url: str | None) -> None:
        """Take nothing new from now on."""

    def drain_undo(self) -> None:
        """Take what comes as before."""

    def drain_awaited(self) -> bool:
        """Whether the end of the process has anything to wait for."""

    def drain_streams(self) -> Sequence[LiveStream]:
        """What is here now."""

    def drain_one(self, stream: LiveStream, reconnect_url: str | None) -> None:
        """Let go of a stream, which may have left already; it may take its time."""

    def drain_end(self, stream: LiveStream) -> None:
        """End a stream now: its time is over."""


class Drainer:
    """The drain of one role; `role` None is one that has nothing to let go of, for `note`."""

    def __init__(
        self, name: str, role: Drainable | None, now: Callable[[], float], *, note: str = ""
    ) -> None:
        self.name = name
        self.note = note
        self._role, self._now = role, now
        self._state = DrainState.SERVING
        self._drain: Drain[LiveStream] | None = None
        self._scope = trio.CancelScope()
        self._asked: set[LiveStream] = set()  # To go elsewhere, while they were here.

    @property
    def busy(self) -> bool:
        """Whether the end of the process has to wait for it."""
        return self._role is not None and self._role.drain_awaited()

    def line(self) -> DrainLine:
        """How far it is."""
        drain = self._drain
        ends_at = drain.ends_at if drain and self._state is DrainState.DRAINING else self._now()
        return DrainLine(
            role=self.name,
            state=self._state,
            left=len(self._role.drain_streams()) if self._role is not None else 0,
            total=drain.total if drain is not None else 0,
            seconds_left=max(0.0, ends_at - self._now()),
            note=self.note,
        )

    def begin(
        self, deadline_s: float, reconnect_url: str | None, *, stopping: bool = False
    ) -> Callable[[], Awaitable[None]] | None:
        """Take nothing new; returns what lets go, to be run. Again, it begins anew.

        That ends when nothing is left, when the deadline has come, or when it was undone; before
        the process ends (`stopping`) also when all who are left were lost before they were asked.
        """
        if self._role is None:
            return None
        self._scope.cancel()
        self._scope = trio.CancelScope()
        self._asked = set()
        self._role.drain_begin(reconnect_url)
        self._state = DrainState.DRAINING
        streams = self._role.drain_streams()
        self._drain = Drain(
            streams,
            now=self._now(),
            deadline_s=deadline_s,
            notice_s=self._role.drain_notice_s if streams else 0.0,
        )
        logger.info("draining", role=self.name, streams=len(streams), deadline_s=deadline_s)
        waits = partial(self._is_awaited, self._role) if stopping else self._role.drain_streams
        return partial(self._run, self._role, self._drain, self._scope, reconnect_url, waits)

    async def _run(
        self,
        role: Drainable,
        drain: Drain[LiveStream],
        scope: trio.CancelScope,
        reconnect_url: str | None,
        waits: Callable[[], object],
    ) -> None:
        began_at = self._now()
        with scope:
            await trio.lowlevel.checkpoint_if_cancelled()  # Undone before it has begun.
            while waits() and not drain.is_over(self._now()):
                for stream in drain.take_due(self._now()):
                    if stream.waiting_since is None:
                        self._asked.add(stream)
                    self._try(partial(role.drain_one, stream, reconnect_url), stream)
                await trio.sleep(TICK_S)
            ended = role.drain_streams()
            for stream in ended:
                self._try(partial(role.drain_end, stream), stream)
            self._state = DrainState.DRAINED
            logger.info(
                "drained",
                role=self.name,
                streams=drain.total,
                ended=len(ended),
                after_s=round(self._now() - began_at, 1),
            )

    def _is_awaited(self, role: Drainable) -> bool:
        """Whether a process that stops has to stay: for who is here, or is on its way elsewhere."""
        return role.drain_awaited() or not self._asked.isdisjoint(role.drain_streams())

    def _try(self, let_go: Callable[[], None], stream: LiveStream) -> None:
        """Let go of one stream; a bug that it meets keeps no other here, and ends no process."""
        try:
            let_go()
        except Exception:
            logger.exception("drain failed", role=self.name, channel=stream.channel)

    def undo(self) -> None:
        """Take what comes as before; what has left has left."""
        if self._role is None or self._state is DrainState.SERVING:
            return
        self._scope.cancel()
        self._role.drain_undo()
        self._state, self._drain = DrainState.SERVING, None
        logger.info("drain undone", role=self.name)
