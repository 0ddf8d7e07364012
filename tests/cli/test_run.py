"""`edged check` and `edged run`."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import trio
import typer
from structlog.testing import capture_logs

from edged.cli.run import reload_on_signal, shard_number, until_signal
from edged.config import load_config
from edged.errors import ConfigError
from edged.irs.client import IrsClientConfig, PopClient
from edged.irs.service import IrsConfig, IrsService
from edged.media.epochs import EPOCH_LEASE_S
from edged.policy.pop_view import PopView
from edged.roles.all_in_one import Process
from tests.backbone.network import free_address, until
from tests.cli.invoke import Answer, in_a_thread, interrupting
from tests.irs.network import entropy_from

MISTAKEN = """
[origin]
name = "[bold]X"
[metrics]
listen = "nowhere"
[lgo]
"""


def irs_file(folder: Path, listen: str = "") -> Path:
    path = folder / "irs.toml"
    path.write_text(
        f"""
        [irs]
        listen = "{listen or free_address()}"
        warmup_s = 0
        [metrics]
        listen = "127.0.0.1:0"
        [admin]
        socket = "{folder / "admin.sock"}"
        """
    )
    return path


def test_check_says_what_a_right_file_is_for(tmp_path: Path) -> None:
    path = irs_file(tmp_path)
    answer = Answer("check", "-c", path)
    assert answer.code == 0
    assert answer.out == f"{path} is fine; roles: irs\n"
    assert answer.err == ""


def test_check_says_every_problem_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(MISTAKEN)
    answer = Answer("check", "-c", path)
    assert answer.code == 2
    assert answer.out == ""
    lines = answer.err.splitlines()
    assert lines[0] == f"4 problems in {path}"
    assert lines[1].startswith("  lgo: unknown key; did you mean 'log'?")
    assert lines[2].startswith("  origin.name: '[bold]X' is not allowed")
    assert lines[3] == "  irs_client: is missing; PoPs and origins need the addresses of IRS"
    assert lines[4].startswith("  metrics.listen: address 'nowhere'")
    assert len(lines) == 5


def test_check_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(MISTAKEN)
    answer = Answer("check", "-c", path, "--json")
    assert answer.code == 2
    shown = json.loads(answer.out)
    assert shown["file"] == str(path)
    keys = ["lgo", "origin.name", "irs_client", "metrics.listen"]
    assert [problem["key"] for problem in shown["problems"]] == keys
    fine = json.loads(Answer("check", "-c", irs_file(tmp_path), "--json").out)
    assert (fine["problems"], fine["hints"]) == ([], [])


def test_check_hints_at_what_is_hardly_meant(tmp_path: Path) -> None:
    path = tmp_path / "pop.toml"
    path.write_text(
        """
        [pop]
        name = "a"
        [irs_client]
        addresses = ["127.0.0.1:1940"]
        table_file = "table"
        [ingest.rtmp]
        """
    )
    answer = Answer("check", "-c", path)
    assert answer.code == 0
    assert "is fine" in answer.out
    assert answer.err == (
        "  stream_keys: is empty, so every publisher is refused; see `edged key new`\n"
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    answer = Answer("check", "-c", tmp_path / "none.toml")
    assert answer.code == 2
    assert answer.err.splitlines()[1] == "  the file: cannot be read: No such file or directory"
    assert Answer("check").code == 2  # The option is required.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_runs_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    with interrupting(tmp_path / "admin.sock", number):
        answer = Answer("run", "-c", irs_file(tmp_path))
    assert answer.code == 0
    assert answer.error is None
    assert not (tmp_path / "admin.sock").exists()


def test_an_irs_that_is_stopped_is_followed_long_before_its_lease_ends(tmp_path: Path) -> None:
    addresses = (free_address(), free_address())
    took, seen = list[float](), threading.Event()

    async def see_it(*, task_status: trio.TaskStatus[str]) -> None:
        config = IrsClientConfig(addresses=addresses, reconnect_s_max=0.1)
        pops = [PopClient(config, PopView(f"p{at}")) for at in range(3)]
        other = IrsService(
            IrsConfig(listen=addresses[1], warmup_s=0.0),
            entropy=entropy_from(1),
            now_unix=time.time,
        )
        async with trio.open_nursery() as nursery:
            for pop in pops:
                nursery.start_soon(pop.run)
            task_status.started("")
            grants = [pop.grants for pop in pops if pop.grants is not None]
            await until(
                lambda: all(each.active(trio.current_time()) == addresses[0] for each in grants)
            )
            await nursery.start(other.run)
            await until(lambda: other.seat.status().active_at == addresses[0])
            await until(lambda: other.seat.status().pops_known == len(pops))
            began_at = trio.current_time()
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: other.seat.leads)
            took.append(trio.current_time() - began_at)
            seen.set()

    with in_a_thread(see_it):
        answer = Answer("run", "-c", irs_file(tmp_path, addresses[0]))
        assert seen.wait(2 * EPOCH_LEASE_S)
    assert answer.code == 0
    (took_s,) = took
    assert took_s < EPOCH_LEASE_S / 3


def test_run_refuses_a_mistaken_file(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(MISTAKEN)
    answer = Answer("run", "-c", path)
    assert isinstance(answer.error, ConfigError)
    assert "4 problems" in str(answer.error)


async def test_until_signal_ends_with_its_main() -> None:
    done: list[int] = []

    async def main() -> None:
        done.append(1)

    await until_signal(main)
    assert done == [1]


async def test_the_second_signal_ends_the_process_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    then: list[object] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await trio.sleep_forever()
        finally:
            then.append(signal.getsignal(signal.SIGINT))

    try:
        with trio.fail_after(5):
            await until_signal(main)
    finally:
        signal.signal(signal.SIGINT, before)
    assert then == [signal.SIG_DFL]


@pytest.mark.parametrize(
    ("text", "name", "number"),
    [
        ("", "1.toml", None),
        ("7", "pop.toml", 7),
        ("64", "1.toml", 64),
        ("auto", "2.toml", 2),
        ("auto", "pop.toml", None),
        ("auto", "pop-2.toml", None),
    ],
)
def test_shard_number(text: str, name: str, number: int | None) -> None:
    assert shard_number(text, Path("/etc/edged") / name) == number


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0", "a"),
        ("65", "a"),
        ("x", "a"),
        ("9" * 5000, "a"),
        ("auto", "0.toml"),
        ("auto", "65.toml"),
    ],
)
def test_what_is_no_shard_is_refused(text: str, name: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no shard: 1 to 64, or auto"):
        shard_number(text, Path(name))


def test_check_of_a_shard_by_the_name_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "pop.toml").write_text(
        """
        [pop]
        name = "a"
        [irs_client]
        addresses = ["127.0.0.1:1940"]
        table_file = "table"
        [ingest.rtmp]
        [[stream_keys.static]]
        channel = "one"
        key = "key-of-one"
        """
    )
    link = tmp_path / "2.toml"
    link.symlink_to("pop.toml")
    answer = Answer("check", "-c", link, "--shard", "auto")
    assert answer.out == f"{link} is fine; roles: pop (shard 2)\n"
    assert Answer("check", "-c", link).out == f"{link} is fine; roles: pop\n"
    answer = Answer("check", "-c", irs_file(tmp_path), "--shard", "1")
    assert answer.code == 2
    assert "irs: cannot be played by every shard" in answer.err
    assert Answer("run", "-c", link, "--shard", "none").code == 2


async def test_at_the_first_signal_it_stops_in_its_own_time() -> None:
    """`stop` runs while `main` goes on; a second signal ends `stop`."""
    for hurry in (False, True):
        steps: list[str] = []

        async def main(steps: list[str] = steps) -> None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                await trio.sleep_forever()
            finally:
                steps.append("main ends")

        async def stop(steps: list[str] = steps, hurry: bool = hurry) -> None:
            steps.append("stop begins")
            if hurry:
                os.kill(os.getpid(), signal.SIGTERM)
                await trio.sleep_forever()
            await trio.sleep(0.01)
            steps.append("stop ends")

        before = signal.getsignal(signal.SIGINT)
        try:
            with trio.fail_after(5):
                await until_signal(main, stop)
        finally:
            signal.signal(signal.SIGINT, before)
        told = ["stop begins", "main ends"] if hurry else ["stop begins", "stop ends", "main ends"]
        assert steps == told


async def test_sighup_reads_the_file_again(tmp_path: Path) -> None:
    path = irs_file(tmp_path)
    process = Process([load_config(path)], path)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(reload_on_signal, process.operations)
            await nursery.start(process.run)
            path.write_text(path.read_text() + "[drain]\non_stop_s = 1.0\n")
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: process.operations.config.drain.on_stop_s == 1.0)
            path.write_text(path.read_text() + "deadline_s = 0\n")
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: [x for x in logs if x["event"] == "configuration not reloaded"])
            assert process.operations.config.drain.deadline_s == 30.0
            nursery.cancel_scope.cancel()
    (line,) = [line for line in logs if line["event"] == "configuration reloaded"]
    assert line["changed"] == ["drain.on_stop_s"]


async def test_a_reload_with_a_bug_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = irs_file(tmp_path)
    process = Process([load_config(path)], path)

    def fail(*_: object) -> None:
        raise RuntimeError("injected")

    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(reload_on_signal, process.operations)
            with monkeypatch.context() as patch:
                patch.setattr(process.operations, "reload", fail)
                os.kill(os.getpid(), signal.SIGHUP)
                await until(lambda: [line for line in logs if line["event"] == "reload failed"])
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: [x for x in logs if x["event"] == "configuration reloaded"])
            nursery.cancel_scope.cancel()
