"""Snapshots of made-up networks, for the replay of rules."""

from collections.abc import Mapping, Sequence

from edged.media.routing import (
    OriginReport,
    OriginRow,
    OriginState,
    ReportedState,
    RouteRequest,
    RoutingTable,
    Rule,
)
from edged.media.stream import PriorityClass
from edged.policy.pop_view import PopView
from edged.policy.rules_snapshot import PopTaken, StreamTaken, take_pop

PARTNER, AFFILIATE, BASIC = PriorityClass


def stream(
    channel: str,
    origin: str,
    *,
    priority: PriorityClass = BASIC,
    tags: tuple[str, ...] = (),
    for_s: float = 0.0,
) -> StreamTaken:
    request = RouteRequest(channel=channel, priority=priority, tags=tags, protocol="rtmp")
    return StreamTaken(request=request, origin=origin, for_s=for_s)


def take(  # noqa: PLR0913 -- a network in one line, each key named by the caller
    streams: Sequence[StreamTaken],
    rtts_ms: Mapping[str, float],
    *,
    pop: str = "ams1",
    shard: int = 0,
    at: float = 1000.0,
    free: Mapping[str, int] | None = None,
    quota: int | None = None,
    rules: tuple[Rule, ...] = (),
    lease_s: float = 10.0,
    source_only: int = 0,
    elsewhere: Mapping[str, tuple[str, tuple[str, ...]]] | None = None,
) -> PopTaken:
    """A PoP with these streams; `quota` beyond what it has, default: as much as is free."""
    room = dict.fromkeys(rtts_ms, 10) if free is None else free
    view = PopView(pop)
    used = {name: sum(each.origin == name for each in streams) for name in rtts_ms}
    rows = tuple(
        OriginRow(
            name,
            f"{name}:1",
            OriginState.UP,
            used[name] + (room[name] if quota is None else quota),
        )
        for name in sorted(rtts_ms)
    )
    table = RoutingTable(
        epoch=1, version=7, issued=at, ttl_s=30.0, lease_ttl_s=lease_s, rows=rows, rules=rules
    )
    view.accept_table(table, 0.0)
    for name, rtt_ms in rtts_ms.items():
        view.set_link(name, up=True, now=0.0)
        view.observe_rtt(name, rtt_ms)
        left = room[name]
        report = OriginReport(
            name,
            1,
            ReportedState.UP,
            100,
            (left, left, left),
            source_only_free=source_only,
            preemptible=(1, 1, 0),
        )
        view.heartbeat(report, 0.0)
    for each in streams:
        view.placed(each.origin, each.request)
    return take_pop(view, streams, elsewhere or {}, shard=shard, now=0.0, unix=at)
