"""A PoP ends what IRS names, the newest of a class, and whoever comes back hears why."""

import contextlib
from collections import UserDict
from collections.abc import AsyncIterator, ItemsView
from typing import cast

import msgspec
import pytest
from structlog.testing import capture_logs

from edged.errors import PublishRefusedError
from edged.media.events import StreamEvent, StreamShed
from edged.media.routing import ClassLabel, RouteRequest
from edged.media.stream import PriorityClass
from edged.roles import shedding as shedding_module
from edged.roles.placement import LINK_FULL, SHED, Placement
from edged.roles.shedding import Shedder
from edged.roles.telling import Telling
from edged.runtime.hub import LiveStream
from edged.runtime.metrics import Metrics
from edged.wire.table import PICKS_MAX, FullWay, Shed, ShedDone, ShedPick
from tests.backbone.network import Origin
from tests.roles.setting import Pop, running_pop

LINK = "fra-ams to ams"
PARTNER, BASIC = PriorityClass.PARTNER, PriorityClass.BASIC


class Network:
    """A PoP with streams at two origins, and who ends them."""

    def __init__(self, pop: Pop) -> None:
        self.pop = pop
        self.done: list[ShedDone] = []
        self.stopped: list[tuple[str, str, str]] = []
        self.events: list[StreamEvent] = []
        placing = pop.uplinks.placing
        placing.telling = Telling(self.events.append)
        self.shedder = Shedder(placing, self._stop, pop.pump.now)
        self.shedder.tell = self.done.append

    def place(self, *channels: str, priority: PriorityClass = BASIC) -> None:
        for channel in channels:
            stream = self.pop.open(channel, priority=priority)
            stream.started_at += len(self.pop.uplinks.placements)
            request = RouteRequest(channel=channel, priority=priority, protocol="rtmp")
            self.pop.place(stream, request)

    @property
    def live(self) -> set[str]:
        return set(self.pop.uplinks.placements)

    def _stop(self, stream: LiveStream, code: str, reason: str) -> None:
        self.stopped.append((stream.channel, code, reason))
        self.pop.hub.close(stream, reason)
        self.pop.uplinks.placing.end(stream)


@contextlib.asynccontextmanager
async def network() -> AsyncIterator[Network]:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two, quota=6) as pop:
        made = Network(pop)
        made.place("old", "new", "newer")
        made.place("star", priority=PARTNER)
        yield made


def order(
    count: int, there: int, *, number: int = 1, class_: ClassLabel = "basic", origin: str = "one"
) -> Shed:
    return Shed(
        epoch=1,
        number=number,
        picks=(ShedPick(origin, class_, count, there, LINK),),
        full=(FullWay("one", "basic", LINK),),
        full_s=30.0,
    )


async def test_the_newest_end_and_everybody_hears_why() -> None:
    async with network() as net:
        metrics = Metrics()
        net.shedder.register(metrics, role="pop ams1")
        with capture_logs() as logged:
            net.shedder.command(order(2, 3))
        reason = f"shed: link {LINK} is full"
        told = ("Rejected", SHED.format("basic"))
        assert net.stopped == [("newer", *told), ("new", *told)]
        assert LINK not in told[1], "a publisher is shown no routes"
        assert net.live == {"old", "star"}
        assert net.done == [
            ShedDone(
                epoch=1,
                number=1,
                origin="one",
                class_="basic",
                link=LINK,
                wanted=2,
                ended=2,
                channels=("newer", "new"),
            )
        ]
        first = net.events[0]
        assert isinstance(first, StreamShed)
        assert (first.channel, first.link, first.origin) == ("newer", LINK, "one")
        assert (first.priority, first.number) == ("basic", 1)
        lines = [line for line in logged if line["event"] == "stream shed"]
        assert [line["channel"] for line in lines] == ["newer", "new"]
        for line in lines:
            assert (line["link"], line["number"], line["priority"]) == (LINK, 1, "basic")
        read = metrics._registry.get_sample_value
        labels = {"role": "pop ams1", "class": "basic"}
        assert read("edged_shed_streams_total", labels) == 2
        assert read("edged_shed_streams_total", {**labels, "class": "partner"}) == 0
        assert net.shedder.why_shed("new") == f"{reason}, order 1, 0 s ago"
        assert net.shedder.why_shed("old") == ""


async def test_an_order_that_comes_again_or_is_older_ends_nothing() -> None:
    async with network() as net:
        net.shedder.command(order(1, 3, number=4))
        with capture_logs() as logged:
            net.shedder.command(order(1, 2, number=4))
            net.shedder.command(order(1, 2, number=3))
        assert [line["event"] for line in logged] == ["order to shed comes again"] * 2
        assert net.live == {"old", "new", "star"}
        assert len(net.done) == 1


async def test_of_the_same_telemetry_nothing_more_goes_nor_of_who_has_left() -> None:
    async with network() as net:
        net.pop.uplinks.placing.end(net.pop.uplinks.placements["old"].stream)
        net.shedder.command(order(2, 3))
        net.shedder.command(order(2, 3, number=2))
        assert net.live == {"new", "star"}, "one has left by itself, one had to"
        assert [done.ended for done in net.done] == [1, 0]


async def test_no_other_class_nor_origin() -> None:
    async with network() as net:
        net.shedder.command(order(9, 9, class_="affiliate"))
        net.shedder.command(order(3, 3, number=2, origin="two"))
        assert net.live == {"old", "new", "newer", "star"}
        net.shedder.command(order(1, 1, number=3, class_="partner"))
        assert net.live == {"old", "new", "newer"}


async def test_who_comes_back_finds_room_elsewhere_or_is_told_which_link_is_full() -> None:
    async with network() as net:
        net.shedder.command(order(1, 3))
        net.place("newer")
        assert net.pop.uplinks.placements["newer"].decision.origin == "two"
        two = net.pop.view.by_name["two"]
        two.blocked = "masked"
        with pytest.raises(PublishRefusedError, match=LINK_FULL.format("basic")):
            net.place("again")
        net.place("big", priority=PARTNER)
        assert net.pop.uplinks.placements["big"].decision.origin == "one"


async def test_an_order_of_many_picks_looks_through_the_streams_once() -> None:
    class Counted(UserDict[str, Placement]):
        looks = 0

        def items(self) -> ItemsView[str, Placement]:
            self.looks += 1
            return super().items()

    async with network() as net:
        placing = net.pop.uplinks.placing
        counted = Counted(placing.placements)
        placing.placements = cast("dict[str, Placement]", counted)
        one = order(1, 3)
        away = tuple(ShedPick(f"o{at}", "basic", 1, 1, LINK) for at in range(PICKS_MAX - 2))
        net.shedder.command(msgspec.structs.replace(one, picks=(*one.picks, *away, *one.picks)))
        assert counted.looks == 1
        assert net.live == {"old", "new", "star"}, "the same once more is less than nothing"
        net.shedder.command(
            msgspec.structs.replace(
                one, number=2, picks=2 * (ShedPick("one", "basic", 1, 2, LINK),)
            )
        )
        assert net.live == {"old", "star"}


async def test_a_bug_in_ending_one_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with network() as net:
        real = net.shedder._stop

        def stop(stream: LiveStream, code: str, reason: str) -> None:
            if stream.channel == "newer":
                raise KeyError("bug")
            real(stream, code, reason)

        monkeypatch.setattr(net.shedder, "_stop", stop)
        net.shedder.command(order(2, 3))
        assert net.live == {"old", "newer", "star"}
        assert [done.ended for done in net.done] == [1]


async def test_of_the_last_that_were_shed_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shedding_module, "SHOWN_MAX", 1)
    async with network() as net:
        net.shedder.command(order(2, 3))
        assert net.shedder.why_shed("newer") == ""
        assert net.shedder.why_shed("new")
