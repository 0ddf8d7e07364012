"""What a PoP gives for `edged rules snapshot`."""

from edged.policy.rules_snapshot import PopTaken, StreamTaken, take_pop
from edged.roles.pop import PopRole


def take_snapshot(pop: PopRole, now: float, unix: float) -> PopTaken:
    """One PoP with its live streams; raises EdgedError if it has no table yet."""
    placing = pop.uplinks.placing
    streams = [
        StreamTaken(
            request=placement.request,
            origin=placement.decision.origin,
            matched=placement.decision.matched,
            for_s=max(0.0, now - placement.placed_at),
        )
        for placement in placing.placements.values()
    ]
    return take_pop(pop.view, streams, placing.tags.learnt, shard=pop.shard, now=now, unix=unix)
