"""`edged reach` against an admin door in another thread."""

import json
from pathlib import Path

import trio
from msgspec import structs
from rich.text import Text

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.cli.reach import describe_plan, describe_pop
from edged.irs.reach_seen import ReachAnswer, ReachSeen
from edged.policy.reach_orders import HeldSeen
from edged.roles.reach import ReachShown
from edged.roles.reaching import ReachAtPop
from edged.roles.relaying import SourceSeen
from tests.cli.invoke import Answer, in_a_thread

PLAN = ReachAnswer(
    enabled=True,
    planned_s_ago=1.5,
    waiting_for=["sin1/0"],
    channels=1,
    replicas=2,
    relayed=0,
    seen=[
        ReachSeen(
            channel="alice",
            origin="fra1",
            viewers=200,
            covered=150,
            replicas=["ams1/0", "lhr1/0"],
            via={},
            rungs={"v0": 120, "v1": 80},
        )
    ],
)
POP = ReachAtPop(
    pop="ams1",
    epoch=7,
    number=3,
    orders=2,
    expires_s=50.0,
    held=[
        HeldSeen(channel="alice", held=True, why="by order"),
        HeldSeen(channel="bob", held=False, why="the channel is not live"),
    ],
    sources=[
        SourceSeen(channel="carol", source="ams1/0", ordered="ams1/0", why=""),
        SourceSeen(channel="dora", source="fra1", ordered="lhr1/0", why="avoided: it is silent"),
    ],
    avoided={"lhr1/0": "it is silent; for 20 s more"},
    relayed_on={"alice": 3},
)


def test_what_is_planned_and_what_is_done_is_shown(tmp_path: Path) -> None:
    socket, asked = tmp_path / "admin.sock", list[Arguments]()

    def reach(arguments: Arguments) -> object:
        asked.append(arguments)
        return [ReachShown(plans=[PLAN], pops=[POP])]

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, AdminConfig(socket=socket), {"reach": reach})
            task_status.started("")

    with in_a_thread(main):
        shown = Answer("reach", "--socket", socket)
        one = Answer("reach", "alice", "--json", "--socket", socket)
    assert shown.code == 0
    for text in ("1 channels have 2 replicas", "75.0 %", "ams1/0", "v0 120", "sin1/0"):
        assert text in shown.out
    for text in (
        "avoided: it is silent",
        "nothing is taken from lhr1/0: it is silent; for 20 s more",
        "1 channels go from here to other PoPs, 3 times",
    ):
        assert text in shown.out
    for text in ("2 orders in force", "by order", "the channel is not live"):
        assert text in shown.out
    assert asked == [{}, {"channel": "alice"}]
    assert json.loads(one.out)[0]["pops"][0]["number"] == 3


def test_where_nothing_is_planned_it_says_why() -> None:
    off = structs.replace(PLAN, enabled=False)
    (line,) = describe_plan(off)
    assert Text.from_markup(line).plain == "no replicas are planned: there is no [irs.reach]"
    early = structs.replace(PLAN, planned_s_ago=None, waiting_for=[])
    assert describe_plan(early) == ["[yellow]nothing is planned yet[/]"]
    unheard = structs.replace(POP, epoch=-1, orders=0)
    assert describe_pop(unheard).endswith("no IRS has sent orders")
