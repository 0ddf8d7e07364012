"""What is recorded of a run."""

import pytest

from edged.media.stream import PriorityClass
from edged.tools.simulate import recorder as recording
from edged.tools.simulate.bound import Moment
from edged.tools.simulate.demand import Arrival
from edged.tools.simulate.geography import Geography
from edged.tools.simulate.recorder import SHED_S_MAX, Recorder
from edged.tools.simulate.streams import Site, Stage, Stream
from tests.tools.simulate.worlds import WORLD


def recorder() -> Recorder:
    made = Recorder(len(WORLD.pops), len(WORLD.origins))
    made.slots = 100
    return made


def came(
    to: Recorder, at: float = 1.0, pop: int = 0, priority: PriorityClass = PriorityClass.BASIC
) -> Stream:
    stream = Stream(Arrival(at, pop, priority, 6.0, 100.0), id(object()))
    to.came(stream)
    return stream


def live(
    to: Recorder, stream: Stream, origin: int, offers: int = 1, *, moved: bool = False
) -> None:
    stream.origin, stream.offers = origin, offers
    stream.stage = Stage.LIVE
    to.placed(stream, 2.0, moved=moved)


def test_streams_are_counted_by_what_came_of_them() -> None:
    made = recorder()
    live(made, came(made), 0)
    live(made, came(made), 0, offers=3)
    lost = came(made, priority=PriorityClass.AFFILIATE)
    lost.offers = 2
    made.gave_up(lost, was_live=False)
    made.gave_up(came(made), was_live=False)
    assert made.came_by_class == [0, 1, 3]
    assert made.rejected_by_class == [0, 1, 1]
    assert (made.decided, made.first_tries, made.offers) == (4, 1, 1 + 3 + 2 + 1)
    assert (made.live_total, made.wanted_total) == (2, 4)


def test_warming_up_is_not_counted_but_lives() -> None:
    made = recorder()
    live(made, came(made, at=-5.0), 0)
    made.gave_up(came(made, at=-1.0), was_live=False)
    made.gave_up(came(made, at=0.9), was_live=False)
    assert (sum(made.came_by_class), made.decided, sum(made.rejected_by_class)) == (0, 0, 0)
    assert made.live_total == 1


def test_calm_and_full_are_told_apart_when_a_stream_comes() -> None:
    made = recorder()
    for _ in range(101):
        stream = came(made)
        assert not stream.full or made.wanted_total > 100
        live(made, stream, 0)
    assert made.calm == 100, "99 of 100 slots in use are calm still"
    assert made.full == 1


def test_moves_are_timed_and_the_cut_off_counted() -> None:
    made = recorder()
    stream = came(made)
    live(made, stream, 0)
    made.left(stream)
    assert made.live_total == 0
    stream.since = 1.25
    live(made, stream, 1, offers=2, moved=True)
    assert (made.moved, made.moved_first_tries, made.delays_s) == (1, 0, [0.75])
    assert made.decided == 1, "it came once"
    made.left(stream)
    made.gave_up(stream, was_live=True)
    assert made.cut_by_class == [0, 0, 1]


def test_no_more_delays_are_kept_than_a_percentile_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "DELAYS_MAX", 2)
    made = recorder()
    for number in range(3):
        live(made, came(made), 0, moved=True)
        assert len(made.delays_s) == min(2, number + 1)
    assert made.moved == 3


def test_who_ends_before_an_answer_was_neither_taken_nor_rejected() -> None:
    made = recorder()
    made.ended(came(made))
    assert (sum(made.came_by_class), made.decided, made.wanted_total) == (0, 0, 0)


def test_a_sample_is_of_now_and_its_counts_since_the_last() -> None:
    made, geography = recorder(), Geography(WORLD)
    sites = [Site(index, origin.name, 10) for index, origin in enumerate(WORLD.origins)]
    one, other = came(made), came(made)
    sites[1].take(one)
    live(made, one, 1)
    live(made, other, 0)
    sites[0].take(other)
    made.sample(60.0, sites, geography)
    sample = made.samples[0]
    assert (sample.wanted, sample.live, sample.slots) == (2, 2, 30)
    assert sample.use == [0.1, 0.1, 0.0]
    assert (sample.came, sample.first_try, sample.rejected) == (2, 2, 0)
    assert sample.rtt_ms == pytest.approx((geography.rtt_ms[0][0] + geography.rtt_ms[0][1]) / 2)
    assert sample.link_load == pytest.approx(6.0 / 1000), "one of 6 Mbps over 1 Gbps"
    made.gave_up(came(made), was_live=False)
    made.sample(120.0, sites, geography)
    assert (made.samples[1].came, made.samples[1].rejected) == (1, 1)
    assert sum(made.rtt_histogram.values()) == 4


def test_links_are_looked_up_anew_when_routes_change() -> None:
    made, geography = recorder(), Geography(WORLD)
    live(made, came(made), 1)
    assert made.arc_loads(geography)[0, True] == pytest.approx(6.0)
    geography.set_link("nyc-lhr", up=False)
    made.rerouted()
    loads = made.arc_loads(geography)
    assert (0, True) not in loads
    assert loads[1, True] == loads[2, False] == pytest.approx(6.0)


def test_after_a_cut_the_last_moment_of_a_full_link_counts() -> None:
    made, geography = recorder(), Geography(WORLD)
    assert made.clear_s is None
    made.watch(0.5, geography)
    assert made.clear_s == 0.0, "it never was full"
    many = [came(made) for _ in range(151)]
    for each in many:
        live(made, each, 1)  # Of 6 Mbps, over 1 Gbps: 90.6 %.
    made.watch(1.0, geography)
    made.left(many[0])
    made.left(many[1])
    made.watch(1.5, geography)
    assert made.clear_s == 1.0


def test_what_is_shed_is_counted_for_the_last_cut_while_that_is_new() -> None:
    made, nothing = recorder(), Moment(demand=[], mbps=[], slots=[], rtt_ms=[], routes=[], gbps=[])
    one = came(made)
    made.shed(one, 5.0)
    assert (made.shed_total, made.link_cuts) == (1, [])
    for at in (60.0, 60.0, 90.0):
        made.cut_link(at, nothing)
        made.shed(one, at + SHED_S_MAX)
    made.shed(one, 90.1 + SHED_S_MAX)
    key = (one.pop, one.priority)
    assert [(cut.at, cut.shed) for cut in made.link_cuts] == [(60.0, {key: 1}), (90.0, {key: 1})]
    assert made.shed_total == 5
