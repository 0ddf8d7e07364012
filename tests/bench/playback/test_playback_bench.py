"""The playback bench measures what it says: short runs of each part."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.errors import ToolMissingError
from tests.bench.goals import exit_status
from tests.bench.ingest.bench import choose_cores
from tests.bench.ingest.processes import BenchError, on_core
from tests.bench.playback.__main__ import GOALS, as_table, main, parse_arguments
from tests.bench.playback.bench import PART_BYTES, PROTOCOLS, Idle, Options, Round, Row, run_round
from tests.bench.playback.load import Load, Url, build_asker, load_in_turns
from tests.bench.playback.release import release_in_turns
from tests.bench.playback.servers import edge, fetch
from tests.conftest import require, require_found

pytestmark = pytest.mark.e2e


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_all_who_wait_get_the_same_bytes_by_both(folder: Path) -> None:
    require("gcc")
    cores = choose_cores()
    with on_core(cores.load), edge(folder, cores, part_bytes=PART_BYTES) as (process, place):
        edged_us, c_us = release_in_turns(folder, cores, (process, place), 50)
        assert b"#EXT-X-PRELOAD-HINT" in (folder / "answer").read_bytes()
        assert len(fetch(place.port, place.part)[1]) == PART_BYTES
        with pytest.raises(BenchError, match="404"):
            fetch(place.port, "/nothing")
    assert 0 < edged_us < 1_000_000
    assert 0 < c_us < 1_000_000


def test_a_round_beside_nginx() -> None:
    require("gcc")
    header = Path("/usr/include/nghttp2/nghttp2.h")
    require_found("libnghttp2-dev", found=header.exists())
    if shutil.which("nginx", path="/usr/sbin:/usr/bin") is None:
        require("nginx")
    done = run_round(Options(seconds=0.5, waiters=20, idle=600))
    assert [(row.what, row.protocol) for row in done.rows] == [
        (what, protocol) for protocol in PROTOCOLS for what in ("playlist", "part")
    ]
    for row in done.rows:
        for load in (row.edged, row.nginx):
            assert load.requests > 100
            assert load.per_cpu_s > 100
            size = PART_BYTES if row.what == "part" else 4739
            assert load.body_bytes == pytest.approx(size, rel=0.1)
    assert [each.tls for each in done.idle] == [False, True]
    assert all(each.edged > 0 for each in done.idle)
    assert 0 < done.edged_tls_release_us < 1_000_000


def test_what_is_no_answer_is_told(folder: Path) -> None:
    require("gcc")
    cores = choose_cores()
    try:
        asker = build_asker(folder)
    except ToolMissingError as error:
        require_found(str(error), found=False)
    with on_core(cores.load), edge(folder, cores, part_bytes=1000) as (process, place):
        url = Url(process.pid, place.port, "/nothing")
        with pytest.raises(BenchError, match="an answer is not 200"):
            load_in_turns(asker, "h1", [url], 1, cores)


def test_the_table_and_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    def rounds(ratio: float, idle: int, release_us: int) -> list[Round]:
        beside = Load(1000, 5000, 100, 0.9)
        rows = [
            Row(what, protocol, Load(1000, 5000, 100 * goal * ratio, 0.9), beside)
            for (what, protocol), goal in GOALS.items()
        ]
        idles = [Idle(tls=False, edged=idle, nginx=1), Idle(tls=True, edged=5 * idle, nginx=1)]
        return [Round(rows, idles, release_us, 200, 7_700)] * 3

    table = as_table(rounds(1.01, 4096, 300), 2000)
    assert [line.split()[-8:-5] for line in table.splitlines()[1:3]] == [
        ["40.4", "100.0", "0.40"], ["101.0", "100.0", "1.01"]
    ]  # fmt: skip
    assert "0.3       0.2   1.50" in table
    assert table.splitlines()[-1].split()[-5:] == ["blocked", "over", "TLS,", "ms", "7.7"]
    assert (table.count("reached"), exit_status(table)) == (9, 0)
    missed = as_table(rounds(0.99, 4097, 301), 2000)
    assert (missed.count("MISSED"), exit_status(missed)) == (9, 1)
    assert parse_arguments([]).runs == 5
    with pytest.raises(SystemExit):
        main(["--runs", "0"])
    assert "at least 1" in capsys.readouterr().err
