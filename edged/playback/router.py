"""Pages of the playback edge: plain answers at once, by path."""

from collections.abc import Callable

from msgspec import Struct

from edged.errors import EdgedError
from edged.wire.h1 import RequestReceived


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
