from edged.policy.gops import Gops
from tests.policy.synthetic import video_units


def gops(*seconds: float) -> Gops:
    made = Gops()
    for unit in video_units([round(s * 90_000) for s in seconds], 0, reorder=0):
        unit.pts += 6000
        made.note(unit)
    return made


def test_the_last_gop_is_what_is_known() -> None:
    assert gops().ticks == gops(4).ticks == 0
    seen = gops(4, 6, 7)
    assert (seen.ticks, seen.last_dts, seen.shift) == (90_000, 630_000, 6000)


def test_random_access_that_goes_back_or_follows_a_break_is_no_gop() -> None:
    seen = gops(4, 1)
    assert (seen.ticks, seen.last_dts) == (0, 90_000)
    seen = gops(4)
    seen.forget()
    for unit in video_units([900_000], 1):
        seen.note(unit)
    assert seen.ticks == 0


def test_the_next_random_access_is_foreseen() -> None:
    assert gops(4).next_from(0) is None
    seen = gops(2, 4)
    assert seen.next_from(360_000) == 360_000
    assert seen.next_from(360_001) == 540_000
    assert seen.next_from(539_999) == 540_000
    assert seen.next_from(100) == 360_000, "not before the last one"
    seen.forget()
    assert seen.next_from(360_000) is None
