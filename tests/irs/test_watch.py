"""What IRS keeps for the page that draws its network: read from a whole one over memory streams."""

import json
from typing import cast

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.irs.links import BackboneConfig
from edged.irs.service import IrsConfig, IrsService
from edged.irs.watch import METRICS, NetworkWatch
from edged.media.routing import IngestOffer, OriginState, PathProbe, PopTelemetry
from edged.media.stream import PriorityClass
from edged.policy.capacitor import StateChanged
from edged.policy.link_map import LinkConfig, SiteConfig
from edged.policy.moves import UnitMoves
from edged.policy.network_history import SAMPLE_INTERVAL_S
from edged.policy.network_sample import ORIGIN_STATES, POP_ROW, POP_STATES
from edged.policy.restrictions import Restriction
from edged.wire.table import Moved, MoveRefused, Telemetry
from tests.irs.network import NOW_UNIX, Network, entropy_from, until

SITES = (
    SiteConfig(name="ams", pops=("ams",), latitude=52.4, longitude=4.9),
    SiteConfig(name="fra", origins=("fra1",)),
)
LINKS = (LinkConfig(name="ams-fra", ends=("ams", "fra"), mbps=1000.0),)
MAP = BackboneConfig(sites=SITES, links=LINKS)

Line = dict[str, list[list[object]]]


def make() -> IrsService:
    config = IrsConfig(sites=SITES, links=LINKS)
    return IrsService(config, entropy=entropy_from(1), now_unix=lambda: NOW_UNIX)


def lines(watch: NetworkWatch) -> list[Line]:
    """All that is kept, whole again."""
    found: list[Line] = []
    run = watch.history._run
    while text := watch.lines(f"{run}-{found[-1]['seq']}" if found else "").text:
        found += [json.loads(line) for line in text.splitlines()]
    return found


def events(watch: NetworkWatch) -> list[dict[str, object]]:
    return [
        cast("dict[str, object]", {k: v for k, v in event.items() if k != "at"})
        for line in lines(watch)
        for event in cast("list[dict[str, object]]", line.get("events", []))
    ]


def row(line: Line, what: str, name: str, order: tuple[str, ...]) -> dict[str, object]:
    names = [each[0] for each in cast("dict[str, Line]", line)["whole"][what]]
    found = next(each for each in line[what] if each[0] == names.index(name))
    return dict(zip(order, found[1:], strict=True))


def tell(service: IrsService, key: str, **units: tuple[int, int, int]) -> None:
    """As `Peer` does with telemetry."""
    told = PopTelemetry(
        dict(units),
        arrivals=3,
        refusals={"fra1": 2},
        timeouts={"fra1": 1},
        unplaced=4,
        probes={"fra1": PathProbe(5.0, probed=True)},
        ingest=IngestOffer(state="full", load=0.25),
    )
    service.watch.told(key, told)
    service.collectors.telemetry(key, told, trio.current_time())


async def test_a_network_is_sampled_and_what_happens_is_noted(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(sites=SITES, links=LINKS, warmup_s=0.0))
        network.add_origin("fra1", free=60)
        _, scope = network.add_pop("ams")
        irs = network.irs
        await until(lambda: bool(irs.tables))
        await trio.sleep(2 * SAMPLE_INTERVAL_S)
        scope.cancel()
        await trio.sleep(2 * SAMPLE_INTERVAL_S)
        nursery.cancel_scope.cancel()
    kept = lines(irs.watch)
    whole = [cast("dict[str, Line]", line)["whole"] for line in kept if "whole" in line]
    assert whole[-1]["sites"] == [["ams", 52.4, 4.9], ["fra", None, None]]
    assert whole[-1]["origins"] == [["fra1", 1]]
    assert any(line.get("origins") == [[0, 0, 1, 100, 40, 0, 0, 0, 100]] for line in kept)
    told = events(irs.watch)
    assert {"kind": "origin", "origin": "fra1", "after": "up", "why": "first heard"} in [
        {**event, "why": "first heard"} for event in told
    ]
    assert {"kind": "pop", "pop": "ams", "after": "here"} in told
    assert {"kind": "pop", "pop": "ams", "after": "gone"} in told
    assert len(kept) == irs.watch.history.statistics().lines


async def test_shards_of_a_pop_are_one(autojump_clock: MockClock) -> None:
    service = make()
    for key in ("ams/0", "ams/1"):
        service.collectors.pop_joined(key)
    tell(service, "ams/0", fra1=(1, 2, 3))
    tell(service, "ams/1", fra1=(0, 0, 4))
    service.watch.sample()
    (line,) = lines(service.watch)
    assert row(line, "pops", "ams", POP_ROW) == {
        "connected": 1,
        "state": POP_STATES.index("full"),
        "streams": 10,
        "arrivals": 6,
        "refusals": 6,
        "unplaced": 8,
        "load_percent": 25,
    }
    assert "flows" not in line, "fra1 has not been heard: it is not drawn"
    service.watch.sample()
    assert lines(service.watch)[1]["pops"] == [[0, 1, POP_STATES.index("full"), 10, 0, 0, 0, 25]]


def make_moved(channel: str, why: str, number: int) -> Moved:
    return Moved(
        channel=channel,
        publication=1,
        home_epoch=2,
        from_origin="fra1",
        to_origin="lhr1",
        unit_seq=0,
        why=why,
        number=number,
    )


async def test_moves_are_told_with_why_they_were_wanted(autojump_clock: MockClock) -> None:
    service = make()
    service.collectors.pop_joined("ams/0")
    move = UnitMoves(
        pop="ams/0",
        from_origin="fra1",
        to_origin="lhr1",
        priority=PriorityClass.BASIC,
        units=2,
        reason="link ams-fra to fra",
    )
    service._request_moves([move], 1.0)
    number = service.moving._number

    service.watch.moved("ams/0", make_moved("one", "migrate", number))
    service.watch.moved("ams/0", make_moved("two", "migrate", number))
    service.watch.moved("ams/0", make_moved("three", "closed", 0))
    service.watch.kept(
        "ams/0",
        MoveRefused(number=number, channel="", from_origin="fra1", count=4, reason="no room"),
    )
    service.watch.sample()
    there = {"pop": "ams", "origin": "fra1", "to": "lhr1"}
    reason = "link ams-fra to fra"
    assert events(service.watch) == [
        {"kind": "wanted", **there, "why": reason, "count": 2},
        {
            "kind": "moved",
            **there,
            "before": "migrate",
            "why": reason,
            "count": 2,
            "channels": ["one", "two"],
        },
        {"kind": "moved", **there, "before": "closed", "channels": ["three"]},
        {"kind": "kept", "pop": "ams", "origin": "fra1", "why": "no room", "count": 4},
    ]


async def test_what_a_session_brings_is_noted(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(sites=SITES, links=LINKS, warmup_s=0.0))
        network.add_pop("ams")
        irs = network.irs
        await until(lambda: "ams/0" in irs._pops)
        irs.watch.sample()
        session = irs._pops["ams/0"]
        session.handle(Telemetry(PopTelemetry({}, arrivals=7, unplaced=2)))
        session.handle(make_moved("one", "drain", 0))
        refused = MoveRefused(number=0, channel="two", from_origin="fra1", reason="no room")
        session.handle(refused)
        irs.watch.sample()
        nursery.cancel_scope.cancel()
    (changed,) = lines(irs.watch)[-1]["pops"]
    seen = dict(zip(POP_ROW, changed[1:], strict=True))
    assert (seen["arrivals"], seen["unplaced"]) == (7, 2)
    told = [(event["kind"], event["channels"]) for event in events(irs.watch)[-2:]]
    assert told == [("moved", ["one"]), ("kept", ["two"])]


async def test_drains_limits_and_states_are_seen(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(sites=SITES, links=LINKS, warmup_s=0.0))
        network.add_origin("fra1")
        irs = network.irs
        await until(lambda: irs.collectors.state("fra1") is OriginState.UP)
        irs.watch.sample()
        irs.moving.drain("fra1", deadline_s=60.0, known=["fra1"], by="anna")
        limit = Restriction(kind="origin", name="fra1", reason="new disks", usable=0.5)
        irs.sources.held = [("maintenance", limit)]
        irs.links.restrict([limit])
        irs.watch.sample()
        nursery.cancel_scope.cancel()
    last = lines(irs.watch)[-1]
    assert last["origins"] == [[0, ORIGIN_STATES.index("drain"), 1, 100, 0, 0, 0, 0, 50]]
    told = events(irs.watch)
    assert {"kind": "drain", "origin": "fra1", "after": "begun", "why": "anna"} in told
    assert {
        "kind": "limit",
        "origin": "fra1",
        "before": "maintenance",
        "after": "begun",
        "why": "new disks",
        "count": 50,
    } in told


async def test_a_fault_costs_one_sample(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    look = service.watch._look
    calls = []

    def fail_once() -> object:
        calls.append(trio.current_time())
        if len(calls) == 1:
            raise ZeroDivisionError
        return look()

    monkeypatch.setattr(service.watch, "_look", fail_once)
    with capture_logs() as logged, trio.move_on_after(2.5 * SAMPLE_INTERVAL_S):
        await service.watch.run()
    assert [line["event"] for line in logged] == ["network not sampled"]
    assert len(lines(service.watch)) == 2


async def test_metrics_and_a_map_that_is_read_again(autojump_clock: MockClock) -> None:
    service = make()
    service.watch.origins_changed([StateChanged("fra1", None, OriginState.UP, "first heard")])
    service.watch.sample()
    values = {sample.name: sample.value for sample in service.watch.read_metrics()}
    assert values.keys() == {spec.name for spec in METRICS}
    assert values["edged_irs_network_samples"] == 1
    assert values["edged_irs_network_bytes"] > 100
    well = service.links.well
    moved = SiteConfig(name="fra", origins=("fra1",), latitude=50.1, longitude=8.7)
    service.reconfigure(IrsConfig(sites=(SITES[0], moved), links=LINKS))
    assert service.links.well is well, "where a site is drawn changes nothing of what is known"
    service.watch.sample()
    whole = cast("dict[str, Line]", lines(service.watch)[-1])["whole"]
    assert whole["sites"] == [["ams", 52.4, 4.9], ["fra", 50.1, 8.7]]
