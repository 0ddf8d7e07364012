import os
import sysconfig
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from unittest import mock

import pytest

from edged.build import COMPILED, compile_core, extension_of, load_by_path
from edged.playback.web import vendored

ROOT = Path(__file__).parents[1]
SOURCE = "# cython: language_level=3\ndef twice(x):\n    return 2 * x\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "small.pyx"
    path.write_text(SOURCE)
    return path


def needs_tools(problem: str | None) -> None:
    """A machine of CI compiles."""
    if problem is not None and not os.environ.get("CI"):
        pytest.skip(problem)
    assert problem is None


def test_what_is_named_is_there_and_compiled_in_ci() -> None:
    for name in COMPILED:
        assert (ROOT / name).is_file()
        made = extension_of(ROOT / name).is_file()
        needs_tools(None if made else f"{name} was not compiled")


def test_a_core_is_compiled_once_and_anew_when_its_source_is_newer(source: Path) -> None:
    needs_tools(compile_core(source))
    target = extension_of(source)
    assert target.name == f"small{sysconfig.get_config_var('EXT_SUFFIX')}"
    loader = ExtensionFileLoader("small", str(target))
    spec = spec_from_file_location("small", target, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    assert module.twice(21) == 42
    made = target.stat().st_ino
    assert compile_core(source) is None
    assert target.stat().st_ino == made
    later = target.stat().st_mtime + 5
    os.utime(source, (later, later))
    assert compile_core(source) is None
    assert target.stat().st_ino != made
    assert sorted(path.name for path in source.parent.iterdir()) == sorted(
        [source.name, target.name]
    )


def test_it_is_compiled_anew_when_a_part_of_its_source_is_newer(source: Path) -> None:
    part = source.with_name("small_part.pxi")
    part.write_text("def thrice(x):\n    return 3 * x\n")
    source.write_text(SOURCE + 'include "small_part.pxi"\n')
    needs_tools(compile_core(source))
    target = extension_of(source)
    made, later = target.stat().st_ino, target.stat().st_mtime + 5
    os.utime(part, (later, later))
    assert compile_core(source) is None
    assert target.stat().st_ino != made


def test_without_a_compiler_it_says_so_and_leaves_no_older_one(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/nowhere/gcc")
    old = extension_of(source)
    old.write_bytes(b"of an older source")
    os.utime(old, (1, 1))
    problem = compile_core(source)
    assert problem is not None
    assert problem.startswith("/nowhere/gcc failed: ")
    assert not old.exists()


def test_a_tree_that_cannot_be_written_is_no_error(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "unlink", mock.Mock(side_effect=PermissionError(13, "read-only")))
    assert compile_core(source) == "[Errno 13] read-only"


def test_a_compiler_s_error_is_quoted(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", " ")
    needs_tools(compile_core(source))
    extension_of(source).unlink()
    monkeypatch.setenv("CC", "false")
    assert compile_core(source) == "false failed with status 1: it said nothing"
    monkeypatch.delenv("CC")
    source.write_text("def twice(x:\n")
    problem = compile_core(source)
    assert problem is not None
    assert problem.startswith("Cython failed with status 1: ")


def test_modules_are_loaded_by_their_paths() -> None:
    loaded = load_by_path(ROOT / "edged/playback/web/vendored.py")
    assert loaded is not vendored
    assert loaded.HLS_INTEGRITY == vendored.HLS_INTEGRITY
