"""A PoP with many live streams, without sockets: for what looks at all of them."""

import trio

from edged.backbone.forwarding import Forwarding
from edged.media.routing import OriginRow, OriginState, RouteRequest, RoutingTable, Rule
from edged.media.stream import Grant, StreamId
from edged.policy.routing_table import Decision
from edged.roles.placement import Placement
from edged.roles.pop import PopRole
from edged.runtime.hub import LiveStream
from edged.runtime.metrics import Metrics
from tests.policy.synthetic import (
    RATES,
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)
from tests.roles.network import configure

RULES = (Rule(name="the final", prefer=("fra2",)),)


def make_pop(name: str = "west") -> PopRole:
    """A PoP's role that has a table with two origins and is not run."""
    raw: dict[str, object] = {
        "pop": {"name": name},
        "irs_client": {"addresses": ["127.0.0.1:1"]},
        "ingest": {"rtmp": {"listen": "127.0.0.1:0"}},
        "playback": {"listen": "127.0.0.1:0"},
    }
    pop = PopRole(configure(raw), Metrics())
    table = RoutingTable(
        epoch=7,
        version=42,
        issued=1000.0,
        ttl_s=30.0,
        lease_ttl_s=10.0,
        rows=(
            OriginRow("fra1", "192.0.2.1:7410", OriginState.UP, 20),
            OriginRow("fra2", "192.0.2.2:7410", OriginState.DRAIN, 20, domain="rack 2"),
        ),
        rules=RULES,
    )
    pop.view.accept_table(table, trio.current_time())
    return pop


def add_stream(
    pop: PopRole, channel: str, *, title: str = "", seconds: float = 0.0, matched: str = ""
) -> LiveStream:
    """A publication that goes to fra1; with so much of sound and picture, if any."""
    stream = pop.hub.open(
        StreamId(channel, 0xABC, 2),
        Grant(channel=channel, title=title),
        started_at=trio.current_time(),
        came_from="rtmp 198.51.100.7:50112",
    )
    stream.set_track(video_track(RATES["30"]))
    stream.set_track(audio_track())
    if seconds:
        send(stream, seconds)
    decision = Decision(
        "fra1", "192.0.2.1:7410", "nearest", 42, {"fra2": "masked in the table: drain"}, matched
    )
    request = RouteRequest(channel=channel)
    pop.uplinks.placements[channel] = Placement(
        stream,
        request,
        decision,
        Forwarding(stream, stream.stream_id, "fra1"),
        lambda error: None,
        renumbered=0,
        joins=False,
        placed_at=trio.current_time(),
    )
    pop.uplinks.placing.placed_by[matched] += 1
    return stream


def send(stream: LiveStream, seconds: float, *, payload_bytes: int = 10_000) -> None:
    """More of a stream, as if it went on from where it was."""
    units = in_order(
        (90_000, video_units(video_times(RATES["30"], seconds), 2, payload_bytes=payload_bytes)),
        (48_000, audio_units(seconds)),
    )
    start = stream.ring.next_seq
    for unit in units:
        unit.seq += start
    stream.append(units)
