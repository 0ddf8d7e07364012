import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from edged.runtime.notify import SIGNS_PER_INTERVAL, STATUS_CHARS_MAX, ServiceManager


class Manager:
    """systemd's side of the socket."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.sock.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    name = f"{tmp_path}/notify"
    made = Manager("\0" + name if request.param == "abstract" else name)
    with made.sock:
        yield made, "@" + name if request.param == "abstract" else name


def test_what_is_told(manager: tuple[Manager, str]) -> None:
    heard, address = manager
    ours = ServiceManager({"NOTIFY_SOCKET": address})
    assert ours.listens
    ours.ready("pop ams1:\n rtmp 1935")
    ours.status("x" * (STATUS_CHARS_MAX + 1))
    ours.reloading()
    ours.reloaded()
    ours.reloaded("pop.name:\n restart")
    ours.stopping(15.5)
    told = heard.heard()
    clock = told.pop(2)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", clock)
    assert abs(int(clock.rpartition("=")[2]) / 1e6 - time.monotonic()) < 60
    assert told == [
        "READY=1\nSTATUS=pop ams1: rtmp 1935",
        "STATUS=" + "x" * STATUS_CHARS_MAX,
        "READY=1\nSTATUS=pop ams1: rtmp 1935",
        "READY=1\nSTATUS=pop ams1: rtmp 1935; last reload refused: pop.name: restart",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=15500000",
    ]


def test_without_a_manager_nobody_is_told() -> None:
    ours = ServiceManager({})
    assert not ours.listens
    with capture_logs() as logs:
        ours.ready("x")
    assert logs == []


def test_a_manager_that_is_gone_is_a_line_in_the_log(tmp_path: Path) -> None:
    with capture_logs() as logs:
        ServiceManager({"NOTIFY_SOCKET": f"{tmp_path}/gone"}).stopping(1.0)
    assert [(line["event"], line["what"]) for line in logs] == [
        ("service manager not told", "STOPPING=1")
    ]


async def test_signs_of_life_are_given_in_time(
    manager: tuple[Manager, str], autojump_clock: trio.testing.MockClock
) -> None:
    heard, address = manager
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}
    environ["WATCHDOG_PID"] = str(os.getpid())
    with trio.move_on_after(3.0 - 1e-6):
        await ServiceManager(environ).run_watchdog()
    assert heard.heard() == ["WATCHDOG=1"] * SIGNS_PER_INTERVAL


async def test_a_loop_that_stands_gives_no_sign_of_life(manager: tuple[Manager, str]) -> None:
    heard, address = manager
    signs = 30e-3 / SIGNS_PER_INTERVAL
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ServiceManager(environ).run_watchdog)
        await trio.sleep(3 * signs)
        assert heard.heard()
        time.sleep(10 * signs)  # noqa: ASYNC251 - it is what a loop must not do
        assert heard.heard() == []
        await trio.sleep(3 * signs)
        assert heard.heard()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "3 s"},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
    ],
)
async def test_where_no_sign_is_due_none_is_given(
    manager: tuple[Manager, str], environ: dict[str, str]
) -> None:
    heard, address = manager
    with trio.fail_after(1):
        await ServiceManager({"NOTIFY_SOCKET": address, **environ}).run_watchdog()
    assert heard.heard() == []
