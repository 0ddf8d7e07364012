"""Brings the pinned hls.js from npm into the package; `edged/build.py` calls it.

Where npm is absent or fails the watch page loads the same file, by its hash, from a CDN.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType

NPM_TIMEOUT_S = 120


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
