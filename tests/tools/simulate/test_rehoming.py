"""Live streams moved by production's program: nearer, off full links, make before break."""

import msgspec
import pytest

from edged.media.stream import PriorityClass
from edged.policy.shed_patience import RESTS_S, SHED_AFTER_S
from edged.tools.simulate.recorder import CLEAR_S_MAX
from edged.tools.simulate.rehoming import Rehoming
from edged.tools.simulate.scenario import (
    IrsConfig,
    LinkCut,
    Loaded,
    OriginDead,
    PolicyName,
    Upgrade,
)
from edged.tools.simulate.streams import Stage, Stream
from tests.tools.simulate.test_baselines import Bench, stream
from tests.tools.simulate.test_engine import Checked, CheckedRecorder
from tests.tools.simulate.worlds import brief


def narrow(loaded: Loaded, gbps: float) -> Loaded:
    """The same with a thin link between New York and London."""
    first, *others = loaded.world.links
    links = (msgspec.structs.replace(first, gbps=gbps), *others)
    return Loaded(loaded.scenario, msgspec.structs.replace(loaded.world, links=links))


def played(loaded: Loaded, policy: PolicyName) -> Checked:
    network = Checked(loaded, policy)
    network.run()
    return network


def test_streams_come_back_to_an_origin_that_is_back() -> None:
    """Those that lost it stay where they went to, unless they are moved."""
    events = (OriginDead(at_h=0.005, for_h=0.005, origin="lhr1"),)
    loaded = brief(*events, load=0.4, hours=0.06, duration_s=4000.0)
    stay, moved = played(loaded, "leases"), played(loaded, "rehoming")
    assert stay.recorder.rehomed_total == 0
    assert moved.recorder.rehomed_total > 10
    assert moved.recorder.live[2][1] > stay.recorder.live[2][1] + 10
    assert moved.recorder.samples[-1].rtt_ms < 0.7 * stay.recorder.samples[-1].rtt_ms
    assert sum(moved.recorder.cut_by_class) == 0


def test_a_full_link_is_relieved() -> None:
    """London has more streams than slots; the rest may cross at most 90 % of the thin link."""
    loaded = narrow(brief(load=0.85, hours=0.06, duration_s=4000.0), 0.1)
    network = played(loaded, "rehoming")
    seen = network.links()
    assert seen["lhr>nyc"].load <= 0.95
    assert network.recorder.live_total == pytest.approx(170, abs=30)


def test_what_no_move_can_save_is_shed_and_links_are_clear_within_seconds() -> None:
    """London's 10 slots are full, and both ways out are too thin for the others, mostly basic.

    Without a reserve: of one the program believes that partners there fill it, and that one more
    may come, whom the origin would not take.
    """
    cut = LinkCut(at_h=0.02, link="lhr-nrt")
    irs = IrsConfig(reserve_fraction=0.0)
    loaded = narrow(brief(cut, load=0.8, hours=0.05, duration_s=4000.0, irs=irs), 0.05)
    (site,) = [each for each in loaded.world.origins if each.name == "lhr1"]
    origins = [msgspec.structs.replace(each, share=0.2) if each is site else each
               for each in loaded.world.origins]  # fmt: skip
    world = msgspec.structs.replace(loaded.world, origins=tuple(origins))
    network = played(Loaded(loaded.scenario, world), "rehoming")
    recorder = network.recorder
    assert isinstance(recorder, CheckedRecorder)
    assert recorder.shed_total > 10
    (made,) = recorder.link_cuts
    assert min(recorder.shed_at) >= made.at + SHED_AFTER_S, "with production's patience"
    policy = network.policy
    assert isinstance(policy, Rehoming)
    full = [policy.views[2].full.why(name, PriorityClass.BASIC, network.now)
            for name in policy.origins]  # fmt: skip
    assert [why.startswith("link lhr>") for why in full].count(True) >= 1, "nobody comes back by it"
    assert {pop for pop, _ in made.shed} == {2}, "London's own"
    assert made.shed.get((2, PriorityClass.PARTNER), 0) == 0
    assert recorder.clear_s is not None
    # Some of those that stay take the slots of those that went, which are believed in 10 s.
    assert recorder.clear_s < SHED_AFTER_S + RESTS_S + 2.0
    left = played(Loaded(loaded.scenario, world), "leases").recorder
    assert (left.shed_total, left.clear_s) == (0, CLEAR_S_MAX)


def test_who_is_moved_is_counted_at_both_until_it_is_decided() -> None:
    bench = Bench()
    policy = Rehoming(bench.around)
    policy.begin(0.5)
    one = stream(0)
    one.origin, one.stage = 1, Stage.LIVE
    policy.offered(one)
    view = policy.views[0]
    policy.move_begun(one, 0)
    assert (view.by_name["lhr1"].used, view.by_name["nyc1"].used) == (1, 1)
    policy.move_ended(one, 0, 1.0, taken=True)
    one.origin = 0
    assert (view.by_name["lhr1"].used, view.by_name["nyc1"].used) == (0, 1)
    policy.move_begun(one, 2)
    policy.move_ended(one, 2, 1.0, taken=False)
    assert (view.by_name["nyc1"].used, view.by_name["nrt1"].used) == (1, 0)
    assert view.by_name["nrt1"].held[PriorityClass.BASIC] > 1.0, "it refused"
    assert policy.moves_refused == 1


def test_who_has_ended_meanwhile_was_not_refused() -> None:
    policy = Rehoming(Bench().around)
    policy.begin(0.5)
    one = stream(0)
    one.origin = 1
    policy.move_begun(one, 0)
    one.stage = Stage.OVER
    policy.move_ended(one, 0, 1.0, taken=False)
    assert policy.views[0].by_name["nyc1"].used == 0
    assert policy.moves_refused == 0


def test_streams_at_an_origin_that_drains_are_not_the_planners_to_move() -> None:
    """As in production: the origin lets go of them, and PoPs take them elsewhere."""
    asked: list[bool] = []

    class Watched(Checked):
        def move(self, stream: Stream, to: int) -> None:
            asked.append(self.sites[stream.origin].drains)
            super().move(stream, to)

    drained = Upgrade(at_h=0.02, origins=("lhr1",), drain_s=60.0)
    network = Watched(brief(drained, load=0.4, hours=0.08, duration_s=4000.0), "rehoming")
    network.run()
    assert network.recorder.moved > 10, "let go of"
    assert asked, "they come back when it does"
    assert not any(asked)
