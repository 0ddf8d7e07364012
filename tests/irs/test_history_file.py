"""Demand on disk: rows add up, so many days stay, and what is spoilt is named."""

import shutil
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.irs import history_file as module
from edged.irs.history_file import FORMAT, HeardNetwork, HistoryError, HistoryFile, Record, Span
from edged.media.routing import ORIGINS_MAX
from edged.policy.day_plan import Network
from edged.policy.demand import SLOTS_PER_DAY, DemandRow
from edged.policy.link_map import LinkConfig, PathConfig, SiteConfig

ROW = DemandRow(1000, "lhr", 90, (1, 2, 3), (4.0, 0.5), 4)
YEAR = 365 * SLOTS_PER_DAY
NETWORK = Network(
    origins={"fra1": 10, "nyc1": 20},
    rtt_ms={"lhr": {"fra1": 9.0, "nyc1": 70.5}},
    back_mbps={"lhr": {"fra1": 3.0}},
    links=(LinkConfig(name="ocean", ends=("lhr", "nyc"), mbps=100),),
    sites=(SiteConfig(name="lhr", pops=("lhr",)), SiteConfig(name="nyc", origins=("nyc1",))),
    paths=(PathConfig(pop="lhr", origin="nyc1", links=("ocean",)),),
    reserve_fraction=0.01,
)
NOTHING = Network()


def read(file: HistoryFile) -> list[Record]:
    return [record for chunk in file.records(-(10**9), 10**9) for record in chunk]


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    path = tmp_path / "made" / "demand.db"
    file = HistoryFile(path)
    file.add([ROW, DemandRow(999, "zrh", 1, (0, 0, 1))], NETWORK, 1000, 60)
    for opened in (file, HistoryFile(path, read_only=True)):
        assert read(opened) == [
            (999, "zrh", 1, 0, 0, 1, 0.0, 0.0, 0),
            (1000, "lhr", 90, 1, 2, 3, 4.0, 0.5, 4),
        ]
        assert opened.span(1000) == Span(first=999, last=1000, later=0)
        heard = opened.network(1000, 1000)
        assert heard is not None
        back = {"lhr": {"fra1": 3.0, "nyc1": 0.0}}
        assert heard.network == Network(
            origins=NETWORK.origins, rtt_ms=NETWORK.rtt_ms, back_mbps=back, links=NETWORK.links,
            sites=NETWORK.sites, paths=NETWORK.paths, reserve_fraction=0.01,
        )  # fmt: skip
        assert heard.gone == []
        opened.close()


def test_others_may_neither_read_nor_enter(tmp_path: Path) -> None:
    HistoryFile(tmp_path / "made" / "demand.db").close()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("made", "made/demand.db")]
    assert modes == [0o700, 0o600]


def test_who_may_read_alone_reads_while_irs_writes(tmp_path: Path) -> None:
    path = tmp_path / "demand.db"
    file = HistoryFile(path)
    file.add([ROW], NETWORK, 1000, 60)
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        opened = HistoryFile(path, read_only=True)
        assert len(read(opened)) == 1
        opened.close()
        assert [each.name for each in tmp_path.iterdir()] == ["demand.db"]
    finally:
        tmp_path.chmod(0o700)
    file.close()


def test_a_reader_is_waited_for_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "demand.db"
    HistoryFile(path).close()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(module, "LOCKED_S_MAX", 0.01)
    for read_only in (False, True):
        with pytest.raises(
            HistoryError,
            match=r"demand\.db cannot be opened: another process has locked it for 0\.01 s: IRS as",
        ):
            HistoryFile(path, read_only=read_only)
    monkeypatch.setattr(module, "LOCKED_S_MAX", 10.0)
    let_go = threading.Timer(0.05, lambda: other.execute("COMMIT"))
    let_go.start()
    HistoryFile(path).close()
    let_go.join()
    other.close()


def cut_off(path: Path) -> Path:
    """A history as an IRS leaves it that is killed while it writes more than memory holds."""
    whole = path.with_name("whole.db")
    file = HistoryFile(whole)
    file.add([DemandRow(slot, "lhr", 90, (1, 2, 3)) for slot in range(3000)], NETWORK, 2999, 60)
    file._db.execute("PRAGMA cache_size = 1")
    file._db.execute("BEGIN IMMEDIATE")
    file._db.execute("UPDATE demand SET basic = 99")
    for end in ("", "-journal"):
        shutil.copy(f"{whole}{end}", f"{path}{end}")
    file._db.execute("ROLLBACK")
    file.close()
    return path


def test_a_write_that_was_cut_off_is_left_out_by_who_may_only_read(tmp_path: Path) -> None:
    path = cut_off(tmp_path / "demand.db")
    before = path.read_bytes()
    file = HistoryFile(path, read_only=True)
    assert file.cut_off
    assert {basic for *_, basic, _, _, _ in read(file)} == {3}
    assert len(read(file)) == 3000
    assert file._folder is not None
    folder = Path(file._folder.name)
    file.close()
    assert not folder.exists()
    assert path.read_bytes() == before, "it is not this one's to mend"
    file = HistoryFile(path)
    assert not file.cut_off
    assert {basic for *_, basic, _, _, _ in read(file)} == {3}
    file.close()
    assert not path.with_name("demand.db-journal").exists()


def test_what_irs_mends_meanwhile_is_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = cut_off(tmp_path / "demand.db"), shutil.copyfile

    def mend_first(source: Path, target: Path) -> None:
        copy(source, target)
        if source == path:
            path.touch()

    monkeypatch.setattr(module.shutil, "copyfile", mend_first)
    with pytest.raises(HistoryError, match=r"demand\.db is just being mended by IRS; try again"):
        HistoryFile(path, read_only=True)
    monkeypatch.setattr(module.shutil, "copyfile", lambda *_: Path("/gone/at/all").stat())
    with pytest.raises(HistoryError, match=r"cannot be opened: .*No such file"):
        HistoryFile(path, read_only=True)


def test_damage_that_sqlite_quotes_is_said(tmp_path: Path) -> None:
    """What it says of a table whose name is no text is no text either."""
    path = tmp_path / "demand.db"
    HistoryFile(path).close()
    data = path.read_bytes()
    place = data.index(b"CREATE TABLE origins")
    path.write_bytes(data[:place] + b"CREATE TABL\x80 origins" + data[place + 20 :])
    for read_only in (False, True):
        with pytest.raises(HistoryError, match="cannot be opened"):
            HistoryFile(path, read_only=read_only)


def test_what_a_restart_divides_adds_up(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "demand.db")
    file.add([ROW], NOTHING, 1000, 60)
    file.add([DemandRow(1000, "lhr", 10, (3, 1, 3), (1.0, 1.0), 1)], NOTHING, 1000, 60)
    assert read(file) == [(1000, "lhr", 100, 4, 3, 6, 5.0, 1.5, 5)]
    file.close()


def test_so_many_days_that_have_rows_stay(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "demand.db")
    for day in (0, 3, 4, 10):
        for slot in (0, SLOTS_PER_DAY - 1):
            row = DemandRow(day * SLOTS_PER_DAY + slot, "lhr", 1, (1, 1, 1))
            file.add([row], NOTHING, row.slot, 3)
    days = [slot / SLOTS_PER_DAY for slot, *_ in read(file)]
    assert [int(day) for day in days] == [3, 3, 4, 4, 10, 10]
    row = DemandRow(11 * SLOTS_PER_DAY, "lhr", 1, (1, 1, 1))
    file.add([row], NOTHING, row.slot, 2)
    assert [slot // SLOTS_PER_DAY for slot, *_ in read(file)] == [10, 10, 11]
    file.close()


@pytest.mark.parametrize("by", [YEAR, -YEAR])
@pytest.mark.parametrize("wrong", [1, 5, 12])
def test_a_clock_that_is_a_year_wrong_costs_as_many_days(
    tmp_path: Path, by: int, wrong: int
) -> None:
    """Days that were kept while it was, and the oldest for those; once it is right, none more."""
    file = HistoryFile(tmp_path / "demand.db")

    def keep(day: int, by: int = 0) -> None:
        begin = 10 * YEAR + day * SLOTS_PER_DAY + by
        rows = [DemandRow(begin + n, "lhr", 1, (1, 1, 1)) for n in (0, SLOTS_PER_DAY - 1)]
        file.add(rows, NOTHING, begin, 10)

    def right() -> list[int]:
        days = {slot // SLOTS_PER_DAY - 10 * 365 for slot, *_ in read(file)}
        return sorted(day for day in days if -1 < day < 300)

    for day in range(10):
        keep(day)
    for day in range(10, 10 + wrong):
        keep(day, by)
    assert right() == list(range(min(wrong, 10), 10))
    for day in range(10 + wrong, 30 + wrong):
        before = right()
        keep(day)
        assert right()[-1] == day, "what is kept now stays"
        if len(before) < 10:
            assert right() == [*before, day], "days of the wrong clock go first"
    assert right() == list(range(20 + wrong, 30 + wrong))
    span = file.span(10 * YEAR + (30 + wrong) * SLOTS_PER_DAY)
    assert span is not None
    assert span.later == 0
    file.close()


def test_rows_that_are_later_than_now_are_counted_apart(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "demand.db")
    file.add([ROW, DemandRow(1001, "lhr", 1, (0, 0, 0))], NOTHING, 1000, 60)
    assert file.span(1000) == Span(first=1000, last=1000, later=1)
    assert file.span(1001) == Span(first=1000, last=1001, later=0)
    assert file.span(999) is None
    file.close()


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    st.lists(
        st.lists(
            st.builds(
                DemandRow,
                st.integers(-3 * SLOTS_PER_DAY, 9 * SLOTS_PER_DAY),
                st.sampled_from(["a", "b"]),
                st.integers(1, 90),
                st.tuples(*[st.integers(0, 2**40)] * 3),
            ),
            max_size=4,
        ),
        max_size=8,
    ),
    st.integers(2, 5),
)
def test_what_stays_is_what_was_put_there(writes: list[list[DemandRow]], days: int) -> None:
    """Of days that stay all rows do; of more, those to come go first, and of all the oldest."""
    with tempfile.TemporaryDirectory() as folder:
        file = HistoryFile(Path(folder) / "demand.db")
        expected: dict[tuple[int, str], list[int]] = {}
        for rows in writes:
            file.add(rows, NOTHING, 3 * SLOTS_PER_DAY, days)
            for row in rows:
                known = expected.setdefault((row.slot, row.pop), [0, 0, 0, 0])
                for k, each in enumerate((row.samples, *row.units)):
                    known[k] += each
            found = sorted({slot // SLOTS_PER_DAY for slot, _ in expected})
            order = [day for day in found if day > 3] + [day for day in found if day <= 3]
            for day in order[: max(0, len(order) - days)]:
                expected = {at: of for at, of in expected.items() if at[0] // 96 != day}
        assert {(slot, pop): [*of] for slot, pop, *of, _, _, _ in read(file)} == expected
        file.close()


def test_what_was_heard_of_the_network_stays_until_it_is_heard_anew(tmp_path: Path) -> None:
    """IRS that has just begun hears nobody yet: the network is still there."""
    file = HistoryFile(tmp_path / "demand.db")
    assert file.network(0, 10**6) is None
    file.add([ROW], NETWORK, 1000, 60)
    file.add([], Network(origins={"nyc1": 30}, rtt_ms={"lhr": {"nyc1": 60.0}}), 1050, 60)
    heard = file.network(1000, 1050)
    assert heard is not None
    assert heard.network.origins == {"fra1": 10, "nyc1": 30}
    assert heard.network.rtt_ms == {"lhr": {"fra1": 9.0, "nyc1": 60.0}}
    assert heard.network.links == (), "a map is as it is configured now"
    later = file.network(1001, 1050)
    assert later is not None
    assert (later.network.origins, later.gone) == ({"nyc1": 30}, ["fra1"])
    assert later.network.rtt_ms == {"lhr": {"nyc1": 60.0}}
    ahead = file.network(1000, 1049)
    assert ahead is not None
    assert (ahead.network.origins, ahead.gone) == ({"fra1": 10}, ["nyc1"]), "a clock was ahead"
    for slot in (1050 + 2 * SLOTS_PER_DAY, 1051 + 2 * SLOTS_PER_DAY):
        kept = file.network(0, 10**6)
        assert kept is not None
        assert "nyc1" in kept.network.origins
        file.add([], NOTHING, slot, 2)
    assert file.network(0, 10**6) == HeardNetwork(network=NOTHING, gone=[])
    file.close()


def test_a_write_that_fails_puts_nothing_there(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "demand.db")
    file.add([ROW], NETWORK, 1000, 60)
    with pytest.raises(HistoryError, match=r"demand\.db cannot be written: "):
        file.add([DemandRow(1001, "lhr", 1, (0, 0, 0)), DemandRow(2**80, "a", 1, (0, 0, 0))],
                 NETWORK, 1001, 60)  # fmt: skip
    assert [slot for slot, *_ in read(file)] == [1000]
    file.add([DemandRow(1001, "lhr", 1, (0, 0, 0))], NETWORK, 1001, 60)
    assert [slot for slot, *_ in read(file)] == [1000, 1001]
    file.close()


def test_what_is_no_history_is_named_and_left(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, and long enough to be read as one" * 50)
    for name, statement in (
        ("other.db", "CREATE TABLE notes (text TEXT)"),
        ("newer.db", f"PRAGMA user_version = {FORMAT + 1}"),
    ):
        if name == "newer.db":
            HistoryFile(tmp_path / name).close()
        other = sqlite3.connect(tmp_path / name)
        other.execute(statement)
        other.close()
    for name, why in (
        ("text", "cannot be opened: file is not a database"),
        ("other.db", "is no history of demand"),
        ("newer.db", f"has format {FORMAT + 1}, known is {FORMAT}"),
    ):
        before = (tmp_path / name).read_bytes()
        for read_only in (True, False):
            with pytest.raises(HistoryError, match=f"{tmp_path / name} {why}"):
                HistoryFile(tmp_path / name, read_only=read_only)
        assert (tmp_path / name).read_bytes() == before
    (tmp_path / "empty.db").touch()
    with pytest.raises(HistoryError, match=r"empty\.db is no history of demand"):
        HistoryFile(tmp_path / "empty.db", read_only=True)
    with pytest.raises(HistoryError, match="cannot be opened"):
        HistoryFile(tmp_path / "gone.db", read_only=True)
    assert not (tmp_path / "gone.db").exists()
    with pytest.raises(HistoryError, match="cannot be opened"):
        HistoryFile(tmp_path / "text" / "demand.db")


SPOIL = """
UPDATE backbone SET body = '{"links": [{"name": "a", "ends": ["x", "y"], "mbps": 1}]}'
"""


@pytest.mark.parametrize(
    ("statement", "call"),
    [
        ("DROP TABLE demand", read),
        ("DROP TABLE demand", lambda file: file.span(5)),
        ("DROP TABLE origins", lambda file: file.network(0, 5)),
        ("UPDATE backbone SET body = '{'", lambda file: file.network(0, 5)),
        ("UPDATE backbone SET body = 5", lambda file: file.network(0, 5)),
        (SPOIL, lambda file: file.network(0, 5)),
        ("INSERT INTO origins VALUES ('fra2', -1, 1)", lambda file: file.network(0, 5)),
        ("INSERT INTO paths VALUES ('lhr', 'fra2', 'x', 0, 1)", lambda file: file.network(0, 5)),
        ("INSERT INTO demand VALUES (1, CAST(x'ff' AS TEXT), 1, 1, 1, 1, 1, 1, 1)", read),
    ],
)
def test_what_was_spoilt_is_named(
    tmp_path: Path, statement: str, call: Callable[[HistoryFile], object]
) -> None:
    path = tmp_path / "demand.db"
    file = HistoryFile(path)
    file.add([], NETWORK, 1, 60)
    file.close()
    other = sqlite3.connect(path)
    other.execute(statement)
    other.commit()
    other.close()
    file = HistoryFile(path, read_only=True)
    with pytest.raises(HistoryError, match=f"{path} cannot be read: "):
        call(file)
    file.close()


def test_so_many_origins_are_read(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "demand.db")
    for count in (ORIGINS_MAX, ORIGINS_MAX + 1):
        file.add([], Network(origins={f"o{n}": 1 for n in range(count)}), 1, 60)
        if count == ORIGINS_MAX:
            assert file.network(0, 1) is not None
    with pytest.raises(HistoryError, match=f"{ORIGINS_MAX + 1} origins exceed {ORIGINS_MAX}"):
        file.network(0, 1)
    file.close()
