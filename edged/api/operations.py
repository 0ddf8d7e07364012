"""The API's operations: one table, by which requests are routed and the document is made."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from edged.errors import ConfigError

CHANNEL_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}\Z"  # As stream keys have it.
Channel = Annotated[str, Meta(pattern=CHANNEL_PATTERN)]
JSON = "application/json"


class ApiRequest(Struct, frozen=True, kw_only=True):
    """A request as an operation gets it. `body` may hold a stream key: it goes into no log."""

    method: str
    path: str
    params: Mapping[str, str]  # What stands for `{name}` in the operation's path.
    query: object  # The operation's `query` Struct, or None.
    query_string: str
    body: object  # The operation's `body` Struct; else the bytes.
    fields: Sequence[tuple[bytes, bytes]]
    client: str  # The address that it comes from.
    secure: bool

    def field(self, name: bytes) -> str:
        """The first header field of that lower-case name, else empty."""
        for candidate, value in self.fields:
            if candidate.lower() == name:
                return value.decode("latin-1")
        return ""

    def __repr__(self) -> str:
        return f"ApiRequest({self.method} {self.path} from {self.client})"


class ApiAnswer(Struct, frozen=True, kw_only=True):
    """An answer; a `body` that is no bytes is sent as JSON."""

    status: int = 200
    body: object = b""
    content_type: str = JSON
    cache_control: str = "no-store"
    fields: Sequence[tuple[str, str]] = ()


class Reply(Struct, frozen=True, kw_only=True):
    """What a status means, for the document."""

    description: str
    body: type[Struct] | None = None
    content_type: str = JSON


Handle = Callable[[ApiRequest], Awaitable[ApiAnswer]]


class Operation(Struct, frozen=True, kw_only=True):
    """One operation. `errors` are codes of `problems.CODES` beside those that all have."""

    name: str
    method: str
    path: str  # "/api/v1/streams/{channel}".
    summary: str
    description: str
    tag: str
    replies: Mapping[int, Reply]
    handle: Handle | None = None  # None: the service answers by itself, on the fast path.
    query: type[Struct] | None = None
    body: type[Struct] | None = None
    body_types: tuple[str, ...] = (JSON,)
    errors: tuple[str, ...] = ()
    limited: bool = True  # Counts against the client's rate.
    authorised: bool = False
    quick: bool = True  # Waits for nobody but us; else `timeout_s` is its own.
    timeout_s: float | None = None

    @property
    def param_names(self) -> list[str]:
        """The names in its path."""
        return re.findall(r"\{([a-z_]+)\}", self.path)


class Found(Struct, frozen=True):
    """An operation, and what its path's names stand for."""

    operation: Operation
    params: dict[str, str]


class OperationTable:
    """All operations."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        """Raise ConfigError where two have one name, or one method and path."""
        self.operations: list[Operation] = []
        self._fixed: dict[str, dict[str, Operation]] = {}  # Path -> method -> operation.
        self._patterns: list[tuple[re.Pattern[str], dict[str, Operation]]] = []
        for operation in operations:
            self._add(operation)

    def find(self, method: str, path: str) -> Found | list[str]:
        """The operation; else the methods that the path has, none when there is no such path."""
        allowed: list[str] = []
        fixed = self._fixed.get(path, {})
        if method in fixed:
            return Found(fixed[method], {})
        allowed += fixed
        for pattern, methods in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                if method in methods:
                    return Found(methods[method], match.groupdict())
                allowed += methods
        return sorted(set(allowed))

    def _add(self, operation: Operation) -> None:
        if operation.name in {known.name for known in self.operations}:
            raise ConfigError(f"API operation {operation.name!r} is there twice")
        if re.fullmatch(r"(/([a-zA-Z0-9_.-]+|\{[a-z_]+\}))+/?", operation.path) is None:
            raise ConfigError(f"API operation {operation.name!r}: {operation.path!r} is no path")
        methods = self._methods(operation.path)
        if operation.method in methods:
            raise ConfigError(f"API operation {operation.method} {operation.path} is there twice")
        methods[operation.method] = operation
        self.operations.append(operation)

    def _methods(self, path: str) -> dict[str, Operation]:
        if "{" not in path:
            return self._fixed.setdefault(path, {})
        pieces = re.split(r"\{([a-z_]+)\}", path)
        text = "".join(
            f"(?P<{piece}>[^/]+)" if index % 2 else re.escape(piece)
            for index, piece in enumerate(pieces)
        )
        for pattern, methods in self._patterns:
            if pattern.pattern == text:
                return methods
        self._patterns.append((re.compile(text), {}))
        return self._patterns[-1][1]
