"""What a PoP offers publishers: its URLs, whether it wants them, how full it is."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from edged.config import Config, PopConfig
from edged.media.routing import IngestOffer, PopRow, PopState
from edged.policy.pop_board import HEARD_S_MAX
from edged.roles.offers import IngestOffers
from edged.runtime.listeners import SHED_LAG_S
from edged.wire.table import PopKey, Pops
from tests.backbone.network import Origin, until
from tests.roles.setting import Pop, running_pop

ADDRESSES = {"rtmp": "127.0.0.1:1935", "rtmps": "127.0.0.1:1936"}


def offers_of(pop: Pop, urls: Sequence[str] = (), publishers_max: int = 10) -> IngestOffers:
    config = Config(pop=PopConfig(name="ams1", ingest_urls=tuple(urls)))
    offers = IngestOffers(config, pop.pump, pop.hub, pop.uplinks)
    offers.started("rtmp", ADDRESSES, ("h264",), publishers_max)
    return offers


@contextlib.asynccontextmanager
async def reached() -> AsyncIterator[Pop]:
    origin = Origin("one")
    async with origin.serving(), running_pop(origin) as pop:
        await until(lambda: pop.view.reached)
        yield pop


async def test_urls_are_those_configured_or_what_listeners_say() -> None:
    async with reached() as pop:
        assert offers_of(pop).own().urls == (
            "rtmp://127.0.0.1:1935/live",
            "rtmps://127.0.0.1:1936/live",
        )
        configured = ("rtmp://ams1.example/live",)
        assert offers_of(pop, configured).own().urls == configured
        offers = IngestOffers(Config(pop=PopConfig(name="a")), pop.pump, pop.hub, pop.uplinks)
        offers.started("rtmp", {"rtmp": "[::]:1935"}, (), 1)
        assert offers.own().urls == ()  # All addresses are none to be told.
        assert offers_of(pop).codecs == {"rtmp": ("h264",), "rtmps": ("h264",)}


async def test_it_says_how_full_it_is_and_when_it_is() -> None:
    async with reached() as pop:
        offers = offers_of(pop, publishers_max=4)
        assert (offers.own().state, offers.own().load) == (PopState.UP, 0.0)
        for number, (state, load) in enumerate(
            [(PopState.UP, 0.25), (PopState.UP, 0.5), (PopState.UP, 0.75), (PopState.FULL, 1.0)]
        ):
            pop.open(f"c{number}")
            assert (offers.own().state, offers.own().load) == (state, load)
        offers.draining = True
        assert offers.own().state == PopState.DRAIN
        assert offers.row() == PopRow("ams1", 0, offers.own())


async def test_a_lagging_loop_is_load(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reached() as pop:
        offers = offers_of(pop)
        for lag_s, state, load in ((0.25, PopState.UP, 0.5), (SHED_LAG_S, PopState.FULL, 1.0)):
            monkeypatch.setattr(type(pop.pump), "lag_s", lag_s)
            assert (offers.own().state, offers.own().load) == (state, load)
        assert offers.why_failing() == []
        monkeypatch.setattr(type(pop.pump), "lag_s", SHED_LAG_S + 0.01)
        assert offers.why_failing() == ["loop_lag"]


async def test_without_a_table_or_an_origin_it_offers_nothing() -> None:
    async with running_pop() as pop:
        offers = offers_of(pop)
        assert offers.own().state == PopState.NO_ROUTE
        assert offers.why_failing() == ["no_table", "no_origin"]
        pop.push_table()
        assert offers.why_failing() == ["no_origin"]
    async with reached() as pop:
        offers = offers_of(pop)
        assert offers.why_failing() == []
        offers.draining = True
        assert offers.why_failing() == ["draining"]
        pop.push_table()
        assert offers_of(pop).own().state == PopState.NO_ROUTE


async def test_what_others_offer_is_believed_while_irs_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with reached() as pop:
        offers = offers_of(pop)
        row = PopRow("fra1", 1, IngestOffer(("rtmp://fra1/live",), PopState.UP, 0.0))
        offers.told(Pops(whole=True, changed=(row, PopRow("ams1", 0, row.ingest))))
        assert offers.others() == [row]
        heard_at = pop.pump.now()
        monkeypatch.setattr(type(pop.pump), "now", lambda _: heard_at + HEARD_S_MAX + 1)
        assert offers.others() == []
        offers.told(Pops(whole=False, removed=(PopKey("fra1", 1),)))
        assert offers.others() == []
