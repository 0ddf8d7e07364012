"""The house kept tidy: what STYLE says of files, functions and places, as tests."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
TOP_LEVEL = {
    "edged",
    "config",
    "systemd",
    "tests",
    "pyproject.toml",
    "Dockerfile",
    "README.md",
    "CHANGELOG.md",
}


def modules() -> list[Path]:
    return sorted((ROOT / "edged").rglob("*.py"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    lines = text.count("\n")
    assert lines <= MODULE_LINES_MAX, f"{lines} lines; split it"
    for function in functions(ast.parse(text)):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= FUNCTION_LINES_MAX, f"{function.name}: {length} lines"


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "edged").rglob("*.px?")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_sizes_of_what_is_compiled(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= MODULE_LINES_MAX, f"{lines} lines; split it"


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if path.name not in ("__init__.py", "__main__.py")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_module_has_its_test(path: Path) -> None:
    if not list(functions(ast.parse(path.read_text()))):
        return  # Declarations alone.
    place = path.relative_to(ROOT / "edged")
    expected = ROOT / "tests" / place.parent / f"test_{place.name}"
    assert expected.is_file(), f"missing {expected.relative_to(ROOT)}"


def test_the_top_level_stays_as_designed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],  # noqa: S607 - whichever git is there
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    top = {line.split("/")[0] for line in listed if line}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


def test_no_module_is_left_unfinished() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error")
    found = [
        f"{path.relative_to(ROOT)}: {mark}"
        for path in modules()
        for mark in marks
        if mark in path.read_text()
    ]
    assert found == []
