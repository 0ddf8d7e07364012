import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import SolverError
from edged.media.routing import PathProbe, PopTelemetry
from edged.policy.flows import RTT_MS_MAX, LinkLimit
from edged.policy.link_map import LinkConfig, LinkMap
from edged.policy.restrictions import Restriction
from edged.policy.well import (
    CLEAR_AT,
    LOSS_MAX,
    MBPS_PER_UNIT,
    OUTSIDE_S,
    PRICE_FULL_MS,
    RAISE_AT,
    TOLD_S_MAX,
    USE_MAX,
    LinkStatus,
    LinkSupply,
    Well,
    is_alive,
    next_price,
)
from tests.policy.test_link_map import LINKS, SITES, link, site

HEARD = ("fra1", "iad1")
TRUE_MS = {
    ("lhr1", "fra1"): 10.0,
    ("lhr1", "iad1"): 70.0,
    ("cdg1", "fra1"): 9.0,
    ("cdg1", "iad1"): 89.0,
    ("fra9", "fra1"): 0.2,
    ("fra9", "iad1"): 80.0,
}


def probe(rtt_ms: float, loss: float = 0.0, silent_s: float = 0.0) -> PathProbe:
    return PathProbe(rtt_ms, loss, 0.0, 0.0, silent_s, False, True)


LIMITED = PathProbe(10.0, 0.0, 50.0, 0.0, 0.0, True, True)


def telemetry(
    probes: dict[str, PathProbe],
    mbps: dict[str, tuple[float, float]] | None = None,
    units: dict[str, int] | None = None,
) -> PopTelemetry:
    there = {origin: (0, 0, count) for origin, count in (units or {}).items()}
    return PopTelemetry(there, probes=probes, mbps=mbps or {})


def told(pop: str, **mbps: tuple[float, float]) -> PopTelemetry:
    """Both paths live; a stream is a unit of 6 Mbps."""
    probes = {origin: probe(TRUE_MS[pop, origin]) for origin in HEARD}
    units = {origin: round(each[0] / 6) for origin, each in mbps.items()}
    return telemetry(probes, mbps, units)


def make() -> Well:
    return Well(LinkMap(LINKS, SITES))


def all_told(well: Well, now: float = 0.0, **mbps: dict[str, tuple[float, float]]) -> None:
    for pop in ("lhr1", "cdg1", "fra9"):
        well.observe(f"{pop}/0", told(pop, **mbps.get(pop, {})), now)


def status(well: Well, name: str) -> LinkStatus:
    return next(each for each in well.links() if each.link == name)


def supply(well: Well, name: str, towards: str) -> LinkSupply:
    return next(each for each in well.supplies() if (each.link, each.towards) == (name, towards))


def test_nothing_is_known_before_anybody_told() -> None:
    well = make()
    assert well.update(0.0, heard=()) == []
    assert {each.state for each in well.links()} == {"unknown"}
    assert status(well, "lhr-fra").rtt_ms is None
    limit = supply(well, "lhr-fra", "fra").limit()
    assert limit == LinkLimit(
        name="lhr-fra to fra",
        mbps=pytest.approx(880.0),  # type: ignore[arg-type]
        mbps_per_unit=MBPS_PER_UNIT,
        pairs=(("lhr1", "fra1"),),
    )


def test_links_have_the_round_trip_and_loss_that_add_up_to_the_paths() -> None:
    well = make()
    all_told(well)
    lossy = telemetry({"fra1": probe(9.0, 0.1), "iad1": probe(89.0, 0.1)})
    well.observe("cdg1/0", lossy, 0.0)
    assert well.update(0.0, heard=HEARD) == []
    found = {each.link: each for each in well.links()}
    assert {name: each.rtt_ms for name, each in found.items()} == pytest.approx(
        {"lhr-fra": 10.0, "cdg-fra": 9.0, "lhr-iad": 70.0, "fra-iad": 80.0}
    )
    assert found["cdg-fra"].loss == pytest.approx(0.1)
    assert found["fra-iad"].loss == pytest.approx(0.0, abs=1e-9)
    assert {each.state for each in found.values()} == {"up"}
    assert {each.told_as for each in found.values()} == {(name,) for name in found}


@pytest.mark.parametrize("loss", [LOSS_MAX, 1.0])
def test_a_path_that_loses_all_has_links_that_lose_nearly_all(loss: float) -> None:
    well = make()
    all_told(well)
    well.observe("cdg1/0", telemetry({"fra1": probe(9.0, loss), "iad1": probe(89.0, loss)}), 0.0)
    well.update(0.0, heard=HEARD)
    (link,) = [each for each in well.links() if each.link == "cdg-fra"]
    assert link.loss == pytest.approx(LOSS_MAX, abs=1e-6)


def test_what_cannot_be_told_is_not() -> None:
    well = make()
    well.observe("cdg1/0", telemetry({"iad1": probe(89.0)}), 0.0)
    well.update(0.0, heard=HEARD)
    both = status(well, "cdg-fra")
    assert both.rtt_ms == pytest.approx(89.0)
    assert both.told_as == ("cdg-fra", "fra-iad")
    assert status(well, "lhr-fra").state == "unknown"


def test_each_direction_is_counted_for_itself() -> None:
    well = make()
    all_told(well, lhr1={"fra1": (100.0, 40.0)}, cdg1={"iad1": (60.0, 30.0)})
    well.update(0.0, heard=HEARD)
    assert status(well, "lhr-fra").ours_mbps == (100.0, 40.0)
    assert status(well, "cdg-fra").ours_mbps == (60.0, 30.0)
    assert status(well, "fra-iad").ours_mbps == (60.0, 30.0)
    assert status(well, "fra-iad").utilisation == pytest.approx((0.06, 0.03))
    assert status(well, "lhr-iad").ours_mbps == (0.0, 0.0)


def test_shards_of_a_pop_are_one_path() -> None:
    well = make()
    dead = telemetry({"fra1": probe(9.0, 1.0, 30.0)}, {"fra1": (10.0, 1.0)}, {"fra1": 2})
    well.observe("cdg1/0", dead, 0.0)
    well.observe("cdg1/1", told("cdg1", fra1=(50.0, 5.0)), 0.0)
    well.observe("cdg1/2", telemetry({}, {"fra1": (1.0, 0.0)}), 0.0)
    well.observe("elsewhere/0", told("cdg1"), 0.0)
    assert well.update(0.0, heard=HEARD) == []
    assert status(well, "cdg-fra").state == "up"
    assert status(well, "cdg-fra").ours_mbps == (61.0, 6.0)
    assert supply(well, "cdg-fra", "fra").mbps_per_unit == pytest.approx(61 / 10)
    well.forget("cdg1/1")
    assert [change.link for change in well.update(1.0, heard=HEARD)] == ["cdg-fra"]


def test_what_is_old_says_nothing() -> None:
    well = make()
    all_told(well, 0.0, lhr1={"fra1": (100.0, 0.0)})
    well.update(0.0, heard=HEARD)
    well.update(TOLD_S_MAX - 0.1, heard=HEARD)
    assert status(well, "lhr-fra").ours_mbps == (100.0, 0.0)
    well.update(TOLD_S_MAX, heard=HEARD)
    assert status(well, "lhr-fra").ours_mbps == (0.0, 0.0)
    assert status(well, "lhr-fra").rtt_ms == pytest.approx(10.0)  # As it was last.


def test_a_link_that_is_cut_carries_nothing_and_others_take_over() -> None:
    well = make()
    all_told(well)
    well.update(0.0, heard=HEARD)
    assert supply(well, "lhr-fra", "fra").pairs == (("lhr1", "fra1"),)
    well.observe("lhr1/0", telemetry({"fra1": probe(10.0), "iad1": probe(70.0, 0.5, 1.2)}), 1.0)
    (change,) = well.update(1.0, heard=HEARD)
    assert (change.link, change.cut) == ("lhr-iad", True)
    cut = status(well, "lhr-iad")
    assert (cut.state, cut.why, cut.price_ms) == ("cut", change.reason, RTT_MS_MAX)
    assert supply(well, "lhr-fra", "fra").pairs == (("lhr1", "fra1"), ("lhr1", "iad1"))
    assert ("lhr1", "iad1") in supply(well, "fra-iad", "iad").pairs
    assert not [each for each in well.supplies() if each.link == "lhr-iad"]
    assert well.toll_ms("lhr1", "iad1") == 0.0


def test_where_there_is_no_other_way_its_limit_is_nothing() -> None:
    well = Well(LinkMap([link("a", "b")], [site("a", "p"), site("b", "", "o")]))
    well.observe("p/0", telemetry({"o": probe(10.0, 1.0, 5.0)}, {"o": (60.0, 0.0)}), 0.0)
    (change,) = well.update(0.0, heard=["o"])
    assert change.link == "a-b"
    found = supply(well, "a-b", "b")
    assert (found.mbps, found.mbps_left, found.state) == (0.0, 0.0, "cut")
    assert well.toll_ms("p", "o") == RTT_MS_MAX
    well.observe("p/0", telemetry({"o": probe(10.0)}), 1.0)
    well.update(1.0, heard=["o"])
    well.observe("p/0", telemetry({"o": probe(10.0)}), 6.0)
    (change,) = well.update(6.0, heard=["o"])
    assert not change.cut
    assert supply(well, "a-b", "b").mbps == pytest.approx(880.0)
    assert well.toll_ms("p", "o") == 0.0


def test_what_comes_back_takes_its_part_of_the_other_direction() -> None:
    sites = [site("a", "p", "o"), site("b", "q", "r")]
    well = Well(LinkMap([link("a", "b")], sites))
    probes = {"r": probe(10.0), "o": probe(1.0)}
    well.observe("p/0", telemetry(probes, {"r": (300.0, 600.0)}, {"r": 50}), 0.0)
    well.observe("q/0", telemetry(probes, {"o": (120.0, 60.0)}, {"o": 20}), 0.0)
    well.update(0.0, heard=["o", "r"])
    assert status(well, "a-b").ours_mbps == (360.0, 720.0)
    there, back = supply(well, "a-b", "b"), supply(well, "a-b", "a")
    # Of 880 Mbps to a 120 are the others' streams; each of ours has 12 Mbps coming back.
    assert there.pairs == (("p", "r"),)
    assert there.limit().units == pytest.approx(760 / 12)
    assert there.mbps_left == pytest.approx(760 / 2 - 300)
    # 600 Mbps to a come back for the others.
    assert back.limit().units == pytest.approx(280 / 6)


@pytest.mark.parametrize(("use", "raised"), [(0.849, False), (0.85, True), (0.9, True)])
def test_a_price_rises_at_its_threshold(use: float, raised: bool) -> None:
    well = make()
    all_told(well, lhr1={"fra1": (1000 * use, 0.0)})
    well.update(0.0, heard=HEARD)
    assert (status(well, "lhr-fra").price_ms > 0) is raised
    assert (well.toll_ms("lhr1", "fra1") > 0) is raised
    assert (supply(well, "lhr-fra", "fra").price_ms > 0) is raised


def test_a_price_clears_at_its_threshold_and_grows_with_the_use() -> None:
    raised = next_price(0.0, 0.86)
    assert 0 < raised < next_price(raised, 0.96) < PRICE_FULL_MS * 2
    assert next_price(0.0, 1.0) == PRICE_FULL_MS
    assert next_price(PRICE_FULL_MS, 1.2) > PRICE_FULL_MS
    assert next_price(0.0, 1e9) == next_price(0.0, 2.0)
    assert next_price(PRICE_FULL_MS, 0.751) == next_price(0.0, RAISE_AT)
    assert next_price(PRICE_FULL_MS, 0.749) == 0.0
    assert next_price(RTT_MS_MAX, 0.8) == 0.0  # It was cut, and is back.


@hypothesis.given(
    st.sampled_from([0.0, 0.85, 0.93, 1.4]),
    st.lists(st.floats(CLEAR_AT, RAISE_AT, exclude_max=True), min_size=1),
)
def test_a_price_never_flaps_between_its_thresholds(first: float, uses: list[float]) -> None:
    price = next_price(0.0, first)
    was_raised = price > 0
    seen = [price]
    for use in uses:
        price = next_price(price, use)
        seen.append(price)
        assert (price > 0) is was_raised
    assert seen == sorted(seen, reverse=True), "it sinks at most, for good"


@hypothesis.given(st.floats(0, 1.9), st.lists(st.floats(-0.024, 0.024), min_size=2))
def test_a_use_that_wavers_by_less_than_a_step_moves_the_price_one_way_only(
    middle: float, off: list[float]
) -> None:
    prices = [next_price(0.0, middle)]
    for each in off:
        prices.append(next_price(prices[-1], max(0.0, middle + each)))
    assert prices == sorted(prices), "what it rose to is kept"


def test_load_that_is_not_ours_shows_where_tcp_waits() -> None:
    well = make()
    all_told(well, fra9={"iad1": (100.0, 0.0)})
    limited = telemetry({"fra1": probe(9.0), "iad1": LIMITED}, {"iad1": (50.0, 0.0)})
    well.observe("cdg1/0", limited, 0.0)
    well.update(0.0, heard=HEARD)
    # On fra-iad another path is not held up, so it is cdg-fra that others fill.
    assert status(well, "cdg-fra").outside_mbps == (950.0, 0.0)
    assert status(well, "cdg-fra").utilisation == (1.0, 0.0)
    assert status(well, "fra-iad").outside_mbps == (0.0, 0.0)
    assert supply(well, "cdg-fra", "fra").mbps == 0.0
    assert well.toll_ms("cdg1", "fra1") == PRICE_FULL_MS
    for now in (OUTSIDE_S - 0.1, OUTSIDE_S):
        all_told(well, now)
        well.update(now, heard=HEARD)
        assert (status(well, "cdg-fra").outside_mbps[0] > 0) is (now < OUTSIDE_S)


def test_what_may_be_either_links_fault_or_is_ours_accuses_nobody() -> None:
    well = make()
    all_told(well)
    limited = telemetry({"fra1": probe(9.0), "iad1": LIMITED}, {"iad1": (50.0, 0.0)})
    well.observe("cdg1/0", limited, 0.0)
    well.update(0.0, heard=HEARD)
    assert {each.outside_mbps for each in well.links()} == {(0.0, 0.0)}
    all_told(well, fra9={"iad1": (900.0, 0.0)})
    well.observe("cdg1/0", limited, 0.0)
    well.update(0.0, heard=HEARD)
    assert {each.outside_mbps for each in well.links()} == {(0.0, 0.0)}


def test_only_what_a_plan_may_come_near_limits_it() -> None:
    wide = [LinkConfig(name="l", ends=("a", "b"), mbps=40_000.0)]
    well = Well(LinkMap(wide, [site("a", "p"), site("b", "", "o")]))
    seen = []
    for use in (0.0, 0.43, 0.45, 0.42, 0.39, 0.43):  # Of 0.88; a unit is 6 Mbps.
        mbps = 40_000 * use
        carried = {"o": (mbps, 0.0)}
        well.observe("p/0", telemetry({"o": probe(9.0)}, carried, {"o": round(mbps / 6)}), 0.0)
        well.update(0.0, heard=["o"])
        seen.append(len(well.limits()))
    assert seen == [0, 0, 1, 1, 0, 0]
    narrow = make()
    assert [limit.name for limit in narrow.limits()] == [
        each.limit().name for each in narrow.supplies()
    ]  # Of 1 Gbps each: one plan could fill them.


def test_a_solver_that_fails_leaves_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    well = make()
    all_told(well)
    well.update(0.0, heard=HEARD)

    def fail(*_: object) -> object:
        raise SolverError("planted")

    monkeypatch.setattr("edged.policy.link_fit.LinkFitter.fit", fail)
    assert well.update(2.0, heard=HEARD) == []
    assert well.failure == "planted"
    assert status(well, "lhr-fra").rtt_ms == pytest.approx(10.0)
    monkeypatch.undo()
    well.update(4.0, heard=HEARD)
    assert well.failure == ""


def test_without_the_library_links_are_counted_and_cut_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "edged.policy.link_fit", None)
    well = make()
    all_told(well, lhr1={"fra1": (900.0, 0.0)})
    well.update(0.0, heard=HEARD)
    assert well.failure.startswith("the solver cannot be loaded")
    found = status(well, "lhr-fra")
    assert (found.state, found.rtt_ms) == ("up", None)
    assert found.price_ms > 0
    well.observe("lhr1/0", telemetry({"fra1": probe(10.0, silent_s=3.0)}), 1.0)
    assert [change.link for change in well.update(1.0, heard=HEARD)] == ["lhr-fra"]


@pytest.mark.parametrize(
    ("rtt_ms", "silent_s", "alive"), [(10.0, 1.01, True), (10.0, 1.02, False), (300.0, 1.5, True)]
)
def test_a_path_lives_while_something_comes_back(
    rtt_ms: float, silent_s: float, alive: bool
) -> None:
    assert is_alive(probe(rtt_ms, silent_s=silent_s)) is alive


@hypothesis.given(st.data())
def test_whatever_is_told_a_supply_is_one_that_a_solver_takes(data: st.DataObject) -> None:
    links = [LinkConfig(name="l", ends=("a", "b"), mbps=data.draw(st.floats(1e-3, 1e9)))]
    well = Well(LinkMap(links, [site("a", "p", "o"), site("b", "q", "r")]))
    mbps = st.tuples(st.floats(0, 1e9), st.floats(0, 1e9))
    for pop in "pq":
        probes = {
            origin: PathProbe(
                data.draw(st.floats(0, 1e9)),
                data.draw(st.floats(0, 1)),
                silent_s=data.draw(st.sampled_from([0.0, 9.0])),
                limited=data.draw(st.booleans()),
            )
            for origin in "or"
        }
        carried = {origin: data.draw(mbps) for origin in "or"}
        units = {origin: data.draw(st.integers(0, 2**31)) for origin in "or"}
        well.observe(f"{pop}/0", telemetry(probes, carried, units), 0.0)
    well.update(0.0, heard=data.draw(st.sets(st.sampled_from("or"))))
    for each in well.supplies():
        assert 0 <= each.mbps_left <= each.mbps <= USE_MAX * links[0].mbps * (1 + 1e-9)
        assert each.limit().units >= 0
        assert 0 <= each.price_ms <= RTT_MS_MAX
    for pop in "pq":
        assert 0 <= well.toll_ms(pop, "o") <= RTT_MS_MAX


def test_the_solver_is_loaded_by_the_first_fit_alone() -> None:
    """PoPs and origins share this code's process in no real network, but its memory is IRS's."""
    code = (
        "import sys; from edged.policy.well import Well; from edged.policy.link_map import LinkMap;"
        "Well(LinkMap()).update(0.0, heard=()); sys.exit('highspy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)  # noqa: S603 - our own


def test_a_link_that_is_closed_is_gone_round_and_one_that_is_restricted_carries_less() -> None:
    well = make()
    all_told(well, lhr1={"iad1": (80.0, 0.0)})
    well.update(0.0, heard=HEARD)
    closed = Restriction(kind="link", name="lhr-iad", reason="dug up")
    half = Restriction(kind="link", name="lhr-fra", reason="one fibre", usable=0.1)
    strange = Restriction(kind="link", name="elsewhere", reason="not ours")
    well.restrict({each.name: each for each in (closed, half, strange)})
    all_told(well, 1.0, lhr1={"iad1": (80.0, 0.0)})
    assert well.update(1.0, heard=HEARD) == []
    found = status(well, "lhr-iad")
    assert (found.state, found.why, found.price_ms) == ("closed", "dug up", RTT_MS_MAX)
    assert (status(well, "lhr-fra").state, status(well, "lhr-fra").why) == ("up", "one fibre")
    assert supply(well, "lhr-fra", "fra").mbps == pytest.approx(USE_MAX * 100)
    assert status(well, "lhr-fra").utilisation == pytest.approx((0.8, 0.0))
    assert ("lhr1", "iad1") in supply(well, "lhr-fra", "fra").pairs
    # What dies there now is no news of the link.
    well.observe("lhr1/0", telemetry({"iad1": probe(70.0, silent_s=9.0)}), 2.0)
    assert "lhr-iad" not in [change.link for change in well.update(2.0, heard=HEARD)]
    well.restrict({})
    all_told(well, 30.0)
    well.update(30.0, heard=HEARD)
    assert status(well, "lhr-iad").price_ms == 0.0
