"""hatchling's build hook: what a wheel or an editable install has beyond the source files.

That is the pinned hls.js, brought by npm; the compiled cores, made by Cython and a C compiler; and
the compiled form of what is hot (`edged/native.py`), made by mypyc and a C compiler. Where a tool
is missing or fails the build goes on and says so: the watch page then loads hls.js from a CDN, and
what runs is Python.
"""

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB = "edged/playback/web"
COMPILED = ("edged/wire/rtmp/fast.pyx", "edged/wire/h2/fast.pyx", "edged/runtime/fast.pyx")
NATIVE_FOLDER = "edged/_native"
FLAGS = (
    *("-O2", "-fPIC", "-shared", "-fwrapv", "-DNDEBUG", "-w"),  # -w: the C is Cython's, not ours.
    *("-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wl,-z,relro,-z,now"),
)
COMPILE_S_MAX = 300


class BuildHook(BuildHookInterface[BuilderConfig]):
    """Puts the files beside the sources before the build collects them; git ignores them."""

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        """Make what is not there already."""
        del version
        root = Path(self.root)
        artifacts = build_data.setdefault("artifacts", [])
        assert isinstance(artifacts, list), "hatchling gives a list"
        web = load_by_path(root / WEB / "build.py")
        vendored = load_by_path(root / WEB / "vendored.py")
        hls = f"{WEB}/vendor/{vendored.HLS_FILE}"
        problem = web.bring(vendored, root / hls)
        if problem is None:
            artifacts.append(f"/{hls}")
        else:
            self.app.display_warning(
                f"hls.js was not brought into the package: {problem}; "
                f"the watch page will load {vendored.HLS_CDN_URL}"
            )
        if self.target_name != "wheel":
            return  # A source distribution is for any Python.
        made = []
        for source in COMPILED:
            problem = compile_core(root / source)
            if problem is None:
                made.append(f"/{extension_of(Path(source))}")
            else:
                self.app.display_warning(
                    f"{source} was not compiled: {problem}; its Python twin takes more CPU"
                )
        problem = compile_native(root)
        if problem is None:
            made.append(f"/{NATIVE_FOLDER}/")
        else:
            self.app.display_warning(
                f"nothing hot was compiled: {problem}; as Python it takes more CPU"
            )
        if made:
            artifacts.extend(made)
            build_data["pure_python"], build_data["infer_tag"] = False, True


def compile_native(root: Path) -> str | None:
    """Make the compiled form of what is hot, if it is not of these sources; what went wrong."""
    modules = load_by_path(root / "edged/native.py").NATIVE
    problem: str | None = load_by_path(root / "edged/native_build.py").build(root, "edged", modules)
    return problem


def load_by_path(path: Path) -> ModuleType:
    """Load a module by its path: the package itself is not importable during its build."""
    spec = importlib.util.spec_from_file_location(f"edged_build_{path.stem}", path)
    assert spec is not None, "the file is there"
    assert spec.loader is not None, "it is Python source"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extension_of(source: Path) -> Path:
    """What is made of a core's source: an extension module of the Python that runs."""
    return source.with_name(source.stem + sysconfig.get_config_var("EXT_SUFFIX"))


def compile_core(source: Path) -> str | None:
    """Make the extension module if it is older than its source; return what went wrong, or None.

    One that is left of an older source is removed where no new one can be made.
    """
    try:
        return _compile(source, extension_of(source))
    except OSError as error:  # A tree that cannot be written, for instance.
        return str(error)


def _compile(source: Path, target: Path) -> str | None:
    parts = (source, *source.parent.glob(f"{source.stem}_*.pxi"), Path(__file__))
    newest = max(part.stat().st_mtime for part in parts)
    if target.is_file() and target.stat().st_mtime >= newest:
        return None
    target.unlink(missing_ok=True)
    named = os.environ.get("CC", "").strip() or sysconfig.get_config_var("CC") or "cc"
    compiler = shlex.split(named)
    headers = sysconfig.get_path("include")
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        in_c, made = Path(folder, "core.c"), Path(folder, "core.so")
        steps = (
            ("Cython", [sys.executable, "-m", "cython", "-3", "-o", str(in_c), str(source)]),
            (compiler[0], [*compiler, *FLAGS, f"-I{headers}", str(in_c), "-o", str(made)]),
        )
        for name, command in steps:
            try:
                done = subprocess.run(  # noqa: S603 (the build's own compilers)
                    command, capture_output=True, text=True, timeout=COMPILE_S_MAX, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"{name} failed: {error}"
            if done.returncode != 0:
                said = [line for line in done.stderr.splitlines() if "error" in line.lower()]
                said = said or done.stderr.strip().splitlines() or ["it said nothing"]
                return f"{name} failed with status {done.returncode}: {said[0].strip()}"
        made.replace(target)
    return None


if __name__ == "__main__":  # By hand, in a checkout whose environment has Cython and mypyc.
    top = Path(__file__).parents[1]
    problems = [*(compile_core(top / source) for source in COMPILED), compile_native(top)]
    sys.exit("\n".join(filter(None, problems)))
