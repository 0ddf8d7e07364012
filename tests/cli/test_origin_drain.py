"""`edged drain origin` against an admin door in another thread."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.cli import origin_drain
from edged.errors import EdgedError
from edged.irs.moving import DrainSeen
from tests.cli.invoke import Answer, in_a_thread

SEEN = DrainSeen(
    origin="fra1",
    left=3,
    left_by_pop={"lhr/0": 2, "ams/0": 1},
    seconds_left=60.0,
    refused={"[no] room": 2, "rule pins the stream to fra1": 1},
    not_told=["ams/0"],
    held=3,
)
LEFT = msgspec.structs.replace(SEEN, left=0, left_by_pop={}, moved=3, refused={}, not_told=[])
EMPTY = msgspec.structs.replace(LEFT, held=0)


class Door:
    """IRS's admin door: gives its answers one after the other, the last for ever."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: list[object] = []

    def answer(self, command: str, arguments: Arguments) -> object:
        self.asked.append((command, dict(arguments)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self, *arguments: str) -> Answer:
        return Answer("drain", "origin", *arguments, "--socket", self.socket)


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr(origin_drain, "POLL_S", 0.01)
    made = Door(tmp_path / "admin.sock")

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            handlers = {
                command: lambda arguments, command=command: made.answer(command, arguments)
                for command in ("drain-origin", "drain-origin-status", "drain-origin-undo")
            }
            await nursery.start(serve_admin, AdminConfig(socket=made.socket), handlers)
            task_status.started("")

    with in_a_thread(main):
        yield made


def test_it_shows_how_many_are_left_until_none_is(door: Door) -> None:
    some = msgspec.structs.replace(SEEN, left=1, left_by_pop={"lhr/0": 1}, moved=2, refused={})
    some = msgspec.structs.replace(some, not_told=[], seconds_left=58.0)
    door.answers = [[SEEN], [some], [some], [EMPTY]]
    answer = door.run("fra1")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "origin fra1: 3 left (ams/0 1, lhr/0 2), 0 moved, 60 s",
        "  2 stayed: [no] room",
        "  1 stayed: rule pins the stream to fra1",
        "  too old to move streams: ams/0",
        "origin fra1: 1 left (lhr/0 1), 2 moved, 58 s",
        "origin fra1: empty, 3 moved",
    ]
    assert door.asked == [
        ("drain-origin", {"origin": "fra1"}),
        *[("drain-origin-status", {"origin": "fra1"})] * 3,
    ]


def test_it_is_not_empty_before_the_origin_itself_says_so(door: Door) -> None:
    late = msgspec.structs.replace(LEFT, held=1, seconds_left=0.0)
    door.answers = [[LEFT], [EMPTY]]
    answer = door.run("fra1")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "origin fra1: no PoP has a stream there, 3 slots are taken there by its own heartbeat, "
        "3 moved",
        "origin fra1: empty, 3 moved",
    ]
    door.answers = [[late]]
    assert door.run("fra1").code == 1
    door.answers = [[msgspec.structs.replace(LEFT, held=None)]]
    answer = door.run("fra1")
    assert answer.code == 0, "a dead one says nothing ever"
    assert answer.out == "origin fra1: empty, but no heartbeat of its own says so, 3 moved\n"


def test_its_code_says_that_some_are_left(door: Door) -> None:
    door.answers = [[SEEN], [msgspec.structs.replace(SEEN, seconds_left=0.0)]]
    answer = door.run("fra1", "--json")
    assert answer.code == 1
    (shown,) = json.loads(answer.out)
    assert (shown["origin"], shown["left"]) == ("fra1", 3)


def test_undone_while_it_is_watched_it_is_over(door: Door) -> None:
    door.answers = [[SEEN], []]
    answer = door.run("fra1")
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "the drain of fra1 was undone"


def test_undo_status_and_no_wait(door: Door) -> None:
    door.answers = [[SEEN]]
    assert door.run("fra1", "--undo").out == "origin fra1 has streams again; 3 are there\n"
    assert door.run("fra1", "--no-wait").out.startswith("origin fra1: 3 left")
    assert door.run().out.startswith("origin fra1: 3 left")
    door.answers = [[]]
    assert door.run().out == "no origin is drained\n"
    assert [command for command, _ in door.asked] == [
        "drain-origin-undo",
        "drain-origin",
        "drain-origin-status",
        "drain-origin-status",
    ]


def test_what_irs_refuses_is_said(door: Door) -> None:
    door.answers = [EdgedError("origin 'o9' is unknown here; known: fra1, fra2")]
    answer = door.run("o9")
    assert answer.code == 1
    assert "known: fra1, fra2" in str(answer.error)
