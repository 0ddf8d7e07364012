"""What the API says when it does not do what was asked: RFC 9457 problem details, with a code."""

from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from msgspec import Struct

from edged.errors import EdgedError, PublishRefusedError

CONTENT_TYPE = "application/problem+json"

# Status and meaning of each code. Those of a refused publisher are named as encoders hear them.
CODES: dict[str, tuple[int, str]] = {
    "malformed_request": (400, "The request is not HTTP that can be answered."),
    "malformed_body": (400, "The body is not JSON."),
    "invalid_query": (400, "A query parameter is unknown or out of its limits."),
    "missing_credentials": (401, "The operation needs `Authorization: Bearer STREAM_KEY`."),
    "playback_token": (401, "The channel is protected, and no valid playback token is shown."),
    "not_admitted": (403, "The playback token is not for this channel, or not for this address."),
    "unknown_key": (403, "No key of this PoP matches."),
    "expired_key": (403, "The signed key's time is over."),
    "out_of_scope": (403, "The key is not for this protocol."),
    "kicked": (403, "An operator has ended the broadcast; the channel is refused for a while."),
    "wrong_channel": (403, "The key is for another channel."),
    "not_found": (404, "There is nothing at this address."),
    "not_live": (404, "The channel is not live."),
    "method_not_allowed": (405, "The address has no such method; `Allow` names those it has."),
    "takeover": (409, "The channel is live and was taken over less than 30 s ago."),
    "body_too_large": (413, "The body exceeds `api.body_bytes_max`."),
    "unsupported_media_type": (415, "The body is to be `application/json`."),
    "invalid_body": (422, "A value of the body is missing, unknown or out of its limits."),
    "unsupported_codec": (422, "No ingest protocol here carries the codec."),
    "unsupported_media": (422, "The stream is of a codec or shape that cannot be carried."),
    "bitrate_too_high": (422, "The bitrate exceeds `api.bitrate_bps_max`."),
    "rate_limited": (429, "Too many requests, or wrong stream keys, came from this client."),
    "internal": (500, "A fault of edged; the PoP's log has it."),
    "no_route": (503, "No PoP has a way to an origin that takes the stream now."),
    "not_ready": (503, "The stream has yet to come to this PoP, or could not come."),
    "full": (503, "The PoP, or its origin, has all the streams that it may have."),
    "auth_unavailable": (503, "The service that knows stream keys gave no answer that counts."),
    "busy": (503, "The PoP has more to do than it can; publishers and viewers go first."),
    "timeout": (504, "The answer took longer than `api.request_timeout_s`."),
    "unconfirmed": (504, "The PoP where the channel is published has not answered."),
}
RETRY_AFTER_S = 1  # Of what passes by itself.
RETRIED = frozenset(
    {"auth_unavailable", "busy", "full", "no_route", "not_ready", "timeout", "unconfirmed"}
)


class Problem(Struct, frozen=True, kw_only=True):
    """RFC 9457 §3.1; `code` is for programs, `detail` for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str


class ApiError(EdgedError):
    """A request that is answered with a problem."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        fields: Sequence[tuple[str, str]] = (),
    ) -> None:
        assert code in CODES, f"{code} is not in the table"
        self.code = code
        self.detail = detail
        self.status = CODES[code][0]
        if retry_after_s is None and code in RETRIED:
            retry_after_s = RETRY_AFTER_S
        wait = [] if retry_after_s is None else [("Retry-After", str(max(1, round(retry_after_s))))]
        self.fields = (*fields, *wait)
        super().__init__(f"{code}: {detail}")

    @classmethod
    def of_refusal(cls, error: PublishRefusedError) -> "ApiError":
        """The same that a publisher would hear; the detail for the log stays here."""
        if error.code not in CODES:
            return cls("internal", error.reason)
        return cls(error.code, error.reason, retry_after_s=error.retry_after_s)

    def body(self) -> bytes:
        """The problem as JSON."""
        return msgspec.json.encode(self.problem())

    def problem(self) -> Problem:
        """The problem."""
        return Problem(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            code=self.code,
        )
