"""Playback rights at the door: each request for a protected channel shows a token, or is refused.

    /live/CHANNEL/master.m3u8?token=TOKEN   the playlist's own URLs carry it on, as below
    /live/CHANNEL/manifest.mpd?token=TOKEN  the manifest's, too
    /live/CHANNEL/PUB/NAME.mpd?token=TOKEN  is redirected there
    /t/TOKEN/live/CHANNEL/...               relative URLs inherit it, and no cache key here has it
    Authorization: Bearer TOKEN             from players that set a field on each request
    Cookie: edged_token=TOKEN               from pages of the same site, and native players

What a query shows is carried on in the path, as a cookie of ours would be a third party's to a page
of another site, and hls.js asks without cookies there. What a protected channel is answered with is
`private`: no shared cache hands it to who shows nothing.

Playlists end with their token; media goes on for one playlist's window more, so that what a player
has been told of can be fetched.
"""

import math
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog

from edged.playback.dash import MANIFEST
from edged.playback.hls import MASTER, HlsService
from edged.playback.playlist import GZIPPED, VARIES, entity_tag
from edged.playback.router import CORS, error_response
from edged.playback.waiting import Exchange
from edged.policy.playback_rights import (
    Claims,
    PlaybackRights,
    Refusal,
    RightsConfig,
    RightsStatistics,
    TokenRefusedError,
    check_address,
)
from edged.policy.rate_limit import WINDOW_S, Network, RateLimit, choose_client, count_for
from edged.wire.content_coding import compress
from edged.wire.prepared import PreparedResponse, prepare
from edged.wire.request import RequestReceived

if TYPE_CHECKING:
    from edged.playback.http import HttpServer

LIVE = "/live/"
TOKENS = "/t/"
COOKIE = b"edged_token"
PARAMETER = "token="
COOKIES_MAX = 4  # A site may have set one for each path, of which the most specific comes first.
MANIFESTS = ".mpd"  # Relative URLs are resolved against where it was found (RFC 3986 §5.1.3):
# dash.js does so behind a redirect, FFmpeg does not.
PLAYLISTS = (".m3u8", MANIFESTS)
# What stands for the base of a playlist's URLs until it is known: no text of a playlist has it.
BASE_MARK = "\x00/"
# Of one address (of IPv6: one /64) a minute: each takes up to 0.3 ms of the loop (EdDSA).
WRONG_MAX = 300
TELL_INTERVAL_S = 0.1  # A line in the log; who is refused in between is counted.

logger = structlog.get_logger("edged.rights")


def _no_keys(token: str) -> bytes:
    del token
    raise TokenRefusedError("unknown_key", "no key is known here")


def make_open() -> PlaybackRights:
    """Rights by which nothing is protected."""
    return PlaybackRights(RightsConfig(), _no_keys)


class RightsGate:
    """Before a `HlsService`: its requests pass when they may. Mounted on "/live/" and "/t/"."""

    def __init__(
        self,
        server: "HttpServer",
        hls: HlsService,
        *,
        proxies: tuple[Network, ...],
        unix_now: Callable[[], float],
        window_s: Callable[[], float],
    ) -> None:
        """`proxies`: whose X-Forwarded-For is believed; `window_s`: how long playlists are."""
        self.rights = make_open()
        self._server, self._hls = server, hls
        self._proxies, self._unix_now, self._window_s = proxies, unix_now, window_s
        self._tell_at, self._untold = -math.inf, 0
        self._wrong = RateLimit(WRONG_MAX)
        server.mount(LIVE, hls)
        server.mount(TOKENS, self)

    def use(self, rights: PlaybackRights) -> None:
        """Ask by these from now on; while nothing is protected "/live/" does without the gate."""
        rights.go_on_from(self.rights)
        self.rights = rights
        self._hls.use_privacy(rights.protects)
        self._server.remount(LIVE, self if rights.config.channels else self._hls)

    def respond(
        self, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        """Answer a request that may, or refuse it."""
        path, shown = request.path, ""
        if path.startswith(TOKENS):
            shown, _, rest = path[len(TOKENS) :].partition("/")
            path = f"/{rest}"
            if not path.startswith(LIVE):
                return error_response(404, "a token in the path stands before /live/CHANNEL/...")
            request = request.for_target(path, request.query)
        _, _, channel, *names = path.split("/")
        if not self.rights.protects(channel):
            return self._hls.respond(request, exchange, now)
        found, by_query = self._look(request, exchange, channel, shown)
        if isinstance(found, Refusal):
            return self._refuse(found, exchange, channel, now)
        if by_query and names in ([MASTER], [MANIFEST]):
            base = f"../..{TOKENS}{by_query}{LIVE}{quote(channel)}/"
            return self._carry_on(channel, request, exchange, now, base)
        if by_query and path.endswith(MANIFESTS):
            place = "../" * len(names) + f"..{TOKENS}{by_query}{quote(path)}"
            return error_response(307, f"it is at {place}", fields=(("Location", place),))
        return self._hls.respond(request, exchange, now)

    def respond_master(
        self, channel: str, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | Refusal | None:
        """The multivariant playlist at another address: a channel's that is protected alone."""
        found, by_query = self._look(request, exchange, channel, "")
        if isinstance(found, Refusal):
            self._tell(found, exchange, channel, now)
            return found
        base = f"{TOKENS}{by_query}{LIVE}{channel}/" if by_query else f"{LIVE}{channel}/"
        return self._carry_on(channel, request, exchange, now, base)

    def statistics(self) -> RightsStatistics:
        """Counters for metrics."""
        return self.rights.statistics()

    def _look(
        self, request: RequestReceived, exchange: Exchange, channel: str, shown: str
    ) -> tuple[Claims | Refusal, str]:
        """Whether what a request shows is good; and the token, if it came in the query."""
        rights = self.rights
        tokens, by_query = self._find(request, shown)
        found: Claims | Refusal | None = None
        now_unix_s = self._unix_now()
        grace_s = 0.0 if request.path.endswith(PLAYLISTS) else self._window_s()
        for token in tokens:
            if rights.knows(token):
                found = rights.check(token, channel, now_unix_s=now_unix_s, grace_s=grace_s)
            else:
                client = self._client(request, exchange)
                found = self._check_new(token, channel, client, now_unix_s, grace_s)
            if isinstance(found, Claims) and found.network is not None:
                found = check_address(found, self._client(request, exchange)) or found
            if isinstance(found, Claims):
                break
        if found is None:
            forms = ", ".join(rights.config.forms)
            why = f"channel {channel[:64]!r} is protected: show a token by one of {forms}"
            found = Refusal(401, "missing", why)
        if not exchange.retrying:
            rights.note(found)
        return found, by_query

    def _check_new(
        self, token: str, channel: str, client: str, now_unix_s: float, grace_s: float
    ) -> Claims | Refusal:
        """The same of a token that is to be verified: an address may show so many wrong ones."""
        place = count_for(client)
        if self._wrong.is_spent(place, now_unix_s):
            why = f"{WRONG_MAX} wrong tokens within {WINDOW_S:g} s came from this address"
            return Refusal(429, "too_many", why)
        found = self.rights.check(token, channel, now_unix_s=now_unix_s, grace_s=grace_s)
        if isinstance(found, Refusal) and found.status == HTTPStatus.UNAUTHORIZED:
            self._wrong.admit(place, now_unix_s)
        return found

    def _find(self, request: RequestReceived, shown: str) -> tuple[list[str], str]:
        """The tokens of a request: of its path, query, field or cookies, whichever is first."""
        forms = self.rights.config.forms
        if shown:
            return [shown] if "path" in forms else [], ""
        if "query" in forms and PARAMETER in request.query:
            for parameter in request.query.split("&"):
                if parameter.startswith(PARAMETER):
                    token = parameter[len(PARAMETER) :]
                    return [token], token
        if "header" in forms:
            scheme, _, bearer = request.field(b"authorization").partition(b" ")
            if scheme.lower() == b"bearer":
                return [bearer.strip().decode("latin-1")], ""
        return _cookies(request) if "cookie" in forms else [], ""

    def _client(self, request: RequestReceived, exchange: Exchange) -> str:
        forwarded = [
            value.decode("latin-1")
            for name, value in request.fields
            if name.lower() == b"x-forwarded-for"
        ]
        return choose_client(exchange.connection.peer, forwarded, self._proxies)

    def _carry_on(
        self, channel: str, request: RequestReceived, exchange: Exchange, now: float, base: str
    ) -> PreparedResponse | None:
        """The multivariant playlist, or the manifest, with URLs behind `base`, for this viewer.

        It is made once with a mark in the place: of a thousand who waited each costs a replacement,
        and some 50 us of gzip.
        """
        dash = request.path.endswith(MANIFESTS)
        response = self._hls.respond_master(channel, exchange, now, base=BASE_MARK, dash=dash)
        if response is None or response.status != HTTPStatus.OK:
            return response
        body = b"".join(response.body).replace(BASE_MARK.encode(), base.encode("latin-1"))
        fields, coding = dict(response.fields), VARIES
        if request.takes_gzip:
            body, coding = compress(body), GZIPPED
        return prepare(
            200,
            [body],
            content_type=fields["Content-Type"],
            cache_control=fields["Cache-Control"],
            fields=(*CORS, *coding),
            etag=entity_tag(body),
        )

    def _refuse(
        self, refusal: Refusal, exchange: Exchange, channel: str, now: float
    ) -> PreparedResponse:
        self._tell(refusal, exchange, channel, now)
        fields: tuple[tuple[str, str], ...] = ()
        if refusal.status == HTTPStatus.TOO_MANY_REQUESTS:
            fields = (("Retry-After", f"{WINDOW_S:.0f}"),)
        if refusal.status == HTTPStatus.UNAUTHORIZED:  # RFC 9110 §15.5.2: it says how.
            error = "" if refusal.code == "missing" else ', error="invalid_token"'  # RFC 6750 §3.1
            fields = (("WWW-Authenticate", f'Bearer realm="edged"{error}'),)
        return error_response(refusal.status, refusal.reason, fields=fields)

    def _tell(self, refusal: Refusal, exchange: Exchange, channel: str, now: float) -> None:
        if now < self._tell_at:
            self._untold += 1
            return
        logger.info(
            "viewer refused",
            channel=channel[:64],
            peer=exchange.connection.peer,
            code=refusal.code,
            why=refusal.reason,
            others_since=self._untold,
        )
        self._tell_at, self._untold = now + TELL_INTERVAL_S, 0


def _cookies(request: RequestReceived) -> list[str]:
    """The values of our cookie (RFC 6265 §5.4: those with longer paths come first)."""
    found: list[str] = []
    for name, value in request.fields:
        if name.lower() != b"cookie" or COOKIE not in value:
            continue
        for pair in value.split(b";"):
            key, _, token = pair.strip().partition(b"=")
            if key == COOKIE and len(found) < COOKIES_MAX:
                found.append(token.strip(b'"').decode("latin-1"))
    return found
