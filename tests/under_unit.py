"""Runs a command under the service's own filter of system calls, as systemd would set it.

    python -m tests.under_unit python -m pytest tests/runtime/test_child.py

`SystemCallFilter=` lines are read as systemd.exec(5) has them: the first makes a list of what is
allowed, later ones add to it or, with a tilde, take from it; @groups are asked of systemd itself.
"""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pyseccomp  # type: ignore[import-untyped]

UNIT = Path(__file__).parents[1] / "systemd" / "edged@.service"


def calls_of(name: str) -> set[str]:
    """The system calls that a name of the unit stands for."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["systemd-analyze", "syscall-filter", "--no-pager", name],  # noqa: S607 - whichever is installed
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    lines = [line.strip() for line in done.stdout.splitlines()[1:]]
    return set().union(*(calls_of(line) for line in lines if line and not line.startswith("#")))


def allowed_calls(unit: str) -> set[str]:
    """What the text of a unit lets its processes call; systemd itself allows @default always."""
    allowed = calls_of("@default")
    for line in re.findall(r"^SystemCallFilter=(.+)$", unit, re.MULTILINE):
        named = set().union(*(calls_of(name) for name in line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def confine(unit: str) -> None:
    """Refuse this process and its children all other calls, with the unit's error number."""
    (name_of_error,) = re.findall(r"^SystemCallErrorNumber=(\w+)$", unit, re.MULTILINE)
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(getattr(errno, name_of_error)))
    for name in sorted(allowed_calls(unit)):
        try:
            rules.add_rule(pyseccomp.ALLOW, name)
        except (OSError, RuntimeError, ValueError):
            continue  # Of another architecture, or newer than the library.
    rules.load()


if __name__ == "__main__":
    confine(UNIT.read_text())
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the command is the caller's
