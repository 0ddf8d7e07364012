from fractions import Fraction

import pytest

from edged.media.access_unit import AccessUnit
from edged.policy import waiting_units
from edged.policy.known_tracks import KnownTracks
from edged.policy.waiting_units import START_S, START_VIDEO_S, WaitingUnits
from tests.policy.synthetic import (
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)

THIRTY = Fraction(30)


def waiting(*, video: bool = True, audio: bool = True) -> WaitingUnits:
    tracks = KnownTracks()
    if video:
        tracks.add(video_track(THIRTY))
    if audio:
        tracks.add(audio_track())
    return WaitingUnits(tracks)


def pictures(seconds: float, start_s: float = 0) -> list[AccessUnit]:
    times = [dts + round(start_s * 90_000) for dts in video_times(THIRTY, seconds)]
    return list(video_units(times, 2))


def waits_s(held: WaitingUnits, units: list[AccessUnit]) -> float:
    """Seconds of media until it may start."""
    for unit in units:
        held.add(unit)
        if held.may_start():
            return unit.dts / (90_000 if unit.track_id == 1 else 48_000)
    return float("inf")


def test_it_starts_when_all_tracks_of_both_kinds_are_measured() -> None:
    units = in_order((90_000, pictures(2)), (48_000, audio_units(2)))
    assert waits_s(waiting(), units) < 0.35


def test_what_is_announced_and_silent_is_waited_for_but_not_for_ever() -> None:
    assert waits_s(waiting(), pictures(9)) == pytest.approx(START_S)
    assert waits_s(waiting(video=False), list(audio_units(9))) == pytest.approx(START_S, abs=0.03)
    assert waits_s(waiting(), list(audio_units(9))) == pytest.approx(START_VIDEO_S, abs=0.03)


def test_a_picture_before_the_first_random_access_is_not_kept() -> None:
    held = waiting()
    first, second = pictures(1)[:2]
    assert held.add(second) == 1
    assert not held
    assert held.add(first) == 0
    assert held
    assert held.first_seqs == [0]


def test_another_timeline_begins_anew_and_disorder_is_evened_out() -> None:
    held = waiting()
    units = pictures(1)[:3]
    units[2].dts = units[1].dts
    assert [held.add(unit) for unit in units] == [0, 0, 0]
    assert [unit.dts for unit in held.by_track[1]] == [0, 3000, 3001]
    (later,) = pictures(1, start_s=99)[:1]
    assert held.add(later) == 3
    assert held.payload_bytes == len(later.payload)


def test_units_and_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    held = waiting()
    monkeypatch.setattr(waiting_units, "WAITING_UNITS_MAX", 3)
    for index, unit in enumerate(pictures(1)[:3]):
        held.add(unit)
        assert held.full == (index == 2)
    monkeypatch.setattr(waiting_units, "WAITING_UNITS_MAX", 4)
    monkeypatch.setattr(waiting_units, "WAITING_BYTES_MAX", 121)
    assert not held.full
    monkeypatch.setattr(waiting_units, "WAITING_BYTES_MAX", 120)
    assert held.full


def test_what_is_taken_waits_no_longer() -> None:
    held = waiting()
    for unit in in_order((90_000, pictures(1)), (48_000, audio_units(1))):
        held.add(unit)
    taken = held.take([2])
    assert {unit.track_id for unit in taken[2]} == {2}
    assert list(held.by_track) == [1]
    assert held.payload_bytes == 30 * 40
    held.take([1])
    assert not held


def test_audio_from_before_the_first_picture_is_dropped() -> None:
    held = waiting()
    starting = {1: pictures(1, start_s=0.5), 2: list(audio_units(1))}
    assert held.drop_before_video(starting) == 24
    assert starting[2][0].dts == 24 * 1024
    assert held.drop_before_video({2: list(audio_units(1))}) == 0
