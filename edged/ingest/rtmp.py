"""RTMP and RTMPS ingest: the listeners, and how many may publish."""

import os
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from edged.errors import PeerLostError, PublishRefusedError
from edged.ingest.plugin import (
    Door,
    IngestPlugin,
)
from edged.ingest.rtmp_publisher import RtmpPublisher
from edged.media.place import place_of
from edged.media.track import Codec
from edged.runtime.listeners import serve
from edged.runtime.pump import Connection, PumpClass
from edged.runtime.supervision import Supervisor
from edged.runtime.tls import PublicTls, keep_certificates
from edged.wire import rtmp

# Connections that have not published yet, from one address, of IPv6 its /64: a site behind one may
# restart all its encoders at once, but a stranger with one must not keep everyone else out.
PENDING_PER_ADDRESS_MAX = 64
PENDING_MAX = 1024  # From all addresses, beside `publishers_max`; each lives a few seconds.
OUT_BYTES_MAX = (
    64 * 1024
)  # Replies and acknowledgements only: a publisher that reads none is broken.

SESSIONS_FROM_NOW_ON = "for sessions from now on"

logger = structlog.get_logger("edged.rtmp")


class RtmpTlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ingest.rtmp.tls]`: RTMPS beside RTMP."""

    certificate: Path
    key: Path
    listen: str = "[::]:1936"


class RtmpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ingest.rtmp]`: Enhanced RTMP over TCP."""

    listen: str = "[::]:1935"
    handshake_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    publish_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 10.0  # From the handshake to publish.
    silence_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10.0  # Without audio or video.
    message_bytes_max: Annotated[int, Meta(ge=65536, le=8 * 2**20)] = 8 * 2**20
    publishers_max: Annotated[int, Meta(ge=1)] = 2_000  # Beyond it we refuse, not queue.
    tls: RtmpTlsConfig | None = None


class RtmpIngest:
    """All RTMP sessions of a PoP, over all its listeners."""

    def __init__(self, config: RtmpConfig, door: Door, nursery: trio.Nursery) -> None:
        self.config = config
        self.door = door
        self.limits = _limits_of(config)
        self.start_soon = nursery.start_soon
        self.over = False  # Nobody is let in any more; connections live until the pump drops them.
        self._pending: dict[RtmpPublisher, str] = {}  # Not granted yet: where they come from.
        self._pending_from: Counter[str] = Counter()
        self._publishing: set[RtmpPublisher] = set()  # And those about to.

    def make_session(self, connection: Connection) -> RtmpPublisher:
        """Begin a session on a connection that was just accepted. Raises PeerLostError."""
        place = place_of(connection.peer)
        if self._pending_from[place] >= PENDING_PER_ADDRESS_MAX:
            raise PeerLostError(
                f"{PENDING_PER_ADDRESS_MAX} connections from {place} have not published yet"
            )
        session = RtmpPublisher(connection, self)
        self._pending[session] = place
        self._pending_from[place] += 1
        return session

    def reconfigure(self, config: RtmpConfig) -> None:
        """Take limits into use for the sessions from now on; those that are there keep theirs."""
        self.config, self.limits = config, _limits_of(config)

    def reserve(self, session: RtmpPublisher) -> None:
        """Take a place before the door is asked, which others may be waiting for as well.

        Raises PublishRefusedError when there are as many publishers as may be.
        """
        if len(self._publishing) >= self.config.publishers_max:
            raise PublishRefusedError(
                "full", f"this PoP takes {self.config.publishers_max} publishers; try again later"
            )
        self._publishing.add(session)

    def give_back(self, session: RtmpPublisher) -> None:
        """It was not let in."""
        self._publishing.discard(session)

    def granted(self, session: RtmpPublisher) -> None:
        """It publishes now."""
        self._no_longer_pending(session)

    def forget(self, session: RtmpPublisher) -> None:
        """Its connection is gone."""
        self._no_longer_pending(session)
        self._publishing.discard(session)

    def _no_longer_pending(self, session: RtmpPublisher) -> None:
        address = self._pending.pop(session, None)
        if address is not None:
            self._pending_from[address] -= 1
            if not self._pending_from[address]:
                del self._pending_from[address]


def _limits_of(config: RtmpConfig) -> rtmp.RtmpLimits:
    return rtmp.RtmpLimits(
        handshake_timeout_s=config.handshake_timeout_s,
        publish_timeout_s=config.publish_timeout_s,
        media_silence_s_max=config.silence_timeout_s,
        message_bytes_max=config.message_bytes_max,
        # One message, and what of others lies between its chunks.
        buffered_bytes_max=config.message_bytes_max * 3 // 2,
    )


async def serve_rtmp(
    config: Struct,
    door: Door,
    *,
    task_status: trio.TaskStatus[dict[str, str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen for publishers until cancelled.

    `EDGED_PURE_PYTHON=1` in the environment leaves the compiled RTMP core out: should it be at
    fault, or to see lines in a profile.
    """
    config = msgspec.convert(config, RtmpConfig)
    rtmp.use_compiled(os.environ.get("EDGED_PURE_PYTHON", "") in ("", "0"))
    if not rtmp.is_compiled():
        logger.warning("the RTMP core is not compiled: ingest takes half as much CPU again")
    tls = None
    if config.tls is not None:
        tls = PublicTls(str(config.tls.certificate), str(config.tls.key))
    async with trio.open_nursery() as nursery:
        ingest = RtmpIngest(config, door, nursery)

        def prepare_reload(new: Struct) -> Callable[[], None]:
            new = msgspec.convert(new, RtmpConfig)
            take = None
            if tls is not None and new.tls is not None:
                take = tls.prepare(str(new.tls.certificate), str(new.tls.key))

            def commit() -> None:
                ingest.reconfigure(new)
                if take is not None:
                    take()

            return commit

        door.on_reload("rtmp", prepare_reload)

        async def listen(address: str, context: ssl.SSLContext | None) -> str:
            bound: str = await nursery.start(
                lambda task_status: serve(
                    door.pump,
                    address,
                    ingest.make_session,
                    PumpClass.PUBLISHER,
                    tls=context,
                    connections_max=lambda: ingest.config.publishers_max + PENDING_MAX,
                    makes_room=True,
                    out_bytes_max=OUT_BYTES_MAX,
                    task_status=task_status,
                )
            )
            return bound

        addresses = {"rtmp": await listen(config.listen, None)}
        if config.tls is not None and tls is not None:
            addresses["rtmps"] = await listen(config.tls.listen, tls.context)
            certificates = partial(keep_certificates, tls)
            Supervisor("ingest.rtmp").start_soon(nursery, "certificates", certificates)
        task_status.started(addresses)
        try:
            await trio.sleep_forever()
        finally:
            ingest.over = True


plugin = IngestPlugin(
    name="rtmp",
    config_type=RtmpConfig,
    serve=serve_rtmp,
    codecs=(Codec.H264, Codec.H265, Codec.AV1, Codec.VP9, Codec.AAC, Codec.OPUS),
    live_keys={
        "handshake_timeout_s": SESSIONS_FROM_NOW_ON,
        "publish_timeout_s": SESSIONS_FROM_NOW_ON,
        "silence_timeout_s": SESSIONS_FROM_NOW_ON,
        "message_bytes_max": SESSIONS_FROM_NOW_ON,
        "publishers_max": "counts for publishers from now on; nobody is sent away",
        "tls.certificate": "shown to connections from now on",
        "tls.key": "used for connections from now on",
    },
)
