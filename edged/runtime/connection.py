"""A pumped connection: a non-blocking socket, plain or TLS, with its out queue and its timer.

All methods are synchronous. What is written leaves at the end of the pump's turn, all of it in as
few system calls as the kernel takes. The handler hears of its connection's end once, from the pump.
"""

import contextlib
import errno
import math
import os
import select
import socket
import ssl
from collections.abc import Callable, Sequence

import trio

from edged.errors import EdgedError
from edged.runtime.kernel_bytes import KernelBytes
from edged.runtime.pumped import MakeHandler, PumpClass, PumpHandler, PumpSide
from edged.runtime.standing import StandingAnswer, StandingAnswers
from edged.runtime.tls_calls import TLS_WRITE_BYTES, Buffer, encrypt, tls_calls

__all__ = ["Connection", "MakeHandler", "PumpClass", "PumpHandler", "PumpSide"]

IOV_MAX = 512  # Below the kernel's 1024: a batch this long already amortises the call.
OUT_LOW_BYTES = 64 * 1024  # At or below it a handler that waited may write again.
OUT_BYTES_MAX = 8 * 2**20  # A peer that leaves more unread is dropped; handlers set their own.
# Reads from one peer before the others' turn: a plain read may fill the pump's buffer (256 KiB: a
# tick of 300 Mbps), a TLS read gives one record (16 KiB). A backbone session carries hundreds of
# streams. A viewer's request is one record: to look for another costs as much as to take it.
READS_MAX = 1
READS_TLS_MAX = 8
READS_BACKBONE_MAX = 8
READS_BACKBONE_TLS_MAX = 64
CLOSE_LINGER_S = 5.0  # What is queued at close may take this long to leave.
# Then the peer is heard out, or our closing with its bytes unread would reset the connection and
# take from it what it has not read yet: why we close.
HEAR_OUT_S = 2.0
HEAR_OUT_BYTES_MAX = 4 * 2**20
AGAIN = (errno.EAGAIN, errno.EINTR)  # Nothing was moved, and nothing is wrong.
LOW_WATER_BYTES_MAX = 128 * 1024  # SO_RCVLOWAT beyond it would grow the kernel's buffer for little.


class Connection:
    """One socket in the pump."""

    __slots__ = (
        *("__weakref__", "_above_low", "_closing", "_dirty", "_established", "_low_water"),
        *("_make_handler", "_mask", "_out", "_out_bytes_max", "_reading", "_reads_max", "_encrypt"),
        *("_read", "_recv_into", "_send", "_sendmsg", "_setsockopt", "_unheard_bytes", "fd"),
        *("handler", "handshaking", "lost", "on_removed", "out_bytes", "peer", "pump"),
        *("pump_class", "received_bytes", "scheduled_at", "sent_bytes", "sock", "_short_is_all"),
        *("spoke", "ssl", "standing", "stood", "stood_at", "timeout_at", "waits_for_room"),
    )

    def __init__(
        self,
        pump: PumpSide,
        sock: socket.socket,
        make_handler: MakeHandler,
        pump_class: PumpClass,
        *,
        peer: str,
        out_bytes_max: int = OUT_BYTES_MAX,
    ) -> None:
        self.pump = pump
        self.sock = sock
        self.fd = sock.fileno()
        self.ssl = sock if isinstance(sock, ssl.SSLSocket) else None
        self.pump_class = pump_class
        self.peer = peer
        self.handshaking = self.ssl is not None
        self.waits_for_room = False  # The pump's: it watches for the socket to take more.
        self.lost: str | None = None
        self.handler: PumpHandler | None = None
        self.spoke = False  # The handler's: what its listener is for. It need not make room.
        # The handler's, while it is at rest: no request is in work, queued or half received.
        self.standing: StandingAnswers | None = None
        self.stood = 0  # What was answered so since the handler looked last,
        self.stood_at = -math.inf  # and when, last.
        self.received_bytes = 0
        self.sent_bytes = 0
        self.out_bytes = 0
        self.timeout_at = math.inf
        self.scheduled_at = math.inf  # The pump's: the earliest entry in its heap.
        self.on_removed: Callable[[], None] | None = None  # The listener's: a place is free again.
        self._established: trio.Event | None = None
        self._make_handler = make_handler
        self._out: list[Buffer] = []
        self._out_bytes_max = out_bytes_max
        self._above_low, self._reading = False, True
        self._mask = select.EPOLLIN
        self._low_water = 1
        self._recv_into = sock.recv_into  # Bound once: this is called for every batch of bytes,
        self._read, self._encrypt = tls_calls(sock)  # or these,
        self._setsockopt = sock.setsockopt  # and so is this,
        self._send, self._sendmsg = sock.send, sock.sendmsg  # and, for many viewers, these.
        if pump_class is PumpClass.BACKBONE:
            self._reads_max = READS_BACKBONE_MAX if self.ssl is None else READS_BACKBONE_TLS_MAX
        else:
            is_publisher = pump_class is PumpClass.PUBLISHER
            self._reads_max = READS_TLS_MAX if is_publisher and self.ssl is not None else READS_MAX
        # After a short read nothing is left: under TLS a record is read by itself.
        self._short_is_all = self.ssl is None or self._reads_max == READS_MAX
        self._closing: str | None = None
        self._unheard_bytes: int | None = None  # Once our side is shut: what we still hear out.
        self._dirty = False

    # What handlers call.

    @property
    def ended(self) -> bool:
        """Whether it is `lost`, as is to be asked anew after a call."""
        return self.lost is not None

    @property
    def clear(self) -> bool:
        """Whether bytes may go straight to its socket: it is plain, and nothing waits or ends."""
        return not (self._out or self.ssl is not None or self.lost is not None or self._closing)

    def write(self, data: Buffer) -> None:
        """Queue bytes; they leave at the end of this turn of the pump."""
        if self.lost is not None or self._closing is not None or not data:
            return
        self._out.append(data)
        self._queued(len(data))

    def write_many(self, chunks: Sequence[Buffer]) -> None:
        """Queue shared bytes without copying them."""
        if self.lost is not None or self._closing is not None:
            return
        self._out.extend(chunk for chunk in chunks if chunk)
        self._queued(sum(map(len, chunks)))

    def send(self, chunks: Sequence[Buffer]) -> None:
        """Send now what the kernel takes and queue the rest; what waits goes first."""
        if self._out or self.lost is not None or self._closing is not None or self.handshaking:
            self.write_many(chunks)
            return
        try:
            if self._encrypt is not None:  # Encrypting is most of it: the caller's time.
                count = encrypt(self._encrypt, chunks)
            elif len(chunks) == 1:
                count = self._send(data := chunks[0])
                if count == len(data):
                    self.sent_bytes += count
                    return
            else:
                count = self._sendmsg(chunks)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            count = 0
        except OSError as error:
            self.abort(f"connection failed: {error.strerror or error}")
            return
        self.note_sent(count, chunks)

    def send_held(self, held: KernelBytes) -> None:
        """As `send`, of bytes that the kernel has already; under TLS it is `send`."""
        if self._out or self.ssl is not None or self.lost is not None or self._closing is not None:
            self.send(held.chunks)
            return
        try:
            count = os.sendfile(self.fd, held.fd, 0, held.size)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self.abort(f"connection failed: {error.strerror or error}")
            return
        if count == held.size:
            self.sent_bytes += count
        else:
            self.note_sent(count, held.chunks)

    def note_sent(self, count: int, chunks: Sequence[Buffer]) -> None:
        """Queue what the kernel did not take of these; it took so many bytes, or said -errno."""
        if count < 0:
            if -count not in AGAIN:
                self.abort(f"connection failed: {os.strerror(-count)}")
                return
            count = 0
        self.sent_bytes += count
        for chunk in chunks:
            if count >= len(chunk):
                count -= len(chunk)
            else:
                self.write(memoryview(chunk)[count:] if count else chunk)
                count = 0

    @property
    def at_rest(self) -> StandingAnswers | None:
        """What stands for it, if it may be served with that, and not by its handler."""
        if self.lost is not None or self.handshaking or self.ssl is not None or self.out_bytes:
            return None
        return self.standing

    def note_stood(self, answer: StandingAnswer, received: int, sent: int, now: float) -> None:
        """It was sent so much of what stands for its bytes; the handler hears of it by `stood`."""
        answer.times += 1
        self.received_bytes += received
        self.sent_bytes += sent
        self.stood += 1
        self.stood_at = now

    def send_standing(self, answer: StandingAnswer, now: float) -> None:
        """As `send` and `send_held`, of what stands."""
        self.note_stood(answer, 0, 0, now)
        if answer.held is not None:
            self.send_held(answer.held)
        else:
            self.send(answer.chunks)

    def pause_reading(self) -> None:
        """Leave the peer's bytes in the kernel: TCP's own backpressure."""
        if self._reading:
            self._reading = False
            self._watch(self._mask & ~select.EPOLLIN)

    def resume_reading(self) -> None:
        """Read again, first what TLS has already decrypted."""
        if not self._reading and self.lost is None and self._closing is None:
            self._reading = True
            self._watch(self._mask | select.EPOLLIN)
            if self.ssl is not None:
                self.pump.mark_readable(self)

    def set_timeout(self, at: float) -> None:
        """Call the handler's `handle_timeout` at that monotonic time; `math.inf` for never."""
        if self._closing is None:
            self._set_timer(at)

    def set_receive_low_water(self, wanted: int) -> None:
        """Ask to be woken only when that many bytes are there (SO_RCVLOWAT; plain TCP only)."""
        wanted = max(wanted, 1) if wanted < LOW_WATER_BYTES_MAX else LOW_WATER_BYTES_MAX
        if wanted != self._low_water and self.ssl is None and self.lost is None:
            self._low_water = wanted
            try:  # noqa: SIM105 - hot, and a context manager costs as much as the call
                self._setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
            except OSError:  # The peer is gone, which the next read tells.
                pass

    def close(self, reason: str) -> None:
        """End the connection when what is queued has left, or after CLOSE_LINGER_S.

        The peer gets HEAR_OUT_S to close its side.
        """
        if self.lost is not None or self._closing is not None:
            return
        if not self._out or self.handshaking:
            self.abort(reason)
            return
        self.pause_reading()
        self.standing = None  # Nothing more is answered.
        self.set_timeout(self.pump.now() + CLOSE_LINGER_S)
        self._closing = reason

    def abort(self, reason: str) -> None:
        """End the connection now; the handler hears of it at the end of the turn."""
        if self.lost is None:
            self.lost = self._closing or reason
            self._out.clear()
            self.out_bytes = 0
            self.pump.mark_lost(self)

    async def wait_established(self) -> None:
        """Wait until the handler was made, or the connection was lost on the way there."""
        if self.handler is None and self.lost is None:
            self._established = trio.Event()
            await self._established.wait()
        else:
            await trio.lowlevel.checkpoint()

    # What the pump calls.

    def begin(self) -> None:
        """Make the handler: the connection can carry its bytes now."""
        try:
            self.handler = self._make_handler(self)
        except EdgedError as error:
            self.abort(str(error))
        if self._established is not None:
            self._established.set()

    def removed(self) -> None:
        """Tell who waits: the pump no longer has this connection."""
        self.sock.close()
        if self._established is not None:
            self._established.set()
        # Those who are told have this: without letting go of them it would wait for the collector.
        on_removed, self.on_removed = self.on_removed, None
        handler, self.handler = self.handler, None
        if on_removed is not None:
            on_removed()
        if handler is not None:
            handler.connection_lost(self.lost or "closed")

    def take_readable(self, buffer: memoryview, now: float) -> None:
        """Read once (a publisher's a few times under TLS) and feed the handler."""
        handler = self.handler
        if not self._reading or handler is None:
            if self._unheard_bytes is not None:
                self._hear_out(buffer)
            return
        size, tls, recv_into, read = len(buffer), self.ssl, self._recv_into, self._read
        for _ in range(self._reads_max):
            try:
                count = recv_into(buffer) if read is None else read(size, buffer)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except ssl.SSLEOFError:
                count = 0
            except OSError as error:
                self.abort(f"connection failed: {error.strerror or error}")
                return
            if count == 0:
                self._peer_closed()
                return
            self.received_bytes += count
            handler.data_received(buffer[:count], now)
            if (count < size and self._short_is_all) or not self._reading or self.ended:
                return
        # It may hold decrypted bytes that no event will announce.
        if tls is not None and (not self._short_is_all or tls.pending()):
            self.pump.mark_readable(self)

    def take_read(self, buffer: memoryview, count: int, now: float) -> None:
        """Take what was read for this one (plain, and reading): so many bytes, or -errno."""
        if count > 0:
            self.received_bytes += count
            assert self.handler is not None, "it is at rest"
            self.handler.data_received(buffer[:count], now)
        elif not count:
            self._peer_closed()
        elif -count not in AGAIN:
            self.abort(f"connection failed: {os.strerror(-count)}")

    def take_handshake(self) -> None:
        """Go on with the TLS handshake as far as the socket allows."""
        assert self.ssl is not None
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(select.EPOLLIN)
        except ssl.SSLWantWriteError:
            self._watch(select.EPOLLOUT)
        except OSError as error:
            self.abort(f"TLS handshake failed: {getattr(error, 'reason', None) or error}")
        else:
            self.handshaking = False
            self.timeout_at = math.inf
            self._mask = select.EPOLLIN
            self.pump.established(self)
            self.begin()
            self.pump.mark_readable(self)
            self.pump.mark_dirty(self)

    def take_hangup(self) -> None:
        """Hear of an error or a full close while not reading."""
        if not self._reading:
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.abort(f"connection failed: errno {error}" if error else "closed by peer")

    def flush(self) -> None:
        """Send what is queued, as much as the kernel takes."""
        self._dirty = False
        if self.lost is not None or self.handshaking:
            return
        done = self._transmit()
        if self.ended:
            return
        if done and self._closing is not None:
            self._shut()
        elif self._above_low and self.out_bytes <= OUT_LOW_BYTES:
            self._above_low = False
            if self.handler is not None and self._closing is None:
                self.handler.drained()

    def run_timeout(self, now: float) -> None:
        """Pass the timer on to whom it belongs."""
        self.timeout_at = math.inf
        if self.handshaking:
            self.abort("TLS handshake took too long")
        elif self._closing is not None:
            self.abort(self._closing)
        elif self.handler is not None:
            self.handler.handle_timeout(now)

    def _set_timer(self, at: float) -> None:
        self.timeout_at = at
        if at < self.scheduled_at and self.lost is None:
            self.pump.schedule(self, at)

    def _peer_closed(self) -> None:
        """The peer says no more. A viewer may still be reading what it asked for."""
        if self.pump_class is PumpClass.VIEWER and self._out:
            self.close("closed by peer")
            self._unheard_bytes = 0
        else:
            self.abort("closed by peer")

    def _shut(self) -> None:
        """All that was queued has left: close our side, and hear the peer out."""
        assert self._closing is not None, "it was closed before"
        if self._unheard_bytes is not None:
            if not self._unheard_bytes:
                self.abort(self._closing)
            return
        self._unheard_bytes = HEAR_OUT_BYTES_MAX
        try:
            if self.ssl is not None:
                # It sends close_notify; that the peer's is not here yet is no error.
                with contextlib.suppress(ssl.SSLError, ValueError):
                    self.ssl.unwrap()
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort(self._closing)
            return
        self._set_timer(self.pump.now() + HEAR_OUT_S)
        self._watch(select.EPOLLIN)

    def _hear_out(self, buffer: memoryview) -> None:
        assert self._unheard_bytes is not None, "our side is shut"
        try:
            count = self._recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            count = 0
        self._unheard_bytes -= count
        if count == 0 or self._unheard_bytes <= 0:
            self.abort("closed")

    def _queued(self, count: int) -> None:
        self.out_bytes += count
        if self.out_bytes > OUT_LOW_BYTES:
            self._above_low = True
            if self.out_bytes > self._out_bytes_max:
                self.abort(f"peer reads too slowly: over {self._out_bytes_max} bytes are queued")
                return
        if not self._dirty:
            self._dirty = True
            self.pump.mark_dirty(self)

    def _transmit(self) -> bool:
        """Send what the socket takes, and watch for room for the rest; whether all has left."""
        try:
            done = self._send_tls() if self.ssl is not None else self._send_plain()
        except OSError as error:
            self.abort(f"connection failed: {error.strerror or error}")
            return False
        if done is bool(self._mask & select.EPOLLOUT):
            self._watch(self._mask & ~select.EPOLLOUT if done else self._mask | select.EPOLLOUT)
        return done

    def _send_plain(self) -> bool:
        out = self._out
        while out:
            batch = out if len(out) <= IOV_MAX else out[:IOV_MAX]
            try:
                count = self.sock.sendmsg(batch)
            except BlockingIOError:
                return False
            self._sent(count)
        return True

    def _send_tls(self) -> bool:
        out = self._out
        while out:
            size = index = 0
            while index < len(out) and size < TLS_WRITE_BYTES:
                size += len(out[index])
                index += 1
            data = out[0] if index == 1 else b"".join(out[:index])
            try:
                count = self.sock.send(data[:TLS_WRITE_BYTES])
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                return False
            self._sent(count)
        return True

    def _sent(self, count: int) -> None:
        self.sent_bytes += count
        self.out_bytes -= count
        out = self._out
        if not self.out_bytes:
            out.clear()
            return
        index = 0
        while count >= len(out[index]):
            count -= len(out[index])
            index += 1
        if index:
            del out[:index]
        if count:
            out[0] = memoryview(out[0])[count:]

    def _watch(self, mask: int) -> None:
        if mask != self._mask and self.lost is None:
            self._mask = mask
            self.pump.interest(self, mask)
