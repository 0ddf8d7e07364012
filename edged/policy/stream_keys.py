"""Stream keys: who may publish what, decided from the key alone.

Two kinds. A *static* key is a line of configuration; only SHA-256 digests are compared, in constant
time. A *signed* key carries its own grant, so that a PoP needs no database:

    sk1.PAYLOAD.MAC

PAYLOAD is base64url (RFC 4648 §5, unpadded) of a msgpack array (`_Claims`); MAC is base64url of the
first 16 bytes of HMAC-SHA256 (RFC 2104 §5) over a domain label and the text before the last point.
Only letters, digits, `-`, `_` and points occur, so the key can be pasted into OBS and stand in any
URL. No message from here contains a key or a secret.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from edged.errors import ConfigError, PublishRefusedError
from edged.media.latency import DEFAULT, LatencyLabel
from edged.media.stream import Grant, PriorityClass
from edged.policy.outbound import find_secret_problem, find_url_problem

PREFIX = "sk1"
APP_DEFAULT = "live"
KEY_CHARS_MAX = 1024  # OBS and FFmpeg take longer ones; every signed key that we make is shorter.
STATIC_KEY_CHARS_MIN = 6  # Shorter ones are guessed within a day at the ingest's rate limit.
STATIC_KEYS_MAX = 4096  # Compared one by one in constant time: 4096 take about a millisecond.
SECRETS_MAX = 16  # Two are needed for a rotation.
SECRET_BYTES = 32
MAC_BYTES = 16  # RFC 2104 §5: not less than half of the hash's output.
TITLE_CHARS_MAX = 140
TAGS_MAX = 16
SCOPE_PUBLISH = "publish"  # Any protocol; "publish:srt" allows that one alone.

CHANNEL_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}\Z"  # Safe in a URL, a file name and a log line.
TAG_PATTERN = r"^[a-z0-9][a-z0-9:_.-]{0,63}\Z"
SCOPE_PATTERN = r"^publish(:[a-z0-9]{1,16})?\Z"
SIGNER_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,15}\Z"

_DOMAIN = b"edged stream key 1\n"  # A secret used elsewhere too makes no MAC that is valid here.
_PARTS = 3
REFUSED_UNKNOWN = "the stream key is not valid here"

ClassLabel = Literal["partner", "affiliate", "basic"]
Title = Annotated[str, Meta(max_length=TITLE_CHARS_MAX)]
Tag = Annotated[str, Meta(pattern=TAG_PATTERN)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=TAGS_MAX)]
Channel = Annotated[str, Meta(pattern=CHANNEL_PATTERN)]
Scope = Annotated[
    tuple[Annotated[str, Meta(pattern=SCOPE_PATTERN)], ...], Meta(min_length=1, max_length=8)
]


class StaticKey(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"priority": "class"}
):
    """One `[[stream_keys.static]]`: give `key` in the clear, or `key_sha256` (64 hex digits)."""

    channel: Channel
    key: str = ""
    key_sha256: str = ""
    priority: ClassLabel = "basic"
    title: Title = ""
    tags: Tags = ()
    ladder: str = "default"
    latency: LatencyLabel = DEFAULT
    record: bool = False
    scope: Scope = (SCOPE_PUBLISH,)

    def __repr__(self) -> str:
        """Show the channel alone: a dump of the configuration must not bring a key into a log."""
        return f"StaticKey(channel={self.channel!r}, key=hidden)"


class KeyCallbackConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[stream_keys.callback]`: the service that is asked about keys that are not known here."""

    url: str
    secret: str = ""  # Signs each question, so that the service knows who asks.
    ca: str = ""  # A PEM file; empty: the system's CAs.
    timeout_s: Annotated[float, Meta(gt=0, le=6)] = 3.0  # The whole publish has 10 s.
    cache_ttl_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    negative_ttl_s: Annotated[float, Meta(ge=0, le=600)] = 5.0
    cache_entries_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    concurrency_max: Annotated[int, Meta(ge=1, le=1_000)] = 32
    per_address_max: Annotated[int, Meta(ge=1, le=1_000)] = 4
    response_bytes_max: Annotated[int, Meta(ge=1_024, le=1_048_576)] = 16_384

    def __repr__(self) -> str:
        """Show no URL and no secret: a dump of the configuration must not bring one into a log."""
        return "KeyCallbackConfig(url=hidden, secret=hidden)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich's tracebacks."""
        return [("timeout_s", self.timeout_s)]


class StreamKeysConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[stream_keys]`: which keys may publish."""

    static: tuple[StaticKey, ...] = ()
    secrets: dict[str, str] = {}  # Name -> secret; the first signs new keys, all are accepted.
    apps: tuple[str, ...] = (APP_DEFAULT,)  # RTMP application names that exist.
    callback: KeyCallbackConfig | None = None  # Asked about keys that are none of the above.

    def __repr__(self) -> str:
        """Show names alone, for the same reason as `StaticKey`."""
        return f"StreamKeysConfig(static={self.static!r}, secrets={sorted(self.secrets)!r})"


class _Claims(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The payload of a signed key; positions are the format, so new fields go to the end."""

    signer: Annotated[str, Meta(pattern=SIGNER_PATTERN)]
    channel: Channel
    expires_at: Annotated[int, Meta(ge=0, le=2**53)]  # Unix seconds; 0 = never.
    scope: Scope
    priority: PriorityClass
    title: Title
    tags: Tags
    ladder: Annotated[str, Meta(max_length=64)]
    record: bool
    latency: LatencyLabel = DEFAULT


_claims_decoder = msgspec.msgpack.Decoder(_Claims)


def make_secret(entropy: Callable[[int], bytes]) -> str:
    """Make a new signing secret (256 bits, URL-safe text) for `[stream_keys.secrets]`."""
    return _base64url(entropy(SECRET_BYTES))


def make_static_key(entropy: Callable[[int], bytes]) -> str:
    """Make a new static key (160 bits): letters, digits, `-` and `_`."""
    return _base64url(entropy(20))


def make_signed_key(  # noqa: PLR0913 -- one argument per claim, all named by the caller
    secret: str,
    channel: str,
    *,
    signer: str,
    expires_at: float | None = None,
    scope: Sequence[str] = (SCOPE_PUBLISH,),
    priority: PriorityClass = PriorityClass.BASIC,
    title: str = "",
    tags: Sequence[str] = (),
    ladder: str = "default",
    record: bool = False,
    latency: LatencyLabel = DEFAULT,
) -> str:
    """Make the signed key that grants this; `expires_at` in Unix seconds, None = never.

    A PoP that knows no latency classes yet knows no key that asks for one either.
    Raises ConfigError when a claim could never be accepted by `StreamKeys.check`.
    """
    claims = _Claims(
        signer,
        channel,
        0 if expires_at is None else max(1, int(expires_at)),
        tuple(scope),
        priority,
        title,
        tuple(tags),
        ladder,
        record,
        latency,
    )
    fields = msgspec.structs.astuple(claims)
    payload = msgspec.msgpack.encode(fields if latency != DEFAULT else fields[:-1])
    try:
        _claims_decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise ConfigError(f"stream key for channel {channel!r}: {error}") from error
    signed = f"{PREFIX}.{_base64url(payload)}"
    key = f"{signed}.{_mac(secret.encode(), signed)}"
    if len(key) > KEY_CHARS_MAX:
        raise ConfigError(
            f"stream key for channel {channel!r}: {len(key)} characters exceed {KEY_CHARS_MAX};"
            " give it fewer or shorter tags"
        )
    return key


def find_problems(config: StreamKeysConfig) -> list[str]:
    """Say everything that is wrong with the table beyond its types; empty when it can be used."""
    problems: list[str] = []
    if len(config.static) > STATIC_KEYS_MAX:
        problems.append(
            f"static: {len(config.static)} keys exceed {STATIC_KEYS_MAX}; use signed keys"
        )
    seen: dict[bytes, int] = {}
    for index, static in enumerate(config.static):
        where = f"static[{index}] (channel {static.channel!r})"
        found = _static_problem(static)
        if found:
            problems.append(f"{where}: {found}")
        elif (first := seen.setdefault(_digest(static), index)) != index:
            problems.append(f"{where}: the same key as static[{first}]; a key names one channel")
    if len(config.secrets) > SECRETS_MAX:
        problems.append(f"secrets: {len(config.secrets)} secrets exceed {SECRETS_MAX}")
    for name, secret in config.secrets.items():
        if re.match(SIGNER_PATTERN, name) is None:
            problems.append(f"secrets.{name}: the name must match {SIGNER_PATTERN}")
        if problem := find_secret_problem(secret):
            problems.append(f"secrets.{name}: {problem}")
    if not config.apps:
        problems.append("apps: empty; at least one application name is needed")
    return problems + _find_callback_problems(config.callback)


class StreamKeys:
    """The stream keys that are valid here."""

    def __init__(
        self,
        static: Iterable[StaticKey] = (),
        secrets: Mapping[str, str] | None = None,
        *,
        apps: Sequence[str] = (APP_DEFAULT,),
    ) -> None:
        """Raise ConfigError, listing every problem, when the keys cannot be used."""
        config = StreamKeysConfig(
            static=tuple(static), secrets=dict(secrets or {}), apps=tuple(apps)
        )
        if problems := find_problems(config):
            raise ConfigError("; ".join(f"stream_keys.{problem}" for problem in problems))
        self._static = [(_digest(key), key) for key in config.static]
        self._secrets = {name: text.encode() for name, text in config.secrets.items()}
        self._apps = frozenset(config.apps)

    @classmethod
    def from_config(cls, config: StreamKeysConfig) -> "StreamKeys":
        """Build from the table `[stream_keys]`."""
        return cls(config.static, config.secrets, apps=config.apps)

    def check(self, app: str, key: str, now_unix: float, protocol: str) -> Grant:
        """Return what `key` grants; `app` is the RTMP application ("live" elsewhere).

        Raises PublishRefusedError with the code `unknown_app` or one of those of `identify`.
        """
        if app.strip("/") not in self._apps:
            # The application is not repeated: encoders set up wrongly put the key into it.
            raise PublishRefusedError(
                "unknown_app",
                f"no such application; the server URL must end in one of:"
                f" {', '.join(sorted(self._apps))}",
            )
        return self.identify(key, now_unix, protocol)

    def identify(self, key: str, now_unix: float, protocol: str | None = None) -> Grant:
        """Return what `key` grants, wherever it is shown; None asks for no protocol.

        Raises PublishRefusedError with the code `unknown_key`, `expired_key` or `out_of_scope`.
        """
        if not key or len(key) > KEY_CHARS_MAX:
            raise PublishRefusedError("unknown_key", REFUSED_UNKNOWN)
        if key.startswith(f"{PREFIX}."):
            return self._check_signed(key, now_unix, protocol)
        return self._check_static(key, protocol)

    def _check_static(self, key: str, protocol: str | None) -> Grant:
        digest = hashlib.sha256(key.encode(errors="replace")).digest()
        found: StaticKey | None = None
        for known, static in self._static:  # All of them, always: time must not tell which.
            if hmac.compare_digest(known, digest):
                found = static
        if found is None:
            raise PublishRefusedError("unknown_key", REFUSED_UNKNOWN)
        _check_scope(found.scope, found.channel, protocol)
        return Grant(
            channel=found.channel,
            priority=PriorityClass[found.priority.upper()],
            title=found.title,
            tags=found.tags,
            ladder=found.ladder,
            record=found.record,
            latency=found.latency,
        )

    def _check_signed(self, key: str, now_unix: float, protocol: str | None) -> Grant:
        claims = self._verified_claims(key)
        if claims is None:
            raise PublishRefusedError("unknown_key", REFUSED_UNKNOWN)
        if claims.expires_at and now_unix >= claims.expires_at:
            raise PublishRefusedError(
                "expired_key",
                f"the stream key of channel {claims.channel!r} expired"
                f" {now_unix - claims.expires_at:.0f} s ago; ask for a new one",
            )
        _check_scope(claims.scope, claims.channel, protocol)
        return Grant(
            channel=claims.channel,
            priority=claims.priority,
            title=claims.title,
            tags=claims.tags,
            ladder=claims.ladder,
            record=claims.record,
            latency=claims.latency,
            expires_at=float(claims.expires_at) if claims.expires_at else None,
        )

    def _verified_claims(self, key: str) -> _Claims | None:
        """Claims of a genuine key, else None; before the MAC is proven only `signer` is used."""
        if not key.isascii() or len(parts := key.split(".")) != _PARTS:
            return None
        signed, mac = f"{parts[0]}.{parts[1]}", parts[2]
        try:
            payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
            claims = _claims_decoder.decode(payload)
        except (ValueError, msgspec.MsgspecError, RecursionError):
            return None
        secret = self._secrets.get(claims.signer)
        if secret is None or not hmac.compare_digest(_mac(secret, signed), mac):
            return None
        return claims


def _check_scope(scope: Sequence[str], channel: str, protocol: str | None) -> None:
    if protocol is None:
        return
    if SCOPE_PUBLISH not in scope and f"{SCOPE_PUBLISH}:{protocol}" not in scope:
        raise PublishRefusedError(
            "out_of_scope",
            f"the stream key of channel {channel!r} does not allow {protocol};"
            f" it allows {', '.join(scope)}",
        )


def _static_problem(static: StaticKey) -> str:
    if bool(static.key) == bool(static.key_sha256):
        return "exactly one of key and key_sha256 is needed"
    if static.key_sha256:
        valid = re.fullmatch(r"[0-9a-fA-F]{64}", static.key_sha256) is not None
        return "" if valid else "key_sha256 must be 64 hex digits"
    if not STATIC_KEY_CHARS_MIN <= len(static.key) <= KEY_CHARS_MAX:
        limits = f"allowed are {STATIC_KEY_CHARS_MIN} to {KEY_CHARS_MAX}"
        return f"key of {len(static.key)} characters, {limits}"
    if static.key.startswith(f"{PREFIX}."):
        return f"key may not begin with '{PREFIX}.', which marks signed keys"
    safe = re.fullmatch(r"[A-Za-z0-9_.~-]+", static.key) is not None
    return "" if safe else "key may hold letters, digits and -_.~ only, to be safe in URLs"


def _find_callback_problems(config: KeyCallbackConfig | None) -> list[str]:
    if config is None:
        return []
    problems = {
        "url": find_url_problem(config.url),
        "secret": find_secret_problem(config.secret) if config.secret else "",
    }
    return [f"callback.{key}: {problem}" for key, problem in problems.items() if problem]


def _digest(static: StaticKey) -> bytes:
    if static.key_sha256:
        return bytes.fromhex(static.key_sha256)
    return hashlib.sha256(static.key.encode()).digest()


def _mac(secret: bytes, signed: str) -> str:
    return _base64url(
        hmac.new(secret, _DOMAIN + signed.encode(), hashlib.sha256).digest()[:MAC_BYTES]
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
