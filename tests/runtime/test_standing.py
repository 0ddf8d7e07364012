"""What stands: by paths and kinds of players, for its second, within bounds."""

import math

import pytest

from edged.runtime.kernel_bytes import KERNEL_BYTES_MAX, KernelPool
from edged.runtime.standing import (
    ANSWERS_PER_ASKER_MAX,
    HEADS_MAX,
    REQUEST_BYTES_MAX,
    StandingAnswers,
)

HEAD = b"Host: edge\r\nUser-Agent: one\r\n\r\n"
ASK = b"GET /part HTTP/1.1\r\n" + HEAD


def ask(number: object, head: bytes = HEAD) -> bytes:
    return b"GET /part%b HTTP/1.1\r\n%b" % (str(number).encode(), head)


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
        standing.add(ask(name), name, (b"body",))
    for name, times in (("a", 3), ("c", 1)):
        found = standing.find(memoryview(ask(name)), 0.0)
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
        standing.add(ask(number), number, (b"body",))
        standing.add(ask(number), "again", (b"body",))
    assert [answer.what for answer in standing.answers.values()] == list(range(kept))


def test_what_many_kinds_ask_for_counts_once() -> None:
    standing = made(bytes_max=8)
    for number in range(20):
        standing.add(ask(number), number % 2, (b"body",), asker=number)
    standing.add(ASK, "more", (b"body",))
    assert len(standing.answers) == 20


def test_each_second_begins_with_all_the_room() -> None:
    standing = made(bytes_max=8)
    for second in range(5):
        standing.begin(float(second))
        for number in range(2):
            standing.add(ask(number), number, (b"body",))
        assert len(standing.answers) == 2


def test_one_who_asks_for_everything_leaves_room() -> None:
    standing = made()
    for second in range(2):
        standing.begin(float(second))
        for number in range(10 * ANSWERS_PER_ASKER_MAX):
            standing.add(ask(number), number, (b"body",), asker=7)
        assert len(standing.answers) == ANSWERS_PER_ASKER_MAX
        standing.add(ASK, "another's", (b"body",), asker=8)
        assert b"/part" in standing.answers


def test_what_is_too_large_does_not_stand() -> None:
    standing = made()
    standing.add(ASK, "large", (bytes(KERNEL_BYTES_MAX + 1),))
    long = ask("", b"A: ".ljust(REQUEST_BYTES_MAX - len(ask("", b"")), b"x"))
    standing.add(long + b"x", "long", (b"body",))
    assert not standing.answers
    assert standing.find(memoryview(long + b"x"), 0.0) is None
    standing.add(long, "all", (bytes(KERNEL_BYTES_MAX),))
    assert standing.find(memoryview(long), 0.0) is not None


def test_a_kind_of_player_is_known_by_all_behind_its_request_line() -> None:
    standing = made()
    other = HEAD.replace(b"one", b"two")
    standing.add(ask(1), "1", (b"1",))
    standing.add(ask(2, other), "2", (b"2",))
    for number in (1, 2):
        for head in (HEAD, other):
            found = standing.find(memoryview(ask(number, head)), 0.0)
            assert found is not None
            assert found.what == str(number)
    assert standing.find(memoryview(ask(1, HEAD.lower())), 0.0) is None
    standing.begin(11.0)
    standing.add(ask(3), "3", (b"3",))
    assert standing.find(memoryview(ask(3, other)), 0.0) is not None, "it is known for longer"


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        (b"GET /part HTTP/1.1", True),
        (b"GET /part? HTTP/1.1", True),
        (b"GET /part?n=1&m=%20?x HTTP/1.1", True),
        (b"GET /part?a b HTTP/1.1", False),
        (b"GET /part?a\rb HTTP/1.1", False),
        (b"GET /part?a\x00 HTTP/1.1", False),
        (b"GET /part?\xc3\xa4 HTTP/1.1", False),
        (b"GET /part?\x7f HTTP/1.1", False),
        (b"GET /part HTTP/1.0", False),
        (b"GET  /part HTTP/1.1", False),
        (b"GET /part  HTTP/1.1", False),
        (b"HEAD /part HTTP/1.1", False),
        (b"get /part HTTP/1.1", False),
        (b"GET /part/ HTTP/1.1", False),
        (b"GET /par HTTP/1.1", False),
        (b"GET /part", False),
        (b"GET HTTP/1.1", False),
        (b"", False),
    ],
)
def test_request_lines(line: bytes, is_found: bool) -> None:
    standing = made()
    standing.add(ASK, "part", (b"body",))
    assert (standing.find(memoryview(line + b"\r\n" + HEAD), 0.0) is not None) is is_found


def test_kinds_of_players_are_bounded() -> None:
    standing = made()
    for number in range(HEADS_MAX + 10):
        standing.add(ask(1, b"A: %d\r\n\r\n" % number), "1", (b"1",), asker=number)
    assert len(standing.heads) == HEADS_MAX
    standing.begin(11.0)
    assert not standing.heads


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
