"""The Well in IRS: fed by telemetry, read by the planner, by people and by metrics."""

import sys

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.irs.collectors import Collectors
from edged.irs.links import LATE_S_MAX, METRICS, UPDATE_INTERVAL_S, BackboneConfig, BackboneLinks
from edged.irs.service import IrsConfig
from edged.media.routing import OriginReport, PathProbe, PopTelemetry, ReportedState
from edged.policy.link_map import LinkConfig, SiteConfig
from tests.irs.network import Network, until
from tests.irs.test_service import quota_in_table

SITES = (
    SiteConfig(name="lhr", pops=("lhr",)),
    SiteConfig(name="ams", pops=("ams",)),
    SiteConfig(name="fra", origins=("o1",)),
)
LINKS = (
    LinkConfig(name="lhr-fra", ends=("lhr", "fra"), mbps=100.0),
    LinkConfig(name="ams-fra", ends=("ams", "fra"), mbps=100_000.0),
)

MAP = BackboneConfig(sites=SITES, links=LINKS)


def path(rtt_ms: float = 10.0, silent_s: float = 0.0) -> PathProbe:
    return PathProbe(rtt_ms, silent_s=silent_s, probed=True)


def make() -> tuple[Collectors, BackboneLinks, list[str]]:
    world, changed = Collectors(), list[str]()
    links = BackboneLinks(world, MAP)
    links.on_changed = lambda: changed.append("changed")
    for key in ("lhr/0", "ams/0"):
        world.pop_joined(key)
    world.heartbeat(OriginReport("o1", 1, ReportedState.UP, 100, (90, 90, 90)), 0.0)
    return world, links, changed


def tell(world: Collectors, now: float, mbps: float = 0.0, silent_s: float = 0.0) -> None:
    """Of both PoPs; lhr carries so much, and its path may be silent."""
    lhr = PopTelemetry(
        {"o1": (0, 0, 10)}, probes={"o1": path(8.0, silent_s)}, mbps={"o1": (mbps, 0.0)}
    )
    world.telemetry("lhr/0", lhr, now)
    world.telemetry("ams/0", PopTelemetry({}, probes={"o1": path(6.0)}), now)


def distance_ms(world: Collectors, key: str) -> float:
    return next(each.rtt_ms["o1"] for each in world.demands(0.0, 10.0) if each.pop == key)


def test_without_a_map_it_does_nothing() -> None:
    world = Collectors()
    links = BackboneLinks(world, BackboneConfig())
    links.update(0.0)
    assert links.limits() == ()
    assert links.status() == []
    samples = list(links.read_metrics())
    assert {sample.name for sample in samples} == {"edged_irs_links"}
    assert {sample.value for sample in samples} == {0}


def test_what_pops_tell_becomes_limits_prices_and_metrics() -> None:
    world, links, changed = make()
    tell(world, 0.0, mbps=60.0)
    links.update(0.0)
    assert [limit.name for limit in links.limits()] == ["lhr-fra to fra"]  # The other is wide.
    assert links.limits()[0].units == pytest.approx(88 / 6)
    assert world.tolls_ms == {}
    with capture_logs() as logs:
        for now in (1.0, 2.0):
            tell(world, now, mbps=96.0)
            links.update(now)
    assert [(line["event"], line["link"]) for line in logs] == [("link is filling", "lhr-fra")]
    assert distance_ms(world, "lhr/0") == pytest.approx(8.0 + links.well.toll_ms("lhr", "o1"))
    assert distance_ms(world, "lhr/0") > 20.0
    assert distance_ms(world, "ams/0") == 6.0
    found = {
        (sample.name, *sample.labels.values()): sample.value for sample in links.read_metrics()
    }
    assert {name for name, *_ in found} == {spec.name for spec in METRICS}
    assert found["edged_irs_links", "up"] == 2
    assert found["edged_irs_link_utilisation", "lhr-fra", "fra"] == pytest.approx(0.96)
    assert found["edged_irs_link_utilisation", "lhr-fra", "lhr"] == 0
    assert found["edged_irs_link_rtt_seconds", "lhr-fra"] == pytest.approx(0.008)
    with capture_logs() as logs:
        tell(world, 3.0, mbps=50.0)
        links.update(3.0)
    assert [line["event"] for line in logs] == ["link is not filling any more"]
    assert changed == []


def test_a_cut_is_planned_with_at_once_and_so_is_its_end() -> None:
    world, links, changed = make()
    tell(world, 0.0)
    links.update(0.0)
    with capture_logs() as logs:
        tell(world, 1.0, silent_s=2.0)
        links.update(1.0)
        assert changed == ["changed"]
        assert links.limits()[0].units == 0
        for now in range(2, 10):
            tell(world, float(now))
            links.update(float(now))
    assert [line["event"] for line in logs] == ["link is cut", "link is back"]
    assert logs[0]["reason"] == "no living path crosses it, and died: lhr to o1"
    assert changed == ["changed", "changed"]


def test_what_a_pop_told_before_it_left_or_fell_silent_counts_no_more() -> None:
    world, links, _ = make()
    tell(world, 0.0, mbps=60.0)
    links.update(0.0)
    for now in range(1, 5):  # The same object all the time.
        links.update(float(now))
    assert links.status()[1].ours_mbps == (60.0, 0.0)
    links.update(5.0)
    assert links.status()[1].ours_mbps == (0.0, 0.0)
    tell(world, 6.0, mbps=60.0)
    links.update(6.0)
    assert links.status()[1].ours_mbps == (60.0, 0.0)
    world.pop_left("lhr/0", 6.0)
    links.update(6.5)
    assert links.status()[1].ours_mbps == (0.0, 0.0)


def test_a_solver_that_fails_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world, links, _ = make()
    monkeypatch.setitem(sys.modules, "edged.policy.link_fit", None)
    with capture_logs() as logs:
        for now in range(4):
            tell(world, float(now))
            links.update(float(now))
    assert [line["event"] for line in logs] == ["round trips of links are not known"]
    assert links.status()[1].state == "up"


def test_an_origin_that_is_down_accuses_no_link() -> None:
    world, links, changed = make()
    tell(world, 0.0)
    links.update(0.0)
    world.capacitor.handle_timeout(5.0)
    silent = PopTelemetry({}, probes={"o1": path(8.0, 4.0)})
    for key in ("lhr/0", "ams/0"):
        world.telemetry(key, silent, 5.0)
    links.update(5.0)
    assert changed == []
    assert {link.state for link in links.status()} == {"up"}


def test_the_same_map_again_keeps_what_is_known_another_does_not() -> None:
    world, links, _ = make()
    tell(world, 0.0, mbps=96.0)
    links.update(0.0)
    links.configure(IrsConfig(sites=SITES, links=LINKS, warmup_s=1.0))
    assert links.status()[1].state == "up"
    assert world.tolls_ms
    links.configure(BackboneConfig(sites=SITES, links=LINKS[:1]))
    assert [link.state for link in links.status()] == ["unknown"]
    assert world.tolls_ms == {}


async def test_after_a_pause_of_ours_nothing_is_concluded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, links, _ = make()
    times: list[float] = []
    monkeypatch.setattr(links, "update", times.append)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(links.run)
        await trio.sleep(1.1)
        assert [now - began for now in times] == pytest.approx([0.5, 1.0])
        autojump_clock.jump(UPDATE_INTERVAL_S + LATE_S_MAX)
        await trio.sleep(0.1)
        assert len(times) == 2
        await trio.sleep(UPDATE_INTERVAL_S)
        assert len(times) == 3
        nursery.cancel_scope.cancel()


async def test_leases_are_no_more_than_a_link_carries_and_none_across_a_cut_one(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(sites=SITES, links=LINKS, reserve_fraction=0.0))
        network.add_origin("o1")
        lhr, _ = network.add_pop("lhr")
        ams, _ = network.add_pop("ams")
        lhr.view.observe_path("o1", path(8.0))
        ams.view.observe_path("o1", path(6.0))
        await trio.sleep(3)
        # 0.88 of 100 Mbps, 6 Mbps each.
        assert quota_in_table(lhr, "o1") == 14
        assert quota_in_table(ams, "o1") >= 50
        assert [link.state for link in network.irs.links.status()] == ["up", "up"]
        lhr.view.observe_path("o1", path(8.0, 1.5))
        await until(lambda: quota_in_table(lhr, "o1") == 0, within_s=2.0)
        assert network.irs.links.status()[1].state == "cut"
        assert quota_in_table(ams, "o1") >= 50
        lhr.view.observe_path("o1", path(8.0))
        await until(lambda: quota_in_table(lhr, "o1") == 14, within_s=8.0)
        network.irs.reconfigure(IrsConfig())
        await until(lambda: quota_in_table(lhr, "o1") > 14, within_s=2.0)
        assert network.irs.links.status() == []
        nursery.cancel_scope.cancel()
