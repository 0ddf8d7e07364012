"""Logs: formats, levels and the bound on lines."""

import json
import math
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Literal

import pytest
import structlog

from edged.errors import EdgedError
from edged.ingest import rtmp
from edged.runtime.log import (
    FOR_S_MAX,
    LEVELS,
    LOGGERS_MAX,
    Levels,
    LevelSet,
    LogConfig,
    RateLimit,
    configure_logging,
    known_loggers,
    level_status,
    set_level,
)


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


def test_lines_name_their_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(format="json"))
    structlog.get_logger("edged.rtmp").info("a line")
    structlog.get_logger("edged.rtmp").bind(channel="demo").info("another")
    structlog.get_logger().warning("of no name")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["logger"] for line in lines] == ["edged.rtmp", "edged.rtmp", "edged"]


def events(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Have two loggers log at each level; what comes out."""
    for name in ("edged.rtmp", "edged.hub"):
        logger = structlog.get_logger(name)
        for level in LEVELS:
            getattr(logger, level)(f"{name} {level}")
    return [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]


@pytest.fixture
def _as_configured() -> Iterator[None]:
    yield
    for entry in level_status().set:
        set_level(None, entry.logger)


@pytest.mark.usefixtures("_as_configured")
def test_a_level_at_run_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert "edged.rtmp" in known_loggers(), rtmp.__name__
    configure_logging(LogConfig(level="warning", format="json"))
    usual = [f"{name} {level}" for name in ("edged.rtmp", "edged.hub") for level in LEVELS[2:]]
    assert events(capsys) == usual
    set_level("debug", "edged.rtmp")
    assert events(capsys) == ["edged.rtmp debug", "edged.rtmp info", *usual]
    set_level("error")
    assert [line for line in events(capsys) if "hub" in line] == ["edged.hub error"]
    configure_logging(LogConfig(level="info", format="json"))  # Read again: what is set stays.
    status = level_status()
    assert (status.configured, [entry.logger for entry in status.set]) == (
        "info",
        ["edged", "edged.rtmp"],
    )
    set_level(None)
    set_level(None, "edged.rtmp")
    assert events(capsys) == [
        f"{name} {level}" for name in ("edged.rtmp", "edged.hub") for level in LEVELS[1:]
    ]


@pytest.mark.usefixtures("_as_configured")
def test_a_level_for_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging(LogConfig(level="error", format="json"))
    now = float(math.ceil(time.monotonic()))  # What is added to it and taken off is exact.
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("edged.runtime.log.time", clock)
    set_level("debug", "edged.hub", for_s=600.0)
    assert len(events(capsys)) == 5
    assert level_status().set == [LevelSet(logger="edged.hub", level="debug", for_s=600.0)]
    now += 600.0
    assert len(events(capsys)) == 2
    assert level_status().set == []


def test_a_logger_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        EdgedError, match=r"no logger 'edged\.rmtp'; there are: edged, .*edged\.rtmp"
    ):
        set_level("debug", "edged.rmtp")


@pytest.mark.parametrize("for_s", [0.0, -1.0, FOR_S_MAX + 1, float("nan")])
def test_times_beyond_the_limits(for_s: float) -> None:
    levels = Levels()
    levels.put("a", "debug", now=0.0, for_s=FOR_S_MAX)
    with pytest.raises(EdgedError, match="up to 604800"):
        levels.put("b", "debug", now=0.0, for_s=for_s)
    assert [entry.logger for entry in levels.entries(0.0)] == ["a"]


def test_loggers_at_and_past_the_limit() -> None:
    levels = Levels()
    for number in range(LOGGERS_MAX):
        levels.put(f"l{number}", "debug", now=0.0, for_s=10.0 if number else 5.0)
    levels.put("l1", "error", now=0.0)
    with pytest.raises(EdgedError, match="no more may"):
        levels.put("one", "debug", now=4.9)
    levels.put("one", "debug", now=5.0)  # Another's time is over.
    assert levels.next_timeout() == 10.0


def test_the_nearest_above_counts() -> None:
    levels = Levels("info")
    levels.put("edged.irs", "debug", now=0.0)
    levels.put("edged.irs.client", "error", now=0.0)
    assert [levels.level_of(name) for name in ("edged", "edged.irs.session", "edged.irsx")] == [
        "info",
        "debug",
        "info",
    ]
    assert levels.level_of("edged.irs.client") == "error"
    assert levels.lowest() == "debug"
