import pytest

from edged.policy.ladder_capacity import (
    SLOTS_MAX,
    Speed,
    assumed_capacity,
    configured_capacity,
    measured_capacity,
)


def test_configured_slots_are_taken_as_they_are() -> None:
    capacity = configured_capacity(350)
    assert (capacity.slots, capacity.ladder_slots_max) == (350, 100)
    assert capacity.text == "350 slots, as configured"
    assert configured_capacity(30).ladder_slots_max == 30, "a ladder must fit into what there is"
    assert capacity.budget.cost_max == 100
    several = configured_capacity(350, 2.5)
    assert (several.ladder_slots_max, several.core_slots_max, several.cores) == (200, 100, 2)
    budget = several.budget
    assert (budget.cost_max, budget.core_max, budget.cores) == (200, 100, 2)
    assert configured_capacity(350, 32).ladder_slots_max == 350


def test_a_fifth_of_what_was_measured_is_left_to_others() -> None:
    speed = Speed(core_slots=145.0, tested=2, pictures=70, cpu_s=1.18)
    capacity = measured_capacity(speed, 2)
    assert (capacity.slots, capacity.ladder_slots_max) == (232, 232)
    assert (capacity.core_slots_max, capacity.cores) == (116, 2)
    assert capacity.source == "measured"
    assert capacity.text == (
        "232 slots, measured: a core has 145 (a ladder of 70 pictures of 1080p took 1.18 s of CPU),"
        " there are 2, and 4 of 5 slots are for ladders"
    )


@pytest.mark.parametrize(
    ("core_slots", "cores", "slots", "each"),
    [
        (100.0, 0.5, 40, 40),
        (0.2, 0.1, 1, 1),
        (10_000.0, 4096, SLOTS_MAX, 8000),
        (100.0, 1.5, 120, 80),
    ],
)
def test_a_share_of_a_core_and_the_bounds(
    core_slots: float, cores: float, slots: int, each: int
) -> None:
    speed = Speed(core_slots=core_slots, tested=1, pictures=5, cpu_s=1.0)
    capacity = measured_capacity(speed, cores)
    assert (capacity.slots, capacity.core_slots_max) == (slots, each)
    assert capacity.ladder_slots_max == min(slots, each * max(1, int(cores)))


def test_what_could_not_be_measured_is_assumed_and_says_why() -> None:
    capacity = assumed_capacity(2, "no answer for 10 s")
    assert (capacity.slots, capacity.ladder_slots_max, capacity.source) == (80, 80, "assumed")
    assert capacity.text == (
        "80 slots, assumed of 2 cores, as the speed test failed: no answer for 10 s"
    )
