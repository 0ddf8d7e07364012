import itertools

import hypothesis
from hypothesis import strategies as st

from edged.policy.link_cuts import (
    BACK_S,
    CONVERGENCE_S,
    PATHS_SHOWN_MAX,
    UNTOLD_S,
    LinkCuts,
    PathState,
)
from edged.policy.link_map import LinkMap, Pair
from tests.policy.test_link_map import LINKS, SITES, link, site

ALIVE, DEAD = PathState(True, 10.0), PathState(False, 10.0)
RTT_MS: dict[tuple[str, ...], float] = {
    ("lhr-fra",): 10.0,
    ("cdg-fra",): 9.0,
    ("lhr-iad",): 70.0,
    ("fra-iad",): 80.0,
}
ALL: dict[Pair, PathState] = {
    (pop, origin): ALIVE for pop in ("lhr1", "cdg1", "fra9") for origin in ("fra1", "iad1")
}
HEARD = ("fra1", "iad1")


def make() -> LinkCuts:
    return LinkCuts(LinkMap(LINKS, SITES))


def cut(cuts: LinkCuts, paths: dict[Pair, PathState], now: float = 0.0) -> list[str]:
    changes = cuts.update(paths, HEARD, RTT_MS, now)
    assert all(change.cut for change in changes)
    return [change.link for change in changes]


def test_while_all_live_nothing_is_cut() -> None:
    cuts = make()
    assert cut(cuts, ALL) == []
    assert cuts.without == frozenset()


def test_what_only_dead_paths_cross_is_cut_at_once() -> None:
    cuts = make()
    dead = {("cdg1", "iad1"): DEAD, ("fra9", "iad1"): DEAD}
    changes = cuts.update(ALL | dead, HEARD, RTT_MS, 0.0)
    assert [(change.link, change.cut) for change in changes] == [("fra-iad", True)]
    reason = "no living path crosses it, and died: cdg1 to iad1, fra9 to iad1"
    assert changes[0].reason == reason
    assert cuts.without == {"fra-iad"}
    assert [crossing.link for crossing in cuts.way(("cdg1", "iad1")) or ()] == [
        "cdg-fra", "lhr-fra", "lhr-iad",
    ]  # fmt: skip


def test_links_that_die_together_are_told_as_one() -> None:
    cuts = make()
    paths: dict[Pair, PathState] = {("cdg1", "iad1"): DEAD}
    changes = cuts.update(paths, HEARD, RTT_MS, 0.0)
    assert [change.link for change in changes] == ["cdg-fra", "fra-iad"]
    assert changes[0].reason.endswith("died: cdg1 to iad1; not told from fra-iad")


def test_a_path_that_dies_alone_accuses_no_link_that_others_cross() -> None:
    assert cut(make(), ALL | {("cdg1", "iad1"): DEAD}) == []
    assert cut(make(), ALL | {("fra9", "fra1"): DEAD}) == []  # It crosses none.


def test_an_origin_that_is_gone_accuses_no_link() -> None:
    dead: dict[Pair, PathState] = {pair: DEAD for pair in ALL if pair[1] == "iad1"}
    assert make().update(ALL | dead, ("fra1",), RTT_MS, 0.0) == []
    assert sorted(cut(make(), ALL | dead)) == ["fra-iad", "lhr-iad"]
    # One path that lives shows that it is there.
    one = ALL | dead | {("lhr1", "iad1"): ALIVE}
    changes = make().update(one, ("fra1",), RTT_MS, 0.0)
    assert [change.link for change in changes] == ["fra-iad"]


def test_two_cuts_are_found_at_a_time_the_one_that_explains_most_first() -> None:
    dead = {pair: DEAD for pair in ALL if pair not in (("fra9", "fra1"), ("cdg1", "fra1"))}
    assert cut(make(), ALL | dead) == ["fra-iad", "lhr-fra", "lhr-iad"]


def test_many_paths_are_shown_by_some() -> None:
    pops = " ".join(f"p{n}" for n in range(PATHS_SHOWN_MAX + 2))
    cuts = LinkCuts(LinkMap([link("a", "b")], [site("a", pops), site("b", "", "o")]))
    paths: dict[Pair, PathState] = {(pop, "o"): DEAD for pop in pops.split()}
    (change,) = cuts.update(paths, ("o",), {}, 0.0)
    assert change.reason.endswith("died: p0 to o, p1 to o, p2 to o and 2 more")


def test_paths_that_come_back_another_way_leave_it_cut() -> None:
    cuts = make()
    dead = {("cdg1", "iad1"): DEAD, ("fra9", "iad1"): DEAD}
    assert cut(cuts, ALL | dead) == ["fra-iad"]
    # L3 has found the way by lhr: 9 + 10 + 70 ms, not 9 + 80.
    round_it = ALL | {
        ("lhr1", "iad1"): PathState(True, 70.0),
        ("fra9", "iad1"): PathState(True, 80.0),
        ("cdg1", "iad1"): PathState(True, 89.0),
    }
    for now in range(1, int(UNTOLD_S)):
        assert cuts.update(round_it, HEARD, RTT_MS, float(now)) == []
    # It takes the same time here, so nothing tells, and at some time it must be tried.
    (change,) = cuts.update(round_it, HEARD, RTT_MS, UNTOLD_S)
    assert not change.cut
    assert change.reason == "no path has died for 60 s, and none tells more"


def test_a_round_trip_tells_that_it_is_back() -> None:
    cuts = make()
    assert cut(cuts, ALL | {("lhr1", "iad1"): DEAD}) == ["lhr-iad"]
    now = 0.0
    while now < 30.0:  # By fra: 90 ms.
        now += 1.0
        assert cuts.update(ALL | {("lhr1", "iad1"): PathState(True, 89.0)}, HEARD, {}, now) == []
    direct = ALL | {("lhr1", "iad1"): PathState(True, 71.0)}
    for _ in range(int(BACK_S)):
        now += 1.0
        assert cuts.update(direct, HEARD, {}, now) == []
    assert cuts.update(ALL | {("lhr1", "iad1"): PathState(True, 88.0)}, HEARD, {}, now + 1) == []
    assert cuts.update(direct, HEARD, {}, now + 2) == []  # Counted anew.
    (change,) = cuts.update(direct, HEARD, {}, now + 2 + BACK_S)
    assert change.reason == "paths cross it again: lhr1 to iad1"
    assert cuts.without == frozenset()


def test_a_path_without_another_way_tells_that_it_is_back() -> None:
    cuts = LinkCuts(LinkMap([link("a", "b")], [site("a", "p"), site("b", "", "o")]))
    assert [change.link for change in cuts.update({("p", "o"): DEAD}, ("o",), {}, 0.0)] == ["a-b"]
    assert cuts.way(("p", "o")) is not None
    for now in range(1, 1000):  # It is what explains the dead path, for ever.
        assert cuts.update({("p", "o"): DEAD}, ("o",), {}, float(now)) == []
    assert cuts.update({("p", "o"): ALIVE}, ("o",), {}, 1000.0) == []
    (change,) = cuts.update({("p", "o"): ALIVE}, ("o",), {}, 1000.0 + BACK_S)
    assert not change.cut


def test_l3_has_some_time_to_go_round_a_cut_before_others_are_accused() -> None:
    cuts = make()
    dead = {("cdg1", "iad1"): DEAD, ("fra9", "iad1"): DEAD, ("lhr1", "iad1"): ALIVE}
    only: dict[Pair, PathState] = dead
    assert cut(cuts, ALL | only) == ["fra-iad"]
    some: dict[Pair, PathState] = {("cdg1", "iad1"): DEAD}
    assert cuts.update(some, HEARD, RTT_MS, CONVERGENCE_S - 0.1) == []
    changes = cuts.update(some, HEARD, RTT_MS, CONVERGENCE_S)
    assert [change.link for change in changes] == ["cdg-fra", "lhr-fra", "lhr-iad"]


@hypothesis.given(st.data())
def test_a_cut_link_is_found_from_which_paths_died(data: st.DataObject) -> None:
    """Any network, any one link: it is named, and so is only what cannot be told from it."""
    at = [f"s{n}" for n in range(data.draw(st.integers(2, 6)))]
    chain = list(itertools.pairwise(at))
    more = data.draw(st.sets(st.sampled_from(list(itertools.combinations(at, 2)))))
    links = [link(*ends, data.draw(st.integers(1, 9))) for ends in sorted({*chain, *more})]
    sites = [site(name, f"p{name}", f"o{name}") for name in at]
    known = LinkMap(links, sites)
    broken = data.draw(st.sampled_from(sorted(known.links)))
    seen = data.draw(st.sets(st.sampled_from(sorted(known.pairs)), min_size=1))

    def crosses(pair: Pair, name: str) -> bool:
        return any(crossing.link == name for crossing in known.way(*pair) or ())

    paths = {pair: DEAD if crosses(pair, broken) else ALIVE for pair in seen}
    dead = {pair for pair, path in paths.items() if not path.alive}
    cuts = LinkCuts(known)
    told = {change.link for change in cuts.update(paths, [f"o{name}" for name in at], {}, 0.0)}
    assert cuts.without == told
    if not dead:
        assert told == set()
        return
    assert broken in told
    for name in told:
        assert {pair for pair in seen if crosses(pair, name)} == dead
