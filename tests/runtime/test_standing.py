"""What stands: by whole requests, for its second, within bounds."""

import math

import pytest

from edged.runtime.kernel_bytes import KERNEL_BYTES_MAX, KernelPool
from edged.runtime.standing import ANSWERS_PER_ASKER_MAX, REQUEST_BYTES_MAX, StandingAnswers

ASK = b"GET /part HTTP/1.1\r\n\r\n"


def nobody(*_: object) -> None:
    raise AssertionError("nothing is short here")


def made(**limits: int) -> StandingAnswers:
    standing = StandingAnswers(nobody, **limits)
    standing.begin(10.0)
    return standing


def test_it_is_found_by_the_whole_request_within_its_second() -> None:
    standing = made()
    standing.add(ASK, "part", (b"head", b"body"))
    found = standing.find(memoryview(ASK), 9.9)
    assert found is not None
    assert (found.what, found.chunks, found.size, found.fd) == ("part", (b"head", b"body"), 8, -1)
    assert standing.find(memoryview(ASK), 10.0) is None, "its second is over"
    for other in (b"", ASK[:-1], ASK + ASK, ASK.lower()):
        assert standing.find(memoryview(other), 9.9) is None


def test_nothing_stands_before_the_first_second() -> None:
    standing = StandingAnswers(nobody)
    standing.add(ASK, "part", (b"body",))
    assert standing.find(memoryview(ASK), 0.0) is None
    assert standing.find(memoryview(ASK), -math.inf) is None


def test_a_new_second_begins_without_any() -> None:
    standing = made()
    standing.add(ASK, "part", (b"body",))
    standing.begin(11.0)
    assert standing.find(memoryview(ASK), 10.5) is None
    standing.add(ASK, "newer", (b"body",))
    found = standing.find(memoryview(ASK), 10.5)
    assert found is not None
    assert found.what == "newer"


def test_what_was_sent_is_counted_once() -> None:
    standing = made()
    for name in ("a", "b", "c"):
        standing.add(ASK + name.encode(), name, (b"body",))
    for name, times in (("a", 3), ("c", 1)):
        found = standing.find(memoryview(ASK + name.encode()), 0.0)
        assert found is not None
        found.times += times
    assert list(standing.counts()) == [("a", 3), ("c", 1)]
    assert list(standing.counts()) == []


@pytest.mark.parametrize(
    ("answers_max", "bytes_max", "kept"), [(2, 1000, 2), (100, 9, 2), (100, 1000, 4)]
)
def test_it_is_bounded(answers_max: int, bytes_max: int, kept: int) -> None:
    standing = made(answers_max=answers_max, bytes_max=bytes_max)
    for number in range(4):
        standing.add(ASK + b"%d" % number, number, (b"body",))
        standing.add(ASK + b"%d" % number, "again", (b"body",))
    assert [answer.what for answer in standing.answers.values()] == list(range(kept))


def test_what_many_kinds_ask_for_counts_once() -> None:
    standing = made(bytes_max=8)
    for number in range(20):
        standing.add(ASK + b"%d" % number, number % 2, (b"body",), asker=number)
    standing.add(ASK, "more", (b"body",))
    assert len(standing.answers) == 20


def test_each_second_begins_with_all_the_room() -> None:
    standing = made(bytes_max=8)
    for second in range(5):
        standing.begin(float(second))
        for number in range(2):
            standing.add(ASK + b"%d" % number, number, (b"body",))
        assert len(standing.answers) == 2


def test_one_who_asks_for_everything_leaves_room() -> None:
    standing = made()
    for second in range(2):
        standing.begin(float(second))
        for number in range(10 * ANSWERS_PER_ASKER_MAX):
            standing.add(ASK + b"%d" % number, number, (b"body",), asker=7)
        assert len(standing.answers) == ANSWERS_PER_ASKER_MAX
        standing.add(ASK, "another's", (b"body",), asker=8)
        assert ASK in standing.answers


def test_what_is_too_large_does_not_stand() -> None:
    standing = made()
    standing.add(ASK, "large", (bytes(KERNEL_BYTES_MAX + 1),))
    standing.add(bytes(REQUEST_BYTES_MAX + 1), "long", (b"body",))
    assert not standing.answers
    assert standing.find(memoryview(bytes(REQUEST_BYTES_MAX + 1)), 0.0) is None
    standing.add(bytes(REQUEST_BYTES_MAX), "all", (bytes(KERNEL_BYTES_MAX),))
    assert standing.find(memoryview(bytes(REQUEST_BYTES_MAX)), 0.0) is not None


def test_the_kernels_copy_lives_as_long_as_it_stands() -> None:
    pool, standing = KernelPool(), made()
    chunks = (b"head", b"body")
    for _ in range(10):
        held = pool.hold("part", chunks)
    standing.add(ASK, "part", chunks, held)
    del held
    pool.clear()
    assert pool.files == 1
    standing.begin(11.0)
    assert pool.files == 0
