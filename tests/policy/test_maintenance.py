from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from edged.policy.maintenance import (
    WINDOWS_MAX,
    MaintenanceCalendar,
    MaintenanceConfig,
    MaintenanceWindow,
)

TWO, FOUR = datetime(2027, 1, 15, 2, tzinfo=UTC), datetime(2027, 1, 15, 4, tzinfo=UTC)


def test_a_window_is_in_force_from_its_begin_until_its_end() -> None:
    disks = MaintenanceWindow(origin="fra1", from_=TWO, until=FOUR, reason="new disks")
    # The same hours, as somebody in Frankfurt writes them.
    cet = timezone(timedelta(hours=1))
    fibre = MaintenanceWindow(
        link="ams-fra",
        from_=TWO.astimezone(cet),
        until=FOUR.astimezone(cet),
        usable=0.5,
        reason="splicing",
    )
    calendar = MaintenanceCalendar([disks, fibre])
    begin, end = TWO.timestamp(), FOUR.timestamp()
    assert calendar.restrictions(begin - 0.1) == []
    assert calendar.restrictions(end) == []
    for now in (begin, end - 0.1):
        first, second = calendar.restrictions(now)
        assert (first.kind, first.name, first.usable) == ("origin", "fra1", 0.0)
        assert first.reason == "maintenance: new disks"
        assert (second.kind, second.name, second.usable) == ("link", "ams-fra", 0.5)
        assert (second.since, second.until) == (begin, end)


def test_a_window_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="neither is given"):
        MaintenanceWindow(from_=TWO, until=FOUR, reason="r")
    with pytest.raises(ValueError, match="both are given"):
        MaintenanceWindow(origin="a", link="b", from_=TWO, until=FOUR, reason="r")
    with pytest.raises(ValueError, match="is not after from"):
        MaintenanceWindow(origin="a", from_=FOUR, until=FOUR, reason="r")


def test_a_calendar_has_so_many_windows_and_no_more() -> None:
    window = {"origin": "fra1", "from": TWO, "until": FOUR, "reason": "new disks"}
    most = msgspec.convert({"windows": [window] * WINDOWS_MAX}, MaintenanceConfig)
    assert len(most.windows) == WINDOWS_MAX
    with pytest.raises(msgspec.ValidationError, match=f"length <= {WINDOWS_MAX}"):
        msgspec.convert({"windows": [window] * (WINDOWS_MAX + 1)}, MaintenanceConfig)
