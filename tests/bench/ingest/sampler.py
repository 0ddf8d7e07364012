"""Runs edged's command line, and samples which Python line has the CPU.

    python -m tests.bench.ingest.sampler OUTPUT run -c FILE

SIGUSR1 begins, SIGUSR2 ends and writes OUTPUT: JSON with the samples of each line itself, and of
each function with what it called. Sampled by CPU time (ITIMER_PROF), so the program runs as it does
unprofiled; cProfile's price per call would show most where calls are cheapest. The kernel's tick
bounds the rate (250 Hz or so). A system call's time is its line's.
"""

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

from edged.cli.main import main

INTERVAL_S: Final = 0.002
LINES_MAX: Final = 1000  # In OUTPUT: a thousandth of all samples is noise.
DEPTH_MAX: Final = 100


class Sampler:
    """Counts."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.samples = 0
        self.lines: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()

    def begin(self, _number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def sample(self, _number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.samples += 1
        code = frame.f_code
        self.lines[f"{_short(code.co_filename)}:{frame.f_lineno} {code.co_qualname}"] += 1
        seen = set()
        for _ in range(DEPTH_MAX):
            code = frame.f_code
            seen.add(f"{_short(code.co_filename)} {code.co_qualname}")
            if frame.f_back is None:
                break
            frame = frame.f_back
        self.functions.update(seen)

    def end(self, _number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        found = {
            "samples": self.samples,
            "lines": dict(self.lines.most_common(LINES_MAX)),
            "functions": dict(self.functions.most_common(LINES_MAX)),
        }
        beside = self.output.with_suffix(".new")
        beside.write_text(json.dumps(found))
        beside.rename(self.output)


def _short(filename: str) -> str:
    return "/".join(Path(filename).parts[-3:])


if __name__ == "__main__":
    sampler = Sampler(Path(sys.argv[1]))
    signal.signal(signal.SIGPROF, sampler.sample)
    signal.signal(signal.SIGUSR1, sampler.begin)
    signal.signal(signal.SIGUSR2, sampler.end)
    sys.argv[:] = ["edged", *sys.argv[2:]]
    main()
