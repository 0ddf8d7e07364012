import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path

import pytest

import edged.wire.h2.session
from edged import native

ROOT = Path(__file__).parents[1]
ASK = "import edged.native, edged.wire.h2.session as m; print(edged.native.in_use(), m.__file__)"


def ask(**environment: str) -> str:
    """What a process of its own runs."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", ASK],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def made(package: Path, **sources: str) -> Path:
    """A package with a compiled form of these sources; returns its folder."""
    package.mkdir()
    lines = []
    for name, text in sources.items():
        (package / f"{name}.py").write_text(text)
        lines.append(f"{native.digest_of(package / f'{name}.py')} {package.name}/{name}.py\n")
    folder = package / native.FOLDER
    for name in ("edged__mypyc", *(f"{package.name}/{name}" for name in sources)):
        file = folder / f"{name}{EXTENSION_SUFFIXES[0]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    native.manifest_of(package).write_text("".join(lines))
    return folder


def test_what_is_named_is_there() -> None:
    assert all((ROOT / name).is_file() for name in native.NATIVE)
    assert list(native.NATIVE) == sorted(set(native.NATIVE))


def test_ci_runs_what_was_compiled() -> None:
    if not os.environ.get("CI") or os.environ.get(native.PURE):
        pytest.skip("a checkout in which somebody works may run as Python")
    assert native.in_use(), "the package's build warns of what went wrong"
    assert isinstance(edged.wire.h2.session.__spec__.loader, ExtensionFileLoader)


@pytest.mark.skipif(not native.in_use(), reason="nothing is compiled")
def test_the_environment_has_it_run_as_python() -> None:
    assert ask(**{native.PURE: "0"}).startswith("True ")
    told = ask(**{native.PURE: "1"})
    assert told.startswith("False ")
    assert told.strip().endswith("session.py")


def test_what_was_compiled_is_found_while_its_sources_are_the_same(tmp_path: Path) -> None:
    folder = made(tmp_path / "small", one="X = 1\n", two="Y = 2\n")
    suffix = EXTENSION_SUFFIXES[0]
    assert native.find(tmp_path / "small") == {
        "edged__mypyc": folder / f"edged__mypyc{suffix}",
        "small.one": folder / f"small/one{suffix}",
        "small.two": folder / f"small/two{suffix}",
    }
    os.utime(tmp_path / "small/one.py", (1, 1))
    assert native.find(tmp_path / "small"), "it is what they say that counts"


@pytest.mark.parametrize("change", ["edited", "gone", "unlisted", "without its library"])
def test_one_source_that_is_another_has_all_run_as_python(tmp_path: Path, change: str) -> None:
    package = tmp_path / "small"
    made(package, one="X = 1\n", two="Y = 2\n")
    if change == "edited":
        (package / "two.py").write_text("Y = 3\n")
    elif change == "gone":
        (package / "two.py").unlink()
    elif change == "without its library":
        (package / native.FOLDER / f"edged__mypyc{EXTENSION_SUFFIXES[0]}").unlink()
    else:
        native.manifest_of(package).unlink()
    assert native.find(package) == {}


def test_for_another_python_nothing_is_found(tmp_path: Path) -> None:
    package = tmp_path / "small"
    folder = made(package, one="X = 1\n")
    listed = native.manifest_of(package)
    listed.rename(folder / "sources.cpython-399-x86_64-linux-gnu.so.txt")
    assert native.find(package) == {}


def test_what_it_was_built_by_is_among_its_sources() -> None:
    if not native.find(native.PACKAGE):
        pytest.skip("nothing is compiled")
    listed = native.manifest_of(native.PACKAGE).read_text().split()[1::2]
    assert "edged/native_build.py" in listed


def test_the_finder_leaves_all_others_alone(tmp_path: Path) -> None:
    file = tmp_path / f"one{EXTENSION_SUFFIXES[0]}"
    finder = native.NativeFinder({"small.one": file})
    assert finder.find_spec("small.two", None) is None
    spec = finder.find_spec("small.one", None)
    assert spec is not None
    assert spec.origin == str(file)
    assert isinstance(spec.loader, ExtensionFileLoader)
