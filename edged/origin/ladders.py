"""All ladders of an origin: which may be made now, by the slots that it has, and their running.

    a ladder's plan ──▶ LadderSlots ──▶ its transcoder is resumed (a child) or paused (none)

How many slots there are is configured, or measured when the service begins to run, and which
encoders work is tried; until then every ladder waits. One that is paused has its rungs end as
absent media, and goes on when it may.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import structlog
import trio

from edged.media.ladder import LadderPlan
from edged.media.routing import ByClass
from edged.origin.encoder_probe import find_encoders
from edged.origin.ladder import Ladder
from edged.origin.speed import measure_capacity, usable_cores
from edged.policy.ladder import EncoderName, LadderBudget, LadderConfig, usual_ladder
from edged.policy.ladder_capacity import LadderCapacity, configured_capacity
from edged.policy.ladder_encoders import EncodersFound
from edged.policy.ladder_slots import (
    Change,
    Granted,
    LadderSlots,
    Preempted,
    SlotCounts,
    Standing,
    slots_of,
)
from edged.policy.ladder_words import LadderSeen, describe_ladder
from edged.runtime.hub import LiveStream

SOURCE_ONLY = "no slot was free, so the stream was taken without a ladder"

logger = structlog.get_logger("edged.ladder")


class Ladders:
    """Grants slots to ladders and runs them; the `LadderHost` of each."""

    def __init__(
        self,
        slots: int | None = None,
        *,
        encoder: EncoderName = "auto",
        measure: Callable[[], Awaitable[LadderCapacity]] = measure_capacity,
        probe: Callable[[EncoderName], Awaitable[EncodersFound]] = find_encoders,
    ) -> None:
        """`slots`: how many there are; None: they are measured by `measure`. `encoder`: as it is
        configured; `probe` finds those that work.
        """
        self.running: dict[Ladder, None] = {}  # The waiting included.
        self.restarts_total = 0  # Of ladders that are over.
        self._measure = measure
        self._capacity = None if slots is None else configured_capacity(slots, usable_cores())
        self._encoder, self._probe = encoder, probe
        self._found: EncodersFound | None = None
        self._slots = LadderSlots[Ladder](0 if slots is None else slots)
        self._nursery: trio.Nursery | None = None
        self._held: dict[Ladder, None] = {}  # Their streams have no slot.
        self._expected: tuple[LadderConfig | None, int] = (None, 1)  # Cost of a usual one.

    @property
    def budget(self) -> LadderBudget:
        """What one ladder may take; not before it is known."""
        assert self._capacity is not None, "ladders are run when it is known"
        assert self._found is not None, "and so are the encoders"
        return self._found.apply(self._capacity.budget)

    @property
    def capacity_text(self) -> str:
        """What there is for ladders, in words."""
        slots = "being measured" if self._capacity is None else self._capacity.text
        return slots if self._found is None else f"{slots}; {self.encoder_text}"

    @property
    def encoder_text(self) -> str:
        """Which encoder they get, and why."""
        return "" if self._found is None else self._found.explain(self._encoder)

    def counts(self) -> SlotCounts:
        """How the slots are used."""
        return self._slots.counts()

    def free(self) -> ByClass:
        """What a new ladder of each class could have, for the heartbeat."""
        return self._slots.free_by_class()

    def usual_cost(self, config: LadderConfig) -> int:
        """What one costs, as far as is known; for the heartbeat."""
        if config != self._expected[0] and self._capacity is not None and self._found is not None:
            self._expected = config, slots_of(usual_ladder(config, self.budget))
        return self._slots.usual_cost(self._expected[1])

    def describe(self, ladder: Ladder) -> LadderSeen:
        """How a ladder fares, in words."""
        standing = self._slots.standing(ladder)
        return describe_ladder(
            ladder.transcoder.plan,
            ladder.statistics(),
            standing,
            is_measured=self._capacity is not None and self._found is not None,
            total=self._slots.total,
            preempted_by=_who(standing, ladder),
            encoders_failed=ladder.encoders.missing,
            held=SOURCE_ONLY if ladder in self._held else "",
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; those that are begun before wait for it.

        Begun anew after a failure, it goes on with the ladders of the streams that still live.
        """
        async with trio.open_nursery() as nursery:
            task_status.started()
            if self._found is None:
                self._found = await self._probe(self._encoder)
            if self._capacity is None:
                self._capacity = await self._measure()
                self._apply(self._slots.resize(self._capacity.slots))
            for ladder in list(self.running):
                nursery.start_soon(self._run, ladder)
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def begin(self, ladder: Ladder, *, held: bool = False) -> None:
        """Run a ladder until its source ends; one that is `held` is not made until `release`."""
        self.running[ladder] = None
        if held:
            self._held[ladder] = None
        if self._nursery is not None:
            self._nursery.start_soon(self._run, ladder)

    def planned(self, ladder: Ladder, plan: LadderPlan) -> None:
        """A ladder wants to make this: it gets slots for it, or waits."""
        cost = slots_of(plan)
        if ladder in self._held:
            ladder.transcoder.pause(SOURCE_ONLY)
            return
        if cost:
            changes = self._slots.ask(ladder, ladder.stream.grant.priority, cost)
        else:
            changes = self._slots.give_back(ladder)
            ladder.transcoder.pause("there is nothing to make")
        self._apply(changes)

    def stopped(self, ladder: Ladder) -> None:
        """What a ladder had is given back at once."""
        self._held.pop(ladder, None)
        if ladder in self.running:
            del self.running[ladder]
            self.restarts_total += ladder.statistics().restarts
        self._apply(self._slots.give_back(ladder))

    def release(self, ladder: Ladder) -> None:
        """The stream of a ladder that was held has a slot now."""
        if ladder in self._held:
            del self._held[ladder]
            self.planned(ladder, ladder.transcoder.plan)

    async def _run(self, ladder: Ladder) -> None:
        try:
            await ladder.run()
        except Exception:
            logger.exception("transcoder failed, the source goes on", channel=_channel(ladder))
            ladder.fail()
        ladder.stop()  # Not when cancelled: it goes on when this service does.

    def _apply(self, changes: Sequence[Change[Ladder]]) -> None:
        """Do as the slots say, and say so."""
        for change in changes:
            ladder = change.key
            if isinstance(change, Granted):
                ladder.transcoder.resume()
                self._say("info", "ladder granted", ladder, slots=change.cost)
            elif isinstance(change, Preempted):
                reason = f"preempted for {_describe(change.by.stream)}"
                if change.by is ladder:
                    reason = f"it needs {change.cost} slots of {self._slots.total} now"
                ladder.transcoder.pause(reason)
                self._say("warning", "ladder preempted", ladder, slots=change.cost, reason=reason)
            else:
                before, reason = change.before, change.reason
                self._say("info", "ladder waits", ladder, before=before, reason=reason)

    def _say(
        self, level: Literal["info", "warning"], event: str, ladder: Ladder, **values: object
    ) -> None:
        say = logger.warning if level == "warning" else logger.info
        stream = ladder.stream
        say(
            event,
            channel=stream.channel,
            publication=f"{stream.stream_id.publication:x}",
            priority=stream.grant.priority.label,
            used=self._slots.used,
            total=self._slots.total,
            **values,
        )


def _who(standing: Standing[Ladder] | None, ladder: Ladder) -> str:
    """For whom a ladder was preempted; "" if it was not, or for none."""
    by = None if standing is None else standing.preempted_by
    return "" if by is None or by is ladder else _describe(by.stream)


def _describe(stream: LiveStream) -> str:
    return f"{stream.grant.priority.label} {stream.channel}"


def _channel(ladder: Ladder) -> str:
    return ladder.stream.channel
