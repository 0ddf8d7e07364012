"""The rest of the network, for a PoP under measurement: IRS, and the sink's heartbeats to it.

    python -m tests.bench.ingest.irs SINK_ADDRESS [DIRECTORY]

It runs edged's own service on a port that it tells on stdout ({"port": ..., "hooks": ...}), with
the certificates in DIRECTORY if that is given, on the load's core: it costs next to nothing. At
the port `hooks` webhooks are taken, and no stream key is known.
"""

import http.server
import secrets
import sys
import threading
import time
from pathlib import Path

import structlog
import trio

from edged.irs.client import IrsClientConfig, OriginClient
from edged.irs.service import IrsConfig, IrsService
from edged.runtime.tls import MutualTls
from edged.wire.table import OriginHello
from tests.bench.ingest.edged_server import IRS, ORIGIN, REPORT, tls_files


class _Hooks(http.server.BaseHTTPRequestHandler):
    """Takes every event; knows no key."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if "Edged-Event-Id" in self.headers else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve_hooks() -> int:
    """From a thread of its own, as long as the process is; returns the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hooks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


async def serve(sink_address: str, directory: Path | None) -> None:
    """Run until cancelled."""
    server = client = None
    if directory is not None:
        server = MutualTls(tls_files(directory, f"irs-{IRS}")).server
        client = MutualTls(tls_files(directory, "sink")).client
    config = IrsConfig(listen="127.0.0.1:0", warmup_s=0.0)
    service = IrsService(config, entropy=secrets.token_bytes, now_unix=time.time, tls=server)
    async with trio.open_nursery() as nursery:
        address: str = await nursery.start(service.run)
        hello = OriginHello(origin=ORIGIN, incarnation=REPORT.incarnation, address=sink_address)
        irs = IrsClientConfig(addresses=(address,))
        nursery.start_soon(OriginClient(irs, hello, lambda: REPORT, tls=client).run)
        port = address.rpartition(":")[2]
        print(f'{{"port": {port}, "hooks": {serve_hooks()}}}', flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(serve, sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
