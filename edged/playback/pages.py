"""Small pages of the public side: the clock that players correct theirs by, and who is live."""

import math
import time
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from edged.playback.http import Response, Router
from edged.wire.request import RequestReceived

STREAMS_MAX = 10_000  # Listed; a page that needs more needs the API.
LISTING_S = 1.0  # So old may an answer be, and as long may caches keep it.
CACHE_CONTROL = f"max-age={LISTING_S:.0f}"
NOT_LIVE = Response(status=404, body=b"the channel is not live\n", cache_control=CACHE_CONTROL)


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


class _Listing:
    """The live channels as of a moment, and what was made of them, until LISTING_S have passed.

    It is asked for by every page that is open, in the pump's loop: the work must not grow with
    viewers, nor for one channel's document with the channels.
    """

    def __init__(
        self, list_channels: Callable[[], Iterable[LiveChannel]], now: Callable[[], float]
    ) -> None:
        self._list_channels = list_channels
        self._now = now
        self._until = -math.inf
        self._channels: dict[str, LiveChannel] = {}
        self._whole: Response | None = None

    def whole(self) -> Response:
        """All channels, most watched first."""
        self._refresh()
        if self._whole is None:
            live = sorted(self._channels.values(), key=lambda one: (-one.viewers, one.channel))
            self._whole = _json(live[:STREAMS_MAX])
        return self._whole

    def one(self, channel: str) -> Response:
        """One channel; 404 while it is offline."""
        self._refresh()
        live = self._channels.get(channel)
        return NOT_LIVE if live is None else _json(live)

    def _refresh(self) -> None:
        now = self._now()
        if now >= self._until:
            self._until = now + LISTING_S
            self._channels = {live.channel: live for live in self._list_channels()}
            self._whole = None


def mount_streams(
    router: Router,
    list_channels: Callable[[], Iterable[LiveChannel]],
    now: Callable[[], float] = time.monotonic,
) -> None:
    """`/streams.json`: the live channels, most watched first. `/streams/CHANNEL.json`: one."""
    listing = _Listing(list_channels, now)

    def answer_one(request: RequestReceived) -> Response:
        name = request.path.removeprefix("/streams/")
        channel = name.removesuffix(".json")
        return listing.one(channel) if channel != name else NOT_LIVE

    router.get("/streams.json", lambda _request: listing.whole())
    router.get("/streams/", answer_one)


def _json(value: LiveChannel | list[LiveChannel]) -> Response:
    return Response(
        body=msgspec.json.encode(value),
        content_type="application/json",
        cache_control=CACHE_CONTROL,
    )
