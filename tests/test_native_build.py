import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged import native
from edged.native_build import build

CUTS = """
class Cut:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def piece(self, start: int, end: int) -> bytes:
        return self.data[start:end]
"""
USES = """
from small.cuts import Cut
from small.shapes import SIDES


def first(data: bytes) -> bytes:
    return Cut(data).piece(0, SIDES)
"""
ASKS_TWICE = """
class Door:
    def __init__(self) -> None:
        self.lost: str | None = None

    def lose(self) -> None:
        self.lost = "gone"

    def told(self, loud: bool) -> bool:
        if self.lost is not None:
            return False
        self.lose()
        return loud and self.lost is None
"""
ASKS_A_PROPERTY = """
class Door:
    def __init__(self) -> None:
        self.name: str | None = None

    @property
    def lost(self) -> str | None:
        return self.name

    def told(self) -> bool:
        if self.lost is not None:
            return False
        self.name = "gone"
        return self.lost is None
"""
ASKS_ANOTHER = """
from small.shapes import Shape


def told(shape: Shape) -> bool:
    if shape.name is not None:
        return False
    shape.lose()
    return shape.name is None
"""
SHAPES = """
SIDES = 4


class Shape:
    name: str | None = None

    def lose(self) -> None:
        self.name = "gone"
"""
ASK = """
import small.cuts, small.uses
cut = small.cuts.Cut(b"abcdef")
print(small.cuts.__file__.endswith(".so"), small.uses.first(b"abcdef"))
print([cut.piece(start, end) for start in range(-8, 9) for end in range(-8, 9)])
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    package = tmp_path / "small"
    package.mkdir()
    texts = {"__init__": "", "cuts": CUTS, "uses": USES, "shapes": SHAPES}
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    return tmp_path


def must(problem: str | None) -> None:
    """A machine of CI compiles."""
    if problem is not None and not os.environ.get("CI"):
        pytest.skip(problem)
    assert problem is None


def run(root: Path) -> list[str]:
    """What a process says that finds the compiled form."""
    start = (
        "import sys; from pathlib import Path; from edged import native;"
        f"sys.path.insert(0, {str(root)!r});"
        f"sys.meta_path.insert(0, native.NativeFinder(native.find(Path({str(root / 'small')!r}))));"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", start + ASK],
        env={**os.environ, native.PURE: "1"},  # Two groups of one name do not go together.
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_it_does_as_the_source_does(root: Path) -> None:
    must(build(root, "small", ["small/cuts.py", "small/uses.py"]))
    data = b"abcdef"
    cuts = [data[start:end] for start in range(-8, 9) for end in range(-8, 9)]
    assert run(root) == ["True b'abcd'", str(cuts)], "mypyc's own b'abc'[2:1] raises"
    listed = native.manifest_of(root / "small").read_text().split()[1::2]
    assert listed == ["small/cuts.py", "small/shapes.py", "small/uses.py"]
    assert {path.name for path in (root / "small").iterdir()} == {
        *("__init__.py", "cuts.py", "shapes.py", "uses.py", native.FOLDER),
        *(["__pycache__"] if (root / "small/__pycache__").exists() else []),
    }


def test_it_is_made_once_and_anew_when_a_source_is_another(root: Path) -> None:
    modules = ["small/cuts.py", "small/uses.py"]
    must(build(root, "small", modules))
    made = native.manifest_of(root / "small").stat().st_ino
    assert build(root, "small", modules) is None
    assert native.manifest_of(root / "small").stat().st_ino == made
    (root / "small/shapes.py").write_text("SIDES = 5\n")
    assert native.find(root / "small") == {}
    assert build(root, "small", modules) is None
    assert run(root)[0] == "True b'abcde'"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def f(x: int) -> str:\n    return x\n", "Incompatible return value type"),
        (ASKS_TWICE, "read where mypy takes it for None: small/cuts.py:13"),
        (ASKS_A_PROPERTY, "read where mypy takes it for None: small/cuts.py:14"),
        (ASKS_ANOTHER, "read where mypy takes it for None: small/cuts.py:9"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_nothing(root: Path, text: str, told: str) -> None:
    must(build(root, "small", ["small/uses.py"]))
    (root / "small/cuts.py").write_text(text)
    problem = build(root, "small", ["small/cuts.py"])
    assert problem is not None
    assert told in problem
    assert not (root / "small" / native.FOLDER).exists()


def test_without_a_compiler_it_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/gcc")
    problem = build(root, "small", ["small/cuts.py"])
    assert problem is not None
    assert "/nowhere/gcc" in problem
