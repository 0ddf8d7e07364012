"""A PoP's measurements of its paths: probes and TCP_INFO, gathered in one tick for all origins.

At each tick what has come is read (the kernel knows when it came), each path is judged and told,
and the next probes leave. A tick that was late judges nothing: what came meanwhile has just been
read, and the silence was ours.
"""

import contextlib
import math
import socket
from collections.abc import Callable

import structlog
import trio

from edged.backbone.sender import OriginLink
from edged.backbone.session import DSCP
from edged.media.routing import PathProbe
from edged.media.stream import PriorityClass
from edged.policy.path_meter import PathMeter, SessionCounts, add_up
from edged.runtime.datagrams import connect_datagrams, mark_datagrams, receive
from edged.runtime.faults import contained
from edged.runtime.tcp_info import read_tcp_info
from edged.wire.backbone.messages import ProbesOffered
from edged.wire.probe import INTERVAL_S, ProbeAsker, ProbeKey

LATE_S_MAX = 0.5
TICKS_PER_SAMPLE = 5  # TCP_INFO and bytes are read once a second.
READS_PER_TICK_MAX = 64  # Of one origin: ten times what it may send.
RATE_SMOOTHING = 0.5  # Weight of the newest second.

Carried = tuple[float, float]  # Mbps to the origin, and from it.

logger = structlog.get_logger("edged.backbone")


class _Path:
    """The path to one origin."""

    def __init__(self, link: OriginLink, now: float) -> None:
        self.link = link
        self.meter = PathMeter(now)
        self.asker: ProbeAsker | None = None
        self.sock: socket.socket | None = None
        self.said_filtered = False
        self.carried: Carried = (0.0, 0.0)
        statistics = link.statistics()
        self.counted = (now, statistics.sent_bytes, statistics.received_bytes)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock = self.asker = None


class PathProbes:
    """All paths of one PoP shard. `tell(origin, path, carried)` hears of each at each tick."""

    def __init__(
        self, now: Callable[[], float], tell: Callable[[str, PathProbe, Carried], None]
    ) -> None:
        self._now, self._tell = now, tell
        self._paths: dict[str, _Path] = {}
        self._ticks = 0

    def add(self, link: OriginLink) -> None:
        """Measure the path to an origin, by its sessions until it offers probes."""
        self.remove(link.origin)
        self._paths[link.origin] = _Path(link, self._now())

    def remove(self, origin: str) -> None:
        """An origin is gone."""
        path = self._paths.pop(origin, None)
        if path is not None:
            path.close()

    def offered(self, origin: str, sock: socket.socket, offer: ProbesOffered) -> None:
        """Probe where this socket is connected to, by that key, from now on."""
        path = self._paths.get(origin)
        if path is None:
            return
        path.close()
        try:
            host, _, *scope = sock.getpeername()
            path.sock = connect_datagrams((host, offer.port, *scope))
            mark_datagrams(path.sock, DSCP[PriorityClass.PARTNER])
        except OSError as error:  # The session is being lost, or there is no route for UDP.
            path.close()
            logger.warning("origin cannot be probed", origin=origin, reason=str(error))
            return
        path.asker = ProbeAsker(ProbeKey(offer.key_id, offer.key))

    async def run(self) -> None:
        """Probe and measure until cancelled."""
        due = self._now()
        try:
            while True:
                due = max(due + INTERVAL_S, self._now())
                await trio.sleep_until(due)
                now = self._now()
                self.tick(now, late_s=now - due)
        except trio.Cancelled:  # Else it is begun anew, and goes on with them.
            for path in self._paths.values():
                path.close()
            raise

    def tick(self, now: float, *, late_s: float = 0.0) -> None:
        """Read, judge, ask."""
        self._ticks += 1
        for path in list(self._paths.values()):
            with contained(logger, "path not measured", origin=path.link.origin):
                self._measure(path, now, late=late_s >= LATE_S_MAX)

    def _measure(self, path: _Path, now: float, *, late: bool) -> None:
        self._read(path, now)
        if self._ticks % TICKS_PER_SAMPLE == 0:
            self._sample(path, now)
        control = path.link.sessions.get(None)
        silence_s = math.inf if control is None else control.link.statistics(now).silence_s
        path.meter.note_silence(silence_s)
        if not late:
            self._judge(path, now)
        self._ask(path, now)

    def _read(self, path: _Path, now: float) -> None:
        if path.sock is None or path.asker is None:
            return
        for _ in range(READS_PER_TICK_MAX):
            try:
                datagram = receive(path.sock)
            except OSError:
                continue  # Nobody there: that probe is not answered.
            if datagram is None:
                break
            answered = path.asker.receive_datagram(datagram.data, now, waited_s=datagram.waited_s)
            if answered is not None:
                path.meter.answered(answered.asked_at, answered.rtt_s, now)
        for asked_at in path.asker.take_lost(now):
            path.meter.lost(asked_at)

    def _sample(self, path: _Path, now: float) -> None:
        sockets = [session.connection.sock for session in path.link.sessions.values()]
        found = [info for sock in sockets if (info := read_tcp_info(sock)) is not None]
        sessions = [
            SessionCounts(
                rtt_s=info.rtt_s,
                segments=info.segments,
                resent=info.resent,
                delivery_bps=info.delivery_bps if info.segments else 0.0,
                unsent_bytes=info.unsent_bytes,
                receiver_limited_s=info.receiver_limited_s,
            )
            for info in found
        ]
        path.meter.note_sessions(add_up(sessions), now, sessions=len(sessions))
        statistics = path.link.statistics()
        before = path.counted
        path.counted = (now, statistics.sent_bytes, statistics.received_bytes)
        seconds = now - before[0]
        if seconds > 0:
            newest = [
                8e-6 * max(0, after - was) / seconds
                for after, was in zip(path.counted[1:], before[1:], strict=True)
            ]
            to, back = (
                known + RATE_SMOOTHING * (mbps - known)
                for known, mbps in zip(path.carried, newest, strict=True)
            )
            path.carried = (to, back)

    def _judge(self, path: _Path, now: float) -> None:
        measured = path.meter.measure(now)
        filtered = path.meter.filtered and path.asker is not None
        if filtered and not path.said_filtered:
            logger.warning(
                "probes do not come back; TCP alone tells of the path",
                origin=path.link.origin,
                hint="is UDP let through to the port of the origin's backbone?",
            )
        elif path.said_filtered and not filtered:
            logger.info("probes come back", origin=path.link.origin)
        path.said_filtered = filtered
        if measured is not None:
            self._tell(path.link.origin, measured, path.carried)

    def _ask(self, path: _Path, now: float) -> None:
        if path.sock is None or path.asker is None:
            return
        question = path.asker.ask(now)
        path.meter.asked(now)
        with contextlib.suppress(OSError):  # Of a probe before, or no way there: it is lost.
            path.sock.send(question)
