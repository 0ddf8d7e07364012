"""Logs: structlog to standard error, for people on a terminal and as JSON lines elsewhere.

Each line has the name of its logger. What is logged can be changed while the process runs, of all
loggers or of one and those below it, for ever or for a while (`edged log level`).
"""

import logging
import math
import sys
import time
from typing import Annotated, Literal, TextIO, get_args

import structlog
from msgspec import Meta, Struct

from edged.errors import EdgedError
from edged.runtime.faults import count_faults

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
ROOT_LOGGER = "edged"
LOGGERS_MAX = 32  # With a level of their own: people set them one by one.
FOR_S_MAX = 7 * 86_400.0


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: what is logged, and how."""

    level: Level = "info"
    format: Literal["auto", "console", "json"] = "auto"  # auto: console on a terminal, else json.
    lines_per_second_max: Annotated[int, Meta(ge=1)] = 2_000  # Beyond it lines are only counted.


class RateLimit:
    """Drops lines beyond a rate, and says how many when the rate allows again."""

    def __init__(self, lines_per_second_max: int) -> None:
        self._max = lines_per_second_max
        self._second = 0
        self._count = 0
        self._dropped = 0

    def admit(self, second: int) -> int | None:
        """Lines dropped before this one, or None when this one is to be dropped."""
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        if self._count > self._max:
            self._dropped += 1
            return None
        dropped, self._dropped = self._dropped, 0
        return dropped


class LevelSet(Struct, frozen=True, kw_only=True):
    """A level that was set at run time."""

    logger: str
    level: Level
    for_s: float | None  # From now on; None: until the process ends.


class LevelStatus(Struct, frozen=True, kw_only=True):
    """What is logged now: `edged log level`."""

    configured: Level
    set: list[LevelSet]
    loggers: list[str]  # All that there are.


class Levels:
    """Which level counts for which logger. `now` is monotonic."""

    def __init__(self, configured: Level = "info") -> None:
        self.configured: Level = configured
        self._set: dict[str, tuple[Level, float]] = {}  # Logger -> level, until when.

    def put(self, logger: str, level: Level, *, now: float, for_s: float | None = None) -> None:
        """Have a logger, and those below it, log from this level on, for ever or for a while.

        Raises EdgedError at the limits; nothing has changed then.
        """
        if for_s is not None and not 0 < for_s <= FOR_S_MAX:
            raise EdgedError(f"a level for {for_s:g} s: more than 0 and up to {FOR_S_MAX:g}")
        self.expire(now)
        if logger not in self._set and len(self._set) >= LOGGERS_MAX:
            raise EdgedError(f"{LOGGERS_MAX} loggers have levels of their own, no more may")
        self._set[logger] = (level, math.inf if for_s is None else now + for_s)

    def reset(self, logger: str) -> None:
        """Have a logger log as configured, or as the one above it."""
        self._set.pop(logger, None)

    def expire(self, now: float) -> bool:
        """Forget what was set for a time that is over; say whether there was any."""
        over = [logger for logger, (_, until) in self._set.items() if until <= now]
        for logger in over:
            del self._set[logger]
        return bool(over)

    def level_of(self, logger: str) -> Level:
        """What counts for a logger: what was set for it, or for the nearest above it."""
        name = logger
        while name:
            if name in self._set:
                return self._set[name][0]
            name = name.rpartition(".")[0]
        return self.configured

    def lowest(self) -> Level:
        """Below it no logger logs; what was set may be over before anyone looks."""
        return min((self.configured, *(level for level, _ in self._set.values())), key=LEVELS.index)

    def next_timeout(self) -> float:
        """When `expire` has something to forget."""
        return min((until for _, until in self._set.values()), default=math.inf)

    def entries(self, now: float) -> list[LevelSet]:
        """What is set."""
        return [
            LevelSet(logger=logger, level=level, for_s=None if until == math.inf else until - now)
            for logger, (level, until) in sorted(self._set.items())
            if until > now
        ]


class _NamedLogger(structlog.PrintLogger):
    """Prints; knows by which name it was asked for."""

    def __init__(self, file: TextIO, name: str) -> None:
        super().__init__(file)
        self.name = name


# Of the process, as structlog's configuration is.
_levels = Levels()


def set_level(
    level: Level | None, logger: str = ROOT_LOGGER, *, for_s: float | None = None
) -> None:
    """Set what a logger and those below it log; None: as configured again.

    Raises EdgedError when there is no such logger, or at a limit.
    """
    if logger not in (known := known_loggers()):
        raise EdgedError(f"no logger {logger!r}; there are: {', '.join(known)}")
    if level is None:
        _levels.reset(logger)
    else:
        _levels.put(logger, level, now=time.monotonic(), for_s=for_s)
    _filter()


def level_status() -> LevelStatus:
    """What is logged now."""
    return LevelStatus(
        configured=_levels.configured,
        set=_levels.entries(time.monotonic()),
        loggers=known_loggers(),
    )


def known_loggers() -> list[str]:
    """The names that the modules loaded so far log by, and those above them."""
    found = {ROOT_LOGGER}
    for module in list(sys.modules.values()):
        for value in (getattr(module, "logger", None), getattr(module, "log", None)):
            name = getattr(value, "_logger_factory_args", None) or ("",)
            while isinstance(name[0], str) and name[0].startswith(f"{ROOT_LOGGER}."):
                found.add(name[0])
                name = (name[0].rpartition(".")[0],)
    return sorted(found)


def _filter() -> None:
    """Have structlog drop what no logger logs as cheaply as it can."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(_number(_levels.lowest()))
    )


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _by_level(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Drop what is below its logger's level; name the logger."""
    if time.monotonic() >= _levels.next_timeout() and _levels.expire(time.monotonic()):
        _filter()
    name = getattr(logger, "name", ROOT_LOGGER)
    if _number(_LEVEL_OF.get(method, method)) < _number(_levels.level_of(name)):
        raise structlog.DropEvent
    event["logger"] = name
    return event


_LEVEL_OF = {"exception": "error", "warn": "warning", "msg": "info"}  # Methods that are no level.


def configure_logging(config: LogConfig) -> None:
    """Set structlog up for the process; what was set at run time goes on to count."""
    limit = RateLimit(config.lines_per_second_max)
    _levels.configured = config.level

    def bounded(
        _logger: object, _name: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        dropped = limit.admit(int(time.time()))
        if dropped is None:
            raise structlog.DropEvent
        if dropped:
            event["lines_dropped"] = dropped
        return event

    console = config.format == "console" or (config.format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        # Plain tracebacks: the default shows local variables, and stream keys are among them.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        _by_level,
        count_faults,
        bounded,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not console),
    ]
    if not console:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        logger_factory=lambda *names: _NamedLogger(sys.stderr, *(names or (ROOT_LOGGER,))),
        cache_logger_on_first_use=False,
    )
    _filter()
