"""What calls to configured URLs have in common: which URLs may be, and how a body is signed.

A signed request has two fields beside its body:

    Edged-Timestamp: 1700000000
    Edged-Signature: sha256=HEX

HEX is HMAC-SHA256 (RFC 2104), by the configured secret, of the timestamp's digits, a point and the
body's bytes. Who gets it compares in constant time, and refuses a timestamp that is minutes old.
A URL may be a secret itself (many services' webhooks are), so no message from here repeats one.
"""

import hashlib
import hmac
import ipaddress
import re
from urllib.parse import urlsplit

SECRET_CHARS_MIN = 32  # 128 bits, even when written in hex.
URL_CHARS_MAX = 2048  # What servers and proxies take everywhere.
TIMESTAMP_FIELD = "Edged-Timestamp"
SIGNATURE_FIELD = "Edged-Signature"
HIDDEN = "<hidden>"


def find_url_problem(url: str) -> str:
    """Say what is wrong with a URL to call, without repeating it; empty when it can be used."""
    if not url or len(url) > URL_CHARS_MAX:
        return f"{len(url)} characters; a URL of 1 to {URL_CHARS_MAX} is needed"
    if re.search(r"[^\x21-\x7e]", url):
        return "has a character that is not ASCII or not printable; encode it"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:  # A port that is no number, or an address with one bracket.
        return "is no URL: its host or port is none"
    is_host = bool(re.fullmatch(r"[A-Za-z0-9._-]+", host)) or ":" in host
    problems = {
        "must begin with https://HOST (http:// only to loopback)": (
            parts.scheme not in ("https", "http") or not is_host
        ),
        "is no URL: its port is not 1 to 65535": port == 0,
        "must have no user name and no password; the secret signs the request": (
            "@" in parts.netloc
        ),
        "must have no fragment ('#...')": "#" in url,
        "http:// is allowed only to loopback; use https://": (
            parts.scheme == "http" and not is_loopback_host(host)
        ),
    }
    return next((problem for problem, found in problems.items() if found), "")


def find_secret_problem(secret: str) -> str:
    """Say what is wrong with a signing secret; empty when it can be used."""
    if len(secret) < SECRET_CHARS_MIN:
        return f"{len(secret)} characters, at least {SECRET_CHARS_MIN} are needed"
    return ""


def is_loopback_host(host: str) -> bool:
    """Whether a URL's host is this machine whatever a name server says (RFC 6761 §6.3)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def place_of_url(url: str) -> str:
    """Scheme, host and port: what logs may say of a URL."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{parts.port}" if parts.port else "")


def sign(secret: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The two fields of a signed request; `timestamp` in Unix seconds."""
    signed = str(timestamp).encode() + b"." + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return {TIMESTAMP_FIELD: str(timestamp), SIGNATURE_FIELD: f"sha256={digest}"}


def hide(text: str, secret: str) -> str:
    """The text without a secret that another side may have put into it."""
    return text.replace(secret, HIDDEN) if secret else text
