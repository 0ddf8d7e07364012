"""What the simulator asks of a policy, and what a policy may know of the world."""

import random
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from edged.media.routing import OriginReport
from edged.policy.capacitor import StateChanged
from edged.tools.simulate.board import Board
from edged.tools.simulate.bound import Moment
from edged.tools.simulate.scenario import Scenario, WorldFile
from edged.tools.simulate.streams import Stream

NOWHERE = -1  # No origin.


class LinkSeen(Struct, frozen=True, kw_only=True):
    """One direction of a link that is up, as the Well sees it."""

    mbps: float  # Its bandwidth.
    mbps_per_unit: float  # Of all live streams: the mean.
    load: float  # Of its bandwidth.
    pairs: tuple[tuple[str, str], ...]  # (PoP, origin) that cross it.


class Surroundings:
    """What a policy works with.

    `moment` is the truth, for what plans by it now and then; `links` what is known of links.
    """

    def __init__(
        self,
        scenario: Scenario,
        world: WorldFile,
        *,
        slots: list[int],
        rtt_ms: list[list[float]],
        board: Board,
        rng: random.Random,
        moment: Callable[[], Moment],
        links: Callable[[], dict[str, LinkSeen]],
        call_at: Callable[[float, Callable[[], None]], None],
    ) -> None:
        """`slots`: of each origin, as configured. `rtt_ms`: at the start, by PoP and origin."""
        self.scenario = scenario
        self.pops = [pop.name for pop in world.pops]
        self.origins = [origin.name for origin in world.origins]
        self.domains = [origin.domain for origin in world.origins]
        self.slots = slots
        self.rtt_ms = rtt_ms
        self.board = board
        self.rng = rng
        self.moment = moment
        self.links = links
        self.call_at = call_at


class Policy(Protocol):
    """Decides for all PoPs. Times are seconds from the start of the run."""

    retries: bool  # After a refusal it chooses again.
    hears_freezes: bool  # It takes streams from an origin that makes no progress.

    def begin(self, now: float) -> None:
        """The network is there; no stream is yet."""

    def choose(self, stream: Stream, now: float) -> int:
        """The origin that is to be offered the stream, or NOWHERE."""

    def offered(self, stream: Stream) -> None:
        """The stream is on its way to `stream.origin`, and counted there."""

    def released(self, stream: Stream) -> None:
        """It is not counted there any more."""

    def accepted(self, stream: Stream) -> None:
        """Its origin has taken it."""

    def refused(self, stream: Stream, now: float, *, drains: bool) -> None:
        """Its origin has no slot for it, or takes none as it drains."""

    def unanswered(self, stream: Stream, now: float) -> None:
        """Its origin says nothing."""

    def link_changed(self, pop: int, origin: int, now: float, *, up: bool) -> None:
        """The sessions of a PoP with an origin broke, or stand again."""

    def rtt_measured(self, pop: int, origin: int, rtt_ms: float) -> None:
        """A probe of a path came back."""

    def tick(self, now: float, heard: list[OriginReport], changes: list[StateChanged]) -> None:
        """Heartbeats were heard; what follows from them changed."""

    def about_to_change(self, now: float) -> None:
        """An origin is about to fail, return, or be another."""

    def irs_changed(self, now: float, *, up: bool) -> None:
        """IRS died, or is back and knows nothing."""

    def telemetry_aged(self, age_s: float) -> None:
        """What IRS hears is so old from now on."""


class Plain:
    """A policy that reacts to none of it; others are made from it."""

    retries = False
    hears_freezes = True

    def __init__(self, around: Surroundings) -> None:
        self.around = around

    def begin(self, now: float) -> None:
        """Nothing to prepare."""

    def offered(self, stream: Stream) -> None:
        """Count nothing."""

    def released(self, stream: Stream) -> None:
        """Count nothing."""

    def accepted(self, stream: Stream) -> None:
        """Learn nothing."""

    def refused(self, stream: Stream, now: float, *, drains: bool) -> None:
        """Learn nothing."""

    def unanswered(self, stream: Stream, now: float) -> None:
        """Learn nothing."""

    def link_changed(self, pop: int, origin: int, now: float, *, up: bool) -> None:
        """Learn nothing."""

    def rtt_measured(self, pop: int, origin: int, rtt_ms: float) -> None:
        """Learn nothing."""

    def tick(self, now: float, heard: list[OriginReport], changes: list[StateChanged]) -> None:
        """Learn nothing."""

    def about_to_change(self, now: float) -> None:
        """Nothing to bring up to date."""

    def irs_changed(self, now: float, *, up: bool) -> None:
        """There is no IRS."""

    def telemetry_aged(self, age_s: float) -> None:
        """There is no IRS."""
