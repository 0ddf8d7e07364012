"""nginx-rtmp under measurement."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edged.errors import ToolMissingError
from tests.bench.ingest.measure import Bench, Server
from tests.bench.ingest.processes import Process, wait_until_listening
from tests.ports import take_port

NGINX_RTMP_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")  # Where Debian has it.

_NGINX = """\
load_module {module};
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log warn;
events {{ worker_connections 8192; }}
rtmp {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        chunk_size 4096;
        application live {{
            live on;
            push rtmp://127.0.0.1:{sink_port}/sink;
        }}
    }}
}}
"""


def has_nginx() -> bool:
    """Whether Debian's nginx and its RTMP module are installed."""
    return find_nginx() is not None and NGINX_RTMP_MODULE.exists()


def find_nginx() -> str | None:
    """nginx lives in sbin, which is not on everyone's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def nginx(streams: int, sink_port: int, bench: Bench) -> Iterator[Server]:
    """Start it, one worker, with a push to the sink. Raises ToolMissingError, BenchError."""
    program = find_nginx()
    if program is None or not NGINX_RTMP_MODULE.exists():
        raise ToolMissingError("install nginx and libnginx-mod-rtmp")
    directory, port = bench.directory, take_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        _NGINX.format(module=NGINX_RTMP_MODULE, directory=directory, port=port, sink_port=sink_port)
    )
    arguments: list[str | Path] = [
        program,
        "-p",
        directory,
        "-e",
        directory / "nginx.log",
        "-c",
        configuration,
    ]
    with Process(arguments, core=bench.cores.server, log=directory / "nginx.stderr") as process:
        wait_until_listening(process, port)
        keys = [f"bench{n}" for n in range(streams)]
        yield Server(process, port, f"rtmp://127.0.0.1:{port}/live", keys, lambda: 0)
