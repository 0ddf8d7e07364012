"""The playback bench measures what it says: short runs of each part."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.bench.goals import exit_status
from tests.bench.ingest.bench import choose_cores
from tests.bench.ingest.processes import BenchError, on_core
from tests.bench.playback.__main__ import as_table, main, parse_arguments
from tests.bench.playback.bench import (
    PART_BYTES,
    Load,
    Round,
    edge,
    fetch,
    release_in_turns,
    run_round,
)
from tests.conftest import require

pytestmark = pytest.mark.e2e


def test_all_who_wait_get_the_same_bytes_by_both() -> None:
    require("gcc")
    cores = choose_cores()
    with (
        tempfile.TemporaryDirectory() as name,
        on_core(cores.load),
        edge(Path(name), cores) as (process, place),
    ):
        edged_us, c_us = release_in_turns(Path(name), cores, (process, place), 50)
        assert b"#EXT-X-PRELOAD-HINT" in (Path(name) / "answer").read_bytes()
        assert len(fetch(place.port, place.part)[1]) == PART_BYTES
        with pytest.raises(BenchError, match="404"):
            fetch(place.port, "/nothing")
    assert 0 < edged_us < 1_000_000
    assert 0 < c_us < 1_000_000


def test_a_round_beside_nginx() -> None:
    require("gcc", "wrk")
    if shutil.which("nginx", path="/usr/sbin:/usr/bin") is None:
        require("nginx")
    done = run_round(1, 20)
    loads = (done.edged_playlist, done.nginx_playlist, done.edged_part, done.nginx_part)
    assert all(load.requests > 100 and load.per_cpu_s > 100 for load in loads)
    assert done.edged_playlist.body_bytes == done.nginx_playlist.body_bytes > 1000
    assert done.edged_part.body_bytes == done.nginx_part.body_bytes == PART_BYTES


def test_the_table_and_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    def load(per_cpu_s: float) -> Load:
        return Load(1000, 5000, per_cpu_s, 0.9)

    rounds = [Round(load(50), load(100), load(30), load(20), 300, 200)] * 3
    table = as_table(rounds, 2000)
    assert [line.split()[-8:-5] for line in table.splitlines()[1:3]] == [
        ["50.0", "100.0", "0.50"], ["30.0", "20.0", "1.50"]
    ]  # fmt: skip
    assert "0.3         0.2    1.50" in table
    assert (table.count("reached"), exit_status(table)) == (3, 0)
    slow = [Round(load(30), load(100), load(30), load(40), 301, 200)] * 3
    assert as_table(slow, 2000).count("MISSED") == 3
    assert exit_status(as_table(slow, 2000)) == 1
    assert parse_arguments([]).runs == 5
    with pytest.raises(SystemExit):
        main(["--runs", "0"])
    assert "at least 1" in capsys.readouterr().err
