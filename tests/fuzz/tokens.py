"""Fuzz target of what viewers of protected channels show: tokens of any text, header and claims."""

import base64
import functools
import hashlib
import hmac
import re
from collections.abc import Sequence

import msgspec

from edged.playback.token_keys import TokenKey, TokenKeys, import_key
from edged.policy.playback_rights import (
    STARS_MAX,
    TOKEN_CHARS_MAX,
    Claims,
    PlaybackRights,
    RightsConfig,
    check_address,
)
from tests.fuzz.script import Script, Target, block

PHRASE = b"put-at-least-32-characters-of-chance-here"
NOW = 1_700_000_000.0
NOTHING_TOLD_CHARS = 24  # Of a token: shorter pieces of it occur in any text by chance.
CHANNEL = re.compile(r"[a-z0-9_*-]{1,128}")


@functools.cache
def _keys() -> TokenKeys:
    return TokenKeys({"a": TokenKey("HS256", import_key("HS256", PHRASE))})


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sign(text: str, *, rightly: bool) -> str:
    mac = hmac.digest(PHRASE, text.encode(), hashlib.sha256)
    return f"{text}.{_encode(mac if rightly else bytes(32))}"


def run_tokens(data: bytes) -> int:
    """A token of any text; or any header and claims, with the right signature or a wrong one."""
    script = Script(data)
    choice = script.number()
    if choice & 128:
        text, signed = script.rest().decode("latin-1"), False
    else:
        signed = bool(choice & 64)
        header = script.block() if choice & 32 else b'{"alg":"HS256","kid":"a"}'
        text = _sign(f"{_encode(header)}.{_encode(script.rest())}", rightly=signed)
    rights = PlaybackRights(RightsConfig(channels=("*",)), _keys().verify)
    found = rights.check(text, "alice", now_unix_s=NOW)
    assert rights.check(text, "alice", now_unix_s=NOW) == found, "the cache changes nothing"
    if isinstance(found, Claims):
        assert signed or _is_genuine(text), "who has no key plays nothing"
        _check_claims(found)
        return 0
    assert found.status in (401, 403)
    assert len(text) < NOTHING_TOLD_CHARS or text not in found.reason
    return len(found.reason)


def _is_genuine(text: str) -> bool:
    """Whether a text that was found is signed all the same."""
    signed, _, mac = text.rpartition(".")
    return mac[:-1] == _sign(signed, rightly=True).rpartition(".")[2][:-1]


def _check_claims(claims: Claims) -> None:
    assert claims.expires_at > NOW - 10
    assert all(CHANNEL.fullmatch(text) for text in claims.channels)
    assert all(text.count("*") <= STARS_MAX for text in claims.channels)
    if claims.network is not None:
        inside = str(claims.network.network_address)
        assert check_address(claims, inside) is None


def token_seeds() -> Sequence[bytes]:
    """Claims that are valid, tokens that are, and headers that other verifiers fell for."""
    claims = [
        {"channels": "alice", "exp": NOW + 60},
        {"channels": ["al*e", "b"], "exp": NOW + 60.5, "nbf": NOW, "ip": "10.0.0.0/8"},
        {"channels": "*", "exp": 2e9, "ip": "2001:db8::1", "aud": "x", "more": [{}]},
    ]
    bodies = [msgspec.json.encode(one) for one in claims]
    headers = [
        b'{"alg":"none"}',
        b'{"alg":"HS256","kid":"a","crit":["b64"],"b64":false}',
        b'{"alg":"HS256","kid":"a","jwk":{"kty":"oct","k":"AA"},"x":[1]}',
        b'{"alg":"RS256","kid":"a"}',
    ]
    alone = _encode(b'{"alg":"HS256"}')
    whole = _sign(f"{alone}.{_encode(bodies[0])}", rightly=True)
    seeds = [bytes([64]) + body for body in bodies]
    seeds += [bytes([64 | 32]) + block(header) + bodies[0] for header in headers]
    return [*seeds, bytes([128]) + whole.encode()]


TARGETS = [
    Target(name="tokens", run=run_tokens, seeds=token_seeds, bytes_max=TOKEN_CHARS_MAX + 100),
]
