"""What the simulator asks of a policy, and what a policy may know of the world."""

import random
from collections.abc import Callable, Iterable

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
    mbps_per_unit: float  # Of those that cross it: the mean.
    load: float  # Of its bandwidth.
    pairs: tuple[tuple[str, str], ...]  # (PoP, origin) that cross it.


class Surroundings(Struct, kw_only=True):
    """What a policy works with."""

    scenario: Scenario
    world: WorldFile
    slots: list[int]  # Of each origin, as configured.
    rtt_ms: list[list[float]]  # At the start, by PoP and origin.
    board: Board
    rng: random.Random
    moment: Callable[[], Moment]  # The truth, for what plans by it now and then.
    links: Callable[[], dict[str, LinkSeen]]  # What is known of links.
    call_at: Callable[[float, Callable[[], None]], None]
    streams_at: Callable[[int], Iterable[Stream]]  # Live ones, by origin.
    # Offers a live stream to another origin; its own is left if that takes it.
    move: Callable[[Stream, int], None]
    shed: Callable[[Stream], None]  # Ends a live stream.


class Policy:
    """Decides for all PoPs. Times are seconds from the start of the run.

    What it does not override it does not react to.
    """

    retries = False  # After a refusal it chooses again.
    hears_freezes = True  # It takes streams from an origin that makes no progress.

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.pops = [pop.name for pop in around.world.pops]
        self.origins = [origin.name for origin in around.world.origins]

    def choose(self, stream: Stream, now: float) -> int:
        """The origin that is to be offered the stream, or NOWHERE."""
        del stream, now
        return NOWHERE

    def begin(self, now: float) -> None:
        """The network is there; no stream is yet."""

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

    def move_begun(self, stream: Stream, to: int) -> None:
        """A live stream is offered to another origin."""

    def move_ended(self, stream: Stream, to: int, now: float, *, taken: bool) -> None:
        """It is live there from now on, or stays where it is (if it has not ended)."""

    def link_changed(self, pop: int, origin: int, now: float, *, up: bool) -> None:
        """The sessions of a PoP with an origin broke, or stand again."""

    def rtt_measured(self, pop: int, origin: int, rtt_ms: float) -> None:
        """A probe of a path came back."""

    def rerouted(self, now: float) -> None:
        """A link was cut or mended: others carry more now, or less."""

    def tick(self, now: float, heard: list[OriginReport], changes: list[StateChanged]) -> None:
        """Heartbeats were heard; what follows from them changed."""

    def about_to_change(self, now: float) -> None:
        """An origin is about to fail, return, or be another."""

    def irs_changed(self, now: float, *, up: bool) -> None:
        """IRS died, or is back and knows nothing."""

    def telemetry_aged(self, age_s: float) -> None:
        """What IRS hears is so old from now on."""
