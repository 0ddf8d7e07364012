"""Links to PoPs that relay: kept as orders name them, and hearing nothing but parts."""

import random

import pytest
import trio
from structlog.testing import capture_logs

from edged.backbone.fence import Fence
from edged.backbone.local_end import LocalEnd
from edged.errors import RemoteProtocolError
from edged.media.routing import OriginReport, ReportedState
from edged.media.stream import DescriptionChange, PriorityClass
from edged.roles import relay_links
from edged.roles.relay_links import ALIVE_S, LINKS_MAX, PINGS_S, RelayLinks
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor
from edged.wire.backbone.messages import DirectoryDelta
from tests.backbone.network import until
from tests.backbone.test_relay_server import relay


def make(pump: Pump) -> RelayLinks:
    return RelayLinks(
        pump,
        LocalEnd(role="pop", name="sin1", instance=7),
        Fence(),
        tls=None,
        supervisor=Supervisor("pop sin1"),
        rng=random.Random(1),  # noqa: S311 - a test's chance
    )


async def test_links_come_and_go_with_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_links, "PINGS_S", 0.1)
    assert PINGS_S > 3
    pump = Pump()
    links, changes = make(pump), list[str]()
    links.on_changed = lambda: changes.append("")
    async with relay() as made, trio.open_nursery() as nursery:
        links.nursery = nursery
        nursery.start_soon(pump.run)
        links.keep(["ams1/0"], {"ams1/0": made.address}, set(), pump.now())
        assert links.get("ams1/0") is not None
        assert not links.is_up("ams1/0", PriorityClass.BASIC)
        assert links.ms("ams1/0") is None
        await until(lambda: links.is_up("ams1/0", PriorityClass.BASIC))
        await until(lambda: links.ms("ams1/0") is not None)
        assert links.peers().keys() == {"ams1/0"}
        links.keep(["ams1/0"], {"ams1/0": made.address}, set(), pump.now())
        assert links.is_alive("ams1/0", pump.now()), "pings have come"
        assert not links.is_alive("ams1/0", pump.now() + ALIVE_S)
        assert not links.is_alive("lhr1/0", pump.now())
        for session in list(made.server._sessions):
            session.connection.abort("the path broke")
        await until(lambda: not links.is_up("ams1/0", PriorityClass.BASIC))
        assert links.ms("ams1/0") is None
        assert len(changes) >= 5
        await until(lambda: links.is_up("ams1/0", PriorityClass.BASIC))
        links.keep([], {}, {"ams1/0"}, pump.now())
        assert links.get("ams1/0") is not None, "something comes by it"
        links.keep([], {}, set(), pump.now())
        assert links.get("ams1/0") is None
        assert not links.is_up("ams1/0", PriorityClass.BASIC)
        await until(lambda: not made.server._sessions)
        nursery.cancel_scope.cancel()


async def test_a_wrong_address_is_said_once_and_links_are_bounded() -> None:
    pump = Pump()
    links = make(pump)
    async with trio.open_nursery() as nursery:
        links.nursery = nursery
        with capture_logs() as logs:
            for _ in range(3):
                links.keep(["ams1/0"], {"ams1/0": "192.0.2.1:1942"}, set(), 0.0)
        errors = [line for line in logs if line["log_level"] == "error"]
        assert [line["event"] for line in errors] == ["relay cannot be used"]
        names = [f"p{number}/0" for number in range(LINKS_MAX + 1)]
        links.keep(names, dict.fromkeys(names, "127.0.0.1:9"), set(), 0.0)
        assert links.get(names[LINKS_MAX - 1]) is not None
        assert links.get(names[LINKS_MAX]) is None
        links.keep(["q/0"], {}, set(), 0.0)
        assert links.get("q/0") is None, "nobody said where it is"
        nursery.cancel_scope.cancel()


def test_nothing_but_parts_comes_from_a_relay() -> None:
    links = make(Pump())
    report = OriginReport("ams1", 1, ReportedState.UP, 1, (1, 1, 1))
    delta = DirectoryDelta(
        origin="ams1", incarnation=1, version=1, from_version=0, changed=[], removed=[]
    )
    for tell in (
        lambda: links.heartbeat(report),
        lambda: links.directory(delta),
        lambda: links.description_wanted("alice", DescriptionChange()),
    ):
        with pytest.raises(RemoteProtocolError, match="from a PoP that relays"):
            tell()
