from msgspec.structs import replace

from edged.tools.conform.observe import Observation
from edged.wire.m3u8_reader import ReadHint
from tests.tools.conform.faulty import (
    Change,
    Fault,
    change_control,
    change_part,
    change_probe,
    finds,
    verdict,
)


def _parts_without_inf(seen: Observation) -> None:
    for one in seen.main.seen:
        one.playlist.part_target_us = None


def _another_target(seen: Observation) -> None:
    seen.main.seen[-1].playlist.target_duration_s = 9


def _short_part(seen: Observation) -> None:
    change_part(seen, seen.main.last.last_whole, 2, duration_us=100_000)


def _long_part(seen: Observation) -> None:
    change_part(seen, seen.main.last.last_whole, 2, duration_us=300_000)


def _late_map(seen: Observation) -> None:
    seen.main.last.segments[0].late_tags.append("EXT-X-MAP")


def _no_hint(seen: Observation) -> None:
    seen.main.seen[1].playlist.hints.clear()


def _two_hints(seen: Observation) -> None:
    seen.main.last.hints.append(ReadHint("PART", "another"))


def _hint_at_the_end(seen: Observation) -> None:
    seen.main.last.ended = True


def _date_ranges_alone(seen: Observation) -> None:
    change_control("CAN-SKIP-UNTIL", None)(seen)
    change_control("CAN-SKIP-DATERANGES", "YES")(seen)


def _another_init(seen: Observation) -> None:
    """The last part came as it was hinted, and is to be read with another init."""
    segment = seen.main.last.segments[-1]
    seen.main.last.segments[-1] = replace(segment, map_uri="another.mp4", discontinuity=True)
    came = segment.parts[-1]
    before = seen.main.seen[-2].playlist
    before.hints[:] = [ReadHint("PART", came.uri, came.range)]


def _abandoned(status: int) -> Change:
    def change(seen: Observation) -> None:
        piece = next(piece for piece in seen.main.parts.values() if piece.hinted)
        answer = replace(piece.answer, status=status)
        seen.main.parts["never.m4s", None] = replace(
            piece, place=("never.m4s", None), answer=answer
        )

    return change


FAULTS: list[Fault] = [
    (10, _parts_without_inf, "fail", "EXT-X-PART without EXT-X-PART-INF"),
    (10, change_control("PART-HOLD-BACK", None), "fail", "without PART-HOLD-BACK"),
    (11, change_control("PART-HOLD-BACK", "0.45"), "fail", "0.45 s is 2."),
    (12, change_control("HOLD-BACK", "5"), "fail", "HOLD-BACK=5 is less than 3 x 4"),
    (12, change_control("CAN-SKIP-UNTIL", "23.9"), "fail", "CAN-SKIP-UNTIL=23.9 is less than 6"),
    (12, _date_ranges_alone, "fail", "without CAN-SKIP-UNTIL"),
    (13, change_control("HOLD-BACK", "13", only_last=True), "fail", "HOLD-BACK=13"),
    (13, _another_target, "fail", "TD 9"),
    (14, _short_part, "fail", "of 0.1 s is 50% of PART-TARGET, 85 % at least"),
    (14, _long_part, "fail", "of 0.3 s, PART-TARGET is"),
    (15, _late_map, "fail", "EXT-X-MAP behind a part of segment"),
    (22, _no_hint, "fail", "v0.m3u8: 1 playlists without"),
    (24, change_probe("unknown", status=200), "warn", "status 200, not 404"),
    (24, _two_hints, "warn", "more than one hint"),
    (22, _another_init, "fail", "no hint of TYPE=MAP at another.mp4"),
    (24, _abandoned(200), "warn", "never.m4s was hinted and never came: status 200, not 404"),
    (24, _hint_at_the_end, "warn", "a hint behind EXT-X-ENDLIST"),
]


test_faults_are_found = finds(FAULTS)


def test_what_a_stream_gives_no_occasion_for(good: Observation) -> None:
    for log in good.renditions:
        for one in log.seen:
            one.playlist.part_target_us = None
            one.playlist.tags.pop("EXT-X-PART", None)
    for number in (11, 14, 22):
        assert verdict(good, number).status == "not seen"
    change_control("HOLD-BACK", None)(good)
    change_control("CAN-SKIP-UNTIL", None)(good)
    assert verdict(good, 12).details == ["neither CAN-SKIP-UNTIL nor HOLD-BACK is there"]


def test_what_was_hinted_and_never_came_is_unknown(good: Observation) -> None:
    _abandoned(404)(good)
    assert verdict(good, 24).status == "pass"


def test_an_init_that_was_hinted(good: Observation) -> None:
    _another_init(good)
    good.main.seen[-2].playlist.hints.append(ReadHint("MAP", "another.mp4"))
    assert verdict(good, 22).status == "pass"


def test_what_one_rendition_lacks_does_not_hide_what_another_does(good: Observation) -> None:
    change_control("PART-HOLD-BACK", "0.45")(good)
    good.renditions[1].last.part_target_us = None
    found = verdict(good, 11)
    assert found.status == "fail"
    assert found.details == [
        "v0.m3u8:4: PART-HOLD-BACK of 0.45 s is 2.25 x PART-TARGET, 0.2 s: 3 x at least"
    ]
