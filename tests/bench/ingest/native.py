"""The C half, compiled when the bench runs: Python could not load a core as lightly."""

import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from edged.errors import ToolMissingError

SOURCES: Final = Path(__file__).parent / "native"
FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wshadow")
COMPILE_TIMEOUT_S: Final = 60.0


class Programs(NamedTuple):
    generator: Path
    sink: Path
    sink_has_tls: bool


def build(directory: Path) -> Programs:
    """Compile into `directory`. Raises ToolMissingError when there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise ToolMissingError("the ingest bench compiles its load generator: install gcc")
    generator, sink = directory / "generator", directory / "sink"
    _compile(compiler, generator, "common.c", "generator.c")
    has_tls = _has_openssl(compiler)
    tls = ("-DWITH_TLS", "-lssl", "-lcrypto") if has_tls else ()
    _compile(compiler, sink, "common.c", "sink.c", "sink_rtmp.c", "sink_backbone.c", *tls)
    return Programs(generator, sink, has_tls)


def _compile(compiler: str, output: Path, *arguments: str) -> None:
    sources = [str(SOURCES / a) if a.endswith(".c") else a for a in arguments]
    subprocess.run(  # noqa: S603 - our own arguments
        [compiler, *FLAGS, "-o", str(output), *sources], check=True, timeout=COMPILE_TIMEOUT_S
    )


def _has_openssl(compiler: str) -> bool:
    probe = subprocess.run(  # noqa: S603 - our own arguments
        [compiler, "-E", "-o", "/dev/null", "-"],
        input=b"#include <openssl/ssl.h>\n",
        capture_output=True,
        check=False,
        timeout=COMPILE_TIMEOUT_S,
    )
    return probe.returncode == 0
