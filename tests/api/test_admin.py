"""The admin door over a real Unix socket."""

import os
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from edged.api import admin
from edged.api.admin import (
    AdminConfig,
    Arguments,
    answer,
    ask,
    open_socket,
    require_private,
    serve_admin,
)
from edged.errors import ConfigError, EdgedError


def handle_echo(arguments: Arguments) -> object:
    return {"said": arguments.get("word", "")}


def handle_fail(arguments: Arguments) -> object:
    raise EdgedError("channel 'x' is not live")


HANDLERS = {"echo": handle_echo, "fail": handle_fail}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"garbage", "JSON is malformed"),
        (b'{"command": "\xff"}', "can't decode byte 0xff"),
        (b'{"arguments": {"\xff": ""}}', "can't decode byte 0xff"),
        (b"[" * 10_000, "Expected `object`"),
        (b'{"command": "dance"}', "unknown command 'dance'; known: echo, fail"),
        (b'{"command": "fail"}', "channel 'x' is not live"),
        (b'{"command": "echo", "x": 1}', "unknown field `x`"),
        (b'{"command": "echo", "arguments": {"word": 5}}', "Expected `str`, got `int`"),
    ],
)
def test_what_is_wrong_is_said(line: bytes, error: str) -> None:
    assert error in msgspec.json.decode(answer(line, HANDLERS))["error"]


def test_a_handler_with_a_bug_is_told_as_one() -> None:
    def broken(arguments: Arguments) -> object:
        raise RuntimeError("injected")

    with capture_logs() as logs:
        told = answer(b'{"command": "broken"}', {"broken": broken})
    assert b"internal error in 'broken': RuntimeError('injected'); see the log" in told
    assert logs[0]["event"] == "admin command failed"


async def test_ask_and_answer(tmp_path: Path) -> None:
    config = AdminConfig(socket=tmp_path / "run" / "admin.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_admin, config, HANDLERS)
        assert config.socket.stat().st_mode & 0o777 == 0o600
        assert await ask(config.socket, "echo", {"word": "hi"}) == b'{"said":"hi"}'
        with pytest.raises(EdgedError, match="channel 'x' is not live"):
            await ask(config.socket, "fail", {})
        nursery.cancel_scope.cancel()
    assert not config.socket.exists()


def test_a_private_folder_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, link, file = (tmp_path / name for name in ("folder", "link", "file"))
    folder.mkdir(0o700)
    require_private(folder)
    link.symlink_to(folder)
    file.touch(0o600)
    for path, wrong in (
        (link, "is a symbolic link: remove it, or take another"),
        (file, "is no folder: remove it, or take another"),
        (tmp_path / "none", ": No such file or directory"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            require_private(path)
    for mode in (0o710, 0o701, 0o720, 0o777):
        folder.chmod(mode)
        with pytest.raises(ConfigError, match=f"is open to others, mode {mode:o}: chmod 700 it"):
            require_private(folder)
    folder.chmod(0o700)
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=f"belongs to another user, {owner}: take one of your"):
        require_private(folder)


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(EdgedError, match="no edged answers at"):
        await ask(tmp_path / "none.sock", "echo", {})


async def test_a_line_too_long_ends_that_session_only(tmp_path: Path) -> None:
    config = AdminConfig(socket=tmp_path / "admin.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_admin, config, HANDLERS)
        async with await trio.open_unix_socket(config.socket) as stream:
            with trio.fail_after(5), pytest.raises((trio.BrokenResourceError, EdgedError)):  # noqa: PT012 - the server may close at any byte of it
                while True:
                    await stream.send_all(bytes(admin.LINE_BYTES_MAX))
        assert await ask(config.socket, "echo", {}) == b'{"said":""}'
        nursery.cancel_scope.cancel()


async def test_an_idle_session_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "IDLE_TIMEOUT_S", 0.02)
    config = AdminConfig(socket=tmp_path / "admin.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_admin, config, HANDLERS)
        async with await trio.open_unix_socket(config.socket) as stream:
            with trio.fail_after(5):
                assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()


def test_a_dead_process_s_socket_is_replaced_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    open_socket(path).close()
    assert path.exists()
    with open_socket(path), pytest.raises(ConfigError, match="another edged answers there"):
        open_socket(path)


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket is there"):
        open_socket(path)
    assert path.read_text() == "precious"


def test_the_default_places() -> None:
    assert [path.name for path in admin.default_sockets()] == ["admin.sock", "admin.sock"]
