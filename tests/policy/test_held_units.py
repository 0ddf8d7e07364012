import itertools

import msgspec
import pytest

from edged.media.access_unit import AccessUnit
from edged.policy import held_units
from edged.policy.boundary import Boundary
from edged.policy.cutter import RenditionCutter
from edged.policy.held_units import HELD_S_MAX, HeldUnits, is_decided
from tests.policy.ladder import Rung, make_ladder
from tests.policy.synthetic import segment
from tests.policy.test_segment_rule import cutter, unit


def rung() -> RenditionCutter:
    made = cutter()
    made.track = msgspec.structs.replace(made.track, track_id=3)
    return made


def held_at(seconds: float, *more_s: float) -> HeldUnits:
    held = HeldUnits()
    for seq, time_s in enumerate((seconds, *more_s)):
        held.add(unit(time_s, 90_000).replaced(track_id=3, seq=seq))
    return held


def due(
    held: HeldUnits, leader: RenditionCutter, came: RenditionCutter | None, now_s: float
) -> str:
    own = rung()
    came = own if came is None else came
    now = unit(now_s, came.track.timescale)
    over, in_vain = held.due({3: own, 1: leader}, leader, came, now)
    assert not (over and in_vain)
    return "over" if over else "in vain" if in_vain else ""


def key(seconds: float) -> AccessUnit:
    return unit(seconds, 90_000)


def test_it_is_decided_once_the_leader_has_come_as_far() -> None:
    leader = cutter()
    leader.add_unit(unit(12, 90_000, random_access=False), [])
    assert is_decided(leader, key(12), 90_000)
    assert is_decided(leader, key(12.01), 90_000), "within half a picture"
    assert not is_decided(leader, key(12.02), 90_000)
    picture = unit(12.1, 90_000)
    picture.pts += 6000
    leader.gops.note(picture)
    assert is_decided(leader, key(12.17), 90_000), "it decodes its own earlier"
    leader.restart(0)
    assert is_decided(leader, key(99), 90_000), "times do not compare"


def test_units_wait_for_the_leader_but_not_for_long() -> None:
    leader = cutter()
    held = held_at(12)
    assert due(held, leader, None, 11.99 + HELD_S_MAX) == ""
    assert due(held, leader, None, 12.01 + HELD_S_MAX) == "in vain"
    assert due(held, leader, cutter(audio=True), 12.01 + HELD_S_MAX) == "in vain"
    assert due(held, leader, cutter(audio=True), 3) == "", "audio may be far behind"
    assert due(held, leader, leader, 3) == "in vain", "another timeline"
    leader.add_unit(unit(12, 90_000), [])
    assert due(held, leader, leader, 12) == "over"


def test_a_boundary_from_elsewhere_ends_the_wait() -> None:
    held, own, leader = held_at(12), rung(), cutter()
    own.boundaries.append(Boundary(pts=0, timescale=1, segment_us=1))
    assert held.due({3: own}, leader, own, key(12)) == ([3], [])


def test_units_and_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = cutter()
    monkeypatch.setattr(held_units, "HELD_UNITS_MAX", 2)
    assert due(held_at(12, 12.01), leader, None, 12.01) == ""
    assert due(held_at(12, 12.01, 12.02), leader, None, 12.02) == "in vain"
    monkeypatch.setattr(held_units, "HELD_UNITS_MAX", 3)
    monkeypatch.setattr(held_units, "HELD_BYTES_MAX", 3)
    assert due(held_at(12, 12.01, 12.02), leader, None, 12.02) == ""
    monkeypatch.setattr(held_units, "HELD_BYTES_MAX", 2)
    assert due(held_at(12, 12.01, 12.02), leader, None, 12.02) == "in vain"


def test_what_is_held_is_told() -> None:
    held = HeldUnits()
    assert not held
    assert held.first_seqs == []
    held = held_at(12, 13)
    assert held
    assert held.first_seqs == [0]


@pytest.mark.parametrize("lead_frames", [1, 3, 9])
def test_a_rung_that_comes_first_is_delayed_at_segments_only(lead_frames: int) -> None:
    """Its part ends when it would, but for the first of each segment."""
    tracks, units = make_ladder([Rung(), Rung()])
    arrivals = sorted(
        (
            (
                u.dts / (48_000 if u.track_id == 2 else 90_000)
                - lead_frames / 30 * (u.track_id == 3)
            ),
            n,
        )
        for n, u in enumerate(units)
    )
    units = [units[number] for _, number in arrivals]
    for seq, one in enumerate(units):
        one.seq = seq
    run = segment(tracks, units)
    assert all(part.independent for part in run.parts("v1") if part.index == 0)
    assert {e.duration for e in run.segments("v1")[:-1]} == {180_000}
    made = {id(e): position for e, position in zip(run.events, run.made_by, strict=True)}
    late = [
        part.index
        for part in run.parts("v1")
        if made[id(part)] >= 0 and units[made[id(part)]].track_id != 3
    ]
    assert set(late) <= {0, 1, 9}
    for before, after in itertools.pairwise(run.parts("v1")):
        assert after.tfdt == before.tfdt + before.duration
