"""`edged routes` against an admin door in another thread."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import trio
from msgspec import structs

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.roles.status import DrainedSeen, RoutesSeen
from tests.cli.invoke import Answer, in_a_thread
from tests.cli.statuses import NO_IRS, routes

ODD = "[/x] [red]"


@contextlib.contextmanager
def edged_at(socket: Path, seen: list[RoutesSeen]) -> Iterator[None]:
    def answer(arguments: Arguments) -> object:
        return seen

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, AdminConfig(socket=socket), {"routes": answer})
            task_status.started("")

    with in_a_thread(main):
        yield


def words(answer: Answer) -> str:
    assert answer.error is None
    return " ".join(answer.out.split())


def test_table_rules_and_streams(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [routes()]):
        shown = words(Answer("routes", "--socket", socket))
        (pop,) = json.loads(Answer("routes", "--socket", socket, "--json").out)
    assert "PoP west: table epoch 5 v42, issued 0.8 s ago; lease for 9.2 s" in shown
    assert "fra1 up 37 of 40 7.10 ms 3/20 0.3 ms 192.0.2.1:7410" in shown
    assert "the final glob=final* prefer fra1 2" in shown
    assert "alice fra1 1:00 nearest fra1 is the nearest origin whose lease has room" in shown
    assert "and 2 more" in shown
    assert "drained" not in shown
    assert pop["streams"][0]["route"]["table_version"] == 42


def test_a_drained_origin_is_said_with_what_is_left(tmp_path: Path) -> None:
    drained = [DrainedSeen(origin="fra1", left=3, seconds_left=41.6)]
    with edged_at(tmp_path / "admin.sock", [structs.replace(routes(), drained=drained)]):
        shown = words(Answer("routes", "--socket", tmp_path / "admin.sock"))
    assert "origin fra1 is drained: 3 of our streams left, 42 s" in shown


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    blind = structs.replace(
        routes(irs=NO_IRS, table=None), origins=[], rules=[], streams=[], streams_total=0
    )
    with edged_at(socket, [blind, routes(irs=NO_IRS)]):
        shown = words(Answer("routes", "--socket", socket))
    assert "no routing table has come yet" in shown
    assert "no IRS for 0:12" in shown
    assert "no live streams are published here" in shown


def test_a_limit(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [routes()]):
        shown = words(Answer("routes", "--socket", socket, "--limit", "0"))
    assert "alice" not in shown
    assert "and 3 more" in shown


def test_names_from_outside_are_no_markup(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    seen = routes()
    odd = structs.replace(
        seen,
        pop=ODD,
        rules=[structs.replace(seen.rules[0], label=ODD, does=ODD)],
        streams=[structs.replace(seen.streams[0], channel=ODD)],
    )
    with edged_at(socket, [odd]):
        assert Answer("routes", "--socket", socket).out.count(ODD) == 4
