"""Where to publish: the best PoP for a stream key, or why there is none."""

from collections.abc import Iterable
from typing import Protocol

from edged.api.operations import ApiAnswer, ApiRequest
from edged.api.problems import ApiError
from edged.api.schemas import IngestAnswer, IngestPlaceView, IngestRequest
from edged.errors import PublishRefusedError
from edged.media.routing import IngestOffer, PopRow, PopState
from edged.media.stream import Grant
from edged.media.track import Codec
from edged.policy.ingest_choice import IngestPlace, IngestRefusal, choose_ingest

# What encoders and their users call the codecs, beside our own names.
CODEC_NAMES = {
    "avc": Codec.H264,
    "avc1": Codec.H264,
    "x264": Codec.H264,
    "hevc": Codec.H265,
    "hvc1": Codec.H265,
    "hev1": Codec.H265,
    "x265": Codec.H265,
    "av01": Codec.AV1,
    "vp09": Codec.VP9,
}


class IngestSide(Protocol):
    """What this PoP knows of places to publish."""

    async def check(self, key: str, protocol: str, client: str) -> Grant:
        """Whether the key would be let in by a protocol; PublishRefusedError says why not."""

    def codecs(self) -> dict[str, tuple[str, ...]]:
        """What each protocol here can carry."""

    def own(self, grant: Grant, protocol: str) -> PopRow:
        """This PoP, as it is for that stream."""

    def others(self) -> Iterable[PopRow]:
        """The other PoPs, as IRS tells."""


class IngestHandlers:
    """The operation that answers where to publish."""

    def __init__(self, side: IngestSide, *, bitrate_bps_max: int) -> None:
        self._side = side
        self._bitrate_bps_max = bitrate_bps_max

    async def find_ingest(self, request: ApiRequest) -> ApiAnswer:
        """`POST /api/v1/streams/ingest`."""
        asked = request.body
        assert isinstance(asked, IngestRequest), "as the operation says"
        grant, protocols = await self._check_key(asked, request.client)
        protocols = self._check_media(asked, protocols)
        own = self._side.own(grant, protocols[0])
        choice = choose_ingest(own, list(self._side.others()), protocols)
        if isinstance(choice, IngestRefusal):
            told = "; ".join(f"{pop} {why}" for pop, why in sorted(choice.reasons.items()))
            raise ApiError("no_route", f"no PoP takes the stream now: {told}")
        place = _view(choice.place)
        return ApiAnswer(
            body=IngestAnswer(
                url=place.url,
                pop=place.pop,
                protocol=place.protocol,
                channel=grant.channel,
                reason=choice.reason,
                alternatives=[_view(each) for each in choice.alternatives],
            )
        )

    async def _check_key(self, asked: IngestRequest, client: str) -> tuple[Grant, list[str]]:
        """What the key grants, and by which of the protocols it may."""
        known = self._side.codecs()
        if not known:
            raise ApiError("no_route", "no PoP takes the stream now: nothing listens at this one")
        wanted = [asked.protocol.lower()] if asked.protocol else list(known)
        if wanted[0] not in known:
            raise ApiError(
                "invalid_body", f"protocol: none of this network's, which are {', '.join(known)}"
            )
        grant, allowed = None, []
        refusal: PublishRefusedError | None = None
        for protocol in wanted:
            try:
                grant = await self._side.check(asked.stream_key, protocol, client)
            except PublishRefusedError as error:
                refusal = error
                if error.code != "out_of_scope":
                    break
            else:
                allowed.append(protocol)
        if grant is None or (refusal is not None and refusal.code != "out_of_scope"):
            assert refusal is not None, "there is a protocol"
            raise ApiError.of_refusal(refusal) from None  # Its traceback would lead to the key.
        return grant, allowed

    def _check_media(self, asked: IngestRequest, protocols: list[str]) -> list[str]:
        """The protocols that carry it."""
        if asked.bitrate_bps is not None and asked.bitrate_bps > self._bitrate_bps_max:
            raise ApiError(
                "bitrate_too_high",
                f"{asked.bitrate_bps} bits per second exceed {self._bitrate_bps_max}",
            )
        if asked.codec is None:
            return protocols
        name = asked.codec.lower().replace(".", "")
        codec = CODEC_NAMES.get(name, name)
        known = self._side.codecs()
        carrying = [protocol for protocol in protocols if codec in known[protocol]]
        if not carrying:
            offered = sorted({each for protocol in protocols for each in known[protocol]})
            raise ApiError(
                "unsupported_codec",
                f"{asked.codec!r} is not carried by {' or '.join(protocols)};"
                f" carried are {', '.join(offered)}",
            )
        return carrying


def offer_of(row: PopRow, *, takes_it: bool) -> PopRow:
    """A PoP's row for one stream, which it may have no way for though it takes others."""
    offer = row.ingest
    if takes_it or offer.state != PopState.UP:
        return row
    return PopRow(row.pop, row.shard, IngestOffer(offer.urls, PopState.NO_ROUTE, offer.load))


def _view(place: IngestPlace) -> IngestPlaceView:
    return IngestPlaceView(pop=place.pop, url=place.url, protocol=place.url.partition("://")[0])
