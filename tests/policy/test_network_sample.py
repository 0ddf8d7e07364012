"""What differs between two moments, in events."""

from itertools import pairwise

import hypothesis
import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from edged.media.epochs import DrainNote
from edged.policy.network_sample import (
    LINK_ROW,
    LINK_STATES,
    ORIGIN_ROW,
    ORIGIN_STATES,
    POP_ROW,
    UNKNOWN,
    IrsPoint,
    NetworkEvent,
    NetworkSample,
    differences,
    link_row,
)
from edged.policy.restrictions import Restriction
from edged.policy.well import LinkStatus

UP, CUT = LINK_STATES.index("up"), LINK_STATES.index("cut")
CALM = NetworkSample(
    at=1.0,
    irs=IrsPoint(standing="active", epoch=7, version=1),
    pops={"ams": (1, 0, 5, 0, 0, 0, 10)},
    origins={"fra1": (0, 1, 100, 50, 1, 2, 47, 100)},
    links={"ams-fra": (UP, 40, 30, 90, 0, 0)},
    flows={("ams", "fra1"): 5},
)
LINK = LinkStatus(
    link="ams-fra",
    ends=("ams", "fra"),
    mbps=1000.0,
    state="up",
    why="",
    ours_mbps=(1.0, 1.0),
    outside_mbps=(0.0, 0.0),
    utilisation=(0.734, 0.1),
    price_ms=3.4,
    rtt_ms=7.06,
    loss=0.0123,
    told_as=("ams-fra",),
)
LIMIT = Restriction(kind="link", name="ams-fra", reason="ticket 4711", usable=0.5)


def found(after: NetworkSample, before: NetworkSample = CALM) -> list[NetworkEvent]:
    return list(differences(before, after))


def test_nothing_differs_where_only_loads_do() -> None:
    later = replace(CALM, at=6.0, flows={}, links={"ams-fra": (UP, 80, 30, 95, 0, 0)})
    assert found(later) == []


@pytest.mark.parametrize(
    ("changed", "event"),
    [
        (
            {"pops": {"ams": (0, 0, 5, 0, 0, 0, 10)}},
            NetworkEvent(at=6.0, kind="pop", pop="ams", after="gone"),
        ),
        (
            {"links": {"ams-fra": (CUT, 0, 0, -1, -1, 0)}, "link_why": {"ams-fra": "silent"}},
            NetworkEvent(
                at=6.0, kind="link", link="ams-fra", before="up", after="cut", why="silent"
            ),
        ),
        (
            {"links": {"ams-fra": (UP, 30, 91, 90, 0, 12)}},
            NetworkEvent(at=6.0, kind="link", link="ams-fra", after="filling", count=91),
        ),
        (
            {"drains": (DrainNote(origin="fra1", since=5.0, until=99.0, by="anna"),)},
            NetworkEvent(at=6.0, kind="drain", origin="fra1", after="begun", why="anna"),
        ),
        (
            {"limits": (("maintenance", LIMIT),)},
            NetworkEvent(
                at=6.0,
                kind="limit",
                link="ams-fra",
                before="maintenance",
                after="begun",
                why="ticket 4711",
                count=50,
            ),
        ),
        (
            {"irs": IrsPoint(standing="active", epoch=8, version=1)},
            NetworkEvent(at=6.0, kind="irs", before="active", after="active", count=8),
        ),
        (
            {"irs": IrsPoint(standing="active", epoch=7, version=1, fallback="no solution")},
            NetworkEvent(at=6.0, kind="plans", after="without", why="no solution"),
        ),
        (
            {"irs": IrsPoint(standing="active", epoch=7, version=1, unserved=4)},
            NetworkEvent(at=6.0, kind="room", after="lacking", count=4),
        ),
    ],
)
def test_what_happened_is_said_and_that_it_is_over(
    changed: dict[str, object], event: NetworkEvent
) -> None:
    later = replace(CALM, at=6.0, **changed)
    assert found(later) == [event]
    (over,) = found(replace(CALM, at=9.0), before=later)
    assert (over.kind, over.at) == (event.kind, 9.0)
    assert over.after != event.after or over.count != event.count


def test_an_end_that_moves_is_no_event() -> None:
    """Nor a part of a percent: what is said is the same."""
    limits = [
        (("region", replace(LIMIT, since=at, until=600.0 + at, usable=0.5 + at / 1e5)),)
        for at in range(9)
    ]
    samples = [replace(CALM, at=float(at), limits=each) for at, each in enumerate(limits)]
    for before, after in pairwise(samples):
        assert found(after, before=before) == []
    (over,) = found(CALM, before=samples[-1])
    assert (over.kind, over.after) == ("limit", "over")


def test_a_pop_that_is_new_is_said_and_a_link_that_is_new_is_not() -> None:
    later = replace(
        CALM,
        pops={**CALM.pops, "lhr": (1, 0, 0, 0, 0, 0, 0)},
        links={**CALM.links, "ams-lhr": (CUT, 0, 0, 0, 0, 0)},
    )
    assert found(later) == [NetworkEvent(at=1.0, kind="pop", pop="lhr", after="here")]


def test_links_are_whole_numbers() -> None:
    assert link_row(LINK) == (UP, 73, 10, 71, 123, 3)
    assert link_row(replace(LINK, rtt_ms=34.6))[3] == 350
    together = replace(LINK, told_as=("ams-fra", "ams-lhr"))
    assert link_row(together)[3:5] == (UNKNOWN, UNKNOWN)
    assert link_row(replace(LINK, rtt_ms=None, loss=None))[3:5] == (UNKNOWN, UNKNOWN)
    assert len(link_row(LINK)) == len(LINK_ROW)


@hypothesis.given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 9), st.integers(0, 9))
def test_a_link_tells_one_thing_at_a_time(one: int, other: int, price: int, later: int) -> None:
    before = replace(CALM, links={"ams-fra": (one, 50, 50, 1, 0, price)})
    after = replace(CALM, links={"ams-fra": (other, 50, 50, 1, 0, later)})
    events = found(after, before)
    assert len(events) <= 1
    assert bool(events) == (one != other or (one == UP and bool(price) != bool(later)))


def test_rows_are_as_long_as_their_names() -> None:
    assert all(len(row) == len(POP_ROW) for row in CALM.pops.values())
    assert all(len(row) == len(ORIGIN_ROW) for row in CALM.origins.values())
    assert ORIGIN_STATES == ("up", "suspect", "down", "probation", "drain")
