"""What of the checklist each run of `edged conform` in CI leaves unseen: all of them, nothing.

`tests/tools/conform/test_report.py` holds the table to it, each run itself to the table.
"""

from collections.abc import Mapping
from typing import Final

from edged.tools.conform.report import ITEMS, Verdict

ALL: Final = frozenset(item.number for item in ITEMS)
# By run. A stream that goes on shows no end (5), one that nothing holds up no 503 (8); from a young
# one no segment has left (20), and of an old class nothing is old enough to be skipped (26).
UNSEEN: Final[Mapping[str, frozenset[int]]] = {
    "through a network": frozenset({5, 8}),
    "of what has ended": ALL - {5},
    "of who stands still": ALL - {8},
    "by a token": frozenset({5, 8, 20, 31, 34}),  # And there is no TLS, so no HTTP/2.
    "of a class": frozenset({5, 8, 20, 26}),
}


def check_shown(run: str, verdicts: Mapping[int, Verdict]) -> None:
    """All that is not in the table has passed."""
    left = {number: each for number, each in verdicts.items() if not has_passed(each)}
    assert left.keys() <= UNSEEN[run], [left[number] for number in left.keys() - UNSEEN[run]]


def has_passed(verdict: Verdict) -> bool:
    """Or lacks ECN alone, which is for the client's host to ask for, and few do."""
    if verdict.number == 34 and verdict.status == "warn":
        return all("no ECN (our own host" in told for told in verdict.details)
    return verdict.status == "pass"
