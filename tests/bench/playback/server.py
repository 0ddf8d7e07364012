"""The edge under measurement: the playback service with a channel of 2 s segments, nothing else.

Prints where it is; then at each line of standard input pushes a part of each rendition, as an
origin does, and prints how long it took until all who waited for it were sent their playlist.
"""

import os
import sys
import time
from functools import partial

import msgspec
import trio
from msgspec import Struct

from edged.media.stream import StreamId
from edged.playback.hls import HlsService
from edged.playback.http import HttpServer, Release, Router
from edged.runtime.log import LogConfig, configure_logging
from edged.runtime.process import settle_memory
from edged.runtime.pump import Pump, Work
from edged.runtime.tls import PublicTls
from tests.playback.fakes import Origin

CHANNEL = "bench"
RUN = StreamId(channel=CHANNEL, publication=1)
SEGMENTS = 12  # The playlist has its full length.
RELEASE_S_MAX = 20.0


class Place(Struct):
    """The first line."""

    port: int
    tls_port: int  # 0 without a certificate.
    playlist: str
    part: str
    reload: str  # Blocks until the next push.


class Released(Struct):
    """What a push gave."""

    took_us: int
    released: int
    reload: str  # What blocks until the next push after it.
    playlist_bytes: int


class Edge:
    """The service and what feeds it."""

    def __init__(self, part_bytes: int) -> None:
        self.pump = Pump()
        self.sent_at = 0.0
        self.origin = Origin(part_bytes=part_bytes)
        self.hls = HlsService(
            lookup=lambda channel: RUN if channel == CHANNEL else None,
            subscribe=self._subscribe,
            unsubscribe=lambda channel: None,
            now=self.pump.now,
            spread=self._spread,
        )
        self.http = HttpServer(Router())
        self.http.mount("/live/", self.hls)

    def _subscribe(self, channel: str) -> None:
        self.pump.at_flush(self._replay)

    def _replay(self) -> None:
        events = self.origin.start()
        for _ in range(SEGMENTS):
            events += self.origin.segment()
        self.hls.window_updated(RUN, events)

    def reload(self) -> str:
        """The reload that blocks until the part that is to come."""
        return f"/live/{CHANNEL}/1/v0.m3u8?_HLS_msn={self.origin.msn}&_HLS_part={self.origin.index}"

    def _spread(self, work: Work) -> None:
        """Have the pump do it, and note when the last who waited has been sent its playlist."""

        def noting(until: float) -> bool:
            more = work(until)
            if isinstance(work, Release) and work.all_are_sent and not self.sent_at:
                self.sent_at = time.perf_counter()
            return more

        self.pump.spread(noting)

    async def release(self) -> Released:
        """Push, and wait until all who waited have been sent what this queued for them.

        Then, out of the measure, until it has been accounted for as well.
        """
        before, waiting = (
            self.hls.statistics().released_total,
            list(self.pump._connections.values()),
        )
        self.sent_at, begun = 0.0, time.perf_counter()
        self.hls.window_updated(RUN, self.origin.both())
        released = self.hls.statistics().released_total - before
        while self.pump.unserved or (released and not self.sent_at):
            if time.perf_counter() - begun > RELEASE_S_MAX:
                raise TimeoutError(f"not sent in {RELEASE_S_MAX:g} s")
            await trio.lowlevel.checkpoint()
        if any(connection.out_bytes for connection in waiting):
            raise ValueError("the kernel did not take it whole")
        took_us = round((self.sent_at - begun) * 1e6) if released else 0
        return Released(took_us, released, self.reload(), self.http.statistics().body_bytes_total)


def say(line: Struct) -> None:
    """One line of JSON."""
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def port_of(address: str) -> int:
    """Of HOST:PORT."""
    return int(address.rpartition(":")[2])


async def main(part_bytes: int, certificate: list[str]) -> None:
    """Serve until standard input ends; over TLS too, with a certificate's files."""
    edge = Edge(part_bytes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge.pump.run)
        nursery.start_soon(edge.hls.run)
        plain = port_of(await nursery.start(edge.http.serve, edge.pump, "127.0.0.1:0"))
        tls = 0
        if certificate:
            context = PublicTls(certificate[0], certificate[1], ("h2", "http/1.1")).context
            serve = partial(edge.http.serve, edge.pump, "127.0.0.1:0", tls=context)
            tls = port_of(await nursery.start(serve))
        place = Place(
            port=plain,
            tls_port=tls,
            playlist=f"/live/{CHANNEL}/1/v0.m3u8",
            part=f"/live/{CHANNEL}/1/v0-{SEGMENTS - 1}.3.m4s",
            reload="",
        )
        settle_memory()
        say(place)
        async with trio.lowlevel.FdStream(os.dup(0)) as commands:
            async for _ in commands:
                say(await edge.release())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    configure_logging(LogConfig(level="warning"))  # To standard error.
    trio.run(main, int(sys.argv[1]), sys.argv[2:])
