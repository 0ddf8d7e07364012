"""What a plan of reach is made of, and what it says."""

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edged.media.reach import AudienceRow, ReachOrder
from edged.policy.reach_budget import PopLimits
from edged.policy.reach_rungs import ChannelRungs

Matrix = NDArray[np.float64]
IDLE_LOOKS = 3  # Without a viewer, until what is there for viewers goes.


class ReachPop(PopLimits, frozen=True, kw_only=True):
    """A PoP shard that takes orders; `holds_max` 0: it holds nothing, as one that drains."""

    pop: str
    relay: str = ""  # Where others subscribe; "": it relays nothing.
    origin_ms: Mapping[str, float] = {}  # Round trips to origins, as far as they are known.
    audience: Mapping[str, AudienceRow] = {}  # By channel.


class ChannelReach(Struct, frozen=True, kw_only=True):
    """What is planned for one channel."""

    channel: str
    origin: str
    viewers: int
    covered: float  # Viewers within near_ms of a replica.
    replicas: tuple[str, ...]
    via: dict[str, str] = {}  # PoP shard -> the replica that relays it there.
    rungs: dict[str, tuple[str, ...]] = {}  # By PoP shard: what it has pushed. (): all.
    mbps: dict[str, float] = {}  # By replica: what it holds and nobody watches there.
    via_mbps: dict[str, float] = {}  # By PoP of `via`: what is relayed to it.


class ReachPlan(Struct, frozen=True, kw_only=True):
    """What all PoPs are to do."""

    channels: dict[str, ChannelReach] = {}  # Those with replicas.
    orders: dict[str, tuple[ReachOrder, ...]] = {}  # By PoP shard, whoever has any.
    relays: dict[str, str] = {}  # Where those are that relay something: HOST:PORT.
    ended: int = 0  # Replicas that ended though their channel goes on and no limit said so.
    waiting: int = 0  # Replicas that have yet to end, as so many may in one plan.
    hold_mbps: float = 0.0  # What all of them cost.


class Rows(NamedTuple):
    """What PoPs, by number, tell of a channel."""

    places: list[int]
    rows: list[AudienceRow]


class Memory(NamedTuple):
    """What a plan knows of one channel for the next."""

    orders: list[tuple[str, ReachOrder]]  # By PoP.
    # In how many looks it was better to end a replica, by PoP, or all (""); or to take it from
    # elsewhere.
    streaks: dict[str, int]
    # By PoP and rung, or "" for all: for how many looks nobody has watched.
    idle: dict[tuple[str, str], int]
    # What it uses, by the numbers of PoPs: Mbps of replicas; of relays how often, and Mbps; and
    # PoPs that it is relayed to.
    held: Mapping[int, float] = MappingProxyType({})
    relays: Mapping[int, tuple[int, float]] = MappingProxyType({})
    relayed: tuple[int, ...] = ()


class Work:
    """One channel, as a plan comes to it."""

    def __init__(
        self,
        channel: str,
        origin: str,
        viewers: int,
        rows: Rows,
        *,
        before: ChannelReach | None,
        memory: Memory | None,
    ) -> None:
        self.channel, self.origin, self.viewers, self.rows = channel, origin, viewers, rows
        self.before = before
        self.replicas: list[int] = []
        self.held: list[int] = []  # Sets of rungs, of each replica.
        self.mbps: list[float] = []  # What each costs.
        self.covered = 0.0
        self.weights: Matrix | None = None  # While few channels are planned.
        self.streaks = {} if memory is None else memory.streaks
        self.streaks_now: dict[str, int] = {}
        self.idle = {} if memory is None else memory.idle
        self.idle_now: dict[tuple[str, str], int] = {}

    @cached_property
    def rungs(self) -> ChannelRungs:
        """Which rungs are watched where; made when its turn has come, not for all at once."""
        return ChannelRungs(self.rows.places, self.rows.rows)

    def with_idle(self, pop: str, mask: int) -> int:
        """A set with what was in the order before and was watched a few looks ago."""
        ordered = None if self.before is None else self.before.rungs.get(pop)
        gone = self.rungs.known_of(ordered) & ~mask if ordered else 0
        for rung in self.rungs.names(gone) if gone else ():
            idle = self.idle.get((pop, rung), 0) + 1
            if idle < IDLE_LOOKS:
                self.idle_now[pop, rung] = idle
                mask |= self.rungs.known_of((rung,))
        return mask

    def has_had_viewers(self, pop: str, *, is_watched: bool) -> bool:
        """Whether it has viewers, or had some a few looks ago: the last come and go."""
        if is_watched:
            return True
        idle = self.idle_now[pop, ""] = self.idle.get((pop, ""), 0) + 1
        return idle < IDLE_LOOKS
