"""A PoP's side of who is live where, on the mock clock."""

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.irs.live_reports import LOOK_S, LiveReports
from edged.media.live import ROWS_MAX, LiveAsk, LiveReport, LiveRow
from edged.policy.live_teller import PACE_S
from tests.policy.test_live_teller import row, rows

Told = list[tuple[float, str, LiveReport]]


async def test_who_asks_is_told_at_once_and_of_changes_within_a_second(
    autojump_clock: MockClock,
) -> None:
    live, told = rows(2), Told()
    looked = 0

    def look() -> dict[str, object]:
        nonlocal looked
        looked += 1
        return live  # type: ignore[return-value]

    reports = LiveReports(
        look,  # type: ignore[arg-type]
        lambda session, report: told.append((trio.current_time(), session, report)),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.run)
        await trio.sleep(3 * LOOK_S + 0.5)
        assert looked == 0, "nobody has asked"
        asked_at = trio.current_time()
        reports.asked("irs:1", LiveAsk(number=1))
        await trio.sleep(0.001)
        ((at, session, report),) = told
        assert (at, session, report.count) == (asked_at, "irs:1", 2)
        live["c9"] = row("c9")
        reports.asked("irs:2", LiveAsk(number=4))
        await trio.sleep(LOOK_S + 0.01)
        assert sorted((session, report.ask, report.count) for _, session, report in told[1:]) == [
            ("irs:1", 1, 3),
            ("irs:2", 4, 3),
        ]
        reports.ended("irs:1")
        del live["c0"]
        await trio.sleep(LOOK_S)
        assert [(session, report.removed) for _, session, report in told[3:]] == [
            ("irs:2", ("c0",))
        ]
        nursery.cancel_scope.cancel()


async def test_many_follow_at_their_pace(autojump_clock: MockClock) -> None:
    told = Told()
    reports = LiveReports(
        lambda: rows(2 * ROWS_MAX + 5),
        lambda session, report: told.append((trio.current_time(), session, report)),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.run)
        reports.asked("irs:1", LiveAsk(number=1))
        await trio.sleep(3 * PACE_S)
        assert [len(report.changed) for _, _, report in told] == [ROWS_MAX, ROWS_MAX, 5]
        assert round(told[-1][0] - told[0][0], 6) == 2 * PACE_S
        nursery.cancel_scope.cancel()


async def test_a_bug_in_it_is_no_end_of_it(autojump_clock: MockClock) -> None:
    """It runs beside the sessions by which tables come."""
    told, bugs = Told(), 2

    def look() -> dict[str, LiveRow]:
        nonlocal bugs
        if bugs:
            bugs -= 1
            raise KeyError("planted")
        return rows(2)

    reports = LiveReports(
        look, lambda session, report: told.append((trio.current_time(), session, report))
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.run)
        reports.asked("irs:1", LiveAsk(number=1))
        with capture_logs() as logs:
            await trio.sleep(3 * LOOK_S)
        nursery.cancel_scope.cancel()
    assert [report.count for _, _, report in told] == [2]
    assert [line["event"] for line in logs] == ["who is live not told"] * 2
