"""What is told of reach: of one channel, and of each PoP."""

from edged.irs.reach_seen import HOLDS, Told, count_reach, find_ways
from edged.media.reach import Audience, AudienceRow
from edged.policy.reach_plan import ChannelReach, ReachPlan


def told(*rows: AudienceRow, origin_ms: float = 80.0, **peers: float) -> Told:
    ways = {f"{name}/0": ms for name, ms in peers.items()}
    made = Told(Audience(rows=rows, peers=ways))
    made.origin_ms = {"fra1": origin_ms}
    return made


PLAN = ChannelReach(
    channel="x",
    origin="fra1",
    viewers=50,
    covered=50.0,
    replicas=("lhr/0", "gru/0"),
    via={"sin/0": "lhr/0"},
    rungs={"lhr/0": ("v1", "v2"), "gru/0": (), "sin/0": ("v2",)},
    mbps={"lhr/0": 3.3, "gru/0": 10.0},
)
TOLD = {
    "ams/0": told(AudienceRow("x", 3), AudienceRow("y", 1, held=True)),
    "gru/0": told(),
    "lhr/0": told(AudienceRow("x", 0, held=True), origin_ms=12.34),
    "lhr/1": told(AudienceRow("y", 0, held=True)),
    "sin/0": told(AudienceRow("x", 40, via="lhr/0"), lhr=8.26),
}


def test_each_pop_with_a_channel_is_told_those_that_hold_it_first() -> None:
    ways = find_ways("x", TOLD, PLAN, "fra1")
    assert [way.pop for way in ways] == ["lhr/0", "ams/0", "gru/0", "sin/0"]
    held, alone, to_come, relayed = ways
    assert (held.ordered, held.here, held.origin_ms, held.via_ms) == (HOLDS, True, 12.3, None)
    assert (alone.ordered, alone.via, alone.rungs) == ("", "", [])
    assert (to_come.ordered, to_come.here, to_come.held) == (HOLDS, False, False)
    assert (relayed.via, relayed.via_ms, relayed.rungs) == ("lhr/0", 8.3, ["v2"])
    assert [way.pop for way in find_ways("y", TOLD, None, "")] == ["ams/0", "lhr/1"]
    assert find_ways("z", TOLD, None, "") == []


def test_pops_are_counted_all_shards_together() -> None:
    rows, relays = count_reach(TOLD, ReachPlan(channels={"x": PLAN}))
    assert rows == {"ams": (1, 0, 0), "gru": (0, 0, 10), "lhr": (2, 0, 3), "sin": (0, 1, 0)}
    assert relays == {("lhr", "sin"): 1}
    assert count_reach({}, None) == ({}, {})
