"""The operations of version 1, as one table."""

from collections.abc import Callable, Sequence

import msgspec

from edged.api.ingest import IngestHandlers
from edged.api.openapi import make_document, make_page
from edged.api.operations import JSON, ApiAnswer, ApiRequest, Operation, OperationTable, Reply
from edged.api.schemas import (
    Health,
    IngestAnswer,
    IngestRequest,
    StreamChange,
    StreamDetail,
    StreamList,
    StreamQuery,
)
from edged.api.streams import StreamHandlers

BASE = "/api/v1"
PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
MERGE_PATCH = "application/merge-patch+json"
ABOUT_CACHE = "public, max-age=300"


def make_table(
    streams: StreamHandlers,
    ingest: IngestHandlers,
    health: Callable[[], list[str]],
    added: Sequence[Operation] = (),
) -> OperationTable:
    """All operations; `added` are those of plug-ins. `health` gives the reasons to be avoided."""
    about = _About()
    operations = [
        *about.operations(),
        _find_ingest(ingest),
        *_streams(streams),
        _health(health),
        *added,
    ]
    table = OperationTable(operations)
    about.fill(operations)
    return table


class _About:
    """What describes the API: made once, when all operations are known."""

    def __init__(self) -> None:
        self._document = self._page = b""

    def operations(self) -> list[Operation]:
        return [
            Operation(
                name="page",
                method="GET",
                path=f"{BASE}/",
                summary="This page",
                description="All operations, for people.",
                tag="about",
                replies={200: Reply(description="The page.", content_type="text/html")},
                handle=self._get_page,
            ),
            Operation(
                name="document",
                method="GET",
                path=f"{BASE}/openapi.json",
                summary="The API's document",
                description="OpenAPI 3.1, made of the table by which requests are routed.",
                tag="about",
                replies={200: Reply(description="The document.")},
                handle=self._get_document,
            ),
        ]

    def fill(self, operations: Sequence[Operation]) -> None:
        self._document = msgspec.json.encode(make_document(operations))
        self._page = make_page(operations)

    async def _get_document(self, _request: ApiRequest) -> ApiAnswer:
        return ApiAnswer(body=self._document, cache_control=ABOUT_CACHE)

    async def _get_page(self, _request: ApiRequest) -> ApiAnswer:
        return ApiAnswer(
            body=self._page, content_type="text/html; charset=utf-8", cache_control=ABOUT_CACHE
        )


def _find_ingest(ingest: IngestHandlers) -> Operation:
    return Operation(
        name="findIngest",
        method="POST",
        path=f"{BASE}/streams/ingest",
        summary="Where to publish",
        description=(
            "Checks a stream key as a publisher's is, and answers with the URL of the best PoP:"
            " this one, unless it can't take the stream or is nearly full. The key goes into the"
            " body alone, never into a URL."
        ),
        tag="ingest",
        body=IngestRequest,
        replies={200: Reply(description="Where to publish.", body=IngestAnswer)},
        errors=(
            *("unknown_key", "expired_key", "out_of_scope", "auth_unavailable", "takeover"),
            *("kicked", "unsupported_codec", "bitrate_too_high", "no_route"),
        ),
        handle=ingest.find_ingest,
    )


def _streams(streams: StreamHandlers) -> list[Operation]:
    path = f"{BASE}/streams/{{channel}}"
    return [
        Operation(
            name="listStreams",
            method="GET",
            path=f"{BASE}/streams",
            summary="Who is live",
            description=(
                "The live streams of the network, those with most viewers at this PoP first. The"
                " order moves with the viewers, so a stream may be on two pages or on none."
            ),
            tag="streams",
            query=StreamQuery,
            replies={200: Reply(description="A page.", body=StreamList)},
            handle=streams.list_streams,
        ),
        Operation(
            name="getStream",
            method="GET",
            path=path,
            summary="One stream",
            description="What is known of a stream that is live.",
            tag="streams",
            replies={200: Reply(description="The stream.", body=StreamDetail)},
            errors=("not_live",),
            handle=streams.get_stream,
        ),
        Operation(
            name="changeStream",
            method="PATCH",
            path=path,
            summary="Describe a stream",
            description=(
                "Changes title, category and tags of a live stream, at any PoP, for all of them"
                " within half a second. It lasts as long as the stream, and for ten minutes beyond,"
                " should its encoder come back."
            ),
            tag="streams",
            body=StreamChange,
            body_types=(JSON, MERGE_PATCH),
            replies={200: Reply(description="The stream as it is now.", body=StreamDetail)},
            errors=("not_live", "unconfirmed"),
            authorised=True,
            quick=False,
            handle=streams.patch_stream,
        ),
        Operation(
            name="getPlaylist",
            method="GET",
            path=f"{path}/playlist.m3u8",
            summary="The multivariant playlist",
            description=(
                "As at `/live/CHANNEL/master.m3u8`, with absolute paths. It waits for a stream that"
                " has yet to come to this PoP, up to 12 s. That of a protected channel needs a"
                " playback token, by `?token=`, `Authorization: Bearer` or a cookie."
            ),
            tag="streams",
            replies={200: Reply(description="The playlist.", content_type=PLAYLIST_TYPE)},
            errors=("not_live", "not_ready", "playback_token", "not_admitted"),
        ),
    ]


def _health(health: Callable[[], list[str]]) -> Operation:
    async def get_health(_request: ApiRequest) -> ApiAnswer:
        reasons = health()
        return ApiAnswer(
            status=503 if reasons else 200,
            body=Health(status="failing" if reasons else "ok", reasons=reasons),
        )

    return Operation(
        name="getHealth",
        method="GET",
        path=f"{BASE}/health",
        summary="For load balancers",
        description=(
            "Whether this PoP should be sent new clients. It counts against no rate: those who come"
            " through one proxy must not use up the proxy's own questions."
        ),
        tag="operation",
        replies={
            200: Reply(description="It should.", body=Health),
            503: Reply(description="It should not, and why.", body=Health),
        },
        limited=False,
        handle=get_health,
    )
