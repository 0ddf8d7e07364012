"""Relays under TLS: a viewer behind one gets everything, and who has no right certificate nothing.

Two PoPs are processes of their own, with certificates that `edged cert` has made; the third is in
this process, so that the test can say what it is ordered.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from edged.media.reach import Reach, ReachOrder
from edged.roles.pop import PopRole
from tests.conftest import require
from tests.e2e.clip import check_same, make_clip, publish_ffmpeg, read_packets
from tests.e2e.network import run_edged, wait_until
from tests.e2e.pair import Pair, open_pair
from tests.e2e.test_relay_dies import third_pop
from tests.e2e.viewer import Viewer

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(120)]

CLIP_S = 12
STALL_S_MAX = 2.0
RELAY = "lon1/0"
REACH = '[pop.reach]\nlisten = "127.0.0.1:0"\n'


@asynccontextmanager
async def secure_pop(pair: Pair, folder: Path) -> AsyncIterator[tuple[PopRole, str]]:
    """A PoP with a certificate of the same CA; and where its viewers go."""
    await run_edged(pair.folder, "cert", "host", "pop", "sin1")
    certs = pair.folder / "certs"
    names = {"ca": "ca.pem", "certificate": "pop-sin1.pem", "key": "pop-sin1.key"}
    tls = {what: str(certs / name) for what, name in names.items()}
    async with third_pop(pair, folder, tls) as made:
        yield made


def order(pop: PopRole, relay: str, address: str) -> None:
    """Take the channel from there."""
    orders = (ReachOrder("one", via=relay),)
    pop.reaching.ordered(Reach(epoch=1, number=1, ttl_s=60, orders=orders, relays={relay: address}))


@pytest.mark.parametrize("named", [RELAY, "par1/0"], ids=["right", "wrong"])
async def test_a_viewer_behind_a_relay_under_tls(named: str, tmp_path: Path) -> None:
    """What is at lon1's address has lon1's certificate: it is not par1, and is told nothing."""
    require("ffmpeg")
    clip = make_clip(seconds=CLIP_S)
    async with (
        open_pair(origins=("fra1",), pops=("ams1", "lon1"), pop_tables=REACH, secure=True) as pair,
        secure_pop(pair, tmp_path) as (pop, address),
        trio.open_nursery() as nursery,
    ):
        started = await pair.pops["lon1"].wait_log("role started")
        nursery.start_soon(publish_ffmpeg, clip, pair.publish_url())
        there, viewer = Viewer(pair.playback("lon1"), "one"), Viewer(address, "one")
        await there.join()
        nursery.start_soon(lambda: there.watch(join=False))
        await viewer.join()
        nursery.start_soon(lambda: viewer.watch(join=False))
        order(pop, named, str(started["relay"]))
        parts = pop.uplinks.parts
        if named == RELAY:
            await wait_until(lambda: parts.sources("one") == (RELAY,), 8)
            link = pop.relaying.links.get(RELAY)
            assert link is not None
            secure = [session.connection.ssl is not None for session in link.sessions.values()]
            assert secure
            assert all(secure)
        else:
            words = "peer is pop/lon1, we wanted par1"
            await wait_until(lambda: words in why(pop), 8)
            assert why(pop).startswith("the way there is not up: ")
            await trio.sleep(2)
            assert parts.sources("one") == ("fra1",)
            assert pop.relaying.links.peers() == {}
        await wait_until(lambda: all(track.ended for track in viewer.tracks.values()), CLIP_S + 10)
        for track in viewer.tracks.values():
            track.check_flow(STALL_S_MAX)
            uris = [arrival.uri for arrival in track.arrivals]
            assert len(set(uris)) == len(uris)
        check_same(read_packets(clip), viewer.packets())
        assert parts.handovers == (1 if named == RELAY else 0)
        nursery.cancel_scope.cancel()


def why(pop: PopRole) -> str:
    """Why the channel does not come from where it is ordered to."""
    return next((seen.why for seen in pop.reaching.seen().sources), "")


async def test_a_relay_of_another_ca_is_refused_and_the_channel_stays_at_its_origin(
    tmp_path: Path,
) -> None:
    """What is at the address has a certificate of its own CA, which is not ours."""
    require("ffmpeg")
    clip = make_clip(seconds=CLIP_S)
    async with (
        open_pair(origins=("fra1",), pops=("ams1",), pop_tables=REACH, secure=True) as pair,
        open_pair(origins=("fra1",), pops=("lon1",), pop_tables=REACH, secure=True) as other,
        secure_pop(pair, tmp_path) as (pop, address),
        trio.open_nursery() as nursery,
    ):
        stranger = await other.pops["lon1"].wait_log("role started")
        nursery.start_soon(publish_ffmpeg, clip, pair.publish_url())
        viewer = Viewer(address, "one")
        await viewer.join()
        nursery.start_soon(lambda: viewer.watch(join=False))
        order(pop, RELAY, str(stranger["relay"]))
        await wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in why(pop), 8)
        assert pop.uplinks.parts.sources("one") == ("fra1",)
        await wait_until(lambda: all(track.ended for track in viewer.tracks.values()), CLIP_S + 10)
        for track in viewer.tracks.values():
            track.check_flow(STALL_S_MAX)
        check_same(read_packets(clip), viewer.packets())
        assert pop.uplinks.parts.handovers == 0
        nursery.cancel_scope.cancel()
