"""The words of routing: what decodes, what is refused, what agrees."""

import msgspec
import pytest

from edged.media.routing import (
    CLASSES,
    NO_UNITS,
    Match,
    OriginReport,
    OriginRow,
    OriginState,
    PopTelemetry,
    ReportedState,
    RoutingTable,
    Rule,
)


def test_states_that_take_streams() -> None:
    taking = {state for state in OriginState if state.takes_streams}
    assert taking == {OriginState.UP, OriginState.PROBATION}
    assert all(OriginState(state.value).value == state.value for state in ReportedState)


def test_there_is_a_count_for_each_class() -> None:
    assert len(NO_UNITS) == len(CLASSES)


def test_newer_tables_have_greater_stamps() -> None:
    def table(epoch: int, version: int) -> RoutingTable:
        return RoutingTable(epoch=epoch, version=version, issued=0.0, ttl_s=1.0, lease_ttl_s=1.0)

    assert table(1, 9).stamp < table(2, 1).stamp < table(2, 2).stamp


def test_a_row_is_small_and_new_fields_may_be_missing() -> None:
    row = OriginRow("ams1", "192.0.2.1:1941", OriginState.UP, 100, 12.5, 2)
    wire = msgspec.msgpack.encode(row)
    assert len(wire) < 60
    old = msgspec.msgpack.encode(["ams1", "192.0.2.1:1941", "up"])
    assert msgspec.msgpack.decode(old, type=OriginRow) == OriginRow(
        "ams1", "192.0.2.1:1941", OriginState.UP
    )


@pytest.mark.parametrize(
    "report",
    [
        ["Upper", 1, "up", 1, [1, 1, 1]],
        ["o1\n", 1, "up", 1, [1, 1, 1]],
        ["o1", -1, "up", 1, [1, 1, 1]],
        ["o1", 1, "suspect", 1, [1, 1, 1]],
        ["o1", 1, "up", -1, [1, 1, 1]],
        ["o1", 1, "up", 2**31 + 1, [1, 1, 1]],
        ["o1", 1, "up", 1, [1, 1]],
        ["o1", 1, "up", 1, [1, 1, 1], float("nan")],
    ],
)
def test_impossible_reports_are_refused(report: list[object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=OriginReport)


def test_a_report_is_read_by_those_who_know_fewer_or_more_fields() -> None:
    report = OriginReport("o1", 1, ReportedState.UP, 9, (3, 2, 1), 0.5, (7, 6, 5))
    wire = msgspec.msgpack.encode(report)
    assert msgspec.msgpack.decode(wire, type=OriginReport) == report
    fields = msgspec.msgpack.decode(wire)
    older = msgspec.msgpack.decode(msgspec.msgpack.encode(fields[:6]), type=OriginReport)
    assert older.ladder_free is None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(fields[:9]), type=OriginReport) == report
    assert report.ladders_free is None, "it does not say what a ladder costs"
    says = msgspec.structs.replace(report, ladder_free=(7, 3, 2), ladder_cost=3)
    assert says.ladders_free == (2, 1, 0)
    newer = msgspec.msgpack.encode([*fields, "what a later one says"])
    assert msgspec.msgpack.decode(newer, type=OriginReport) == report


def test_telemetry_is_bounded() -> None:
    many = {f"o{n}": (1, 1, 1) for n in range(257)}
    wire = msgspec.msgpack.encode(PopTelemetry(many))
    with pytest.raises(msgspec.ValidationError, match="length <= 256"):
        msgspec.msgpack.decode(wire, type=PopTelemetry)


def test_class_is_written_as_in_toml() -> None:
    assert msgspec.to_builtins(Match(class_="partner"))["class"] == "partner"
    assert msgspec.convert({"match": {"class": "basic"}}, Rule).match.class_ == "basic"
