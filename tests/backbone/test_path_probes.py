import contextlib
import math
import socket
from collections.abc import AsyncIterator

import pytest
import trio
from structlog.testing import capture_logs

from edged.backbone import path_probes
from edged.backbone.path_probes import LATE_S_MAX, Carried, PathProbes
from edged.backbone.probe_answers import ProbeAnswers
from edged.backbone.sender import OriginLink
from edged.media.routing import PathProbe
from edged.policy import path_meter
from edged.wire.backbone.messages import ProbesOffered
from tests.backbone.network import Origin, Pop, append, until

pytestmark = pytest.mark.e2e


class Told:
    """What `PathProbes` told last, of each origin."""

    def __init__(self) -> None:
        self.paths: dict[str, PathProbe] = {}
        self.carried: dict[str, Carried] = {}
        self.times = 0

    def __call__(self, origin: str, path: PathProbe, carried: Carried) -> None:
        self.paths[origin], self.carried[origin] = path, carried
        self.times += 1


@contextlib.asynccontextmanager
async def probing(pop: Pop, link: OriginLink, told: Told) -> AsyncIterator[PathProbes]:
    """Probe as a PoP's role does."""
    paths = PathProbes(trio.current_time, told)
    paths.add(link)
    if pop.offers:
        paths.offered(*pop.offers[-1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(paths.run)
        yield paths
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "[::]:0"])
async def test_a_path_is_probed_over_udp(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real sockets of both families; one that is bound to all addresses answers as it was asked."""
    monkeypatch.setattr("edged.backbone.receiver.check_plain", lambda *_: None)
    origin, pop, told = Origin(), Pop(), Told()
    origin.address = address
    async with origin.serving() as server:
        origin.address = origin.address.replace("[::]", "127.0.0.1")
        async with pop.linked(origin) as link:
            await until(lambda: len(pop.offers) == 1)
            async with probing(pop, link, told):
                await until(lambda: told.times >= 6)
                path = told.paths["ams"]
                assert path.probed
                assert 0 < path.rtt_ms < 50
                assert (path.loss, path.silent_s, path.limited) == (0.0, 0.0, False)
            statistics = server.probes.statistics()
            assert statistics.keys == 1
            assert statistics.answered >= 5
            assert (statistics.ignored, statistics.limited) == (0, 0)
        await until(lambda: server.probes.statistics().keys == 0)


async def test_without_answers_tcp_tells_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(path_meter, "FILTERED_S", 0.5)
    monkeypatch.setattr(path_probes, "TICKS_PER_SAMPLE", 1)
    answering = ProbeAnswers._answer
    monkeypatch.setattr(ProbeAnswers, "_answer", lambda _, sock: sock.recv(2048))
    origin, pop, told = Origin(), Pop(), Told()
    with capture_logs() as logs:
        async with origin.serving(), pop.linked(origin) as link:
            await until(lambda: len(pop.offers) == 1)
            async with probing(pop, link, told):
                await until(lambda: any(line["log_level"] == "warning" for line in logs))
                seen = told.times
                await until(lambda: told.times >= seen + 3)
                path = told.paths["ams"]
                assert (path.probed, path.loss, path.jitter_ms) == (False, 0.0, 0.0)
                assert 0 < path.rtt_ms < 50
                assert path.silent_s < 0.5
                monkeypatch.setattr(ProbeAnswers, "_answer", answering)
                await until(lambda: told.paths["ams"].probed)
    events = [line["event"] for line in logs if "probes" in line["event"]]
    assert events == [
        "probes do not come back; TCP alone tells of the path",
        "probes come back",
    ]


async def test_an_origin_that_answers_no_probes_is_measured_by_tcp() -> None:
    origin, pop, told = Origin(), Pop(), Told()
    origin.probe_port = 0
    with capture_logs() as logs:
        async with origin.serving(), pop.linked(origin) as link:
            async with probing(pop, link, told):
                await until(lambda: told.times >= 1)
                assert not told.paths["ams"].probed
                assert 0 < told.paths["ams"].rtt_ms < 50
            assert pop.offers == []
    assert [line for line in logs if "probes" in line["event"]] == []


async def test_what_is_carried_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    origin, pop, told = Origin(), Pop(), Told()
    async with origin.serving(), pop.linked(origin) as link, probing(pop, link, told):
        stream = pop.publish()
        link.forward(stream)
        append(stream, 100, size=20_000)  # 16 Mbit.
        await until(lambda: len(origin.units("alice")) >= 100)
        await until(lambda: told.carried.get("ams", (0.0, 0.0))[0] > 1)
        assert told.paths["ams"].goodput_mbps > 0
        to, back = told.carried["ams"]
        assert to < 17
        assert back < 1


async def test_a_path_that_is_gone_grows_silent_but_not_for_a_pause_of_ours() -> None:
    origin, pop, told = Origin(), Pop(), Told()
    async with origin.serving() as server, pop.linked(origin) as link:
        await until(lambda: len(pop.offers) == 1)
        paths = PathProbes(trio.current_time, told)
        paths.add(link)
        paths.offered(*pop.offers[0])
        now = trio.current_time()
        paths.tick(now)
        await until(lambda: server.probes.statistics().answered)
        paths.tick(now + 60.0, late_s=LATE_S_MAX)
        assert told.times == 0
    # The origin is gone now, and nothing answers.
    for number in range(20):
        paths.tick(now + 60.2 + number / 5)
    assert told.paths["ams"].silent_s == pytest.approx(4.0, abs=0.3)
    assert math.isclose(told.paths["ams"].loss, 10 / 11, abs_tol=0.1)
    paths.remove("ams")
    before = told.times
    paths.tick(now + 100)
    assert told.times == before


async def test_an_offer_that_leads_nowhere_is_said_and_harms_nobody() -> None:
    origin, pop, told = Origin(), Pop(), Told()
    async with origin.serving(), pop.linked(origin) as link:
        paths = PathProbes(trio.current_time, told)
        offer = ProbesOffered(9, 1, bytes(32))
        with socket.socket() as unconnected, capture_logs() as logs:
            paths.offered("ams", unconnected, offer)  # Of an origin that has just left the table.
            assert logs == []
            paths.add(link)
            paths.offered("ams", unconnected, offer)
        assert [line["event"] for line in logs] == ["origin cannot be probed"]
        paths.tick(trio.current_time())
        paths.remove("ams")


async def test_a_tick_reads_so_many_datagrams_and_the_next_one_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(path_probes, "READS_PER_TICK_MAX", 3)
    origin, pop, told = Origin(), Pop(), Told()
    async with origin.serving(), pop.linked(origin) as link:
        await until(lambda: len(pop.offers) == 1)
        paths = PathProbes(trio.current_time, told)
        paths.add(link)
        paths.offered(*pop.offers[0])
        path = paths._paths["ams"]
        assert path.sock is not None
        assert path.asker is not None
        path.sock.close()
        path.sock, flood = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        path.sock.setblocking(False)
        with flood:
            for come, read in ((3, 3), (4, 6), (0, 7)):
                for _ in range(come):
                    flood.send(b"junk")
                paths.tick(trio.current_time())
                assert path.asker.ignored == read
            paths.remove("ams")
