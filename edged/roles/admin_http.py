"""The admin HTTP listener: the status page, its data, and the command line's door, by the token.

    /                   the status page; it holds no data
    /network            the page that draws the network; nor does this
    /web/DIGEST/...     its files
    /login              trades `Authorization: Bearer TOKEN` for a session's cookie
    /logout             ends the session
    /status.json        the `Status`; ?filter=TEXT&sort=attention&limit=100
    /network.jsonl      the last hour, line by line; ?after=CURSOR (`policy.network_history`)
    /command/           takes commands by POST, with the token itself (`api/admin_url.py`)

It has a pump of its own, and its connections are few.
"""

import secrets
from collections import deque
from collections.abc import Callable
from urllib.parse import parse_qs

import structlog
import trio

from edged.api.admin import AdminConfig
from edged.api.admin_access import (
    AccessRefusedError,
    AdminAccess,
    find_problems,
    is_own_host,
    read_token_sha256,
)
from edged.api.admin_pages import FIELDS, PageFile, make_pages
from edged.api.admin_url import COMMAND_PATH
from edged.errors import ConfigError, EdgedError
from edged.playback.http import Handler, HttpServer, Response, Router
from edged.playback.router import prepare_page
from edged.playback.waiting import Exchange
from edged.policy.network_history import HistoryLines
from edged.roles.snapshot import StatusQuery
from edged.runtime.listeners import parse_address
from edged.runtime.pump import Pump
from edged.wire.content_coding import compress
from edged.wire.prepared import PreparedResponse
from edged.wire.request import RequestReceived

CONNECTIONS_MAX = 256  # Browsers and scripts of one host, and room for those who only hold places.
QUERY_FIELDS_MAX = 8
CURSOR_CHARS_MAX = 64
# Answers of the network's last hour that have lines: two browsers that look anew at a time. Each
# takes some 4 ms of the loop that IRS plans in; beyond it the asker is told to come again.
HISTORIES_PER_S_MAX = 25
COMPRESSED_FROM = 1400  # Bytes: less is one packet anyway.
JSON = "application/json"
JSON_LINES = "application/jsonl; charset=utf-8"

logger = structlog.get_logger("edged.admin")

Answer = Callable[[StatusQuery], bytes]
History = Callable[[str], HistoryLines]


def no_history(cursor: str) -> HistoryLines:
    """Of a process without an IRS."""
    del cursor
    raise EdgedError("this edged is no IRS: open the page of the one that has [irs]")


class AdminPages:
    """What the listener answers."""

    def __init__(
        self,
        access: AdminAccess,
        answer: Answer,
        now: Callable[[], float],
        history: History = no_history,
    ) -> None:
        self._access, self._answer, self._now = access, answer, now
        self._history = history
        self._told_at: deque[float] = deque(maxlen=HISTORIES_PER_S_MAX)
        self._warned = 0
        self.router = Router()
        files = make_pages()
        self.router.get("/", self._own(lambda _request: _file(files["/"])))
        self.router.get("/web/", self._own(lambda request: _asset(files, request.path)))
        self.router.get("/login", self._own(self._login))
        self.router.get("/logout", self._own(self._logout))
        self.router.get("/status.json", self._own(self._status))
        self.router.get("/network", self._own(lambda _request: _file(files["/network"])))
        self.router.get("/network.jsonl", self._own(self._network))

    def _own(self, handler: Handler) -> Handler:
        """Only for who calls us by our own name, and with every refusal as a response."""

        def answer(request: RequestReceived) -> Response:
            host = request.field(b"host")
            if not is_own_host(host):
                return _refusal(421, "ask by a loopback address or localhost, through a tunnel")
            try:
                return handler(request)
            except AccessRefusedError as error:
                self._log_refusal(error)
                retry = () if error.retry_s is None else (("Retry-After", str(error.retry_s)),)
                return _refusal(error.status, str(error), retry)

        return answer

    def answer_command(
        self, request: RequestReceived, answer: Callable[[bytes], bytes], now: float
    ) -> Response:
        """Have a command carried out, if who asks has the token."""

        def checked(request: RequestReceived) -> Response:
            if request.method != "POST":
                return _refusal(405, "commands are posted", (("Allow", "POST"),))
            self._access.check(request.field(b"authorization"), b"", now)
            return _json(answer(request.body))

        return self._own(checked)(request)

    def _log_refusal(self, error: AccessRefusedError) -> None:
        """Wrong tokens are told, as many as are counted; not each request without one."""
        if self._access.wrong_total != self._warned:
            self._warned = self._access.wrong_total
            logger.warning("admin token refused", reason=str(error), in_all=self._warned)

    def _login(self, request: RequestReceived) -> Response:
        value = self._access.login(request.field(b"authorization"), self._now())
        logger.info("admin logged in")
        return _json(b"{}", (("Set-Cookie", self._access.set_cookie(value)),))

    def _logout(self, request: RequestReceived) -> Response:
        self._access.logout(request.field(b"cookie"))
        return _json(b"{}", (("Set-Cookie", self._access.set_cookie("")),))

    def _status(self, request: RequestReceived) -> Response:
        self._access.check(request.field(b"authorization"), request.field(b"cookie"), self._now())
        try:
            query = _parse_query(request.query)
        except (EdgedError, ValueError) as error:
            return _refusal(400, str(error))
        try:
            return _json(self._answer(query))
        except EdgedError as error:
            return _refusal(429, str(error), (("Retry-After", "1"),))

    def _network(self, request: RequestReceived) -> Response:
        self._access.check(request.field(b"authorization"), request.field(b"cookie"), self._now())
        try:
            cursor = _parse_words(request.query, {"after"})["after"]
            if len(cursor) > CURSOR_CHARS_MAX:
                return _refusal(400, f"after exceeds {CURSOR_CHARS_MAX} characters")
        except (EdgedError, ValueError) as error:
            return _refusal(400, str(error))
        now = self._now()
        if len(self._told_at) == HISTORIES_PER_S_MAX and now - self._told_at[0] < 1.0:
            reason = f"{HISTORIES_PER_S_MAX} answers were given within a second; ask again"
            return _refusal(429, reason, (("Retry-After", "1"),))
        try:
            lines = self._history(cursor)
        except EdgedError as error:
            return _refusal(404, str(error))
        if lines.text:  # Who has all costs next to nothing.
            self._told_at.append(now)
        return _lines(lines, gzip=request.takes_gzip)


class Commands:
    """The command line's own door: a POST with the token, never with a browser's session.

    A page that another site opens in the browser can send no Authorization field to us.
    """

    def __init__(self, pages: AdminPages, answer: Callable[[bytes], bytes]) -> None:
        self._pages, self._answer = pages, answer

    def respond(self, request: RequestReceived, exchange: Exchange, now: float) -> PreparedResponse:
        """Answer one command's line with another."""
        del exchange
        page = self._pages.answer_command(request, self._answer, now)
        return prepare_page(page, cors=False)


async def serve_admin_http(
    config: AdminConfig,
    answer: Answer,
    answer_command: Callable[[bytes], bytes],
    history: History = no_history,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen until cancelled; starts with the address bound. Raises `ConfigError`."""
    listen = config.listen
    assert listen is not None, "there is a page only where it was asked for"
    problems = find_problems(config)
    if problems:
        raise ConfigError("; ".join(f"admin.{problem}" for problem in problems))
    port = parse_address(listen)[1]
    access = AdminAccess(
        read_token_sha256(config), entropy=secrets.token_bytes, cookie=f"edged_admin_{port}"
    )
    pump = Pump()
    pages = AdminPages(access, answer, pump.now, history)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        server = HttpServer(pages.router, cors=False)
        server.mount(COMMAND_PATH, Commands(pages, answer_command), any_method=True)
        address: str = await nursery.start(
            lambda task_status: server.serve(
                pump,
                listen,
                connections_max=CONNECTIONS_MAX,
                task_status=task_status,
            )
        )
        task_status.started(address)


def _parse_query(query: str) -> StatusQuery:
    words = _parse_words(query, {"filter", "sort", "limit"})
    return StatusQuery.parse(words["filter"], words["sort"], words["limit"])


def _parse_words(query: str, known: set[str]) -> dict[str, str]:
    """The words of a query, "" for those that it lacks; raises ValueError or `EdgedError`."""
    given = parse_qs(query, strict_parsing=bool(query), max_num_fields=QUERY_FIELDS_MAX)
    if strange := sorted(given.keys() - known):
        raise EdgedError(f"unknown {strange[0][:40]!r}; known: {', '.join(sorted(known))}")
    return {name: given.get(name, [""])[0] for name in known}


def _asset(files: dict[str, PageFile], path: str) -> Response:
    found = files.get(path)
    return (
        _refusal(404, "there is no such file; load the page again") if not found else _file(found)
    )


def _file(file: PageFile) -> Response:
    return Response(
        body=file.body,
        content_type=file.content_type,
        cache_control=file.cache_control,
        fields=file.fields,
    )


def _json(body: bytes, fields: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(body=body, content_type=JSON, fields=(*FIELDS, *fields))


def _lines(lines: HistoryLines, *, gzip: bool) -> Response:
    body, tag = lines.text, lines.tag
    fields: tuple[tuple[str, str], ...] = (*FIELDS, ("Vary", "Accept-Encoding"))
    if gzip and (lines.gzip or len(body) >= COMPRESSED_FROM):
        body, tag = lines.gzip or compress(body), tag[:-1] + '-gzip"'
        fields = (*fields, ("Content-Encoding", "gzip"))
    return Response(body=body, content_type=JSON_LINES, fields=fields, etag=tag)


def _refusal(status: int, reason: str, fields: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status=status, body=f"{reason}\n".encode(), fields=(*FIELDS, *fields))
