"""Some rungs come in parts, the others as lists; whoever hears them has every playlist whole."""

import hypothesis
from hypothesis import strategies as st

from edged.media.parts import PackagedEvent, Part, SegmentEnded, SegmentsListed
from edged.policy.rung_sieve import RungSieve, SegmentTally
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.policy.window_replay import make_replay
from tests.policy.window_events import PARTS, ended, init, make_window, part, rendition, whole

NAMES = ("v0", "v1", "v2", "a0")
LIMITS = WindowLimits(playlist_s=60.0)


class Channel:
    """A channel at its origin, and at one who gets some rungs; parts go round by rendition."""

    def __init__(self, rungs: frozenset[str] | None, segments: int = 4) -> None:
        self.origin = make_window(names=NAMES, limits=LIMITS)
        self.there = StreamWindow(self.origin.stream_id, LIMITS)
        self.tally, self.sieve = SegmentTally(), RungSieve(rungs)
        self.pushed: list[PackagedEvent] = []
        self.place = (0, 0)
        for _ in range(segments * PARTS + 2):
            self.bring(subscribed=False)
        replay = make_replay(self.origin, lists=True, cold=True)
        for event in replay:
            self.tally.take(event)
        self.give(self.sieve.begin(replay))

    def give(self, events: list[PackagedEvent]) -> None:
        self.pushed += events
        for event in events:
            self.there.add(event)

    def bring(self, *, subscribed: bool = True, lost: bool = False) -> None:
        """The next part of each rendition, and its segment's end with the last."""
        msn, index = self.place
        for name in NAMES:
            events: list[PackagedEvent] = [] if lost and name == "v1" else [part(msn, index, name)]
            events += [ended(msn, name)] if index == PARTS - 1 else []
            for event in events:
                self.origin.add(event)
                if subscribed:
                    listed = self.tally.take(event)
                    sifted = self.sieve.take(event, listed, self.tally.videos)
                    self.give([] if sifted is None else [sifted])
        self.place = (msn, index + 1) if index + 1 < PARTS else (msn + 1, 0)

    def change(self, rungs: frozenset[str] | None) -> None:
        replay = make_replay(self.origin, lists=True, cold=True)
        self.give(self.sieve.change(rungs, replay, self.tally.videos))


def parts_of(events: list[PackagedEvent], name: str) -> list[tuple[int, int]]:
    return [(e.msn, e.index) for e in events if isinstance(e, Part) and e.rendition == name]


def test_what_is_not_wanted_is_listed_when_it_is_whole() -> None:
    channel = Channel(frozenset({"v1"}))
    growing = channel.place[0]
    assert parts_of(channel.pushed, "v0") == [(growing, 0), (growing, 1)], "what has begun"
    channel.pushed.clear()
    for _ in range(2 * PARTS - 2):
        channel.bring()
    assert parts_of(channel.pushed, "v0") == [(growing, index) for index in range(2, PARTS)]
    assert len(parts_of(channel.pushed, "v1")) == len(parts_of(channel.pushed, "a0")) == 8
    (listed,) = [
        event
        for event in channel.pushed
        if isinstance(event, SegmentsListed) and event.rendition == "v0"
    ]
    assert [one.msn for one in listed.segments] == [growing + 1]
    assert (
        listed.segments[0].payload_bytes
        == channel.origin.renditions["v0"].segments[growing + 1].payload_bytes
    )
    assert channel.there.away_bytes_of("v0", growing + 1) == listed.segments[0].payload_bytes
    assert channel.there.renditions["v0"].is_away
    assert not channel.there.renditions["v1"].is_away


def test_what_is_wanted_anew_comes_from_the_part_that_its_segment_began_with() -> None:
    channel = Channel(frozenset({"v1"}))
    for _ in range(2 * PARTS):
        channel.bring()
    channel.pushed.clear()
    channel.change(frozenset({"v0", "v1"}))
    msn, index = channel.place
    assert parts_of(channel.pushed, "v0") == [(msn, each) for each in range(index)]
    channel.bring()
    assert channel.there.part("v0", msn, index) is not None
    channel.change(None)
    assert parts_of(channel.pushed, "v2") == [(msn, each) for each in range(index + 1)]


def test_nothing_of_sound_is_left_out() -> None:
    channel = Channel(frozenset())
    for _ in range(9):
        channel.bring()
    assert len(parts_of(channel.pushed, "a0")) >= 9
    assert channel.there.parts_missing == 0


def test_a_segment_that_lacks_something_is_a_gap_wherever_it_is_listed() -> None:
    tally = SegmentTally()
    for event in (rendition(), init(), part(1, 0), part(1, 2)):
        assert tally.take(event) is None
    listed = tally.take(ended(1, parts=3))
    assert listed is not None
    assert (listed.segments[0].gap, listed.segments[0].payload_bytes) == (True, 0)
    assert tally.take(ended(2)) is None, "nothing has come of it"


def test_how_far_back_an_origin_goes_is_told_as_it_said() -> None:
    tally = SegmentTally()
    tally.take(SegmentsListed(rendition="v0", oldest_msn=7))
    found = [tally.take(event) for event in whole(9)][-1]
    assert found is not None
    assert found.oldest_msn == 7


RUNGS = st.none() | st.frozensets(st.sampled_from(["v0", "v1", "v2"]))


@hypothesis.given(
    RUNGS, st.integers(0, 4), st.lists(st.tuples(st.integers(0, 2 * PARTS), RUNGS), max_size=6)
)
def test_whatever_is_wanted_when_each_playlist_has_every_segment(
    rungs: frozenset[str] | None,
    segments: int,
    changes: list[tuple[int, frozenset[str] | None]],
) -> None:
    channel = Channel(rungs, segments)
    for parts, others in changes:
        for _ in range(parts):
            channel.bring()
        channel.change(others)
    while channel.place[1] or channel.place[0] < segments + 2:
        channel.bring()
    wanted, there = channel.sieve.rungs, channel.there
    assert (there.parts_missing, there.segments_lost) == (0, 0)
    for name, window in there.renditions.items():
        at = channel.origin.renditions[name]
        assert window.segments_missing == 0
        ours = [entry for entry in window.entries if entry.complete]
        assert [entry.msn for entry in ours] == list(range(ours[0].msn, at.last_msn + 1))
        for entry in ours:
            origin = at.segments[entry.msn]
            assert entry.duration_us == origin.entry.duration_us
            assert entry.wallclock_us == origin.entry.wallclock_us
            assert not entry.gap
            assert window.segments[entry.msn].payload_bytes == origin.payload_bytes
        is_wanted = wanted is None or name in wanted or name == "a0"
        if not changes:
            assert window.segments[at.last_msn].away is not is_wanted


def test_an_end_of_which_no_part_came_is_told_to_who_is_not_to_get_it() -> None:
    sieve = RungSieve(frozenset({"v1"}))
    assert sieve.take(ended(3), None, {"v0", "v1"}) is None
    assert isinstance(sieve.take(ended(3, "v1"), None, {"v0", "v1"}), SegmentEnded)
