"""What viewers get of several children in a row."""

from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.origin.rung_output import RungOutput
from tests.policy.synthetic import RATES, video_track

if TYPE_CHECKING:
    from edged.media.track import Track

RUNG = video_track(RATES["30"])


def unit(
    dts: int, config_id: int = 0, *, discontinuity: bool = False, wallclock_us: int = 0
) -> AccessUnit:
    return AccessUnit(
        track_id=RUNG.track_id,
        seq=0,
        config_id=config_id,
        pts=dts,
        dts=dts,
        wallclock_us=wallclock_us,
        payload=b"x",
        random_access=True,
        discontinuity=discontinuity,
    )


class Taken:
    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.units: list[AccessUnit] = []
        self.output = RungOutput(self.tracks.append, self.units.extend)
        self.output.begin_child()


def test_an_equal_configuration_of_a_new_child_changes_nothing() -> None:
    taken = Taken()
    taken.output.set_track(RUNG)
    taken.output.take([unit(0), unit(10)])
    taken.output.begin_child()
    taken.output.set_track(RUNG)
    taken.output.take([unit(10), unit(20)])
    assert [u.dts for u in taken.units] == [0, 10, 20]
    assert [u.seq for u in taken.units] == [0, 1, 2]
    assert not any(u.discontinuity for u in taken.units)
    assert len(taken.tracks) == 1
    assert taken.output.units_dropped == 1
    assert taken.output.last_dts({RUNG.track_id, 99}) == 20
    assert taken.output.last_dts({99}) is None


def test_another_one_is_a_discontinuity() -> None:
    taken = Taken()
    taken.output.set_track(RUNG)
    taken.output.take([unit(0)])
    taken.output.begin_child()
    other = structs.replace(RUNG, config=structs.replace(RUNG.config, width=2))
    taken.output.set_track(other)
    taken.output.take([unit(10), unit(20)])
    assert [track.config_id for track in taken.tracks] == [0, 1]
    assert [u.config_id for u in taken.units] == [0, 1, 1]
    assert [u.discontinuity for u in taken.units] == [False, True, False]


def test_a_timeline_that_begins_anew_may_go_back() -> None:
    taken = Taken()
    taken.output.set_track(RUNG)
    taken.output.take([unit(100), unit(0, discontinuity=True), unit(10)])
    assert [u.dts for u in taken.units] == [100, 0, 10]


def test_a_timeline_that_began_anew_while_no_child_was_there() -> None:
    """The child that follows begins behind it, and knows nothing of it."""
    taken = Taken()
    taken.output.set_track(RUNG)
    taken.output.take([unit(3600 * 90_000, wallclock_us=10_000_000)])
    taken.output.begin_child()
    taken.output.set_track(RUNG)
    again = [unit(3599 * 90_000, wallclock_us=9_000_000)]
    new = [unit(0, wallclock_us=12_000_000), unit(3000, wallclock_us=12_033_333)]
    taken.output.take([*again, *new])
    assert [u.dts for u in taken.units] == [3600 * 90_000, 0, 3000]
    assert [u.discontinuity for u in taken.units] == [False, True, False]
    assert taken.output.units_dropped == 1


@pytest.mark.parametrize("back_s", [0.2, 0.5, 2.5])
def test_one_that_began_anew_a_little_behind(back_s: float) -> None:
    """Its key picture is not taken for one that was shown: all that follows depends on it."""
    taken = Taken()
    taken.output.set_track(RUNG)
    taken.output.take([unit(10 * 90_000, wallclock_us=10_000_000)])
    taken.output.begin_child()
    taken.output.set_track(RUNG)
    key = unit(int((10 - back_s) * 90_000), wallclock_us=12_000_000)
    taken.output.take([unit(int(9.9 * 90_000), wallclock_us=9_900_000), key])
    assert [u.dts for u in taken.units][1:] == [key.dts]
    assert taken.units[-1].discontinuity
    assert taken.output.units_dropped == 1


def test_a_unit_of_no_track() -> None:
    taken = Taken()
    taken.output.set_track(RUNG)
    taken.output.begin_child()
    with pytest.raises(RemoteProtocolError, match="not known"):
        taken.output.take([unit(0)])
