"""The keys that sign playback tokens: read from files, and used by joserfc (RFC 7515, 7517, 7518).

A key is good for one algorithm alone, which is in the configuration or in the JWK, never taken
from a token: a public key can't be abused as an HMAC secret, and "none" is no algorithm.
"""

import binascii
import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec
from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from msgspec import UNSET, Struct, UnsetType

from edged.errors import ConfigError
from edged.policy.playback_rights import (
    KEY_ID_PATTERN,
    KEYS_MAX,
    TOKEN_CHARS_MAX,
    Algorithm,
    RightsConfig,
    RightsKeyConfig,
    TokenRefusedError,
)

FILE_BYTES_MAX = 64 * 1024  # A set of 16 RSA keys has a fifth of it.
SECRET_BYTES_MIN = 32  # RFC 7518 §3.2: a key of the hash's size or larger.
ALGORITHMS: tuple[Algorithm, ...] = ("HS256", "RS256", "ES256", "EdDSA")
# What is taken of a JWK; what else it says is looked at here.
MATERIAL = frozenset(("kty", "crv", "x", "y", "n", "e", "d"))
ED25519 = "Ed25519"  # What RFC 9864 calls EdDSA with that curve; one is as good as the other.

Key = OctKey | RSAKey | ECKey | OKPKey

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class _Registry(JWSRegistry):
    """joserfc's algorithms, with EdDSA as a name of Ed25519, which most issuers still use."""

    def get_alg(self, name: str) -> JWSAlgModel:
        """The algorithm of a header."""
        return super().get_alg(ED25519 if name == "EdDSA" else name)


# Unknown header parameters are ignored (RFC 7515 §4); those in `crit` are refused before.
_REGISTRY = _Registry(algorithms=[*ALGORITHMS, ED25519], strict_check_header=False)


class _Header(Struct, frozen=True):
    """What of a token's header is looked at."""

    alg: str
    kid: str | UnsetType = UNSET
    crit: msgspec.Raw | UnsetType = UNSET


_header_decoder = msgspec.json.Decoder(_Header)


class TokenKey(Struct, frozen=True):
    """A key, and the one algorithm that it is for."""

    algorithm: Algorithm
    key: Key


class TokenKeys:
    """All keys that may have signed a token, by `kid`."""

    def __init__(self, keys: dict[str, TokenKey]) -> None:
        self._keys = keys

    def __eq__(self, other: object) -> bool:
        """Whether the very same tokens would be good."""
        return isinstance(other, TokenKeys) and self._shown() == other._shown()

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._keys)

    def _shown(self) -> dict[str, tuple[Algorithm, str]]:
        return {name: (one.algorithm, one.key.thumbprint()) for name, one in self._keys.items()}

    def verify(self, token: str) -> bytes:
        """A token's payload; raises `TokenRefusedError` unless one of the keys has signed it."""
        found = _COMPACT.fullmatch(token)
        if found is None:
            why = "the token is no JWT: three parts of base64url with points between"
            raise TokenRefusedError("malformed", why)
        header = _read_header(found[1])
        name = self._choose(header)
        key = self._keys[name]
        claimed = "EdDSA" if header.alg == ED25519 else header.alg
        if claimed != key.algorithm:
            why = f"key {name!r} is for {key.algorithm}, the token says {header.alg[:16]!r}"
            raise TokenRefusedError("algorithm", why)
        try:
            signed = jws.deserialize_compact(token, key.key, registry=_REGISTRY)
        except (JoseError, ValueError):
            why = f"the token's signature is not key {name!r}'s"
            raise TokenRefusedError("signature", why) from None
        return signed.payload

    def _choose(self, header: _Header) -> str:
        """Which key a token names; without a name, the only one that there is."""
        if header.kid is UNSET:
            if len(self._keys) == 1:
                return next(iter(self._keys))
            why = f"the token names no key (kid), and there are {len(self._keys)}"
            raise TokenRefusedError("unknown_key", why)
        if header.kid not in self._keys:
            why = f"the token's key (kid) {header.kid[:64]!r} is not known here"
            raise TokenRefusedError("unknown_key", why)
        return header.kid


def _read_header(text: str) -> _Header:
    try:
        data = binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "==")
        header = _header_decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise TokenRefusedError("malformed", f"the token's header: {error}") from None
    if header.crit is not UNSET:
        why = "the token's header has extensions (crit), of which none is known here"
        raise TokenRefusedError("malformed", why)
    return header


def read_keys(config: RightsConfig) -> TokenKeys:
    """All keys of a configuration; raises `ConfigError` with the key and what is wrong with it."""
    keys: dict[str, TokenKey] = {}
    for index, one in enumerate(config.keys):
        keys[one.id] = _read_key(f"playback.rights.keys[{index}]", one)
    if config.jwks:
        for name, key in _read_jwks(config.jwks).items():
            if name in keys:
                raise ConfigError(f"playback.rights.jwks: key {name!r} is in keys, too")
            keys[name] = key
    if len(keys) > KEYS_MAX:
        raise ConfigError(f"playback.rights: {len(keys)} keys, at most {KEYS_MAX} are looked at")
    return TokenKeys(keys)


def _read_file(where: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{where}: {path!r}: {error.strerror or error}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{where}: {path!r} exceeds {FILE_BYTES_MAX} bytes")
    return data


def _read_key(where: str, config: RightsKeyConfig) -> TokenKey:
    data = _read_file(f"{where}.file", config.file)
    try:
        return TokenKey(config.algorithm, import_key(config.algorithm, data))
    except ConfigError as error:
        raise ConfigError(f"{where}.file: {config.file!r} {error}") from None


def import_key(algorithm: Algorithm, data: bytes, *, private: bool = False) -> Key:
    """A key out of a file's bytes; raises `ConfigError` that goes on after the file's name.

    HS256: the secret as text, without the white space around it. Others: PEM, a public key unless
    `private`; of a private key where a public one would do the file is refused, as nobody who only
    verifies should have it.
    """
    if algorithm == "HS256":
        secret = data.strip()
        if len(secret) < SECRET_BYTES_MIN:
            raise ConfigError(f"has {len(secret)} bytes, HS256 needs {SECRET_BYTES_MIN} or more")
        if secret.startswith(b"-----BEGIN"):
            raise ConfigError("is PEM, which is no secret for HS256")
        with _strictly("is no secret for HS256"):
            return OctKey.import_key(secret)
    with _strictly(f"is no key in PEM for {algorithm}"):
        key = _import_pem(algorithm, data)
    if key.is_private != private:
        wanted = "private" if private else "public"
        raise ConfigError(f"is not a {wanted} key")
    _check(algorithm, key)
    return key


@contextlib.contextmanager
def _strictly(what: str) -> Iterator[None]:
    """Refuse with a ConfigError what joserfc refuses, and what it only warns of (short keys)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SecurityWarning)
        try:
            yield
        except (JoseError, SecurityWarning, ValueError, TypeError) as error:
            raise ConfigError(f"{what}: {error}") from None


def _import_pem(algorithm: Algorithm, data: bytes) -> RSAKey | ECKey | OKPKey:
    if algorithm == "RS256":
        return RSAKey.import_key(data)
    return ECKey.import_key(data) if algorithm == "ES256" else OKPKey.import_key(data)


def _check(algorithm: Algorithm, key: Key) -> None:
    """Raise `ConfigError` unless the key is of the algorithm's curve."""
    if isinstance(key, RSAKey):  # What it is imported for; its size joserfc has looked at.
        return
    curve = {"ES256": "P-256", "EdDSA": ED25519}.get(algorithm)
    if not isinstance(key, ECKey | OKPKey) or key.curve_name != curve:
        raise ConfigError(f"is not of {curve}, which {algorithm} needs")


class _Jwk(Struct, frozen=True):
    """What is looked at of a JWK before joserfc takes it."""

    kid: str = ""
    kty: str = ""
    crv: str = ""
    alg: str = ""
    use: str = "sig"


def _read_jwks(path: str) -> dict[str, TokenKey]:
    where = "playback.rights.jwks"
    try:
        found = msgspec.json.decode(_read_file(where, path), type=dict[str, msgspec.Raw])
        raw = msgspec.json.decode(found["keys"], type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise ConfigError(f"{where}: {path!r} is no JWK set: {error}") from None
    keys: dict[str, TokenKey] = {}
    for index, one in enumerate(raw):
        try:
            name, key = _import_jwk(bytes(one), keys)
        except ConfigError as error:
            raise ConfigError(f"{where}: {path!r}, key {index}: {error}") from None
        if name:
            keys[name] = key
    return keys


def _import_jwk(data: bytes, known: dict[str, TokenKey]) -> tuple[str, TokenKey]:
    """One key of a set; refused unless it is public, named, and of an algorithm of ours."""
    try:
        said = msgspec.json.decode(data, type=_Jwk)
        whole = msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"is no JWK: {error}") from None
    if not re.fullmatch(KEY_ID_PATTERN, said.kid):
        raise ConfigError(f"kid {said.kid[:64]!r} is none, or has other characters than a-z")
    if said.kid in known:
        raise ConfigError(f"kid {said.kid!r} is there twice")
    if said.use != "sig":
        raise ConfigError(f"use {said.use[:16]!r}: it is not for signatures")
    by_type: dict[tuple[str, str], Algorithm] = {
        ("RSA", ""): "RS256",
        ("EC", "P-256"): "ES256",
        ("OKP", ED25519): "EdDSA",
    }
    algorithm = by_type.get((said.kty, said.crv))
    if algorithm is None:
        raise ConfigError(f"kty {said.kty[:16]!r} crv {said.crv[:16]!r}: no public key of ours")
    if said.alg and ("EdDSA" if said.alg == ED25519 else said.alg) != algorithm:
        raise ConfigError(f"alg {said.alg[:16]!r}, such a key is taken for {algorithm} alone")
    with _strictly("is no key that can be used"):
        key = _import_dict(algorithm, whole)
    if key.is_private:
        raise ConfigError("is a private key; who verifies needs the public one alone")
    _check(algorithm, key)
    return said.kid, TokenKey(algorithm, key)


def _import_dict(algorithm: Algorithm, whole: dict[str, object]) -> RSAKey | ECKey | OKPKey:
    kept: dict[str, str | list[str]] = {
        name: value for name, value in whole.items() if name in MATERIAL and isinstance(value, str)
    }
    if algorithm == "RS256":
        return RSAKey.import_key(kept)
    return ECKey.import_key(kept) if algorithm == "ES256" else OKPKey.import_key(kept)


def sign_token(
    claims: dict[str, object], key: Key, *, algorithm: Algorithm, key_id: str = ""
) -> str:
    """A token with those claims, for issuers and tests; raises `ConfigError` for one too long."""
    name = ED25519 if algorithm == "EdDSA" else algorithm
    header = {"alg": name, "typ": "JWT", **({"kid": key_id} if key_id else {})}
    token = jws.serialize_compact(header, msgspec.json.encode(claims), key, registry=_REGISTRY)
    if len(token) > TOKEN_CHARS_MAX:
        raise ConfigError(f"the token has {len(token)} characters, at most {TOKEN_CHARS_MAX}")
    return token


def algorithm_of(data: bytes) -> Algorithm:
    """What a file's key signs by: PEM by its type, anything else is a secret of HS256."""
    if not data.strip().startswith(b"-----BEGIN"):
        return "HS256"
    for algorithm in ALGORITHMS[1:]:
        with contextlib.suppress(ConfigError), _strictly("is another's"):
            _check(algorithm, _import_pem(algorithm, data))
            return algorithm
    raise ConfigError("is no key in PEM for RS256, ES256 (P-256) or EdDSA (Ed25519)")
