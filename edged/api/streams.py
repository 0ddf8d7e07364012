"""Streams: who is live, what it is, and how it is described."""

import base64
import hashlib
import hmac
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from msgspec import Struct, UnsetType, structs

from edged.api.operations import ApiAnswer, ApiRequest
from edged.api.problems import ApiError
from edged.api.schemas import (
    MediaView,
    StreamChange,
    StreamDetail,
    StreamList,
    StreamQuery,
    StreamView,
)
from edged.errors import EdgedError, PublishRefusedError
from edged.media.stream import Description, DescriptionChange
from edged.policy.descriptions import find_problem

LISTING_S = 0.25  # So old may a list be: the work must not grow with those who ask.
CACHE_CONTROL = "public, max-age=1"


class LiveEntry(Struct, frozen=True, kw_only=True):
    """A live channel as the network knows it."""

    channel: str
    description: Description
    started_at: float  # Unix seconds.
    viewers: int  # At this PoP.


class StreamsSide(Protocol):
    """What this PoP knows of streams, and can do to them."""

    def list_live(self) -> Iterable[LiveEntry]:
        """Every live channel of the network."""

    def find(self, channel: str) -> LiveEntry | None:
        """One of them."""

    def media(self, channel: str) -> MediaView | None:
        """What it consists of, if that is known here."""

    async def channel_of(self, key: str, client: str) -> str:
        """Whose stream key it is; PublishRefusedError when it is none. Wrong ones count."""

    async def describe(self, channel: str, change: DescriptionChange) -> bool:
        """Change a description, wherever the channel is published; False: it is not live.

        Raises EdgedError when its PoP could not be asked.
        """


class StreamHandlers:
    """The operations on streams."""

    def __init__(
        self, side: StreamsSide, now: Callable[[], float], admin_token_sha256: str = ""
    ) -> None:
        self._side, self._now = side, now
        self._admin = bytes.fromhex(admin_token_sha256)
        self._listed: list[LiveEntry] = []
        self._listed_until = -math.inf

    async def list_streams(self, request: ApiRequest) -> ApiAnswer:
        """`GET /api/v1/streams`."""
        query = request.query
        assert isinstance(query, StreamQuery), "as the operation says"
        after = _read_cursor(query.cursor) if query.cursor else None
        category, tag = query.category.casefold(), query.tag.casefold()
        found = [
            entry
            for entry in self._listing()
            if (not category or entry.description.category.casefold() == category)
            and (not tag or tag in map(str.casefold, entry.description.labels))
        ]
        rest = found if after is None else [entry for entry in found if _order(entry) > after]
        page = rest[: query.limit]
        more = len(rest) > len(page)
        return ApiAnswer(
            body=StreamList(
                streams=[_view(entry) for entry in page],
                total=len(found),
                next_cursor=_make_cursor(page[-1]) if more else None,
            ),
            cache_control=CACHE_CONTROL,
        )

    async def get_stream(self, request: ApiRequest) -> ApiAnswer:
        """`GET /api/v1/streams/{channel}`."""
        return ApiAnswer(body=self._detail(request.params["channel"]), cache_control=CACHE_CONTROL)

    async def patch_stream(self, request: ApiRequest) -> ApiAnswer:
        """`PATCH /api/v1/streams/{channel}`."""
        asked, channel = request.body, request.params["channel"]
        assert isinstance(asked, StreamChange), "as the operation says"
        await self._authorise(request, channel)
        change = DescriptionChange(
            title=_text(asked.title),
            category=_text(asked.category),
            labels=None if isinstance(asked.tags, UnsetType) else tuple(asked.tags or ()),
        )
        if problem := find_problem(change):
            raise ApiError("invalid_body", problem)
        try:
            is_live = await self._side.describe(channel, change)
        except EdgedError as error:
            raise ApiError("unconfirmed", str(error)) from error
        if not is_live:
            raise _not_live(channel)
        self._listed_until = -math.inf
        return ApiAnswer(body=self._detail(channel))

    def _detail(self, channel: str) -> StreamDetail:
        entry = self._side.find(channel)
        if entry is None:
            raise _not_live(channel)
        return StreamDetail(**structs.asdict(_view(entry)), media=self._side.media(channel))

    async def _authorise(self, request: ApiRequest, channel: str) -> None:
        scheme, _, token = request.field(b"authorization").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise ApiError(
                "missing_credentials",
                "send `Authorization: Bearer STREAM_KEY`",
                fields=(("WWW-Authenticate", 'Bearer realm="edged"'),),
            )
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        if self._admin and hmac.compare_digest(digest, self._admin):
            return
        try:
            owned = await self._side.channel_of(token, request.client)
        except PublishRefusedError as error:
            raise ApiError.of_refusal(error) from None  # Its traceback would lead to the key.
        if owned != channel:
            raise ApiError("wrong_channel", f"the stream key is not one of channel {channel!r}")

    def _listing(self) -> list[LiveEntry]:
        now = self._now()
        if now >= self._listed_until:
            self._listed_until = now + LISTING_S
            self._listed = sorted(self._side.list_live(), key=_order)
        return self._listed


def _not_live(channel: str) -> ApiError:
    return ApiError("not_live", f"channel {channel[:64]!r} is not live")


def _order(entry: LiveEntry) -> tuple[int, str]:
    return (-entry.viewers, entry.channel)


def _text(asked: str | UnsetType | None) -> str | None:
    """What is left out stays, null empties (RFC 7396 §2)."""
    return None if isinstance(asked, UnsetType) else asked or ""


def _view(entry: LiveEntry) -> StreamView:
    told = entry.description
    return StreamView(
        channel=entry.channel,
        title=told.title,
        category=told.category,
        tags=list(told.labels),
        started_at=_date_time(entry.started_at),
        viewers=entry.viewers,
        watch_url=f"/watch/{entry.channel}",
        playlist_url=f"/live/{entry.channel}/master.m3u8",
    )


def _make_cursor(entry: LiveEntry) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(_order(entry))).rstrip(b"=").decode()


def _read_cursor(text: str) -> tuple[int, str]:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.msgpack.decode(data, type=tuple[int, str])
    except (ValueError, msgspec.MsgspecError) as error:
        raise ApiError("invalid_query", "cursor: is none that a page has given") from error


def _date_time(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(int(unix_s), tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
