"""From which replica a PoP takes a channel; what holds of whole plans is in `test_reach`."""

import numpy as np

from edged.media.reach import AudienceRow
from edged.policy.reach_budget import Budget
from edged.policy.reach_config import ReachConfig
from edged.policy.reach_plan import ChannelReach, Memory, ReachPop, Rows, Work
from edged.policy.reach_relays import RelayPlan
from edged.policy.reach_ways import Ways

CONFIG = ReachConfig(hold_plans=2)
ROW = AudienceRow("x", 5, (), {"v1": 5}, mbps={"v0": 6.0, "v1": 3.0}, base_mbps=0.5)


class World:
    """Two relays that hold x, and c, whose viewers watch it."""

    def __init__(self, *, a_ms: float = 10.0, b_ms: float = 20.0, room_mbps: float = 100.0) -> None:
        self.between = np.array([[0.0, 5.0, a_ms], [5.0, 0.0, b_ms], [a_ms, b_ms, 0.0]])
        self.pops = [
            ReachPop(
                pop=f"{name}/0",
                relay="127.0.0.1:1",
                relays_max=9,
                relay_mbps_max=room_mbps if name == "a" else 100.0,
                holds_max=9,
                origin_ms={"fra1": 60.0},
            )
            for name in "abc"
        ]
        self.budget = Budget(self.pops, {}, 9)

    def take(self, via: str = "", memory: Memory | None = None) -> tuple[Work, dict[str, str]]:
        before = ChannelReach(
            channel="x",
            origin="fra1",
            viewers=5,
            covered=5,
            replicas=("a/0", "b/0"),
            via={"c/0": via} if via else {},
            rungs={"c/0": ("v1",)} if via else {},
        )
        work = Work("x", "fra1", 5, Rows([2], [ROW]), before=before, memory=memory)
        work.replicas, work.held, work.mbps = [0, 1], [0, 0], [0.5, 0.5]
        number = {pop.pop: place for place, pop in enumerate(self.pops)}
        plan = RelayPlan(CONFIG, self.pops, number, Ways(self.between, CONFIG), self.budget)
        return work, plan.take_from(work)[0]


def test_the_nearest_has_what_is_watched_from_then_on() -> None:
    world = World()
    work, via = world.take()
    assert via == {"c/0": "a/0"}
    assert work.rungs.names(work.held[0]) == ("v1",)
    assert work.mbps == [3.5, 0.5]
    assert world.budget.relay_mbps == [3.5, 0.0, 0.0]


def test_where_the_nearest_has_no_room_it_is_the_next() -> None:
    assert World(room_mbps=3.0).take()[1] == {"c/0": "b/0"}
    assert World(room_mbps=3.0, b_ms=58.0).take()[1] == {}, "and the origin before one as far"


def test_a_nearer_one_is_gone_to_when_it_has_been_that_for_some_looks() -> None:
    work, via = World().take("b/0")
    assert via == {"c/0": "b/0"}
    assert work.streaks_now == {"to c/0": 1}
    assert World().take("b/0", Memory([], work.streaks_now, {}))[1] == {"c/0": "a/0"}


def test_who_is_too_far_by_now_is_left_for_the_origin() -> None:
    world = World(a_ms=61.0, b_ms=70.0)
    work, via = world.take("a/0")
    assert via == {"c/0": "a/0"}
    assert world.take("a/0", Memory([], work.streaks_now, {}))[1] == {}
