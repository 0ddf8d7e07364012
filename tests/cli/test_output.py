"""What commands print, for people and for programs."""

import json
import subprocess
import sys

import pytest
from msgspec import Struct

from edged.cli import EXIT_CONFIG, EXIT_FAILED
from edged.cli.output import console, fail, print_json, print_table


class Thing(Struct):
    name: str
    parts: list[int]


def test_json_is_one_document(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_json([Thing("a", [1, 2])])
    out = capfdbinary.readouterr().out
    assert json.loads(out) == [{"name": "a", "parts": [1, 2]}]
    assert out.endswith(b"\n")


def test_tables_are_not_cut_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("streams", ("channel", "title"), [("alice", "x" * 90), ("bob", "y" * 90)])
    out = capsys.readouterr().out.splitlines()
    assert out[0].rstrip() == "streams"
    assert out[1].split() == ["channel", "title"]
    assert out[2].split() == ["alice", "x" * 90]
    assert out[3].split() == ["bob", "y" * 90]


@pytest.mark.parametrize("whole", [True, False])
def test_a_first_column_stays_whole_if_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, whole: bool
) -> None:
    monkeypatch.setattr(console, "width", 20)
    print_table("", ("", "a"), [("what it is, %", 30 * "x")], is_first_whole=whole)
    out = capsys.readouterr().out
    assert ("what it is, %" in out) is whole
    assert out.count("x") == 30


@pytest.mark.parametrize("code", [EXIT_FAILED, EXIT_CONFIG])
def test_failures_are_whole_lines_on_standard_error(
    code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "cannot listen on '[::]:1935': " + "long " * 60 + "[bold]end[/bold]"
    assert fail(message, code).exit_code == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"error {message}\n"


def test_no_colours_without_a_terminal() -> None:
    code = "from edged.cli.output import console; console.print('[bold red]x[/]')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)  # noqa: S603 - our own arguments
    assert shown.stdout == b"x\n"
    assert console.file is sys.stdout
