"""The public REST API, below /api/ of the playback listeners.

A request comes here whole, from the pump. What needs no more than a look (limits, preflights, what
does not exist, playlists) is answered at once; the rest by the ASGI application, in a task that
lives as long as the request. The answer goes back through the connection in its turn.
"""

import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Protocol, Self

import structlog
import trio

from edged.api.app import CORS, ApiApp, Call
from edged.api.config import ApiConfig
from edged.api.engine import AnswerError, Engine, Peer
from edged.api.metrics import ApiCounters
from edged.api.operations import Found, OperationTable
from edged.api.problems import CONTENT_TYPE, ApiError
from edged.policy.rate_limit import (
    WINDOW_S,
    RateLimit,
    Verdict,
    choose_client,
    count_for,
    parse_networks,
)
from edged.runtime.listeners import SHED_LAG_S
from edged.wire.prepared import PreparedResponse, prepare
from edged.wire.request import RequestReceived

# Tasks of our own operations that run at a time. They wait for nothing, so more of them would only
# make the pump's next turn come later: each takes about half a millisecond.
RUNNING_MAX = 4
EXPIRY_SLACK_S = 0.5  # The task ends first; the connection's own timer is for a task that hangs.
OTHER = "other"

logger = structlog.get_logger("edged.api")


class PeerSide(Protocol):
    """What is asked of a connection."""

    @property
    def peer(self) -> str:
        """The client, "HOST:PORT"."""

    @property
    def ssl(self) -> object | None:
        """None on plain TCP."""

    def abort(self, reason: str) -> None:
        """End it."""


class Exchange(Protocol):
    """A connection whose request is to be answered."""

    @property
    def retrying(self) -> bool:
        """Whether this is a request that has waited and is looked at again."""

    @property
    def connection(self) -> PeerSide:
        """Where it comes from."""

    def wait(self, group: "dict[Self, None]", until: float, expired: PreparedResponse) -> None:
        """Wait for `answer`; when that time has come the answer is `expired`."""

    def answer(self, response: PreparedResponse, now: float) -> None:
        """Answer it; its group has let go of it."""


Playlist = Callable[[str, RequestReceived, Exchange, float], PreparedResponse | None]


def prepare_problem(error: ApiError, *fields: tuple[str, str]) -> PreparedResponse:
    """A problem as a ready response."""
    return prepare(
        error.status,
        [error.body()],
        content_type=CONTENT_TYPE,
        cache_control="no-store",
        fields=(*CORS, *error.fields, *fields),
    )


PREFLIGHT = prepare(
    200,
    [],
    content_type="text/plain; charset=utf-8",
    cache_control="max-age=86400",
    fields=(
        *CORS,
        ("Access-Control-Allow-Methods", "GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
        ("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match"),
        ("Access-Control-Max-Age", "86400"),
    ),
)
TIMED_OUT = prepare_problem(ApiError("timeout", "no answer came in time"))


class ApiService:
    """The API of one PoP. Mounted on "/api/", for any method."""

    def __init__(
        self,
        config: ApiConfig,
        table: OperationTable,
        *,
        playlist: Playlist,
        lag_s: Callable[[], float],
    ) -> None:
        """`playlist` answers with a channel's multivariant playlist, or has the exchange wait."""
        self.counters = ApiCounters()
        self._config, self._table = config, table
        self._playlist, self._lag_s = playlist, lag_s
        self._engine = Engine(ApiApp())
        self._rate = RateLimit(config.rate_per_minute)
        self._proxies = parse_networks(config.trusted_proxies)
        self._policy = f'"client";q={config.rate_per_minute};w={WINDOW_S:.0f}'
        self._running = trio.Semaphore(RUNNING_MAX)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def respond(
        self, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        """Answer at once, or have the exchange wait for a task, or for a playlist."""
        if request.method == "OPTIONS":
            return PREFLIGHT
        method = "GET" if request.method == "HEAD" else request.method
        found = self._table.find(method, request.path)
        operation = found.operation if isinstance(found, Found) else None
        route = OTHER if operation is None else operation.path
        client, verdict = self._admit(request, exchange, now, found)
        fields = [] if verdict is None else self._tell_limit(verdict)
        if verdict is not None and not verdict.allowed:
            response: PreparedResponse | None = prepare_problem(
                ApiError(
                    "rate_limited",
                    f"{self._config.rate_per_minute} requests a minute are allowed",
                    retry_after_s=math.ceil(verdict.reset_s),
                ),
                *fields,
            )
        elif not isinstance(found, Found):
            response = prepare_problem(_no_such(request, found), *fields)
        elif found.operation.handle is None:
            response = self._playlist(found.params["channel"], request, exchange, now)
            if response is not None and response.status == HTTPStatus.NOT_FOUND:
                error = ApiError("not_live", "the channel is not live")
                response = prepare_problem(error, *fields)
        else:
            call = Call(
                found=found,
                client=client,
                body_bytes_max=self._config.body_bytes_max,
                fields=fields,
            )
            response = self._begin(call, request, exchange, now)
        if response is not None:
            self.counters.note(method, route, response.status, 0.0)
        return response

    def _admit(
        self,
        request: RequestReceived,
        exchange: Exchange,
        now: float,
        found: Found | list[str],
    ) -> tuple[str, Verdict | None]:
        """Who asks, and how it stands with its limit; a request that comes again counts once."""
        forwarded = [
            value.decode("latin-1")
            for name, value in request.fields
            if name.lower() == b"x-forwarded-for"
        ]
        client = choose_client(exchange.connection.peer, forwarded, self._proxies)
        if exchange.retrying or (isinstance(found, Found) and not found.operation.limited):
            return client, None
        return client, self._rate.admit(count_for(client), now)

    def _tell_limit(self, verdict: Verdict) -> list[tuple[str, str]]:
        """The fields of draft-ietf-httpapi-ratelimit-headers §3, §4."""
        told = f'"client";r={verdict.left};t={math.ceil(verdict.reset_s)}'
        return [("RateLimit-Policy", self._policy), ("RateLimit", told)]

    def _begin(
        self, call: Call, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        operation, in_work = call.found.operation, self.counters.in_work
        if len(request.body) > call.body_bytes_max:
            why = f"the body exceeds {call.body_bytes_max} bytes"
            return prepare_problem(ApiError("body_too_large", why), *call.fields)
        why = ""
        if self._nursery is None or in_work >= self._config.requests_max:
            why = f"{in_work} requests are being answered"
        elif operation.limited and self._lag_s() > SHED_LAG_S:
            why = "the loop lags"
        if why or self._nursery is None:
            return prepare_problem(ApiError("busy", why), *call.fields)
        until = now + (operation.timeout_s or self._config.request_timeout_s)
        group: dict[Exchange, None] = {}
        exchange.wait(group, until + EXPIRY_SLACK_S, TIMED_OUT)
        self.counters.in_work += 1
        self._nursery.start_soon(self._work, call, request, exchange, group, until)
        return None

    async def _work(
        self,
        call: Call,
        request: RequestReceived,
        exchange: Exchange,
        group: dict[Exchange, None],
        until: float,
    ) -> None:
        """Have the application answer; who has gone meanwhile is answered nothing."""
        operation = call.found.operation
        started = trio.current_time()
        response = TIMED_OUT
        try:
            with trio.move_on_at(until):
                async with AsyncExitStack() as stack:
                    if operation.quick:
                        await stack.enter_async_context(self._running)
                    if exchange in group:
                        response = await self._run(call, request, exchange)
            if exchange not in group:
                return
            del group[exchange]
            now = trio.current_time()
            self.counters.note(operation.method, operation.path, response.status, now - started)
            exchange.answer(response, now)
        except Exception as error:  # What the answer sets off ends that connection only.
            logger.exception("answering failed", operation=operation.name)
            exchange.connection.abort(f"internal error: {type(error).__name__}")
        finally:
            self.counters.in_work -= 1

    async def _run(
        self, call: Call, request: RequestReceived, exchange: Exchange
    ) -> PreparedResponse:
        port = exchange.connection.peer.rpartition(":")[2]
        peer = Peer(
            address=call.client,
            port=int(port) if port.isdecimal() else 0,
            secure=exchange.connection.ssl is not None,
        )
        try:
            return await self._engine.answer(request, peer, {"call": call})
        except AnswerError as error:
            logger.warning("no answer", operation=call.found.operation.name, reason=str(error))
            return prepare_problem(ApiError("malformed_request", "the request is not understood"))


def _no_such(request: RequestReceived, allowed: list[str]) -> ApiError:
    if not allowed:
        return ApiError("not_found", "there is nothing at this address; see /api/v1/")
    methods = [*allowed, *(["HEAD"] if "GET" in allowed else []), "OPTIONS"]
    return ApiError(
        "method_not_allowed",
        f"{request.method} is not answered here",
        fields=(("Allow", ", ".join(methods)),),
    )
