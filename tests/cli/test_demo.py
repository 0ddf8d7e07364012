"""`edged demo`: its plan, and the network without its publisher; the picture is in tests/e2e."""

import hashlib
import json
import signal
import socket
from pathlib import Path

import pytest
from rich.console import Console

from edged.api.admin import default_sockets, demo_directory
from edged.cli import demo as demo_module
from edged.cli.demo import POPS, describe, load_keys, plan_demo
from edged.cli.output import print_json
from edged.config import find_hints
from edged.errors import ConfigError
from edged.policy.stream_keys import StreamKeys
from tests.cli.invoke import Answer, interrupting


def test_keys_are_kept_for_the_next_demo(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    keys = load_keys(folder)
    assert keys.own != keys.test
    assert load_keys(folder) == keys
    assert (folder / "stream-keys.json").stat().st_mode & 0o077 == 0
    (folder / "stream-keys.json").write_text("garbage")
    assert load_keys(folder) != keys


def test_keys_are_neither_put_into_nor_taken_from_a_folder_open_to_others(tmp_path: Path) -> None:
    folder, link = tmp_path / "demo", tmp_path / "link"
    load_keys(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o750)
    link.symlink_to(folder)
    for path, wrong in ((folder, "is open to others, mode 750"), (link, "is a symbolic link")):
        with pytest.raises(ConfigError, match=f"{path}' {wrong}"):
            load_keys(path)


def test_the_plan_is_four_hosts(tmp_path: Path) -> None:
    keys = load_keys(tmp_path)
    addresses, configs = plan_demo(keys, tmp_path, any_port=True)
    roles = [
        [name for name in ("irs", "origin", "pop") if getattr(config, name) is not None]
        for config in configs
    ]
    assert roles == [["irs"], ["origin"], ["pop"], ["pop"]]
    for config in configs[2:]:
        assert [hint.key for hint in find_hints(config)] == ["irs_client.table_file"]
        known = StreamKeys.from_config(config.stream_keys)
        assert known.check("live", keys.own, 0.0, "rtmp").channel == addresses.channel
        assert known.check("live", keys.test, 0.0, "rtmp").channel == "demo"
    places = [*addresses.rtmp.values(), *addresses.playback.values(), addresses.metrics]
    assert len(set(places)) == 5
    page, _, token = addresses.status.partition("#")
    for config in configs:
        assert f"http://{config.admin.listen}/" == page
        assert config.admin.token_sha256 == hashlib.sha256(token.encode()).hexdigest()
    again, _ = plan_demo(keys, tmp_path, any_port=True)
    assert again.status.partition("#")[2] != token
    assert set(addresses.watch) == set(POPS)


def test_ports_that_are_taken_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(demo_module, "PLAYBACK_PORT", port)
        addresses, _ = plan_demo(load_keys(tmp_path), tmp_path, any_port=False)
        assert addresses.playback["west"] != f"http://127.0.0.1:{port}"
    addresses, _ = plan_demo(load_keys(tmp_path), tmp_path, any_port=False)
    assert addresses.playback["west"] == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("publisher", [True, False])
def test_it_prints_what_a_person_needs(tmp_path: Path, publisher: bool) -> None:
    keys = load_keys(tmp_path)
    addresses, _ = plan_demo(keys, tmp_path, any_port=True)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(describe(addresses, publisher=publisher))
    shown = capture.get()
    for text in (
        *(*addresses.rtmp.values(), keys.own, addresses.metrics, "OBS", "Ctrl-C"),
        *(addresses.status, "edged top"),
    ):
        assert text in shown
    assert (addresses.watch["east"] in shown) is publisher
    assert keys.test not in shown


def test_the_network_runs_until_it_is_told_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def print_then_interrupt(value: object) -> None:
        print_json(value)
        (tmp_path / "printed").touch()

    monkeypatch.setattr(demo_module, "print_json", print_then_interrupt)
    with interrupting(tmp_path / "printed", signal.SIGINT):
        answer = Answer("demo", "--any-port", "--no-publisher", "--json", "--dir", tmp_path)
    assert answer.error is None
    assert answer.code == 0
    shown = json.loads(answer.out)
    assert shown["admin"] == str(tmp_path / "admin.sock")
    assert set(shown["rtmp"]) == set(POPS)
    assert not (tmp_path / "admin.sock").exists()


def test_its_admin_socket_is_where_the_command_line_looks() -> None:
    assert demo_directory() / "admin.sock" in default_sockets()
