"""What one IRS is told: all when it asks, then changes; paced, and never more than the limits."""

import hypothesis
import pytest
from hypothesis import strategies as st
from msgspec import structs

from edged.media.live import (
    CHANNELS_MAX,
    ROW_BYTES_MAX,
    ROWS_MAX,
    LiveAsk,
    LiveReport,
    LiveRow,
)
from edged.policy import live_teller
from edged.policy.live_teller import CONFIRM_S, PACE_S, LiveTeller
from edged.wire.table import FRAME_BYTES_MAX, encode_frame


def row(channel: str, publication: int = 1, origin: str = "fra1", **more: object) -> LiveRow:
    made = LiveRow(channel, publication, 1, origin, "basic", "rtmp", 1_700_000_000.0)
    return structs.replace(made, **more)


def rows(count: int) -> dict[str, LiveRow]:
    return {f"c{at}": row(f"c{at}") for at in range(count)}


def asked(number: int = 1) -> LiveTeller:
    teller = LiveTeller()
    teller.asked(LiveAsk(number=number))
    return teller


def test_nothing_is_told_unasked() -> None:
    teller = LiveTeller()
    assert teller.report(rows(3), 0.0) is None
    assert teller.next_timeout() == float("inf")


def test_all_is_told_and_then_what_changes() -> None:
    teller, live = asked(7), rows(2)
    first = teller.report(live, 0.0)
    assert first == LiveReport(ask=7, number=1, changed=(live["c0"], live["c1"]), count=2)
    assert teller.next_timeout() == float("inf")
    assert teller.report(live, 1.0) is None, "nothing is new"
    live["c1"] = row("c1", origin="fra2")
    del live["c0"]
    second = teller.report(live, 2.0)
    assert second == LiveReport(ask=7, number=2, changed=(live["c1"],), removed=("c0",), count=1)
    assert teller.report(live, 2.0 + CONFIRM_S - 0.01) is None
    assert teller.report(live, 2.0 + CONFIRM_S) == LiveReport(ask=7, number=3, count=1)
    teller.asked(LiveAsk(number=8))
    assert teller.report(live, 20.0) == LiveReport(ask=8, number=1, changed=(live["c1"],), count=1)
    assert teller.rows_told == 4


def test_even_that_nothing_is_live_is_told() -> None:
    assert asked().report({}, 0.0) == LiveReport(ask=1, number=1, count=0)


@pytest.mark.parametrize(("count", "reports"), [(ROWS_MAX - 1, 1), (ROWS_MAX, 2), (1000, 3)])
def test_many_are_told_in_turns(count: int, reports: int) -> None:
    teller, live, now = asked(), rows(count), 5.0
    told: list[LiveReport] = []
    while not told or told[-1].more:
        report = teller.report(live, now)
        assert report is not None
        told.append(report)
        assert len(report.changed) <= ROWS_MAX
        if report.more:
            assert teller.report(live, now + PACE_S / 2) is None
            assert teller.next_timeout() == now + PACE_S
        now += PACE_S
    assert len(told) == reports
    assert [report.number for report in told] == list(range(1, reports + 1))
    assert {each.channel for report in told for each in report.changed} == live.keys()
    live.clear()
    gone = [teller.report(live, now := now + PACE_S) for _ in range(reports)]
    assert sum(len(report.removed) for report in gone if report is not None) == count
    assert gone[-1] is not None
    assert (gone[-1].count, gone[-1].more) == (0, False)


def test_beyond_the_limit_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_teller, "CHANNELS_MAX", 3)
    teller, live = asked(), rows(5)
    report = teller.report(live, 0.0)
    assert report is not None
    assert (report.count, report.omitted) == (3, 2)
    del live["c1"]
    report = teller.report(live, 1.0)
    assert report is not None
    assert [each.channel for each in report.changed] == ["c3"]
    assert (report.removed, report.count, report.omitted) == (("c1",), 3, 1)
    assert CHANNELS_MAX > ROWS_MAX


def test_a_report_of_the_longest_names_is_a_frame() -> None:
    names = [f"{at:03}" + "\U0001f600" * 253 for at in range(ROWS_MAX)]
    longest = [
        LiveRow(name, 2**63 - 1, 2**63 - 1, "o" * 63, "affiliate", "\U0001f600" * 64, 1e9, True)
        for name in names
    ]
    report = LiveReport(ask=1, number=1, changed=tuple(longest), count=2**31)
    frame = encode_frame(report)
    assert len(frame) < ROWS_MAX * ROW_BYTES_MAX + 256 < FRAME_BYTES_MAX


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("live", "gone", "moved", "wait", "asked")),
        st.integers(0, 9),
        st.floats(0, 20),
    ),
    max_size=60,
)


@hypothesis.given(STEPS)
def test_who_hears_all_reports_knows_what_is_live(
    steps: list[tuple[str, int, float]],
) -> None:
    teller, live, now = asked(), dict[str, LiveRow](), 0.0
    heard: dict[str, LiveRow] = {}
    ask, number = 1, 0
    for what, at, wait_s in [*steps, ("wait", 0, 1.0)]:
        channel = f"c{at}"
        match what:
            case "live":
                live[channel] = row(channel)
            case "gone":
                live.pop(channel, None)
            case "moved" if channel in live:
                live[channel] = structs.replace(live[channel], origin=f"o{wait_s}")
            case "asked":
                ask, number, heard = ask + 1, 0, {}
                teller.asked(LiveAsk(number=ask))
        now += wait_s
        report = teller.report(live, now)
        if report is None:
            continue
        number += 1
        assert (report.ask, report.number, report.more) == (ask, number, False)
        for gone in report.removed:
            del heard[gone]
        heard |= {each.channel: each for each in report.changed}
        assert report.count == len(heard)
        assert heard == live
    assert heard == live
