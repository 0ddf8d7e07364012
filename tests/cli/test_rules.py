"""`edged rules` against files, and an admin door in another thread."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from edged.api.admin import AdminConfig, Arguments, serve_admin
from edged.cli import EXIT_CONFIG, EXIT_FAILED
from edged.media.routing import Match, Rule
from edged.policy.rules_snapshot import PopTaken, RulesSnapshot
from tests.cli.invoke import Answer, in_a_thread
from tests.policy.pops_taken import PARTNER, stream, take

NEAR = {"o1": 5.0, "o2": 20.0}
OLD = (Rule(name="show", match=Match(channel="show"), pin="o1"),)
RULES = """
[irs]
listen = "127.0.0.1:0"
[[irs.rules]]
name = "show"
pin = "o2"
match.channel = "show"
[[irs.rules.examples]]
channel = "show"
origins = ["o1", "o2"]
goes_to = "o2"
"""
REFUSING = """
[[irs.rules]]
name = "[red]near"
max_rtt_ms = 1.0
"""


def pop(**keys: object) -> PopTaken:
    streams = [
        stream("show", "o1", priority=PARTNER, for_s=9.0),
        stream("[bold]alice", "o1", for_s=5.0),
    ]
    return take(streams, NEAR, rules=OLD, **keys)  # type: ignore[arg-type]


@contextlib.contextmanager
def edged_at(socket: Path, *pops: PopTaken) -> Iterator[None]:
    def answer(arguments: Arguments) -> object:
        return RulesSnapshot(pops=pops)

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, AdminConfig(socket=socket), {"rules-snapshot": answer})
            task_status.started("")

    with in_a_thread(main):
        yield


def written(folder: Path, text: str = RULES) -> Path:
    path = folder / "irs.toml"
    path.write_text(text)
    return path


def snapshot(folder: Path, *pops: PopTaken) -> Path:
    path = folder / "snapshot.json"
    path.write_bytes(msgspec.json.encode(RulesSnapshot(pops=pops or (pop(),))))
    return path


def words(answer: Answer) -> str:
    assert answer.error is None
    return " ".join(answer.out.split())


def test_the_examples_alone(tmp_path: Path) -> None:
    answer = Answer("rules", "check", "-c", written(tmp_path))
    assert (answer.code, answer.err) == (0, "")
    assert "1 rule, 1 of them tested by 1 example, which hold" in words(answer)
    shown = json.loads(Answer("rules", "check", "-c", tmp_path / "irs.toml", "--json").out)
    assert (shown["rules"], shown["against"]) == (1, None)
    assert shown["examples"][0]["problem"] == ""


def test_a_change_is_shown(tmp_path: Path) -> None:
    answer = Answer("rules", "check", "-c", written(tmp_path), "--against", snapshot(tmp_path))
    shown = words(answer)
    assert answer.code == 0
    assert "2 streams of ams1, placed anew: by the rules in force 2 go where they are" in shown
    assert "served 2 2 refused 0 0 mean RTT 5.00 ms 12.50 ms greatest RTT 5.00 ms 20.00 ms" in shown
    assert "show 1 1 pin to o2" in shown
    assert "no rule 1 1" in shown
    assert "o1 2 2 1 (-1) o2 0 0 1 (+1)" in shown
    assert "1 would go elsewhere" in shown
    assert "ams1 show partner o1 o2 show pin" in shown


def test_a_refusal_is_a_problem(tmp_path: Path) -> None:
    file, taken = written(tmp_path, RULES + REFUSING), snapshot(tmp_path)
    answer = Answer("rules", "check", "-c", file, "--against", taken)
    assert answer.code == EXIT_FAILED
    shown = words(answer)
    assert "1 would be refused" in shown
    assert "ams1 [bold]alice basic o1 refused [red]near no route for" in shown
    answer = Answer("rules", "check", "-c", file, "--against", taken, "--json")
    assert answer.code == EXIT_FAILED
    against = json.loads(answer.out)["against"]
    assert against["after"]["refused"] == 1
    assert against["refused"][0]["channel"] == "[bold]alice"
    answer = Answer("rules", "check", "-c", file, "--against", taken, "--limit", "0")
    assert "and 1 more; --limit shows them" in words(answer)


def test_the_same_rules_change_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, RULES.replace('"o2"\nmatch', '"o1"\nmatch').split("[[irs.rules.ex")[0])
    answer = Answer("rules", "check", "-c", file, "--against", snapshot(tmp_path))
    assert answer.code == 0
    assert "no stream would go elsewhere or be refused" in words(answer)
    assert "1 rule, 0 of them tested by 0 examples" in words(answer)
    assert "without an example: 'show'" in words(answer)
    more = "".join(f'[[irs.rules]]\nname = "r{n}"\n' for n in range(20))
    file.write_text(file.read_text() + more)
    assert "'r18' and 1 more" in words(Answer("rules", "check", "-c", file))
    shown = json.loads(Answer("rules", "check", "-c", file, "--json").out)
    assert shown["untested"] == ["show", *(f"r{n}" for n in range(20))]


def test_a_running_edged_and_several_sources(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, pop()):
        file = tmp_path / "now.json"
        answer = Answer("rules", "snapshot", "--socket", socket, "-o", file)
        assert answer.code == 0
        assert "2 streams of ams1" in words(answer)
        printed = Answer("rules", "snapshot", "--socket", socket).out
        assert json.loads(printed) == json.loads(file.read_bytes())
        other = tmp_path / "other.json"
        other.write_bytes(msgspec.json.encode(RulesSnapshot(pops=(pop(pop="lhr1"),))))
        rules = written(tmp_path)
        sources = ("--against", socket, "--against", other, "--against", file)
        answer = Answer("rules", "check", "-c", rules, *sources, "--json")
        against = json.loads(answer.out)["against"]
    assert against["pops"] == ["ams1", "lhr1"]
    assert against["before"]["streams"] == 4


def test_a_pop_of_which_not_all_is_known_is_noted(tmp_path: Path) -> None:
    taken = snapshot(tmp_path, pop(lease_s=0.0))
    answer = Answer("rules", "check", "-c", written(tmp_path), "--against", taken)
    assert "note PoP ams1: its lease had expired, so price decides" in words(answer)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.json", "missing.json: cannot be read: No such file or directory"),
        ("irs.toml", "irs.toml: is no snapshot of `edged rules snapshot`"),
        (".", "cannot be read: Is a directory"),
        ("http://127.0.0.1:1", "EDGED_ADMIN_URL needs EDGED_ADMIN_TOKEN_FILE"),
        ("http://192.0.2.1:9465", "is not on loopback"),
    ],
)
def test_what_cannot_be_looked_at_is_named(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGED_ADMIN_TOKEN_FILE", raising=False)
    answer = Answer("rules", "check", "-c", file, "--against", source)
    assert answer.code == 1
    assert message in str(answer.error)


def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    answer = Answer("rules", "check", "-c", written(tmp_path, RULES.replace('"o2"\nm', '"o1"\nm')))
    assert (
        "irs.rules[0].examples[0] (show): channel 'show' should go to o2, but goes to o1 (pin)"
        in str(answer.error)
    )
    answer = Answer("check", "-c", tmp_path / "irs.toml")
    assert answer.code == EXIT_CONFIG
    assert "should go to o2, but goes to o1 (pin)" in " ".join(answer.err.split())
    origin = tmp_path / "origin.toml"
    origin.write_text(
        '[origin]\nname = "o1"\nlisten = "127.0.0.1:0"\n[irs_client]\naddresses = ["127.0.0.1:1"]\n'
    )
    answer = Answer("rules", "check", "-c", origin)
    assert "has no [irs]: rules are in the file of IRS" in str(answer.error)
    nowhere = Answer("rules", "snapshot", "--socket", tmp_path / "no.sock")
    assert "no.sock" in str(nowhere.error)


def test_a_snapshot_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with edged_at(socket, pop()):
        answer = Answer("rules", "snapshot", "--socket", socket, "-o", tmp_path / "no" / "x.json")
    assert "cannot be written: No such file or directory" in str(answer.error)
