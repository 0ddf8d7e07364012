"""Every fuzz target, for a moment in CI and a million inputs in the slow suite; and the runner."""

import importlib.util
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from edged.errors import RemoteProtocolError
from tests.fuzz import runner
from tests.fuzz.ingest import RtmpRun, rtmp_seeds
from tests.fuzz.network import AtOrigin, AtPop
from tests.fuzz.runner import EscapedError, Fed, minimise, mutations, run_seeded
from tests.fuzz.script import Script, Target, block, in_pieces
from tests.fuzz.targets import TARGETS

INPUTS_CI = 2_000  # Of the quick targets; all of them together take a few seconds.
INPUTS_CI_SESSIONS = 250
SESSIONS = ("rtmp", "packaged", "origin", "uplink", "splice")
INPUTS_SLOW = 1_000_000
SLOW_S_MAX = 4 * 3600


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_escapes(name: str) -> None:
    inputs = INPUTS_CI_SESSIONS if name in SESSIONS else INPUTS_CI
    assert run_seeded(TARGETS[name], inputs, seed=1).inputs == inputs


@pytest.mark.slow
@pytest.mark.timeout(SLOW_S_MAX)
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_escapes_in_a_million(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--inputs", str(INPUTS_SLOW)]
    done = subprocess.run(  # noqa: S603 - our own
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert f"inputs={INPUTS_SLOW}" in done.stdout


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_harm_nobody(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    assert seeds
    fed = Fed(target, len(seeds))
    for seed in seeds:
        fed.feed(seed)


def test_seeds_get_to_the_bottom() -> None:
    """Else a million inputs would knock at the door only."""
    publishers = [RtmpRun(seed, packaged=True) for seed in rtmp_seeds()]
    for publisher in publishers:
        publisher.run()
    units = [publisher.core.statistics().units for publisher in publishers]
    assert max(units) > 100
    assert sum(1 for count in units if count >= 18) >= 8, units
    origins = [AtOrigin(seed) for seed in TARGETS["origin"].seeds()]
    for origin in origins:
        origin.run()
    assert max(origin.role.hub.units_total for origin in origins) > 100
    pops = [AtPop(seed) for seed in TARGETS["uplink"].seeds()]
    for pop in pops:
        pop.run()
    assert any(pop.hls.statistics().streams for pop in pops), "parts have come to playback"


def target(run: Callable[[bytes], int]) -> Target:
    return Target(name="toy", run=run, seeds=lambda: [b"honest input"], out_bytes_max=100)


def test_what_escapes_is_found_minimised_and_kept(tmp_path: Path) -> None:
    def run(data: bytes) -> int:
        if b"\xff" in data:
            raise KeyError("bug")
        return 0

    with pytest.raises(EscapedError, match=r"toy, seed 3: KeyError\('bug'\) from b'\\xff'"):
        run_seeded(target(run), 10_000, 3, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == b"\xff"


def test_a_fault_that_something_contained_is_a_finding_unless_it_is_meant() -> None:
    def run(_: bytes) -> int:
        try:
            raise KeyError("bug")  # noqa: TRY301 - as deep inside
        except KeyError:
            structlog.get_logger("edged.toy").exception("session failed")
        return 0

    with pytest.raises(EscapedError, match="session failed"):
        Fed(target(run), 1).feed(b"")
    meant = Target(name="toy", run=run, seeds=list, contained=frozenset({"session failed"}))
    Fed(meant, 1).feed(b"")


def test_time_and_output_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "INPUT_S_MAX", 0.01)

    def spin(_: bytes) -> int:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        return 0

    with pytest.raises(EscapedError, match="bytes took"):
        Fed(target(spin), 1).feed(b"")
    Fed(target(lambda _: 100), 1).feed(b"")
    with pytest.raises(EscapedError, match="101 bytes came out, allowed are 100"):
        Fed(target(lambda _: 101), 1).feed(b"")


def test_memory_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RSS_MIB_MAX", 8)
    kept: list[bytes] = []

    def keep(data: bytes) -> int:
        kept.append(b"x" * 2**23 + data)  # Above what malloc may have free from other tests.
        return 0

    with pytest.raises(EscapedError, match="memory grew by"):
        run_seeded(target(keep), 30, 1)


def test_a_seed_makes_the_same_inputs_again() -> None:
    def some(seed: int) -> list[bytes]:
        rng = random.Random(seed)  # noqa: S311 - to be had again
        made = mutations([b"abc", b"defghi"], rng, 64)
        return [next(made) for _ in range(200)]

    assert some(1) == some(1)
    assert some(1) != some(2)
    assert max(map(len, some(1))) <= 64


def test_minimising_keeps_the_failure() -> None:
    assert minimise(bytes(range(200)), lambda data: {7, 150} <= set(data)) == bytes([7, 150])


def test_scripts_read_what_blocks_wrote() -> None:
    for size in (0, 1, 239, 240, 4095):
        script = Script(block(bytes(size)) + b"\x05")
        assert len(script.block()) == size
        assert script.number() == 5
        assert script.done
    assert Script(b"").number(4) == 0, "a script that has ended goes on with zeros"
    assert Script(b"\x12").below(5) == 3
    assert in_pieces(b"abcde", 2) == [b"ab", b"cd", b"e"]


def test_a_target_swallows_only_our_errors() -> None:
    with pytest.raises(RemoteProtocolError):  # Targets catch it; what reaches the runner is a bug.
        Fed(target(_refuse), 1).feed(b"")


def _refuse(_: bytes) -> int:
    raise RemoteProtocolError("no")


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is optional")
def test_the_command_runs_guided_and_says_what_it_found(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "reload", "--inputs", "500"]
    done = subprocess.run(  # noqa: S603 - our own
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "target='reload', inputs=500" in done.stdout, done.stderr[-2000:]
    assert list((tmp_path / "corpus" / "reload").iterdir())
