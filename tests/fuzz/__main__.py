"""The long runs: `python -m tests.fuzz --inputs 1000000`, all targets or those that are named.

With atheris installed (the extra `fuzz`) and --guided, inputs are led by coverage; else they are
mutations of the seeds, which are captures and right sessions. What is compiled is fuzzed as such
where that can be done, else its source is. Either way `--seed` makes a run that
can be had again. A finding is minimised, written to `--out`, and ends its target's run;
`--replay FILE` feeds it again.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edged import native
from tests.fuzz.names import NAMES, PURE

if TYPE_CHECKING:
    from tests.fuzz.script import Target

ESCAPED = 3  # The exit code when something did.
OUT = Path(tempfile.gettempdir()) / "edged-fuzz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code says whether anything escaped."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=NAMES, help="default: all")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guided", action="store_true", help="led by coverage; needs atheris")
    parser.add_argument("--out", type=Path, default=OUT, help="for findings")
    parser.add_argument("--progress", action="store_true", help="tell how far a run is")
    parser.add_argument("--replay", type=Path, help="feed one file")
    options = parser.parse_args(arguments)
    names = options.target or list(NAMES)
    if len(names) > 1:
        return run_each(names, options)
    if native.in_use() and (options.guided or names[0] in PURE):
        command = [sys.executable, "-m", "tests.fuzz", *(arguments or sys.argv[1:])]
        environment = {**os.environ, native.PURE: "1"}
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603
    if options.replay is not None:
        return replay(names[0], options.replay)
    run = run_guided if options.guided else run_plain
    return run(names[0], options)


def run_each(names: Sequence[str], options: argparse.Namespace) -> int:
    """Each in a process of its own: its memory is its own, too."""
    failed = 0
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", "--target", name]
        command += ["--inputs", str(options.inputs), "--seed", str(options.seed)]
        command += ["--out", str(options.out)]
        command += ["--guided"] if options.guided else []
        command += ["--progress"] if options.progress else []
        failed |= subprocess.run(command, check=False).returncode != 0  # noqa: S603 - our own
    return ESCAPED if failed else 0


def replay(name: str, file: Path) -> int:
    """One input again; what escapes is raised."""
    from tests.fuzz.runner import Fed  # noqa: PLC0415 - not before it is known how to import it

    Fed(_target(name), 1).feed(file.read_bytes())
    return 0


def run_plain(name: str, options: argparse.Namespace) -> int:
    """Mutations of the seeds."""
    from tests.fuzz.runner import EscapedError, Report, run_seeded  # noqa: PLC0415 - the same

    def tell(report: Report) -> None:
        if options.progress:
            print(report, flush=True)

    try:
        report = run_seeded(_target(name), options.inputs, options.seed, options.out, tell=tell)
    except EscapedError as error:
        print(f"ESCAPED {error}", flush=True)
        return ESCAPED
    print(report, flush=True)
    return 0


def run_guided(name: str, options: argparse.Namespace) -> int:
    """With coverage; libFuzzer never returns, so the last input ends the process."""
    atheris = importlib.import_module("atheris")

    with atheris.instrument_imports(include=["edged"]):
        target = _target(name)
    from tests.fuzz.runner import Fed, keep_finding  # noqa: PLC0415 - not to be instrumented

    corpus = options.out / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(target.seeds()):
        (corpus / f"seed-{index}").write_bytes(data[: target.bytes_max])
    fed = Fed(target, options.inputs, options.seed, guided=True)

    def feed(data: bytes) -> None:
        try:
            fed.feed(data)
            if fed.report.inputs < options.inputs:
                return
            print(fed.finish(), flush=True)
        except Exception as error:
            found = keep_finding(target, options.seed, data, error, options.out)
        else:
            os._exit(0)
        print(f"ESCAPED {found}", flush=True)
        os._exit(ESCAPED)

    arguments = [f"-seed={options.seed}", f"-max_len={target.bytes_max}", "-timeout=60"]
    arguments += [f"-artifact_prefix={options.out}/{name}-", "-rss_limit_mb=2048", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], feed)
    atheris.Fuzz()
    return ESCAPED


def _target(name: str) -> "Target":
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - imports all of edged

    return TARGETS[name]


if __name__ == "__main__":
    sys.exit(main())
