"""What failure sources say is planned with, and said."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.irs import sources as sources_module
from edged.irs.collectors import Collectors
from edged.irs.links import BackboneLinks
from edged.irs.service import IrsConfig
from edged.irs.sources import FailureSources, Restriction, maintenance
from edged.media.routing import OriginState
from edged.policy.maintenance import MaintenanceConfig, MaintenanceWindow
from edged.runtime.supervision import Supervisor
from tests.irs.network import Network, until
from tests.irs.test_links import MAP, path
from tests.irs.test_service import quota_in_table, state_in_table


class Says:
    """A source that says what a test wants it to."""

    def __init__(self, *said: Restriction) -> None:
        self.said: Sequence[Restriction] = said
        self.running = 0

    def restrictions(self, now_unix: float) -> Sequence[Restriction]:
        return self.said

    async def run(self) -> None:
        self.running += 1
        try:
            await trio.sleep_forever()
        finally:
            self.running -= 1


def origin(name: str = "o1", usable: float = 0.0, until: float = 100.0) -> Restriction:
    return Restriction(kind="origin", name=name, reason="because", usable=usable, until=until)


def make() -> tuple[FailureSources, BackboneLinks, list[str]]:
    world, changed = Collectors(), list[str]()
    links = BackboneLinks(world, MAP)
    links.on_changed = lambda: changed.append("changed")
    return FailureSources(Supervisor("irs"), lambda: 0.0, links.restrict), links, changed


def test_what_holds_is_told_once_and_so_is_its_end() -> None:
    sources, links, changed = make()
    says = Says(origin(), Restriction(kind="link", name="lhr-fra", reason="dug up"))
    sources.use({"region": says})
    with capture_logs() as logs:
        for now in (0.0, 1.0, 2.0):
            sources.update(now)
        assert changed == ["changed"]
        assert links._collectors.restricted == {"o1": says.said[0]}
        assert [link.state for link in links.status()] == ["unknown", "closed"]
        sources.update(100.0)  # It is over, though the source goes on saying so.
    assert changed == ["changed"] * 2
    assert links._collectors.restricted == {}
    lines = [(line["event"], line["source"], line["name"]) for line in logs]
    assert lines == [
        ("restriction begins", "region", "o1"),
        ("restriction begins", "region", "lhr-fra"),
        ("restriction is over", "region", "o1"),
    ]
    assert [sample.value for sample in sources.read_metrics()] == [1]


def test_an_end_that_moves_is_nothing_new() -> None:
    """A control plane that says each time anew "for ten minutes from now": neither log nor plan."""
    sources, links, changed = make()
    says = Says()
    sources.use({"region": says})
    with capture_logs() as logs:
        for now in range(20):
            says.said = [msgspec.structs.replace(origin(until=600.0 + now), since=float(now))]
            sources.update(float(now))
        assert changed == ["changed"]
        assert [line["event"] for line in logs] == ["restriction begins"]
        assert sources.held == [("region", says.said[0])], "as it was said last"
        says.said = [origin(until=700.0, usable=0.5)]
        sources.update(20.0)
        assert links._collectors.restricted["o1"].usable == 0.5
    assert changed == ["changed"] * 2
    events = [line["event"] for line in logs]
    assert events == ["restriction begins"] * 2 + ["restriction is over"]


def test_a_source_that_fails_restricts_nothing_and_the_others_go_on() -> None:
    sources, links, _ = make()

    class Broken(Says):
        def restrictions(self, now_unix: float) -> Sequence[Restriction]:
            if now_unix < 10:
                raise ZeroDivisionError
            return [origin("o2")]

    sources.use({"broken": Broken(), "region": Says(origin())})
    with capture_logs() as logs:
        for now in (0.0, 1.0):
            sources.update(now)
        assert [line["event"] for line in logs].count("failure source failed") == 1
        assert set(links._collectors.restricted) == {"o1"}
        sources.update(10.0)
    assert set(links._collectors.restricted) == {"o1", "o2"}


def test_a_source_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit all it says holds; of more it is said once what is left out."""
    monkeypatch.setattr(sources_module, "RESTRICTIONS_MAX", 2)
    sources, links, _ = make()
    says = Says(*(origin(f"o{n}") for n in range(2)))
    sources.use({"region": says})

    def left_out() -> list[int]:
        with capture_logs() as logs:
            sources.update(0.0)
        return [line["count"] for line in logs if line["event"] == "restrictions left out"]

    assert left_out() == []
    says.said = (*says.said, origin("o2"))
    assert [left_out() for _ in range(3)] == [[3], [], []]
    assert sorted(links._collectors.restricted) == ["o0", "o1"]
    says.said = says.said[:2]
    assert left_out() == []
    says.said = (*says.said, origin("o2"))
    assert left_out() == [3]


def test_as_many_as_a_source_may_say_are_compared_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources, _, _ = make()
    monkeypatch.setattr(sources, "_log", lambda *_: None)
    says = Says(*(origin(f"o{n}") for n in range(sources_module.RESTRICTIONS_MAX)))
    sources.use({"region": says})
    sources.update(0.0)
    says.said = (*says.said[1:], origin("another"))
    began = time.process_time()
    sources.update(0.0)
    assert time.process_time() - began < 1.0  # Each with each took 3 s.
    assert len(sources.held) == sources_module.RESTRICTIONS_MAX


def test_what_a_source_says_twice_holds_once() -> None:
    sources, _, _ = make()
    sources.use({"region": Says(origin(), origin())})
    sources.update(0.0)
    assert sources.held == [("region", origin())]


async def test_sources_run_as_long_as_they_are_in_use(autojump_clock: MockClock) -> None:
    sources, _, _ = make()
    first, second = Says(), Says()
    sources.use({"first": first})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sources.run)
        await until(lambda: first.running == 1)
        sources.use({"second": second})
        await until(lambda: (first.running, second.running) == (0, 1))
        nursery.cancel_scope.cancel()
    assert second.running == 0


async def test_sources_may_change_while_nobody_runs_them(autojump_clock: MockClock) -> None:
    """As when what runs them has failed, and is just being begun anew."""
    sources, _, _ = make()
    says = Says()
    with trio.move_on_after(1.0):
        await sources.run()
    sources.use({"region": says})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sources.run)
        await until(lambda: says.running == 1)
        nursery.cancel_scope.cancel()


async def test_maintenance_keeps_new_streams_away_and_ends(autojump_clock: MockClock) -> None:
    """By the calendar: first the origin has a half of its slots left, then none, then all."""
    began, now = datetime(2027, 1, 15, 2, tzinfo=UTC), trio.current_time()
    unix = began.timestamp() - 10 - now

    def window(begin_s: float, end_s: float, usable: float) -> MaintenanceWindow:
        base = began.timestamp()
        return MaintenanceWindow(
            origin="o1",
            from_=datetime.fromtimestamp(base + begin_s, UTC),
            until=datetime.fromtimestamp(base + end_s, UTC),
            usable=usable,
            reason="new disks",
        )

    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(reserve_fraction=0.0, warmup_s=0.0))
        irs = network.irs
        irs.sources._now_unix = lambda: unix + trio.current_time()
        config = MaintenanceConfig(windows=(window(0, 20, 0.5), window(10, 20, 0.0)))
        irs.sources.use({"maintenance": maintenance.make(config)})
        network.add_origin("o1")
        lhr, _ = network.add_pop("lhr")
        lhr.view.observe_path("o1", path())
        await trio.sleep(2.0)
        await until(lambda: quota_in_table(lhr, "o1") == 100, within_s=5.0)
        await until(lambda: quota_in_table(lhr, "o1") == 50, within_s=12.0)
        assert state_in_table(lhr, "o1") is OriginState.UP
        await until(lambda: state_in_table(lhr, "o1") is OriginState.DRAIN, within_s=12.0)
        assert quota_in_table(lhr, "o1") == 0
        await until(lambda: quota_in_table(lhr, "o1") == 100, within_s=12.0)
        assert state_in_table(lhr, "o1") is OriginState.UP
        nursery.cancel_scope.cancel()
