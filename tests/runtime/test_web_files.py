"""Addresses of files that may be kept for ever."""

import pytest

from edged.runtime.web_files import base_of, content_type


def test_other_contents_names_and_cuts_have_another_address() -> None:
    files = [{"a.js": b"1"}, {"a.js": b"2"}, {"b.js": b"1"}, {"a.js": b"1", "b.js": b""}, {}]
    assert len({base_of(one) for one in files}) == len(files)
    assert base_of({"a.js": b"1", "b.js": b"2"}) == base_of({"b.js": b"2", "a.js": b"1"})
    assert base_of({}).startswith("/web/")


def test_types() -> None:
    assert content_type("hls.min.js") == "text/javascript; charset=utf-8"
    with pytest.raises(KeyError):
        content_type("a.exe")
