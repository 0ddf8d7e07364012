"""The state file: what was saved last is there again, and a file that is not right is only said."""

import contextlib
import sqlite3
import tempfile
import threading
from pathlib import Path

import hypothesis
import pytest
import trio
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.irs import state as state_module
from edged.irs.state import (
    ACTIONS_MAX,
    ANSWER_S_MAX,
    POPS_MAX,
    RECENT_MAX,
    UNSAVED_ACTIONS_MAX,
    Action,
    IrsState,
    StateError,
    StateFile,
    StateKeeper,
)
from edged.media.epochs import REVISION_MAX, DrainNote, IrsMemo

NOTE = DrainNote(origin="fra1", since=1.0, until=60.0, by="an operator")
STATE = IrsState(
    epoch=7, memo=IrsMemo(epoch=7, revision=3, drains=(NOTE,)), pops={"ams1/0": 5.0, "lhr1/2": 6.0}
)
DRAINED = Action(at=1.0, by="an operator", what="drain", origin="fra1")


def load(path: Path) -> IrsState:
    file = StateFile(path)
    try:
        return file.load()
    finally:
        file.close()


names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True)
unix = st.floats(0, 1e10)
states = st.builds(
    IrsState,
    epoch=st.integers(0, 2**63 - 1),
    memo=st.builds(
        IrsMemo,
        epoch=st.integers(0, 2**63 - 1),
        revision=st.integers(0, REVISION_MAX),
        drains=st.lists(
            st.builds(DrainNote, origin=names, since=unix, until=unix, by=st.text("é\n'\"x")),
            max_size=4,
            unique_by=lambda note: note.origin,
        ).map(lambda notes: tuple(sorted(notes, key=lambda note: note.origin))),
    ),
    pops=st.dictionaries(names, unix, max_size=4),
)


@pytest.fixture
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried a hundred times needs not be on disk each time."""
    monkeypatch.setattr(state_module, "SYNCHRONOUS", "OFF")


@pytest.mark.usefixtures("_no_disk")
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.lists(st.tuples(states, st.booleans()), min_size=1, max_size=6))
def test_what_was_saved_last_is_there_again(saves: list[tuple[IrsState, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "irs.sqlite"
        file = StateFile(path)
        assert file.load() == IrsState()
        for at, (state, reopens) in enumerate(saves):
            file.save(state, [Action(at=at, by="me", what="drain", origin="o")])
            if reopens:
                file.close()
                file = StateFile(path)
            assert file.load() == state
        assert [action.at for action in file.actions()] == list(reversed(range(len(saves))))
        file.close()


def test_damage_that_sqlite_quotes_is_said(tmp_path: Path) -> None:
    """What it says of a table whose name is no text is no text either."""
    path = tmp_path / "irs.sqlite"
    StateFile(path).close()
    data = path.read_bytes()
    place = data.index(b"CREATE TABLE")
    path.write_bytes(data[:place] + b"CREATE TABL\x80" + data[place + 12 :])
    with pytest.raises(StateError, match="cannot be opened"):
        StateFile(path)


@pytest.mark.usefixtures("_no_disk")
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.data())
def test_any_damage_is_said_or_does_no_harm(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "irs.sqlite"
        file = StateFile(path)
        file.save(STATE, [DRAINED])
        file.close()
        content = bytearray(path.read_bytes())
        content = content[: data.draw(st.integers(0, len(content)))]
        for _ in range(data.draw(st.integers(0, 20))):
            if content:
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
                    st.integers(0, 255)
                )
        path.write_bytes(content)
        with contextlib.suppress(StateError), contextlib.closing(StateFile(path)) as file:
            state = file.load()
            assert 0 <= state.epoch < 2**63
            file.save(STATE)
            assert file.load() == STATE


def test_actions_and_pops_are_bounded(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s")
    many = [Action(at=at, by="me", what="drain", origin="o") for at in range(ACTIONS_MAX + 5)]
    pops = {f"p{at}/0": float(at) for at in range(POPS_MAX + 1)}
    file.save(IrsState(pops=pops), many)
    assert [len(file.actions()), file.actions()[0].at] == [ACTIONS_MAX, ACTIONS_MAX + 4]
    assert set(pops) - set(file.load().pops) == {"p0/0"}, "the one longest gone"
    file.close()


@pytest.mark.parametrize(
    ("table", "values", "reason"),
    [
        ("numbers", ("epoch", -1), "Expected `int` >= 0"),
        ("numbers", ("format", 2), "has format 2, known is 1"),
        ("numbers", ("epoch", "seven"), "Expected `int`, got `str`"),
        ("drains", ("no name!", 1.0, 2.0, "me"), "Expected `str` matching regex"),
    ],
)
def test_values_that_cannot_be_are_named(
    tmp_path: Path, table: str, values: tuple[object, ...], reason: str
) -> None:
    path = tmp_path / "s"
    StateFile(path).close()
    with sqlite3.connect(path) as db:
        marks = ", ".join("?" * len(values))
        db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)  # noqa: S608 - ours
    db.close()
    with pytest.raises(StateError, match=f"{path}.*{reason}"):
        load(path)


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="is a database of another program"):
        StateFile(path)
    assert path.read_bytes() == before
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StateError, match="cannot be opened: file is not a database"):
        StateFile(path)
    with pytest.raises(StateError, match="cannot be opened"):
        StateFile(Path("/proc/nowhere/s"))


def test_two_processes_do_not_share_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "LOCKED_S_MAX", 0.05)
    file = StateFile(tmp_path / "s")
    with pytest.raises(StateError, match="cannot be opened: database is locked"):
        StateFile(tmp_path / "s")
    file.close()
    StateFile(tmp_path / "s").close()


async def test_what_is_kept_is_written_soon_and_on_the_way_out(
    tmp_path: Path,
) -> None:
    said = [STATE]
    keeper = StateKeeper(str(tmp_path / "s"), lambda: said[-1])
    assert keeper.load() == IrsState()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        keeper.keep(DRAINED)
        with trio.fail_after(5):
            while not keeper.saved:  # noqa: ASYNC110 - a thread writes
                await trio.sleep(0.005)
        said.append(IrsState(epoch=8))
        keeper.keep()
        nursery.cancel_scope.cancel()
    keeper.close()
    again = StateKeeper(str(tmp_path / "s"), lambda: said[-1])
    assert again.load() == IrsState(epoch=8)
    assert list(again.recent) == [DRAINED]
    assert again.problem == ""
    again.close()


async def test_a_disk_that_fails_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "RETRY_S", 0.01)
    keeper = StateKeeper(str(tmp_path / "s"), lambda: STATE)
    keeper.load()
    assert keeper._file is not None
    real, fails = keeper._file.save, [3]
    saved: list[list[Action]] = []

    def save(state: IrsState, actions: list[Action]) -> None:
        if fails[0]:
            fails[0] -= 1
            raise StateError("the disk is full")
        saved.append(actions)
        real(state, actions)

    monkeypatch.setattr(keeper._file, "save", save)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            for at in range(UNSAVED_ACTIONS_MAX + 1):
                keeper.keep(Action(at=at, by="me", what="drain", origin="o"))
            problems = {keeper.problem}
            with trio.fail_after(5):
                while not keeper.saved:
                    await trio.sleep(0.001)
                    problems.add(keeper.problem)
            assert problems == {"", "the disk is full"}
            assert (keeper.problem, keeper.failed) == ("", 3)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs] == ["state is not kept"]
    assert [action.at for action in saved[0]] == list(range(1, UNSAVED_ACTIONS_MAX + 1))
    assert len(keeper.recent) == RECENT_MAX
    keeper.close()


async def test_without_a_file_or_with_a_bad_one_nothing_is_kept_and_nothing_fails(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"no database" * 100)
    for path, problem in (("", ""), (str(bad), f"irs.state_file {bad} cannot be opened")):
        keeper = StateKeeper(path, lambda: STATE)
        assert keeper.load() == IrsState()
        assert keeper.problem.startswith(problem)
        with trio.move_on_after(1):
            keeper.keep(DRAINED)
            await keeper.run()
    assert bad.read_bytes() == b"no database" * 100, "it may be mended"


async def test_one_that_was_locked_is_opened_later_and_what_it_has_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "LOCKED_S_MAX", 0.01)
    monkeypatch.setattr(state_module, "RETRY_S", 0.01)
    other = StateFile(tmp_path / "s")
    other.save(STATE, [DRAINED])
    keeper = StateKeeper(str(tmp_path / "s"), lambda: IrsState(epoch=9))
    assert keeper.load() == IrsState()
    loaded: list[IrsState] = []
    keeper.on_loaded = loaded.append
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        with trio.fail_after(5):
            while keeper.failed < 3:  # noqa: ASYNC110 - a thread tries
                await trio.sleep(0.005)
            other.close()
            while not keeper.saved:  # noqa: ASYNC110 - a thread writes
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert (loaded, keeper.problem) == ([STATE], "")
    assert list(keeper.recent) == [DRAINED]
    keeper.close()
    again = StateFile(tmp_path / "s")
    assert again.load() == IrsState(epoch=9)
    again.close()


async def test_a_disk_that_hangs_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "END_S_MAX", 0.1)
    keeper, going_on = StateKeeper(str(tmp_path / "s"), lambda: STATE), threading.Event()
    keeper.load()
    assert keeper._file is not None
    real = keeper._file.save

    def save(state: IrsState, actions: list[Action]) -> None:
        going_on.wait(10)
        real(state, actions)

    monkeypatch.setattr(keeper._file, "save", save)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        keeper.keep()
        with trio.fail_after(5):
            while not keeper._thread.busy:  # noqa: ASYNC110 - a thread begins
                await trio.sleep(0.005)
        keeper._asked_at = 100.0
        assert keeper.why_not_kept(100.0 + ANSWER_S_MAX) == ""
        assert keeper.why_not_kept(101.0 + ANSWER_S_MAX) == (
            f"irs.state_file {tmp_path / 's'}: the disk has not answered for 11 s"
        )
        nursery.cancel_scope.cancel()
    keeper.close()
    going_on.set()
    await keeper._thread.idle()
    again = StateFile(tmp_path / "s")
    assert again.load() == STATE, "it was written all the same, and then let go of"
    again.close()


async def test_a_disk_that_hangs_at_the_start_is_said_and_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    file = StateFile(path)
    file.save(STATE, [DRAINED])
    file.close()
    going_on = threading.Event()

    class Hanging(StateFile):
        def load(self) -> IrsState:
            going_on.wait(10)
            return super().load()

    monkeypatch.setattr(state_module, "StateFile", Hanging)
    monkeypatch.setattr(state_module, "LOAD_S_MAX", 0.05)
    monkeypatch.setattr(state_module, "RETRY_S", 0.01)
    keeper = StateKeeper(str(path), lambda: STATE)
    loaded: list[IrsState] = []
    keeper.on_loaded = loaded.append
    assert keeper.load() == IrsState()
    assert keeper.problem == f"irs.state_file {path} has not been read in 0.05 s"
    assert list(keeper.recent) == []
    going_on.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        with trio.fail_after(5):
            while not keeper.saved:  # noqa: ASYNC110 - a thread writes
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert (loaded, list(keeper.recent)) == ([STATE], [DRAINED])
    assert keeper.why_not_kept(trio.current_time()) == ""
    keeper.close()


def test_a_number_that_sqlite_cannot_hold_is_an_error_of_the_file(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s")
    with pytest.raises(StateError, match="cannot be written"):
        file.save(IrsState(epoch=2**63))
    file.save(STATE)
    assert file.load() == STATE
    file.close()


def test_an_action_that_cannot_be_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s"
    StateFile(path).close()
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO actions (at, by, what, origin) VALUES (1e300, 'x', 'drain', 'o')")
    db.close()
    file = StateFile(path)
    with pytest.raises(StateError, match="cannot be read"):
        file.actions()
    file.close()
