"""`edged top` against an admin door in another thread."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.cli import top as top_module
from edged.cli.top import ROWS_PIPED
from edged.cli.top_screen import Screen
from edged.errors import EdgedError
from edged.roles.status import Status
from tests.cli.invoke import Answer, in_a_thread
from tests.cli.statuses import status, stream


@contextlib.contextmanager
def edged_at(socket: Path, seen: Status, asked: list[Arguments]) -> Iterator[None]:
    def answer(arguments: Arguments) -> object:
        asked.append(arguments)
        return seen

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, AdminConfig(socket=socket), {"status": answer})
            task_status.started("")

    with in_a_thread(main):
        yield


def test_piped_it_looks_once(tmp_path: Path) -> None:
    socket, asked = tmp_path / "admin.sock", list[Arguments]()
    with edged_at(socket, status((stream("alice"), stream("bob"))), asked):
        answer = Answer("top", "--socket", socket, "--sort", "viewers", "--filter", "al")
    assert answer.error is None
    lines = answer.out.splitlines()
    assert lines[0].startswith("edged 0.1.0  pid 4242")
    assert any("alice" in line and "west → fra1" in line for line in lines)
    assert "\x1b" not in answer.out
    assert asked == [{"sort": "viewers", "filter": "al", "limit": str(ROWS_PIPED)}]


def test_json_is_one_snapshot(tmp_path: Path) -> None:
    socket, asked = tmp_path / "admin.sock", list[Arguments]()
    with edged_at(socket, status(), asked):
        seen = json.loads(Answer("top", "--socket", socket, "--json", "--limit", "7").out)
    assert seen["streams"][0]["channel"] == "alice"
    assert seen["pops"][0]["links"][0]["rtt_ms"] == 7.1
    assert asked[0]["limit"] == "7"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sort", "age"), "--sort 'age' is none of attention, viewers"),
        (("--limit", "-1"), "--limit -1 is less than 0"),
    ],
)
def test_options_that_are_none(arguments: tuple[str, ...], message: str) -> None:
    error = Answer("top", *arguments).error
    assert isinstance(error, EdgedError)
    assert message in str(error)


def test_it_goes_on_while_edged_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends on Ctrl-C, with the last that was known still shown till then."""
    answers: list[Status | BaseException] = [
        status(),
        EdgedError("it is gone"),
        status((stream("back"),)),
        KeyboardInterrupt(),
    ]
    looks = iter(answers)
    screens: list[tuple[str, str]] = []

    def look() -> Status:
        next_one = next(looks)
        if isinstance(next_one, Status):
            return next_one
        raise next_one

    class Live:
        def __init__(self, first: Screen, **options: object) -> None:
            self.update(first)

        def __enter__(self) -> "Live":
            return self

        def __exit__(self, *error: object) -> None:
            screens.append(("", "closed"))

        def update(self, screen: Screen, *, refresh: bool = True) -> None:
            screens.append((screen._trouble, screen.status.streams[0].channel))

    monkeypatch.setattr(top_module, "Live", Live)
    top_module._run(look, 0.001, 0)
    assert screens == [
        ("", "alice"),
        ("it is gone", "alice"),
        ("", "back"),
        ("", "closed"),
    ]
