"""Events gathered: none is lost from the counts, and the list is bounded."""

import hypothesis
from hypothesis import strategies as st

from edged.policy.network_events import EVENTS_MAX, WANTED_MAX, EventGatherer
from edged.policy.network_sample import CHANNELS_MAX, TEXT_CHARS_MAX, NetworkEvent

NAMES = st.sampled_from(["a", "b", "c"])
MOVES = st.builds(
    NetworkEvent,
    at=st.just(1.0),
    kind=st.sampled_from(["moved", "kept", "wanted"]),
    pop=NAMES,
    origin=NAMES,
    to=NAMES,
    why=NAMES,
    count=st.integers(1, 9),
    channels=st.lists(NAMES, max_size=2).map(tuple),
)


@hypothesis.given(st.lists(MOVES, max_size=300))
def test_counts_are_kept_and_the_same_is_said_once(moves: list[NetworkEvent]) -> None:
    gatherer = EventGatherer()
    for move in moves:
        gatherer.add(move)
    events = gatherer.take()
    assert sum(event.count for event in events) == sum(move.count for move in moves)
    keys = [(each.kind, each.pop, each.origin, each.to, each.why) for each in events]
    assert len(keys) == len(set(keys))
    assert all(len(each.channels) <= CHANNELS_MAX for each in events)
    assert gatherer.take() == []


def test_more_than_fit_are_counted() -> None:
    gatherer = EventGatherer()
    for number in range(EVENTS_MAX + 5):
        move = NetworkEvent(at=2.0, kind="moved", pop=f"p{number}", origin="a", to="b", count=2)
        gatherer.add(move)
        gatherer.add(move)
    *events, more = gatherer.take()
    assert len(events) == EVENTS_MAX
    assert all(event.count == 4 for event in events)
    assert more == NetworkEvent(at=2.0, kind="more", count=20)


def test_what_is_no_count_is_said_once() -> None:
    gatherer = EventGatherer()
    for _ in range(3):
        gatherer.add(NetworkEvent(at=1.0, kind="origin", origin="a", after="down", why="silent"))
    assert [event.count for event in gatherer.take()] == [1]


def test_texts_are_bounded() -> None:
    gatherer = EventGatherer()
    gatherer.add(NetworkEvent(at=1.0, kind="kept", why="x" * 5000))
    assert [len(event.why) for event in gatherer.take()] == [TEXT_CHARS_MAX]


def test_why_moves_were_wanted_is_known_of_the_newest() -> None:
    gatherer = EventGatherer()
    for number in range(WANTED_MAX + 1):
        gatherer.want((number, "ams/0", "a", "b"), "nearer")
    assert gatherer.why_wanted((0, "ams/0", "a", "b")) == ""
    assert gatherer.why_wanted((WANTED_MAX, "ams/0", "a", "b")) == "nearer"
    assert gatherer.why_wanted((WANTED_MAX, "ams/0", "a", "c")) == ""
