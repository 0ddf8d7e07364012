"""Logs: structlog to standard error, for people on a terminal and as JSON lines elsewhere."""

import logging
import sys
import time
from typing import Annotated, Literal

import structlog
from msgspec import Meta, Struct

Level = Literal["debug", "info", "warning", "error"]


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


def configure_logging(config: LogConfig) -> None:
    """Set structlog up for the process."""
    limit = RateLimit(config.lines_per_second_max)

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
        bounded,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not console),
    ]
    if not console:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config.level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
