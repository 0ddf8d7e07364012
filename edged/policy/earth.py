"""Distances over the Earth, and how long light takes in cables that do not lie straight."""

import math

EARTH_KM = 6371.0
RTT_MS_PER_KM = 2 / 200.0  # 200 km per ms in glass, both ways.
DETOUR = 1.3  # Of cables, over the great circle.

Place = tuple[float, float]  # Latitude and longitude in degrees.


def great_circle_km(one: Place, other: Place) -> float:
    """The shortest way over the surface (haversine)."""
    phi, psi = math.radians(one[0]), math.radians(other[0])
    across = math.radians(other[1] - one[1])
    root = (
        math.sin((psi - phi) / 2) ** 2 + math.cos(phi) * math.cos(psi) * math.sin(across / 2) ** 2
    )
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(root)))


def cable_rtt_ms(one: Place, other: Place) -> float:
    """What a round trip by cable takes, as a rule."""
    return RTT_MS_PER_KM * DETOUR * great_circle_km(one, other)
