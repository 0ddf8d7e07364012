import gc
import weakref

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.access_unit import AccessUnit
from edged.media.gop_ring import UNIT_OVERHEAD_BYTES, GopRing, RingCursor, Start

START_US = 1_700_000_000_000_000
VIDEO, AUDIO = 1, 2


def make_unit(
    seq: int, us: int, *, track: int = VIDEO, key: bool = False, size: int = 100
) -> AccessUnit:
    """A unit `us` after the start."""
    return AccessUnit(
        track_id=track,
        seq=seq,
        config_id=0,
        pts=us,
        dts=us,
        wallclock_us=START_US + us,
        payload=bytes(size),
        random_access=key,
    )


def fill(
    ring: GopRing, gops: int, *, frames: int = 10, frame_us: int = 100_000, size: int = 100
) -> None:
    """Append whole GOPs: a video unit and an audio unit for each frame."""
    us = ring.next_seq // 2 * frame_us
    for _ in range(gops):
        for index in range(frames):
            ring.append(make_unit(ring.next_seq, us, key=index == 0, size=size))
            ring.append(make_unit(ring.next_seq, us, track=AUDIO, size=size))
            us += frame_us


def read_all(cursor: RingCursor) -> tuple[list[int], int]:
    """The seqs of all that can be read, and the units skipped."""
    seqs: list[int] = []
    skipped = 0
    while (batch := cursor.read(100, 10**6)).units or batch.skipped:
        seqs += [unit.seq for unit in batch.units]
        skipped += batch.skipped
    return seqs, skipped


def make_ring(bytes_max: int = 10**6, duration_us_max: int = 10_000_000) -> GopRing:
    return GopRing(bytes_max=bytes_max, duration_us_max=duration_us_max)


def test_an_empty_ring() -> None:
    ring = make_ring()
    assert (ring.first_seq, ring.next_seq, ring.payload_bytes, ring.duration_us, ring.gops) == (
        *(0, 0, 0, 0),
        0,
    )
    assert (len(ring), ring.last_gop_start_seq, ring.gapless, bool(ring)) == (0, 0, True, False)
    starts: tuple[Start | int, ...] = ("oldest", "latest_gop", "live", 0)
    for start in starts:
        cursor = ring.reader(start=start)
        assert cursor.read(10, 10) == cursor.read(0, 0)
        assert (cursor.lag_units, cursor.lag_bytes, cursor.skip_to_latest_gop()) == (0, 0, 0)
        fill(ring, 0)


def test_what_is_appended_is_read_once_and_in_order() -> None:
    ring = make_ring()
    fill(ring, 1)
    oldest, latest, live, exact = (
        ring.reader(start=start) for start in ("oldest", "latest_gop", "live", 7)
    )
    fill(ring, 2)
    assert ring.gops == 3
    assert ring.last_gop_start_seq == 40
    assert ring.duration_us == 2_900_000
    assert len(ring) == 60
    assert read_all(oldest) == (list(range(60)), 0)
    assert read_all(latest) == (list(range(60)), 0)
    assert read_all(live) == (list(range(20, 60)), 0)
    assert read_all(exact) == (list(range(7, 60)), 0)
    assert read_all(oldest) == ([], 0)
    assert ring.reader(start="latest_gop").next_seq == 40
    fill(ring, 1)
    assert read_all(live) == (list(range(60, 80)), 0)


def test_a_batch_is_bounded_in_units_and_bytes() -> None:
    ring = make_ring()
    fill(ring, 2)
    cursor = ring.reader(start="oldest")
    assert [unit.seq for unit in cursor.read(3, 10**6).units] == [0, 1, 2]
    assert [unit.seq for unit in cursor.read(100, 200).units] == [3, 4]
    assert [unit.seq for unit in cursor.read(100, 299).units] == [5, 6]
    assert [unit.seq for unit in cursor.read(100, 1).units] == [7]  # Or it would never pass.
    assert cursor.read(100, 0).units == cursor.read(0, 100).units == []
    assert (cursor.lag_units, cursor.lag_bytes) == (32, 3200)
    assert [unit.seq for unit in cursor.read(100, 10**6).units] == list(range(8, 40))


def test_whole_groups_leave_at_the_limit_of_bytes_and_one_past_it() -> None:
    unit_bytes = 100 + UNIT_OVERHEAD_BYTES
    ring = make_ring(bytes_max=40 * unit_bytes)
    fill(ring, 2)
    assert (ring.first_seq, ring.gops, ring.held_bytes) == (0, 2, 40 * unit_bytes)
    ring.append(make_unit(40, 2_000_000, key=True))
    assert (ring.first_seq, ring.gops, ring.payload_bytes) == (20, 2, 2100)
    assert ring.gapless


def test_whole_groups_leave_at_the_limit_of_time_and_one_past_it() -> None:
    ring = make_ring(duration_us_max=2_900_000)
    fill(ring, 3)
    assert (ring.first_seq, ring.duration_us) == (0, 2_900_000)
    ring.append(make_unit(60, 2_900_001))
    assert (ring.first_seq, ring.duration_us) == (20, 1_900_001)


def test_a_reader_that_falls_behind_goes_on_at_the_first_group_and_is_told() -> None:
    ring = make_ring(duration_us_max=3_000_000)
    fill(ring, 1)
    slow, exact = ring.reader(start="oldest"), ring.reader(start=5)
    assert len(slow.read(6, 10**6).units) == 6
    fill(ring, 5)
    assert ring.first_seq == 60
    assert slow.lag_units == 114
    assert slow.lag_bytes == 11_400
    batch = slow.read(5, 10**6)
    assert batch.skipped == 54
    assert [unit.seq for unit in batch.units] == [60, 61, 62, 63, 64]
    assert slow.read(1, 1).skipped == 0
    assert exact.read(1, 1).skipped == 55
    assert ring.reader(start=0).read(1, 1).skipped == 60


def test_skipping_to_the_latest_group() -> None:
    ring = make_ring()
    fill(ring, 3)
    cursor = ring.reader(start="oldest")
    cursor.read(7, 10**6)
    assert cursor.skip_to_latest_gop() == 33
    assert cursor.skip_to_latest_gop() == 0
    assert cursor.lag_units == 20
    assert cursor.read(0, 0).skipped == 33
    assert read_all(cursor) == (list(range(40, 60)), 0)
    assert cursor.skip_to_latest_gop() == 0


def test_acknowledged_units_leave_down_to_the_target() -> None:
    ring = make_ring()
    fill(ring, 6)
    ring.trim_below(39)
    assert ring.first_seq == 20
    ring.trim_below(10)
    assert ring.first_seq == 20
    ring.trim_below(1000)
    assert (ring.first_seq, ring.gops) == (60, 3)  # 2 s, though two groups would do.
    assert ring.duration_us == 2_900_000
    fill(ring, 2)
    assert (ring.first_seq, ring.gops) == (80, 4)  # The ack holds for what comes after it.
    short = make_ring()
    fill(short, 8, frames=2)
    short.trim_below(1000)
    assert (short.first_seq, short.gops) == (0, 8)
    long = make_ring()
    fill(long, 3, frames=30)
    long.trim_below(1000)
    assert (long.first_seq, long.gops) == (60, 2)  # Two groups, though 2 s would do.


def test_a_group_longer_than_the_ring_is_cut_and_the_stream_is_not_gapless() -> None:
    ring = make_ring(bytes_max=100 * (100 + UNIT_OVERHEAD_BYTES))
    fill(ring, 1, frames=50)
    close, slow = ring.reader(start=98), ring.reader(start="oldest")
    assert ring.gapless
    ring.append(make_unit(100, 5_000_000))
    assert not ring.gapless
    assert ring.held_bytes <= 75 * (100 + UNIT_OVERHEAD_BYTES)
    assert (ring.first_seq, ring.last_gop_start_seq, len(ring)) == (26, 101, 75)
    assert read_all(close) == ([98, 99, 100], 0)  # Who keeps up loses nothing.
    assert read_all(slow) == ([], 0)
    assert slow.skip_to_latest_gop() == 0
    waiting = ring.reader(start="latest_gop")
    ring.append(make_unit(101, 5_100_000))
    assert read_all(slow) == read_all(waiting) == ([], 0)
    ring.append(make_unit(102, 5_200_000, key=True))
    assert read_all(slow) == ([102], 102)
    assert read_all(waiting) == ([102], 1)
    assert read_all(close) == ([101, 102], 0)


def test_a_group_longer_than_the_ring_in_time() -> None:
    ring = make_ring(duration_us_max=4_000_000)
    fill(ring, 1, frames=60)
    assert not ring.gapless
    assert ring.duration_us <= 4_000_000


def test_a_unit_larger_than_the_ring_is_dropped_and_told_of() -> None:
    ring = make_ring(bytes_max=2000)
    cursor = ring.reader(start="oldest")
    ring.append(make_unit(0, 0, key=True))
    ring.append(make_unit(1, 1, size=2000))
    assert (ring.first_seq, ring.next_seq, ring.payload_bytes, len(ring)) == (2, 2, 0, 0)
    ring.append(make_unit(2, 2))
    assert (ring.first_seq, ring.duration_us) == (2, 0)
    ring.append(make_unit(3, 3, key=True))
    assert read_all(cursor) == ([3], 3)


def test_units_of_no_size_are_bounded_too() -> None:
    ring = make_ring(bytes_max=100 * UNIT_OVERHEAD_BYTES)
    for seq in range(1000):
        ring.append(make_unit(seq, 0, size=0, track=AUDIO))
    assert len(ring) <= 100


@pytest.mark.parametrize("key", [False, True])
def test_audio_alone_makes_groups_of_a_second(key: bool) -> None:
    ring = make_ring()
    for seq in range(100):
        ring.append(make_unit(seq, seq * 50_000, track=AUDIO, key=key))
    assert ring.gops == 5
    assert ring.last_gop_start_seq == 80
    assert ring.reader(start="oldest").next_seq == 0


@pytest.mark.parametrize("key", [False, True])
def test_video_takes_over_from_audio_whatever_audio_says_of_random_access(key: bool) -> None:
    ring = make_ring()
    for seq in range(30):
        ring.append(make_unit(seq, seq * 50_000, track=AUDIO, key=key))
    for seq in range(30, 100):
        us = seq * 50_000
        if seq % 2:
            ring.append(make_unit(seq, us, track=AUDIO, key=key))
        else:
            ring.append(make_unit(seq, us, key=seq % 20 == 0))
    assert ring.last_gop_start_seq == 80
    assert ring.reader(start="oldest").next_seq == 0
    ring.trim_below(99)
    assert ring.first_seq == 40


def test_intra_only_video_makes_groups_of_a_second() -> None:
    ring = make_ring()
    for seq in range(60):
        ring.append(make_unit(seq, seq * 40_000, key=True))
    assert ring.gops == 3


def test_groups_of_a_second_return_when_the_video_has_stopped() -> None:
    ring = make_ring(duration_us_max=5_000_000)
    fill(ring, 2)
    us = 2_000_000
    while us < 20_000_000:
        ring.append(make_unit(ring.next_seq, us, track=AUDIO))
        us += 50_000
    assert not ring.gapless
    assert ring.gops >= 4
    assert ring.reader(start="latest_gop").lag_units <= 20


@pytest.mark.parametrize("order", [(1, 3, 5), (5, 1, 3), (3, 5, 1)])
def test_aligned_rungs_make_one_group_whichever_comes_first(order: tuple[int, ...]) -> None:
    ring = make_ring()
    starts = []
    for frame in range(40):
        for number, track in enumerate(order):
            if frame % 10 == 0 and number == 0:
                starts.append(ring.next_seq)
            us = frame * 100_000 + number * 300
            ring.append(make_unit(ring.next_seq, us, track=track, key=frame % 10 == 0))
            ring.append(make_unit(ring.next_seq, us, track=AUDIO, key=True))
    assert ring.gops == 4
    assert ring.last_gop_start_seq == starts[-1]
    cursor = ring.reader(start="latest_gop")
    first: dict[int, bool] = {}
    for unit in cursor.read(1000, 10**6).units:
        first.setdefault(unit.track_id, unit.random_access)
    assert first == {1: True, 2: True, 3: True, 5: True}


def test_rungs_with_random_access_elsewhere_make_groups_of_their_own() -> None:
    ring = make_ring()
    for frame in range(40):
        for number, track in enumerate((1, 3)):
            key = frame % 10 == 5 * number
            ring.append(make_unit(ring.next_seq, frame * 100_000, track=track, key=key))
    assert ring.gops == 8


def test_a_rung_that_appears_late_joins_no_group_that_began_long_ago() -> None:
    ring = make_ring()
    for frame in range(12):
        ring.append(make_unit(ring.next_seq, frame * 100_000, key=frame % 10 == 0))
        if frame >= 6:
            ring.append(make_unit(ring.next_seq, frame * 100_000, track=3, key=frame in (6, 8)))
    starts = [gop.first_seq for gop in ring._gops]
    assert starts == [0, 11, 14], "at first it is not known to be video"


def test_a_stream_taken_over_in_the_middle_begins_at_its_own_seq() -> None:
    ring = make_ring()
    cursor = ring.reader(start="oldest")
    ring.append(make_unit(5000, 0, key=True))
    assert (ring.first_seq, ring.next_seq) == (5000, 5001)
    assert read_all(cursor)[0] == [5000]
    with pytest.raises(AssertionError, match="follows"):
        ring.append(make_unit(5002, 0))


def test_units_lost_upstream_are_told_at_the_gap() -> None:
    ring = make_ring()
    fill(ring, 1)
    cursor, exact = ring.reader(start="oldest"), ring.reader(start=20)
    ring.note_loss(ring.next_seq)
    ring.note_loss(30)
    ring.note_loss(31)
    inside = ring.reader(start=25)
    assert ring.gops == 2
    ring.trim_below(31)
    assert ring.first_seq == 0
    ring.append(make_unit(31, 2_000_000, key=True))
    ring.append(make_unit(32, 2_000_000, track=AUDIO))
    batch = cursor.read(100, 10**6)
    assert ([unit.seq for unit in batch.units], batch.skipped) == (list(range(20)), 0)
    assert cursor.lag_units == 13
    batch = cursor.read(100, 10**6)
    assert ([unit.seq for unit in batch.units], batch.skipped) == ([31, 32], 11)
    assert read_all(exact) == ([31, 32], 11)
    assert read_all(inside) == ([31, 32], 6)


def test_after_a_loss_in_the_middle_of_a_group_readers_wait_for_the_next() -> None:
    ring = make_ring()
    fill(ring, 1)
    cursor = ring.reader(start="live")
    ring.note_loss(25)
    ring.append(make_unit(25, 2_500_000))
    assert read_all(cursor) == ([], 0)
    fill(ring, 1)
    assert read_all(cursor) == (list(range(26, 46)), 6)


@st.composite
def actions(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """What happens to a ring and its readers, with two numbers each."""
    kinds = st.sampled_from(
        ["video", "video", "video", "key", "audio", "audio", "read", "open", "skip", "trim", "loss"]
    )
    return draw(
        st.lists(st.tuples(kinds, st.integers(0, 3000), st.integers(0, 400_000)), max_size=80)
    )


class Checked:
    """A reader that checks all it is told against what was appended."""

    def __init__(self, ring: GopRing, cursor: RingCursor) -> None:
        self.ring, self.cursor, self.next_seq = ring, cursor, cursor.next_seq
        self.first_seq = ring.first_seq

    def read(self, units_max: int, bytes_max: int, sizes: dict[int, int]) -> None:
        batch = self.cursor.read(units_max, bytes_max)
        self.next_seq += batch.skipped
        for unit in batch.units:
            assert unit.seq == self.next_seq
            self.next_seq += 1
        assert len(batch.units) <= units_max
        read = sum(len(unit.payload) for unit in batch.units)
        assert read <= bytes_max or len(batch.units) == 1
        self.check(sizes)

    def check(self, sizes: dict[int, int]) -> None:
        assert self.cursor.lag_units == self.ring.next_seq - self.cursor.next_seq
        assert self.cursor.lag_bytes == sum(
            size for seq, size in sizes.items() if seq >= max(self.cursor.next_seq, self.first_seq)
        )


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(actions(), st.integers(1, 30))
def test_bounds_hold_and_no_reader_sees_a_gap_untold(
    script: list[tuple[str, int, int]], units_max: int
) -> None:
    bytes_max = units_max * UNIT_OVERHEAD_BYTES
    ring = GopRing(bytes_max=bytes_max, duration_us_max=3_000_000, duration_us_target=1_000_000)
    readers = [Checked(ring, ring.reader(start="oldest"))]
    sizes: dict[int, int] = {}
    us = 0
    for kind, number, step in script:
        if kind in ("video", "key", "audio"):
            us += step - 50_000
            track = AUDIO if kind == "audio" else VIDEO
            sizes[ring.next_seq] = number
            ring.append(make_unit(ring.next_seq, us, track=track, key=kind == "key", size=number))
        elif kind == "read":
            readers[number % len(readers)].read(number % 7, step, sizes)
        elif kind == "open":
            seq = step % (ring.next_seq + 1)
            starts: tuple[Start | int, ...] = ("oldest", "latest_gop", "live", seq)
            readers.append(Checked(ring, ring.reader(start=starts[number % 4])))
        elif kind == "skip":
            reader = readers[number % len(readers)]
            expected = reader.cursor.next_seq + reader.cursor.skip_to_latest_gop()
            assert reader.cursor.next_seq == expected
        elif kind == "trim":
            ring.trim_below(step % (ring.next_seq + 1))
        elif sizes:
            ring.note_loss(ring.next_seq + number % 3)
        assert ring.held_bytes <= bytes_max
        assert 0 <= ring.duration_us <= 3_000_000
        held = ring.reader(start=ring.first_seq)
        units = [unit for _ in range(80) for unit in held.read(1000, 10**9).units]
        assert sum(len(unit.payload) for unit in units) <= ring.payload_bytes
        assert ring.first_seq <= ring.last_gop_start_seq <= ring.next_seq
    for reader in readers:
        for _ in range(100):
            reader.read(1000, 10**9, sizes)


@pytest.mark.pure
def test_a_stalled_cursor_keeps_no_group_that_has_left() -> None:
    ring = make_ring(duration_us_max=3_000_000)
    stalled = ring.reader(start="oldest")
    first = weakref.ref(ring._gops[0])
    fill(ring, 4)
    second = weakref.ref(ring._gops[0])
    assert second is not first
    fill(ring, 40)
    gc.collect()
    assert first() is not None, "the cursor's own"
    assert second() is None
    assert read_all(stalled)[1] > 0
