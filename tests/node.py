"""Scripts of the pages in node, a module at a time."""

import json
import subprocess
from pathlib import Path

from tests.conftest import require


def run_module(folder: Path, script: str) -> object:
    """What a module prints as JSON; `web` is the address of the folder with the scripts."""
    require("node")
    done = subprocess.run(
        ["node", "--input-type=module"],  # noqa: S607 - whichever node is there
        input=f"const web = {json.dumps(folder.as_uri())};\n{script}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
