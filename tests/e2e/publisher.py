"""Publishers made of our client core: as OBS sends, as nobody should, and with any times."""

import contextlib
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

import trio

from edged.errors import PeerLostError
from edged.media.access_unit import AccessUnit
from edged.media.track import Track
from edged.wire.rtmp import (
    ClientEvent,
    Closed,
    PublishAccepted,
    PublishRefused,
    RtmpClientOptions,
    RtmpClientSession,
    parse_url,
)
from tests.e2e.clip import read_units

RECEIVE_BYTES = 16 * 1024
OBS = RtmpClientOptions()  # 4096-byte chunks, whatever the server says.


class Publisher:
    """One connection. Each chunk goes out by a send, and so in a TLS record, of its own."""

    def __init__(self, stream: trio.abc.Stream, session: RtmpClientSession) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self.session = session
        self.events: list[ClientEvent] = []
        self.changed = trio.Event()
        self.records = 0

    async def flush(self) -> None:
        """Send what the core has, chunk by chunk."""
        async with self._lock:
            for chunk in self.session.chunks_to_send():
                await self._stream.send_all(chunk)
                self.records += 1

    async def listen(self) -> None:
        """Take what the server says until it closes."""
        try:
            while data := await self._stream.receive_some(RECEIVE_BYTES):
                self.events += self.session.receive_data(bytes(data), trio.current_time())
                self._tell()
                await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.events.append(Closed("connection lost", ""))
        self._tell()

    async def wait_for(self, *kinds: type[ClientEvent]) -> ClientEvent:
        """The first event of one of these kinds."""
        while True:
            for event in self.events:
                if isinstance(event, kinds):
                    return event
            await self.changed.wait()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


async def publish_units(
    tracks: Sequence[Track],
    units: Sequence[AccessUnit],
    url: str,
    *,
    options: RtmpClientOptions = OBS,
    tls: ssl.SSLContext | None = None,
    start_ms: int = 0,
    ahead_s: float = 0.0,
    leave: bool = True,
    task_status: trio.TaskStatus[Publisher] = trio.TASK_STATUS_IGNORED,
) -> Publisher:
    """Publish in real time (the first `ahead_s` at once), with times that begin at `start_ms`.

    Ends when all is sent (having said goodbye if it is to `leave`), or when the server ends it.
    Raises PeerLostError when it is refused.
    """
    place = parse_url(url)
    stream: trio.abc.Stream = await trio.open_tcp_stream(place.host, place.port)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname=place.host)
    session = RtmpClientSession(
        now=trio.current_time(), entropy=os.urandom, url=place, options=options
    )
    publisher = Publisher(stream, session)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(publisher.listen)
        await publisher.flush()
        with trio.fail_after(15):
            answer = await publisher.wait_for(PublishAccepted, PublishRefused, Closed)
        if not isinstance(answer, PublishAccepted):
            raise PeerLostError(f"refused: {answer}")
        task_status.started(publisher)
        with contextlib.suppress(trio.BrokenResourceError):
            await _send(publisher, {track.track_id: track for track in tracks}, units,
                        start_ms=start_ms, ahead_s=ahead_s)  # fmt: skip
            if leave:
                session.close()
                await publisher.flush()
        nursery.cancel_scope.cancel()
    return publisher


async def _send(
    publisher: Publisher,
    tracks: dict[int, Track],
    units: Sequence[AccessUnit],
    *,
    start_ms: int,
    ahead_s: float,
) -> None:
    for track in tracks.values():
        publisher.session.send_track(track, start_ms * track.timescale // 1000)
    began_at = trio.current_time()
    for unit in units:
        track = tracks[unit.track_id]
        await trio.sleep_until(began_at + unit.dts / track.timescale - ahead_s)
        if any(isinstance(event, Closed) for event in publisher.events):
            return
        shift = start_ms * track.timescale // 1000
        moved = unit.replaced(dts=unit.dts + shift, pts=unit.pts + shift)
        publisher.session.send_unit(moved, track)
        await publisher.flush()


async def publish_clip(
    clip: Path,
    url: str,
    *,
    options: RtmpClientOptions = OBS,
    tls: ssl.SSLContext | None = None,
    start_ms: int = 0,
    leave: bool = True,
    task_status: trio.TaskStatus[Publisher] = trio.TASK_STATUS_IGNORED,
) -> Publisher:
    """The same with a clip's units."""
    tracks, units = read_units(clip)
    return await publish_units(
        tracks, units, url, options=options, tls=tls, start_ms=start_ms, leave=leave,
        task_status=task_status,
    )  # fmt: skip
