import socket

import pytest
import trio
from structlog.testing import capture_logs

from edged.backbone.probe_answers import READS_PER_TURN_MAX
from edged.runtime.datagrams import receive
from edged.wire.backbone.messages import FEATURES
from edged.wire.probe import ProbeAsker, ProbeKey
from tests.backbone.network import Origin, Pop, until

pytestmark = pytest.mark.e2e


async def test_each_control_session_gets_a_key_of_its_own_and_loses_it() -> None:
    origin, one, other = Origin(), Pop("fra1"), Pop("fra2")
    async with origin.serving() as server, one.linked(origin):
        async with other.linked(origin):
            await until(lambda: len(one.offers) == len(other.offers) == 1)
            first, second = one.offers[0][2], other.offers[0][2]
            assert first.port == second.port == int(origin.address.rpartition(":")[2])
            assert first.key_id != second.key_id
            assert first.key != second.key
            assert server.probes.statistics().keys == 2
        await until(lambda: server.probes.statistics().keys == 1)


async def test_a_pop_that_does_not_know_probes_is_not_offered_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = tuple(feature for feature in FEATURES if feature != "probes")
    monkeypatch.setattr("edged.backbone.local_end.FEATURES", old)
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin):
        await until(lambda: len(pop.reports) >= 2)
        assert pop.offers == []
        assert server.probes.statistics().keys == 0


async def test_a_port_that_is_taken_is_said_and_streams_go_on() -> None:
    origin, pop = Origin(), Pop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        origin.probe_port = taken.getsockname()[1]
        with capture_logs() as logs:
            async with origin.serving(), pop.linked(origin):
                await until(lambda: len(pop.reports) >= 2)
                assert pop.offers == []
    lines = [line for line in logs if line["event"] == "probes are not answered"]
    assert [line["reason"] for line in lines] == [
        f"cannot bind UDP 127.0.0.1:{origin.probe_port}: Address already in use"
    ]


async def test_a_port_of_its_own_is_told() -> None:
    origin, pop = Origin(), Pop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        origin.probe_port = free.getsockname()[1]
    async with origin.serving(), pop.linked(origin):
        await until(lambda: len(pop.offers) == 1)
        assert pop.offers[0][2].port == origin.probe_port


async def test_garbage_and_replays_are_not_answered_and_probes_between_them_are() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin):
        await until(lambda: len(pop.offers) == 1)
        offer = pop.offers[0][2]
        asker = ProbeAsker(ProbeKey(offer.key_id, offer.key))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", offer.port))
            question = asker.ask(trio.current_time())
            sock.send(question)
            await until(lambda: server.probes.statistics().answered == 1)
            for _ in range(READS_PER_TURN_MAX):  # Three turns, and less than the kernel keeps.
                sock.send(question)
                sock.send(b"x" * 64)
                sock.send(b"")
            sock.send(asker.ask(trio.current_time()))
            await until(lambda: server.probes.statistics().answered == 2)
            answers = 0
            while (datagram := receive(sock)) is not None:
                assert asker.receive_datagram(datagram.data, trio.current_time()) is not None
                answers += 1
            assert answers == 2
        assert server.probes.statistics().ignored == 3 * READS_PER_TURN_MAX
