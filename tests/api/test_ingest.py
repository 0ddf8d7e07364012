"""Where to publish: the key as the door sees it, codecs, bitrates, and the best PoP."""

import msgspec
import pytest

from edged.api.ingest import IngestHandlers, offer_of
from edged.api.problems import ApiError
from edged.api.schemas import IngestAnswer, IngestRequest
from edged.errors import PublishRefusedError
from edged.media.routing import IngestOffer, PopRow, PopState
from tests.api.client import KEY, Side
from tests.api.test_streams import request

BITRATE_BPS_MAX = 30_000_000


async def ask(side: Side, **fields: object) -> IngestAnswer:
    body = msgspec.convert({"stream_key": KEY, **fields}, IngestRequest)
    handlers = IngestHandlers(side, bitrate_bps_max=BITRATE_BPS_MAX)
    answer = await handlers.find_ingest(request(body=body))
    assert isinstance(answer.body, IngestAnswer)
    assert answer.cache_control == "no-store"
    return answer.body


def row(pop: str, load: float, state: str = PopState.UP) -> PopRow:
    return PopRow(pop, 1, IngestOffer((f"rtmp://{pop}.example/live",), state, load))


async def test_the_pop_that_was_asked() -> None:
    side = Side()
    side.rows = [row("fra1", 0.0)]
    told = await ask(side, codec="h264", bitrate_bps=6_000_000)
    assert (told.url, told.pop, told.protocol) == ("rtmp://ams1.example/live", "ams1", "rtmp")
    assert (told.channel, told.reason) == ("alice", "the PoP that you asked takes it")
    assert [place.pop for place in told.alternatives] == ["fra1"]
    assert KEY not in repr(told)


async def test_another_when_it_has_no_way_for_this_very_stream() -> None:
    side = Side()
    side.has_route = False
    side.rows = [row("fra1", 0.5), row("lon1", 0.2), row("par1", 0.0, PopState.DRAIN)]
    told = await ask(side)
    assert told.pop == "lon1"
    assert "has no way to an origin" in told.reason


async def test_nowhere_is_said_with_the_reasons_and_when_to_ask_again() -> None:
    side = Side()
    side.offer = IngestOffer(side.offer.urls, PopState.DRAIN, 0.0)
    side.rows = [row("fra1", 1.0, PopState.FULL)]
    with pytest.raises(ApiError) as refused:
        await ask(side)
    assert (refused.value.code, refused.value.status) == ("no_route", 503)
    assert "ams1 is being drained; fra1 is overloaded" in refused.value.detail
    assert refused.value.fields[0][0] == "Retry-After"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("unknown_key", 403),
        ("expired_key", 403),
        ("out_of_scope", 403),
        ("rate_limited", 429),
        ("takeover", 409),
    ],
)
async def test_a_refused_key_is_refused_as_a_publisher_is(code: str, status: int) -> None:
    side = Side()
    side.refusal = PublishRefusedError(code, "why", "detail for the log", retry_after_s=7.0)
    with pytest.raises(ApiError) as refused:
        await ask(side)
    assert (refused.value.code, refused.value.status, refused.value.detail) == (code, status, "why")
    looked_at = 2 if code == "out_of_scope" else 1  # Once is enough to know a wrong one.
    assert side.clients == ["192.0.2.1"] * looked_at


async def test_the_protocols_that_the_key_allows() -> None:
    side = Side()
    side.scopes[KEY] = ("rtmps",)
    told = await ask(side)
    assert (told.url, told.protocol) == ("rtmps://ams1.example/live", "rtmps")
    with pytest.raises(ApiError, match="out_of_scope"):
        await ask(side, protocol="rtmp")
    assert (await ask(side, protocol="RTMPS")).protocol == "rtmps"
    with pytest.raises(ApiError, match="invalid_body: protocol: none of this network's"):
        await ask(side, protocol="srt")


@pytest.mark.parametrize("codec", ["h264", "H264", "avc1", "h.264", "x264"])
async def test_codecs_by_all_their_names(codec: str) -> None:
    assert (await ask(Side(), codec=codec)).protocol == "rtmp"


async def test_a_codec_leads_to_a_protocol_that_carries_it() -> None:
    side = Side()
    side.carried = {"rtmps": ("h264",), "rtmp": ("h264", "h265")}
    assert (await ask(side, codec="h264")).protocol == "rtmps"
    assert (await ask(side, codec="hevc")).protocol == "rtmp"
    with pytest.raises(ApiError) as refused:
        await ask(side, codec="vp8")
    assert (refused.value.code, refused.value.status) == ("unsupported_codec", 422)
    assert refused.value.detail == ("'vp8' is not carried by rtmps or rtmp; carried are h264, h265")


async def test_bitrates_at_the_limit_and_one_past_it() -> None:
    await ask(Side(), bitrate_bps=BITRATE_BPS_MAX)
    with pytest.raises(ApiError, match="bitrate_too_high: 30000001 bits per second exceed"):
        await ask(Side(), bitrate_bps=BITRATE_BPS_MAX + 1)


def test_a_pop_without_a_way_for_a_stream_keeps_what_else_it_says() -> None:
    up, drained = row("a", 0.5), row("a", 0.5, PopState.DRAIN)
    assert offer_of(up, takes_it=True) is up
    assert offer_of(up, takes_it=False).ingest.state == PopState.NO_ROUTE
    assert offer_of(drained, takes_it=False) is drained
