"""The REST API of one PoP: what its operations ask and do, by the PoP's services."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus

from edged.api.ingest import IngestHandlers, offer_of
from edged.api.operations import ApiAnswer, ApiRequest, Operation, Reply
from edged.api.problems import ApiError
from edged.api.schemas import AudioView, MediaView, VideoView
from edged.api.service import ApiService, Exchange, prepare_problem
from edged.api.streams import LiveEntry, StreamHandlers
from edged.api.v1 import BASE, make_table
from edged.backbone.directory import DirectoryRecord
from edged.config import Config
from edged.errors import PublishRefusedError
from edged.ingest.plugin import HttpRequest, HttpRoute
from edged.media.routing import PopRow, RouteRequest
from edged.media.stream import Description, DescriptionChange, Grant
from edged.media.track import Kind
from edged.playback import waiting as playback
from edged.playback.hls import HlsService
from edged.playback.rights import RightsGate
from edged.policy.playback_rights import Refusal
from edged.roles.descriptions import Descriptions, NotLiveError
from edged.roles.door import PopDoor
from edged.roles.offers import IngestOffers
from edged.roles.uplinks import Uplinks
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump
from edged.wire.prepared import PreparedResponse
from edged.wire.request import RequestReceived


class PopSide:
    """The `StreamsSide` and `IngestSide` of the API."""

    def __init__(
        self,
        hub: Hub,
        uplinks: Uplinks,
        door: PopDoor,
        hls: HlsService,
        *,
        descriptions: Descriptions,
        offers: IngestOffers,
        gate: RightsGate,
    ) -> None:
        self._gate = gate
        self._hub, self._uplinks, self._door, self._hls = hub, uplinks, door, hls
        self._descriptions, self._offers = descriptions, offers

    # What it knows of streams.

    def list_live(self) -> Iterable[LiveEntry]:
        """Every live channel of the network."""
        return map(self._entry, self._uplinks.listing)

    def find(self, channel: str) -> LiveEntry | None:
        """One of them."""
        record = self._uplinks.listing.lookup(channel)
        return None if record is None else self._entry(record)

    def media(self, channel: str) -> MediaView | None:
        """From its publisher, if that is here; else as it is packaged, if it is watched here."""
        stream = self._live(channel)
        if stream is not None:
            return _media_of(stream)
        renditions = self._hls.renditions(channel)
        if not renditions:
            return None
        return MediaView(
            video=[
                VideoView(
                    codec=shown.codec_string,
                    width=shown.width,
                    height=shown.height,
                    frame_rate=_rate(shown.frame_rate_num, shown.frame_rate_den),
                )
                for shown in renditions
                if shown.kind is Kind.VIDEO
            ],
            audio=[
                AudioView(codec=shown.codec_string, channels=shown.channels)
                for shown in renditions
                if shown.kind is Kind.AUDIO
            ],
        )

    def playlist(
        self, channel: str, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        """A channel's multivariant playlist, with absolute paths; or have the exchange wait."""
        assert isinstance(exchange, playback.Exchange), "the playback's server has made it"
        if self._gate.rights.protects(channel):
            answer = self._gate.respond_master(channel, request, exchange, now)
            return _refuse_viewer(answer) if isinstance(answer, Refusal) else answer
        return self._hls.respond_master(
            channel, exchange, now, base=f"/live/{channel}/", refuse=_refuse_playlist
        )

    async def channel_of(self, key: str, client: str) -> str:
        """Whose stream key it is; wrong ones count."""
        return (await self._door.identify(key, _peer(client))).channel

    async def describe(self, channel: str, change: DescriptionChange) -> bool:
        """Change a description, wherever the channel is published; False: it is not live."""
        try:
            await self._descriptions.change(channel, change)
        except NotLiveError:
            return False
        return True

    # What it knows of places to publish.

    async def check(self, key: str, protocol: str, client: str) -> Grant:
        """Whether the key would be let in by a protocol."""
        return await self._door.check(key, protocol, _peer(client))

    def codecs(self) -> dict[str, tuple[str, ...]]:
        """What each protocol here can carry."""
        return self._offers.codecs

    def own(self, grant: Grant, protocol: str) -> PopRow:
        """This PoP, as it is for that stream."""
        request = RouteRequest(
            channel=grant.channel, priority=grant.priority, tags=grant.tags, protocol=protocol
        )
        return offer_of(self._offers.row(), takes_it=self._uplinks.placing.routes.exists(request))

    def others(self) -> Iterable[PopRow]:
        """The other PoPs, as IRS tells."""
        return self._offers.others()

    def _live(self, channel: str) -> LiveStream | None:
        stream = self._hub.get(channel)
        return stream if stream is not None and stream.ended is None else None

    def _entry(self, record: DirectoryRecord) -> LiveEntry:
        entry = record.entry
        channel = entry.stream_id.channel
        stream = self._live(channel)  # What was changed here is known here first.
        return LiveEntry(
            channel=channel,
            description=Description(title=entry.title, category=entry.category, labels=entry.labels)
            if stream is None
            else stream.grant.description,
            started_at=entry.started_at,
            viewers=self._hls.viewers(channel),
        )


def make_api(
    config: Config, pump: Pump, side: PopSide, offers: IngestOffers, routes: Sequence[HttpRoute]
) -> ApiService:
    """The API's service; raises ConfigError where plug-ins' routes clash with others."""
    return ApiService(
        config.api,
        make_table(
            StreamHandlers(side, pump.now, config.api.admin_token_sha256),
            IngestHandlers(side, bitrate_bps_max=config.api.bitrate_bps_max),
            offers.why_failing,
            [_operation(route) for route in routes],
        ),
        playlist=side.playlist,
        lag_s=lambda: pump.lag_s,
    )


def _operation(route: HttpRoute) -> Operation:
    """A plug-in's route as an operation of ours."""

    async def handle(request: ApiRequest) -> ApiAnswer:
        assert isinstance(request.body, bytes), "the operation has no body type"
        try:
            answer = await route.handle(
                HttpRequest(
                    method=request.method,
                    path=request.path,
                    params=request.params,
                    query=request.query_string,
                    fields=request.fields,
                    body=request.body,
                    peer=_peer(request.client),
                    secure=request.secure,
                )
            )
        except PublishRefusedError as error:
            raise ApiError.of_refusal(error) from None  # Its traceback would lead to the key.
        return ApiAnswer(
            status=answer.status,
            body=answer.body,
            content_type=answer.content_type,
            fields=answer.fields,
        )

    return Operation(
        name=route.name,
        method=route.method,
        path=BASE + route.path,
        summary=route.summary,
        description=route.description,
        tag="ingest",
        replies={200: Reply(description="As the protocol has it.", content_type="*/*")},
        body_types=route.content_types or ("*/*",),
        handle=handle,
        quick=False,
        timeout_s=route.timeout_s,
    )


def _refuse_playlist(reason: str) -> PreparedResponse:
    return prepare_problem(ApiError("not_ready", reason))


def _refuse_viewer(refusal: Refusal) -> PreparedResponse:
    by_status = {HTTPStatus.FORBIDDEN: "not_admitted", HTTPStatus.TOO_MANY_REQUESTS: "rate_limited"}
    code = by_status.get(HTTPStatus(refusal.status), "playback_token")
    return prepare_problem(ApiError(code, refusal.reason))


def _peer(client: str) -> str:
    """An address as the peer of a connection, as the door counts by it."""
    return f"[{client}]:0"


def _media_of(stream: LiveStream) -> MediaView:
    configs = [(track.kind, track.config) for track in stream.tracks.values()]
    return MediaView(
        video=[
            VideoView(
                codec=config.codec_string,
                width=config.width,
                height=config.height,
                frame_rate=_rate(config.frame_rate_num, config.frame_rate_den),
            )
            for kind, config in configs
            if kind is Kind.VIDEO
        ],
        audio=[
            AudioView(codec=config.codec_string, channels=config.channels)
            for kind, config in configs
            if kind is Kind.AUDIO
        ],
    )


def _rate(num: int, den: int) -> float | None:
    return round(num / den, 3) if num else None
