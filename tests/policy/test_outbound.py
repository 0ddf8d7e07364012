import hashlib
import hmac

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.policy.outbound import (
    HIDDEN,
    SECRET_CHARS_MIN,
    URL_CHARS_MAX,
    find_secret_problem,
    find_url_problem,
    hide,
    is_loopback_host,
    place_of_url,
    sign,
)


@pytest.mark.parametrize(
    "url",
    [
        "https://auth.example.net/key?x=1",
        "https://auth.example.net:8443",
        "https://[2001:db8::7]:8443/",
        "http://localhost:9000/",
        "http://127.0.0.9/",
        "http://[::1]:80/",
    ],
)
def test_urls_that_can_be_called(url: str) -> None:
    assert find_url_problem(url) == ""


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "0 characters; a URL of 1 to 2048 is needed"),
        ("auth.example.net", "must begin with https://HOST"),
        ("ftp://auth.example.net", "must begin with https://HOST"),
        ("https:///key", "must begin with https://HOST"),
        ("https://exa%mple/", "must begin with https://HOST"),
        ("http://auth.example.net/", "http:// is allowed only to loopback; use https://"),
        ("http://10.0.0.1/", "http:// is allowed only to loopback; use https://"),
        ("http://localhost.example.net/", "http:// is allowed only to loopback"),
        ("https://me:secret@example.net/", "must have no user name and no password"),
        ("http://127.0.0.1\\@example.net/", "must begin with|must have no user name"),
        ("https://example.net/#there", "must have no fragment"),
        ("https://example.net:0/", "its port is not 1 to 65535"),
        ("https://example.net:99999/", "is no URL: its host or port is none"),
        ("https://[::1/", "is no URL: its host or port is none"),
        ("https://example.net/a b", "not ASCII or not printable"),
        ("https://exämple.net/", "not ASCII or not printable"),
    ],
)
def test_urls_that_cannot(url: str, problem: str) -> None:
    found = find_url_problem(url)
    assert any(found.startswith(text) or text in found for text in problem.split("|"))
    assert "secret@" not in found


def test_a_url_has_its_limit() -> None:
    url = "https://example.net/"
    assert find_url_problem(url + "x" * (URL_CHARS_MAX - len(url))) == ""
    assert "2049 characters" in find_url_problem(url + "x" * (URL_CHARS_MAX + 1 - len(url)))


@hypothesis.given(st.text())
def test_any_text_is_a_url_or_has_a_problem(text: str) -> None:
    find_url_problem(text)
    find_url_problem(f"https://{text}")


def test_secrets() -> None:
    assert find_secret_problem("x" * SECRET_CHARS_MIN) == ""
    assert (
        find_secret_problem("x" * (SECRET_CHARS_MIN - 1)) == "31 characters, at least 32 are needed"
    )


def test_loopback() -> None:
    assert is_loopback_host("::1")
    assert not is_loopback_host("0.0.0.0")  # noqa: S104 - no address to call
    assert not is_loopback_host("example.net")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://hooks.example.net/T0/B0/secret?token=secret", "https://hooks.example.net"),
        ("http://127.0.0.1:99/secret", "http://127.0.0.1:99"),
        ("https://[::1]:99/secret", "https://[::1]:99"),
    ],
)
def test_logs_say_where_and_no_more(url: str, place: str) -> None:
    assert place_of_url(url) == place


def test_the_signature_is_hmac_sha256_of_timestamp_and_body() -> None:
    fields = sign("secret", 1_700_000_000, b'{"a":1}')
    expected = hmac.new(b"secret", b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
    assert fields == {
        "Edged-Timestamp": "1700000000",
        "Edged-Signature": f"sha256={expected}",
    }


def test_hiding() -> None:
    assert hide("the key is abc, abc!", "abc") == f"the key is {HIDDEN}, {HIDDEN}!"
    assert hide("nothing", "") == "nothing"
