"""The speed test's work, in this process."""

import time

import pytest

from edged.errors import EdgedError
from edged.media import h264
from edged.origin import speed_child
from edged.origin.speed_child import HEIGHT, PICTURES, WIDTH, make_plan, make_source, measure

pytestmark = pytest.mark.e2e


def test_it_makes_the_default_ladder_of_a_whole_gop() -> None:
    track, units = make_source()
    assert (track.config.width, track.config.height) == (WIDTH, HEIGHT)
    assert len(units) == PICTURES
    assert [unit.random_access for unit in units] == [True] + [False] * (PICTURES - 1)
    assert h264.parse_config(track.config.record).width == WIDTH
    plan = make_plan(track)
    assert [rung.name for rung in plan.video] == ["720p", "480p", "360p", "160p"]
    assert {rung.preset for rung in plan.video} == {"veryfast"}


def test_it_counts_cpu_time_of_each_core_and_keeps_to_its_time() -> None:
    began = time.monotonic()
    one = measure(0.3, 1)
    assert time.monotonic() - began < 6
    assert one.tested == 1
    assert one.pictures >= speed_child.PICTURES_MIN
    source = make_source()[0]
    expected = make_plan(source).cost * one.pictures / 30 / one.cpu_s
    assert one.core_slots == pytest.approx(expected)
    assert 5 < one.core_slots < 2000, "no machine that these tests run on is beyond that"


def test_too_few_pictures_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_child, "PICTURES_MIN", 1000)
    monkeypatch.setattr(speed_child, "PATIENCE_S", 0.0)
    with pytest.raises(EdgedError, match=r"pictures in 0\.1 s: 1000 are needed to tell"):
        measure(0.1, 1)
