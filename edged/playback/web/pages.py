"""The public pages as ready-made bytes: `/`, `/watch/CHANNEL`, and what they load, below
`/web/DIGEST/`.

The digest covers every file, so browsers and shared caches may keep them for ever, and a new
release has new addresses. Nothing is inline: the Content-Security-Policy lets no other script in
than ours and the pinned hls.js.
"""

from importlib import resources

from msgspec import Struct

from edged.playback.http import HttpError, Response, Router
from edged.playback.web.vendored import (
    HLS_CDN_ORIGIN,
    HLS_CDN_URL,
    HLS_FILE,
    HLS_INTEGRITY,
    is_hls,
)
from edged.runtime.web_files import base_of, content_type
from edged.wire.request import RequestReceived

ASSETS = (
    *(
        "abr.js",
        "clock.js",
        "edged.css",
        "icon.svg",
        "index.js",
        "menu.js",
        "nearer.js",
        "parts.js",
    ),
    *("player.js", "watch.js"),
)
KEPT_FOR_EVER = "public, max-age=31536000, immutable"
KEPT_SHORTLY = "no-cache"  # The pages name the digest: a release must be seen at once.


class Pages(Struct, frozen=True):
    """Everything that is served; `hls_is_local` is False where hls.js comes from the CDN."""

    landing: Response
    watch: Response
    assets: dict[str, Response]  # By path, "/web/DIGEST/watch.js".
    hls_is_local: bool


def read_hls() -> bytes | None:
    """Return the vendored hls.js, or None where the build could not bring it, or it is not the
    pinned one.
    """
    file = resources.files("edged.playback.web") / "vendor" / HLS_FILE
    data = file.read_bytes() if file.is_file() else b""
    return data if is_hls(data) else None


def make_pages(hls: bytes | None) -> Pages:
    """Make all responses from the package's files; `hls` as `read_hls` returns it."""
    folder = resources.files("edged.playback.web")
    files = {name: (folder / name).read_bytes() for name in ASSETS}
    if hls is not None:
        files[HLS_FILE] = hls
    base = base_of(files)
    assets = {
        f"{base}/{name}": Response(
            body=data,
            content_type=content_type(name),
            cache_control=KEPT_FOR_EVER,
        )
        for name, data in files.items()
    }
    source, cross = (
        (HLS_CDN_URL, ' crossorigin="anonymous"') if hls is None else (f"{base}/{HLS_FILE}", "")
    )
    names = {name: f"{base}/{name}" for name in files}
    names["hls"] = f'<script defer src="{source}" integrity="{HLS_INTEGRITY}"{cross}></script>'
    fields = (
        ("Content-Security-Policy", content_security_policy(cdn=hls is None)),
        ("Referrer-Policy", "no-referrer"),
    )
    html = {
        name: Response(
            body=_fill((folder / name).read_text(encoding="utf-8"), names),
            content_type=content_type(name), cache_control=KEPT_SHORTLY, fields=fields,
        )
        for name in ("index.html", "watch.html")
    }  # fmt: skip
    return Pages(html["index.html"], html["watch.html"], assets, hls is not None)


def content_security_policy(*, cdn: bool) -> str:
    """Return the policy of the pages: own files only, and the CDN's script where hls.js is not
    local.
    """
    scripts = f"'self' {HLS_CDN_ORIGIN}" if cdn else "'self'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self'; img-src 'self' data:; "
        # hls.js feeds the picture from a blob and parses in a worker made of one.
        "connect-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


def mount_pages(router: Router, pages: Pages) -> None:
    """Mount `/`, `/watch/CHANNEL` and `/web/`; the page finds its channel in its own address."""

    def watch(request: RequestReceived) -> Response:
        channel = request.path.removeprefix("/watch/")
        if not channel or "/" in channel:
            raise HttpError(404, "a watch page is /watch/CHANNEL")
        return pages.watch

    def asset(request: RequestReceived) -> Response:
        found = pages.assets.get(request.path)
        if found is None:
            raise HttpError(404, "there is no such file; load the page again")
        return found

    router.get("/", lambda _request: pages.landing)
    router.get("/watch/", watch)
    router.get("/web/", asset)


def _fill(html: str, names: dict[str, str]) -> bytes:
    for name, value in names.items():
        html = html.replace("{{" + name + "}}", value)
    assert "{{" not in html, "every placeholder names a file"
    return html.encode()
