"""A calendar of maintenance: origins and links that are not to be used for a time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from edged.media.routing import NAME_PATTERN, TEXT_CHARS_MAX
from edged.policy.restrictions import Restriction

WINDOWS_MAX = 1000
When = Annotated[datetime, Meta(tz=True)]
MaybeName = Annotated[str, Meta(pattern=rf"^\Z|{NAME_PATTERN}")]


class MaintenanceWindow(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}
):
    """One `[[irs.sources.maintenance.windows]]`: an origin or a link, from when until when."""

    origin: MaybeName = ""
    link: MaybeName = ""
    from_: When
    until: When
    usable: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    reason: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]

    def __post_init__(self) -> None:
        """Raise ValueError for what contradicts itself."""
        if bool(self.origin) == bool(self.link):
            given = "both are given" if self.origin else "neither is given"
            raise ValueError(f"origin or link, one of them: {given}")
        if self.until <= self.from_:
            raise ValueError(f"until {self.until} is not after from {self.from_}")


class MaintenanceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[irs.sources.maintenance]`."""

    windows: Annotated[tuple[MaintenanceWindow, ...], Meta(max_length=WINDOWS_MAX)] = ()


class MaintenanceCalendar:
    """What is under maintenance when."""

    def __init__(self, windows: Sequence[MaintenanceWindow]) -> None:
        self._restrictions = [
            Restriction(
                kind="origin" if window.origin else "link",
                name=window.origin or window.link,
                reason=f"maintenance: {window.reason}",
                usable=window.usable,
                since=window.from_.timestamp(),
                until=window.until.timestamp(),
            )
            for window in windows
        ]

    def restrictions(self, now_unix: float) -> list[Restriction]:
        """Those in force."""
        return [each for each in self._restrictions if each.holds(now_unix)]
