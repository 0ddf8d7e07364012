"""Requests as HTTP/2 brings them: a head, and the whole on its stream."""

from typing import Final

from mypy_extensions import mypyc_attr

from edged.wire.request import RequestReceived


@mypyc_attr(acyclic=True)
class H2Request:  # noqa: PLW1641 - equal by value, and nobody hashes it
    """One whole request, to be answered with `H2Session.respond(stream_id, ...)`."""

    __slots__ = ("request", "stream_id")

    def __init__(self, stream_id: int, request: RequestReceived) -> None:
        self.stream_id: Final = stream_id
        self.request: Final = request

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, H2Request)
            and self.stream_id == other.stream_id
            and self.request == other.request
        )

    def __repr__(self) -> str:
        return f"H2Request({self.stream_id}, {self.request!r})"


@mypyc_attr(acyclic=True)
class Head:
    """A request before its body. `priority`: the field's value, for `priorities`."""

    __slots__ = ("content_length", "priority", "request")

    def __init__(
        self, request: RequestReceived, content_length: int | None, priority: bytes | None
    ) -> None:
        self.request: Final = request
        self.content_length: Final = content_length
        self.priority: Final = priority
