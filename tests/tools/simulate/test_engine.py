"""Runs: what must hold at every moment, whatever the policy and whatever happens."""

from collections import Counter

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.departures import LOST_S_MAX
from edged.tools.simulate.engine import Network
from edged.tools.simulate.incidents import schedule
from edged.tools.simulate.production import Price
from edged.tools.simulate.recorder import Recorder
from edged.tools.simulate.runner import MAKERS
from edged.tools.simulate.scenario import (
    POLICIES,
    Event,
    FlashCrowd,
    IrsDead,
    LinkCut,
    Loaded,
    OriginDead,
    OriginFrozen,
    PolicyName,
    StaleTelemetry,
    Upgrade,
)
from edged.tools.simulate.streams import Stage, Stream
from tests.tools.simulate.worlds import WORLD, brief, without_links


class Checked(Network):
    """A network that looks at itself each second."""

    def __init__(self, loaded: Loaded, policy: PolicyName, seed: int = 1) -> None:
        super().__init__(loaded, MAKERS[policy], seed=seed)
        self.recorder = CheckedRecorder(self)
        self.checks = 0
        schedule(self)

    def _beat(self) -> None:
        super()._beat()
        if self._tick % 10 == 0:
            self.checks += 1
            self.check()

    def check(self) -> None:
        recorder = self.recorder
        assert isinstance(recorder, CheckedRecorder)
        for site in self.sites:
            assert site.slots.used == len(site.streams) <= site.slots.total, "over its capacity"
            assert site.works or not site.streams, "who is dead has nothing"
            live = sum(row[site.index] for row in recorder.live)
            assert live == len(site.streams)
            assert sum(row[site.index] for row in recorder.kbps) == sum(
                stream.kbps for stream in site.streams
            )
        stages = Counter(stream.stage for stream in recorder.streams)
        assert stages[Stage.LIVE] == recorder.live_total
        assert len(recorder.streams) == recorder.wanted_total, "wanted are all that came"
        assert min(recorder.wanted, default=0) >= 0
        assert recorder.accepted == (
            recorder.over_after_live + stages[Stage.LIVE] + stages[Stage.MOVING]
        ), "placed are the ended, the cut off and the live"
        if isinstance(self.policy, Price):
            for index, view in enumerate(self.policy.views):
                for place, site in enumerate(self.sites):
                    counted = sum(view._units.get(site.name, ()))
                    assert counted >= recorder.live[index][place], "a PoP knows its own"


class CheckedRecorder(Recorder):
    """Counts everything, warm-up included."""

    def __init__(self, network: Network) -> None:
        super().__init__(len(WORLD.pops), len(WORLD.origins))
        self.network = network
        self.streams: dict[Stream, None] = {}  # Those whose publishers are there.
        self.ever_live: set[Stream] = set()
        self.accepted = self.over_after_live = 0
        self.shed_at: list[float] = []

    def came(self, stream: Stream) -> None:
        super().came(stream)
        self.streams[stream] = None

    def placed(self, stream: Stream, at: float, *, moved: bool) -> None:
        super().placed(stream, at, moved=moved)
        assert self.network.sites[stream.origin].works, "accepted by a dead origin"
        assert moved is (stream in self.ever_live)
        self.accepted += not moved
        self.ever_live.add(stream)

    def gave_up(self, stream: Stream, *, was_live: bool) -> None:
        super().gave_up(stream, was_live=was_live)
        assert was_live is (stream in self.ever_live)
        self.over_after_live += was_live

    def shed(self, stream: Stream, now: float) -> None:
        super().shed(stream, now)
        assert stream in self.ever_live
        self.shed_at.append(now)
        self.over_after_live += 1

    def ended(self, stream: Stream) -> None:
        super().ended(stream)
        del self.streams[stream]
        if stream.stage is not Stage.OVER:
            self.over_after_live += stream in self.ever_live


EVENTS = st.lists(
    st.one_of(
        st.builds(
            OriginDead,
            at_h=st.floats(0, 0.02),
            for_h=st.sampled_from([0.0, 0.002, 0.01]),
            origin=st.just("nyc1"),
        ),
        st.builds(
            OriginFrozen,
            at_h=st.floats(0, 0.02),
            for_h=st.sampled_from([0.0, 0.0001, 0.002, 0.01]),
            origin=st.just("lhr1"),
        ),
        st.builds(
            LinkCut,
            at_h=st.floats(0, 0.02),
            for_h=st.sampled_from([0.0, 0.005]),
            link=st.sampled_from(["nyc-lhr", "nyc-nrt"]),
        ),
        st.builds(IrsDead, at_h=st.floats(0, 0.02), for_h=st.sampled_from([0.0, 0.005])),
        st.builds(FlashCrowd, at_h=st.floats(0, 0.02), for_h=st.just(0.005), times=st.just(5.0)),
        st.builds(StaleTelemetry, at_h=st.floats(0, 0.02), for_h=st.just(0.01), age_s=st.just(9.0)),
    ),
    max_size=4,
    unique_by=type,
)


@hypothesis.given(
    st.sampled_from(POLICIES), EVENTS, st.sampled_from([0.5, 0.95, 1.3]), st.integers(1, 1000)
)
@hypothesis.settings(max_examples=15, deadline=None)
def test_nothing_is_lost_twice_there_or_beyond_its_limit(
    policy: PolicyName, events: list[Event], load: float, seed: int
) -> None:
    network = Checked(brief(*events, load=load, hours=0.03), policy, seed)
    network.run()
    assert network.checks > 100


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_goes_through_an_upgrade_of_everything(policy: PolicyName) -> None:
    events = (Upgrade(at_h=0.0, drain_s=20.0, restart_s=5.0, pause_s=15.0),)
    network = Checked(brief(*events, load=0.4), policy)
    recorder = network.run()
    assert all(site.incarnation == 2 and site.works for site in network.sites)
    if network.policy.retries:
        assert recorder.moved + recorder.rehomed_total > 50
        assert sum(recorder.cut_by_class) == 0


def test_a_killed_origins_streams_go_elsewhere_within_some_round_trips() -> None:
    events = (OriginDead(at_h=0.02, origin="nyc1"),)
    recorder = Checked(brief(*events, load=0.45), "price").run()
    assert recorder.moved > 20
    assert sum(recorder.cut_by_class) == 0
    assert max(recorder.delays_s) < 2.0


def test_a_frozen_origins_streams_are_moved_when_it_is_convicted() -> None:
    events = (OriginFrozen(at_h=0.02, origin="nyc1"),)
    recorder = Checked(brief(*events, load=0.45), "leases").run()
    assert recorder.moved > 20
    assert sum(recorder.cut_by_class) == 0
    assert min(recorder.delays_s) >= 0.7
    assert sorted(recorder.delays_s)[len(recorder.delays_s) // 2] < 1.2


def test_haproxy_never_notices_a_freeze() -> None:
    events = (OriginFrozen(at_h=0.02, origin="nyc1"),)
    recorder = Checked(brief(*events, load=0.45), "static").run()
    assert recorder.moved == 0
    assert sum(recorder.cut_by_class) > 20
    assert sum(recorder.rejected_by_class) > 20, "and the kernel still accepts"


def test_who_finds_no_place_waits_as_long_as_production_does() -> None:
    """All origins but a full one die: what has no place is cut off after LOST_S_MAX."""
    events = tuple(OriginDead(at_h=0.02, origin=name) for name in ("nyc1", "nrt1"))
    network = Checked(brief(*events, load=0.95, duration_s=2000.0), "price")
    recorder = network.run()
    assert sum(recorder.cut_by_class) > 50
    assert max(recorder.delays_s) < LOST_S_MAX + 1.5


def test_a_shorter_way_is_found_by_probes() -> None:
    events = (LinkCut(at_h=0.01, for_h=0.02, link="nyc-lhr"),)
    network = Checked(brief(*events, load=0.5), "price")
    before = network.geography.rtt_ms[0][1]
    network.run()
    assert isinstance(network.policy, Price)
    known = network.policy.views[0].by_name["lhr1"]
    assert known.rtt_ms == pytest.approx(before, rel=0.02)


def test_links_are_seen_as_they_are_used() -> None:
    network = Checked(brief(load=0.9), "static")
    network.run()
    seen = network.links()
    assert set(seen) >= {"nyc>lhr", "lhr>nyc"}
    crossing = seen["nyc>lhr"].pairs
    assert ("nyc", "lhr1") in crossing
    assert ("bos", "lhr1") in crossing
    assert ("lhr", "nyc1") not in crossing
    assert seen["nyc>lhr"].mbps == 1000
    assert seen["nyc>lhr"].mbps_per_unit == pytest.approx(6.0, rel=0.2)


def test_without_links_there_are_none_to_be_full() -> None:
    recorder = Network(without_links(brief()), MAKERS["price"], seed=1).run()
    assert {sample.link_load for sample in recorder.samples} == {0.0}
