import itertools
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.link_fit import Fitted, LinkFitter, Measured


def path(links: str, value: float, weight: float = 1.0) -> Measured:
    return Measured(frozenset(links), value, weight)


def test_links_are_told_from_their_sums() -> None:
    fitted = LinkFitter().fit([path("ab", 30.0), path("bc", 50.0), path("ac", 40.0)])
    assert fitted == [
        Fitted(("a",), pytest.approx(10.0)),  # type: ignore[arg-type]
        Fitted(("b",), pytest.approx(20.0)),  # type: ignore[arg-type]
        Fitted(("c",), pytest.approx(30.0)),  # type: ignore[arg-type]
    ]


def test_links_that_only_occur_together_are_told_as_one() -> None:
    fitted = LinkFitter().fit([path("abc", 30.0), path("c", 10.0)])
    assert fitted == [
        Fitted(("a", "b"), pytest.approx(20.0)),  # type: ignore[arg-type]
        Fitted(("c",), pytest.approx(10.0)),  # type: ignore[arg-type]
    ]


def test_a_sum_without_its_parts_is_not_told() -> None:
    """Every path is one of a, b and one of x, y: only differences within a side are known."""
    paths = [path(one + other, 20.0) for one in "ab" for other in "xy"]
    assert LinkFitter().fit(paths) == [Fitted(("a", "b", "x", "y"), None)]
    fitted = LinkFitter().fit([*paths, path("c", 5.0), path("a", 12.0)])
    assert [each.links for each in fitted] == [("a",), ("b",), ("c",), ("x",), ("y",)]
    assert fitted[3].value == pytest.approx(8.0)


def test_one_path_that_is_off_draws_nothing() -> None:
    paths = [path("a", 10.0), path("b", 20.0), path("ab", 30.0), path("ac", 25.0), path("c", 15.0)]
    fitted = LinkFitter().fit([*paths, path("bc", 500.0)])
    assert [each.value for each in fitted] == pytest.approx([10.0, 20.0, 15.0])
    # Of several paths over the same links it is the median.
    fitted = LinkFitter().fit([path("a", 10.0), path("a", 11.0), path("a", 900.0)])
    assert fitted[0].value == pytest.approx(11.0)
    fitted = LinkFitter().fit([path("a", 10.0, 5.0), path("a", 20.0), path("a", 30.0)])
    assert fitted[0].value == pytest.approx(10.0)


def test_nothing_is_told_of_nothing() -> None:
    fitter = LinkFitter()
    assert fitter.fit([]) == []
    assert fitter.fit([path("", 1.0), path("a", 1.0, 0.0)]) == []


def test_it_goes_on_from_where_it_was() -> None:
    fitter = LinkFitter()
    for value in (10.0, 20.0, 5.0, 20.0):
        fitted = fitter.fit([path("a", value), path("ab", value + 7.0)])
        assert [each.value for each in fitted] == pytest.approx([value, 7.0])
    assert [each.links for each in fitter.fit([path("c", 1.0)])] == [("c",)]


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, float], list[frozenset[str]]]:
    """Links with what they truly are, and paths over them."""
    count = draw(st.integers(1, 7))
    truth = {f"l{n}": float(draw(st.integers(0, 200))) for n in range(count)}
    paths = draw(
        st.lists(
            st.sets(st.sampled_from(sorted(truth)), min_size=1, max_size=4), min_size=1, max_size=20
        )
    )
    return truth, [frozenset(links) for links in paths]


def true_sum(links: tuple[str, ...] | frozenset[str], truth: dict[str, float]) -> float:
    return sum(truth[link] for link in links)


@hypothesis.given(networks())
def test_what_can_be_known_is_found(network: tuple[dict[str, float], list[frozenset[str]]]) -> None:
    truth, paths = network
    fitted = LinkFitter().fit([Measured(links, true_sum(links, truth)) for links in paths])
    seen = set().union(*paths)
    assert sorted(link for each in fitted for link in each.links) == sorted(seen)
    for each in fitted:
        if each.value is not None:
            assert each.value == pytest.approx(true_sum(each.links, truth), abs=1e-6)
        else:
            assert is_open(each.links, paths), "it could have been told"


def is_open(links: tuple[str, ...], paths: list[frozenset[str]]) -> bool:
    """Whether every one of these can be another without any path being another, by elimination."""
    names = sorted(set().union(*paths))
    for link in links:
        rows = [[float(name in path) for name in names] for path in paths]
        unit = [float(name == link) for name in names]
        if rank(rows) == rank([*rows, unit]):
            # In the row space: known by itself, so it may only be here with those that it is with.
            return False
    return True


def rank(rows: list[list[float]]) -> int:
    rows = [row[:] for row in rows]
    found = 0
    for column in range(len(rows[0])):
        pivot = next((n for n in range(found, len(rows)) if abs(rows[n][column]) > 1e-9), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        for n in range(len(rows)):
            if n != found and rows[n][column]:
                factor = rows[n][column] / rows[found][column]
                rows[n] = [
                    one - factor * other for one, other in zip(rows[n], rows[found], strict=True)
                ]
        found += 1
    return found


@hypothesis.given(networks(), st.integers(0, 2**32))
def test_noise_does_no_more_than_its_sum(
    network: tuple[dict[str, float], list[frozenset[str]]], seed: int
) -> None:
    """The fitted paths differ from the true ones by twice the noise at most, all together."""
    truth, paths = network
    paths = list(dict.fromkeys(paths))  # Else the median is what the noise is.
    rng = random.Random(seed)  # noqa: S311 - noise
    noise = [rng.uniform(-1.0, 30.0 if rng.random() < 0.2 else 1.0) for _ in paths]
    measured = [
        Measured(links, true_sum(links, truth) + off)
        for links, off in zip(paths, noise, strict=True)
    ]
    found = {each.links: each.value for each in LinkFitter().fit(measured)}
    if None in found.values():
        return
    errors = 0.0
    for links in paths:
        told = sum(value for group, value in found.items() if value and set(group) <= links)
        errors += abs(told - true_sum(links, truth))
    assert errors <= 2 * sum(map(abs, noise)) + 1e-6


def test_links_are_found_from_a_whole_network_with_noise() -> None:
    """30 links, 200 paths over 1 to 5 of them, 2 % of noise, and one path in ten far off."""
    rng = random.Random(5)  # noqa: S311 - a network
    names = [f"l{n}" for n in range(30)]
    truth = {name: rng.uniform(1.0, 80.0) for name in names}
    paths = [frozenset(rng.sample(names, rng.randint(1, 5))) for _ in range(200)]
    measured = []
    for links in paths:
        value = true_sum(links, truth) * rng.uniform(0.98, 1.02)
        measured.append(Measured(links, value * (3.0 if rng.random() < 0.1 else 1.0)))
    found = LinkFitter().fit(measured)
    assert len(found) == 30
    for each in found:
        assert each.value == pytest.approx(truth[each.links[0]], abs=3.0)
    pairs = itertools.pairwise(each.links for each in found)
    assert all(one < other for one, other in pairs)
