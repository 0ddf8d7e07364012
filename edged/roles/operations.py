"""What an operator does to a running process: kick, drain, stand by, reload, log levels.

The handlers of the admin door, and the same for signals. All of it is synchronous but for the
drains, which run in the process's nursery.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
import trio
from msgspec import Struct

from edged.api.admin import Arguments, Handler
from edged.config import Config, find_hints, load_config
from edged.errors import EdgedError
from edged.irs.seat import SeatSeen
from edged.policy.blocks import BLOCK_S_MAX
from edged.roles.arguments import read_seconds
from edged.roles.common import Commit, StreamLine
from edged.roles.draining import Drainer, DrainLine
from edged.roles.irs import IrsRole
from edged.roles.origin_drains import make_handlers
from edged.roles.pop import PopRole
from edged.roles.reloading import Change, check_changes, find_changes, take_into_use
from edged.runtime.log import (
    FOR_S_MAX,
    LEVELS,
    ROOT_LOGGER,
    LevelStatus,
    configure_logging,
    level_status,
    set_level,
)
from edged.runtime.notify import ServiceManager

REASON_CHARS_MAX = 200  # One line of an encoder's window.
SHOWN_MAX = 20  # Channels in an error.
KICKED = "an operator has ended the broadcast"

logger = structlog.get_logger("edged")


class Role(Protocol):
    """What operations need of a role."""

    name: str
    drainer: Drainer

    def streams(self) -> list[StreamLine]:
        """The live streams as this role sees them."""

    def prepare_reload(self, new: Config) -> Commit:
        """Check what is new for this role, and return what takes it into use."""


class KickAnswer(Struct, frozen=True, kw_only=True):
    """What `edged kick` did."""

    channel: str
    kicked: list[str]  # The PoPs at which it was live.
    blocked_s: float = 0.0


class ReloadAnswer(Struct, frozen=True, kw_only=True):
    """What `edged reload` did."""

    file: str
    changed: list[Change]
    notes: list[str] = []  # What is to be known: live with a key that is gone, and the like.


class Operations:
    """Of one process."""

    def __init__(
        self,
        roles: Sequence[Role],
        config: Config,
        path: Path | None,
        manager: ServiceManager | None = None,
        *,
        shard: int | None = None,
    ) -> None:
        """`path`: the file that `config` was read from; None: there is none to read again.

        `manager` is told of reloads; `shard`: as which of its shards the process reads the file.
        """
        self.config = config
        self._roles, self._path, self._shard = roles, path, shard
        self._manager = manager or ServiceManager({})

    def handlers(self, nursery: trio.Nursery) -> dict[str, Handler]:
        """The commands of the admin door; drains run in `nursery`."""
        return {
            "kick": self._kick,
            "drain": partial(self._drain, nursery),
            "drain-status": lambda _: self.drain_lines(),
            "drain-undo": self._undo,
            "irs-standby": self._stand_by,
            **make_handlers(self._roles, lambda: self.config.drain.deadline_s),
            "log-level": _log_level,
            "reload": lambda _: self.reload(),
        }

    # Kick.

    def kick(self, channel: str, reason: str = KICKED, block_s: float = 0.0) -> KickAnswer:
        """End a publication here, and refuse its channel for a while.

        Raises EdgedError when it is not live here, unless it is to be refused.
        """
        pops = [role for role in self._roles if isinstance(role, PopRole)]
        if not pops:
            raise EdgedError(f"this edged is no PoP: no publisher is connected here{self._live()}")
        kicked = [pop.name for pop in pops if pop.door.kick(channel, reason, block_s=block_s)]
        if not kicked and not block_s:
            raise EdgedError(f"channel {channel!r} is not published here{self._live(channel)}")
        logger.warning(
            "kicked", channel=channel, at=kicked or None, reason=reason, blocked_s=block_s or None
        )
        return KickAnswer(channel=channel, kicked=kicked, blocked_s=block_s)

    def _live(self, channel: str = "") -> str:
        """What is live in place of what was asked for, for an error."""
        lines = [line for role in self._roles for line in role.streams()]
        elsewhere = next(
            (line.came_from for line in lines if line.channel == channel and _is_relayed(line)), ""
        )
        if elsewhere:
            return f"; it comes from {elsewhere}: kick it there"
        names = sorted({line.channel for line in lines})
        shown = ", ".join(names[:SHOWN_MAX]) or "nothing"
        more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
        return f"; live here: {shown}{more}"

    def _kick(self, arguments: Arguments) -> KickAnswer:
        channel = arguments.get("channel", "")
        if not channel:
            raise EdgedError("kick needs a channel")
        reason = " ".join(arguments.get("reason", KICKED).split()) or KICKED
        if len(reason) > REASON_CHARS_MAX:
            raise EdgedError(f"reason of {len(reason)} characters, allowed are {REASON_CHARS_MAX}")
        return self.kick(channel, reason, read_seconds(arguments, "block_s", 0.0, most=BLOCK_S_MAX))

    # Drain.

    def begin_drain(
        self,
        nursery: trio.Nursery,
        deadline_s: float,
        reconnect_url: str | None,
        *,
        stopping: bool = False,
    ) -> list[DrainLine]:
        """Have all roles let go of what they have; it goes on in `nursery`."""
        for role in self._roles:
            run = role.drainer.begin(deadline_s, reconnect_url, stopping=stopping)
            if run is not None:
                nursery.start_soon(run)
        return self.drain_lines()

    def drain_lines(self) -> list[DrainLine]:
        """How far each role is."""
        return [role.drainer.line() for role in self._roles]

    async def drain_to_stop(self, say: Callable[[str], None]) -> None:
        """Let go of what is live before the process ends; `say` gets a line now and then."""
        deadline_s = self.config.drain.on_stop_s
        if not deadline_s or not any(role.drainer.busy for role in self._roles):
            return
        async with trio.open_nursery() as nursery:
            redirect = self.config.drain.redirect or None
            self.begin_drain(nursery, deadline_s, redirect, stopping=True)

            async def tell() -> None:
                while True:
                    left = sum(line.left for line in self.drain_lines())
                    say(f"stopping: {left} live streams are let go of")
                    await trio.sleep(1.0)

            async with trio.open_nursery() as telling:
                telling.start_soon(tell)
                while any(line.state == "draining" for line in self.drain_lines()):  # noqa: ASYNC110 - at the end, and others end it too
                    await trio.sleep(0.02)
                telling.cancel_scope.cancel()

    async def hand_over(self) -> None:
        """Have an IRS that is the active one of several give way, before the process ends."""
        for role in self._roles:
            if isinstance(role, IrsRole):
                await role.service.seat.hand_over()

    def _stand_by(self, arguments: Arguments) -> list[SeatSeen]:
        del arguments
        seats = [role.service.seat for role in self._roles if isinstance(role, IrsRole)]
        if not seats:
            raise EdgedError("this edged is no IRS: ask the one that is to stand by")
        for seat in seats:
            seat.stand_by()
        return [seat.status() for seat in seats]

    def _drain(self, nursery: trio.Nursery, arguments: Arguments) -> list[DrainLine]:
        known = self.config.drain
        deadline_s = read_seconds(arguments, "deadline_s", known.deadline_s, most=600.0)
        redirect = arguments.get("to", known.redirect)
        try:  # As the file's key is checked.
            msgspec.convert({"redirect": redirect}, type(known))
        except msgspec.ValidationError as error:
            raise EdgedError(f"{redirect!r} is not rtmp://HOST[:PORT]/APP") from error
        return self.begin_drain(nursery, deadline_s, redirect or None)

    def _undo(self, arguments: Arguments) -> list[DrainLine]:
        del arguments
        for role in self._roles:
            role.drainer.undo()
        return self.drain_lines()

    # Reload.

    def reload(self) -> ReloadAnswer:
        """Read the file again and take it into use, all of it or nothing.

        Raises ConfigError with every problem of the file, or ReloadRefusedError with every key that
        needs a restart; nothing has changed then.
        """
        if self._path is None:
            raise EdgedError("this edged runs without a file: there is nothing to read again")
        self._manager.reloading()
        try:
            answer = self._reload(self._path)
        except EdgedError as error:
            logger.error("configuration not reloaded", reason=str(error))  # noqa: TRY400 - the operator's mistake: a traceback says nothing more
            self._manager.reloaded(str(error))
            raise
        except Exception as error:
            self._manager.reloaded(f"internal error: {error!r}")
            raise
        self._manager.reloaded()
        return answer

    def _reload(self, path: Path) -> ReloadAnswer:
        new = load_config(path, self._shard)
        changes = find_changes(self.config, new)
        check_changes(changes)
        commits = [role.prepare_reload(new) for role in self._roles]
        notes: list[str] = []
        for role, commit in zip(self._roles, commits, strict=True):
            notes += take_into_use(role.name, commit)
        if new.log != self.config.log:
            configure_logging(new.log)
        self.config = new
        notes += [str(hint) for hint in find_hints(new)]
        logger.info(
            "configuration reloaded",
            file=str(path),
            changed=[change.key for change in changes],
            notes=notes or None,
        )
        return ReloadAnswer(file=str(path), changed=changes, notes=notes)


def _log_level(arguments: Arguments) -> LevelStatus:
    logger_name, level = arguments.get("logger", ROOT_LOGGER), arguments.get("level", "")
    if not level:
        return level_status()
    known = next((name for name in LEVELS if name == level), None)
    if known is None and level != "configured":
        raise EdgedError(f"level {level!r} is none of {', '.join(LEVELS)}, configured")
    for_s = read_seconds(arguments, "for_s", 0.0, most=FOR_S_MAX)
    set_level(known, logger_name, for_s=for_s or None)
    logger.warning("log level", level=level, of=logger_name, for_s=for_s or None)
    return level_status()


def _is_relayed(line: StreamLine) -> bool:
    return line.came_from.startswith("backbone ")
