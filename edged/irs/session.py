"""The Trio shell around one IRS session, at either end: two tasks, one core, one reason."""

import math
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import structlog
import trio

from edged.errors import EdgedError, PeerLostError, RemoteProtocolError
from edged.runtime.dscp import CS6, mark
from edged.runtime.listeners import parse_address
from edged.runtime.tls import Identity, peer_identity
from edged.wire.irs_link import SILENCE_S_MAX, PeerLost

RECEIVE_BYTES = 64 * 1024
STALL_S_MAX = 1.0
assert STALL_S_MAX < SILENCE_S_MAX, "a stall of ours must not look like silence of theirs"
HANDSHAKE_S_MAX = 5.0
RECONNECT_S_MIN = 0.05
JITTER_MIN, JITTER_MAX = 0.5, 1.5  # Of each delay, so that a network does not knock all at once.
STEADY_S = 5.0  # A session that lasted so long makes the next reconnect quick again.
GOODBYE_S_MAX = 0.5  # For the peer to read why, before the close may reset what is in flight.

log = structlog.get_logger("edged.irs.session")

E_co = TypeVar("E_co", covariant=True)


class Link(Protocol[E_co]):
    """What the shell needs of a core."""

    def receive_data(self, data: bytes, now: float) -> Sequence[E_co]:
        """Take what arrived."""

    def data_to_send(self) -> bytes:
        """Take what is to be sent."""

    def next_timeout(self) -> float:
        """When time alone will matter."""

    def handle_timeout(self, now: float) -> Sequence[E_co]:
        """Let it matter."""


class Driver:
    """Runs one core on one stream. `handle` is synchronous; an error from it ends the session.

    `goodbye`, if given, lets the core tell the peer why we end the session.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        link: Link[object],
        handle: Callable[[object], None],
        *,
        goodbye: Callable[[str, float], None] | None = None,
    ) -> None:
        self._stream = stream
        self._link = link
        self._handle = handle
        self._goodbye = goodbye
        self._wake = trio.Event()
        self._unsent = b""  # Of the core, collected by who reads.
        self._timer_at = -math.inf  # While we wait: when time will matter, as far as we know.
        self._ending: str | None = None
        self._peer_closed = trio.Event()

    def wake(self) -> None:
        """Say that the core has something to send."""
        self._wake.set()

    def end(self, reason: str) -> None:
        """End the session after what is queued has been sent."""
        if self._ending is None:
            self._ending = reason
            if self._goodbye is not None and not self._peer_closed.is_set():
                self._goodbye(reason, trio.current_time())
        self._wake.set()

    async def run(self) -> str:
        """Drive until the session is over, close the stream, return why it ended."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive)
                await self._send()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):  # Forceful: closes the socket, sends nothing.
                await trio.aclose_forcefully(self._stream)
        assert self._ending is not None, "the sender stops only at an end"
        return self._ending

    async def _receive(self) -> None:
        while True:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                data = b""
                why = f"connection lost: {error.__cause__ or error or type(error).__name__}"
            else:
                why = "closed by the peer"
            if not data:
                self._peer_closed.set()
                self.end(why)
                return
            if self._ending is None:  # Else only read on, so that our goodbye is not reset.
                now = trio.current_time()
                self._run_core(partial(self._link.receive_data, bytes(data), now))
                self._unsent += self._link.data_to_send()
                # Most of what is heard is no reason to speak, and puts off what time will do.
                if self._unsent or self._link.next_timeout() < self._timer_at:
                    self._wake.set()

    async def _send(self) -> None:
        while True:
            data, self._unsent = self._unsent + self._link.data_to_send(), b""
            if data:
                if not await self._send_all(data):
                    return
            elif self._ending is not None:
                if self._goodbye is not None:
                    with trio.move_on_after(GOODBYE_S_MAX):
                        await self._peer_closed.wait()
                return
            else:
                await self._wait()

    async def _send_all(self, data: bytes) -> bool:
        try:
            with trio.fail_after(STALL_S_MAX):
                await self._stream.send_all(data)
        except trio.TooSlowError:
            self._ending = self._ending or f"the peer took no data for {STALL_S_MAX:g} s"
            return False
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._ending = self._ending or f"connection lost: {error.__cause__ or error}"
            return False
        return True

    async def _wait(self) -> None:
        self._timer_at = self._link.next_timeout()
        with trio.move_on_at(self._timer_at) as timer:
            await self._wake.wait()
        self._timer_at = -math.inf
        self._wake = trio.Event()
        if not timer.cancelled_caught:
            return
        await drain_readable()
        now = trio.current_time()
        if self._ending is None and now >= self._link.next_timeout():
            self._run_core(partial(self._link.handle_timeout, now))

    def _run_core(self, step: Callable[[], Sequence[object]]) -> None:
        try:
            for event in step():
                if isinstance(event, PeerLost):
                    raise PeerLostError(event.reason)  # noqa: TRY301 - as a handler would
                self._handle(event)
        except EdgedError as error:
            self.end(str(error))
        except Exception as error:  # A bug that this peer's message meets ends this session only.
            log.exception("irs session failed")
            self.end(f"internal error: {type(error).__name__}")


async def drain_readable() -> None:
    """Let every task that has something to read read it, before time is allowed to matter."""
    await trio.lowlevel.checkpoint()  # The kernel is asked what is readable,
    await trio.lowlevel.checkpoint()  # and who waits for it has run.


async def keep_session(
    address: str,
    run_session: Callable[[str], Awaitable[str]],
    *,
    rng: random.Random,
    reconnect_s_max: Callable[[], float],
) -> None:
    """Keep a session up for ever, with backoff and jitter.

    `run_session(address)` returns, or raises as an EdgedError, why it ended. The log says each
    reason once, however often the attempts fail.
    """
    delay_s = RECONNECT_S_MIN
    said = ""
    while True:
        began = trio.current_time()
        try:
            reason = await run_session(address)
        except EdgedError as error:
            reason = str(error)
        lasted_s = trio.current_time() - began
        if reason != said or lasted_s >= STEADY_S:
            log.warning(
                "irs session ended", irs=address, reason=reason, lasted_s=round(lasted_s, 1)
            )
            said = reason
        if lasted_s >= STEADY_S:
            delay_s = RECONNECT_S_MIN
        await trio.sleep(delay_s * (JITTER_MIN + (JITTER_MAX - JITTER_MIN) * rng.random()))
        delay_s = min(2 * delay_s, reconnect_s_max())


async def connect(
    address: str,
    tls: ssl.SSLContext | None,
    *,
    role: str,
    timeout_s: float,
    marks: bool = True,
) -> trio.abc.Stream:
    """Connect to a peer that must have `role`; raises PeerLostError or ConfigError.

    `marks`: the socket gets the DSCP of control.
    """
    host, port = parse_address(address)
    try:
        with trio.fail_after(timeout_s):
            stream = await trio.open_tcp_stream(host, port)
            if marks:
                mark(stream.socket, CS6)
            if tls is None:
                return stream
            try:
                secure, identity = await shake_hands(stream, tls, server_side=False)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
    except trio.TooSlowError:
        raise PeerLostError(f"cannot connect to {address}: no answer in {timeout_s:g} s") from None
    except OSError as error:
        raise PeerLostError(f"cannot connect to {address}: {error.strerror or error}") from error
    except (trio.BrokenResourceError, RemoteProtocolError) as error:
        reason = error.__cause__ or error
        raise PeerLostError(f"cannot connect to {address}: {reason}") from error
    if identity.role != role:
        await trio.aclose_forcefully(secure)
        raise PeerLostError(f"cannot connect to {address}: it is {identity}, no {role}")
    return secure


async def shake_hands(
    stream: trio.SocketStream, tls: ssl.SSLContext, *, server_side: bool
) -> tuple[trio.SSLStream[trio.SocketStream], Identity]:
    """Make a stream secure and say who is at the other end."""
    secure = trio.SSLStream(stream, tls, server_side=server_side)
    await secure.do_handshake()
    return secure, peer_identity(secure)
