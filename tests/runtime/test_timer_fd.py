"""A timer as a descriptor: readable at its time, not before, as it was set last."""

import os
import select
import time

import pytest

from edged.runtime import timer_fd
from edged.runtime.timer_fd import TimerFd
from tests.conftest import require_found


@pytest.fixture(autouse=True, params=["compiled", "python"])
def _both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(timer_fd, "set_timer", None)
    else:
        require_found("a compiled runtime", found=timer_fd.set_timer is not None)


def readable(timer: TimerFd, within_s: float) -> bool:
    return bool(select.select([timer.fd], [], [], within_s)[0])


def test_it_is_readable_from_its_time_on() -> None:
    timer = TimerFd()
    assert not readable(timer, 0.01), "it was not set"
    begun = time.monotonic()
    timer.set(0.05)
    assert readable(timer, 5)
    assert time.monotonic() - begun >= 0.05
    assert readable(timer, 0), "it stays so"
    timer.close()


@pytest.mark.parametrize("after_s", [0.0, -1.0, 1e-12])
def test_what_is_past_is_at_once(after_s: float) -> None:
    timer = TimerFd()
    timer.set(after_s)
    assert readable(timer, 5)
    timer.close()


def test_setting_it_anew_takes_back_the_last() -> None:
    timer = TimerFd()
    timer.set(0.0)
    assert readable(timer, 5)
    timer.set(3600.5)
    assert not readable(timer, 0.01)
    timer.set(0.01)
    assert readable(timer, 5)
    timer.close()


def test_it_is_not_for_children_and_is_given_back() -> None:
    timer = TimerFd()
    assert not os.get_inheritable(timer.fd)
    assert not os.get_blocking(timer.fd)
    timer.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        timer.set(1.0)


def test_who_lets_go_of_it_gives_it_back() -> None:
    timer = TimerFd()
    fd = timer.fd
    del timer
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
