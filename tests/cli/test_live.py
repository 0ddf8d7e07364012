"""`edged live` against an admin door in another thread."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import trio
from msgspec import structs

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.cli.live import describe_note
from edged.irs.live_board import LiveAnswer
from edged.irs.reach_seen import HOLDS, PopWay
from edged.policy.live_registry import LiveConflict, LiveSeen
from tests.cli.invoke import Answer, in_a_thread

ALICE = LiveSeen(
    channel="alice",
    pop="ams1/0",
    origin="fra1",
    class_="partner",
    protocol="srt",
    publication="5f",
    home_epoch=2,
    since=0.0,
    waits=False,
)
ANSWER = LiveAnswer(
    channels=3,
    matching=3,
    streams=[ALICE, structs.replace(ALICE, channel="bob", origin="", pop="ams1/1")],
    conflicts=[
        LiveConflict(channel="alice", pops=["ams1/0", "lhr1/0"], newest="lhr1/0", for_s=75.0)
    ],
    unlisted={"sin1/0": "it has not told all yet"},
    silent=["gru1/0"],
)


@contextlib.contextmanager
def edged_at(socket: Path, answer: LiveAnswer) -> Iterator[list[Arguments]]:
    asked: list[Arguments] = []

    def live(arguments: Arguments) -> object:
        asked.append(arguments)
        since = time.time() - 3700.0
        streams = [structs.replace(each, since=since) for each in answer.streams]
        return [structs.replace(answer, streams=streams)]

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, AdminConfig(socket=socket), {"live": live})
            task_status.started("")

    with in_a_thread(main):
        yield asked


def test_who_is_live_where_is_shown(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, ANSWER) as asked:
        answer = Answer("live", "--pop", "ams1", "--limit", "2", "--socket", socket)
        lines = [" ".join(line.split()) for line in answer.out.splitlines()]
        assert asked == [{"pop": "ams1", "limit": "2"}]
        assert any(line.startswith("alice ams1/0 fra1 partner srt 1:01:4") for line in lines)
        assert any("bob ams1/1 nowhere" in line for line in lines)
        assert "3 channels are live in the network; 1 more match: see --limit" in lines
        assert "alice is published at ams1/0 and lhr1/0 for 1:15; the run of lhr1/0 holds" in lines
        assert "not all of sin1/0: it has not told all yet" in lines
        assert "too old to tell: gru1/0" in lines
        (found,) = json.loads(Answer("live", "--json", "--socket", socket).out)
        assert found["streams"][0]["publication"] == "5f"


def test_one_that_is_not_live(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    empty = LiveAnswer(
        channels=7, matching=0, streams=[], conflicts=[], unlisted={}, silent=[]
    )  # fmt: skip
    with edged_at(socket, empty) as asked:
        out = Answer("live", "carol", "--socket", socket).out
        assert out == "carol is not live\n7 channels are live in the network\n"
        assert asked[0]["channel"] == "carol"


def test_what_is_unusual_is_said() -> None:
    assert describe_note(ALICE) == ""
    odd = structs.replace(ALICE, waits=True, unheard_s=4.2, also_at=["a/0"], newest=False)
    assert describe_note(odd) == (
        "waits for its publisher; its PoP is gone for 4 s; also at a/0, whose run is newer"
    )
    assert describe_note(structs.replace(ALICE, also_at=["a/0"])) == "also at a/0"


def test_which_pops_have_one_channel_and_by_which_way(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    held = PopWay(
        pop="lhr1/0",
        viewers=0,
        here=True,
        held=True,
        via="",
        ordered=HOLDS,
        rungs=["v1", "v2"],
        via_ms=None,
        origin_ms=12.0,
    )
    relayed = PopWay(
        pop="sin1/0",
        viewers=40,
        here=True,
        held=False,
        via="lhr1/0",
        ordered="lhr1/0",
        rungs=["v2"],
        via_ms=8.25,
        origin_ms=170.0,
    )
    to_come = structs.replace(held, pop="gru1/0", here=False, held=False)
    by_itself = structs.replace(relayed, pop="nyc1/0", via="", ordered="", via_ms=None, rungs=[])
    answer = structs.replace(ANSWER, ways=[held, relayed, to_come, by_itself])
    with edged_at(socket, answer):
        shown = Answer("live", "alice", "--socket", socket)
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "lhr1/0 0 its origin 12.0 ms by order hold it v1, v2" in lines
    assert "sin1/0 40 lhr1/0 8.2 ms 170.0 ms take it from lhr1/0 v2" in lines
    assert "gru1/0 0 not here 12.0 ms hold it v1, v2" in lines
    assert "nyc1/0 40 its origin 170.0 ms" in lines
