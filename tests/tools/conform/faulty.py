"""How the checks are asked about a stream that has been changed."""

from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from edged.tools.conform.observe import Observation
from edged.tools.conform.report import Status, Verdict, judge
from edged.wire.m3u8_reader import ReadPart

Change = Callable[[Observation], None]
Fault = tuple[int, Change, Status, str]  # Of an item, what makes it, and what is then said.


def verdict(seen: Observation, number: int) -> Verdict:
    (found,) = [one for one in judge(seen).verdicts if one.number == number]
    return found


def check(seen: Observation, number: int, change: Change, status: Status, told: str) -> None:
    """The item holds as it is; changed so, it is found, and said how."""
    before = verdict(seen, number)
    assert before.status in ("pass", "not seen"), before.details
    change(seen)
    after = verdict(seen, number)
    assert after.status == status, after.details
    assert any(told in detail for detail in after.details), after.details


def finds(faults: Sequence[Fault]) -> Callable[..., None]:
    """A test for each fault, of an observation without any."""

    @pytest.mark.parametrize(("number", "change", "status", "told"), faults)
    def test(good: Observation, number: int, change: Change, status: Status, told: str) -> None:
        check(good, number, change, status, told)

    return test


def change_probe(name: str, **changes: object) -> Change:
    """Another answer to a probe."""

    def change(seen: Observation) -> None:
        seen.probes[name] = replace(seen.probes[name], **changes)

    return change


def change_part(seen: Observation, msn: int, index: int, **changes: object) -> ReadPart:
    """Another part, in all playlists that list it."""
    changed: dict[int, ReadPart] = {}
    for one in seen.main.seen:
        segment = one.playlist.segment(msn)
        # Versions share what they have in common.
        if segment is not None and len(segment.parts) > index and id(segment) not in changed:
            segment.parts[index] = replace(segment.parts[index], **changes)
            changed[id(segment)] = segment.parts[index]
    assert changed, "it was listed"
    return list(changed.values())[-1]


def change_control(name: str, value: str | None, *, only_last: bool = False) -> Change:
    """Another attribute of SERVER-CONTROL."""

    def change(seen: Observation) -> None:
        for log in seen.renditions:
            for one in log.seen[-1:] if only_last else log.seen:
                one.playlist.control = {**one.playlist.control}  # Versions share it.
                one.playlist.control.pop(name, None)
                if value is not None:
                    one.playlist.control[name] = value

    return change
