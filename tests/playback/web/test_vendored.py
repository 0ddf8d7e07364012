import base64
import hashlib
import io
import tarfile

import pytest

from edged.playback.web import vendored
from edged.playback.web.vendored import (
    HLS_CDN_URL,
    HLS_MEMBER,
    HLS_VERSION,
    IntegrityError,
    integrity,
    is_hls,
    take_hls,
)


def make_archive(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        member = tarfile.TarInfo(HLS_MEMBER)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def test_integrity_is_written_as_browsers_read_it() -> None:
    digest = hashlib.sha384(b"abc").digest()
    assert integrity("sha384", b"abc") == "sha384-" + base64.b64encode(digest).decode()


def test_cdn_serves_the_same_version() -> None:
    assert f"hls.js@{HLS_VERSION}/" in HLS_CDN_URL


def test_only_the_pinned_file_is_hls() -> None:
    assert not is_hls(b"")
    assert not is_hls(b"something else")


def test_another_archive_is_refused() -> None:
    with pytest.raises(IntegrityError, match="sha512"):
        take_hls(make_archive(b"library"))


def test_file_is_taken_when_both_hashes_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_archive(b"library")
    monkeypatch.setattr(vendored, "ARCHIVE_INTEGRITY", integrity("sha512", archive))
    with pytest.raises(IntegrityError, match="sha384"):
        take_hls(archive)
    monkeypatch.setattr(vendored, "HLS_INTEGRITY", integrity("sha384", b"library"))
    assert take_hls(archive) == b"library"
