"""A short run of every target, that the targets reach what they are for, and the runner itself."""

import contextlib
import importlib.util
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import structlog

from edged.errors import EdgedError, RemoteProtocolError
from tests.fuzz import doors
from tests.fuzz.__main__ import ESCAPED, main
from tests.fuzz.ingest import RtmpRun, rtmp_seeds
from tests.fuzz.names import NAMES, PURE
from tests.fuzz.network import PIECE, AtOrigin, AtPop
from tests.fuzz.runner import (
    LARGE_EVERY,
    LARGE_TIMES,
    PEAK_MIB_MAX,
    EscapedError,
    Fed,
    minimise,
    mutations,
    run_seeded,
)
from tests.fuzz.script import Script, Target, block
from tests.fuzz.targets import TARGETS

INPUTS = 5 * LARGE_EVERY  # Of a short run, beside the seeds; a few of them large.
SESSION_INPUTS = LARGE_EVERY  # Of the slow targets: some 6 s of CPU time for all targets together.
LONG_INPUTS = 1_000_000
LONG_S_MAX = 8 * 3600
SESSIONS = (
    "rtmp",
    "twins",
    "packaged",
    "link",
    "origin",
    "uplink",
    "splice",
)  # A millisecond each.

# A function that only inputs reach which are understood: each target must find a fault in it.
DEEP = {
    "amf": "edged.wire.rtmp.amf0._Decoder._members",
    "flv": "edged.wire.rtmp.flv._parse_tracks",
    "codecs": "tests.fuzz.ingest.make_init",
    "rtmp": "edged.wire.rtmp.tracks.TrackAssembler._add_unit",
    "twins": "edged.wire.rtmp.tracks.TrackAssembler._add_unit",
    "packaged": "edged.policy.cutter.RenditionCutter._cut",
    "link": "edged.wire.backbone.receiving.MediaReceiver.take_events",
    "origin": "edged.backbone.inbound.InboundStreams.units_received",
    "uplink": "edged.playback.hls.HlsService.window_updated",
    "irs": "edged.policy.pop_view.PopView.accept_table",
    "table": "tests.fuzz.network.explain_origin",
    "splice": "edged.policy.splice._restore",
    "http": "edged.playback.hls_stream.HlsStream.respond",
    "h1": "edged.wire.h1.H1Session._learn",
    "reload": "tests.fuzz.doors.is_reached",
    "admin": "edged.api.admin.AdminAnswer",
    "api": "edged.api.streams.find_problem",
    "keys": "edged.policy.stream_keys._check_scope",
    "callback": "edged.policy.key_callback.find_problem",
    "h2": "edged.wire.h2.intake.Intake._complete",
    "tokens": "edged.policy.playback_rights.is_match",
    "probes": "edged.policy.path_meter.PathMeter.answered",
}

CHOSEN = [pytest.param(n, marks=pytest.mark.pure) if n in PURE else n for n in NAMES]


@pytest.mark.parametrize("name", CHOSEN)
def test_nothing_escapes(name: str) -> None:
    seeds = len(TARGETS[name].seeds())
    inputs = seeds + (SESSION_INPUTS if name in SESSIONS else INPUTS)
    report = run_seeded(TARGETS[name], inputs, seed=1)
    assert report.inputs == inputs
    assert report.large >= 1


@pytest.fixture
def _places_anew() -> Iterator[None]:
    """A planted fault leaves behind what it kept from being put back."""
    yield
    doors.places.cache_clear()


@pytest.mark.pure
@pytest.mark.usefixtures("_places_anew")
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_in_the_depths_is_found(name: str) -> None:
    with (
        mock.patch(DEEP[name], side_effect=RuntimeError("planted")),
        mock.patch("tests.fuzz.runner.MINIMISE_TRIES_MAX", 0),
        pytest.raises(EscapedError, match="planted"),
    ):
        run_seeded(TARGETS[name], 300, seed=1)


@pytest.mark.parametrize(
    "depth",
    [
        "epoch_claim.EpochClaim._note_holder",
        "epoch_claim.EpochClaim._given_back",
        "epoch_grants.EpochGrants.take_notices",
        "epoch_grants.EpochGrants._memo_now",
        "live_registry.LiveRegistry._put_in_force",
        "live_registry.LiveRegistry._ask_again",
        "live_teller.LiveTeller._take_changed",
    ],
)
def test_what_several_irss_and_pops_say_of_streams_is_fuzzed(depth: str) -> None:
    with (
        mock.patch(f"edged.policy.{depth}", side_effect=RuntimeError("planted")),
        mock.patch("tests.fuzz.runner.MINIMISE_TRIES_MAX", 0),
        pytest.raises(EscapedError, match="planted"),
    ):
        run_seeded(TARGETS["irs"], 300, seed=1)


@pytest.mark.parametrize("name", CHOSEN)
def test_seeds_harm_nobody(name: str) -> None:
    """They are what right peers say, and what has harmed before."""
    seeds = TARGETS[name].seeds()
    fed = Fed(TARGETS[name], len(seeds))
    for seed in seeds:
        fed.feed(seed[: TARGETS[name].bytes_max])
    assert fed.finish().inputs == len(seeds) >= 2


@pytest.mark.pure
def test_seeds_get_to_the_bottom() -> None:
    """Else a million inputs would knock at the door only."""
    publishers = [RtmpRun(seed, packaged=True) for seed in rtmp_seeds()]
    for publisher in publishers:
        publisher.run()
    units = [publisher.core.statistics().units for publisher in publishers]
    assert max(units) > 100
    assert sum(1 for count in units if count >= 4) >= 12, units
    origins = [AtOrigin(seed[: TARGETS["origin"].bytes_max]) for seed in TARGETS["origin"].seeds()]
    for origin in origins:
        origin.run()
    assert max(origin.role.hub.units_total for origin in origins) > 60
    pops = [AtPop(seed[: TARGETS["uplink"].bytes_max]) for seed in TARGETS["uplink"].seeds()]
    for pop in pops:
        pop.run()
    assert any(pop.hls.statistics().streams for pop in pops), "parts have come to playback"
    assert any(2 * PIECE in pop.fetched for pop in pops), "a segment has come by name"
    assert any(origin.role.server.statistics().segments.given for origin in origins)


@pytest.mark.slow
@pytest.mark.timeout(LONG_S_MAX)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_escapes_in_a_million(name: str, tmp_path: Path) -> None:
    inputs = os.environ.get("EDGED_FUZZ_INPUTS", str(LONG_INPUTS))
    command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--inputs", inputs]
    done = subprocess.run(  # noqa: S603 - our own
        [*command, "--out", str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


# The runner.


def make(run: Callable[[bytes], int], **fields: object) -> Target:
    values: dict[str, object] = {"name": "made", "run": run, "seeds": lambda: [b"hello world"]}
    return Target(**(values | fields))  # type: ignore[arg-type]


def test_what_escapes_is_minimised_and_kept(tmp_path: Path) -> None:
    def run(data: bytes) -> int:
        if b"w" in data and b"\xff" in data:
            raise KeyError("w")
        return 0

    with pytest.raises(EscapedError, match="made, seed 3: KeyError"):
        run_seeded(make(run), 10_000, 3, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert sorted(kept.read_bytes()) == [ord("w"), 0xFF]


def test_operating_errors_are_the_targets_to_swallow() -> None:
    def run(_: bytes) -> int:
        raise RemoteProtocolError("not swallowed")

    with pytest.raises(EscapedError):
        run_seeded(make(run), 10, 1)


def test_what_is_logged_with_a_traceback_escaped() -> None:
    def run(data: bytes) -> int:
        try:
            return len(data) // 0
        except ZeroDivisionError:
            structlog.get_logger().exception("contained")
        return 0

    with pytest.raises(EscapedError, match=r"logged as a fault.*ZeroDivisionError"):
        run_seeded(make(run), 10, 1)
    assert run_seeded(make(run, contained=frozenset({"contained"})), 10, 1).inputs == 10


def test_slow_inputs_are_found() -> None:
    def run(data: bytes) -> int:
        return 0 * sum(1 for _ in itertools.product(data, data))

    quadratic = make(run, bytes_max=100, seeds=lambda: [bytes(100)])
    with (
        mock.patch("tests.fuzz.runner.LARGE_S_MAX", 0.02),
        mock.patch("tests.fuzz.runner.MINIMISE_TRIES_MAX", 0),
        pytest.raises(EscapedError, match=r"1[67]\d\d bytes took"),
    ):
        run_seeded(quadratic, LARGE_EVERY + 2, 1)


def test_an_input_that_was_slow_once_is_timed_again() -> None:
    fed: list[bytes] = []

    def run(data: bytes) -> int:
        fed.append(data)
        until = time.thread_time() + (0.02 if len(fed) == 1 else 0)
        while time.thread_time() < until:
            pass
        return 0

    with mock.patch("tests.fuzz.runner.INPUT_S_MAX", 0.01):
        Fed(make(run), 1).feed(b"once")
    assert fed == [b"once"] * 2


def test_long_answers_are_found() -> None:
    with pytest.raises(EscapedError, match="101 bytes came out, allowed are 100"):
        run_seeded(make(lambda _: 101, out_bytes_max=100), 10, 1)


def test_memory_that_stays_is_found() -> None:
    held: list[bytes] = []

    def run(data: bytes) -> int:
        held.append(b"\1" * (2**25 + 1))  # More than malloc may have left over from other tests.
        return 0

    with pytest.raises(EscapedError, match="memory grew"):
        run_seeded(make(run), 8, 1)


@pytest.mark.parametrize(("turn", "found"), [(5, False), (50, True)])
def test_memory_of_a_moment_is_found(turn: int, found: bool) -> None:
    """After the first quarter: what is made once is made before."""
    turns = itertools.count(1)

    def run(data: bytes) -> int:
        return len(b"\1" * 2**28) * 0 if next(turns) == turn else 0

    expected = pytest.raises(EscapedError, match="an input took much memory")
    with expected if found else contextlib.nullcontext():
        assert run_seeded(make(run), 80, 1).peak_mib_grown < PEAK_MIB_MAX


def test_the_same_seed_gives_the_same_inputs() -> None:
    def take(seed: int) -> list[bytes]:
        rng = random.Random(seed)  # noqa: S311 - as the runner has it
        return list(itertools.islice(mutations([b"a" * 50, b"b" * 70], rng, 64), 2000))

    assert take(1) == take(1) != take(2)
    sizes = sorted(map(len, take(1)))
    assert 64 < sizes[-1] <= 64 * LARGE_TIMES + 64
    assert sum(size > 64 for size in sizes) == 2000 // LARGE_EVERY


def test_minimising_keeps_what_fails() -> None:
    def failing(data: bytes) -> bool:
        return b"X" in data and b"Y" in data

    assert minimise(b"aaXaaaaYaa", failing) == b"XY"
    assert minimise(b"aaXaaaaYaa", failing, s_max=0.0) == b"aaXaaaaYaa"


def test_blocks_are_read_back() -> None:
    for size in (0, 1, 239, 240, 4095):
        script = Script(block(bytes(size)) + b"z")
        assert script.block() == bytes(size)
        assert script.rest() == b"z"
        assert script.done
        assert script.number(2) == 0, "at the end every choice is zero"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is optional")
def test_the_command_led_by_coverage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--guided", "--target", "reload"]
    done = subprocess.run(  # noqa: S603 - our own
        [*command, "--inputs", "500", "--out", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "reload: 500 inputs (0 large), guided, seed 1" in done.stdout
    assert list((tmp_path / "corpus" / "reload").iterdir())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--target", "reload", "--inputs", "50", "--out", str(tmp_path)]) == 0
    assert "reload: 50 inputs (0 large), seeded, seed 1" in capsys.readouterr().out
    with mock.patch(DEEP["reload"], side_effect=EdgedError("planted")):
        arguments = ["--target", "reload", "--inputs", "500", "--out", str(tmp_path)]
        assert main(arguments) == ESCAPED
        told = capsys.readouterr().out
        assert "ESCAPED reload, seed 1: EdgedError('planted')" in told
        (kept,) = tmp_path.iterdir()
        with pytest.raises(EdgedError, match="planted"):
            main(["--target", "reload", "--replay", str(kept)])
    assert main(["--target", "reload", "--replay", str(kept)]) == 0, "mended"
