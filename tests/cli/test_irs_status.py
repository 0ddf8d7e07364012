"""`edged irs status` against an admin door in another thread."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import trio
from msgspec import structs

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.irs.seat import SeatSeen
from edged.irs.state import Action
from tests.cli.invoke import Answer, in_a_thread

STANDBY = SeatSeen(
    standing="standby",
    for_s=90.0,
    epoch=1_700_000_000,
    leads=False,
    grants=0,
    majority=2,
    pops_known=3,
    pops_here=3,
    active_at="irs1:1940",
    drained=["fra1"],
    state_file="/var/lib/edged/irs.sqlite",
    state_problem="the disk is full",
    actions=[Action(at=1_700_000_000.0, by="an operator", what="drain", origin="fra1")],
)
ALONE = structs.replace(
    STANDBY,
    standing="alone",
    leads=True,
    majority=0,
    active_at="",
    drained=[],
    state_file="",
    state_problem="",
    actions=[],
)


@contextlib.contextmanager
def edged_at(socket: Path, seen: list[SeatSeen]) -> Iterator[None]:
    def answer(arguments: Arguments) -> object:
        return seen

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, AdminConfig(socket=socket), {"irs-status": answer})
            task_status.started("")

    with in_a_thread(main):
        yield


def test_a_standby_says_where_the_active_one_is(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [STANDBY]):
        lines = [
            " ".join(line.split())
            for line in Answer("irs", "status", "--socket", socket).out.splitlines()
        ]
        assert lines[0].startswith("standby for 1")
        assert lines[0].endswith(
            ", as it should: 3 of 3 PoPs are heard, and it takes over when the active one is gone"
        )
        assert "epoch" not in lines[0], "it has none"
        assert "the active one is irs1:1940, as PoPs reach it" in lines
        assert "drained: fra1" in lines
        assert "not kept: the disk is full" in lines
        assert "2023-11-14 22:13:20 UTC drain fra1 an operator" in lines
        (seen,) = json.loads(Answer("irs", "status", "--json", "--socket", socket).out)
        assert (seen["standing"], seen["majority"]) == ("standby", 2)


def test_a_standby_while_nobody_is_active_or_it_cannot_tell_says_so(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    nobody = structs.replace(STANDBY, active_at="")
    deaf = structs.replace(nobody, pops_here=1)
    with edged_at(socket, [deaf, nobody]):
        out = " ".join(Answer("irs", "status", "--socket", socket).out.split())
    assert ", 2 must; 1 of 3 PoPs are heard: it cannot tell who is active" in out
    assert ", 2 must; no IRS is active" in out


def test_one_alone_needs_no_grant(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [ALONE]):
        out = Answer("irs", "status", "--socket", socket).out
        assert out.startswith("alone for ")
        assert "grant" not in out
        assert "drained: no origin" in out
        assert "kept in nowhere: see irs.state_file" in out
