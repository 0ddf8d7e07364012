"""Which IRS is active and by whose grants, as the status has it."""

from pathlib import Path

import pytest
import trio

from edged.irs import live_board
from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from edged.roles.snapshot import StatusQuery
from edged.roles.snapshot_irs import (
    CONFLICTS_SHOWN_MAX,
    describe_live,
    describe_sessions,
    granted_epoch,
)
from tests.backbone.network import free_address, until
from tests.policy.test_live_registry import P, Q, told
from tests.policy.test_live_teller import rows
from tests.roles.network import configure, raw_network, running


async def test_with_several_irss_grants_and_sessions_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raws, dead = raw_network(tmp_path), free_address()
    for raw in raws[1:]:
        client = raw["irs_client"]
        assert isinstance(client, dict)
        raw["irs_client"] = {"addresses": [*client["addresses"], dead]}
    async with running(*map(configure, raws)) as network:
        process = network.process
        assert process.snapshots is not None
        await until(lambda: not process.health().faults)
        (irs,) = [role for role in process.roles if isinstance(role, IrsRole)]
        (pop,) = [role for role in process.roles if isinstance(role, PopRole)]
        (origin,) = [role for role in process.roles if isinstance(role, OriginRole)]
        await until(lambda: irs.service.live.registry.whole)
        status = process.snapshots.make(StatusQuery())
        (seen,) = status.irs
        assert seen.standing == "active"
        assert seen.seat is not None
        assert (seen.seat.leads, seen.seat.grants, seen.seat.majority) == (True, 1, 1)
        assert (seen.seat.pops_known, seen.seat.active_at, seen.seat.taken_over) == (1, "", 1)
        assert seen.seat.pops_here == 1
        (there,) = seen.pops
        assert (there.grants, there.live) == (True, 0)
        link = status.pops[0].irs
        assert link.epoch == seen.epoch
        first, other = link.sessions
        assert (first.connected, first.active, first.twin) == (True, True, "")
        assert (other.address, other.connected, other.active) == (dead, False, False)
        assert [each.active for each in status.origins[0].irs.sessions] == [None, None]

        assert pop.irs is not None
        assert origin.irs is not None
        origin.irs.twins.known[dead] = first.address
        now = trio.current_time()
        assert describe_sessions(origin.irs, now)[1].twin == first.address
        assert granted_epoch(origin.irs, now) is None
        irs.service.seat.stand_by()
        await until(lambda: granted_epoch(pop.irs, trio.current_time()) == 0)
        (again,) = process.snapshots.make(StatusQuery()).irs
        assert again.standing == "standby"
        assert [pop.grants for pop in again.pops] == [False]

        monkeypatch.setattr(live_board, "SETTLED_S", 0.0)
        told((P, rows(9)), (Q, rows(9)), now=now, into=irs.service.live.registry)
        live = describe_live(irs.service)
        assert (live.channels, live.conflicts) == (9, 9)
        assert len(live.conflicts_first) == CONFLICTS_SHOWN_MAX


async def test_where_there_is_one_irs_nothing_is_granted(tmp_path: Path) -> None:
    async with running(*map(configure, raw_network(tmp_path))) as network:
        process = network.process
        assert process.snapshots is not None
        await until(lambda: not process.health().faults)
        status = process.snapshots.make(StatusQuery())
        (seen,) = status.irs
        assert (seen.standing, [pop.grants for pop in seen.pops]) == ("alone", [None])
        assert status.pops[0].irs.epoch is None
        assert [each.active for each in status.pops[0].irs.sessions] == [None]
    assert describe_sessions(None, 0.0) == []
    assert granted_epoch(None, 0.0) is None
