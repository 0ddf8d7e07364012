"""The long runs: `python -m tests.fuzz --inputs 1000000`, for all targets or those that are named.

With atheris installed the inputs are guided by coverage; else, or with --seeded, they are mutations
of the seeds. Either way `--seed` makes a run that can be had again. A finding is written to
`--out`, and ends its target's run; `--replay FILE` feeds it again.
"""

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.names import NAMES

if TYPE_CHECKING:
    from tests.fuzz.script import Target

ESCAPED = 3  # The exit code when something did.


def main() -> int:
    """Run; the exit code says whether anything escaped."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], help="default: all")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeded", action="store_true", help="mutations without coverage")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "edged-fuzz")
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    names = options.targets or list(NAMES)
    if len(names) > 1:
        return run_each(names, options)
    if options.replay is not None:
        return replay(names[0], options.replay)
    guided = not options.seeded and importlib.util.find_spec("atheris") is not None
    run = run_guided if guided else run_plain
    return run(names[0], options.inputs, options.seed, options.out)


def run_each(names: Sequence[str], options: argparse.Namespace) -> int:
    """Each in a process of its own: its memory is its own, too."""
    failed = 0
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", name, "--inputs", str(options.inputs)]
        command += ["--seed", str(options.seed), "--out", str(options.out)]
        command += ["--seeded"] if options.seeded else []
        failed |= subprocess.run(command, check=False).returncode != 0  # noqa: S603 - our own
    return ESCAPED if failed else 0


def replay(name: str, file: Path) -> int:
    """One input again."""
    from tests.fuzz.runner import Fed  # noqa: PLC0415 - not before it is known how to import it

    Fed(_target(name), 1).feed(file.read_bytes())
    return 0


def run_plain(name: str, inputs: int, seed: int, out: Path) -> int:
    """Without coverage."""
    from tests.fuzz.runner import run_seeded  # noqa: PLC0415 - the same

    print(run_seeded(_target(name), inputs, seed, out), flush=True)
    return 0


def run_guided(name: str, inputs: int, seed: int, out: Path) -> int:
    """With coverage; libFuzzer never returns, so the last input ends the process."""
    atheris = importlib.import_module("atheris")

    with atheris.instrument_imports(include=["edged"]):
        target = _target(name)
    from tests.fuzz.runner import Fed  # noqa: PLC0415 - not to be instrumented

    corpus = out / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(target.seeds()):
        (corpus / f"seed-{index}").write_bytes(data[: target.bytes_max])
    fed = Fed(target, inputs)

    def feed(data: bytes) -> None:
        fed.feed(data)
        if fed.report.inputs >= inputs:
            print(fed.finish(), flush=True)
            os._exit(0)

    arguments = [f"-seed={seed}", f"-max_len={target.bytes_max}", "-timeout=60"]
    arguments += [f"-artifact_prefix={out}/{name}-", "-rss_limit_mb=2048", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], feed)
    atheris.Fuzz()
    return ESCAPED


def _target(name: str) -> "Target":
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - imports all of edged

    return TARGETS[name]


if __name__ == "__main__":
    sys.exit(main())
