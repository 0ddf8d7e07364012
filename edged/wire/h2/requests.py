"""Requests out of HTTP/2's header lists (RFC 9113 §8): what is well-formed, and what we take.

A field is judged when HPACK makes it (`judge_field`), so that of a browser's usual request, whose
fields are all in the table, only the path is looked at.
"""

import re
from typing import Final
from urllib.parse import unquote

from edged.errors import RemoteProtocolError
from edged.wire.h1 import CONDITIONS
from edged.wire.h2.head import Head
from edged.wire.h2.hpack import Entry, Field, Vocabulary
from edged.wire.h2.limits import H2Limits
from edged.wire.request import RequestReceived

# Verdicts: a field that is only carried; pseudo-header fields; those that mean something here.
REGULAR, METHOD, SCHEME, AUTHORITY, PATH = range(5)
HOST, COOKIE, CONTENT_LENGTH, PRIORITY, EXPECT, CONDITION, BAD = range(5, 12)

LENGTH_DIGITS_MAX: Final = 18
TOLD_BYTES_MAX: Final = 40  # Of a field in a reason.

_KINDS: Final = {
    b":method": METHOD,
    b":scheme": SCHEME,
    b":authority": AUTHORITY,
    b":path": PATH,
    b"host": HOST,
    b"cookie": COOKIE,
    b"content-length": CONTENT_LENGTH,
    b"priority": PRIORITY,
    b"expect": EXPECT,
    **dict.fromkeys(CONDITIONS, CONDITION),
    **dict.fromkeys((b"connection", b"keep-alive", b"proxy-connection"), BAD),
    **dict.fromkeys((b"transfer-encoding", b"upgrade"), BAD),
}
_PSEUDO = (b":method", b":scheme", b":authority", b":path")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 §5.1, in lower case.
_FORMS: Final = {
    METHOD: re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
    SCHEME: re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*"),
    # No user information (RFC 9113 §8.3.1), and nothing that ends an authority (RFC 3986 §3.2).
    AUTHORITY: re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]+"),
    HOST: re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]+"),
    CONTENT_LENGTH: re.compile(rb"[0-9]{1,%d}" % LENGTH_DIGITS_MAX),
}
_VALUE_BYTES: Final = b"\t" + bytes(byte for byte in range(0x20, 0x100) if byte != 0x7F)  # noqa: PLR2004
TARGET_BYTES: Final = bytes(byte for byte in range(0x21, 0x100) if byte not in b"\x7f#")
_METHODS: Final = {b"GET": "GET", b"HEAD": "HEAD", b"POST": "POST", b"OPTIONS": "OPTIONS"}
_NO_FIELD: Final[Field] = (b"host", b"")


class MalformedError(RemoteProtocolError):
    """No request (RFC 9113 §8.1.1): its stream is reset."""


class RefusedError(RemoteProtocolError):
    """A request that we do not take; it gets an answer."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


def judge_field(name: bytes, value: bytes) -> int:
    """What a field is to us; BAD if no request may have it."""
    kind = _KINDS.get(name)
    if kind == PATH:
        return kind  # `split_target` looks at the value: most are asked for by many.
    if kind is None:
        if not _NAME.fullmatch(name):
            return BAD
        if name == b"te" and value != b"trailers":
            return BAD
        kind = REGULAR
    elif kind in _FORMS and not _FORMS[kind].fullmatch(value):
        return BAD
    if value.translate(None, _VALUE_BYTES) or value.strip(b" \t") != value:
        return BAD
    return kind


VOCABULARY = Vocabulary(judge_field)


def explain_bad(name: bytes, value: bytes) -> str:
    """Why a field is BAD."""
    told, shown = _tell(name), _tell(value)
    kind = _KINDS.get(name)
    if kind == BAD:
        return f"field {told} is of HTTP/1.1's connections (RFC 9113 §8.2.2)"
    if name.startswith(b":") and kind is None:
        return f"{told} is no pseudo-header field of a request"
    if kind is None and not _NAME.fullmatch(name):
        return f"field name {told} is no token in lower case (RFC 9113 §8.2.1)"
    if name == b"te":
        return f"field te is {shown}, allowed is 'trailers'"
    if kind in _FORMS:
        return f"{told} is malformed: {shown}"
    return f"value of field {told} has bytes that no value has: {shown}"


def _tell(data: bytes) -> str:
    return repr(data[:TOLD_BYTES_MAX])[1:]


def split_target(target: bytes, method: bytes) -> tuple[str, str]:
    """Path, percent-decoded, and query, not decoded (RFC 9113 §8.3.1)."""
    if target[:1] != b"/" and (target != b"*" or method != b"OPTIONS"):
        raise MalformedError(f":path is {_tell(target)}, it begins with '/'")
    if target.translate(None, TARGET_BYTES):
        raise MalformedError(f":path has bytes that no path has: {_tell(target)}")
    path, _, query = target.decode("latin-1").partition("?")
    return (unquote(path) if "%" in path else path), query


class _Special:
    """What a request's rarer fields say."""

    __slots__ = ("conditional", "content_length", "crumbs", "expect", "host", "priority")

    def __init__(self) -> None:
        self.conditional = False
        self.content_length: int | None = None
        self.crumbs: list[bytes] = []
        self.expect = False
        self.host: bytes | None = None
        self.priority: bytes | None = None

    def note(self, field: Field, kind: int, fields: list[Field]) -> None:
        name, value = field
        if kind == COOKIE:
            self.crumbs.append(value)
            return
        if kind == PRIORITY:
            self.priority = value
        elif kind == EXPECT:
            self.expect = True
        elif kind == CONDITION:
            self.conditional = True
        elif kind == HOST:
            if self.host is not None:
                raise MalformedError("more than one host field (RFC 9110 §7.2)")
            self.host = value
            return
        elif kind == CONTENT_LENGTH:
            if self.content_length is not None:
                raise MalformedError("more than one content-length field (RFC 9110 §8.6)")
            self.content_length = int(value)
        elif kind <= PATH:
            raise MalformedError(f"{_tell(name)} behind other fields (RFC 9113 §8.3)")
        else:
            raise MalformedError(explain_bad(name, value))
        fields.append(field)


def _read_pseudo(entries: list[Entry]) -> tuple[list[bytes | None], int]:
    """The pseudo-header fields in front, by kind, and how many."""
    pseudo: list[bytes | None] = [None] * 5
    count = 0
    for field, _, kind in entries:
        if not kind or kind > PATH:
            break
        if pseudo[kind] is not None:
            raise MalformedError(f"more than one {_tell(field[0])}")
        pseudo[kind] = field[1]
        count += 1
    return pseudo, count


def read_head(entries: list[Entry], limits: H2Limits) -> Head:
    """A request's header list; raises `MalformedError` or `RefusedError`."""
    pseudo, count = _read_pseudo(entries)
    fields = [_NO_FIELD]  # The place of the host.
    special: _Special | None = None
    for field, _, kind in entries[count:]:
        if kind:
            if special is None:
                special = _Special()
            special.note(field, kind, fields)
        else:
            fields.append(field)
    _, method, scheme, authority, target = pseudo
    if method is None or scheme is None or target is None or method == b"CONNECT":
        raise _explain_pseudo(method, scheme)
    if len(target) > limits.target_bytes_max:
        raise RefusedError(414, f"request target exceeds {limits.target_bytes_max} bytes")
    path, query = split_target(target, method)
    if special is not None:
        authority = _apply(special, authority, fields)
    if not authority:
        raise MalformedError("without :authority and host (RFC 9113 §8.3.1)")
    fields[0] = (b"host", authority)
    request = RequestReceived(
        method=_METHODS.get(method) or method.decode("ascii"),
        path=path,
        query=query,
        fields=fields,
        keep_alive=True,
        conditional=special is not None and special.conditional,
    )
    if special is None:
        return Head(request, None, None)
    if special.expect:
        # RFC 9110 §10.1.1: 100 or a final status; no client sends us bodies worth a wait.
        raise RefusedError(417, "expectations are not supported")
    return Head(request, special.content_length, special.priority)


def _explain_pseudo(method: bytes | None, scheme: bytes | None) -> RemoteProtocolError:
    if method == b"CONNECT":
        return RefusedError(501, "CONNECT is not supported")
    missing = ":method" if method is None else ":scheme" if scheme is None else ":path"
    return MalformedError(f"without {missing} (RFC 9113 §8.3.1)")


def _apply(special: _Special, authority: bytes | None, fields: list[Field]) -> bytes | None:
    """Put what was gathered into the fields; the authority, wherever it was told."""
    if special.crumbs:  # RFC 9113 §8.2.3.
        fields.append((b"cookie", b"; ".join(special.crumbs)))
    host = special.host
    if host is None or authority is None:
        return authority if host is None else host
    if host.lower() != authority.lower():
        raise MalformedError(f"host is {_tell(host)}, but :authority {_tell(authority)}")
    return authority


def check_trailers(entries: list[Entry]) -> None:
    """Trailers are dropped, but have to be well-formed (RFC 9113 §8.1)."""
    for (name, value), _, kind in entries:
        if kind == BAD:
            raise MalformedError(explain_bad(name, value))
        if name in _PSEUDO:
            raise MalformedError(f"{_tell(name)} in trailers")
