from msgspec.structs import replace

from edged.tools.conform.observe import Observation
from tests.tools.conform.faulty import Change, Fault, finds, verdict


def _no_parts(seen: Observation) -> None:
    for segment in seen.main.last.segments[:-2]:
        segment.parts.clear()


def _old_parts(seen: Observation) -> None:
    for segment in seen.main.last.segments[1:]:
        segment.duration_us = 60_000_000


def _listed_part_is_gone(seen: Observation) -> None:
    part = next(iter(seen.main.parts.values()))
    gone = replace(part.answer, status=404)
    seen.main.parts[part.place] = replace(part, answer=gone, hinted=False)


def _segment_is_gone(seen: Observation) -> None:
    seen.main.left.append(replace(seen.probes["plain"], status=404))


def _short_playlist(seen: Observation) -> None:
    seen.main.last.media_sequence = 7
    del seen.main.last.segments[1:]


def _renamed(seen: Observation) -> None:
    first = seen.main.last.segments[0]  # Which versions share.
    seen.main.last.segments[0] = replace(first, uri="another.m4s")


def _unlisted_part(status: int, since_s: float) -> Change:
    def change(seen: Observation) -> None:
        answer = replace(seen.probes["plain"], status=status)
        seen.main.unlisted.append((answer, since_s))

    return change


def _parts_went_in_disorder(seen: Observation) -> None:
    """The second segment has lost its parts, the first still has some."""
    first, second = seen.main.last.segments[:2]
    assert first.parts
    second.parts.clear()


FAULTS: list[Fault] = [
    (19, _no_parts, "warn", "no parts of segment"),
    (19, _old_parts, "warn", "are listed still"),
    (19, _listed_part_is_gone, "fail", "status 404"),
    (19, _unlisted_part(404, 11.9), "fail", "status 404, 11.9 s after it was listed, 3 x TD is 12"),
    (19, _parts_went_in_disorder, "fail", "the parts of segment 1 went before those of 0"),
    (20, _segment_is_gone, "fail", "it has just left"),
    (20, _short_playlist, "fail", "3 x TD, 12 s, at least"),
    (20, _renamed, "fail", "is another.m4s, it was "),
]


test_faults_are_found = finds(FAULTS)


def test_what_was_to_be_had_for_long_enough_may_go(good: Observation) -> None:
    _unlisted_part(404, 12.0)(good)
    _unlisted_part(200, 1.0)(good)
    assert verdict(good, 19).status == "pass"


def test_a_segment_that_has_left_and_is_there_still(good: Observation) -> None:
    assert verdict(good, 20).status == "not seen"
    good.main.left.append(good.probes["plain"])
    assert verdict(good, 20).status == "pass"
