"""Ports that tests choose are taken by nobody else."""

import multiprocessing
import socket
import tempfile
from pathlib import Path

import pytest

from tests import ports
from tests.ports import FIRST, take_port


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))


def take_some(_: int) -> list[int]:
    return [take_port() for _ in range(40)]


def test_processes_side_by_side_get_different_ones() -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        taken = [port for some in pool.map(take_some, range(4)) for port in some]
    assert len(set(taken)) == len(taken) == 160


def test_below_all_that_callers_get() -> None:
    lowest = int(ports.RANGE.read_text().split()[0])
    assert all(FIRST <= take_port() < lowest for _ in range(50))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_one_in_use_is_passed_over(kind: socket.SocketKind) -> None:
    port = take_port()
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", port + 1))
        assert take_port() > port + 1


def test_neighbours_are_free_and_nobody_else_s() -> None:
    port = take_port(neighbours=1)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port + 3))
        after = take_port(neighbours=1)
    assert after > port + 3
    assert take_port() > after + 1


def test_at_the_end_it_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_last", lambda: FIRST + 20)
    assert len({take_port() for _ in range(60)}) <= 20
    monkeypatch.setattr(ports, "_is_free", lambda host, port: False)
    with pytest.raises(AssertionError, match="no port of"):
        take_port()


def test_a_file_that_was_spoilt_is_begun_anew(tmp_path: Path) -> None:
    first = take_port()
    (file,) = tmp_path.glob("edged-test-ports.*")
    file.write_text("spoilt")
    assert take_port() == first
