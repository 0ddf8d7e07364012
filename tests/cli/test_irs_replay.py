"""`edged irs replay`: a journal made again, one plan explained, and what is wrong with one."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from edged.cli import irs_replay
from edged.cli.irs_replay import Played, _describe_limited, _describe_price
from edged.errors import ConfigError, RemoteProtocolError, SolverError, ToolMissingError
from edged.irs.journal import solver_version
from edged.policy import plan_journal
from edged.policy.flows import Binding
from edged.policy.plan_journal import (
    FORMAT,
    MAGIC,
    JournalHeader,
    Record,
    encode,
    frame,
)
from edged.policy.plan_replay import PlanExplanation
from tests.cli.invoke import Answer
from tests.policy.journal_worlds import make_moves, make_records, make_sheds, rules_record

SEED, SCARCE = 0, 3  # At a table of this version some find no place.


def write(path: Path, records: Sequence[Record], solver: str = "", *, number: int = FORMAT) -> None:
    header = JournalHeader(edged="1", solver=solver or solver_version(), format=number)
    whole: list[JournalHeader | Record] = [header, rules_record(), *records]
    if number == 1:
        whole.remove(rules_record())
    magic = b"edged plans %d\n" % number
    path.write_bytes(magic + b"".join(frame(encode(each)) for each in whole))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nineteen plans in two files."""
    records = list(make_records(19))
    write(tmp_path / "1.plans", records[:12])
    write(tmp_path / "2.plans", records[12:])
    return tmp_path


def test_all_is_the_same(folder: Path) -> None:
    answer = Answer("irs", "replay", folder)
    assert answer.code == 0
    first, second, third = answer.out.splitlines()
    assert first == (
        f"19 plans in 2 files, by {solver_version()}: 2026-09-21 14:13:20 to 2026-09-21 14:13:38"
        " UTC"
    )
    assert second.startswith("✓ 19 made again, all the same, byte for byte; ")
    assert third == "✓ 79 tables pushed, byte for byte"
    played = msgspec.json.decode(Answer("irs", "replay", folder, "--json").out, type=Played)
    assert (played.plans, played.same, played.skipped, played.different) == (19, 19, 0, [])
    assert played.plan_ms_p99 >= played.plan_ms_p50 > 0


def test_of_the_second_file_alone_nothing_can_be_made(folder: Path) -> None:
    answer = Answer("irs", "replay", folder / "2.plans")
    assert answer.code == 0
    assert answer.out.splitlines()[1:] == [
        "✓ 1 made again, all the same, byte for byte; " + answer.out.splitlines()[1].split("; ")[1],
        "· 6 skipped: the solver had not begun cold before them",
        "✓ 4 tables pushed, byte for byte",
    ]


def test_tables_that_are_others_are_listed_though_the_leases_are_the_same(folder: Path) -> None:
    """A ttl that is not the one of then, as a reload changes it."""
    records = list(make_records(12))
    tables = records[5].tables
    assert tables is not None
    other = msgspec.structs.replace(tables, ttl_s=31.0)
    records[5] = msgspec.structs.replace(records[5], tables=other)
    write(folder / "1.plans", records)
    answer = Answer("irs", "replay", folder)
    assert answer.code == 1
    assert "✕ 1 of 19 came out otherwise" in answer.out.splitlines()
    assert ["7", "v6", "tables"] in [line.split()[:3] for line in answer.out.splitlines()]


def test_what_had_to_go_is_named_again(folder: Path) -> None:
    write(folder / "3.plans", list(make_sheds(6)))
    answer = Answer("irs", "replay", folder)
    assert answer.code == 0
    assert answer.out.splitlines()[-2:] == [
        "✓ 6 plans of moves, and what PoPs were asked",
        "✓ 4 of these with streams that had to go, and the orders",
    ]


def test_moves_are_made_again(folder: Path) -> None:
    moves = list(make_moves(9))
    write(folder / "3.plans", moves)
    answer = Answer("irs", "replay", folder)
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "✓ 9 plans of moves, and what PoPs were asked"
    moves[3] = msgspec.structs.replace(moves[3], digest=bytes(16))
    write(folder / "3.plans", moves[1:])
    answer = Answer("irs", "replay", folder)
    assert answer.code == 0
    assert answer.out.splitlines()[-1].startswith("· 8 plans of moves skipped")
    write(folder / "3.plans", moves)
    answer = Answer("irs", "replay", folder)
    assert answer.code == 1
    assert "✕ 1 of 28 came out otherwise" in answer.out.splitlines()
    played = msgspec.json.decode(Answer("irs", "replay", folder, "--json").out, type=Played)
    assert (played.moves, played.moves_same, len(played.different)) == (9, 8, 1)


def test_of_an_older_journal_the_leases_are_made_again_and_what_it_lacks_is_said(
    folder: Path,
) -> None:
    records = [msgspec.structs.replace(each, tables=None) for each in make_records(12)]
    write(folder / "1.plans", records, number=1)
    answer = Answer("irs", "replay", folder)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[1].startswith("✓ 19 made again")
    assert lines[-1] == (
        "· an older edged wrote some of it: of those plans it has the leases, not what made tables"
        " of them (rules, times), nor moves"
    )
    (folder / "1.plans").write_bytes(b"edged plans 4\nwhat is to come")
    answer = Answer("irs", "replay", folder)
    assert "is a journal of format 4, of a newer edged; this one reads up to 3" in answer.err


def test_moves_of_a_journal_before_rules_are_made_again_and_it_is_said(folder: Path) -> None:
    write(folder / "3.plans", list(make_moves(9, rules=False)), number=2)
    answer = Answer("irs", "replay", folder)
    assert answer.code == 0
    assert answer.out.splitlines()[-2:] == [
        "✓ 9 plans of moves, and what PoPs were asked",
        "· an older edged wrote some of it: its plans of moves knew neither what rules let which"
        " stream go where nor what PoPs had refused",
    ]


def test_plans_whose_rules_are_in_what_cannot_be_read_are_counted(folder: Path) -> None:
    (folder / "2.plans").unlink()
    lost = msgspec.structs.replace(rules_record(), digest=b"another")
    records: list[Record] = [lost, *make_records(12)]
    path = folder / "1.plans"
    header = JournalHeader(edged="1", solver=solver_version(), format=FORMAT)
    path.write_bytes(MAGIC + b"".join(frame(encode(each)) for each in (header, *records)))
    answer = Answer("irs", "replay", folder)
    assert answer.code == 0
    assert answer.out.splitlines()[-1].startswith("· 12 plans of which no table can be made")


def test_what_is_another_is_listed_and_ends_with_1(folder: Path) -> None:
    records = list(make_records(19))
    spoilt = [msgspec.structs.replace(each, digest=bytes(16)) for each in records[12:]]
    write(folder / "2.plans", spoilt, "HiGHS 0.9")
    answer = Answer("irs", "replay", folder)
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert "✕ 7 of 19 came out otherwise" in lines
    assert sum(line.startswith("7 v") for line in lines) == 7
    assert any(line.split()[:1] == ["7"] and "solved, then and now" in line for line in lines)
    assert (
        lines[-1] == f"this is {solver_version()}: another solver may choose another of equal plans"
    )


@pytest.mark.parametrize("version", [3, 0])
def test_one_plan_is_explained(folder: Path, version: int) -> None:
    answer = Answer("irs", "replay", folder, "--table", str(version))
    assert answer.code == 0
    lines = answer.out.splitlines()
    number = version or 19
    assert lines[0].startswith(f"plan of table epoch 7 v{number}, 2026-09-21 14:13:")
    assert "as it was then: by leases; 5 PoP shards" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == ["ams", "fra", "nyc"]
    told = msgspec.json.decode(
        Answer("irs", "replay", folder, "--table", str(version), "--json").out, type=PlanExplanation
    )
    assert (told.version, told.verdict, told.pops) == (number, "same", 5)
    assert told.flows is not None
    for each in told.flows.binding:
        assert each.price_ms > 0
    for origin in told.origins:
        assert 0 <= origin.kept <= origin.leased <= origin.room


def limit(kind: str, name: str, class_label: str, price_ms: float) -> Binding:
    return Binding(kind=kind, name=name, class_label=class_label, limit=9, price_ms=price_ms)


@pytest.mark.parametrize(
    ("binding", "limited", "price"),
    [
        (limit("origin", "fra", "partner", 12.34), "all", "saves 12.3 ms of round trip"),
        (
            limit("origin", "fra", "affiliate", 1000),
            "affiliate and below",
            "saves 1,000.0 ms of round trip",
        ),
        (limit("origin", "fra", "basic", 1001), "basic", "serves a stream that has no place"),
        (limit("link", "x", "", 1.0), "all across the link", "saves 1.0 ms of round trip"),
    ],
)
def test_a_limit_in_words(binding: Binding, limited: str, price: str) -> None:
    assert _describe_limited(binding) == limited
    assert _describe_price(binding.price_ms).startswith(price)


def test_scarce_room_is_told_with_its_price(tmp_path: Path) -> None:
    for version, nearer, served in ((1, True, False), (SCARCE, False, True)):
        write(tmp_path / "1.plans", list(make_records(version, seed=SEED)))
        text = Answer("irs", "replay", tmp_path, "--table", str(version)).out
        assert "limits that bind" in text
        assert bool(re.search(r"saves [\d.]+ ms of round trip", text)) == nearer
        assert ("serves a stream that has no place" in text) == served
        assert ("\nno place" in text) == served
    told = Answer("irs", "replay", tmp_path, "--table", str(SCARCE), "--json").out
    flows = msgspec.json.decode(told, type=PlanExplanation).flows
    assert flows is not None
    prices = [each.price_ms for each in flows.binding]
    assert prices == sorted(prices, reverse=True)
    assert all(
        each.units > 0 and each.why.keys() == {"ams", "fra", "nyc"} for each in flows.unserved
    )


def test_without_the_solver_then(folder: Path) -> None:
    (_, *records) = make_records(7)
    write(folder / "1.plans", records)
    (folder / "2.plans").unlink()
    text = Answer("irs", "replay", folder, "--table", "6").out
    assert "by proportional" in text
    assert "limits" not in text
    answer = Answer("irs", "replay", folder, "--table", "7")
    assert isinstance(answer.error, ExceptionGroup | SolverError)
    assert "what the solver held then is not in the journal" in str(answer.error)


def test_what_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*arguments: str | Path) -> BaseException:
        error = Answer("irs", "replay", *arguments).error
        assert error is not None
        return error

    assert "has no journal of plans; IRS keeps one by" in str(told(tmp_path))
    assert isinstance(told(tmp_path / "gone.plans"), ConfigError)
    (tmp_path / "1.plans").write_bytes(b"no journal")
    assert isinstance(told(tmp_path), RemoteProtocolError)
    write(tmp_path / "1.plans", list(make_records(2)))
    assert "no plan of table 9" in str(told(tmp_path, "--table", "9"))
    for text in ("x", "7:", ":3", "7:x", "-1"):
        assert "is neither VERSION nor EPOCH:VERSION" in str(told(tmp_path, "--table", text))
    size = (tmp_path / "1.plans").stat().st_size
    monkeypatch.setattr(plan_journal, "FILE_BYTES_MAX", size)
    assert Answer("irs", "replay", tmp_path).code == 0
    monkeypatch.setattr(plan_journal, "FILE_BYTES_MAX", size - 1)
    assert f"has {size} bytes; {size - 1} are the most" in str(told(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "edged.policy.solver", None)
    assert isinstance(told(tmp_path), ToolMissingError)


def test_a_file_that_was_spoilt_is_a_gap(folder: Path) -> None:
    first = (folder / "1.plans").read_bytes()
    for spoilt, left in ((first[:-3] + b"xxx", 11), (first + b"\0" * 40, 12), (b"", 0)):
        (folder / "1.plans").write_bytes(spoilt)
        answer = Answer("irs", "replay", folder)
        assert answer.code == 0, "what is there is the same"
        assert answer.err.startswith(f"a gap: {folder / '1.plans'}")
        assert answer.out.startswith(f"{7 + left} plans in 2 files")
        assert isinstance(Answer("irs", "replay", folder / "1.plans").error, RemoteProtocolError)
    (folder / "1.plans").write_bytes(first)
    (folder / "3.plans").write_bytes(b"")
    answer = Answer("irs", "replay", folder, "--table", "3")
    assert answer.code == 0
    assert answer.err.startswith(f"a gap: {folder / '3.plans'}"), "the newest is not the newest"
    for name in ("1.plans", "2.plans"):
        (folder / name).write_bytes(b"")
    assert Answer("irs", "replay", folder).code == 1


def test_a_file_that_is_dropped_meanwhile_is_a_gap(folder: Path) -> None:
    (folder / "0.plans").symlink_to(folder / "gone")
    answer = Answer("irs", "replay", folder)
    assert answer.code == 0
    assert answer.err.startswith(f"a gap: {folder / '0.plans'}: No such file or directory")
    assert answer.out.startswith("19 plans in 3 files")
    assert isinstance(Answer("irs", "replay", folder / "0.plans").error, ConfigError)
    for name in ("1.plans", "2.plans"):
        (folder / name).unlink()
        (folder / name).symlink_to(folder / "gone")
    assert Answer("irs", "replay", folder).code == 1


def test_a_version_of_two_epochs_is_named_with_its_epoch(folder: Path) -> None:
    later = [msgspec.structs.replace(each, epoch=8) for each in make_records(3, seed=9)]
    write(folder / "3.plans", later)
    error = Answer("irs", "replay", folder, "--table", "3").error
    assert "is of several epochs: 7:3, 8:3" in str(error)
    for epoch in (7, 8):
        out = Answer("irs", "replay", folder, "--table", f"{epoch}:3").out
        assert out.startswith(f"plan of table epoch {epoch} v3, ")
        assert "as it was then" in out
    assert Answer("irs", "replay", folder, "--table", "0").out.startswith(
        "plan of table epoch 8 v3"
    )
    assert Answer("irs", "replay", folder, "--table", "7:0").out.startswith(
        "plan of table epoch 7 v19"
    )


def test_without_an_origin_it_says_so(tmp_path: Path) -> None:
    (record,) = make_records(1)
    inputs = msgspec.structs.replace(record.inputs, origins=[])
    write(tmp_path / "1.plans", [msgspec.structs.replace(record, inputs=inputs)])
    out = Answer("irs", "replay", tmp_path, "--table", "0").out
    assert "there was no origin yet" in out
    assert "no limit binds" not in out


def test_what_is_not_shown_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irs_replay, "SHOWN_MAX", 2)
    write(tmp_path / "1.plans", list(make_records(SCARCE, seed=SEED)))
    out = Answer("irs", "replay", tmp_path, "--table", str(SCARCE)).out
    assert out.count("more; `--json` has them all") == 2


def test_an_empty_journal_says_so(tmp_path: Path) -> None:
    write(tmp_path / "1.plans", [])
    assert Answer("irs", "replay", tmp_path).out == "the journal has no plans yet\n"
