"""`edged links` against an admin door in another thread."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import trio
from msgspec import structs

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.policy.well import LinkStatus
from tests.cli.invoke import Answer, in_a_thread

LINK = LinkStatus(
    link="ams-fra",
    ends=("ams", "fra"),
    mbps=100_000.0,
    state="up",
    why="",
    ours_mbps=(42_000.0, 6_000.0),
    outside_mbps=(0.0, 0.0),
    utilisation=(0.42, 0.06),
    price_ms=0.0,
    rtt_ms=6.28,
    loss=0.0012,
    told_as=("ams-fra",),
)
CUT = structs.replace(
    LINK,
    link="lhr-iad",
    state="cut",
    why="no living path crosses it",
    outside_mbps=(500.0, 0.0),
    closed=("", "basic"),
    price_ms=1000.0,
    rtt_ms=None,
    loss=None,
    told_as=("iad-x", "lhr-iad"),
)


@contextlib.contextmanager
def edged_at(socket: Path, seen: list[LinkStatus]) -> Iterator[None]:
    def answer(arguments: Arguments) -> object:
        return seen

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, AdminConfig(socket=socket), {"links": answer})
            task_status.started("")

    with in_a_thread(main):
        yield


def test_links_are_shown(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, [LINK, CUT]):
        answer = Answer("links", "--socket", socket)
        lines = [" ".join(line.split()) for line in answer.out.splitlines()]
        first, _ = json.loads(Answer("links", "--socket", socket, "--json").out)
    assert "ams-fra ams to fra up 100000 42.0% 6.0% 6.3 ms 0.12%" in lines
    shown = " ".join(lines)
    assert "cut 100000 42.0% (500 Mbps of others) 6.0%, closed to basic and below with" in shown
    assert "with iad-x 1000 ms no living path" in shown
    assert first["ours_mbps"] == [42000.0, 6000.0]


def test_without_a_map_it_says_how_to_have_one(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, []):
        assert "[[irs.links]] in irs.toml" in Answer("links", "--socket", socket).out
