"""One edged is asked, or all shards that are there."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec import structs

from edged.api.admin import AdminConfig, Arguments, open_socket, serve_admin
from edged.cli import asking
from edged.cli.asking import Where, ask_all, find_sockets
from edged.errors import EdgedError
from edged.roles.operations import KickAnswer
from edged.runtime.shards import of_shard
from tests.cli.invoke import Answer, in_a_thread
from tests.cli.test_inspect import LINE


@contextlib.contextmanager
def shards_at(base: Path, *numbers: int) -> Iterator[None]:
    """Shards that say which they are."""

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            for number in numbers:
                place = of_shard(base, number) if number else base

                def streams(arguments: Arguments, number: int = number) -> object:
                    return [structs.replace(LINE, role=f"pop ams1/{number}")]

                def kick(arguments: Arguments, number: int = number) -> object:
                    block_s = float(arguments.get("block_s", 0.0))
                    here = arguments["channel"] == f"at {number}"
                    if not here and not block_s:
                        raise EdgedError("it is not published here")
                    kicked = [f"pop ams1/{number}"] if here else []
                    return KickAnswer(channel="", kicked=kicked, blocked_s=block_s)

                handlers = {"streams": streams, "kick": kick}
                await nursery.start(serve_admin, AdminConfig(socket=place), handlers)
            task_status.started("")

    with in_a_thread(main):
        yield


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pop.toml"
    path.write_text(
        f"""
        [pop]
        name = "ams1"
        [irs_client]
        addresses = ["127.0.0.1:1940"]
        [ingest.rtmp]
        [admin]
        socket = "{tmp_path}/admin.sock"
        """
    )
    return path


def test_all_shards_of_a_file_are_asked(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "admin.sock"
    monkeypatch.setattr(asking, "default_sockets", lambda: [tmp_path / "none.sock", base])
    with shards_at(base, 1, 2, 64):
        choices: list[list[str | Path]] = [["-c", config], []]
        for options in choices:
            lines = json.loads(Answer("streams", *options, "--json").out)
            assert [line["role"] for line in lines] == ["pop ams1/1", "pop ams1/2", "pop ams1/64"]
            lines = json.loads(Answer("streams", *options, "--shard", "2", "--json").out)
            assert [line["role"] for line in lines] == ["pop ams1/2"]
        lines = json.loads(Answer("streams", "--socket", of_shard(base, 1), "--json").out)
        assert [line["role"] for line in lines] == ["pop ams1/1"]
        answer = Answer("streams", "--shard", "3")
        assert isinstance(answer.error, EdgedError)
        assert "no edged runs here (no socket of shard 3)" in str(answer.error)
    with shards_at(base, 0):
        assert find_sockets(Where(config=config)) == [base]


def test_a_shard_that_does_not_answer_is_named_and_the_others_are_shown(
    config: Path, tmp_path: Path
) -> None:
    base = tmp_path / "admin.sock"
    open_socket(of_shard(base, 2)).close()  # As a process that was killed leaves it.
    with shards_at(base, 1):
        answer = Answer("streams", "-c", config)
        assert answer.code == 1
        assert "pop ams1/1" in answer.out
        assert "admin-2.sock" in answer.err
        assert "Connection refused" in answer.err


def test_a_channel_is_kicked_at_the_shard_that_has_it_and_refused_by_all(
    config: Path, tmp_path: Path
) -> None:
    base = tmp_path / "admin.sock"
    with shards_at(base, 1, 2):
        answer = Answer("kick", "at 2", "-c", config)
        assert (answer.code, answer.out) == (0, "at 2 was ended at pop ams1/2\n")
        assert answer.err == ""
        answer = Answer("kick", "at 1", "-c", config, "--block", "10m")
        assert answer.out == "at 1 was ended at pop ams1/1\nit is refused here for 600 s\n"
        answer = Answer("kick", "at 3", "-c", config)
        assert "it is not published here; it is not published here" in str(answer.error)
        assert "it is not" in str(Answer("kick", "at 2", "-c", config, "--shard", "1").error)
    open_socket(of_shard(base, 2)).close()
    with shards_at(base, 1):
        answer = Answer("kick", "at 1", "-c", config, "--block", "10m")
        assert answer.code == 1, "one of them lets the channel in"
        assert "at 1 was ended at pop ams1/1" in answer.out
        assert "admin-2.sock" in answer.err


def test_when_nobody_answers_all_are_named(config: Path, tmp_path: Path) -> None:
    base = tmp_path / "admin.sock"
    with pytest.raises(EdgedError, match=r"no edged answers at '.*admin\.sock'"):
        ask_all("streams", {}, Where(config=config))
    for number in (1, 2):
        open_socket(of_shard(base, number)).close()
    with pytest.raises(EdgedError, match=r"admin-1\.sock.*; .*admin-2\.sock"):
        ask_all("streams", {}, Where(config=config))
