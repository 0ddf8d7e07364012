"""What is counted of a cache is what is held, whatever disks and origins do."""

from collections.abc import Callable

import hypothesis
from hypothesis import strategies as st

from edged.media.parts import SegmentsListed
from edged.media.stream import StreamId
from edged.policy.edge_cache import SEGMENT_BYTES, CacheLimits
from edged.policy.segment_cache import GONE, CacheConfig, SegmentCache
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from tests.policy.fake_store import FakeStore
from tests.policy.test_away import listed
from tests.policy.window_events import DIGEST, feed, init, rendition, whole

LIMITS = WindowLimits(playlist_s=3600.0, retention_s=3610.0, payload_bytes_max=2**30)
SIZE = 500  # Of a segment of `whole`.


class Stream:
    """A `CachedStream` that notes what it hears."""

    def __init__(self, number: int, cache: SegmentCache) -> None:
        self.window = StreamWindow(StreamId(f"c{number}", number, 1), LIMITS)
        feed(self.window, rendition(), init())
        self.folder = cache.folder()
        self.known_to_cache = True
        self.leaving_bytes = 0
        self.heard: list[tuple[int, bool]] = []

    def tidy(self) -> None:
        """Nothing is made of it."""

    def forget(self, rendition: str, msn: int) -> None:
        """The same."""

    def fetched(self, rendition: str, msn: int, data: bytes | None) -> bool:
        self.heard.append((msn, data is not None))
        return data is not None and msn in self.window.renditions[rendition].segments

    def not_fetched(self, rendition: str, msn: int) -> None:
        self.heard.append((msn, False))


class Place:
    """Two streams, of which one began elsewhere, and what they are kept on."""

    def __init__(self, memory_bytes_max: int, disk_bytes_max: int) -> None:
        self.disk = FakeStore(at_once=False)
        self.asked: list[tuple[int, Callable[[bytes | str], None]]] = []
        self.full: list[tuple[int, int]] = []
        self.time = 0.0
        self.streams: list[Stream] = []
        self.cache = SegmentCache(
            CacheLimits(memory_bytes_max=memory_bytes_max, disk_bytes_max=disk_bytes_max),
            lambda: [(stream, True) for stream in self.streams],
            now=lambda: self.time,
            store=self.disk if disk_bytes_max else None,
            fetch_away=self.fetch,
            became_full=lambda *bytes_: self.full.append(bytes_),
        )
        self.streams += [Stream(number, self.cache) for number in range(2)]
        away = tuple(listed(msn) for msn in range(10))
        event = SegmentsListed(rendition="v0", oldest_msn=0, init_digest=DIGEST, segments=away)
        feed(self.streams[1].window, event)
        for stream in self.streams:
            self.cache.changed(stream)
        self.next = [0, 10]

    def fetch(
        self, run: StreamId, rendition: str, msn: int, done: Callable[[bytes | str], None]
    ) -> bool:
        self.asked.append((msn, done))
        return len(self.asked) < 5

    def push(self, number: int) -> None:
        stream = self.streams[number]
        for event in whole(self.next[number]):
            stream.window.add(event)
            self.cache.changed(stream)
        self.next[number] += 1
        self.time += 1.0

    def check(self) -> None:
        memory_bytes = stored_bytes = 0
        for stream in self.streams:
            window = stream.window.renditions["v0"]
            held = window.segments.values()
            memory_bytes += window.payload_bytes + SEGMENT_BYTES * len(held)
            stored_bytes += sum(segment.payload_bytes for segment in held if segment.stored)
            assert list(window.segments) == sorted(window.segments)
        told = self.cache.statistics()
        assert (told.memory_bytes, told.stored_bytes) == (memory_bytes, stored_bytes)
        fetched = sum(s.window.renditions["v0"].fetched_bytes for s in self.streams)
        assert fetched <= told.read_back_bytes


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ("push", "push", "push", "ask", "give", "gone", "late", "disk", "bad", "good")
            ),
            st.integers(0, 9),
        ),
        max_size=120,
    ),
    st.sampled_from([20_000, 40_000, 10**6]),
    st.sampled_from([0, 4_000, 10**6]),
)
def test_whatever_happens_what_is_counted_is_what_is_held(
    steps: list[tuple[str, int]], memory_bytes_max: int, disk_bytes_max: int
) -> None:
    place = Place(memory_bytes_max, disk_bytes_max)
    late = place.streams[1]
    asked: list[int] = []
    for what, number in steps:
        if what == "push":
            place.push(number % 2)
        elif what == "ask" and late.window.elsewhere_bytes_of("v0", number) is not None:
            away = late.window.away_bytes_of("v0", number) is not None
            fetch = place.cache.fetch_away if away else place.cache.fetch
            if fetch(late, "v0", number):
                asked.append(number)
        elif what == "disk":
            place.disk.go(number)
        elif what in ("bad", "good"):
            place.disk.good = what == "good"
        elif place.asked:
            _, done = place.asked.pop(0)
            done(bytes(SIZE) if what == "give" else GONE if what == "gone" else "lost")
        place.cache.changed(late)
        place.check()
    place.disk.good = True
    while place.asked:
        place.asked.pop()[1]("over")
    place.disk.go()
    place.check()
    assert {msn for msn, _ in late.heard} >= set(asked), "whoever asks hears of it"
    assert late.leaving_bytes == 0
    place.cache.gone(late)
    place.streams.pop()
    place.disk.go()
    place.check()
    assert not [name for name in place.disk.files if name.startswith(f"{late.folder}/")]
    assert place.cache.statistics().read_back_bytes == 0


def test_what_comes_from_an_origin_is_kept_on_disk_where_there_is_room() -> None:
    place = Place(10**6, 3 * SIZE + 100)
    late = place.streams[1]
    for msn in range(4):
        assert place.cache.fetch_away(late, "v0", msn)
        place.asked.pop()[1](bytes(SIZE))
        place.disk.go()
    stored = [late.window.stored_bytes_of("v0", msn) for msn in range(4)]
    assert stored == [SIZE, SIZE, SIZE, None]
    assert late.window.segment("v0", 3) == [bytes(SIZE)]
    assert place.cache.counters.fetched_asked == 4
    assert place.cache.counters.spilled == 3


def test_a_segment_of_another_size_is_none() -> None:
    place = Place(10**6, 0)
    late = place.streams[1]
    place.cache.fetch_away(late, "v0", 4)
    place.asked.pop()[1](bytes(SIZE - 1))
    assert late.heard == [(4, False)]
    assert late.window.segments_lost == 1
    assert late.window.renditions["v0"].entries[0].msn == 5


def test_who_is_let_go_of_hears_no_more() -> None:
    place = Place(10**6, 0)
    late = place.streams[1]
    place.cache.fetch_away(late, "v0", 4)
    place.cache.gone(late)
    place.asked.pop()[1](bytes(SIZE))
    assert late.heard == []


def test_what_cannot_go_is_told_once() -> None:
    place = Place(4_000, 0)
    for _ in range(10):
        place.push(0)
        place.push(1)
    assert [most for _, most in place.full] == [4_000]


def test_the_file_says_how_much() -> None:
    assert CacheConfig(memory_bytes_max=2**26).limits() == CacheLimits(memory_bytes_max=2**26)


def test_what_is_on_its_way_to_the_disk_is_not_written_again() -> None:
    """Fetched, given back before the disk had it, and fetched again."""
    place = Place(20_000, 10**6)
    stream = place.streams[1]
    for msn in range(6):
        assert place.cache.fetch_away(stream, "v0", msn)
        place.asked.pop()[1](bytes(SIZE))
    assert stream.window.segment("v0", 0) is None
    assert place.cache.fetch_away(stream, "v0", 0)
    jobs = len(place.disk.jobs)
    place.asked.pop()[1](bytes(SIZE))
    assert len(place.disk.jobs) == jobs
    place.disk.go()
    place.check()
    assert stream.leaving_bytes == 0
