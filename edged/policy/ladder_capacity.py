"""How many slots an origin has for ladders: as configured, as measured, or as assumed.

What all cores do bounds what one ladder may cost, and how many there may be; what one core does
bounds each of its threads (`ladder_threads`). A fifth is left to what else an origin does, and to
pictures that are more work than those of the test.
"""

import math
from typing import Literal

from msgspec import Struct

from edged.policy.ladder import LadderBudget

SHARE_NUM, SHARE_DEN = 4, 5  # Of what was measured.
CORE_SLOTS = 100  # Of a core, when slots are configured: one of 2024 does about that.
CORE_SLOTS_ASSUMED = 50  # When measuring failed: one of 2014 does that.
CORE_SLOTS_MAX = 10_000.0  # More was measured wrongly.
SLOTS_MAX = 1_000_000


class Speed(Struct, frozen=True, kw_only=True):
    """What the speed test found."""

    core_slots: float  # Slots that a core has, while all that were tested worked.
    tested: int  # Cores.
    pictures: int  # Of the source, by all of them.
    cpu_s: float  # What these took.


class LadderCapacity(Struct, frozen=True, kw_only=True):
    """What an origin has."""

    slots: int
    ladder_slots_max: int  # Of one ladder.
    core_slots_max: int  # Of one of its threads.
    cores: int  # Whole ones.
    source: Literal["configured", "measured", "assumed"]
    text: str  # All of it in words.

    @property
    def budget(self) -> LadderBudget:
        """What one stream's ladder may take."""
        return LadderBudget(
            cost_max=float(self.ladder_slots_max),
            core_max=float(self.core_slots_max),
            cores=self.cores,
        )


def configured_capacity(slots: int, cores: float = 1.0) -> LadderCapacity:
    """So many slots, and cores like everyone's."""
    whole = max(1, math.floor(cores))
    return LadderCapacity(
        slots=slots,
        ladder_slots_max=min(CORE_SLOTS * whole, slots),
        core_slots_max=min(CORE_SLOTS, slots),
        cores=whole,
        source="configured",
        text=f"{slots} slots, as configured",
    )


def measured_capacity(speed: Speed, cores: float) -> LadderCapacity:
    """What so many cores of that speed have; `cores` may be a share of one, as of a container."""
    assert 0 < speed.core_slots <= CORE_SLOTS_MAX, "the test has checked it"
    each, slots = _share(speed.core_slots, cores)
    return LadderCapacity(
        slots=slots,
        ladder_slots_max=min(each * max(1, math.floor(cores)), slots),
        core_slots_max=min(each, slots),
        cores=max(1, math.floor(cores)),
        source="measured",
        text=f"{slots} slots, measured: a core has {speed.core_slots:.0f} (a ladder of "
        f"{speed.pictures} pictures of 1080p took {speed.cpu_s:.2f} s of CPU), there are {cores:g},"
        f" and {SHARE_NUM} of {SHARE_DEN} slots are for ladders",
    )


def assumed_capacity(cores: float, why: str) -> LadderCapacity:
    """What any machine with so many cores should have; `why` it was not measured."""
    each, slots = _share(CORE_SLOTS_ASSUMED, cores)
    return LadderCapacity(
        slots=slots,
        ladder_slots_max=min(each * max(1, math.floor(cores)), slots),
        core_slots_max=min(each, slots),
        cores=max(1, math.floor(cores)),
        source="assumed",
        text=f"{slots} slots, assumed of {cores:g} cores, as the speed test failed: {why}",
    )


def _share(core_slots: float, cores: float) -> tuple[int, int]:
    """Whole slots for ladders, of one core and of all; 1 at least."""
    each = max(1, math.floor(core_slots * SHARE_NUM / SHARE_DEN))
    total = max(1, math.floor(core_slots * cores * SHARE_NUM / SHARE_DEN))
    return each, min(total, SLOTS_MAX)
