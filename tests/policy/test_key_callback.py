import json

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import PublishRefusedError
from edged.media.stream import Grant, PriorityClass
from edged.policy.key_callback import (
    REASON_CHARS_MAX,
    KeyCache,
    KeyQuestion,
    KeyRefused,
    NoAnswerError,
    admit,
    encode_question,
    no_answer,
    read_answer,
    settle_latency,
)
from edged.policy.stream_keys import REFUSED_UNKNOWN

KEY = "key-of-alice"
QUESTION = KeyQuestion(
    app="live", stream_key=KEY, protocol="rtmp", peer="10.0.0.7:50112", encoder="OBS"
)


def as_json(**values: object) -> bytes:
    return json.dumps(values).encode()


def test_the_question() -> None:
    assert json.loads(encode_question(QUESTION, "ams1")) == {
        "app": "live",
        "stream_key": KEY,
        "protocol": "rtmp",
        "peer": "10.0.0.7:50112",
        "encoder": "OBS",
        "pop": "ams1",
    }


def test_a_key_that_no_json_can_hold_is_unknown() -> None:
    odd = msgspec.structs.replace(QUESTION, stream_key="\ud800")
    with pytest.raises(PublishRefusedError) as refusal:
        encode_question(odd, "ams1")
    assert refusal.value.code == "unknown_key"
    odd = msgspec.structs.replace(QUESTION, encoder="\ud800" * 1000)
    assert len(json.loads(encode_question(odd, "ams1"))["encoder"]) == 256


def test_a_question_shows_no_key() -> None:
    assert KEY not in repr(QUESTION)
    assert KEY not in str(QUESTION.__rich_repr__())


def test_a_grant() -> None:
    assert read_answer(200, as_json(channel="alice"), KEY) == Grant(channel="alice")
    body = as_json(
        **{"class": "partner"},
        channel="alice",
        title="Alice 👩‍🎤",
        tags=["event:final"],
        ladder="big",
        record=True,
        playback="public",
        expires_at=1_700_000_000,
        category="Music",
        labels=["live", "No Spoilers"],
    )
    assert read_answer(200, body, KEY) == Grant(
        channel="alice",
        priority=PriorityClass.PARTNER,
        title="Alice 👩‍🎤",
        tags=("event:final",),
        ladder="big",
        record=True,
        expires_at=1_700_000_000.0,
        category="Music",
        labels=("live", "No Spoilers"),
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        as_json(),
        as_json(channel="Alice Cooper"),
        as_json(channel="a" * 64),
        as_json(channel=7),
        as_json(channel="alice", expire_at=1),
        as_json(channel="alice", expires_at="soon"),
        as_json(channel="alice", expires_at=0),
        as_json(channel="alice", title="x" * 141),
        as_json(channel="alice", title="a\nb"),
        as_json(channel="alice", tags=["x"] * 17),
        as_json(channel="alice", tags=["no spaces"]),
        as_json(channel="alice", ladder="x" * 65),
        as_json(channel="alice", record="yes"),
        as_json(channel="alice", playback="secret"),
        as_json(channel="alice", category="x" * 101),
        as_json(channel="alice", labels=["x"] * 2),
        as_json(channel="alice", labels=["a\u202eb"]),
        as_json(channel="alice", **{"class": "god"}),
        as_json(channel="alice", **{KEY: 1}),
    ],
)
def test_what_is_no_grant_is_no_answer(body: bytes) -> None:
    with pytest.raises(NoAnswerError, match="answered with what is no grant: ") as error:
        read_answer(200, body, KEY)
    assert KEY not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("status", [100, 201, 204, 302, 400, 402, 405, 429, 500, 503])
def test_other_statuses_are_no_answer(status: int) -> None:
    with pytest.raises(NoAnswerError, match=f"status {status}"):
        read_answer(status, as_json(channel="alice"), KEY)


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (as_json(reason="you are\n banned"), "you are banned"),
        (as_json(reason="x" * 1000, code=7), "x" * REASON_CHARS_MAX),
        (as_json(reason=f"{KEY} is wrong"), REFUSED_UNKNOWN),
        (as_json(reason="\x1b[31m"), REFUSED_UNKNOWN),
        (as_json(reason=7), REFUSED_UNKNOWN),
        (as_json(reason=""), REFUSED_UNKNOWN),
        (b"<html>not found</html>", REFUSED_UNKNOWN),
        (b"[" * 100_000, REFUSED_UNKNOWN),
        (b"", REFUSED_UNKNOWN),
    ],
)
def test_a_refusal_and_its_reason(status: int, body: bytes, reason: str) -> None:
    assert read_answer(status, body, KEY) == KeyRefused(reason)


@hypothesis.given(st.integers(100, 599), st.binary())
def test_any_answer_is_read_or_is_none(status: int, body: bytes) -> None:
    try:
        read_answer(status, body, KEY)
    except NoAnswerError:
        assert status not in (401, 403, 404)


def test_admitting() -> None:
    grant = Grant(channel="alice", expires_at=100.0)
    assert admit(grant, 99.9) is grant
    with pytest.raises(PublishRefusedError, match=r"expired_key: .*'alice' expired 0 s ago"):
        admit(grant, 100.0)
    with pytest.raises(PublishRefusedError, match="unknown_key: banned"):
        admit(KeyRefused("banned"), 0.0)
    error = no_answer("status 500")
    assert (error.code, error.detail) == ("auth_unavailable", "key callback: status 500")
    assert "500" not in error.reason


GRANT, REFUSED = Grant(channel="alice"), KeyRefused("no")


def make_cache(entries_max: int = 3, ttl_s: float = 10.0, negative_ttl_s: float = 2.0) -> KeyCache:
    return KeyCache(b"secret", entries_max=entries_max, ttl_s=ttl_s, negative_ttl_s=negative_ttl_s)


def test_answers_are_kept_for_their_time() -> None:
    cache = make_cache()
    cache.put(b"a", GRANT, 0.0)
    cache.put(b"b", REFUSED, 0.0)
    assert (cache.get(b"a", 1.9), cache.get(b"b", 1.9)) == (GRANT, REFUSED)
    assert (cache.get(b"a", 9.9), cache.get(b"b", 2.0)) == (GRANT, None)
    assert cache.get(b"a", 10.0) is None
    cache.put(b"b", GRANT, 3.0)  # It has been allowed meanwhile,
    assert cache.get(b"b", 3.0) == GRANT
    cache.put(b"b", REFUSED, 4.0)  # and no more.
    assert cache.get(b"b", 4.0) == REFUSED
    assert cache.get(b"b", 6.0) is None


def test_with_no_time_nothing_is_kept() -> None:
    cache = make_cache(ttl_s=0.0, negative_ttl_s=0.0)
    cache.put(b"a", GRANT, 0.0)
    cache.put(b"b", REFUSED, 0.0)
    assert len(cache) == 0


def test_wrong_keys_do_not_push_right_ones_out() -> None:
    cache = make_cache(entries_max=3)
    cache.put(b"right", GRANT, 0.0)
    for number in range(100):
        cache.put(b"%d" % number, REFUSED, 0.0)
        assert len(cache) <= 4
    assert cache.get(b"right", 1.0) == GRANT
    assert cache.get(b"99", 1.0) == REFUSED
    assert cache.get(b"96", 1.0) is None
    for number in range(3):
        cache.put(b"right%d" % number, GRANT, 1.0)
    assert cache.get(b"right", 1.0) is None


def test_names_tell_no_key_and_mix_up_no_questions() -> None:
    cache = make_cache()
    questions = [
        QUESTION,
        msgspec.structs.replace(QUESTION, protocol="rtmps"),
        msgspec.structs.replace(QUESTION, app="live2"),
        msgspec.structs.replace(QUESTION, stream_key=KEY + "x"),
        msgspec.structs.replace(QUESTION, stream_key="\ud800"),
        msgspec.structs.replace(QUESTION, app="livertmp", protocol=""),
    ]
    names = {cache.name(question) for question in questions}
    assert len(names) == len(questions)
    elsewhere = msgspec.structs.replace(QUESTION, peer="10.0.0.8:1", encoder="ffmpeg")
    assert cache.name(elsewhere) == cache.name(QUESTION)
    other = KeyCache(b"other", entries_max=1, ttl_s=1, negative_ttl_s=1)
    assert other.name(QUESTION) not in names


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.floats(0, 3))), st.integers(1, 4)
)
def test_the_cache_is_bounded_and_never_old(
    puts: list[tuple[int, bool, float]], entries_max: int
) -> None:
    cache, now = make_cache(entries_max), 0.0
    last: dict[int, tuple[float, bool]] = {}
    for key, granted, pause in puts:
        now += pause
        cache.put(b"%d" % key, GRANT if granted else REFUSED, now)
        last[key] = (now, granted)
        assert len(cache) <= 2 * entries_max
        assert cache.get(b"%d" % key, now) == (GRANT if granted else REFUSED)
        for other, (put_at, was_granted) in last.items():
            found = cache.get(b"%d" % other, now)
            if found is not None:
                assert found == (GRANT if was_granted else REFUSED)
                assert now < put_at + (10.0 if was_granted else 2.0)


def test_a_latency_class() -> None:
    verdict = read_answer(200, as_json(channel="alice", latency="ultra"), KEY)
    assert verdict == Grant(channel="alice", latency="ultra")
    assert settle_latency(verdict, KEY) == (verdict, "")
    assert settle_latency(KeyRefused("no"), KEY) == (KeyRefused("no"), "")


@pytest.mark.parametrize("latency", ["", "fast", "Ultra", KEY, "x" * 5000])
def test_an_unknown_latency_class_is_the_default_and_named(latency: str) -> None:
    verdict = read_answer(200, as_json(channel="alice", latency=latency), KEY)
    settled, problem = settle_latency(verdict, KEY)
    assert settled == Grant(channel="alice")
    assert "is none of default, low, ultra, standard" in problem
    assert len(problem) < 150
    assert KEY not in problem
