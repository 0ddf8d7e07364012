"""Which handler a path has."""

import pytest

from edged.playback.router import HttpError, Response, Router
from edged.wire.request import RequestReceived


def hello(request: RequestReceived) -> Response:
    return Response(body=b"hello")


def other(request: RequestReceived) -> Response:
    return Response(status=204)


def test_routes() -> None:
    router = Router()
    router.get("/", hello)
    router.get("/watch/", hello)
    router.get("/watch/deep/", other)
    assert router.find("/") is hello
    assert router.find("/watch/any/thing") is hello
    assert router.find("/watch/deep/x") is other
    assert router.find("/watch") is None
    assert router.find("/x") is None
    with pytest.raises(AssertionError, match="twice"):
        router.get("/", other)


def test_a_refusal_has_its_status() -> None:
    error = HttpError(503, "no seats left")
    assert (error.status, str(error)) == (503, "no seats left")
