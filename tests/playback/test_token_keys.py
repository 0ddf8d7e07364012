"""Keys of playback tokens out of files, and signatures: right, wrong, and confused."""

import base64
import contextlib
import json
from pathlib import Path

import hypothesis
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from edged.errors import ConfigError
from edged.playback.token_keys import (
    ALGORITHMS,
    FILE_BYTES_MAX,
    Key,
    TokenKey,
    TokenKeys,
    algorithm_of,
    import_key,
    read_keys,
    sign_token,
)
from edged.policy.playback_rights import (
    KEYS_MAX,
    Algorithm,
    RightsConfig,
    RightsKeyConfig,
    TokenRefusedError,
    read_claims,
)

SECRET = b"put-at-least-32-characters-of-chance-here"
CLAIMS: dict[str, object] = {"channels": "alice", "exp": 2_000_000_000}
PUBLIC_KEYS: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")


def generate(algorithm: str) -> RSAKey | ECKey | OKPKey | OctKey:
    """A new key of whoever signs."""
    match algorithm:
        case "RS256":
            return RSAKey.generate_key(2048, private=True)
        case "ES256":
            return ECKey.generate_key("P-256", private=True)
        case "EdDSA":
            return OKPKey.generate_key("Ed25519", private=True)
    return OctKey.generate_key(256)


def generate_pair(algorithm: str) -> RSAKey | ECKey | OKPKey:
    key = generate(algorithm)
    assert not isinstance(key, OctKey)
    return key


PRIVATE = {name: generate_pair(name) for name in PUBLIC_KEYS}


def pem(algorithm: Algorithm, *, private: bool = False) -> bytes:
    return SECRET if algorithm == "HS256" else PRIVATE[algorithm].as_pem(private=private)


def signing(algorithm: Algorithm) -> Key:
    return import_key(algorithm, pem(algorithm, private=True), private=True)


def verifying(*algorithms: Algorithm) -> TokenKeys:
    keys = {name: TokenKey(name, import_key(name, pem(name))) for name in algorithms}
    return TokenKeys({str(name): key for name, key in keys.items()})


def encode(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def code_of(keys: TokenKeys, token: str) -> str:
    with pytest.raises(TokenRefusedError) as raised:
        keys.verify(token)
    assert SECRET.decode() not in str(raised.value)
    return raised.value.refusal.code


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_signs_and_verifies(algorithm: Algorithm) -> None:
    keys = verifying(*ALGORITHMS)
    token = sign_token(CLAIMS, signing(algorithm), algorithm=algorithm, key_id=algorithm)
    assert read_claims(keys.verify(token)).channels == ("alice",)
    head, payload, signature = token.split(".")
    other = encode({**CLAIMS, "channels": "bob"})
    assert code_of(keys, f"{head}.{other}.{signature}") == "signature"
    flipped = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    assert code_of(keys, f"{head}.{payload}.{flipped}") == "signature"
    stranger = generate(algorithm)
    forged = sign_token(CLAIMS, stranger, algorithm=algorithm, key_id=algorithm)
    assert code_of(keys, forged) == "signature"


def test_the_older_name_of_ed25519_is_as_good() -> None:

    text = f"{encode({'alg': 'EdDSA', 'kid': 'EdDSA'})}.{encode(CLAIMS)}"
    raw = load_pem_private_key(pem("EdDSA", private=True), None)
    assert isinstance(raw, Ed25519PrivateKey)
    signature = raw.sign(text.encode())
    assert verifying("EdDSA").verify(f"{text}.{encode(signature)}")


def test_algorithms_are_not_confused() -> None:
    """RFC 8725 §2.1: a public key as an HMAC secret, "none", and an algorithm of the token's."""
    keys = verifying(*ALGORITHMS)
    public = pem("RS256")
    with pytest.raises(ConfigError, match="PEM"):
        import_key("HS256", public)
    abused = TokenKey("HS256", import_key("HS256", b" " + SECRET)).key
    token = sign_token(CLAIMS, abused, algorithm="HS256", key_id="RS256")
    assert code_of(keys, token) == "algorithm"
    for algorithm in ("none", "None", "HS512", "RS512", "PS256", "ES384", ""):
        text = f"{encode({'alg': algorithm, 'kid': 'HS256'})}.{encode(CLAIMS)}"
        assert code_of(keys, f"{text}.{encode(b'x' * 32)}") == "algorithm"
        assert code_of(keys, f"{text}.") == "malformed"


def test_which_key_a_token_names() -> None:
    token = sign_token(CLAIMS, signing("HS256"), algorithm="HS256")
    assert verifying("HS256").verify(token)
    assert code_of(verifying("HS256", "ES256"), token) == "unknown_key"
    other = sign_token(CLAIMS, signing("HS256"), algorithm="HS256", key_id="b")
    assert code_of(verifying("HS256"), other) == "unknown_key"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.b.c.d",
        "a..c",
        "a.b.c\n",
        "ä.b.c",
        "e30.e30.AA",
        f"{encode([])}.e30.AA",
        f"{encode({'alg': 'HS256', 'crit': ['b64'], 'b64': False})}.e30.AA",
        f"{encode({'alg': 'HS256', 'kid': 1})}.e30.AA",
        f"{encode(b'{' * 400)}.e30.AA",
    ],
)
def test_no_tokens(token: str) -> None:
    assert code_of(verifying("HS256"), token) == "malformed"


def test_base64_has_one_form() -> None:
    """A holder of one token can't fill the cache with others that say the same."""
    token = sign_token(CLAIMS, signing("HS256"), algorithm="HS256")
    for other in (f"{token}=", f"{token}!!", f" {token}", token.replace(".", ".%", 1)):
        assert code_of(verifying("HS256"), other) == "malformed"


@hypothesis.given(st.data())
def test_a_token_with_any_change_is_refused(data: st.DataObject) -> None:
    token = sign_token(CLAIMS, signing("HS256"), algorithm="HS256", key_id="HS256")
    keys = verifying("HS256")
    at = data.draw(st.integers(0, len(token) - 2))  # The last has bits that mean nothing.
    char = data.draw(st.sampled_from("ABCabc019-_.=% \n") | st.characters())
    hypothesis.assume(token[at] != char)
    with pytest.raises(TokenRefusedError):
        keys.verify(token[:at] + char + token[at + 1 :])


HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku"]),
    st.sampled_from(["HS256", "RS256", "none", "EdDSA"]) | st.text() | st.integers() | st.none(),
)


@hypothesis.given(
    st.text()
    | st.tuples(st.binary(), st.binary(), st.binary()).map(lambda t: ".".join(map(encode, t)))
    | st.tuples(HEADERS, st.binary(), st.binary()).map(lambda t: ".".join(map(encode, t)))
)
def test_garbage_raises_only_a_refusal(token: str) -> None:
    with contextlib.suppress(TokenRefusedError):
        verifying(*ALGORITHMS).verify(token)


# Keys out of files.


def config_of(folder: Path, algorithm: Algorithm, data: bytes) -> RightsConfig:
    path = folder / "key"
    path.write_bytes(data)
    key = RightsKeyConfig(id="k", algorithm=algorithm, file=str(path))
    return RightsConfig(channels=("*",), keys=(key,))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_in_files(algorithm: Algorithm, tmp_path: Path) -> None:
    keys = read_keys(config_of(tmp_path, algorithm, pem(algorithm) + b"\n"))
    assert len(keys) == 1
    assert keys.verify(sign_token(CLAIMS, signing(algorithm), algorithm=algorithm, key_id="k"))
    assert keys == read_keys(config_of(tmp_path, algorithm, pem(algorithm)))
    assert keys != verifying("HS256")
    assert keys != "keys"
    assert algorithm_of(pem(algorithm)) == algorithm_of(pem(algorithm, private=True)) == algorithm


@pytest.mark.parametrize(
    ("algorithm", "data", "why"),
    [
        ("HS256", b"s" * 31, "has 31 bytes, HS256 needs 32"),
        ("HS256", pem("RS256"), "is PEM"),
        ("RS256", SECRET, "is no key in PEM for RS256"),
        ("RS256", pem("ES256"), "is no"),
        ("RS256", pem("RS256", private=True), "is not a public key"),
        ("ES256", ECKey.generate_key("P-384", private=True).as_pem(private=False), "of P-256"),
        ("EdDSA", OKPKey.generate_key("Ed448", private=True).as_pem(private=False), "of Ed25519"),
        ("EdDSA", b"-----BEGIN PUBLIC KEY-----\n", "is no key in PEM"),
        ("HS256", b"x" * (FILE_BYTES_MAX + 1), "exceeds 65536 bytes"),
    ],
)
def test_keys_that_are_none(algorithm: Algorithm, data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why) as raised:
        read_keys(config_of(tmp_path, algorithm, data))
    assert str(raised.value).startswith("playback.rights.keys[0].file: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    key = RightsKeyConfig(id="k", algorithm="HS256", file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(RightsConfig(keys=(key,)))


def test_a_file_to_sign_with_that_holds_no_key() -> None:
    with pytest.raises(ConfigError, match="is no key in PEM"):
        algorithm_of(b"-----BEGIN PUBLIC KEY-----\n")


def jwk(algorithm: Algorithm, **more: object) -> dict[str, object]:
    return {**PRIVATE[algorithm].as_dict(private=False), "kid": algorithm, **more}


def read_set(folder: Path, *keys: object) -> TokenKeys:
    path = folder / "jwks.json"
    path.write_text(json.dumps({"keys": list(keys)}))
    return read_keys(RightsConfig(jwks=str(path)))


def test_a_set_of_keys(tmp_path: Path) -> None:
    told = {"use": "sig", "x5c": ["x"]}
    keys = read_set(tmp_path, *(jwk(name, alg=name, **told) for name in PUBLIC_KEYS))
    for name in PUBLIC_KEYS:
        assert keys.verify(sign_token(CLAIMS, signing(name), algorithm=name, key_id=name))
    assert read_set(tmp_path, jwk("EdDSA", alg="Ed25519")) == read_set(tmp_path, jwk("EdDSA"))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([1], "is no JWK"),
        ([{"kid": "a", "kty": "oct", "k": encode(SECRET)}], "no public key of ours"),
        ([jwk("RS256", kid="")], "kid '' is none"),
        ([jwk("RS256", kid="a b")], "kid 'a b'"),
        ([jwk("RS256"), jwk("RS256")], "key 1: kid 'RS256' is there twice"),
        ([jwk("RS256", use="enc")], "is not for signatures"),
        ([jwk("RS256", alg="RS512")], "is taken for RS256 alone"),
        ([jwk("ES256", crv="P-384")], "no public key of ours"),
        ([jwk("ES256", x="AA")], "is no key that can be used"),
        ([{**PRIVATE["ES256"].as_dict(private=True), "kid": "a"}], "is a private key"),
        (
            [{"kid": "a", "kty": "RSA", "n": encode(b"\xff" * 128), "e": "AQAB"}],
            "no key that can be used: Key size should be >= 2048 bits",
        ),
        ([jwk("ES256", kid=f"k{index}") for index in range(KEYS_MAX + 1)], "17 keys, at most 16"),
    ],
)
def test_sets_that_are_none(keys: list[object], why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        read_set(tmp_path, *keys)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": 1}', b"\xff"])
def test_files_that_are_no_set(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="is no JWK set"):
        read_keys(RightsConfig(jwks=str(path)))


def test_a_key_in_both_places(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk("ES256", kid="k")]}))
    one = config_of(tmp_path, "HS256", SECRET)
    both = RightsConfig(keys=one.keys, jwks=str(path))
    with pytest.raises(ConfigError, match="key 'k' is in keys, too"):
        read_keys(both)


def test_a_token_too_long_is_not_made() -> None:
    long = {**CLAIMS, "more": "x" * 1200}
    with pytest.raises(ConfigError, match="at most 1536"):
        sign_token(long, signing("HS256"), algorithm="HS256")
