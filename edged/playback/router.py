"""Pages of the playback edge: plain answers at once, by path; and errors."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from edged.errors import EdgedError
from edged.wire.prepared import PreparedResponse, prepare
from edged.wire.request import RequestReceived

if TYPE_CHECKING:
    from edged.playback.waiting import Exchange

NO_CORS = (("X-Content-Type-Options", "nosniff"),)
CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "Age, Content-Range, Date, ETag"),
    ("Timing-Allow-Origin", "*"),
    *NO_CORS,
)


class HttpError(EdgedError):
    """A handler's refusal; the reason is shown to the client."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class Response(Struct, frozen=True, kw_only=True):
    """What a page's handler returns."""

    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    body: bytes = b""
    cache_control: str = "no-store"
    fields: tuple[tuple[str, str], ...] = ()
    etag: str = ""


Handler = Callable[[RequestReceived], Response]


class Router:
    """GET handlers by path: exactly, or everything below a path that ends with "/"."""

    def __init__(self) -> None:
        self._exact: dict[str, Handler] = {}
        self._below: list[tuple[str, Handler]] = []

    def get(self, path: str, handler: Handler) -> None:
        """Mount a handler; "/" alone is exact."""
        assert path.startswith("/"), "paths are absolute"
        assert path not in self._exact, f"{path} is mounted twice"
        self._exact[path] = handler
        if path.endswith("/") and path != "/":
            self._below.append((path, handler))
            self._below.sort(key=lambda item: -len(item[0]))  # The longest wins.

    def find(self, path: str) -> Handler | None:
        """The handler of a path."""
        handler = self._exact.get(path)
        if handler is None:
            for prefix, below in self._below:
                if path.startswith(prefix):
                    return below
        return handler


def prepare_page(page: Response, *, cors: bool) -> PreparedResponse:
    """A page as bytes."""
    return prepare(
        page.status,
        [page.body],
        content_type=page.content_type,
        cache_control=page.cache_control,
        fields=(*(CORS if cors else NO_CORS), *page.fields),
        etag=page.etag,
    )


class Service(Protocol):
    """What answers below a path on the fast path."""

    def respond(
        self, request: RequestReceived, exchange: "Exchange", now: float
    ) -> PreparedResponse | None:
        """Answer a GET or HEAD, or call `exchange.wait` and return None.

        One that is mounted for any method answers whatever comes.
        """


def error_response(
    status: int,
    reason: str,
    *,
    cache_control: str = "no-store",
    fields: tuple[tuple[str, str], ...] = (),
    cors: bool = True,
) -> PreparedResponse:
    """An error as plain text with its reason."""
    return prepare(
        status,
        [f"{reason}\n".encode()],
        content_type="text/plain; charset=utf-8",
        cache_control=cache_control,
        fields=(*(CORS if cors else NO_CORS), *fields),
    )


PREFLIGHT = prepare(
    200,
    [],
    content_type="text/plain; charset=utf-8",
    cache_control="max-age=86400",
    fields=(
        *CORS,
        ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
        # The star does not stand for Authorization (Fetch, CORS-preflight fetch).
        ("Access-Control-Allow-Headers", "*, Authorization"),
        ("Access-Control-Max-Age", "86400"),
    ),
)
