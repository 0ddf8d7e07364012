"""Faults: counted by their event, contained where one of many may fail."""

import pytest
import structlog
from structlog.testing import capture_logs

from edged.runtime import faults
from edged.runtime.faults import EVENTS_MAX, OTHER, contained, count_faults, read_faults
from edged.runtime.log import LogConfig, configure_logging


@pytest.fixture(autouse=True)
def _none_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_counts", type(faults._counts)())


def counts() -> dict[str, float]:
    return {sample.labels["event"]: sample.value for sample in read_faults()}


def test_lines_with_a_traceback_are_counted_as_the_process_logs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(LogConfig(format="json", lines_per_second_max=1))
    log = structlog.get_logger("edged.test")
    log.warning("peer lost")
    for _ in range(3):  # Two of them are beyond the rate, and count all the same.
        log.error("session failed", exc_info=RuntimeError("a bug"))
        with contained(log, "page failed"):
            [].pop()
    assert counts() == {"session failed": 3, "page failed": 3}
    assert "a bug" not in capsys.readouterr().out, "nothing is printed there"


def test_names_without_end_are_counted_together() -> None:
    error = RuntimeError("a bug")
    for number in range(EVENTS_MAX + 2):
        count_faults(None, "error", {"event": f"event {number}", "exc_info": error})
    assert len(counts()) == EVENTS_MAX + 1
    assert counts()[OTHER] == 2


def test_what_is_contained_is_logged_and_forgotten() -> None:
    log = structlog.get_logger("edged.test")
    done = []
    with capture_logs() as lines:
        for channel in ("alice", "bob", "carol"):
            with contained(log, "not swept", channel=channel):
                if channel == "bob":
                    raise RuntimeError("a bug")
                done.append(channel)
    assert done == ["alice", "carol"]
    (line,) = lines
    assert (line["event"], line["channel"], line["exc_info"]) == ("not swept", "bob", True)


def test_what_is_no_fault_passes_through() -> None:
    log = structlog.get_logger("edged.test")
    with pytest.raises(KeyboardInterrupt), contained(log, "not swept"):
        raise KeyboardInterrupt
