"""Where to publish: the PoP that was asked, unless it can't; why not, by PoP."""

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.routing import IngestOffer, PopRow, PopState
from edged.policy.ingest_choice import LOAD_MAX, IngestChoice, IngestRefusal, choose_ingest

RTMP = ("rtmp",)


def row(pop: str, load: float = 0.0, state: str = PopState.UP, *, shard: int = 1) -> PopRow:
    urls = (f"rtmp://{pop}.example/live", f"rtmps://{pop}.example/live")
    return PopRow(pop, shard, IngestOffer(urls, state, load))


def chosen(own: PopRow, *others: PopRow, protocols: tuple[str, ...] = RTMP) -> IngestChoice:
    choice = choose_ingest(own, others, protocols)
    assert isinstance(choice, IngestChoice)
    return choice


def test_the_pop_that_was_asked_is_the_answer_though_another_has_less_to_do() -> None:
    choice = chosen(row("ams1", 0.5), row("fra1", 0.1), row("lon1", 0.3))
    assert (choice.place.pop, choice.place.url) == ("ams1", "rtmp://ams1.example/live")
    assert choice.reason == "the PoP that you asked takes it"
    assert [place.pop for place in choice.alternatives] == ["fra1", "lon1"]


@pytest.mark.parametrize(
    ("state", "load", "why"),
    [
        (PopState.DRAIN, 0.0, "is being drained"),
        (PopState.FULL, 0.0, "is overloaded"),
        (PopState.NO_ROUTE, 0.0, "has no way to an origin that takes the stream"),
        ("hibernating", 0.0, "is not ready"),
        (PopState.UP, LOAD_MAX, "is 90% full"),
    ],
)
def test_else_it_is_the_least_loaded_that_takes_it(state: str, load: float, why: str) -> None:
    own = row("ams1", load, state)
    choice = chosen(own, row("fra1", 0.4), row("lon1", 0.2), row("par1", 0.0, PopState.DRAIN))
    assert choice.place.pop == "lon1"
    assert choice.reason == f"the least loaded that takes it; the PoP that you asked: {why}"
    last = ["ams1"] if state == PopState.UP else []
    assert [place.pop for place in choice.alternatives] == ["fra1", *last]


def test_a_nearly_full_pop_is_still_better_than_a_fuller_one_or_none() -> None:
    assert chosen(row("ams1", 0.95), row("fra1", 1.0)).place.pop == "ams1"
    assert chosen(row("ams1", 1.0)).place.pop == "ams1"


def test_the_first_protocol_that_a_pop_offers_counts() -> None:
    assert chosen(row("a"), protocols=("srt", "rtmps")).place.url == "rtmps://a.example/live"
    refusal = choose_ingest(row("a"), [row("b")], ("srt",))
    assert isinstance(refusal, IngestRefusal)
    assert refusal.reasons == {
        "a": "has no public URL for srt",
        "b": "has no public URL for srt",
    }
    bare = PopRow("a", 1, IngestOffer((), PopState.UP, 0.0))
    assert chosen(bare, row("b", 0.3)).reason.endswith("has no public URL for rtmp")


def test_siblings_of_the_asked_shard_say_nothing_and_other_pops_are_there_once() -> None:
    choice = chosen(
        row("a", 0.5), row("a", 0.0, shard=2), row("b", 0.4, shard=1), row("b", 0.2, shard=2)
    )
    assert choice.place.load == 0.5
    assert [(place.pop, place.load) for place in choice.alternatives] == [("b", 0.2)]


def test_no_pop_is_refused_with_the_reasons() -> None:
    refusal = choose_ingest(row("a", state=PopState.DRAIN), [row("b", state=PopState.FULL)], RTMP)
    assert refusal == IngestRefusal({"a": "is being drained", "b": "is overloaded"})


ROWS = st.builds(
    row,
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    st.sampled_from([*PopState, "other"]),
    shard=st.integers(1, 3),
)


@hypothesis.given(ROWS, st.lists(ROWS, max_size=8))
def test_whatever_is_chosen_takes_the_stream_and_nothing_better_was_there(
    own: PopRow, others: list[PopRow]
) -> None:
    others = [other for other in others if other.pop != own.pop]
    up = [known for known in (own, *others) if known.ingest.state == PopState.UP]
    choice = choose_ingest(own, others, RTMP)
    assert isinstance(choice, IngestRefusal) is (not up)
    if isinstance(choice, IngestChoice):
        assert (choice.place.pop, choice.place.load) in [(r.pop, r.ingest.load) for r in up]
        if own in up and own.ingest.load < LOAD_MAX:
            assert choice.place.pop == own.pop
        else:
            assert choice.place.load == min(known.ingest.load for known in up)
        names = [choice.place.pop, *(place.pop for place in choice.alternatives)]
        assert len(names) == len(set(names))
