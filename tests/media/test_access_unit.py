import pytest

from edged.media.access_unit import AccessUnit, make_unit

UNIT = AccessUnit(
    track_id=2,
    seq=2**40,
    config_id=3,
    pts=2**50,
    dts=-1024,
    wallclock_us=1_700_000_000_000_000,
    payload=bytes(range(3)),
    random_access=True,
    discontinuity=True,
    capture_us=7,
)


def test_units_are_equal_by_value() -> None:
    assert UNIT.replaced() == UNIT
    assert UNIT.replaced() is not UNIT
    assert UNIT != "a unit"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("track_id", 3),
        ("seq", 2**63),
        ("config_id", 0),
        ("pts", -(2**62)),
        ("dts", 2**62 + 1),
        ("wallclock_us", 0),
        ("payload", b""),
        ("random_access", False),
        ("discontinuity", False),
        ("capture_us", None),
    ],
)
def test_each_field_counts(field: str, value: object) -> None:
    other = UNIT.replaced(**{field: value})
    assert getattr(other, field) == value
    assert other != UNIT
    assert other.replaced(**{field: getattr(UNIT, field)}) == UNIT
    assert f"{field}={value!r}" in repr(other)


def test_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="argument"):
        UNIT.replaced(nothing=1)


def test_what_a_publisher_sends_has_no_place_in_the_stream_yet() -> None:
    unit = make_unit(1, 2, 90, 80, b"picture", True)
    assert unit == AccessUnit(
        track_id=1,
        seq=0,
        config_id=2,
        pts=90,
        dts=80,
        wallclock_us=0,
        payload=b"picture",
        random_access=True,
    )
