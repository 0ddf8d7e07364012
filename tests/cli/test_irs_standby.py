"""`edged irs standby` against an admin door in another thread."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec import structs

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.cli import EXIT_FAILED, irs_standby
from edged.errors import EdgedError
from edged.irs.seat import SeatSeen
from tests.cli.invoke import Answer, in_a_thread
from tests.cli.test_irs_status import STANDBY

RELEASED = structs.replace(STANDBY, active_at="", for_s=0.0)
AGAIN = structs.replace(RELEASED, leads=True, standing="active", grants=3)


@contextlib.contextmanager
def edged_at(socket: Path, then: list[SeatSeen]) -> Iterator[list[str]]:
    """Gives way when asked, and says what became of it; the last for ever."""
    asked: list[str] = []

    def stand_by(arguments: Arguments) -> object:
        asked.append("irs-standby")
        if len(asked) > 1:
            raise EdgedError("this irs stands by; the active one is irs1:1940: ask there")
        return [RELEASED]

    def status(arguments: Arguments) -> object:
        asked.append("irs-status")
        return [then.pop(0) if len(then) > 1 else then[0]]

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            handlers = {"irs-standby": stand_by, "irs-status": status}
            await nursery.start(serve_admin, AdminConfig(socket=socket), handlers)
            task_status.started("")

    with in_a_thread(main):
        yield asked


def test_it_shows_who_took_over(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [RELEASED, STANDBY]) as asked:
        out = " ".join(Answer("irs", "standby", "--socket", socket).out.split())
        assert out.startswith("irs1:1940 is active, as PoPs reach it, after 0.")
        assert asked == ["irs-standby", "irs-status", "irs-status"]
        refused = Answer("irs", "standby", "--socket", socket)
        assert "the active one is irs1:1940" in str(refused.error)
    with edged_at(socket, [STANDBY]):
        seen = json.loads(Answer("irs", "standby", "--json", "--socket", socket).out)
        assert seen["active_at"] == "irs1:1940"


def test_it_fails_where_nobody_does(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [RELEASED, AGAIN]):
        answer = Answer("irs", "standby", "--socket", socket)
        assert answer.code == EXIT_FAILED
        assert "no other IRS took over" in answer.err
        assert answer.out.startswith("active for 0")


def test_it_asks_for_some_seconds_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irs_standby, "WAIT_S_MAX", 0.15)
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [RELEASED]) as asked:
        assert Answer("irs", "standby", "--socket", socket).code == EXIT_FAILED
    assert 2 <= len(asked) <= 4
