"""The pages as ready-made bytes: `/`, `/network`, and what they load, below `/web/DIGEST/`.

A page holds no data: it asks for `/status.json` or `/network.jsonl`, with a session. Nothing is
inline, and the Content-Security-Policy lets nothing in but these files.

Both stand in one frame, `frame.html`: head, navigation and login; a page of its own is what is
shown once someone is let in. A script is loaded with all that it imports, at once.
"""

import re
from collections.abc import Mapping
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


class _Page(Struct, frozen=True, kw_only=True):
    """What differs from page to page."""

    kind: str  # Its file, script and style.
    word: str
    shows: str
    styles: tuple[str, ...]
    at_status: str = ""
    at_network: str = ""


_HERE = ' aria-current="page"'
PAGES = {
    "/": _Page(
        kind="status",
        word="status",
        shows="addresses and routes",
        styles=("status.css",),
        at_status=_HERE,
        at_network=" hidden",  # Until it is known that there is an IRS here.
    ),
    "/network": _Page(
        kind="atlas",
        word="network",
        shows="names and routes",
        styles=("status.css", "atlas.css"),
        at_network=_HERE,
    ),
}
_IMPORT = re.compile(rb'from "\./([a-z]+\.js)"')
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
    frame = (folder / "frame.html").read_text(encoding="utf-8")
    for path, page in PAGES.items():
        html = _fill(frame, page, (folder / f"{page.kind}.html").read_text(encoding="utf-8"), files)
        for name in files:
            html = html.replace("{{" + name + "}}", f"{base}/{name}")
        assert "{{" not in html, "every placeholder names a file"
        pages[path] = PageFile(
            body=html.encode(), content_type=content_type("frame.html"), cache_control=KEPT_SHORTLY
        )
    return pages


def _fill(frame: str, page: _Page, main: str, files: Mapping[str, bytes]) -> str:
    script = f"{page.kind}.js"
    scripts = [
        f'<link rel="modulepreload" href="{{{{{name}}}}}">' for name in _imported(script, files)
    ]
    for key, value in (
        ("kind", page.kind),
        ("word", page.word),
        ("title", page.word.capitalize()),
        ("shows", page.shows),
        (
            "styles",
            "\n".join(f'<link rel="stylesheet" href="{{{{{name}}}}}">' for name in page.styles),
        ),
        (
            "scripts",
            "\n".join([*scripts, f'<script type="module" src="{{{{{script}}}}}"></script>']),
        ),
        ("at-status", page.at_status),
        ("at-network", page.at_network),
        ("main", main),
    ):
        frame = frame.replace(f"{{{{page.{key}}}}}", value)
    return frame


def _imported(script: str, files: Mapping[str, bytes]) -> list[str]:
    """What a script imports, and what that does, in this order; each once."""
    found: dict[str, None] = {}
    waiting = [script]
    while waiting:
        for name in (match.decode() for match in _IMPORT.findall(files[waiting.pop(0)])):
            if name not in found:
                found[name] = None
                waiting.append(name)
    return list(found)
