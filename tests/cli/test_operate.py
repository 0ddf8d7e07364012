"""`edged kick`, `drain`, `reload` and `log level` against an admin door in another thread."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from edged.api.admin import AdminConfig, Arguments, Handler, serve_admin
from edged.cli import operate, origin_drain
from edged.cli.operate import parse_duration
from edged.errors import EdgedError
from edged.irs.moving import DrainSeen
from edged.roles.draining import DrainLine, DrainState
from edged.roles.operations import KickAnswer, ReloadAnswer
from edged.roles.reloading import Change, Effect
from edged.runtime.log import LevelSet, LevelStatus
from tests.cli.invoke import Answer, in_a_thread

ODD = "[/x] [red]"  # Markup to rich, and here what a shell may hold.


class Running:
    """A door whose answers are given; it notes what it was asked."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, list[object]] = {}

    def handler(self, command: str) -> Handler:
        def handle(arguments: Arguments) -> object:
            self.asked.append((command, dict(arguments)))
            answers = self.answers[command]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return handle

    def run(self, *arguments: str) -> Answer:
        return Answer(*arguments, "--socket", self.socket)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "admin.sock")
    commands = (
        *("kick", "drain", "drain-status", "drain-undo", "log-level", "reload"),
        *("drain-origin", "drain-origin-status", "drain-origin-undo"),
    )

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            handlers = {command: made.handler(command) for command in commands}
            await nursery.start(serve_admin, AdminConfig(socket=made.socket), handlers)
            task_status.started("")

    with in_a_thread(main):
        yield made


def test_kick(running: Running) -> None:
    running.answers["kick"] = [KickAnswer(channel=ODD, kicked=["pop a"], blocked_s=90.0)]
    answer = running.run("kick", ODD, "--reason", "no rights", "--block", "1.5m")
    assert answer.code == 0
    assert answer.out.splitlines() == [f"{ODD} was ended at pop a", "it is refused here for 90 s"]
    asked = {"channel": ODD, "reason": "no rights", "block_s": "90.0"}
    assert running.asked == [("kick", asked)]
    running.answers["kick"] = [KickAnswer(channel="a", kicked=[], blocked_s=90.0)]
    assert "a is not published here" in running.run("kick", "a", "--block", "90").out
    shown = json.loads(running.run("kick", "a", "--json").out)
    assert shown == {"channel": "a", "kicked": [], "blocked_s": 90.0}
    running.answers["kick"] = [EdgedError("channel 'b' is not published here; live here: a")]
    answer = running.run("kick", "b")
    assert "live here: a" in str(answer.error)


def line(state: DrainState, left: int, seconds_left: float = 0.0) -> DrainLine:
    return DrainLine(role="pop a", state=state, left=left, total=3, seconds_left=seconds_left)


IRS = DrainLine(
    role="irs", state=DrainState.SERVING, left=0, total=0, seconds_left=0, note="nothing to drain"
)


def test_drain_shows_how_many_are_left(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "POLL_S", 0.01)
    running.answers["drain"] = [[IRS, line(DrainState.DRAINING, 3, 30)]]
    running.answers["drain-status"] = [
        [IRS, line(DrainState.DRAINING, 3, 30)],
        [IRS, line(DrainState.DRAINING, 1, 29)],
        [IRS, line(DrainState.DRAINED, 0)],
    ]
    answer = running.run("drain", "--deadline", "30s", "--to", "rtmp://b/live")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "irs: nothing to drain",
        "pop a: 3 of 3 left, 30 s",
        "pop a: 1 of 3 left, 29 s",
        "pop a: drained, 0 of 3 left",
    ]
    assert running.asked[0] == ("drain", {"deadline_s": "30.0", "to": "rtmp://b/live"})
    assert running.asked[1:] == [("drain-status", {})] * 3


def test_drain_says_in_its_code_that_some_are_left(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate, "POLL_S", 0.01)
    running.answers["drain"] = [[line(DrainState.DRAINING, 3, 1)]]
    running.answers["drain-status"] = [[line(DrainState.DRAINED, 2)]]
    answer = running.run("drain", "--json")
    assert answer.code == 1
    (shown,) = json.loads(answer.out)
    assert (shown["state"], shown["left"]) == ("drained", 2)


def test_drain_without_waiting_and_undone(running: Running) -> None:
    running.answers["drain"] = [[line(DrainState.DRAINING, 3, 30)]]
    answer = running.run("drain", "--no-wait")
    assert (answer.code, answer.out) == (0, "pop a: 3 of 3 left, 30 s\n")
    running.answers["drain-undo"] = [[line(DrainState.SERVING, 2)]]
    answer = running.run("drain", "--undo")
    assert (answer.code, answer.out) == (0, "pop a: takes what comes; 2 live\n")
    assert [command for command, _ in running.asked] == ["drain", "drain-undo"]
    assert running.run("drain", "--undo", "--deadline", "3").code == 2


def test_drain_takes_an_origin_or_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin_drain, "POLL_S", 0.01)
    seen = DrainSeen(origin="fra1", left=0, left_by_pop={}, seconds_left=60.0, moved=7, held=0)
    running.answers["drain-origin"] = [[seen]]
    answer = running.run("drain", "origin", "fra1", "--deadline", "1m")
    assert (answer.code, answer.out) == (0, "origin fra1: empty, 7 moved\n")
    assert running.asked == [("drain-origin", {"origin": "fra1", "deadline_s": "60.0"})]
    for wrong in (
        ("fra1",),
        ("origin", "fra1", "fra2"),
        ("origin", "fra1", "--to", "rtmp://b/live"),
        ("origin", "--undo"),
    ):
        assert running.run("drain", *wrong).code == 2
    assert len(running.asked) == 1


def test_reload(running: Running) -> None:
    change = Change(key="log.level", effect=Effect(live=True, text="at once"))
    running.answers["reload"] = [
        ReloadAnswer(file=f"{ODD}.toml", changed=[change], notes=[f"channel {ODD} is live"]),
        ReloadAnswer(file="a.toml", changed=[]),
        EdgedError("1 key cannot change without a restart; nothing has\n  pop.name: why"),
    ]
    answer = running.run("reload")
    assert answer.out.splitlines() == [
        f"{ODD}.toml is read; in effect now:",
        "  log.level: at once",
        f"  channel {ODD} is live",
    ]
    assert json.loads(running.run("reload", "--json").out)["changed"] == []
    answer = running.run("reload")
    assert "pop.name: why" in str(answer.error)
    running.answers["reload"] = [ReloadAnswer(file="a.toml", changed=[])]
    assert running.run("reload").out == "a.toml is read; nothing has changed\n"


def test_log_level(running: Running) -> None:
    status = LevelStatus(
        configured="info",
        set=[LevelSet(logger="edged.rtmp", level="debug", for_s=599.6)],
        loggers=["edged", "edged.rtmp"],
    )
    running.answers["log-level"] = [status]
    answer = running.run("log", "level", "debug", "--logger", "edged.rtmp", "--for", "10m")
    assert answer.code == 0
    assert "configured: info" in answer.out
    assert "600 s" in answer.out
    assert answer.out.splitlines()[-1] == "loggers: edged, edged.rtmp"
    asked = {"level": "debug", "logger": "edged.rtmp", "for_s": "600.0"}
    assert running.asked == [("log-level", asked)]
    assert json.loads(running.run("log", "level", "--json").out)["configured"] == "info"
    assert running.asked[1] == ("log-level", {})
    assert running.run("log", "level", "--for", "10m").code == 2
    assert running.run("log", "level", "--logger", "edged").code == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("60s", 60.0), ("1.5m", 90.0), ("2h", 7200.0), ("1d", 86400.0), ("0", 0.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration("--for", text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "-1s", "1w", "1e3", "\uff11\uff10s", "1.2.3s", "nan", "1" * 10]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(EdgedError, match="is no duration such as 60s"):
        parse_duration("--for", text)


def test_a_host_where_nothing_runs(tmp_path: Path) -> None:
    for command in (["kick", "a"], ["drain"], ["reload"], ["log", "level"]):
        answer = Answer(*command, "--socket", tmp_path / "none.sock")
        assert isinstance(answer.error, EdgedError)
        assert "no edged answers at" in str(answer.error)
