"""An ingest plug-in for edged: H.264 over TCP, as simple as can be.

Wire, big-endian: the stream key and a line feed, answered by "ok" or "refused CODE: REASON" and a
line feed. Then blocks of u32 size, u32 dts, u32 pts (ms) and so many bytes: the first is the avcC
(14496-15 §5.3.3), each other one access unit, its NAL units with 4-byte lengths.
"""

import struct
from functools import partial
from typing import Annotated

import trio
from msgspec import Meta, Struct

from edged.errors import PublishRefusedError, RemoteProtocolError
from edged.ingest.plugin import (
    PUBLISH_TIMEOUT_S,
    Door,
    IngestPlugin,
    Publication,
    PublisherControl,
    PublishRequest,
)
from edged.media import h264, nal
from edged.media.access_unit import AccessUnit
from edged.media.track import Codec, Track
from edged.runtime.connection import Connection, PumpClass
from edged.runtime.keeping import run_for
from edged.runtime.listeners import serve

BLOCK = struct.Struct(">III")
KEY_BYTES_MAX = 1024
BLOCK_BYTES_MAX = 4 * 2**20
SILENCE_S_MAX = 15.0  # More than the door may take.


class ToyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ingest.toy]`."""

    listen: str = "[::]:1950"
    publishers_max: Annotated[int, Meta(ge=1, le=10_000)] = 100


class ToyPublisher(PublisherControl):
    """One connection: what the pump calls, and what the network wants of the publisher."""

    def __init__(self, connection: Connection, door: Door, nursery: trio.Nursery) -> None:
        self._connection, self._door, self._nursery = connection, door, nursery
        self._inbox = bytearray()
        self._publication: Publication | None = None
        self._track: Track | None = None
        self._last_dts = -1
        connection.set_timeout(connection.pump.now() + SILENCE_S_MAX)

    # The pump's side: never awaits. An EdgedError ends the session, with its text as the reason.

    def data_received(self, data: memoryview, now: float) -> None:
        self._connection.set_timeout(now + SILENCE_S_MAX)
        self._inbox += data
        if self._publication is not None:
            self._take_blocks(self._publication)
            return
        key, line_feed, rest = self._inbox.partition(b"\n")
        if len(key) > KEY_BYTES_MAX:
            raise RemoteProtocolError(f"a stream key of more than {KEY_BYTES_MAX} bytes")
        if line_feed:
            self._inbox = rest
            self._connection.pause_reading()  # Until the door has decided.
            publish = partial(self._publish, key.decode("ascii", "replace"))
            self._nursery.start_soon(run_for, self._connection, publish)

    def handle_timeout(self, now: float) -> None:
        self._connection.close(f"silent for {SILENCE_S_MAX:g} s")

    def connection_lost(self, reason: str) -> None:
        if self._publication is not None:
            self._publication.end(reason)

    def drained(self) -> None:
        pass

    # The network's side: a plug-in does what its protocol can.

    def stop(self, code: str, reason: str) -> None:
        self._connection.write(f"stopped {code}: {reason}\n".encode())
        self._connection.close(reason)

    def want_key_frame(self) -> None:
        pass

    def cap_bitrate(self, bits_per_second: int) -> None:
        pass

    async def _publish(self, key: str) -> None:
        request = PublishRequest(
            protocol="toy", app="live", stream_key=key, peer=self._connection.peer
        )
        try:
            with trio.fail_after(PUBLISH_TIMEOUT_S):
                publication = await self._door.publish(request, self)
        except (PublishRefusedError, trio.TooSlowError) as error:
            self._connection.write(f"refused {error or 'timeout: try again'}\n".encode())
            self._connection.close("refused")
            return
        if self._connection.lost is not None:  # It did not wait.
            publication.end(self._connection.lost)
            return
        self._publication = publication
        self._connection.write(b"ok\n")
        self._connection.resume_reading()
        self._take_blocks(publication)

    def _take_blocks(self, publication: Publication) -> None:
        while len(self._inbox) >= BLOCK.size:
            size, dts, pts = BLOCK.unpack_from(self._inbox)
            end = BLOCK.size + size
            if size > BLOCK_BYTES_MAX:
                raise RemoteProtocolError(f"a block of {size} bytes, allowed are {BLOCK_BYTES_MAX}")
            if len(self._inbox) < end:
                return
            payload = bytes(self._inbox[BLOCK.size : end])
            del self._inbox[:end]
            if self._track is None:
                config = h264.parse_config(payload)
                self._track = Track(track_id=1, codec=Codec.H264, timescale=1000, config=config)
                publication.set_track(self._track)
            else:
                publication.append([self._unit(payload, dts, pts)])

    def _unit(self, payload: bytes, dts: int, pts: int) -> AccessUnit:
        nal.check_length_prefixed(payload)
        if dts <= self._last_dts:
            raise RemoteProtocolError(f"dts {dts} does not follow {self._last_dts}")
        self._last_dts = dts
        return AccessUnit(
            track_id=1, seq=0, config_id=0, pts=pts, dts=dts, wallclock_us=0, payload=payload,
            random_access=h264.is_random_access(payload),
        )  # fmt: skip


async def serve_toy(
    config: Struct, door: Door, *, task_status: trio.TaskStatus[dict[str, str]]
) -> None:
    """Listen until cancelled."""
    assert isinstance(config, ToyConfig), "edged decodes `[ingest.toy]` to the plug-in's own type"
    async with trio.open_nursery() as nursery:
        address: str = await nursery.start(
            partial(
                serve,
                door.pump,
                config.listen,
                lambda connection: ToyPublisher(connection, door, nursery),
                PumpClass.PUBLISHER,
                connections_max=config.publishers_max,
            )
        )
        task_status.started({"toy": address})


plugin = IngestPlugin(name="toy", config_type=ToyConfig, serve=serve_toy, codecs=(Codec.H264,))
