"""What IRS shows of reach: what is planned, and what PoPs do of it; for people and the page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from edged.media.reach import Audience
from edged.policy.network_sample import Pair, Row

if TYPE_CHECKING:
    from edged.policy.reach_plan import ChannelReach, ReachPlan

HOLDS = "hold"  # What a PoP is ordered; no PoP shard is called so.


class ReachSeen(Struct, frozen=True, kw_only=True):
    """One channel, for people."""

    channel: str
    origin: str
    viewers: int
    covered: int
    replicas: list[str]
    via: dict[str, str]
    rungs: dict[str, int]  # Viewers of each, at all PoPs.
    mbps: dict[str, float] = {}  # By replica: what it holds that nobody watches there.
    holds: dict[str, list[str]] = {}  # By PoP shard: the rungs that are pushed to it; []: all.
    origin_ms: dict[str, float] = {}  # By PoP shard: how far its origin is.


class ReachAnswer(Struct, frozen=True, kw_only=True):
    """What is planned: `edged reach` where IRS runs."""

    enabled: bool
    planned_s_ago: float | None  # None: nothing is planned yet.
    waiting_for: list[str]  # PoP shards that have not told what is watched there.
    channels: int
    replicas: int
    relayed: int
    hold_mbps: float = 0.0  # What replicas hold that nobody watches there.
    moves_waiting: int = 0  # Replicas that are to end, beyond moves_max.
    seen: list[ReachSeen]  # Those with the most viewers.


class PopWay(Struct, frozen=True, kw_only=True):
    """How one PoP shard has a channel: `edged live CHANNEL`."""

    pop: str
    viewers: int
    here: bool  # It comes there now,
    held: bool  # by order, watched or not;
    via: str  # from this PoP, or ("") from its origin.
    ordered: str  # HOLDS, the PoP that it is to come from, or "": nothing is planned.
    rungs: list[str]  # That are pushed by order; []: all.
    via_ms: float | None  # Round trips to that PoP, and to the origin, where they are known.
    origin_ms: float | None


class Told:
    """A PoP shard, as it told last."""

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self.rows = {row.channel: row for row in audience.rows}
        self.left_at: float | None = None
        self.origin_ms: Mapping[str, float] = {}  # When it was planned for last.


def find_ways(
    channel: str, told: Mapping[str, Told], plan: "ChannelReach | None", origin: str
) -> list[PopWay]:
    """How each PoP shard has a channel, or is to have it; who holds it first."""
    found = list[PopWay]()
    for key, known in told.items():
        row = known.rows.get(channel)
        ordered = "" if plan is None else plan.via.get(key, "")
        if plan is not None and key in plan.replicas:
            ordered = HOLDS
        if row is None and not ordered:
            continue
        via = "" if row is None else row.via
        found.append(
            PopWay(
                pop=key,
                viewers=0 if row is None else row.viewers,
                here=row is not None,
                held=row is not None and row.held,
                via=via,
                ordered=ordered,
                rungs=[] if plan is None else list(plan.rungs.get(key, ())),
                via_ms=_between_ms(told, key, via or ordered),
                origin_ms=_rounded(known.origin_ms.get(origin)),
            )
        )
    return sorted(found, key=lambda way: (not way.held, bool(way.via), -way.viewers, way.pop))


def count_reach(
    told: Mapping[str, Told], plan: "ReachPlan | None"
) -> tuple[dict[str, Row], dict[Pair, int]]:
    """Of each PoP a row (`REACH_ROW`), all its shards together; channels from PoP to PoP."""
    hold_mbps: dict[str, float] = {}
    for reach in () if plan is None else plan.channels.values():
        for key, mbps in reach.mbps.items():
            hold_mbps[key] = hold_mbps.get(key, 0.0) + mbps
    rows: dict[str, list[float]] = {}
    relays: dict[Pair, int] = {}
    for key, known in told.items():
        name, held, relayed = key.partition("/")[0], 0, 0
        for row in known.rows.values():
            held += row.held
            if row.via:
                relayed += 1
                pair = (row.via.partition("/")[0], name)
                relays[pair] = relays.get(pair, 0) + 1
        mbps = hold_mbps.get(key, 0.0)
        if held or relayed or mbps:
            whole = rows.setdefault(name, [0, 0, 0.0])
            for place, count in enumerate((held, relayed, mbps)):
                whole[place] += count
    return {name: tuple(round(each) for each in row) for name, row in rows.items()}, relays


def _between_ms(told: Mapping[str, Told], one: str, other: str) -> float | None:
    """The round trip between PoP shards, as either has measured it."""
    known = [
        told[here].audience.peers[there]
        for here, there in ((one, other), (other, one))
        if here in told and there in told[here].audience.peers
    ]
    return _rounded(min(known, default=None))


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 1)
