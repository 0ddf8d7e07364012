import pytest

from edged.policy.earth import cable_rtt_ms, great_circle_km

LONDON, NEW_YORK = (51.51, -0.13), (40.71, -74.01)


def test_distances_are_those_of_the_map() -> None:
    assert great_circle_km(LONDON, NEW_YORK) == pytest.approx(5570, rel=0.01)
    assert great_circle_km(LONDON, LONDON) == 0
    assert great_circle_km((0, 0), (0, 180)) == pytest.approx(20_015, rel=0.001)


def test_round_trips_are_about_what_cables_have() -> None:
    assert 65 < cable_rtt_ms(LONDON, NEW_YORK) < 80
