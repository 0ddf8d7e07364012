"""What is new to those who take a channel from a relay."""

import hypothesis
from hypothesis import strategies as st

from edged.media.parts import ListedSegment, PackagedEvent, SegmentsListed, StreamEnded
from edged.media.stream import StreamId
from edged.policy.relay_news import INITS_MAX, RelayNews
from tests.policy.window_events import OTHER_DIGEST, init, part, rendition, whole

RUN, NEXT = StreamId("alice", 1, 1), StreamId("alice", 2, 1)
BEGIN: list[PackagedEvent] = [rendition(), init()]


@hypothesis.given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 12))
def test_a_replay_that_is_heard_again_brings_what_is_new_alone(
    first: int, again: int, more: int
) -> None:
    events = [event for msn in range(20) for event in whole(msn)]
    news = RelayNews()
    known = BEGIN + events[6 * first : 6 * first + 20]
    assert news.take(RUN, known) == known
    replay = BEGIN + events[6 * again : 6 * first + 20 + more]
    assert news.take(RUN, replay) == events[max(6 * again, 6 * first + 20) : 6 * first + 20 + more]
    assert news.take(NEXT, known) == known, "another run is all new"
    assert news.take(RUN, [part(30, 0)]) == [], "what is fenced off"


def test_what_is_described_otherwise_goes_on() -> None:
    news = RelayNews()
    news.take(RUN, BEGIN)
    others: list[PackagedEvent] = [
        rendition(label="another"),
        init(digest=OTHER_DIGEST),
        init("a0"),
    ]
    assert news.take(RUN, [*BEGIN, *others]) == others
    assert news.take(RUN, [StreamEnded(reason="over")]) == [StreamEnded(reason="over")]


def test_lists_of_what_is_known_tell_of_the_oldest_alone() -> None:
    news = RelayNews()
    news.take(RUN, [*BEGIN, part(9, 0)])
    listed = SegmentsListed(
        rendition="v0", oldest_msn=3, segments=(ListedSegment(3, 2000, 0, 100),)
    )
    assert news.take(RUN, [listed, listed]) == [SegmentsListed(rendition="v0", oldest_msn=3)]
    later = SegmentsListed(
        rendition="v0", oldest_msn=3, segments=(ListedSegment(12, 2000, 0, 100),)
    )
    assert news.take(RUN, [later]) == [later]


def test_inits_that_are_known_are_bounded() -> None:
    news = RelayNews()
    for number in range(INITS_MAX + 5):
        news.take(RUN, [init(digest=f"{number:016x}")])
    assert len(news._inits) == INITS_MAX
