"""A PoP does what IRS orders for reach: in a whole network, and with a playback edge alone."""

import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from msgspec import Struct
from structlog.testing import capture_logs

from edged.media.reach import ROWS_BYTES_MAX, ROWS_MAX, Audience, Reach, ReachOrder
from edged.playback.hls import FULL_WHY, Channel
from edged.policy.reach_config import PopReachConfig
from edged.roles.pop import PopRole
from edged.roles.reach import ReachShown, make_handlers
from edged.roles.reaching import GUESS_MBPS, SPECS, TELL_S, Reaching
from edged.runtime.metrics import Metrics
from edged.wire.table import encoded_bytes
from tests.backbone.network import until
from tests.ingest.rtmp_peer import admitted
from tests.roles.network import KEY, Network, broadcast, configure, raw_network, running


def reach(number: int, *held: str, epoch: int = 1, ttl_s: float = 60.0) -> Reach:
    orders = tuple(ReachOrder(channel, hold=True) for channel in held)
    return Reach(epoch=epoch, number=number, ttl_s=ttl_s, orders=orders)


class Playback:
    """An edge that holds what it is told to."""

    def __init__(self) -> None:
        self.known: dict[str, Channel] = {}
        self.why = ""
        self.subscribed = 0

    @property
    def channels(self) -> dict[str, Channel]:
        return self.known

    def hold(self, name: str) -> str:
        if not self.why:
            channel = self.known.setdefault(name, Channel(name, 0.0))
            channel.held = True
            self.subscribed += not channel.subscribed
            channel.subscribed = True
        return self.why

    def let_go(self, name: str) -> None:
        self.known[name].held = False

    @property
    def held(self) -> set[str]:
        return {name for name, channel in self.known.items() if channel.held}


class Held(Struct):
    playback: Playback
    reaching: Reaching
    told: list[Audience]


def holding(**limits: float) -> Held:
    playback, told = Playback(), list[Audience]()
    rng = random.Random(1)  # noqa: S311 - a test's chance
    config = PopReachConfig(**limits)  # type: ignore[arg-type] # some are whole numbers
    reaching = Reaching("ams1", config, playback, lambda: 0.0, rng)
    reaching.tell = told.append
    return Held(playback, reaching, told)


def test_a_held_channel_that_fails_is_asked_for_ever_more_rarely() -> None:
    held, now = holding(), 0.0
    held.reaching._now = lambda: now
    held.reaching.ordered(reach(1, "x", ttl_s=600.0))
    for second in range(120):
        now = float(second)
        held.reaching.look(now)
        held.playback.known["x"].subscribed = False
    assert 5 <= held.playback.subscribed <= 9
    now += 120.0
    held.reaching.look(now)
    now += 61.0
    held.reaching.look(now)
    held.playback.known["x"].subscribed = False
    before = held.playback.subscribed
    held.reaching.look(now)
    assert held.playback.subscribed == before + 1, "after it went on for a while, at once"


def test_without_the_table_nothing_is_obeyed_nor_told() -> None:
    held = holding()
    held.reaching.ordered(reach(1, "x"))
    held.reaching.look(0.0)
    held.reaching.reconfigure(None)
    held.told.clear()
    held.reaching.ordered(reach(2, "x", "y"))
    for second in range(200):
        held.reaching.look(float(second))
    assert held.playback.held == set()
    assert held.told == []
    held.reaching.reconfigure(PopReachConfig())
    held.reaching._now = lambda: 200.0
    held.reaching.ordered(reach(3, "y"))
    held.reaching.look(200.0)
    assert held.playback.held == {"y"}


def test_what_was_begun_since_the_last_measurement_counts() -> None:
    held = holding(hold_mbps_max=50.0)
    held.reaching.ordered(reach(1, *(f"c{number}" for number in range(100))))
    for second in range(20):
        held.reaching.look(float(second))
    assert len(held.playback.held) == 50 / GUESS_MBPS


def test_what_is_ordered_is_held_until_its_grace_is_over() -> None:
    held = holding(grace_s=10.0)
    held.reaching.ordered(reach(1, "x", "y"))
    held.reaching.look(0.0)
    assert held.playback.held == {"x", "y"}
    held.reaching.ordered(reach(2, "x"))
    held.reaching.look(1.0)
    assert held.playback.held == {"x", "y"}
    held.reaching.look(21.0)
    assert held.playback.held == {"x"}


def test_orders_that_expired_come_into_force_again_with_the_next() -> None:
    held = holding(grace_s=0.0)
    held.reaching.ordered(reach(1, "x", ttl_s=10))
    held.reaching.look(0.0)
    held.reaching.look(10.0)
    held.reaching.look(10.1)
    assert held.playback.held == set()
    held.reaching.ordered(reach(2, "x", ttl_s=60))
    held.reaching.look(20.0)
    assert held.playback.held == {"x"}


def test_stale_orders_of_an_older_irs_are_ignored_and_said() -> None:
    held = holding()
    held.reaching.ordered(reach(1, "x", epoch=5))
    with capture_logs() as logs:
        held.reaching.ordered(reach(9, "y", epoch=4))
    held.reaching.look(0.0)
    assert held.playback.held == {"x"}
    assert [line["event"] for line in logs] == ["orders of reach not taken"]


def test_so_many_changes_at_a_time() -> None:
    held = holding(changes_per_s=3.0)
    held.reaching.ordered(reach(1, *map(str, range(10))))
    counts = []
    for tick in range(5):
        held.reaching.look(float(tick))
        counts.append(len(held.playback.held))
    assert counts == [3, 6, 9, 10, 10]


def test_a_pop_that_drains_holds_nothing_new_and_says_so() -> None:
    held = holding(grace_s=0.0)
    held.reaching.ordered(reach(1, "x"))
    held.reaching.look(0.0)
    held.reaching.draining = True
    held.reaching.look(TELL_S)
    held.reaching.look(TELL_S + 1)
    assert held.playback.held == set()
    assert [told.holds_max for told in held.told] == [200, 0]


def test_nobody_is_told_before_an_irs_has_asked() -> None:
    held = holding()
    held.reaching.look(0.0)
    held.reaching.look(100.0)
    assert held.told == []
    held.reaching.ordered(Reach(epoch=1, number=1, ttl_s=60))
    held.reaching.look(100.0)
    held.reaching.look(101.0)
    assert len(held.told) == 1
    held.reaching.look(100.0 + TELL_S)
    assert len(held.told) == 2


def test_a_report_is_bounded_in_rows_and_bytes() -> None:
    held = holding(holds_max=500, changes_per_s=1000.0)
    for number in range(ROWS_MAX + 1):
        held.playback.hold(f"c{number}")
    held.reaching.ordered(Reach(epoch=1, number=1, ttl_s=60))
    held.reaching.look(0.0)
    (told,) = held.told
    assert (len(told.rows), told.omitted) == (ROWS_MAX, 1)
    held = holding()
    for number in range(ROWS_MAX):
        held.playback.hold(f"{number:04}" + 252 * "\N{GRINNING FACE}")
    held.reaching.ordered(Reach(epoch=1, number=1, ttl_s=60))
    held.reaching.look(0.0)
    (told,) = held.told
    assert told.omitted > 0
    assert 0.9 < sum(map(encoded_bytes, told.rows)) / ROWS_BYTES_MAX <= 1.0


def test_too_many_bytes_for_nobody_are_refused_with_the_reason() -> None:
    held = holding(hold_mbps_max=10.0)
    held.reaching._mbps = 10.0
    held.reaching.ordered(reach(1, "x"))
    held.reaching.look(TELL_S - 1)
    assert held.playback.held == set()
    seen = held.reaching.seen()
    assert [(line.held, line.why) for line in seen.held] == [
        (False, "10 Mbps of channels that nobody watches come in already")
    ]


def test_what_cannot_be_held_says_why() -> None:
    held = holding()
    held.playback.why = FULL_WHY
    held.reaching.ordered(reach(1, "x"))
    held.reaching.look(0.0)
    seen = held.reaching.seen()
    assert (seen.orders, seen.epoch, seen.number, seen.expires_s) == (1, 1, 1, 60.0)
    assert [(line.held, line.why) for line in seen.held] == [(False, FULL_WHY)]
    assert held.reaching.seen("y").held == []


def test_limits_that_change_hold_from_the_next_look_on() -> None:
    held = holding(grace_s=0.0)
    held.reaching.ordered(reach(1, "x", "y"))
    held.reaching.look(0.0)
    held.reaching.reconfigure(PopReachConfig(holds_max=1, grace_s=0.0))
    held.reaching.look(1.0)
    held.reaching.look(2.0)
    assert held.playback.held == {"x"}


def test_its_metrics() -> None:
    held = holding(holds_max=1)
    metrics = Metrics()
    held.reaching.register(metrics, role="pop ams1")
    held.reaching.ordered(reach(1, "x", "y"))
    held.reaching.look(0.0)
    text = metrics.render().decode()
    for spec in SPECS:
        assert spec.name in text
    assert 'edged_reach_held{role="pop ams1"} 1' in text
    assert 'edged_reach_refused{role="pop ams1"} 1' in text


@asynccontextmanager
async def network(folder: Path) -> AsyncIterator[tuple[Network, PopRole]]:
    """Two PoPs and an IRS that plans reach; alice is published at west."""
    irs, origin, *pops = raw_network(folder, pops=("west", "east"))
    irs["irs"] = {
        **irs["irs"],  # type: ignore[dict-item] # a table
        "reach": {"interval_s": 0.5, "ttl_s": 5.0, "viewers_per_replica": 1},
    }
    pops[1]["pop"] = {"name": "east", "reach": {"grace_s": 0.2}}
    async with running(*map(configure, (irs, origin, *pops))) as made:
        east = next(role for role in made.process.roles if role.name == "pop east")
        assert isinstance(east, PopRole)
        async with admitted(made.rtmp(), KEY) as peer:
            await broadcast(peer)
            await until(lambda: east.uplinks.lookup("alice") is not None)
            yield made, east


async def test_a_channel_is_here_before_anybody_watches(tmp_path: Path) -> None:
    async with network(tmp_path) as (made, east):
        asked = east.reaching.orders.stamp
        await until(lambda: east.reaching.orders.stamp > max(asked, (0, 0)))
        assert east.hls.watched() == []
        epoch, number = east.reaching.orders.stamp
        # As IRS may order, too; what it says later is older than that.
        east.reaching.ordered(reach(number + 10**6, "alice", epoch=epoch))
        await until(lambda: east.hls.watched() == ["alice"])
        assert east.viewers("alice") == 0
        (channel,) = east.hls.channels.values()
        assert channel.asked_at == -math.inf
        await until(lambda: channel.newest is not None and channel.newest.window.ready)
        east.hls.sweep(east.pump.now())
        assert east.hls.watched() == ["alice"], "though nobody watches it"
        began = trio.current_time()
        status, _ = await made.get("/live/alice/master.m3u8", "east")
        assert status == 200
        assert trio.current_time() - began < 1.0, "it was here"
        answer = make_handlers(made.process.roles)["reach"]({"channel": "alice"})
        assert isinstance(answer, list)
        (shown,) = answer
        assert isinstance(shown, ReachShown)
        assert [plan.enabled for plan in shown.plans] == [True]
        assert [line.held for pop in shown.pops for line in pop.held] == [True]
        east.reaching.ordered(reach(number + 2 * 10**6, epoch=epoch))
        await until(lambda: not channel.held)
