"""The command as a whole: help, version, and what errors look like."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from edged import __version__
from edged.cli import main as main_module
from edged.cli.main import COMMANDS, main, make_app
from edged.errors import ConfigError, EdgedError, PeerLostError
from tests.cli.invoke import Answer


def test_without_arguments_it_helps() -> None:
    answer = Answer()
    assert "Usage: edged" in answer.out
    for name in ("demo", "run", "check", "publish", "streams", "route", "key", "cert"):
        assert f" {name} " in answer.out


def test_version() -> None:
    assert Answer("--version").out == f"edged {__version__}\n"


def test_short_help() -> None:
    assert Answer("run", "-h").out == Answer("run", "--help").out


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (ConfigError("pop.toml: 2 problems\n  a: b\n  c: d"), 2, ["error pop.toml: 2 problems"]),
        (EdgedError("no edged runs here"), 1, ["error no edged runs here"]),
        (
            ExceptionGroup("x", [ExceptionGroup("y", [EdgedError("[one]"), PeerLostError("two")])]),
            1,
            ["error [one]", "error two"],
        ),
        (
            ExceptionGroup("x", [EdgedError("one"), ConfigError("two")]),
            2,
            ["error two", "error one"],
        ),
    ],
)
def test_expected_errors_are_lines_and_an_exit_code(
    error: Exception,
    code: int,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(main_module, "make_app", lambda _: fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line for line in shown.err.splitlines() if line.startswith("error")] == lines


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main_module, "make_app", lambda _: fail)
    with pytest.raises(ZeroDivisionError):
        main()


def test_the_entry_point(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["edged", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"edged {__version__}\n"
    assert make_app().info.name == "edged"


def test_each_command_can_be_had_alone_and_is_the_same() -> None:
    runner = CliRunner()
    for command in COMMANDS:
        alone = runner.invoke(make_app([command.name]), [command.name, "--help"])
        among_all = runner.invoke(make_app(), [command.name, "--help"])
        assert alone.exit_code == 0, alone.output
        assert alone.output == among_all.output


def test_edged_run_waits_for_no_encoder_and_no_certificate_maker() -> None:
    """A PoP that is restarted is to decide within a second."""
    script = (
        "import sys; from edged.cli.main import make_app; make_app(['run']);"
        "print(sorted({'av', 'cryptography'} & sys.modules.keys()))"
    )
    done = subprocess.run(  # noqa: S603 - our own arguments
        [sys.executable, "-c", script], capture_output=True, check=True
    )
    assert done.stdout == b"[]\n"
