"""Stream keys: what is granted, what is refused, and that no message tells a key."""

import base64
import hashlib
import re

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import ConfigError, PublishRefusedError
from edged.media.latency import LATENCY_LABELS, LatencyLabel
from edged.media.stream import Grant, PriorityClass
from edged.policy.stream_keys import (
    KEY_CHARS_MAX,
    SECRETS_MAX,
    STATIC_KEYS_MAX,
    StaticKey,
    StreamKeys,
    StreamKeysConfig,
    find_problems,
    make_secret,
    make_signed_key,
    make_static_key,
)

NOW = 1_700_000_000.0
SECRET = "s" * 40
OTHER_SECRET = "t" * 40
KEYS = StreamKeys(
    [
        StaticKey(channel="alice", key="alice-key-1", priority="partner", tags=("event:x",)),
        StaticKey(channel="bob", key_sha256=hashlib.sha256(b"bob-key").hexdigest(), title="Bob"),
        StaticKey(channel="carol", key="carol-key", scope=("publish:srt",)),
    ],
    {"main": SECRET, "old": OTHER_SECRET},
)


def entropy(count: int) -> bytes:
    return bytes(range(count))


def refusal(app: str, key: str, *, now: float = NOW, protocol: str = "rtmp") -> PublishRefusedError:
    with pytest.raises(PublishRefusedError) as caught:
        KEYS.check(app, key, now, protocol)
    assert len(key) < 4 or key not in str(caught.value)
    return caught.value


def test_static_key_grants_what_its_line_says() -> None:
    assert KEYS.check("live", "alice-key-1", NOW, "rtmp") == Grant(
        channel="alice", priority=PriorityClass.PARTNER, tags=("event:x",)
    )
    assert KEYS.check("live/", "bob-key", NOW, "rtmp") == Grant(channel="bob", title="Bob")


def test_signed_key_grants_what_was_signed() -> None:
    key = make_signed_key(
        SECRET,
        "dave",
        signer="main",
        expires_at=NOW + 60,
        priority=PriorityClass.AFFILIATE,
        title="Ünïcode / ?&",
        tags=("a", "event:y"),
        ladder="high",
        record=True,
    )
    assert KEYS.check("live", key, NOW, "rtmp") == Grant(
        channel="dave",
        priority=PriorityClass.AFFILIATE,
        title="Ünïcode / ?&",
        tags=("a", "event:y"),
        ladder="high",
        record=True,
        expires_at=NOW + 60,
    )


def test_both_secrets_of_a_rotation_are_accepted() -> None:
    key = make_signed_key(OTHER_SECRET, "dave", signer="old")
    assert KEYS.check("live", key, NOW, "srt") == Grant(channel="dave")


def test_expiry_is_exact() -> None:
    key = make_signed_key(SECRET, "dave", signer="main", expires_at=NOW)
    assert KEYS.check("live", key, NOW - 0.001, "rtmp").expires_at == NOW
    assert refusal("live", key, now=NOW).code == "expired_key"
    assert "expired 5 s ago" in refusal("live", key, now=NOW + 5).reason


def test_key_that_expired_before_1970_is_not_one_that_never_expires() -> None:
    key = make_signed_key(SECRET, "dave", signer="main", expires_at=-5.0)
    assert refusal("live", key).code == "expired_key"


@pytest.mark.parametrize("key", ["carol-key", "signed"])
def test_scope_names_the_protocols(key: str) -> None:
    if key == "signed":
        key = make_signed_key(SECRET, "carol", signer="main", scope=["publish:srt"])
    assert KEYS.check("live", key, NOW, "srt").channel == "carol"
    error = refusal("live", key, protocol="rtmp")
    assert error.code == "out_of_scope"
    assert error.reason.endswith("does not allow rtmp; it allows publish:srt")


def test_unknown_application_is_refused_and_not_repeated() -> None:
    error = refusal("live/alice-key-1", "alice-key-1")
    assert error.code == "unknown_app"
    assert "alice-key-1" not in error.reason


@pytest.mark.parametrize(
    "key",
    [
        *("", "x", "alice-key-2", "Alice-key-1", "\ud800"),
        *("k" * KEY_CHARS_MAX, "k" * (KEY_CHARS_MAX + 1)),
        *("sk1", "sk1.", "sk1..", "sk1.a.b", "sk1.a.b.c", "sk1.é.b", "sk1.AAAA.AAAA"),
    ],
)
def test_unknown_keys_are_refused_alike(key: str) -> None:
    assert str(refusal("live", key)) == "unknown_key: the stream key is not valid here"


def test_wrong_or_unknown_secret_is_refused() -> None:
    for secret, signer in ((OTHER_SECRET, "main"), (SECRET, "gone"), (SECRET + "x", "main")):
        key = make_signed_key(secret, "dave", signer=signer)
        assert refusal("live", key).code == "unknown_key"


GENUINE = make_signed_key(SECRET, "dave", signer="main", expires_at=NOW + 1e6, tags=("a",))


@hypothesis.given(st.integers(0, len(GENUINE) - 1), st.sampled_from("ABCabc019-_.=é\n"))
@hypothesis.settings(max_examples=60, deadline=None)
def test_no_changed_character_is_accepted(position: int, character: str) -> None:
    changed = GENUINE[:position] + character + GENUINE[position + 1 :]
    if changed != GENUINE:
        refusal("live", changed)


@hypothesis.given(st.text("ab.-_=é\0\ud800\n😀sk1", max_size=60))
@hypothesis.settings(max_examples=50, deadline=None)
def test_any_text_is_only_refused(text: str) -> None:
    refusal("live", text)
    refusal("live", "sk1." + text)


def test_deeply_nested_payload_is_only_refused() -> None:
    payload = base64.urlsafe_b64encode(b"\x91" * 700).rstrip(b"=").decode()
    assert refusal("live", f"sk1.{payload}.AAAA").code == "unknown_key"


def test_keys_are_safe_in_urls() -> None:
    made = [GENUINE, make_static_key(entropy), make_secret(entropy)]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", text) for text in made)
    assert len(make_secret(entropy)) == 43
    assert StreamKeys([StaticKey(channel="a", key=made[1])], {"m": made[2]})


@pytest.mark.parametrize(
    ("channel", "claims"),
    [
        ("Upper", {}),
        ("a\n", {}),
        ("../etc", {}),
        ("ok", {"tags": ["bad tag"]}),
        ("ok", {"tags": [f"t{n}" for n in range(17)]}),
        ("ok", {"scope": []}),
        ("ok", {"scope": ["everything"]}),
        ("ok", {"title": "t" * 141}),
        ("ok", {"tags": ["t" * 64] * 16}),
    ],
)
def test_claims_that_could_never_be_accepted_are_not_signed(
    channel: str, claims: dict[str, list[str]]
) -> None:
    with pytest.raises(ConfigError, match="stream key for channel"):
        make_signed_key(SECRET, channel, signer="main", **claims)  # type: ignore[arg-type]


def test_every_problem_of_the_table_is_found_at_once() -> None:
    config = StreamKeysConfig(
        static=(
            StaticKey(channel="a", key="same-key"),
            StaticKey(channel="b", key="same-key"),
            StaticKey(channel="c"),
            StaticKey(channel="d", key="both-given", key_sha256="00" * 32),
            StaticKey(channel="e", key_sha256="xyz"),
            StaticKey(channel="f", key="short"),
            StaticKey(channel="g", key="sk1.looks.signed"),
            StaticKey(channel="h", key="with space"),
        ),
        secrets={"Bad Name": SECRET, "main": "short"},
        apps=(),
    )
    problems = find_problems(config)
    assert [problem.split(":")[0] for problem in problems] == [
        *(f"static[{n}] (channel {c!r})" for n, c in enumerate("abcdefgh") if n),
        "secrets.Bad Name",
        "secrets.main",
        "apps",
    ]
    assert "same key as static[0]" in problems[0]
    with pytest.raises(ConfigError, match=r"stream_keys\.static\[1\]"):
        StreamKeys.from_config(config)
    assert not any("same-key" in problem or problem.endswith("short") for problem in problems)


def test_limits_at_and_one_past() -> None:
    digest = "00" * 31
    static = tuple(
        StaticKey(channel="a", key_sha256=f"{n:08x}{digest[8:]}00") for n in range(STATIC_KEYS_MAX)
    )
    secrets = {f"s{n}": SECRET for n in range(SECRETS_MAX)}
    assert find_problems(StreamKeysConfig(static=static, secrets=secrets)) == []
    over = StreamKeysConfig(
        static=(*static, StaticKey(channel="b", key="one-more")), secrets={**secrets, "x": SECRET}
    )
    assert find_problems(over) == [
        "static: 4097 keys exceed 4096; use signed keys",
        "secrets: 17 secrets exceed 16",
    ]


def test_table_is_read_from_toml_and_never_shows_a_key() -> None:
    text = """
        [[static]]
        channel = "alice"
        key = "alice-secret-key"
        class = "partner"
        [secrets]
        main = "0123456789abcdef0123456789abcdef"
    """
    config = msgspec.toml.decode(text, type=StreamKeysConfig)
    granted = StreamKeys.from_config(config).check("live", "alice-secret-key", NOW, "rtmp")
    assert granted.priority is PriorityClass.PARTNER
    assert "alice-secret-key" not in repr(config)
    assert "0123456789abcdef" not in repr(config)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.toml.decode("keys = 1", type=StreamKeysConfig)


def test_whose_key_it_is_can_be_asked_without_a_protocol() -> None:
    keys = StreamKeys([StaticKey(channel="alice", key="key-of-alice", scope=("publish:rtmps",))])
    assert keys.identify("key-of-alice", NOW).channel == "alice"
    assert keys.identify("key-of-alice", NOW, "rtmps").channel == "alice"
    with pytest.raises(PublishRefusedError, match="out_of_scope"):
        keys.identify("key-of-alice", NOW, "rtmp")
    for wrong in ("", "key-of-bob", "x" * 2000):
        with pytest.raises(PublishRefusedError, match="unknown_key"):
            keys.identify(wrong, NOW)


@pytest.mark.parametrize("latency", LATENCY_LABELS)
def test_keys_name_a_latency_class(latency: LatencyLabel) -> None:
    keys = StreamKeys([StaticKey(channel="alice", key="alice-key", latency=latency)], {"m": SECRET})
    assert keys.identify("alice-key", NOW) == Grant(channel="alice", latency=latency)
    signed = make_signed_key(SECRET, "bob", signer="m", latency=latency)
    assert keys.identify(signed, NOW) == Grant(channel="bob", latency=latency)


def test_a_signed_key_of_the_default_class_is_as_it_was_before_there_were_classes() -> None:
    """So that PoPs of before take it."""
    payload = make_signed_key(SECRET, "bob", signer="main").split(".")[1]
    claims = msgspec.msgpack.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims == ["main", "bob", 0, ["publish"], 2, "", [], "default", False]


def test_a_static_key_of_an_unknown_class_is_a_problem_of_the_file() -> None:
    raw = {"static": [{"channel": "alice", "key": "alice-key", "latency": "fast"}]}
    with pytest.raises(msgspec.ValidationError, match=r"Invalid enum value 'fast'.*latency"):
        msgspec.convert(raw, StreamKeysConfig)
