import os
from pathlib import Path

import pytest

from edged.playback.web import vendored
from edged.playback.web.build import bring
from edged.playback.web.vendored import HLS_FILE, integrity
from tests.playback.web.test_vendored import make_archive


def put_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `npm` a script of ours, the only one found; nothing is fetched."""
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_without_npm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bring(vendored, tmp_path / "vendor" / HLS_FILE) == "npm is not installed"


def test_npm_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_npm(tmp_path, "echo first >&2; echo no network >&2; exit 7", monkeypatch)
    problem = bring(vendored, tmp_path / "vendor" / HLS_FILE)
    assert problem == "npm failed with status 7: no network"
    put_npm(tmp_path, "exit 0", monkeypatch)
    problem = bring(vendored, tmp_path / "vendor" / HLS_FILE)
    assert problem == "npm failed with status 0: it said nothing"


def test_other_bytes_are_refused_and_an_old_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "archive").write_bytes(make_archive(b"library"))
    put_npm(tmp_path, f'for a in "$@"; do :; done; cp {tmp_path}/archive "$a/x.tgz"', monkeypatch)
    target = tmp_path / "vendor" / HLS_FILE
    target.parent.mkdir()
    target.write_bytes(b"an older release")
    problem = bring(vendored, target)
    assert problem is not None
    assert problem.startswith("refused: the archive")
    assert not target.exists()


def test_the_pinned_file_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_archive(b"library")
    (tmp_path / "archive").write_bytes(archive)
    put_npm(tmp_path, f'for a in "$@"; do :; done; cp {tmp_path}/archive "$a/x.tgz"', monkeypatch)
    monkeypatch.setattr(vendored, "ARCHIVE_INTEGRITY", integrity("sha512", archive))
    monkeypatch.setattr(vendored, "HLS_INTEGRITY", integrity("sha384", b"library"))
    target = tmp_path / "vendor" / HLS_FILE
    assert bring(vendored, target) is None
    assert target.read_bytes() == b"library"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))  # It is there: npm is not needed.
    assert bring(vendored, target) is None
