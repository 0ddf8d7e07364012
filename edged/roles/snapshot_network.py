"""How a process sees the network: its PoPs with their links and origins, its origins, its IRS."""

import math
from collections import Counter

from edged.irs.client import OriginClient, PopClient
from edged.media.stream import PriorityClass
from edged.policy.pop_view import Candidate, PopView
from edged.policy.route_words import explain_choice
from edged.policy.routing_table import price_of
from edged.roles.irs import IrsRole
from edged.roles.origin import OriginRole
from edged.roles.placement import Placement
from edged.roles.pop import PopRole
from edged.roles.sampler import RoleSamples, peer_key
from edged.roles.snapshot_irs import (
    describe_live,
    describe_seat,
    describe_sessions,
    granted_epoch,
)
from edged.roles.status import (
    DrainedSeen,
    IrsLinkSeen,
    IrsOriginSeen,
    IrsPopSeen,
    IrsSeen,
    LadderSlotsSeen,
    LinkSeen,
    OriginHere,
    OriginSeen,
    PeerSeen,
    PopSeen,
    RouteSeen,
)
from edged.roles.uplinks import SESSIONS


def describe_pop(pop: PopRole, samples: RoleSamples, now: float, unix: float) -> PopSeen:
    """A PoP with its links and the origins as it sees them."""
    view, table = pop.view, pop.view.table
    http = pop.http.statistics()
    watched = pop.hls.watched()
    return PopSeen(
        pop=view.pop,
        role=pop.name,
        publishers=len(pop.hub),
        accepted_total=pop.door.accepted_total,
        refused_total=pop.door.refused_total,
        viewers=sum(map(pop.viewers, watched)),
        viewer_connections=http.connections,
        channels_watched=len(watched),
        in_bps=round(samples.in_bps),
        out_bps=round(samples.out_bps),
        table=None if table is None else table.stamp,
        table_age_s=None if table is None else round(max(0.0, unix - table.issued), 1),
        lease_left_s=round(max(0.0, view.lease_until - now), 1) if table is not None else 0.0,
        irs=describe_irs_link(pop.irs, now, samples),
        links=describe_links(pop, samples),
        origins=describe_origins(view),
    )


def describe_irs_link(
    client: PopClient | OriginClient | None, now: float, samples: RoleSamples
) -> IrsLinkSeen:
    """Whether IRS is there, and since when."""
    changed_at = None if client is None else client.changed_at
    since = samples.started_at if changed_at is None else changed_at
    connected = client is not None and bool(client.sessions)
    return IrsLinkSeen(
        connected=connected,
        for_s=round(max(0.0, now - since), 1),
        sessions=describe_sessions(client, now),
        epoch=granted_epoch(client, now),
    )


def describe_links(pop: PopRole, samples: RoleSamples) -> list[LinkSeen]:
    """A PoP's links to origins, by name."""
    links = []
    for link in sorted(pop.links(), key=lambda each: each.origin):
        in_bps, out_bps = samples.link_bps(link.origin)
        rtt_s = None if link.control is None else link.control.rtt_s
        links.append(
            LinkSeen(
                origin=link.origin,
                address=link.address,
                sessions=link.up,
                sessions_wanted=len(SESSIONS),
                down=pop.view.link_state(link.origin),
                rtt_ms=None if rtt_s is None else round(1000 * rtt_s, 2),
                forwardings=link.forwardings,
                subscriptions=link.subscriptions,
                out_bps=round(out_bps),
                in_bps=round(in_bps),
                units_skipped=link.units_skipped,
                reconnects=link.reconnects,
            )
        )
    return links


def describe_origins(view: PopView) -> list[OriginSeen]:
    """The origins of a PoP's table, nearest first."""
    return [_describe_candidate(each, view, rank) for rank, each in enumerate(view.ranked, 1)]


def _describe_candidate(candidate: Candidate, view: PopView, nearness: int) -> OriginSeen:
    heard = view.capacitor.state(candidate.origin)
    report = view.capacitor.report(candidate.origin)
    return OriginSeen(
        origin=candidate.origin,
        address=candidate.address,
        state=(heard or candidate.row.state).value,
        blocked=candidate.blocked,
        table_state=candidate.row.state.value,
        heartbeat_state=None if heard is None else heard.value,
        slots_total=None if report is None else report.slots_total,
        slots_free=None if report is None else report.slots_free[PriorityClass.PARTNER],
        quota=candidate.row.quota,
        used=candidate.used,
        price_ms=round(price_of(candidate, view), 2),
        rtt_ms=None if math.isinf(candidate.rtt_ms) else round(candidate.rtt_ms, 2),
        domain=candidate.row.domain,
        nearness=nearness,
    )


def describe_route(pop: str, placement: Placement, now: float) -> RouteSeen:
    """Where a stream went, and why."""
    decision, forwarding = placement.decision, placement.forwarding.statistics()
    return RouteSeen(
        pop=pop,
        origin=decision.origin,
        address=decision.address,
        rule=decision.rule,
        matched=decision.matched,
        table_version=decision.table_version,
        why=explain_choice(
            decision.origin,
            decision.rule,
            decision.matched,
            decision.alternatives,
            decision.note,
        ),
        passed=decision.alternatives,
        state=forwarding.state,
        accepted=placement.accepted,
        for_s=round(max(0.0, now - placement.placed_at), 1),
        lag_units=forwarding.lag_units,
        units_skipped=forwarding.units_skipped,
        received_seq=forwarding.received_seq,
        packaged_seq=forwarding.packaged_seq,
    )


def describe_origin(role: OriginRole, samples: RoleSamples, now: float) -> OriginHere:
    """An origin with the PoPs that are connected to it."""
    packaged, report = role.service.statistics(), role.report()
    senders = [each.session.peer for each in role.server.streams if each.session is not None]
    streams = Counter((sender.name, sender.shard) for sender in senders)
    pops = []
    for (name, shard), peer in sorted(role.peers().items()):
        in_bps, out_bps = samples.link_bps(peer_key(name, shard))
        pops.append(
            PeerSeen(
                pop=peer_key(name, shard) if shard else name,
                sessions=peer.sessions,
                streams=streams[name, shard],
                in_bps=round(in_bps),
                out_bps=round(out_bps),
            )
        )
    return OriginHere(
        origin=report.origin,
        role=role.name,
        state=report.state.value,
        slots_total=packaged.slots_total,
        slots_used=packaged.slots_used,
        streams=packaged.streams,
        parts_total=packaged.parts_total,
        window_bytes=packaged.window_bytes,
        irs=describe_irs_link(role.irs, now, samples),
        pops=pops,
        ladders=_describe_ladders(role),
    )


def _describe_ladders(role: OriginRole) -> LadderSlotsSeen | None:
    ladders = role.service.ladders
    if ladders is None:
        return None
    counts = ladders.counts()
    return LadderSlotsSeen(
        total=counts.total,
        used=counts.used,
        made=counts.holding,
        waiting=counts.waiting,
        preempted=counts.preempted,
        text=ladders.capacity_text,
    )


def describe_irs(role: IrsRole) -> IrsSeen:
    """An IRS, and what it sees of PoPs and origins."""
    service = role.service
    status, live = service.status(), service.live.registry.counts()
    return IrsSeen(
        role=role.name,
        epoch=status.epoch,
        version=status.version,
        plans=service.planner.plans,
        nacks=service.nacks,
        push_delay_ms=round(1000 * service.push_delay_s, 2),
        pops=[
            IrsPopSeen(
                pop=pop.pop,
                connected=pop.connected,
                arrivals_per_s=round(pop.arrivals_per_s, 2),
                streams={origin: sum(units) for origin, units in pop.told.units.items()},
                rtt_ms={
                    origin: round(probe.rtt_ms, 2) for origin, probe in pop.told.probes.items()
                },
                acked=status.acked.get(pop.pop),
                grants=service.seat.grants_us(pop.pop),
                live=live.get(pop.pop),
            )
            for pop in status.pops
        ],
        origins=[
            IrsOriginSeen(
                origin=origin.origin,
                address=origin.address,
                connected=origin.connected,
                state=origin.state.value,
                slots_total=origin.report.slots_total,
                slots_free=origin.report.slots_free[PriorityClass.PARTNER],
            )
            for origin in status.origins
        ],
        drained=[
            DrainedSeen(origin=seen.origin, left=seen.left, seconds_left=seen.seconds_left)
            for seen in service.moving.drains_seen()
        ],
        links=service.links.status(),
        standing=service.seat.claim.standing.value,
        seat=describe_seat(service),
        live=describe_live(service),
    )
