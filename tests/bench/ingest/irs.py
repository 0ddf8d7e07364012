"""The rest of the network, for a PoP under measurement: IRS, and the sink's heartbeats to it.

    python -m tests.bench.ingest.irs SINK_ADDRESS [DIRECTORY]

It runs edged's own service on a port that it tells on stdout ({"port": ...}), with the certificates
in DIRECTORY if that is given, on the load's core: it costs next to nothing.
"""

import secrets
import sys
import time
from pathlib import Path

import structlog
import trio

from edged.irs.client import IrsClientConfig, OriginClient
from edged.irs.service import IrsConfig, IrsService
from edged.runtime.tls import MutualTls
from edged.wire.table import OriginHello
from tests.bench.ingest.edged_server import IRS, ORIGIN, REPORT, tls_files


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
        print(f'{{"port": {address.rpartition(":")[2]}}}', flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(serve, sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
