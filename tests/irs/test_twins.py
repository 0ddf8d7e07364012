"""Two addresses that lead to one IRS: one session is kept, and it is said."""

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.errors import RemoteProtocolError
from edged.irs.client import IrsClientConfig, OriginClient, PopClient
from edged.irs.service import IrsConfig, IrsService
from edged.irs.twins import RETRY_S, Twins
from edged.policy.pop_view import PopView
from edged.wire.table import Goodbye, OriginHello
from tests.irs.network import NOW_UNIX, Network, Origin, entropy_from, until

A, B = "irs1:1940", "irs2:1940"


async def test_the_other_address_is_left_alone_while_the_first_has_its_session(
    autojump_clock: MockClock,
) -> None:
    twins, sessions = Twins(), {A}
    await twins.wait(B, sessions)  # Nothing is known of it.
    with pytest.raises(RemoteProtocolError, match="irs ended the session: it is here"):
        twins.take_goodbye(B, Goodbye("it is here", twin=A))
    assert twins.faults() == [
        f"irs_client.addresses: {B} and {A} are one irs, so no other stands by there"
    ]
    began_at = trio.current_time()
    await twins.wait(B, sessions)
    assert trio.current_time() - began_at == RETRY_S
    await twins.wait(A, sessions)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(twins.wait, B, sessions)
        await trio.sleep(5)
        sessions.clear()
        began_at = trio.current_time()
    assert trio.current_time() - began_at <= 1.0
    twins.connected(B)
    assert twins.faults() == []
    with pytest.raises(RemoteProtocolError, match="maintenance"):
        twins.take_goodbye(A, Goodbye("maintenance"))
    assert twins.faults() == []


async def test_irs_keeps_the_session_that_it_has(autojump_clock: MockClock) -> None:
    config = IrsClientConfig(addresses=(A, B))
    async with trio.open_nursery() as nursery:
        network = Network(nursery, IrsConfig(warmup_s=0.0))
        pop = PopClient(config, PopView("p"))
        nursery.start_soon(pop.run_duties)
        hello = OriginHello(origin="o", incarnation=1, address="o:1941")
        origin = OriginClient(config, hello, Origin("o").report)
        first = network.join(A, pop.run_stream)
        network.join(A, origin.run_stream)
        await until(lambda: network.irs.seat.leads and pop.view.table is not None)
        network.join(B, pop.run_stream)
        await until(lambda: pop.twins.known == {B: A})
        assert "p/0 is here by irs1:1940: irs2:1940 is the same irs" in network.reasons[B]
        network.join(B, origin.run_stream)
        await until(lambda: origin.twins.known == {B: A})
        await trio.sleep(10)
        assert set(pop.sessions) == origin.sessions == {A}
        assert network.irs.seat.leads
        assert network.irs.seat.claim.activations == 1
        network.join(A, pop.run_stream)  # A newer session of the same address is let in.
        await until(lambda: network.reasons.get(f"irs of {A}") == "replaced by a newer session")
        first.cancel()
        await trio.sleep(1)
        assert network.irs.seat.leads
        nursery.cancel_scope.cancel()


@pytest.mark.e2e
async def test_two_names_of_one_irs_do_not_replace_each_other_for_ever() -> None:
    irs = IrsService(
        IrsConfig(listen="127.0.0.1:0", warmup_s=0.0),
        entropy=entropy_from(3),
        now_unix=lambda: NOW_UNIX,
    )
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            address: str = await nursery.start(irs.run)
            other = address.replace("127.0.0.1", "localhost")
            config = IrsClientConfig(addresses=(address, other), reconnect_s_max=0.1)
            pop = PopClient(config, PopView("p"))
            hello = OriginHello(origin="o", incarnation=1, address="127.0.0.1:9")
            origin = OriginClient(config, hello, Origin("o").report)
            await nursery.start(pop.run)
            await nursery.start(origin.run)
            await until(lambda: bool(pop.twins.known and origin.twins.known))
            await trio.sleep(1.0)
            assert len(pop.sessions) == len(origin.sessions) == 1
            assert irs.seat.leads
            assert pop.twins.faults()
            nursery.cancel_scope.cancel()
    ended = [line for line in logs if line["event"] == "irs session ended" and "who" in line]
    assert len([line for line in ended if "is the same irs" in str(line["reason"])]) == 2
    assert not [line for line in ended if "replaced" in str(line["reason"])]
