"""The whole ladder of a stream, in one process."""

import gc
import resource
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from edged.errors import EdgedError
from edged.media.ladder import LadderPlan
from edged.media.track import Kind, Track
from edged.origin.ladder_engine import CONFIGS_MAX, LadderEngine
from tests.origin.sources import X264, Source, collect, make_rungs, make_source, plan_for

if TYPE_CHECKING:
    from edged.media.access_unit import AccessUnit

pytestmark = pytest.mark.e2e
MEMORY_GROWTH_BYTES_MAX = 8 * 2**20


def both() -> Source:
    return make_source(*X264, "-g", "15", "-c:a", "libopus", audio="sine=440:r=48000", seconds=1)


def test_units_are_counted_as_they_come_out() -> None:
    made = make_rungs(both())
    units = sorted((u for each in made.units.values() for u in each), key=lambda u: u.seq)
    assert [unit.seq for unit in units] == list(range(len(units)))
    statistics = made.statistics
    assert statistics.units_made == len(units)
    assert statistics.units_taken == len(both().units)
    assert statistics.pictures == 30
    assert statistics.errors == 0


def test_rungs_come_as_the_source_does() -> None:
    """Nothing is held back but what reordering and encoders' threads need."""
    source = make_source(*X264, "-bf", "0", "-g", "15", seconds=1)
    engine = LadderEngine(plan_for(source))
    engine.set_track(source.tracks[0])
    for index, unit in enumerate(source.units):
        engine.take(unit)
        assert engine.statistics().units_made >= 3 * (index - 1)


def test_units_of_no_track() -> None:
    source = both()
    engine = LadderEngine(plan_for(source))
    with pytest.raises(EdgedError, match="config 0 of track 1 is new"):
        engine.take(source.of(Kind.VIDEO)[0])
    engine.set_track(source.tracks[0])
    with pytest.raises(EdgedError, match="config 3"):
        engine.take(source.of(Kind.VIDEO)[0].replaced(config_id=3))
    for config_id in range(1, CONFIGS_MAX + 1):
        engine.set_track(structs.replace(source.tracks[0], config_id=config_id))
    with pytest.raises(EdgedError, match="config 0"):
        engine.take(source.of(Kind.VIDEO)[0])


def test_a_plan_that_comes_and_goes() -> None:
    source = both()
    plan = plan_for(source)
    engine = LadderEngine(LadderPlan())
    for track in source.tracks:
        engine.set_track(track)
    half = len(source.units) // 3
    out: list[Track | AccessUnit] = []
    for unit in source.units[:half]:
        assert engine.take(unit) == []
    out += engine.set_plan(plan)
    for unit in source.units[half:]:
        out += engine.take(unit)
    out += engine.set_plan(LadderPlan())
    made = collect(plan, engine, out)
    key = next(u for u in source.units[half:] if u.random_access and u.track_id == 1)
    assert {made.rung(r.name)[0].pts for r in plan.video} == {key.pts}
    assert engine.finish() == []
    assert made.rung(plan.audio[0].name)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_stays_flat() -> None:
    source = make_source(
        *X264, "-bf", "2", "-g", "15", "-c:a", "libopus", audio="sine=440:r=48000", seconds=2
    )
    engine = LadderEngine(plan_for(source))
    for track in source.tracks:
        engine.set_track(track)
    peaks: list[int] = []
    for turn in range(60):
        for unit in source.units:
            scale = 90_000 if unit.track_id == 1 else 48_000
            shift = 2 * turn * scale
            engine.take(unit.replaced(pts=unit.pts + shift, dts=unit.dts + shift))
        gc.collect()
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    assert peaks[-1] - peaks[10] < MEMORY_GROWTH_BYTES_MAX
