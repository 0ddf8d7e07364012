"""`[irs.reach]` and `[pop.reach]`: apart from the planner, whose numpy only IRS is to load."""

from typing import Annotated

from msgspec import Meta, Struct

from edged.media.reach import ORDERS_MAX


class ReachConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[irs.reach]`: replicas of channels, and relays."""

    interval_s: Annotated[float, Meta(ge=0.5, le=60)] = 5.0  # Between plans.
    ttl_s: Annotated[float, Meta(ge=5, le=600)] = 60.0  # Of orders, when IRS is gone.
    near_ms: Annotated[float, Meta(gt=0, le=1000)] = 40.0  # From viewers to a copy.
    viewers_per_replica: Annotated[int, Meta(ge=1, le=1_000_000)] = 50
    replicas_max: Annotated[int, Meta(ge=1, le=100)] = 12  # Of one channel.
    margin_ms: Annotated[float, Meta(ge=0, le=1000)] = 5.0  # A relay is nearer by so much.
    orders_per_pop_max: Annotated[int, Meta(ge=1, le=ORDERS_MAX)] = ORDERS_MAX
    # Of a link's bandwidth, for what is held at PoPs whose viewers do not watch it.
    link_share: Annotated[float, Meta(gt=0, le=1)] = 0.2
    # Of the audience: other replicas must reach so much more,
    gain_min: Annotated[float, Meta(gt=0, le=1)] = 0.1
    hold_plans: Annotated[int, Meta(ge=1, le=100)] = 3  # in so many plans, one after the other.
    moves_max: Annotated[int, Meta(ge=1, le=10_000)] = 20  # Replicas that a plan ends.

    def __post_init__(self) -> None:
        """Raise ValueError where keys contradict each other."""
        if self.ttl_s < 3 * self.interval_s:
            raise ValueError(
                f"ttl_s {self.ttl_s:g} must be at least three times interval_s"
                f" {self.interval_s:g}, or orders expire between plans"
            )
        if self.moves_max < self.replicas_max:
            raise ValueError(
                f"moves_max {self.moves_max} must be at least replicas_max {self.replicas_max},"
                " or a channel that has so many can never move"
            )


class PopReachConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[pop.reach]`: what a PoP does of what IRS orders."""

    holds_max: Annotated[int, Meta(ge=0, le=ORDERS_MAX)] = 200  # Channels, watched or not.
    hold_mbps_max: Annotated[float, Meta(gt=0, le=1e6)] = 2000.0  # Of those that nobody watches.
    grace_s: Annotated[float, Meta(ge=0, le=600)] = 30.0  # After the order's end, and as much more.
    changes_per_s: Annotated[float, Meta(gt=0, le=1000)] = 50.0
    listen: str | None = None  # For other PoPs, which take channels from here. None: they do not.
    address: str = ""  # Where they reach that; "": as `listen` says.
    relays_max: Annotated[int, Meta(ge=1, le=100_000)] = 500  # Subscriptions of theirs.
    relay_mbps_max: Annotated[float, Meta(gt=0, le=1e6)] = 5000.0  # Of these, all together.
    relayed_max: Annotated[int, Meta(ge=0, le=ORDERS_MAX)] = 200  # Channels taken from others.
