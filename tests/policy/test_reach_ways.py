"""Whether a relay is nearer, and by enough."""

import math

import numpy as np
import pytest

from edged.policy.reach_config import ReachConfig
from edged.policy.reach_ways import NEARER, Ways

#                       0     1     2     3
BETWEEN = np.array(
    [
        [0.0, 10.0, 50.0, math.inf],
        [10.0, 0.0, 30.0, 30.0],
        [50.0, 30.0, 0.0, 70.0],
        [math.inf, 30.0, 70.0, 0.0],
    ]
)
WAYS = Ways(BETWEEN, ReachConfig(margin_ms=5.0))


def test_the_nearest_is_found_and_how_far_it_is() -> None:
    assert WAYS.best([0, 2]) == ([0, 0, 2, 2], [0.0, 10.0, 0.0, 70.0])
    assert WAYS.best([1, 2])[0][3] == 1
    assert WAYS.ms(1, 2) == 30.0


@pytest.mark.parametrize(
    ("ms", "origin_ms", "near"),
    [
        (15.0, 20.0, True),
        (15.1, 20.0, False),
        (180.0, 200.0, True),
        (180.1, 200.0, False),  # A tenth of a long way is more than the margin.
        (0.0, -math.inf, False),
        (math.inf, 20.0, False),
    ],
)
def test_a_relay_is_near_by_a_margin(ms: float, origin_ms: float, near: bool) -> None:
    assert NEARER == 0.1
    assert WAYS.is_near(ms, origin_ms) is near


@pytest.mark.parametrize(
    ("was", "best", "origin_ms", "better"),
    [
        (1, 1, 30.0, False),  # No nearer than the origin, and no farther.
        (1, 1, 29.9, True),
        (2, 1, 100.0, True),
        (1, 2, 100.0, False),
        (1, 1, -math.inf, True),
    ],
)
def test_what_is_there_goes_on_while_it_is_near_at_all(
    was: int, best: int, origin_ms: float, better: bool
) -> None:
    assert WAYS.is_better_elsewhere(3, was, best, origin_ms) is better


def test_others_come_by_distance_and_only_if_near() -> None:
    assert list(WAYS.others(3, 1, [0, 1, 2], 100.0)) == [2]
    assert list(WAYS.others(1, 0, [2, 3, 0], 100.0)) == [2, 3]
    assert list(WAYS.others(1, 0, [2, 3, 0], 30.0)) == []
