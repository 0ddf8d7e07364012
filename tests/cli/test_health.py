"""`edged health`: what it says, and how it ends."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.errors import EdgedError
from edged.roles.fitness import Fault, Health
from tests.cli.invoke import Answer, in_a_thread

SLIGHT = Fault(role="pop a", what="no session to IRS [/x]", grave=False)
GRAVE = Fault(role="pop a", what="no origin takes streams", grave=True)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[Path, list[Fault]]]:
    """A socket, and what is wrong behind it."""
    socket, faults = tmp_path / "admin.sock", list[Fault]()

    def health(arguments: Arguments) -> object:
        return Health(roles=["irs", "pop a"], faults=faults)

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, AdminConfig(socket=socket), {"health": health})
            task_status.started("")

    with in_a_thread(main):
        yield socket, faults


def test_what_is_fit_is_said_to_be(door: tuple[Path, list[Fault]]) -> None:
    socket, _ = door
    answer = Answer("health", "--socket", socket)
    assert (answer.code, answer.out) == (0, "irs: fit\npop a: fit\n")


def test_what_does_no_harm_yet_is_told(door: tuple[Path, list[Fault]]) -> None:
    socket, faults = door
    faults.append(SLIGHT)
    answer = Answer("health", "--socket", socket)
    assert (answer.code, answer.out) == (0, "irs: fit\npop a: fit\n  no session to IRS [/x]\n")


def test_what_is_unfit_ends_with_1_and_the_reason(door: tuple[Path, list[Fault]]) -> None:
    socket, faults = door
    faults += [SLIGHT, GRAVE]
    answer = Answer("health", "--socket", socket)
    assert answer.code == 1
    assert answer.out.splitlines()[1:] == [
        "pop a: unfit",
        "  no session to IRS [/x]",
        "  no origin takes streams",
    ]
    answer = Answer("health", "--socket", socket, "--json")
    assert answer.code == 1
    (one,) = json.loads(answer.out)
    assert one["faults"][1] == {"role": "pop a", "what": GRAVE.what, "grave": True}


def test_nobody_answers(tmp_path: Path) -> None:
    answer = Answer("health", "--socket", tmp_path / "none.sock")
    assert isinstance(answer.error, EdgedError)
    assert "no edged answers at" in str(answer.error)
