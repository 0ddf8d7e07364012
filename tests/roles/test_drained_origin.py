"""An origin is drained under live streams, all in this process: what viewers at another PoP get."""

from functools import partial
from pathlib import Path

import pytest
import trio

from edged.media.routing import OriginState
from edged.roles import moves as moves_module
from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.pop import PopRole
from tests.backbone.network import free_address, until
from tests.e2e.viewer import Viewer
from tests.ingest.rtmp_peer import Encoder, admitted
from tests.roles.network import KEY, Network, configure, raw_network, running
from tests.wire.rtmp.peers import AAC, H264, h264_unit, unit

pytestmark = pytest.mark.e2e

FPS = 30
LINGER_S = 2.5  # Instead of 7: long enough for a segment of 1 s to end.


async def publish(peer: Encoder, seconds: float, begun: trio.Event) -> None:
    """As an encoder does, in time: H.264 with a key frame each second, and AAC."""
    peer.session.send_metadata({"framerate": float(FPS)})
    peer.session.send_track(H264)
    peer.session.send_track(AAC)
    began, sound = trio.current_time(), 0
    for frame in range(int(seconds * FPS)):
        key = frame % FPS == 0
        peer.session.send_unit(h264_unit(frame * 90_000 // FPS, key=key), H264)
        while sound / 48_000 < (frame + 1) / FPS:
            peer.session.send_unit(unit(AAC, sound, b"sound of %08d" % sound), AAC)
            sound += 1024
        await peer.flush()
        begun.set()
        await trio.sleep_until(began + (frame + 1) / FPS)
    peer.session.close()
    await peer.flush()


def role_of(network: Network, kind: type, name: str) -> object:
    return next(
        role
        for role in network.process.roles
        if isinstance(role, kind) and role.name.endswith(name)
    )


def configs_of(folder: Path) -> list[dict[str, object]]:
    irs, origin, *pops = raw_network(folder, pops=("west", "east"))
    packager = {"segment_s": 1.0, "target_duration_s": 2, "part_ms": 200}
    common = {key: value for key, value in origin.items() if key != "origin"}
    origins: list[dict[str, object]] = [
        {"origin": {"name": name, "listen": free_address(), "packager": packager}, **common}
        for name in ("fra1", "fra2")
    ]
    return [irs, *origins, *pops]


async def test_viewers_elsewhere_get_every_part_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves_module, "LINGER_S", LINGER_S)
    async with running(*map(configure, configs_of(tmp_path))) as network:
        irs = role_of(network, IrsRole, "irs")
        west = role_of(network, PopRole, "west")
        assert isinstance(irs, IrsRole)
        assert isinstance(west, PopRole)
        moving, collectors = irs.service.moving, irs.service.collectors
        await until(lambda: len(west.view.by_name) == 2)
        await until(lambda: not any(each.blocked for each in west.view.ranked))
        viewer = Viewer(f"http://{network.addresses['pop east']['http']}", "alice")
        async with admitted(network.rtmp(), KEY) as peer, trio.open_nursery() as nursery:
            begun = trio.Event()
            nursery.start_soon(partial(publish, peer, 9.0, begun))
            nursery.start_soon(viewer.watch)
            await begun.wait()
            placement = west.uplinks.placements["alice"]
            drained = placement.decision.origin
            await until(lambda: placement.forwarding.splice)
            seen = moving.drain(drained, deadline_s=5.0, known=collectors.capacitor.origins)
            assert seen.seconds_left == 5.0
            await until(lambda: placement.decision.origin != drained)
            assert collectors.state(drained) is OriginState.DRAIN
            await until(lambda: moving.drain_seen(drained).moved == 1)
            old = role_of(network, OriginRole, drained)
            assert isinstance(old, OriginRole)
            assert len(old.hub) == 1, "it goes on for those who have not gone over yet"
            await until(lambda: not len(old.hub))
            await until(lambda: moving.drain_seen(drained).left == 0)
        assert placement.stream.stream_id.home_epoch == 2
        for track in viewer.tracks.values():
            track.check_flow(stall_s_max=1.0)
            names = [arrival.uri for arrival in track.arrivals]
            assert len(set(names)) == len(names)
            seconds = sum(arrival.duration_us for arrival in track.arrivals) / 1e6
            assert seconds == pytest.approx(9.0, abs=0.1)
        east = role_of(network, PopRole, "east")
        assert isinstance(east, PopRole)
        parts = east.uplinks.parts
        assert (parts.handovers, parts.handovers_forced) == (1, 0)
        assert east.hls.statistics().parts_missing_total == 0
