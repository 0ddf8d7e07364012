"""The origin's end of path probes: a UDP socket beside the backbone's listener, a key per session.

It is read every ANSWER_INTERVAL_S at most; how long a probe waited for that is told with the
answer. Without the socket PoPs do with what TCP tells.
"""

import secrets
import socket
from collections.abc import Callable

import structlog
import trio

from edged.backbone.session import DSCP, BackboneSession
from edged.errors import ConfigError
from edged.media.stream import PriorityClass
from edged.runtime.datagrams import answer, bind_datagrams, mark_datagrams, receive
from edged.runtime.listeners import parse_address
from edged.wire.backbone.messages import FEATURE_PROBES, ProbesOffered
from edged.wire.probe import ProbeAnswerer, ProbeAnswererStatistics, ProbeKey

ANSWER_INTERVAL_S = 0.01
READS_PER_TURN_MAX = 64  # 6,400 per second: a thousand PoP shards. A flood costs no more.

logger = structlog.get_logger("edged.backbone")


class ProbeAnswers:
    """Offers keys to PoPs' control sessions and answers what bears one."""

    def __init__(
        self,
        port: int | None,
        now: Callable[[], float],
        *,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """`port`: None is that of the backbone's listener, 0 is none at all."""
        self._port, self._now = port, now
        self._answerer = ProbeAnswerer(entropy)
        self._bound_port: int | None = None
        self._sessions: dict[BackboneSession, ProbeKey | None] = {}  # Control, of who knows it.

    async def run(self, address: str) -> None:
        """Answer until cancelled, where the backbone listens ("127.0.0.1:7410")."""
        if self._port == 0:
            return
        host, port = parse_address(address)
        port = self._port or port
        try:
            sock = bind_datagrams(host, port)
        except ConfigError as error:
            logger.warning("probes are not answered", reason=str(error))
            return
        with sock:
            try:  # As partners' media: what they meet is the least that streams meet.
                mark_datagrams(sock, DSCP[PriorityClass.PARTNER])
            except OSError as error:
                logger.debug("probes are not marked", reason=str(error))
            self._bound_port = port
            for session in list(self._sessions):
                self._offer(session)
            try:
                while True:
                    await trio.lowlevel.wait_readable(sock)
                    self._answer(sock)
                    await trio.sleep(ANSWER_INTERVAL_S)
            finally:
                self._bound_port = None

    def session_accepted(self, session: BackboneSession) -> None:
        """A PoP's control session stands: it may probe us, if it knows how."""
        if FEATURE_PROBES in session.peer.features:
            self._sessions[session] = None
            if self._bound_port is not None:
                self._offer(session)

    def session_lost(self, session: BackboneSession) -> None:
        """Its key ends with it."""
        key = self._sessions.pop(session, None)
        if key is not None:
            self._answerer.forget(key)

    def statistics(self) -> ProbeAnswererStatistics:
        """Counters since the start."""
        return self._answerer.statistics()

    def _offer(self, session: BackboneSession) -> None:
        assert self._bound_port is not None, "it is bound"
        if (known := self._sessions[session]) is not None:
            self._answerer.forget(known)  # It begins to count anew.
        key = self._sessions[session] = self._answerer.admit(self._now())
        if key is not None:
            session.send(ProbesOffered(self._bound_port, key.key_id, key.key))

    def _answer(self, sock: socket.socket) -> None:
        for _ in range(READS_PER_TURN_MAX):
            try:
                datagram = receive(sock)
            except OSError:
                continue  # An answer that reached nobody.
            if datagram is None:
                return
            data = self._answerer.receive_datagram(
                datagram.data, self._now(), waited_s=datagram.waited_s
            )
            if data is not None:
                answer(sock, datagram, data)
