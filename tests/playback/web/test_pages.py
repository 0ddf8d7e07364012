import re

import pytest

from edged.playback.http import HttpError, Router
from edged.playback.web.pages import (
    ASSETS,
    content_security_policy,
    make_pages,
    mount_pages,
    read_hls,
)
from edged.playback.web.vendored import HLS_CDN_ORIGIN, HLS_CDN_URL, HLS_INTEGRITY
from edged.wire.h1 import H1Session
from edged.wire.request import RequestReceived

LINKS = re.compile(r'(?:src|href)="([^"]+)"')


def ask(path: str) -> RequestReceived:
    session = H1Session(now=0.0)
    [event] = session.receive_data(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 0.0)
    assert isinstance(event, RequestReceived)
    return event


@pytest.mark.parametrize("hls", [None, b"the library"])
def test_every_link_of_the_pages_is_served(hls: bytes | None) -> None:
    pages = make_pages(hls)
    assert pages.hls_is_local == (hls is not None)
    for page in (pages.landing, pages.watch):
        links = set(LINKS.findall(page.body.decode())) - {"/"}
        outside = {HLS_CDN_URL} if hls is None and page is pages.watch else set()
        assert links - pages.assets.keys() == outside
    assert len(pages.assets) == len(ASSETS) + (hls is not None)


def test_hls_is_pinned_by_its_hash_wherever_it_comes_from() -> None:
    for hls in (None, b"the library"):
        body = make_pages(hls).watch.body.decode()
        assert f'integrity="{HLS_INTEGRITY}"' in body
        assert ('crossorigin="anonymous"' in body) == (hls is None)


def test_nothing_is_inline() -> None:
    """What the Content-Security-Policy would block."""
    for page in (make_pages(None).landing, make_pages(None).watch):
        body = page.body.decode()
        assert re.search(r"<script(?![^>]*\bsrc=)", body) is None
        assert re.search(r"<style|\bstyle=|\bon[a-z]+=", body) is None
        assert dict(page.fields)["Content-Security-Policy"]
        assert page.cache_control == "no-cache"


def test_policy_names_the_cdn_only_where_it_is_used() -> None:
    assert HLS_CDN_ORIGIN in content_security_policy(cdn=True)
    assert HLS_CDN_ORIGIN not in content_security_policy(cdn=False)
    assert "unsafe" not in content_security_policy(cdn=True)


def test_addresses_change_with_the_files_and_are_kept_for_ever() -> None:
    first, second = make_pages(None), make_pages(b"the library")
    assert not first.assets.keys() & second.assets.keys()
    assert first.assets.keys() == make_pages(None).assets.keys()
    assert all("immutable" in asset.cache_control for asset in first.assets.values())


def test_mounted() -> None:
    router, pages = Router(), make_pages(None)
    mount_pages(router, pages)
    expected = {"/": pages.landing, "/watch/my-channel": pages.watch, **pages.assets}
    for path, response in expected.items():
        handler = router.find(path)
        assert handler is not None
        assert handler(ask(path)) is response


@pytest.mark.parametrize("path", ["/watch/", "/watch/a/b", "/web/", "/web/0/watch.js"])
def test_other_addresses_are_not_found(path: str) -> None:
    router = Router()
    mount_pages(router, make_pages(None))
    handler = router.find(path)
    assert handler is not None
    with pytest.raises(HttpError) as caught:
        handler(ask(path))
    assert caught.value.status == 404


def test_vendored_file_is_the_pinned_one_or_not_used() -> None:
    data = read_hls()
    assert data is None or data.startswith(b"!function")
