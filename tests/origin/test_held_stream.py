"""What an origin gives of a stream by name: from memory, from disk, or a clear answer."""

from collections.abc import Sequence

from edged.media.stream import StreamId
from edged.origin.held_stream import TOO_MUCH, HeldStream
from edged.policy.edge_cache import CacheLimits
from edged.policy.segment_cache import GONE, SegmentCache
from edged.policy.window_limits import WindowLimits
from tests.policy.fake_store import FakeStore
from tests.policy.window_events import feed, init, part, rendition, whole

RUN = StreamId("alice", 7, 1)
LIMITS = WindowLimits(playlist_s=3600.0, retention_s=3610.0, payload_bytes_max=2**30)
Got = list[Sequence[bytes] | str]


class FullDisk(FakeStore):
    def read(self, name: str, size: int, done: object) -> bool:
        return False


def hold(disk: FakeStore, segments: int = 40) -> tuple[HeldStream, SegmentCache]:
    """Most of it is on disk."""
    held: list[HeldStream] = []
    limits = CacheLimits(memory_bytes_max=60_000, disk_bytes_max=10**6)
    cache = SegmentCache(limits, lambda: [(one, True) for one in held], now=lambda: 0.0, store=disk)
    stream = HeldStream(RUN, LIMITS, cache)
    held.append(stream)
    feed(stream.window, rendition(), init())
    for msn in range(segments):
        for event in whole(msn):
            stream.window.add(event)
            cache.changed(stream)
            disk.go()
    feed(stream.window, part(segments, 0))
    return stream, cache


def bytes_of(msn: int) -> bytes:
    return b"".join(part(msn, index).payload for index in range(5))


def test_a_segment_is_given_from_memory_at_once() -> None:
    stream, _ = hold(FakeStore(at_once=False))
    got: Got = []
    stream.give("v0", 39, got.append)
    (body,) = got
    assert not isinstance(body, str)
    assert b"".join(body) == bytes_of(39)


def test_whole_segments_are_had_wherever_they_are() -> None:
    stream, _ = hold(FakeStore(at_once=False))
    assert stream.window.stored_bytes_of("v0", 2) is not None
    assert stream.has("v0", 2), "on disk"
    assert stream.has("v0", 39), "in memory"
    assert not stream.has("v0", 40), "it grows"
    assert not stream.has("v0", 41)
    assert not stream.has("v9", 2)


def test_it_is_read_from_disk_once_for_all_who_ask() -> None:
    disk = FakeStore(at_once=False)
    stream, cache = hold(disk)
    assert stream.window.stored_bytes_of("v0", 2) is not None
    got: Got = []
    for _ in range(3):
        stream.give("v0", 2, got.append)
    assert not got
    assert len(disk.jobs) == 1
    disk.go()
    assert got == [[bytes_of(2)]] * 3
    assert cache.statistics().read_back_bytes == 0, "the PoPs keep it"
    stream.give("v0", 2, got.append)
    assert len(disk.jobs) == 1


def test_what_is_not_whole_or_not_there_is_gone() -> None:
    stream, _ = hold(FakeStore(at_once=False))
    got: Got = []
    for name, msn in (("v0", 40), ("v0", 99), ("a0", 1), ("v0", -1)):
        stream.give(name, msn, got.append)
    assert got == [GONE] * 4


def test_a_file_that_is_lost_is_gone_with_what_is_older() -> None:
    disk = FakeStore(at_once=False)
    stream, _ = hold(disk)
    disk.files.clear()
    got: Got = []
    stream.give("v0", 3, got.append)
    disk.go()
    assert got == [GONE]
    assert next(iter(stream.window.renditions["v0"].segments)) == 4


def test_a_disk_that_has_much_to_read_says_so() -> None:
    stream, _ = hold(FullDisk(at_once=False))
    got: Got = []
    stream.give("v0", 2, got.append)
    stream.give("v0", 2, got.append)
    assert got == [TOO_MUCH] * 2


def test_who_waits_when_it_is_let_go_of_hears_of_it() -> None:
    disk = FakeStore(at_once=False)
    stream, cache = hold(disk)
    got: Got = []
    stream.give("v0", 2, got.append)
    cache.gone(stream)
    stream.abandon()
    disk.go()
    assert got == [GONE]
    assert not disk.files
