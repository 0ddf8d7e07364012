"""When an origin is let go of: neither a table nor silence alone is enough."""

import pytest

from edged.media.routing import OriginState
from edged.policy.departures import LOST_S_MAX, Verdict, judge_origin

UP, SUSPECT, DOWN = OriginState.UP, OriginState.SUSPECT, OriginState.DOWN


@pytest.mark.parametrize(
    ("busy", "lost_s", "verdict"),
    [
        (True, 0.0, Verdict.KEEP),  # A table that lacks it cuts no healthy stream.
        (False, 0.0, Verdict.DROP),
        (True, 0.1, Verdict.DROP),
        (False, 0.1, Verdict.DROP),
    ],
)
@pytest.mark.parametrize("state", [None, UP, DOWN])
def test_missing_from_the_table(
    busy: bool, lost_s: float, verdict: Verdict, state: OriginState | None
) -> None:
    assert judge_origin(listed=False, busy=busy, lost_s=lost_s, state=state) is verdict


@pytest.mark.parametrize(
    ("lost_s", "state", "verdict"),
    [
        (LOST_S_MAX, DOWN, Verdict.FORGET),
        (LOST_S_MAX, None, Verdict.FORGET),
        (LOST_S_MAX - 0.1, DOWN, Verdict.KEEP),  # It may be back, and go on.
        (0.0, DOWN, Verdict.KEEP),  # Silent, but a session stands: progress convicts.
        (LOST_S_MAX, SUSPECT, Verdict.KEEP),
        (LOST_S_MAX, UP, Verdict.KEEP),
    ],
)
@pytest.mark.parametrize("busy", [False, True])
def test_dead_or_only_away(
    lost_s: float, state: OriginState | None, verdict: Verdict, busy: bool
) -> None:
    assert judge_origin(listed=True, busy=busy, lost_s=lost_s, state=state) is verdict
