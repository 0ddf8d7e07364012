"""The status page as ready-made bytes: `/`, and what it loads, below `/web/DIGEST/`.

The page holds no data: it asks for `/status.json`, with a session. Nothing is inline, and the
Content-Security-Policy lets nothing in but these files.
"""

from importlib import resources

from msgspec import Struct

from edged.runtime.web_files import base_of, content_type

ASSETS = (
    "charts.js",
    "dom.js",
    "icon.svg",
    "irs.js",
    "map.js",
    "network.js",
    "status.css",
    "status.js",
    "streams.js",
    "words.js",
)
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
    html = (folder / "status.html").read_text(encoding="utf-8")
    for name in files:
        html = html.replace("{{" + name + "}}", f"{base}/{name}")
    assert "{{" not in html, "every placeholder names a file"
    pages["/"] = PageFile(
        body=html.encode(), content_type=content_type("status.html"), cache_control=KEPT_SHORTLY
    )
    return pages
