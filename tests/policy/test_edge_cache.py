"""What goes when an edge holds too much: by the rule, within the limits, never what is needed."""

import hypothesis
from hypothesis import strategies as st
from msgspec import structs

from edged.media.stream import StreamId
from edged.policy.edge_cache import (
    ROOM_DEN,
    SEGMENT_BYTES,
    CacheLimits,
    CacheUse,
    Choice,
    Rank,
    Shelf,
    choose_drops,
    choose_spills,
    count_held,
    is_full,
    quiet_bytes,
    spill_bytes,
)
from edged.policy.rendition_window import (
    PARTS_TARGETS,
    PLAYLIST_TARGETS_MIN,
    SETTLED_TARGETS,
    RenditionWindow,
)
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from tests.policy.window_events import feed, init, part, rendition, whole

TARGET_US = 4_000_000
WINDOW = WindowLimits(playlist_s=40.0, retention_s=100.0, payload_bytes_max=2**30)


def make_stream(number: int, limits: WindowLimits = WINDOW, *, segments: int = 0) -> StreamWindow:
    stream = StreamWindow(StreamId(channel=f"c{number}", publication=number), limits)
    for name in ("v0", "a0"):
        feed(stream, rendition(name), init(name))
    for msn in range(segments):
        feed(stream, *whole(msn, "v0"), *whole(msn, "a0"))
    return stream


def shelves_of(*streams: tuple[StreamWindow, bool]) -> list[Shelf]:
    return [
        Shelf(stream, window, watched)
        for stream, watched in streams
        for window in stream.renditions.values()
    ]


def use_of(*streams: StreamWindow) -> CacheUse:
    return CacheUse(
        memory_bytes=sum(count_held(stream).memory_bytes for stream in streams),
        stored_bytes=sum(count_held(stream).stored_bytes for stream in streams),
    )


def everything(use: CacheUse) -> CacheLimits:
    """Limits that nothing can keep to."""
    return CacheLimits(memory_bytes_max=ROOM_DEN, disk_bytes_max=0)


def ranks(choices: list[Choice]) -> list[Rank]:
    return [choice.rank for choice in choices]


def listed_us(window: RenditionWindow) -> int:
    return sum(segment.entry.duration_us for segment in window.listed)


def test_what_is_wanted_least_goes_first() -> None:
    """40 s are listed and 100 s kept; players may ask for the first 46 of these."""
    watched, unwatched = make_stream(1, segments=100), make_stream(2, segments=100)
    shelves = shelves_of((watched, True), (unwatched, False))
    use = use_of(watched, unwatched)
    drops = choose_drops(everything(use), use, lambda: shelves)
    assert ranks(drops) == sorted(ranks(drops))
    for stream, has in (
        (watched, {Rank.SPARE, Rank.KEPT, Rank.LISTED, Rank.FRESH}),
        (unwatched, {Rank.SPARE, Rank.UNWATCHED}),
    ):
        for window in stream.renditions.values():
            mine = [choice for choice in drops if choice.shelf.window is window]
            assert {choice.rank for choice in mine} == has
            msns = [choice.segment.entry.msn for choice in mine]
            assert msns == list(window.segments)[: len(msns)], "a playlist has no holes"
            left_us = listed_us(window) - 2_000_000 * sum(
                choice.segment.entry.msn >= window.listed[0].entry.msn for choice in mine
            )
            assert left_us >= PLAYLIST_TARGETS_MIN * TARGET_US
            assert left_us < PLAYLIST_TARGETS_MIN * TARGET_US + 4_000_000, "and all else may go"
    spare = [choice for choice in drops if choice.rank is Rank.SPARE]
    msns = [choice.segment.entry.msn for choice in spare]
    assert msns == sorted(msns), "the one furthest behind first, whatever its stream"


def test_a_part_that_may_be_asked_for_stays_in_memory() -> None:
    """RFC 8216bis §6.2.2: for 3 target durations when it is no longer listed, which is after 3."""
    stream = make_stream(1, segments=100)
    feed(stream, part(100, 0), part(100, 0, "a0"))
    use = use_of(stream)
    limits = CacheLimits(memory_bytes_max=ROOM_DEN, disk_bytes_max=2**40)
    spills = choose_spills(limits, use, lambda: shelves_of((stream, True)), leaving_bytes_max=2**40)
    window = stream.renditions["v0"]
    gone = max(c.segment.entry.msn for c in spills if c.shelf.window is window)
    after_us = sum(s.entry.duration_us for m, s in window.segments.items() if m > gone)
    assert after_us >= (PARTS_TARGETS + 3) * TARGET_US
    assert after_us <= SETTLED_TARGETS * TARGET_US + 4_000_000, "and no more than that"
    assert {choice.rank for choice in spills} == {Rank.SPARE, Rank.KEPT, Rank.LISTED}


def test_nothing_goes_at_the_limits_and_something_one_past_them() -> None:
    stream = make_stream(1, segments=100)
    shelves = shelves_of((stream, True))
    use = CacheUse(memory_bytes=32_000, stored_bytes=64_000)
    limits = CacheLimits(memory_bytes_max=32_000, disk_bytes_max=64_000)
    assert not is_full(limits, use)
    over = structs.replace(use, memory_bytes=32_001)
    assert is_full(limits, over)
    no_disk = structs.replace(limits, disk_bytes_max=0)
    empty = structs.replace(use, stored_bytes=0)
    assert choose_drops(no_disk, empty, lambda: shelves) == []
    (drop,) = choose_drops(no_disk, structs.replace(empty, memory_bytes=32_001), lambda: shelves)
    assert drop.segment.payload_bytes + SEGMENT_BYTES > 1_000, "and a 32nd of room"

    spilling = structs.replace(use, memory_bytes=24_000, stored_bytes=0)
    assert spill_bytes(limits, spilling) == 0
    assert (quiet_bytes(limits), quiet_bytes(no_disk)) == (24_000, 32_000)
    assert choose_spills(limits, spilling, lambda: shelves, leaving_bytes_max=2**20) == []
    spilling = structs.replace(spilling, memory_bytes=24_001)
    assert spill_bytes(limits, spilling) == 1_001
    assert spill_bytes(no_disk, spilling) == 0
    spills = choose_spills(limits, spilling, lambda: shelves, leaving_bytes_max=2**20)
    assert len(spills) == 3, "a 32nd and what is over, of segments of 500 bytes"
    assert len(choose_spills(limits, spilling, lambda: shelves, leaving_bytes_max=500)) == 1
    assert choose_spills(limits, spilling, lambda: shelves, leaving_bytes_max=499) == []
    busy = CacheUse(memory_bytes=24_001 + 1_000, leaving_bytes=1_000)
    assert choose_spills(limits, busy, lambda: shelves, leaving_bytes_max=2_000)
    busy = CacheUse(memory_bytes=24_001 + 1_001, leaving_bytes=1_001)
    assert not choose_spills(limits, busy, lambda: shelves, leaving_bytes_max=2_000)


def test_a_full_disk_lets_go_of_what_is_on_it() -> None:
    cold, warm = make_stream(1, segments=100), make_stream(2, segments=100)
    for window in warm.renditions.values():
        for msn in list(window.segments)[:20]:
            window.store(msn)
    use = use_of(cold, warm)
    assert use.stored_bytes == 2 * 20 * 500
    limits = CacheLimits(memory_bytes_max=2**30, disk_bytes_max=19_000)
    drops = choose_drops(limits, use, lambda: shelves_of((cold, False), (warm, True)))
    assert {choice.shelf.stream is warm for choice in drops} == {True}
    assert len(drops) == 4, "1,000 bytes, and a 32nd of 19,000"


class Disk:
    """Writes when the test says so."""

    def __init__(self) -> None:
        self.leaving: list[tuple[RenditionWindow, int, int]] = []

    def settle(self, *, good: bool) -> None:
        for window, msn, _size in self.leaving:
            segment = window.in_memory.get(msn)
            if segment is not None:
                segment.leaving = False
                if good:
                    window.store(msn)
        self.leaving.clear()


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # Which stream
        st.integers(1, 12),  # gets so many segments,
        st.sampled_from([0, 0, 0, 1, 40]),  # behind so many that are lost.
        st.sampled_from(["good", "bad", "slow"]),  # What the disk does.
        st.sets(st.integers(0, 2)),  # Who is watched.
    ),
    max_size=40,
)


@hypothesis.given(
    steps=STEPS,
    memory_bytes_max=st.integers(50_000, 400_000),
    disk_bytes_max=st.sampled_from([0, 30_000, 100_000, 2**30]),
    playlist_s=st.sampled_from([12.0, 40.0, 400.0]),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_the_bounds_hold_whatever_comes(
    steps: list[tuple[int, int, int, str, set[int]]],
    memory_bytes_max: int,
    disk_bytes_max: int,
    playlist_s: float,
) -> None:
    limits = CacheLimits(memory_bytes_max=memory_bytes_max, disk_bytes_max=disk_bytes_max)
    window_limits = WindowLimits(
        playlist_s=playlist_s, retention_s=playlist_s + 10, payload_bytes_max=2**30
    )
    streams = [make_stream(number, window_limits) for number in range(3)]
    next_msn, disk = [0, 0, 0], Disk()

    watched: set[int] = set()

    def shelves() -> list[Shelf]:
        return shelves_of(*((stream, at in watched) for at, stream in enumerate(streams)))

    def use() -> CacheUse:
        return structs.replace(use_of(*streams), leaving_bytes=sum(s for _, _, s in disk.leaving))

    for number, segments, lost, weather, watches in steps:
        watched.clear()
        watched |= watches
        next_msn[number] += lost
        for _ in range(segments):
            msn = next_msn[number]
            next_msn[number] += 1
            feed(streams[number], *whole(msn, "v0"), *whole(msn, "a0"))
            spilling = spill_bytes(limits, use())
            for choice in choose_drops(limits, use(), shelves, spilling=spilling):
                window = choice.shelf.window
                assert next(iter(window.segments)) == choice.segment.entry.msn
                was_listed = window.listed[0] is choice.segment
                window.evict()
                assert not was_listed or listed_us(window) >= PLAYLIST_TARGETS_MIN * TARGET_US
            spills = choose_spills(limits, use(), shelves, leaving_bytes_max=20_000)
            for choice in spills:
                assert choice.rank is not Rank.FRESH
                choice.segment.leaving = True
                disk.leaving.append(
                    (choice.shelf.window, choice.segment.entry.msn, choice.segment.payload_bytes)
                )
            assert use().leaving_bytes <= 20_000
            assert use().stored_bytes + use().leaving_bytes <= disk_bytes_max
            check(streams)
            if is_full(limits, use()):
                assert all(s.window.droppable == 0 for s in shelves()), "nothing can go"
                assert all(not s.window.kept_us for s in shelves())
        if weather != "slow":
            disk.settle(good=weather == "good")
            check(streams)


def check(streams: list[StreamWindow]) -> None:
    """The accounts are true, and the playlists without holes."""
    for stream in streams:
        for window in stream.renditions.values():
            held = window.segments.values()
            in_memory = sum(s.payload_bytes for s in held if not s.stored)
            assert window.payload_bytes == in_memory + 10  # Its init.
            assert window.stored_bytes == sum(s.payload_bytes for s in held if s.stored)
            assert window.stored_us == sum(s.entry.duration_us for s in held if s.stored)
            assert list(window.in_memory) == [m for m, s in window.segments.items() if not s.stored]
            if not window.listed:
                continue
            msns = [segment.entry.msn for segment in window.listed]
            assert msns == list(range(msns[0], msns[-1] + 1))
            assert [entry.msn for entry in window.entries] == msns
            assert window.listed_bytes == sum(s.payload_bytes for s in window.listed)
            assert window._listed_discontinuities == sum(
                segment.entry.discontinuity for segment in window.listed
            )
