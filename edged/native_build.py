"""Makes the compiled form of a package's modules (`edged/native.py`): by mypyc, and a C compiler.

`python edged/native_build.py ROOT PACKAGE MODULE...` in a process of its own, as mypyc keeps much.
"""

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

BUILD_S_MAX = 900
FLAGS = (
    *("-fPIC", "-fwrapv", "-DNDEBUG", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"),
    f"-I{sysconfig.get_path('include')}",
)
# In mypyc's C: what has to be None, and where its error is said to be.
_IS_NONE = re.compile(
    r'CPy_TypeError(?:Traceback)?\((?:"[^"]+", "[^"]+", \d+, \w+, )?"None", (?P<value>\w+)\)'
)
_PLACE = re.compile(r'"(?P<file>[^"]+\.py)", "[^"]+", (?P<line>\d+)')
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
LINK_FLAGS = ("-shared", "-Wl,-z,relro,-z,now")


def build(root: Path, package: str, modules: Sequence[str]) -> str | None:
    """Make what is not there already; return what went wrong, or None.

    `modules` are paths from `root`. What is left of other sources is removed where nothing new can
    be made.
    """
    names = _load_names()
    if set(names.find(root / package)) >= {_dotted(module) for module in modules}:
        return None
    folder = root / package / names.FOLDER
    command = [sys.executable, str(Path(__file__)), str(root), package, *modules]
    try:
        shutil.rmtree(folder, ignore_errors=True)
        done = subprocess.run(  # noqa: S603 (ourselves)
            command, capture_output=True, text=True, timeout=BUILD_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"mypyc failed: {error}"
    if done.returncode == 0:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
    errors = [line for line in said if "error" in line.lower()]
    return f"mypyc failed with status {done.returncode}: {(errors or said)[-1].strip()}"


def _load_names() -> ModuleType:
    """`edged.native`, by its path: the package itself is not importable during its build."""
    spec = importlib.util.spec_from_file_location(
        "edged_native_names", Path(__file__).with_name("native.py")
    )
    assert spec is not None, "the file is there"
    assert spec.loader is not None, "it is Python source"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _dotted(module: str) -> str:
    return module.removesuffix(".py").replace("/", ".")


def main(root: Path, package: str, modules: Sequence[str]) -> None:
    """Compile all, and put it in its place once it is all done."""
    from mypyc.build import mypycify  # noqa: PLC0415 - nobody but this process has it

    names = _load_names()
    os.chdir(root)  # What mypy is told of the project is there.
    with tempfile.TemporaryDirectory(dir=root / package) as name:
        in_c, objects, made = Path(name, "c"), Path(name, "objects"), Path(name, "made")
        objects.mkdir()
        extensions = mypycify(
            ["--follow-imports=silent", "--cache-dir", str(Path(name, "cache")), *modules],
            opt_level="2", debug_level="0", multi_file=True,
            target_dir=str(in_c), group_name=names.GROUP,
        )  # fmt: skip
        _mend(in_c / "bytes_ops.c")
        _check(in_c)
        compiles: list[list[str]] = []
        links: list[list[str]] = []
        for extension in extensions:
            options = [*extension.extra_compile_args, *FLAGS]
            options += [f"-I{path}" for path in extension.include_dirs]
            parts = []
            for source in extension.sources:
                parts.append(str(objects / f"{len(compiles)}.o"))
                compiles.append([*options, "-c", source, "-o", parts[-1]])
            target = made / f"{extension.name.replace('.', '/')}{SUFFIX}"
            target.parent.mkdir(parents=True, exist_ok=True)
            links.append([*LINK_FLAGS, *parts, "-o", str(target)])
        for commands in (compiles, links):
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                list(pool.map(_run_compiler, commands))
        sources = sorted({*modules, *_imported(root, package, modules), *_builder(root)})
        listed = made / names.manifest_of(Path(package)).name
        listed.write_text("".join(f"{names.digest_of(root / s)} {s}\n" for s in sources))
        made.replace(root / package / names.FOLDER)


def _builder(root: Path) -> Iterator[str]:
    """This very source, if it is of the package: what it mends and refuses is of the result."""
    file = Path(__file__).resolve()
    if file.is_relative_to(root.resolve()):
        yield file.relative_to(root.resolve()).as_posix()


def _mend(file: Path) -> None:
    """Of bytes[3:1] mypyc 2.4.1 makes an error instead of b""."""
    wrong, right = "slice_len = endn - startn;", "slice_len = endn > startn ? endn - startn : 0;"
    text = file.read_text()
    if wrong not in text:
        raise ValueError(f"{file.name} is not as known: look whether this is still to be mended")
    file.write_text(text.replace(wrong, right))


def _check(in_c: Path) -> None:
    """Find what mypy takes for None, and asks for all the same: it may have changed in a call.

    mypyc raises TypeError if it has, be it an attribute, a property or an item; it is to be asked
    for by a method, or by a property of another name. (What mypy takes for unreachable is not
    compiled at all: `warn_unreachable` tells of that.)
    """
    found = set()
    for file in in_c.glob("__native*.c"):
        text = file.read_text()
        for check in _IS_NONE.finditer(text):
            made = text.rfind(f"{check['value']} = ", 0, check.start())
            if "Vectorcall" not in text[made : text.index("\n", made)]:  # A call may return None.
                place = _PLACE.search(text, check.start())
                assert place is not None, "an error tells where it is"
                found.add(f"{place['file']}:{place['line']}")
    if found:
        raise ValueError(f"error: read where mypy takes it for None: {', '.join(sorted(found))}")


def _run_compiler(arguments: Sequence[str]) -> None:
    named = os.environ.get("CC", "").strip() or sysconfig.get_config_var("CC") or "cc"
    subprocess.run([*shlex.split(named), *arguments], check=True)  # noqa: S603


def _imported(root: Path, package: str, modules: Sequence[str]) -> Iterator[str]:
    """The package's sources that these name in imports: their constants may be in the C."""
    for module in modules:
        for node in ast.walk(ast.parse((root / module).read_text())):
            if not isinstance(node, ast.ImportFrom) or node.module is None or node.level:
                continue
            if node.module.partition(".")[0] != package:
                continue
            base = node.module.replace(".", "/")
            for path in (base, *(f"{base}/{alias.name}" for alias in node.names)):
                found = (f"{path}.py", f"{path}/__init__.py")
                yield from (file for file in found if (root / file).is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
