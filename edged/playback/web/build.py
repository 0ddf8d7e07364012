"""hatchling's build hook: brings the pinned hls.js from npm into the package, for wheels and
editable installs.

Where npm is absent or fails the build goes on: the watch page then loads the same file, by its
hash, from a CDN.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NPM_TIMEOUT_S = 120
HERE = "edged/playback/web"


class VendorHook(BuildHookInterface[BuilderConfig]):
    """Puts `vendor/hls.min.js` beside the pages before the build collects its files."""

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        """Bring the file, unless it is there already, and include it though git ignores it."""
        del version
        web = Path(self.root) / HERE
        vendored = load_vendored(web)
        target = web / "vendor" / vendored.HLS_FILE
        problem = bring(vendored, target)
        if problem is None:
            artifacts = build_data.setdefault("artifacts", [])
            assert isinstance(artifacts, list), "hatchling gives a list"
            artifacts.append(f"/{HERE}/vendor/{vendored.HLS_FILE}")
        else:
            self.app.display_warning(
                f"hls.js was not brought into the package: {problem}; "
                f"the watch page will load {vendored.HLS_CDN_URL}"
            )


def load_vendored(web: Path) -> ModuleType:
    """Load `vendored.py` by its path: the package itself is not importable during its build."""
    spec = importlib.util.spec_from_file_location("edged_vendored", web / "vendored.py")
    assert spec is not None, "the file is beside this one"
    assert spec.loader is not None, "it is Python source"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bring(vendored: ModuleType, target: Path) -> str | None:
    """Write the pinned file to `target`; return what went wrong, or None."""
    if target.is_file() and vendored.is_hls(target.read_bytes()):
        return None
    target.unlink(missing_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            npm,
            "pack",
            vendored.HLS_PACKAGE,
            "--silent",
            "--ignore-scripts",
            "--pack-destination",
            folder,
        ]
        try:
            done = subprocess.run(  # noqa: S603 (npm from PATH, with fixed arguments)
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=NPM_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"npm failed: {error}"
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            return f"npm failed with status {done.returncode}: {said[-1]}"
        try:
            data = vendored.take_hls(archives[0].read_bytes())
        except vendored.IntegrityError as error:
            return f"refused: {error}"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(data)
    return None


if __name__ == "__main__":  # By hand, in a checkout: python edged/playback/web/build.py
    here = Path(__file__).parent
    loaded = load_vendored(here)
    sys.exit(bring(loaded, here / "vendor" / loaded.HLS_FILE))
