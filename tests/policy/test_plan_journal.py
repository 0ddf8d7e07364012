"""The journal of plans: what is written is read, and nothing else is."""

import math
import random
import struct
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.routing import UNIX_MAX
from edged.policy import plan_journal
from edged.policy.plan_journal import (
    FORMAT,
    MAGIC,
    RECORD_BYTES_MAX,
    JournalHeader,
    PlanRecord,
    Record,
    digest_of,
    encode,
    frame,
    read_journal,
)
from edged.policy.planner import LeasePlan, plan_leases
from tests.policy.journal_worlds import make_inputs, make_moves, make_records, rules_record

HEADER = JournalHeader(edged="1", solver="HiGHS 1", format=FORMAT)


def journal(
    records: Sequence[Record], header: JournalHeader = HEADER, magic: bytes = MAGIC
) -> bytes:
    whole: list[JournalHeader | Record] = [header, *records]
    return magic + b"".join(frame(encode(each)) for each in whole)


def written_at(unix: float) -> bytes:
    (record,) = make_records(1)
    return journal([msgspec.structs.replace(record, unix=unix)])


def test_what_is_written_is_read() -> None:
    records: list[Record] = [rules_record(), *make_records(3), *make_moves(2)]
    header, found = read_journal(journal(records), "a.plans")
    assert header == HEADER
    assert list(found) == records


def magic_of(number: int) -> bytes:
    return b"edged plans %d\n" % number


def test_of_format_2_all_is_read_and_its_moves_knew_no_rules() -> None:
    records: list[Record] = [rules_record(), *make_records(1), *make_moves(3, rules=False)]
    before = []
    for each in records:  # As they were written then.
        body = msgspec.msgpack.decode(encode(each))
        if body["type"] == "moves":
            del body["inputs"]["rules"], body["inputs"]["refused"]
        before.append(frame(msgspec.msgpack.encode(body)))
    first = frame(encode(msgspec.structs.replace(HEADER, format=2)))
    header, found = read_journal(magic_of(2) + first + b"".join(before), "a.plans")
    assert header.format == 2
    assert list(found) == records


def test_of_format_1_the_plans_are_read() -> None:
    records = [msgspec.structs.replace(each, tables=None) for each in make_records(3)]
    before = []
    for each in records:  # As they were written then.
        body = msgspec.msgpack.decode(encode(each))
        del body["type"], body["tables"]
        before.append(frame(msgspec.msgpack.encode(body)))
    first = frame(msgspec.msgpack.encode({"edged": "1", "solver": "HiGHS 1"}))
    header, found = read_journal(magic_of(1) + first + b"".join(before), "a.plans")
    assert header == msgspec.structs.replace(HEADER, format=1)
    assert list(found) == records


def test_what_a_crash_has_cut_is_left_out() -> None:
    records = list(make_records(2))
    whole = journal(records)
    for size in (len(whole) - 1, len(journal(records[:1])) + 5, len(journal(records[:1]))):
        assert list(read_journal(whole[:size], "a.plans")[1]) == records[:1]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "a.plans is no journal of plans"),
        (b"edged plan 2\n", "a.plans is no journal of plans"),
        (b"edged plans 4\n", "a.plans is a journal of format 4, of a newer edged; .* up to 3"),
        (b"edged plans 02\n", "a.plans is no journal of plans"),
        (
            journal([], magic=magic_of(1)),
            "a.plans: its header is of format 3, its first line of 1",
        ),
        (MAGIC, "a.plans: its header cannot be read"),
        (MAGIC + frame(b"\xc0"), "a.plans: its header cannot be read"),
        (journal([]) + frame(b"\xc0"), "a.plans, byte "),
        (written_at(UNIX_MAX + 1), r"a\.plans, byte \d+: no plan: .* - at `\$\.unix`"),
        (written_at(math.nan), r"a\.plans, byte \d+: no plan: .* - at `\$\.unix`"),
        (journal([])[:-1] + b"\0", "a.plans, byte 14: the checksum is wrong"),
        (
            MAGIC + struct.pack("!II", RECORD_BYTES_MAX + 1, 0),
            f"a record of {RECORD_BYTES_MAX + 1} bytes exceeds {RECORD_BYTES_MAX}",
        ),
    ],
)
def test_what_is_none_is_named(data: bytes, told: str) -> None:
    with pytest.raises(RemoteProtocolError, match=told):
        list(read_journal(data, "a.plans")[1])


def test_the_last_time_that_is_a_date_is_one() -> None:
    (record,) = read_journal(written_at(UNIX_MAX), "a.plans")[1]
    assert isinstance(record, PlanRecord)
    assert datetime.fromtimestamp(record.unix, UTC).year == 9999


def test_a_record_at_the_limit_is_waited_for() -> None:
    data = journal([]) + struct.pack("!II", RECORD_BYTES_MAX, 0) + b"x"
    assert list(read_journal(data, "a.plans")[1]) == []


@pytest.mark.parametrize(("size", "whole"), [(1000, True), (1001, False)])
def test_what_inflates_too_far_is_refused(
    size: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_journal, "INFLATED_BYTES_MAX", 1000)
    body = msgspec.msgpack.encode({"edged": "", "solver": "x" * (size - 26), "format": 3})
    assert len(body) == size
    data = MAGIC + frame(body)
    if whole:
        assert read_journal(data, "a.plans")[0].edged == ""
        return
    with pytest.raises(RemoteProtocolError, match="it exceeds 1000 bytes"):
        read_journal(data, "a.plans")


@pytest.mark.parametrize("body", [b"no zlib", zlib.compress(b"x" * 100)[:-4]])
def test_what_cannot_be_inflated_is_refused(body: bytes) -> None:
    data = MAGIC + struct.pack("!II", len(body), zlib.crc32(body)) + body
    with pytest.raises(RemoteProtocolError, match="byte 14: "):
        read_journal(data, "a.plans")


@hypothesis.given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_byte_may_change(place: int, value: int) -> None:
    """A byte that is another is told, or leaves out what comes behind it: never another plan."""
    records = list(make_records(2))
    data = bytearray(journal(records))
    place %= len(data)
    hypothesis.assume(data[place] != value)
    data[place] = value
    found: list[Record] = []
    try:
        found += read_journal(bytes(data), "a.plans")[1]
    except RemoteProtocolError:
        return
    assert found == records[: len(found)]
    assert len(found) < 2


def test_the_digest_is_of_every_row() -> None:
    inputs = make_inputs(random.Random(3))  # noqa: S311 - no secret
    plan = plan_leases(inputs.origins, inputs.pops, reserve_fraction=0.01)
    same = LeasePlan(leases=dict(reversed(plan.leases.items())), policy="leases")
    assert digest_of(same) == digest_of(plan), "by name, not by the order of making"
    key, leases = next(iter(plan.leases.items()))
    row = leases.rows[0]
    other_row = msgspec.structs.replace(row, quota=row.quota + 1)
    for other in (
        msgspec.structs.replace(leases, rows=(other_row, *leases.rows[1:])),
        msgspec.structs.replace(leases, kept={**leases.kept, "fra": 99}),
    ):
        changed = LeasePlan(leases={**plan.leases, key: other}, policy=plan.policy)
        assert digest_of(changed) != digest_of(plan)
