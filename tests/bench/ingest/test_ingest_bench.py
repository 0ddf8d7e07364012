"""The ingest bench measures what it says: its parts, and short runs of the whole."""

import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from edged.config import parse_config
from tests.bench.ingest import __main__ as command
from tests.bench.ingest import bench, edged_server, media, native, profiling, report
from tests.bench.ingest.measure import Arrived, Percentiles, Run, Sent
from tests.bench.ingest.processes import BenchError, Process, cpu_s, family, memory_bytes
from tests.bench.ingest.report import Outcome, Row
from tests.bench.ingest.sampler import Sampler
from tests.conftest import require

DELAY = Percentiles(count=10, p50=100, p99=900, max=1000)
ENCODED = media.Encoded(
    b"\x17\x00config", b"\xaf\x00config", b"\x65" + 31 * b"i", b"\x41" + 31 * b"p", 32 * b"a"
)


def make_run(**changes: object) -> Run:
    """A run in which nothing went wrong: 10 streams, 0.3 % of a core each."""
    sent = Sent(units=[5, 5], pieces=10, bytes=1000, blocked=0, late_us=DELAY)
    arrived = Arrived([5, 5], 0, 2, DELAY, DELAY, DELAY, DELAY, DELAY)
    run = Run(
        streams=10,
        seconds=20.0,
        server_share=0.03,
        server_system_share=0.02,
        server_core_share=0.05,
        generator_share=0.3,
        sink_share=0.1,
        idle_bytes=10_000_000,
        loaded_bytes=12_000_000,
        ring_bytes=500_000,
        units=10,
        missing=0,
        sent=sent,
        arrived=arrived,
    )
    return msgspec.structs.replace(run, **changes)


def test_the_pattern_repeats_without_a_seam() -> None:
    units = media.make_units(ENCODED)
    for kind in (media.VIDEO, media.AUDIO):
        assert sum(unit.delta_ms for unit in units if unit.type == kind) == 1000 * media.PERIOD_S
    bits_per_s = 8 * sum(len(unit.payload) for unit in units) / media.PERIOD_S
    assert bits_per_s == pytest.approx(media.STREAM_BITS_PER_S, rel=1e-3)
    pictures = [unit.payload for unit in units if unit.type == media.VIDEO]
    assert [n for n, picture in enumerate(pictures) if picture[0] == 0x17] == [0, 60, 120, 180]
    assert len(pictures[0]) > 3 * len(pictures[1])
    assert all(int.from_bytes(p[5:9], "big") == len(p) - 9 for p in pictures)


def test_markers_lie_at_messages_ends_and_in_one_chunk() -> None:
    units = media.make_units(ENCODED)
    pattern, markers = media.make_pattern(units)
    assert markers[-1] + media.MARKER_BYTES == len(pattern)
    at = 0
    for unit, marker in zip(units, markers, strict=True):
        assert pattern[at + 4 : at + 7] == len(unit.payload).to_bytes(3, "big")
        chunks = -(-len(unit.payload) // media.CHUNK_BYTES)
        at += 8 + len(unit.payload) + chunks - 1
        assert marker == at - media.MARKER_BYTES
        assert pattern[marker:at] == unit.payload[-media.MARKER_BYTES :]


def test_the_rows_of_each_round() -> None:
    rows = command.choose_rows(100, 300, tls_backbone=True, nginx=True)
    assert [row.name for row in rows] == [
        "nginx N=100",
        "edged N=100",
        "edged N=100 tls",
        "edged N=300",
    ]
    assert command.choose_rows(5, 0, tls_backbone=False, nginx=False) == [Row("edged", 5)]


@pytest.mark.parametrize("arguments", [["--streams", "0"], ["--runs", "0"], ["--seconds", "0.5"]])
def test_impossible_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse_arguments(arguments)


def test_a_run_is_void_when_the_load_was_not_what_it_says() -> None:
    assert make_run().void_because is None
    assert make_run(generator_share=0.8, sink_share=0.1).void_because is None
    assert "91%" in (make_run(generator_share=0.8, sink_share=0.11).void_because or "")
    late = Percentiles(10, 5000, 10_001, 20_000)
    assert "late" in (
        make_run(sent=msgspec.structs.replace(make_run().sent, late_us=late)).void_because or ""
    )


def test_other_users_of_the_core_show() -> None:
    assert make_run(server_core_share=0.12).disturbed_because is None
    disturbed = make_run(server_core_share=0.33)
    assert "30%" in (disturbed.disturbed_because or "")
    (summary,) = summaries_of([Outcome(Row("edged", 10), 2, disturbed)])
    assert summary.notes == ["round 2: disturbed: others used 30% of the server's core"]
    assert "edged N=10: backlog: none" in report.goals([summary])


def test_a_backlog_shows() -> None:
    run = make_run()
    assert run.backlog_because is None
    assert "3 of 10" in (make_run(missing=3).backlog_because or "")
    blocked = msgspec.structs.replace(run.sent, blocked=7)
    assert "7 refused" in (make_run(sent=blocked).backlog_because or "")
    slow = msgspec.structs.replace(run.arrived, quarter_4_us=Percentiles(10, 9000, 9000, 9000))
    assert "grew" in (make_run(arrived=slow).backlog_because or "")


def summaries_of(outcomes: Sequence[Outcome]) -> list[report.Summary]:
    rows = list(dict.fromkeys(outcome.row for outcome in outcomes))
    return [report.summarize(row, outcomes) for row in rows]


def test_medians_and_ratios_leave_void_runs_out() -> None:
    nginx, edged = Row("nginx", 10), Row("edged", 10)
    shares = {1: (0.030, 0.015), 2: (0.060, 0.036), 3: (0.030, 0.021)}
    outcomes = [
        Outcome(row, number, make_run(server_share=share))
        for number, pair in shares.items()
        for row, share in zip((nginx, edged), pair, strict=True)
    ]
    outcomes.append(Outcome(edged, 4, make_run(server_share=0.9, sink_share=0.9)))
    outcomes.append(Outcome(edged, 5, None, "it broke"))
    first, second = summaries_of(outcomes)
    assert first.percent_per_stream == pytest.approx(0.30)
    assert first.ratio_to_nginx is None
    assert second.percent_per_stream == pytest.approx(0.21)
    assert second.ratio_to_nginx == pytest.approx(0.6)  # Of 0.5, 0.6, 0.7.
    assert (second.runs, second.sound_runs) == (5, 3)
    assert [note[:14] for note in second.notes] == ["round 4: void:", "round 5: faile"]
    assert second.bytes_per_stream == pytest.approx(150_000)
    table = report.as_table([first, second])
    assert "it broke" in table
    assert report.goals([first, second]) == [
        "edged N=10: CPU: 0.6 x nginx-rtmp (goal <= 0.7): reached",
        "edged N=10: memory: 0.15 MB/stream (goal <= 0.1): MISSED",
        "edged N=10: p99 delay: 0.9 ms (goal <= 10): reached",
        "edged N=10: backlog: SEE ABOVE",
    ]
    assert msgspec.json.decode(report.as_json([second], outcomes))["rows"][0]["sound_runs"] == 3


def test_a_server_too_busy_for_its_metrics_still_gives_the_rest() -> None:
    (summary,) = summaries_of([Outcome(Row("edged", 10), 1, make_run(ring_bytes=None))])
    assert (summary.bytes_per_stream, summary.ring_bytes_per_stream) == (None, None)
    assert summary.percent_per_stream == pytest.approx(0.3)


def test_nothing_arrived_is_no_short_delay() -> None:
    nothing = Percentiles(count=0, p50=0, p99=0, max=0)
    arrived = msgspec.structs.replace(make_run().arrived, delay_us=nothing)
    (summary,) = summaries_of([Outcome(Row("edged", 10), 1, make_run(arrived=arrived, missing=10))])
    assert summary.delay_p99_us is None
    assert "edged N=10: p99 delay: not measured" in report.goals([summary])


def test_a_goal_beside_a_peer_that_was_not_measured_is_missed() -> None:
    edged = Outcome(Row("edged", 10), 1, make_run())
    there = [Outcome(Row("nginx", 10), 1, None, "not installed"), edged]
    lines = report.goals(summaries_of(there))
    assert lines[0] == "edged N=10: CPU beside nginx-rtmp: MISSED, not measured"
    assert not any("nginx" in line for line in report.goals(summaries_of([edged])))


def test_a_row_without_a_sound_run_says_so() -> None:
    (summary,) = summaries_of([Outcome(Row("edged", 1), 1, None, "no")])
    assert summary.percent_per_stream is None
    assert " - " in report.as_table([summary])
    assert "not measured" in report.goals([summary])[0]


@pytest.mark.parametrize("tls", [False, True])
def test_the_pops_configuration_is_a_valid_one(tmp_path: Path, tls: bool) -> None:
    edged_server.write_sink_files(tmp_path, tls=tls)
    files = edged_server.tls_files(tmp_path, "pop-bench") if tls else None
    names = ("irs", "rtmp", "rtmps", "metrics", "status", "hooks")
    ports = {f"{name}_port": number for number, name in enumerate(names, 1)}
    text, keys = edged_server.make_pop_config(3, tmp_path, ports, files)
    config, problems = parse_config(tomllib.loads(text))
    assert problems == []
    assert config is not None
    assert [key.key for key in config.stream_keys.static] == keys


def test_the_sampler_counts_lines_and_functions(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "samples.json")
    for _ in range(3):
        sampler.sample(0, sys._getframe())
    sampler.sample(0, None)
    sampler.end(0, None)
    found = msgspec.json.decode(sampler.output.read_bytes(), type=profiling.Samples)
    assert found.samples == 3
    (line,) = found.lines
    assert line.endswith(test_the_sampler_counts_lines_and_functions.__name__)
    assert found.functions[f"bench/ingest/{Path(__file__).name} {line.split()[1]}"] == 3


@pytest.mark.e2e
def test_the_sink_says_why_it_leaves() -> None:
    require("gcc")
    with tempfile.TemporaryDirectory() as name:
        sink = native.build(Path(name)).sink
        with (
            Process([sink, "nonsense"], core=None, log=Path(name) / "log") as process,
            pytest.raises(BenchError, match="usage"),
        ):
            process.hear(bench.Port, 10.0)
        with Process([sink, "rtmp"], core=None, log=Path(name) / "log") as process:
            assert process.hear(bench.Port, 10.0).port > 0
            assert cpu_s(family(process.pid)) < 1.0
            assert memory_bytes([process.pid]) > 10_000
            process.say("window 1 2")
            process.say("report")
            assert process.hear(Arrived, 10.0).units == []
            process.say("dance")
            with pytest.raises(BenchError, match="unknown order"):
                process.hear(Arrived, 10.0)


def run_short(row: Row) -> None:
    (outcome,) = bench.run_rounds([row], rounds=1, seconds=3.0, tell=print)
    run = outcome.run
    assert run is not None, outcome.failure
    # 3 s of 30 pictures and 46.9 AAC frames; a bit more or less where the window cuts.
    assert run.units == pytest.approx(row.streams * 3 * (30 + 48_000 / 1024), rel=0.05)
    assert run.missing == 0
    assert run.arrived.disordered == 0
    assert run.arrived.unmarked >= 2 * row.streams or row.server == "edged"  # The sequence headers.
    assert 0 < run.arrived.delay_us.p50 < 100_000
    assert run.server_share > 0


@pytest.mark.e2e
@pytest.mark.timeout(90)
def test_short_run_of_nginx() -> None:
    require("gcc", "nginx")
    run_short(Row("nginx", 5))


@pytest.mark.e2e
@pytest.mark.timeout(90)
@pytest.mark.parametrize("tls", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_short_run_of_edged(tls: bool) -> None:
    require("gcc")
    run_short(Row("edged", 5, tls=tls))
