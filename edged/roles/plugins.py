"""A PoP's ingest plug-ins: kept running, each with its table as it is now, and offered while up."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio
from msgspec import Struct

from edged.config import Config, load_plugin, plugin_config
from edged.errors import ConfigError, EdgedError
from edged.roles.common import Commit
from edged.roles.door import PopDoor
from edged.roles.offers import IngestOffers
from edged.roles.reloading import prepare_plugin
from edged.runtime.keeping import Part, keep_running

if TYPE_CHECKING:
    from edged.runtime.structs import Problem

logger = structlog.get_logger("edged.plugins")


class _OutdatedError(EdgedError):
    """It began with a file that is not the one of now, and cannot take that."""


class _Telling:
    """A task's status that somebody else is told of as well."""

    def __init__(
        self, status: trio.TaskStatus[dict[str, str]], tell: Callable[[dict[str, str]], None]
    ) -> None:
        self._status, self._tell = status, tell

    def started(self, value: dict[str, str] | None = None) -> None:
        """It runs, and listens there."""
        self._tell(value or {})
        self._status.started(value or {})


class Plugins:
    """The plug-ins that a file asks for."""

    def __init__(self, config: Config, door: PopDoor, offers: IngestOffers) -> None:
        self.parts: dict[str, Part] = {}
        self._tables = config.ingest
        self._door, self._offers = door, offers

    async def start(self, nursery: trio.Nursery) -> dict[str, str]:
        """Have them run until cancelled; the addresses of those that are up.

        Raises `ConfigError` for a table that is none of its plug-in's.
        """
        addresses: dict[str, str] = {}
        for name in self._tables:
            part = self.parts[name] = Part(f"ingest.{name}")
            addresses |= await nursery.start(keep_running, part, partial(self._run, name))
        return addresses

    def prepare_reload(self, new: Config) -> Commit:
        """Have each check its table, and return what has them take it; ConfigError refuses it."""
        commits: list[Commit] = []
        for name, table in new.ingest.items():
            config = _convert(name, table)
            if name in self._door.prepares:
                prepare = partial(self._door.prepares[name], config)
                commits.append(prepare_plugin(f"ingest.{name}", prepare))

        def commit() -> list[str]:
            self._tables = new.ingest  # For those that are down, too.
            for name, table in new.ingest.items():
                self._offers.resized(name, _publishers_max(_convert(name, table)))
            return [note for take in commits for note in take()]

        return commit

    async def _run(self, name: str, *, task_status: trio.TaskStatus[dict[str, str]]) -> None:
        """Run one, once; with what the file says by now."""
        begun, plugin = self._tables[name], load_plugin(name)
        config = _convert(name, begun)

        def listens(addresses: dict[str, str]) -> None:
            now = _convert(name, self._tables[name])
            if self._tables[name] != begun:
                self._catch_up(name, now)
            self._offers.started(name, addresses, plugin.codecs, _publishers_max(now))

        try:
            await plugin.serve(config, self._door, task_status=_Telling(task_status, listens))
        finally:
            self._offers.stopped(name)
            self._door.prepares.pop(name, None)

    def _catch_up(self, name: str, config: Struct) -> None:
        """Have one that has just begun take the file that came while it did.

        What it refuses by now ends it: it is begun anew with that file.
        """
        if (prepare := self._door.prepares.get(name)) is None:
            return
        try:
            commit = prepare_plugin(f"ingest.{name}", partial(prepare, config))
        except ConfigError as error:  # Of a first start it would be the operator's: there is none.
            raise _OutdatedError(str(error)) from error
        for note in commit():
            logger.warning("plug-in begun while the file was read anew", of=name, note=note)


def _convert(name: str, table: dict[str, object]) -> Struct:
    problems: list[Problem] = []
    config = plugin_config(name, table, problems)
    if config is None:
        raise ConfigError("; ".join(str(problem) for problem in problems))
    return config


def _publishers_max(config: Struct) -> int:
    """How many it takes, where it says so."""
    value = getattr(config, "publishers_max", 0)
    return value if isinstance(value, int) else 0
