"""What a bench says of its goals, and its exit status: a goal that is missed is a failure."""

REACHED, MISSED = "reached", "MISSED"


def verdict(*, reached: bool) -> str:
    """The word for it."""
    return REACHED if reached else MISSED


def exit_status(report: str) -> int:
    """Of a command that prints this: 0 when it reached all its goals, else 1."""
    return int(MISSED in report)
