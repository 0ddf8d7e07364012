"""When a PoP lets go of an origin: missing from the table, or dead by all that is heard of it.

A table that lacks an origin stops placement there (it is chosen from the table's rows), no more: an
IRS that has just started may not have heard it yet. What the origin has of ours stays as long as a
session stands. An origin that is silent and unreachable is forgotten when it can hardly go on where
it stopped; until then viewers and publishers wait for it.
"""

import enum

from edged.media.routing import OriginState

LOST_S_MAX = 10.0  # Two reconnects at the longest backoff; an origin keeps our streams longer.
# Without an ack, of an origin whose heartbeats have stopped, before its streams go on elsewhere.
# Acks come ten times as often, and a ring holds several times as long.
STALLED_S_MAX = 0.7
ANSWER_S_MAX = (
    3.0  # For the word on a stream that was offered: ten round trips of the longest path.
)


class Verdict(enum.Enum):
    """What to do about an origin."""

    KEEP = "keep"
    FORGET = "forget"  # What it had is over, but it is tried again and again.
    DROP = "drop"  # The same, and the link to it ends.


def judge_origin(*, listed: bool, busy: bool, lost_s: float, state: OriginState | None) -> Verdict:
    """Judge one origin.

    `listed`: it is in the table. `busy`: streams go there or parts come from there. `lost_s`: since
    the last of its sessions was lost, 0 while one stands. `state`: by its heartbeats here, if any.
    """
    if not listed and (not busy or lost_s > 0):
        return Verdict.DROP
    silent = state is None or state is OriginState.DOWN
    if silent and lost_s >= LOST_S_MAX:
        return Verdict.FORGET
    return Verdict.KEEP
