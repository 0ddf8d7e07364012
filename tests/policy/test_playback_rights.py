"""What tokens say, and the cache of those that were verified: its bounds, and what it costs."""

import contextlib
import fnmatch
from collections import Counter

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.policy.playback_rights import (
    CHANNELS_KNOWN_MAX,
    FORMS,
    KEYS_MAX,
    PATTERNS_MAX,
    PROTECTED_MAX,
    REFUSED_MAX,
    STARS_MAX,
    TOKEN_CHARS_MAX,
    Claims,
    PlaybackRights,
    Refusal,
    RightsConfig,
    RightsKeyConfig,
    TokenRefusedError,
    check_address,
    find_problems,
    is_match,
    read_claims,
)

NOW = 1_800_000_000.0
KEY = RightsKeyConfig(id="a", algorithm="HS256", file="a.key")


class Issuer:
    """Tokens are names here; who verifies them is counted."""

    def __init__(self, **claims: object) -> None:
        self.payloads: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        if claims:
            self.issue("token", **claims)

    def issue(self, token: str, **claims: object) -> str:
        said = {"channels": "alice", "exp": NOW + 60, **claims}
        self.payloads[token] = msgspec.json.encode(said)
        return token

    def verify(self, token: str) -> bytes:
        self.asked[token] += 1
        if token not in self.payloads:
            raise TokenRefusedError("signature", "the token's signature is not key 'a''s")
        return self.payloads[token]

    def rights(self, **keys: object) -> PlaybackRights:
        config = {"channels": ("*",), "clock_skew_s": 10.0, **keys}
        return PlaybackRights(msgspec.convert(config, RightsConfig), self.verify)


def refusal(found: Claims | Refusal) -> tuple[int, str]:
    assert isinstance(found, Refusal), found
    return found.status, found.code


def test_a_token_is_verified_once_and_judged_each_time() -> None:
    issuer = Issuer(channels=["alice", "sport-*"], nbf=NOW)
    rights = issuer.rights()
    for at, channel in ((NOW, "alice"), (NOW - 10, "sport-1"), (NOW + 69.9, "sport-")):
        assert isinstance(rights.check("token", channel, now_unix_s=at), Claims)
    assert refusal(rights.check("token", "bob", now_unix_s=NOW)) == (403, "other_channel")
    assert refusal(rights.check("token", "alice", now_unix_s=NOW - 10.1)) == (401, "not_yet")
    late = rights.check("token", "alice", now_unix_s=NOW + 70)
    assert refusal(late) == (401, "expired")
    assert isinstance(late, Refusal)
    assert late.reason == "the token expired at 2027-01-15T08:01:00Z"
    assert issuer.asked == {"token": 1}


def test_grace_is_added_to_the_end_alone() -> None:
    rights = Issuer(nbf=NOW).rights()
    assert isinstance(rights.check("token", "alice", now_unix_s=NOW + 99, grace_s=30), Claims)
    late = rights.check("token", "alice", now_unix_s=NOW + 100, grace_s=30)
    early = rights.check("token", "alice", now_unix_s=NOW - 11, grace_s=30)
    assert (refusal(late), refusal(early)) == ((401, "expired"), (401, "not_yet"))


def test_a_refused_token_is_looked_at_once_and_forgotten_at_the_limit() -> None:
    issuer = Issuer()
    rights = issuer.rights()
    for name in range(REFUSED_MAX):
        rights.check(f"bad-{name}", "alice", now_unix_s=NOW)
    for _ in range(3):
        found = rights.check("bad-0", "alice", now_unix_s=NOW)
        assert refusal(found) == (401, "signature")
    assert issuer.asked["bad-0"] == 1
    rights.check("bad-more", "alice", now_unix_s=NOW)  # One past the limit: the oldest goes.
    rights.check("bad-0", "alice", now_unix_s=NOW)
    assert issuer.asked["bad-0"] == 2
    assert len(rights._refused) == REFUSED_MAX


def test_no_flood_of_refused_tokens_pushes_a_good_one_out() -> None:
    issuer = Issuer(nbf=0)
    rights = issuer.rights(tokens_max=1)
    for name in range(2 * REFUSED_MAX):
        rights.check(f"bad-{name}", "alice", now_unix_s=NOW)
        assert isinstance(rights.check("token", "alice", now_unix_s=NOW), Claims)
    assert issuer.asked["token"] == 1


def test_tokens_are_bounded_by_number() -> None:
    issuer = Issuer()
    rights = issuer.rights(tokens_max=3)
    tokens = [issuer.issue(f"token-{name}") for name in range(5)]
    for token in tokens:
        assert isinstance(rights.check(token, "alice", now_unix_s=NOW), Claims)
        assert rights.statistics().held <= 3
    for token in tokens:  # Who was pushed out is verified again, and not refused.
        assert isinstance(rights.check(token, "alice", now_unix_s=NOW), Claims)
    assert rights.statistics().verified_total == sum(issuer.asked.values()) > 5


def test_tokens_are_bounded_by_expiry() -> None:
    issuer = Issuer()
    rights = issuer.rights()
    for name in range(100):
        rights.check(issuer.issue(f"old-{name}", exp=NOW), "alice", now_unix_s=NOW)
    assert rights.statistics().held == 100
    for name in range(60):
        new = issuer.issue(f"new-{name}", exp=NOW + 1000)
        rights.check(new, "alice", now_unix_s=NOW + 500)
    assert set(rights._held) == {f"new-{name}" for name in range(60)}


def test_a_token_too_long_is_not_even_verified() -> None:
    issuer = Issuer()
    rights = issuer.rights()
    at, past = "x" * TOKEN_CHARS_MAX, "x" * (TOKEN_CHARS_MAX + 1)
    rights.check(at, "alice", now_unix_s=NOW)
    found = rights.check(past, "alice", now_unix_s=NOW)
    assert refusal(found) == (401, "malformed")
    assert dict(issuer.asked) == {at: 1}
    assert past not in rights._refused


def test_which_channels_are_protected() -> None:
    rights = Issuer().rights(channels=["alice", "sport-*"])
    names = ["alice", "alice2", "sport-", "sport-1", "sports"]
    assert [rights.protects(name) for name in names] == [True, False, True, True, False]
    for name in range(2 * CHANNELS_KNOWN_MAX):
        rights.protects(f"c{name}")
        assert len(rights._protected) <= CHANNELS_KNOWN_MAX


def test_outcomes_are_counted_and_counting_goes_on_with_other_rights() -> None:
    issuer = Issuer(nbf=0)
    rights = issuer.rights()
    for token, channel in (("token", "alice"), ("token", "bob"), ("none", "alice")):
        rights.note(rights.check(token, channel, now_unix_s=NOW))
    other = issuer.rights()
    other.go_on_from(rights)
    other.note(other.check("token", "alice", now_unix_s=NOW))
    told = other.statistics()
    assert (told.held, told.verified_total, told.granted_total) == (1, 2, 2)
    assert told.refused_total == {"other_channel": 1, "signature": 1}


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"\xff", "malformed"),
        (b'{"exp": 1}', "malformed"),
        (b'{"channels": "a"}', "malformed"),
        (b'{"channels": [], "exp": 1}', "malformed"),
        (b'{"channels": "A B", "exp": 1}', "malformed"),
        (b'{"channels": "a", "exp": "1"}', "malformed"),
        (b'{"channels": "a", "exp": 1e999}', "malformed"),
        (b'{"channels": "a", "exp": 253402300800}', "malformed"),
        (b'{"channels": "a", "exp": 1, "nbf": -1}', "malformed"),
        (b'{"channels": "a", "exp": 1, "ip": "10.0.0.1/8"}', "malformed"),
        (b'{"channels": "*****", "exp": 1}', "malformed"),
        (b'{"channels": "a", "exp": 1, "aud": "other"}', "audience"),
    ],
)
def test_claims_that_are_none(claims: bytes, code: str) -> None:
    with pytest.raises(TokenRefusedError) as raised:
        read_claims(claims)
    assert raised.value.refusal.code == code


def test_claims_at_their_limits() -> None:
    said = {"channels": ["*" * STARS_MAX] * PATTERNS_MAX, "exp": 253_402_300_799, "more": [1]}
    claims = read_claims(msgspec.json.encode(said))
    assert len(claims.channels) == PATTERNS_MAX
    rights = Issuer(**said).rights()
    late = rights.check("token", "alice", now_unix_s=1e12)
    assert refusal(late) == (401, "expired")
    with pytest.raises(TokenRefusedError, match="length <= 16"):
        read_claims(msgspec.json.encode({**said, "channels": ["a"] * (PATTERNS_MAX + 1)}))


def test_the_audience_is_ours_or_there_is_none() -> None:
    """RFC 7519 §4.1.3: a token for somebody else is refused."""

    def ask(ours: str, **claims: object) -> bool:
        rights = Issuer(nbf=0, **claims).rights(audience=ours)
        found = rights.check("token", "alice", now_unix_s=NOW)
        assert isinstance(found, Claims) or found.code == "audience"
        return isinstance(found, Claims)

    assert ask("")
    assert ask("edge", aud="edge")
    assert ask("edge", aud=["x", "edge"])
    assert not ask("edge")
    assert not ask("edge", aud="x")
    assert not ask("", aud="x")
    assert not ask("", aud=[])


def test_addresses_and_networks() -> None:
    def allowed(ip: str, client: str) -> bool:
        claims = read_claims(msgspec.json.encode({"channels": "a", "exp": 1, "ip": ip}))
        found = check_address(claims, client)
        assert found is None or (found.status, found.code) == (403, "other_address")
        return found is None

    assert allowed("10.0.0.7", "10.0.0.7")
    assert allowed("2001:db8::/32", "2001:db8:1::7")
    assert not allowed("10.0.0.7", "10.0.0.8")
    assert not allowed("10.0.0.0/8", "2001:db8::1")
    assert not allowed("10.0.0.0/8", "no address")


def test_what_is_wrong_with_a_table() -> None:
    def problems(**keys: object) -> list[str]:
        return find_problems(msgspec.convert(keys, RightsConfig))

    assert problems() == []
    assert problems(channels=["*"], keys=[KEY]) == []
    assert problems(channels=["*"], jwks="keys.json") == []
    assert problems(channels=["*"])[0].startswith("keys: is missing")
    assert "more than 4 stars" in problems(channels=["*****"], keys=[KEY])[0]
    assert "is there twice" in problems(keys=[KEY, KEY])[0]
    assert "'query' needs 'path'" in problems(forms=["query"])[0]
    assert problems(forms=["cookie"]) == []
    wrong: list[dict[str, object]] = [
        {"channels": ["a"] * (PROTECTED_MAX + 1)},
        {"keys": [KEY] * (KEYS_MAX + 1)},
        {"forms": []},
        {"forms": [*FORMS, "query"]},
        {"tokens_max": 0},
    ]
    for keys in wrong:
        with pytest.raises(msgspec.ValidationError):
            problems(**keys)


TEXT = st.text("ab-", max_size=12)


@hypothesis.given(st.lists(TEXT, min_size=1, max_size=STARS_MAX + 1).map("*".join), TEXT)
def test_a_pattern_matches_what_a_shell_would_match(pattern: str, channel: str) -> None:
    assert is_match(pattern, channel) is fnmatch.fnmatchcase(channel, pattern)


@hypothesis.given(st.lists(TEXT, min_size=1, max_size=STARS_MAX + 1), st.data())
def test_whatever_the_stars_stand_for_matches(pieces: list[str], data: st.DataObject) -> None:
    channel = pieces[0] + "".join(data.draw(TEXT) + piece for piece in pieces[1:])
    assert is_match("*".join(pieces), channel)


@hypothesis.given(st.binary() | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["channels", "exp", "nbf", "ip", "aud", "x"]), inner
    ),
).map(msgspec.json.encode))  # fmt: skip
def test_garbage_raises_only_a_refusal(payload: bytes) -> None:
    with contextlib.suppress(TokenRefusedError):
        read_claims(payload)


@hypothesis.given(
    st.lists(
        st.tuples(
            st.integers(0, 9),  # Which token,
            st.sampled_from(["alice", "bob"]),
            st.floats(0, 100),  # and how much later.
        ),
        max_size=60,
    ),
    st.integers(1, 4),
)
def test_the_cache_never_changes_an_answer(
    asked: list[tuple[int, str, float]], tokens_max: int
) -> None:
    """Whatever it holds and forgets, each answer is that of rights which have held nothing."""
    issuer, now = Issuer(), NOW
    for name in range(8):  # The last two are none.
        issuer.issue(f"t{name}", channels=["alice", "*"][name % 2], exp=NOW + 40 * name)
    rights = issuer.rights(tokens_max=tokens_max)
    for name, channel, later_s in asked:
        now += later_s
        fresh = issuer.rights().check(f"t{name}", channel, now_unix_s=now)
        assert rights.check(f"t{name}", channel, now_unix_s=now) == fresh
        assert rights.statistics().held <= tokens_max
