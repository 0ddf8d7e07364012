"""What keeps roles from their work is found, and shown as metrics."""

from pathlib import Path

import pytest
import trio

from edged.config import Config
from edged.irs import live_board
from edged.policy.epoch_grants import EpochGrants
from edged.policy.live_registry import LiveRegistry
from edged.roles.fitness import SPECS, Fault, Health, read_origin_metrics
from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from edged.runtime.keeping import Part
from edged.runtime.metrics import Metrics
from tests.backbone.network import free_address, until
from tests.policy.test_live_registry import P, Q, told
from tests.policy.test_live_teller import rows
from tests.roles.network import configure, raw_network, running
from tests.roles.throwing import healthy_network


def whats(faults: list[Fault], *, grave: bool | None = None) -> list[str]:
    return [fault.what for fault in faults if grave is None or fault.grave is grave]


def configs(folder: Path) -> list[Config]:
    return [configure(raw) for raw in raw_network(folder)]


async def test_a_network_that_works_has_no_faults(tmp_path: Path) -> None:
    async with running(*configs(tmp_path)) as network:
        process = network.process
        await until(lambda: not process.health().faults)
        (pop,) = [role for role in process.roles if isinstance(role, PopRole)]
        await until(lambda: pop.view.path("fra1"))
        assert process.health() == Health(roles=["irs", "origin fra1", "pop west"], faults=[])
        assert process.health().fit
        text = process.metrics.render().decode()
        for line in (
            'edged_routing_irs_sessions{role="pop west"} 1.0',
            'edged_routing_irs_sessions{role="origin fra1"} 1.0',
            'edged_routing_origins{role="pop west",usable="yes"} 1.0',
            'edged_routing_origins{role="pop west",usable="no"} 0.0',
            'edged_ingest_plugin_up{plugin="rtmp",role="pop west"} 1.0',
            'edged_ingest_plugin_failures_total{plugin="rtmp",role="pop west"} 0.0',
        ):
            assert f"\n{line}\n" in text
        assert {spec.name for spec in SPECS if f"\n{spec.name}{{" in text} == {
            spec.name for spec in SPECS
        }
        pop.plugins.parts["rtmp"].up = False
        pop.plugins.parts["rtmp"].failure = "KeyError: 'x'"
        assert whats(process.health().faults) == ["ingest plug-in 'rtmp' is down: KeyError: 'x'"]
        assert not process.health().fit


async def test_without_irs_and_without_a_table_a_pop_is_unfit(tmp_path: Path) -> None:
    async with running(configs(tmp_path)[2]) as network:
        health = network.process.health()
        assert whats(health.faults) == [
            "no routing table: IRS has not been reached, and none is on disk"
        ]
        assert not health.fit
        assert "edged_routing_table_age_seconds" not in network.process.metrics.render().decode()


async def test_irs_may_go_and_the_origin_may_not(tmp_path: Path) -> None:
    irs, origin, pop = configs(tmp_path)
    first, second = trio.CancelScope(), trio.CancelScope()

    async def run(
        role: IrsRole | OriginRole, scope: trio.CancelScope, *, task_status: trio.TaskStatus[object]
    ) -> None:
        with scope:
            await role.run(task_status=task_status)

    irs_role, origin_role = IrsRole(irs, Metrics()), OriginRole(origin, Metrics())
    assert whats(irs_role.faults()) == ["no origin takes streams: none has been heard"]
    async with trio.open_nursery() as nursery:
        await nursery.start(run, irs_role, first)
        await nursery.start(run, origin_role, second)
        async with running(pop) as network:
            health = network.process.health
            await until(lambda: not health().faults)
            first.cancel()
            await until(lambda: health().faults)
            assert health().fit, "it routes by the table it has"
            assert whats(health().faults)[0].startswith(
                "no session to IRS; routing goes on by a table of "
            )
            await until(lambda: bool(origin_role.faults()))
            assert whats(origin_role.faults()) == [
                "no session to IRS, which tells PoPs of this origin"
            ]
            second.cancel()
            await until(lambda: not health().fit)
            (grave,) = whats(health().faults, grave=True)
            assert grave.startswith("no origin takes streams: fra1: link down")
        nursery.cancel_scope.cancel()


async def test_a_full_origin_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = OriginRole(configs(tmp_path)[1], Metrics())
    monkeypatch.setattr(role.service, "free", lambda: (0, 0, 0))
    assert whats(role.faults(), grave=False) == [
        "no session to IRS, which tells PoPs of this origin",
        "all 500 slots are taken",
    ]


async def test_a_loop_that_lags_turns_viewers_away(tmp_path: Path) -> None:
    role = PopRole(configs(tmp_path)[2], Metrics())
    role.plugins.parts["toy"] = Part("toy")
    role.pump._note_lag(0.7)
    assert whats(role.faults(), grave=True) == [
        "ingest plug-in 'toy' is down: it has not started yet",
        "no routing table: IRS has not been reached, and none is on disk",
        "the loop was 0.7 s late; above 0.5 s new viewers are turned away",
    ]


async def test_an_origin_tells_what_is_taken_from_it(tmp_path: Path) -> None:
    async with healthy_network(tmp_path) as setting:
        taken = {
            sample.labels["kind"]: sample.value
            for sample in read_origin_metrics(setting.origin)
            if sample.name == "edged_origin_subscriptions"
        }
        assert taken == {"parts": 1, "units": 0}


async def test_with_several_irss_it_is_said_when_none_is_active(tmp_path: Path) -> None:
    raws = raw_network(tmp_path)
    for raw in raws[1:]:
        client = raw["irs_client"]
        assert isinstance(client, dict)
        raw["irs_client"] = {"addresses": [*client["addresses"], free_address()]}
    async with running(*map(configure, raws)) as network:
        process = network.process
        await until(lambda: not process.health().faults)
        (irs,) = [role for role in process.roles if isinstance(role, IrsRole)]
        (pop,) = [role for role in process.roles if isinstance(role, PopRole)]
        (seen,) = process.irs_status()
        assert (seen.standing, seen.grants, seen.majority) == ("active", 1, 1)
        assert pop.irs is not None
        pop.irs.grants = EpochGrants()
        assert whats(process.health().faults) == [
            "no IRS is active: none that is reached has a majority of PoPs, or asks for it"
        ]
        irs.service.seat.claim.remember({"east/0": 0.0, "north/0": 0.0}, trio.current_time())
        irs.service.seat.keeper.problem = "irs.state_file x cannot be written: no space"
        assert whats(irs.faults()) == [
            "drains are not kept for the next start: irs.state_file x cannot be written: no space",
            "1 of 3 pops grant this irs an epoch, 2 must; it hears 1 of them",
        ]
        assert process.health().fit


async def test_what_is_published_twice_and_an_irs_with_two_names_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_board, "SETTLED_S", 0.0)
    async with running(*map(configure, raw_network(tmp_path))) as network:
        process = network.process
        await until(lambda: not process.health().faults)
        for role in process.roles:
            if isinstance(role, IrsRole):
                now = trio.current_time()
                told((P, rows(2)), (Q, rows(2)), now=now, into=role.service.live.registry)
                assert whats(role.faults()) == [
                    "'c0' is published at p/0 and q/0, and 1 more: edged live"
                ]
                role.service.live.registry = full = LiveRegistry(rows_max=1)
                told((P, rows(2)), (Q, rows(2)), now=now, into=full)
                assert whats(role.faults()) == [
                    "who is live at p/0 is not known, and of 1 more pops: more than 1 of all pops"
                ]
            else:
                assert isinstance(role, PopRole | OriginRole)
                assert role.irs is not None
                role.irs.twins.known["irs2:1"] = "irs1:1"
                assert whats(role.faults()) == [
                    "irs_client.addresses: irs2:1 and irs1:1 are one irs,"
                    " so no other stands by there"
                ]
        assert process.health().fit
