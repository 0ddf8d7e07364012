"""Logs: formats, levels and the bound on lines."""

import json
from typing import Literal

import pytest
import structlog

from edged.runtime.log import LogConfig, RateLimit, configure_logging


def test_json_lines_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(level="info", format="json"))
    logger = structlog.get_logger("test")
    logger.debug("hidden")
    logger.info("shown", channel="demo")
    (line,) = capsys.readouterr().err.splitlines()
    decoded = json.loads(line)
    assert (decoded["event"], decoded["channel"], decoded["level"]) == ("shown", "demo", "info")


def test_console(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(format="console"))
    structlog.get_logger("test").warning("look here", port=1935)
    assert "look here" in capsys.readouterr().err


def test_lines_beyond_the_limit_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(format="json", lines_per_second_max=1))
    logger = structlog.get_logger("test")
    for number in range(20):
        logger.info("line", number=number)
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 2


def test_rate_limit_at_and_past_the_limit() -> None:
    limit = RateLimit(2)
    assert [limit.admit(1), limit.admit(1), limit.admit(1), limit.admit(1)] == [0, 0, None, None]
    assert limit.admit(2) == 2
    assert limit.admit(2) == 0


@pytest.mark.parametrize("shape", ["console", "json"])
def test_a_traceback_shows_no_local_variables(
    shape: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(LogConfig(format=shape))
    stream_key = "key-of-" + "alice"
    try:
        assert 1 / len(stream_key[:0])
    except ZeroDivisionError:
        structlog.get_logger("test").exception("session failed")
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told
    assert stream_key not in told
