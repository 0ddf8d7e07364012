"""Files of web pages, at addresses that are named by their contents.

Browsers and caches may then keep them for ever: a new release has new addresses.
"""

import hashlib
from collections.abc import Mapping

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def content_type(name: str) -> str:
    """The media type of a file, by its ending; KeyError if no page has such files."""
    return _TYPES[name.rpartition(".")[2]]


def base_of(files: Mapping[str, bytes]) -> str:
    """The folder, "/web/DIGEST", that these files are served in: others have another."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(name.encode() + len(data).to_bytes(8, "big") + data)
    return f"/web/{digest.hexdigest()[:16]}"
