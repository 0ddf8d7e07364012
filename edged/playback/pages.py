"""Small pages of the public side: the clock that players correct theirs by, and who is live."""

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from edged.playback.http import Response, Router
from edged.wire.h1 import RequestReceived

STREAMS_MAX = 10_000  # Listed; a page that needs more needs the API.


class LiveChannel(Struct, frozen=True, kw_only=True):
    """What the public may know of a live channel: no addresses, no routes."""

    channel: str
    title: str
    since: float  # Unix seconds.
    viewers: int


def mount_time(router: Router, unix_now: Callable[[], float]) -> None:
    """`/time`: this server's clock in milliseconds since 1970."""

    def answer(request: RequestReceived) -> Response:
        del request
        return Response(body=str(int(unix_now() * 1000)).encode())

    router.get("/time", answer)


def mount_streams(router: Router, list_channels: Callable[[], Iterable[LiveChannel]]) -> None:
    """`/streams.json`: the live channels, most watched first."""

    def answer(request: RequestReceived) -> Response:
        del request
        channels = sorted(list_channels(), key=lambda live: (-live.viewers, live.channel))
        return Response(
            body=msgspec.json.encode(channels[:STREAMS_MAX]),
            content_type="application/json",
            cache_control="max-age=1",
        )

    router.get("/streams.json", answer)
