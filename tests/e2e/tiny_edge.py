"""The last mile alone, for tests of the pages: the test picture packaged and served in this
process, on loopback.

No publisher's connection and no backbone; those have their own tests.
"""

import contextlib
import time
from collections.abc import AsyncIterator

import trio

from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent
from edged.media.stream import Grant, StreamId
from edged.media.timing import rescale
from edged.origin.packager import Packager
from edged.playback.hls import HlsService
from edged.playback.http import HttpServer, Router
from edged.playback.pages import LiveChannel, mount_streams, mount_time
from edged.playback.web.pages import Pages, make_pages, mount_pages, read_hls
from edged.policy.segment_rule import SegmenterConfig
from edged.runtime.hub import LiveStream
from edged.runtime.pump import Pump
from edged.tools.test_picture import PictureConfig, TestPicture

CHANNEL = "studio-1"
TITLE = "Test picture from the studio"


class TinyEdge:
    """One edge and at most one live run of CHANNEL; made by `open_tiny_edge`."""

    def __init__(self, pages: Pages, segmenter: SegmenterConfig) -> None:
        self.address = ""
        self.segmenter = segmenter
        self.picture: TestPicture | None = None
        self.server = HttpServer(router := Router())
        self.hls = HlsService(
            lookup=self._lookup,
            subscribe=self._subscribe,
            unsubscribe=lambda channel: None,
            now=trio.current_time,
        )
        self.server.mount("/live/", self.hls)
        mount_pages(router, pages)
        mount_time(router, time.time)
        mount_streams(router, self._list)
        self.paused = False  # The broadcaster freezes: nothing ends, nothing comes.
        self._publication = 0
        self._stream: LiveStream | None = None
        self._started_unix = 0.0
        self._events: list[PackagedEvent] = []
        self._subscribed = False

    async def broadcast(self, duration_s: float, config: PictureConfig | None = None) -> None:
        """Be live for so long, then end."""
        self.picture = picture = TestPicture(config or PictureConfig())
        self._publication += 1
        stream_id = StreamId(channel=CHANNEL, publication=self._publication)
        self._stream = stream = LiveStream(
            stream_id, Grant(channel=CHANNEL), started_at=trio.current_time(), came_from="test"
        )
        self._events, self._subscribed = [], False
        packager = Packager(stream, self.segmenter, self._publish)
        stream.watch(packager.wake)
        for track in picture.tracks:
            stream.set_track(track)
        started_at, self._started_unix = trio.current_time(), time.time()
        picture.start(round(self._started_unix * 1e6))
        while (due_s := picture.next_due_s()) is not None and due_s < duration_s:
            await trio.sleep_until(started_at + due_s)
            units = await trio.to_thread.run_sync(picture.take_units)
            if not self.paused:
                stream.append(
                    [self._stamp(unit, stream.ring.next_seq + at) for at, unit in enumerate(units)]
                )
        stream.end("the test is over")
        self._stream = None

    def _stamp(self, unit: AccessUnit, seq: int) -> AccessUnit:
        assert self._stream is not None, "units come from a live run"
        timescale = self._stream.tracks[unit.track_id].timescale
        unit.seq = seq
        unit.wallclock_us = round(self._started_unix * 1e6) + rescale(
            unit.pts, timescale, 1_000_000
        )
        return unit

    def _publish(self, event: PackagedEvent) -> None:
        assert self._stream is not None, "events come from a live run"
        self._events.append(event)
        if self._subscribed:
            self.hls.window_updated(self._stream.stream_id, [event])

    def _lookup(self, channel: str) -> StreamId | None:
        live = self._stream
        return live.stream_id if live is not None and channel == CHANNEL else None

    def _subscribe(self, channel: str) -> None:
        if self._stream is not None and channel == CHANNEL:
            self._subscribed = True
            self.hls.window_updated(self._stream.stream_id, list(self._events))

    def _list(self) -> list[LiveChannel]:
        if self._stream is None:
            return []
        return [
            LiveChannel(
                channel=CHANNEL,
                title=TITLE,
                since=self._started_unix,
                viewers=self.hls.viewers(CHANNEL),
            )
        ]


@contextlib.asynccontextmanager
async def open_tiny_edge(
    pages: Pages | None = None, *, segmenter: SegmenterConfig | None = None
) -> AsyncIterator[TinyEdge]:
    """Serve on a free port of loopback until the context ends."""
    edge = TinyEdge(pages or make_pages(read_hls()), segmenter or SegmenterConfig())
    async with trio.open_nursery() as nursery:
        pump = Pump()
        nursery.start_soon(pump.run)
        address = await nursery.start(edge.server.serve, pump, "127.0.0.1:0")
        edge.address = f"http://{address}"
        yield edge
        nursery.cancel_scope.cancel()
