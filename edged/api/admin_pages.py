"""The pages as ready-made bytes: `/`, `/network`, and what they load, below `/web/DIGEST/`.

A page holds no data: it asks for `/status.json` or `/network.jsonl`, with a session. Nothing is
inline, and the Content-Security-Policy lets nothing in but these files.
"""

from importlib import resources

from msgspec import Struct

from edged.runtime.web_files import base_of, content_type

ASSETS = (
    "atlas.css",
    "atlas.js",
    "charts.js",
    "dom.js",
    "door.js",
    "events.js",
    "history.js",
    "icon.svg",
    "irs.js",
    "land.js",
    "layout.js",
    "map.js",
    "network.js",
    "scene.js",
    "status.css",
    "status.js",
    "streams.js",
    "timeline.js",
    "words.js",
)
PAGES = {"/": "status.html", "/network": "atlas.html"}
KEPT_FOR_EVER = "private, max-age=31536000, immutable"
KEPT_SHORTLY = "no-cache"  # The page names the digest: a release must be seen at once.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FIELDS = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


class PageFile(Struct, frozen=True, kw_only=True):
    """One file as it is served."""

    body: bytes
    content_type: str
    cache_control: str
    fields: tuple[tuple[str, str], ...] = FIELDS


def make_pages() -> dict[str, PageFile]:
    """Everything that is served, by path."""
    folder = resources.files("edged.api.web")
    files = {name: (folder / name).read_bytes() for name in ASSETS}
    base = base_of(files)
    pages = {
        f"{base}/{name}": PageFile(
            body=data,
            content_type=content_type(name),
            cache_control=KEPT_FOR_EVER,
        )
        for name, data in files.items()
    }
    for path, page in PAGES.items():
        html = (folder / page).read_text(encoding="utf-8")
        for name in files:
            html = html.replace("{{" + name + "}}", f"{base}/{name}")
        assert "{{" not in html, "every placeholder names a file"
        pages[path] = PageFile(
            body=html.encode(), content_type=content_type(page), cache_control=KEPT_SHORTLY
        )
    return pages
