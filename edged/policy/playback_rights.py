"""Who may play a protected channel: claims of tokens, and a cache of those that were verified.

A token is a JSON Web Token (RFC 7519) whose signature someone else verifies, once: after that each
request costs a look into a dict. What a token says is judged anew each time, by the time and the
channel at hand. Its claims:

    channels   a name or a pattern ("sport-*"), or a list of them: what it may play
    exp        Unix seconds, required: when it ends
    nbf        Unix seconds: when it begins
    ip         an address or a network: from where it may be used
    aud        for whom it is; a token with it counts only where it is the audience configured

No message from here contains a token or a key.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from edged.errors import EdgedError

TOKEN_CHARS_MAX = 1536  # RS256 with 4096 bits leaves 700 for claims; a request target has 2048.
HELD_MAX = 100_000  # Verified tokens: about as many as one process has viewers, 1 KB each.
REFUSED_MAX = 1024  # Refused ones, for players that ask again: a flood of others costs it alone.
PATTERNS_MAX = 16  # Of one token.
PROTECTED_MAX = 256  # Patterns of protected channels.
STARS_MAX = 4  # Of one pattern.
CHANNELS_KNOWN_MAX = 4096  # Names of which it is known whether they are protected.
KEYS_MAX = 16  # Two are needed for a rotation.
UNIX_S_MAX = 253_402_300_799  # The year 9999, the last that can be told.

KEY_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z"
PATTERN_PATTERN = r"^[a-z0-9_*-]{1,128}\Z"

Form = Literal["query", "path", "header", "cookie"]
FORMS: tuple[Form, ...] = ("query", "path", "header", "cookie")
Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
Pattern = Annotated[str, Meta(pattern=PATTERN_PATTERN)]
Time = Annotated[float, Meta(ge=0, le=UNIX_S_MAX)]


class RightsKeyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[playback.rights.keys]]`: a key that signs tokens, good for one algorithm alone."""

    id: Annotated[str, Meta(pattern=KEY_ID_PATTERN)]  # A token's `kid`.
    algorithm: Algorithm
    file: str  # The secret as text, or a public key in PEM.


class RightsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[playback.rights]`: which channels need a token, and which tokens are good."""

    channels: Annotated[tuple[Pattern, ...], Meta(max_length=PROTECTED_MAX)] = ()
    forms: Annotated[tuple[Form, ...], Meta(min_length=1, max_length=len(FORMS))] = FORMS
    keys: Annotated[tuple[RightsKeyConfig, ...], Meta(max_length=KEYS_MAX)] = ()
    jwks: str = ""  # A file with a JWK set (RFC 7517 §5) of public keys, beside `keys`.
    audience: Annotated[str, Meta(max_length=256)] = ""
    clock_skew_s: Annotated[float, Meta(ge=0, le=300)] = 10.0  # Between us and who signs.
    tokens_max: Annotated[int, Meta(ge=1, le=10_000_000)] = HELD_MAX


def find_problems(config: RightsConfig) -> list[str]:
    """What is wrong with the whole, as "KEY: message"."""
    found = [
        f"{name}[{index}]: {text!r} has more than {STARS_MAX} stars"
        for name, texts in (("channels", config.channels),)
        for index, text in enumerate(texts)
        if text.count("*") > STARS_MAX
    ]
    ids = [key.id for key in config.keys]
    found += [
        f"keys[{at}].id: {name!r} is there twice" for at, name in enumerate(ids) if name in ids[:at]
    ]
    if "query" in config.forms and "path" not in config.forms:
        found.append("forms: 'query' needs 'path', by which the playlist's own URLs carry it on")
    if config.channels and not (config.keys or config.jwks):
        found.append("keys: is missing; without a key nobody could play what channels protects")
    return found


class Refusal(Struct, frozen=True, gc=False):
    """Why a request gets nothing, for the client, and its code for metrics."""

    status: int  # 401: another token may help; 403: it is good, but not for this; 429.
    code: str
    reason: str


class TokenRefusedError(EdgedError):
    """A token that no request can use; raised by who verifies signatures, too."""

    def __init__(self, code: str, reason: str) -> None:
        self.refusal = Refusal(401, code, reason)
        super().__init__(reason)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Claims(Struct, frozen=True, kw_only=True, gc=False):
    """What a verified token says."""

    channels: tuple[str, ...]
    expires_at: float
    begins_at: float = 0.0
    network: Network | None = None


# The payload of a token whose signature is right; raises `TokenRefusedError` for others.
Verify = Callable[[str], bytes]


class _Payload(Struct, frozen=True):
    """A token's payload; other claims are ignored (RFC 7519 §4)."""

    channels: Pattern | Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=PATTERNS_MAX)]
    exp: Time
    nbf: Time = 0.0
    ip: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    aud: str | tuple[str, ...] | UnsetType = UNSET


_payload_decoder = msgspec.json.Decoder(_Payload)


def read_claims(payload: bytes, audience: str = "") -> Claims:
    """A token's claims; raises `TokenRefusedError` for those that say nothing that we can use."""
    try:
        said = _payload_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The message names types, limits and the claim, never its value.
        raise TokenRefusedError("malformed", f"the token's claims: {error}") from None
    channels = (said.channels,) if isinstance(said.channels, str) else said.channels
    if any(text.count("*") > STARS_MAX for text in channels):
        raise TokenRefusedError("malformed", f"a pattern has more than {STARS_MAX} stars")
    meant = () if said.aud is UNSET else (said.aud,) if isinstance(said.aud, str) else said.aud
    if (audience or said.aud is not UNSET) and audience not in meant:
        raise TokenRefusedError("audience", "the token is for another audience (aud)")
    network: Network | None = None
    if said.ip is not UNSET:
        try:
            network = ipaddress.ip_network(said.ip)
        except ValueError:
            why = "claim ip is neither an address nor a network"
            raise TokenRefusedError("malformed", why) from None
    return Claims(
        channels=channels,
        expires_at=said.exp,
        begins_at=said.nbf,
        network=network,
    )


def is_match(pattern: str, channel: str) -> bool:
    """Whether a channel is one of a pattern's: a star stands for any characters, or none."""
    head, *rest = pattern.split("*")
    if not rest:
        return pattern == channel
    *middle, tail = rest
    at, end = len(head), len(channel) - len(tail)
    if end < at or not channel.startswith(head) or not channel.endswith(tail):
        return False
    for piece in middle:  # The leftmost place is as good as any: the time is bounded.
        found = channel.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


class RightsStatistics(Struct, frozen=True):
    """What is held now, and counters since the start."""

    held: int
    verified_total: int
    granted_total: int
    refused_total: dict[str, int]  # By code.


class PlaybackRights:
    """The channels that are protected, and the tokens that were seen."""

    def __init__(self, config: RightsConfig, verify: Verify) -> None:
        self.config = config
        self._verify = verify
        self._held: dict[str, Claims] = {}  # In the order in which `_drop_expired` looks.
        self._refused: dict[str, Refusal] = {}
        self._protected: dict[str, bool] = {}
        self._verified = self._granted = 0
        self._refusals: Counter[str] = Counter()

    def protects(self, channel: str) -> bool:
        """Whether the channel needs a token."""
        known = self._protected.get(channel)
        if known is None:
            if len(self._protected) >= CHANNELS_KNOWN_MAX:
                self._protected.clear()
            known = any(is_match(pattern, channel) for pattern in self.config.channels)
            self._protected[channel] = known
        return known

    def knows(self, token: str) -> bool:
        """Whether `check` would be a look alone, and verify nothing."""
        return token in self._held or token in self._refused

    def check(
        self, token: str, channel: str, *, now_unix_s: float, grace_s: float = 0.0
    ) -> Claims | Refusal:
        """Whether a token may play a channel; hot: for each request.

        `grace_s`: for so long after its end it still counts. Of claims with a network the caller
        has to `check_address` as well.
        """
        held = self._held.get(token)
        if held is None:
            found = self._refused.get(token) or self._take_in(token, now_unix_s)
            if isinstance(found, Refusal):
                return found
            held = found
        skew_s = self.config.clock_skew_s
        if now_unix_s >= held.expires_at + skew_s + grace_s:
            return Refusal(401, "expired", f"the token expired at {_told(held.expires_at)}")
        if now_unix_s < held.begins_at - skew_s:
            return Refusal(401, "not_yet", f"the token begins at {_told(held.begins_at)}")
        for pattern in held.channels:
            if pattern == channel or ("*" in pattern and is_match(pattern, channel)):
                return held
        return Refusal(403, "other_channel", f"the token is not for channel {channel[:64]!r}")

    def note(self, found: Claims | Refusal) -> None:
        """Count a request's outcome."""
        if isinstance(found, Refusal):
            self._refusals[found.code] += 1
        else:
            self._granted += 1

    def go_on_from(self, other: "PlaybackRights") -> None:
        """Keep counting where another stopped; what it held is verified anew, with these keys."""
        self._verified, self._granted = other._verified, other._granted
        self._refusals = other._refusals

    def statistics(self) -> RightsStatistics:
        """What is held, and counters."""
        return RightsStatistics(
            len(self._held), self._verified, self._granted, dict(self._refusals)
        )

    def _take_in(self, token: str, now_unix_s: float) -> Claims | Refusal:
        """Verify a token that is not known, and keep what comes of it."""
        if len(token) > TOKEN_CHARS_MAX:
            why = f"the token has {len(token)} characters, at most {TOKEN_CHARS_MAX} are read"
            return Refusal(401, "malformed", why)
        try:
            claims = read_claims(self._verify(token), self.config.audience)
        except TokenRefusedError as error:
            _make_room(self._refused, REFUSED_MAX)
            self._refused[token] = error.refusal
            return error.refusal
        self._verified += 1
        self._drop_expired(now_unix_s)
        _make_room(self._held, self.config.tokens_max)
        self._held[token] = claims
        return claims

    def _drop_expired(self, now_unix_s: float) -> None:
        """For each token that comes, look at two: those go whose time is over."""
        for _ in range(2):
            oldest = next(iter(self._held), None)
            if oldest is None:
                return
            claims = self._held.pop(oldest)
            if now_unix_s < claims.expires_at + self.config.clock_skew_s:
                self._held[oldest] = claims  # To the end, so that each is looked at in its turn.


def check_address(claims: Claims, client: str) -> Refusal | None:
    """Whether claims with a network may be used from that address."""
    assert claims.network is not None, "others may be used from anywhere"
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        address = None
    same = address is not None and address.version == claims.network.version
    if same and address in claims.network:
        return None
    return Refusal(403, "other_address", f"the token is not for address {client[:64]}")


def _make_room(entries: dict[str, Claims] | dict[str, Refusal], entries_max: int) -> None:
    """At the limit the oldest goes; a token in use is verified again when it is asked with."""
    while len(entries) >= entries_max:
        del entries[next(iter(entries))]


def _told(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
