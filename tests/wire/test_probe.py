import random

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.wire.probe import (
    ANSWERS_BURST,
    ANSWERS_PER_S,
    ASKED_MAX,
    DATAGRAM_BYTES,
    HELD_S_MAX,
    INTERVAL_S,
    KEY_BYTES,
    LOST_S,
    PEERS_MAX,
    REPLAY_BITS,
    ProbeAnswered,
    ProbeAnswerer,
    ProbeAsker,
    ProbeKey,
)


def joined(seed: int = 1) -> tuple[ProbeAsker, ProbeAnswerer, ProbeKey]:
    answerer = ProbeAnswerer(random.Random(seed).randbytes)  # noqa: S311 - keys of a test
    key = answerer.admit(0.0)
    assert key is not None
    return ProbeAsker(key), answerer, key


def test_a_question_comes_back_as_its_answer_and_tells_the_round_trip() -> None:
    asker, answerer, key = joined()
    assert len(key.key) == KEY_BYTES
    question = asker.ask(10.0)
    answer = answerer.receive_datagram(question, 10.02, waited_s=0.005)
    assert answer is not None
    # 60 ms in all: 5 of them in the origin's queue, 15 in ours.
    got = asker.receive_datagram(answer, 10.06, waited_s=0.015)
    assert got is not None
    assert got.asked_at == 10.0
    assert got.rtt_s == pytest.approx(0.04)
    assert (len(question), len(answer)) == (DATAGRAM_BYTES, DATAGRAM_BYTES)
    assert question[:8] == b"edgp\x01\0\0\0"
    assert answer[:8] == b"edgp\x02\0\0\0"
    assert question[8:24] == answer[8:24] == key.key_id.to_bytes(8, "big") + bytes(7) + b"\1"
    assert answer[24:28] == (5000).to_bytes(4, "big")


def test_an_answer_counts_once() -> None:
    asker, answerer, _ = joined()
    answer = answerer.receive_datagram(asker.ask(0.0), 0.0)
    assert answer is not None
    assert asker.receive_datagram(answer, 0.1) is not None
    assert asker.receive_datagram(answer, 0.2) is None
    assert asker.ignored == 1


def test_a_question_is_answered_once_however_it_is_ordered() -> None:
    asker, answerer, _ = joined()
    questions = [asker.ask(0.0) for _ in range(10)]
    for at in (3, 1, 9, 0, 2):
        assert answerer.receive_datagram(questions[at], 0.0) is not None
        assert answerer.receive_datagram(questions[at], 0.0) is None
    assert answerer.receive_datagram(questions[4], 0.0) is not None
    assert answerer.statistics().ignored == 5


@pytest.mark.parametrize(("behind", "answered"), [(REPLAY_BITS - 1, True), (REPLAY_BITS, False)])
def test_what_is_far_behind_the_newest_may_have_come_before(behind: int, answered: bool) -> None:
    asker, answerer, _ = joined()
    first = asker.ask(0.0)
    newest = [asker.ask(0.0) for _ in range(behind)][-1]
    assert answerer.receive_datagram(newest, 0.0) is not None
    assert (answerer.receive_datagram(first, 0.0) is not None) is answered


def test_a_peer_gets_no_more_answers_than_its_rate() -> None:
    asker, answerer, _ = joined()
    answers = [answerer.receive_datagram(asker.ask(0.0), 0.0) for _ in range(100)]
    assert sum(answer is not None for answer in answers) == ANSWERS_BURST
    assert answerer.statistics().limited == 100 - ANSWERS_BURST
    answers = [answerer.receive_datagram(asker.ask(0.0), 1.0) for _ in range(100)]
    assert sum(answer is not None for answer in answers) == ANSWERS_PER_S
    # Who asks as it should is always answered.
    asker, answerer, _ = joined()
    for step in range(200):
        now = step * INTERVAL_S
        assert answerer.receive_datagram(asker.ask(now), now) is not None


def test_a_key_ends_with_its_session() -> None:
    asker, answerer, key = joined()
    answerer.forget(key)
    assert answerer.receive_datagram(asker.ask(0.0), 0.0) is None
    answerer.forget(key)
    assert answerer.statistics().keys == 0


def test_there_is_a_limit_of_keys() -> None:
    _, answerer, key = joined()
    for _ in range(PEERS_MAX - 1):
        assert answerer.admit(0.0) is not None
    assert answerer.admit(0.0) is None
    answerer.forget(key)
    assert answerer.admit(0.0) is not None


def test_two_keys_of_one_id_are_not_given() -> None:
    answerer = ProbeAnswerer(bytes)
    assert answerer.admit(0.0) is not None
    assert answerer.admit(0.0) is None


def test_what_is_not_answered_in_time_is_lost_once() -> None:
    asker, answerer, _ = joined()
    late = asker.ask(0.0)
    asker.ask(1.0)
    assert asker.take_lost(LOST_S - 0.01) == []
    assert asker.take_lost(LOST_S) == [0.0]
    answer = answerer.receive_datagram(late, LOST_S)
    assert answer is not None
    assert asker.receive_datagram(answer, LOST_S) is None
    assert asker.take_lost(1.0 + LOST_S) == [1.0]
    for _ in range(ASKED_MAX + 3):
        asker.ask(9.0)
    assert asker.take_lost(9.0) == [9.0] * 3


def test_a_clock_that_jumps_makes_no_round_trip() -> None:
    asker, answerer, _ = joined()
    answers = [answerer.receive_datagram(asker.ask(5.0), 0.0) for _ in range(2)]
    assert answers[0] is not None
    assert answers[1] is not None
    assert asker.receive_datagram(answers[0], 5.1, waited_s=0.2) == ProbeAnswered(5.0, None)
    assert asker.receive_datagram(answers[1], 100.0) == ProbeAnswered(5.0, None)
    held = answerer.receive_datagram(asker.ask(0.0), 0.0, waited_s=2.0**40)
    assert held is not None
    assert int.from_bytes(held[24:28], "big") == HELD_S_MAX * 1e6


@hypothesis.given(st.binary(max_size=2 * DATAGRAM_BYTES))
def test_garbage_is_dropped(garbage: bytes) -> None:
    asker, answerer, _ = joined()
    asker.ask(0.0)
    assert answerer.receive_datagram(garbage, 0.0) is None
    assert asker.receive_datagram(garbage, 0.0) is None


@hypothesis.given(st.integers(0, DATAGRAM_BYTES - 1), st.integers(1, 255), st.booleans())
def test_a_forgery_is_dropped_wherever_it_differs(at: int, change: int, answered: bool) -> None:
    asker, answerer, _ = joined()
    data = bytearray(asker.ask(0.0))
    if answered:
        data = bytearray(answerer.receive_datagram(bytes(data), 0.0) or b"")
    data[at] ^= change
    assert answerer.receive_datagram(bytes(data), 0.0) is None
    assert asker.receive_datagram(bytes(data), 0.0) is None


def test_neither_end_takes_what_it_made_itself_or_another_key_did() -> None:
    asker, answerer, _ = joined()
    other_asker, other_answerer, _ = joined(2)
    question = asker.ask(0.0)
    other_asker.ask(0.0)
    assert asker.receive_datagram(question, 0.0) is None  # Thrown back at us.
    assert other_answerer.receive_datagram(question, 0.0) is None
    answer = answerer.receive_datagram(question, 0.0)
    assert answer is not None
    assert answerer.receive_datagram(answer, 0.0) is None
    assert other_asker.receive_datagram(answer, 0.0) is None


@hypothesis.given(
    st.lists(st.tuples(st.sampled_from(["new", "again", "cut", "spoilt"]), st.integers(0, 63)))
)
def test_never_an_amplifier(script: list[tuple[str, int]]) -> None:
    """Whatever is sent to it, no more comes out than came in, in bytes and in datagrams."""
    asker, answerer, _ = joined()
    sent = [asker.ask(0.0)]
    received_bytes = answered_bytes = 0
    genuine = set()
    for what, at in script:
        data = sent[at % len(sent)]
        if what == "new":
            data = asker.ask(0.0)
            sent.append(data)
        elif what == "cut":
            data = data[:at]
        elif what == "spoilt":
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        answer = answerer.receive_datagram(data, 0.0)
        received_bytes += len(data)
        if answer is not None:
            assert data not in genuine, "answered twice"
            genuine.add(data)
            assert len(answer) <= len(data)
            answered_bytes += len(answer)
    assert answered_bytes <= received_bytes
