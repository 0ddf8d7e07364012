"""The compiled form of what is hot: the same source, made into C by mypyc where that can be done.

Nothing is written twice: what runs is either the module or what was made of it, and does the same.
What was made lies in `edged/_native`, with a list of the sources it was made from. They call each
other directly there, and know each other's constants; so if one of these sources is another by now,
as in a checkout in which somebody works, all of them are run as Python (`python -m edged.build`
makes them anew). EDGED_PURE_PYTHON=1 in the environment has them run as
Python in any case.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parent
FOLDER = "_native"
GROUP = "edged"  # All of it is in one library of this name, which each module's own file asks for.
PURE = "EDGED_PURE_PYTHON"  # In the environment; "0" is as if it were not there.
NATIVE = (
    "edged/backbone/forwarding.py",
    "edged/backbone/ring_source.py",
    "edged/backbone/sender.py",
    "edged/backbone/session.py",
    "edged/ingest/publication.py",
    "edged/ingest/rtmp_publisher.py",
    "edged/media/access_unit.py",
    "edged/media/gop_ring.py",
    "edged/media/stream_clock.py",
    "edged/playback/exchange.py",
    "edged/playback/h2_connection.py",
    "edged/playback/hls.py",
    "edged/playback/hls_stream.py",
    "edged/playback/http.py",
    "edged/playback/playlist.py",
    "edged/playback/release.py",
    "edged/playback/waiting.py",
    "edged/policy/blocking_reload.py",
    "edged/policy/cutter.py",
    "edged/policy/rendition_window.py",
    "edged/policy/segmenter.py",
    "edged/policy/viewer_count.py",
    "edged/policy/window.py",
    "edged/runtime/connection.py",
    "edged/runtime/hub.py",
    "edged/runtime/kernel_bytes.py",
    "edged/runtime/pace.py",
    "edged/runtime/pump.py",
    "edged/runtime/sends.py",
    "edged/runtime/standing.py",
    "edged/runtime/tls_calls.py",
    "edged/runtime/track_statistics.py",
    "edged/wire/backbone/flows.py",
    "edged/wire/backbone/frames.py",
    "edged/wire/backbone/link.py",
    "edged/wire/backbone/segment_flow.py",
    "edged/wire/backbone/sending.py",
    "edged/wire/cmaf/fragment.py",
    "edged/wire/fields.py",
    "edged/wire/h1.py",
    "edged/wire/h2/frames.py",
    "edged/wire/h2/head.py",
    "edged/wire/h2/hpack.py",
    "edged/wire/h2/huffman.py",
    "edged/wire/h2/intake.py",
    "edged/wire/h2/priorities.py",
    "edged/wire/h2/reader.py",
    "edged/wire/h2/receiving.py",
    "edged/wire/h2/requests.py",
    "edged/wire/h2/responses.py",
    "edged/wire/h2/sending.py",
    "edged/wire/h2/session.py",
    "edged/wire/h2/streams.py",
    "edged/wire/h2/usual.py",
    "edged/wire/m3u8.py",
    "edged/wire/prepared.py",
    "edged/wire/request.py",
    "edged/wire/rtmp/server.py",
    "edged/wire/rtmp/workload.py",
)


class NativeFinder:
    """Finds what was compiled, ahead of its source."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files  # By the module's name.

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As `importlib.abc.MetaPathFinder`."""
        del path, target
        file = self.files.get(name)
        if file is None:
            return None
        loader = ExtensionFileLoader(name, str(file))
        return importlib.util.spec_from_file_location(name, file, loader=loader)


def install() -> None:
    """Have what was compiled used, if it is of these sources."""
    if os.environ.get(PURE, "") in ("", "0") and (files := find(PACKAGE)):
        sys.meta_path.insert(0, NativeFinder(files))


def find(package: Path) -> dict[str, Path]:
    """What was compiled of these sources for this Python, by module; empty if it is of others."""
    folder, suffix = package / FOLDER, EXTENSION_SUFFIXES[0]
    try:
        lines = manifest_of(package).read_text().splitlines()
        for line in lines:
            digest, _, name = line.partition(" ")
            if digest_of(package.parent / name) != digest:
                return {}
    except OSError:
        return {}
    files = folder.rglob(f"*{suffix}")
    modules = {file: file.relative_to(folder).as_posix()[: -len(suffix)] for file in files}
    found = {name.replace("/", "."): file for file, name in modules.items()}
    return found if f"{GROUP}__mypyc" in found else {}


def manifest_of(package: Path) -> Path:
    """The list of sources, one a line: digest and path from where the package lies."""
    return package / FOLDER / f"sources{EXTENSION_SUFFIXES[0]}.txt"


def digest_of(source: Path) -> str:
    """Of a source's bytes, as Python has it for its own compiled files."""
    return importlib.util.source_hash(source.read_bytes()).hex()


def in_use() -> bool:
    """Whether this process runs the compiled form."""
    return any(isinstance(finder, NativeFinder) for finder in sys.meta_path)
