"""Access units: what a live stream is made of."""

from typing import Any

from mypy_extensions import mypyc_attr


@mypyc_attr(acyclic=True)
class AccessUnit:  # noqa: PLW1641 - equal by value, and it changes
    """One access unit of one track.

    `seq` counts all units of a publication, across its tracks, in the order in which its PoP
    received them. `pts` and `dts` are ticks of the track's timescale, unrolled to 64 bit.
    `wallclock_us` (since 1970) is the stream's anchor + (pts - pts0). `payload`: H.264 and H.265
    as length-prefixed NAL units (4-byte lengths), AV1 as OBUs (low-overhead format, no temporal
    delimiters), VP8/VP9 frames, raw AAC, Opus packets.
    """

    __slots__ = (
        *("capture_us", "config_id", "discontinuity", "dts", "payload", "pts", "random_access"),
        *("seq", "track_id", "wallclock_us"),
    )

    def __init__(  # noqa: PLR0913 - what a unit has
        self,
        *,
        track_id: int,
        seq: int,
        config_id: int,
        pts: int,
        dts: int,
        wallclock_us: int,
        payload: bytes,
        random_access: bool = False,
        discontinuity: bool = False,
        capture_us: int | None = None,
    ) -> None:
        self.track_id = track_id
        self.seq = seq
        self.config_id = config_id
        self.pts = pts
        self.dts = dts
        self.wallclock_us = wallclock_us
        self.payload = payload
        self.random_access = random_access
        self.discontinuity = discontinuity
        self.capture_us = capture_us

    def replaced(self, **changes: Any) -> "AccessUnit":  # noqa: ANN401 - of any field
        """A copy in which these are others."""
        return AccessUnit(**(self.fields() | changes))

    def fields(self) -> dict[str, Any]:
        """Its fields by name."""
        return {
            "track_id": self.track_id,
            "seq": self.seq,
            "config_id": self.config_id,
            "pts": self.pts,
            "dts": self.dts,
            "wallclock_us": self.wallclock_us,
            "payload": self.payload,
            "random_access": self.random_access,
            "discontinuity": self.discontinuity,
            "capture_us": self.capture_us,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccessUnit) and self.fields() == other.fields()

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.fields().items())
        return f"AccessUnit({told})"


def make_unit(  # noqa: PLR0917 - for C, where names would have to be looked at
    track_id: int,
    config_id: int,
    pts: int,
    dts: int,
    payload: bytes,
    random_access: bool,
) -> AccessUnit:
    """A unit that a publisher has just sent."""
    return AccessUnit(
        track_id=track_id,
        seq=0,
        config_id=config_id,
        pts=pts,
        dts=dts,
        wallclock_us=0,
        payload=payload,
        random_access=random_access,
    )
