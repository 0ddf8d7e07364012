"""IRS and PoPs over memory streams: who watches what goes up, orders come down, and again."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

import edged.irs.reach
from edged.irs.client import PopClient
from edged.irs.reach import KEPT_S, METRICS, WAIT_S_MAX
from edged.irs.service import IrsConfig
from edged.media.live import LiveRow
from edged.media.reach import Audience, AudienceRow, Reach, ReachOrder
from edged.media.routing import PathProbe
from edged.policy.link_map import LinkConfig, SiteConfig
from edged.policy.pop_view import PopView
from edged.policy.reach_config import ReachConfig
from edged.policy.reach_orders import ReachOrders
from edged.wire.table_push import TableHolder
from tests.irs.network import CLIENT, NOW_UNIX, Network, until

REACH = ReachConfig(interval_s=1.0, ttl_s=5.0, viewers_per_replica=10)
IRS = IrsConfig(warmup_s=0.0, reach=REACH)


class Pop:
    """A PoP that tells what it is said to, and keeps what it is told."""

    def __init__(self, name: str, origin_ms: float = 100.0, *, relays: bool = True) -> None:
        self.name, self.key = name, f"{name}/0"
        self.reaches: list[Reach] = []
        self.orders = ReachOrders()
        self.tells = True
        self.audience = Audience(
            rows=(),
            relay=f"{name}.example.net:1950" if relays else "",
            relays_max=9,
            holds_max=9,
        )
        self.live: dict[str, LiveRow] = {}
        self.client = PopClient(CLIENT, PopView(name), live=lambda: self.live, on_reach=self._take)
        self.client.view.observe_path("fra1", PathProbe(origin_ms))

    def publishes(self, *channels: str) -> None:
        self.live = {
            name: LiveRow(name, 1, 1, "fra1", "basic", "rtmp", NOW_UNIX) for name in channels
        }

    def watched(self, **viewers: int) -> None:
        rows = tuple(AudienceRow(name, count) for name, count in viewers.items())
        self.audience = msgspec.structs.replace(self.audience, rows=rows)

    def join(self, network: Network) -> trio.CancelScope:
        network.nursery.start_soon(self.client.run_duties)
        return network.join(self.name, self.client.run_stream)

    @property
    def ordered(self) -> dict[str, ReachOrder]:
        return dict(self.orders.in_force(trio.current_time()))

    def _take(self, reach: Reach) -> None:
        self.reaches.append(reach)
        assert self.orders.take(reach, trio.current_time()) == ""
        if self.tells:
            self.client.send_audience(self.audience)


async def test_who_watches_goes_up_and_orders_come_down(autojump_clock: MockClock) -> None:
    near, far = Pop("east", 100.0), Pop("west", 110.0, relays=False)
    near.watched(x=100)
    near.publishes("x", "y")
    far.watched(x=5, y=3, gone=50)
    far.audience = msgspec.structs.replace(far.audience, holds_max=0, peers={"east/0": 20.0})
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        near.join(network)
        far.join(network)
        await until(lambda: bool(far.ordered))
        assert near.ordered == {"x": ReachOrder("x", hold=True)}
        assert far.ordered == {"x": ReachOrder("x", via="east/0")}
        assert far.reaches[-1].relays == {"east/0": "east.example.net:1950"}
        assert far.reaches[0].orders is None, "it was asked first"
        answer = network.irs.reach.answer()
        assert (answer.channels, answer.replicas, answer.relayed) == (1, 1, 1)
        assert [seen.viewers for seen in answer.seen] == [105]
        assert network.irs.reach.answer("y").seen == []
        one, other = network.irs.reach.ways("x")
        assert (one.pop, one.ordered, one.viewers, one.held) == ("east/0", "hold", 100, False)
        assert (other.pop, other.ordered, other.via, other.via_ms) == (
            *("west/0", "east/0", ""),
            20.0,
        )
        assert (one.origin_ms, other.origin_ms) == (100.0, 110.0)
        assert network.irs.reach.ways("nothing") == []
        values = {sample.name: sample.value for sample in network.irs.reach.read_metrics()}
        assert values.keys() == {spec.name for spec in METRICS}
        assert values["edged_irs_reach_viewers"] == 105
        nursery.cancel_scope.cancel()


async def test_orders_are_sent_again_long_before_they_expire(autojump_clock: MockClock) -> None:
    pop = Pop("east")
    pop.watched(x=100)
    pop.publishes("x")
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        pop.join(network)
        await until(lambda: bool(pop.ordered))
        for _ in range(20):
            await trio.sleep(1.0)
            assert pop.ordered == {"x": ReachOrder("x", hold=True)}
        numbers = [reach.number for reach in pop.reaches]
        assert numbers == sorted(set(numbers))
        nursery.cancel_scope.cancel()


async def test_a_pop_that_comes_back_is_told_at_once(autojump_clock: MockClock) -> None:
    pop, other = Pop("east"), Pop("west")
    pop.watched(x=100)
    pop.publishes("x")
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        scope = pop.join(network)
        other.join(network)
        await until(lambda: bool(pop.ordered))
        scope.cancel()
        await trio.sleep(KEPT_S - 10)
        assert pop.ordered == {}, "they have expired"
        assert network.irs.reach.answer().replicas == 1, "it serves all the same"
        came = len(pop.reaches)
        network.join("east", pop.client.run_stream)
        await until(lambda: len(pop.reaches) > came, within_s=0.1)
        assert pop.ordered == {"x": ReachOrder("x", hold=True)}
        nursery.cancel_scope.cancel()


async def test_a_pop_that_is_gone_is_planned_for_no_more(autojump_clock: MockClock) -> None:
    pop, other = Pop("east"), Pop("west")
    pop.watched(x=100)
    other.publishes("x")
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        scope = pop.join(network)
        other.join(network)
        await until(lambda: bool(pop.ordered))
        scope.cancel()
        await trio.sleep(KEPT_S + 3)
        assert network.irs.reach.answer().replicas == 0
        nursery.cancel_scope.cancel()


async def test_an_irs_that_takes_over_goes_on_from_what_pops_do(autojump_clock: MockClock) -> None:
    """It changes nothing before all have told, however little it knows."""
    pop, slow = Pop("east"), Pop("west")
    pop.audience = msgspec.structs.replace(
        pop.audience,
        rows=(AudienceRow("x", 8, held=True), AudienceRow("y", 8, via="west/0")),
    )
    slow.audience = msgspec.structs.replace(slow.audience, rows=(AudienceRow("y", 8, held=True),))
    pop.publishes("x", "y")
    slow.tells = False
    before = Reach(epoch=1, number=9, ttl_s=60, orders=(ReachOrder("x", hold=True),))
    assert pop.orders.take(before, trio.current_time()) == ""
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        pop.join(network)
        slow.join(network)
        await trio.sleep(5)
        assert {reach.orders for reach in pop.reaches} == {None}
        assert network.irs.reach.answer().waiting_for == ["west/0"]
        assert pop.ordered == {"x": ReachOrder("x", hold=True)}
        slow.tells = True
        await until(lambda: pop.reaches[-1].orders is not None)
        # A new replica would need ten viewers.
        assert pop.ordered["x"] == ReachOrder("x", hold=True)
        assert pop.reaches[-1].epoch == network.irs.epoch
        nursery.cancel_scope.cancel()


async def test_one_that_never_tells_holds_nobody_up_for_long(autojump_clock: MockClock) -> None:
    pop, mute = Pop("east"), Pop("west")
    pop.watched(x=100)
    pop.publishes("x")
    mute.tells = False
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        pop.join(network)
        mute.join(network)
        took_s = await until(lambda: bool(pop.ordered), within_s=60)
        assert took_s == pytest.approx(WAIT_S_MAX + 1, abs=1.5)
        nursery.cancel_scope.cancel()


async def test_without_its_table_nothing_is_planned_and_nobody_asked(
    autojump_clock: MockClock,
) -> None:
    pop = Pop("east")
    pop.watched(x=100)
    pop.publishes("x")
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        network.add_origin("fra1")
        pop.join(network)
        await trio.sleep(20)
        assert pop.reaches == []
        assert not network.irs.reach.answer().enabled
        network.irs.reconfigure(IRS)
        await until(lambda: bool(pop.ordered), within_s=20)
        network.irs.reconfigure(IrsConfig(warmup_s=0.0))
        await trio.sleep(REACH.ttl_s + 1)
        assert pop.ordered == {}
        nursery.cancel_scope.cancel()


async def test_an_older_pop_is_left_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hello = TableHolder.hello
    monkeypatch.setattr(
        TableHolder,
        "hello",
        lambda *them: msgspec.structs.replace(hello(*them), reaches=False),
    )
    pop = Pop("east")
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        pop.join(network)
        await trio.sleep(20)
        assert pop.client.sessions, "it was not closed on"
        assert pop.reaches == []
        nursery.cancel_scope.cancel()


async def test_a_standby_plans_nothing(autojump_clock: MockClock) -> None:
    pop = Pop("east")
    pop.watched(x=100)
    pop.publishes("x")
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        network.irs.reach._may = lambda: False
        pop.join(network)
        await trio.sleep(20)
        assert pop.ordered == {}
        network.irs.reach._may = lambda: True
        await until(lambda: bool(pop.ordered))
        nursery.cancel_scope.cancel()


async def test_distances_are_from_the_map_where_nothing_is_measured(
    autojump_clock: MockClock,
) -> None:
    sites = (
        SiteConfig(name="london", pops=("lon1",), latitude=51.5, longitude=-0.1),
        SiteConfig(name="paris", pops=("par1",), latitude=48.9, longitude=2.4),
    )
    london, paris = Pop("lon1", 90.0), Pop("par1", 90.0)
    london.watched(x=100)
    london.publishes("x")
    paris.watched(x=5)
    paris.audience = msgspec.structs.replace(paris.audience, holds_max=0)
    async with trio.open_nursery() as nursery:
        network = Network(nursery, msgspec.structs.replace(IRS, sites=sites))
        network.add_origin("fra1")
        london.join(network)
        paris.join(network)
        await until(lambda: bool(paris.ordered))
        assert paris.ordered == {"x": ReachOrder("x", via="lon1/0")}
        nursery.cancel_scope.cancel()


async def test_a_plan_of_many_leaves_the_loop_to_others(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edged.irs.reach, "STEP_CHANNELS", 1)
    pop = Pop("east")
    names = [f"c{number}" for number in range(40)]
    pop.watched(**dict.fromkeys(names, 20))
    pop.publishes(*names)
    pop.audience = msgspec.structs.replace(pop.audience, holds_max=40)
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        pop.join(network)
        await until(lambda: len(pop.ordered) == 40)
        turns = 0
        board = network.irs.reach
        planner = board._planner
        assert planner is not None
        planner._world = None  # So all of them have their turn.
        async with trio.open_nursery() as planning:

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await trio.lowlevel.checkpoint()

            planning.start_soon(count)
            await board._plan(REACH)
            planning.cancel_scope.cancel()
        assert turns > 20
        nursery.cancel_scope.cancel()


async def test_orders_of_an_epoch_that_is_a_fault_are_not_taken() -> None:
    pop = Pop("ams1")
    pop.client._obey(Reach(epoch=2**63 - 1, number=1, ttl_s=5.0, orders=()), "127.0.0.1:1")
    assert pop.reaches == []
    pop.client._obey(Reach(epoch=5, number=1, ttl_s=5.0, orders=()), "127.0.0.1:1")
    assert len(pop.reaches) == 1


async def test_what_the_page_draws_is_what_pops_do(autojump_clock: MockClock) -> None:
    near, far = Pop("east", 100.0), Pop("west", 110.0)
    near.publishes("x", "y")
    near.audience = msgspec.structs.replace(
        near.audience, rows=tuple(AudienceRow(name, 9, held=True) for name in ("x", "y"))
    )
    rows = (AudienceRow("x", 5, via="east/0"), AudienceRow("y", 5))
    far.audience = msgspec.structs.replace(far.audience, rows=rows)
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IRS)
        network.add_origin("fra1")
        near.join(network)
        far.join(network)
        board = network.irs.reach
        await until(lambda: bool(board.look()[1]))
        assert board.look() == ({"east": (2, 0, 0), "west": (0, 1, 0)}, {("east", "west"): 1})
        seen = network.irs.watch._look()
        assert (seen.reach, seen.relays) == board.look()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("hold_mbps_max", "link_mbps", "held"), [(None, 1000.0, 2), (7.0, 1000.0, 1), (None, 35.0, 1)]
)
async def test_links_and_pops_limit_what_is_held(
    hold_mbps_max: float | None, link_mbps: float, held: int, autojump_clock: MockClock
) -> None:
    """A PoP that tells how many Mbps it takes holds no more by plan; nor does a link carry more."""
    pop = Pop("east", 100.0)
    pop.publishes("x", "y")
    watching = Pop("west", 110.0)
    watching.audience = msgspec.structs.replace(
        watching.audience,
        holds_max=0,
        peers={"east/0": 5.0},
        rows=tuple(
            AudienceRow(name, 50, (), {"v1": 50}, mbps={"v0": 6.0, "v1": 5.9}, base_mbps=0.1)
            for name in ("x", "y")
        ),
    )
    pop.audience = msgspec.structs.replace(pop.audience, hold_mbps_max=hold_mbps_max)
    irs = msgspec.structs.replace(
        IRS,
        sites=(
            SiteConfig(name="east", pops=("east",)),
            SiteConfig(name="west", pops=("west",)),
            SiteConfig(name="fra", origins=("fra1",)),
        ),
        links=(
            LinkConfig(name="sea", ends=("east", "fra"), mbps=link_mbps),
            LinkConfig(name="land", ends=("west", "fra"), mbps=1000.0),
        ),
    )
    async with trio.open_nursery() as nursery:
        network = Network(nursery, irs)
        network.add_origin("fra1")
        pop.join(network)
        watching.join(network)
        await until(lambda: bool(pop.ordered))
        answer = network.irs.reach.answer()
        assert (answer.replicas, answer.hold_mbps) == (held, 6.0 * held)
        assert answer.seen[0].holds["east/0"] == ["v1"]
        assert pop.ordered["x"].rungs == ("v1",)
        nursery.cancel_scope.cancel()
