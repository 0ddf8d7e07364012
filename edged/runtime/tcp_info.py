"""What the kernel knows of a TCP connection: TCP_INFO, as in linux/tcp.h.

    offset 68 u32 tcpi_rtt (us)        100 u32 tcpi_total_retrans   144 u32 tcpi_notsent_bytes
    156 u32 tcpi_data_segs_out         160 u64 tcpi_delivery_rate (bytes/s)
    176 u64 tcpi_rwnd_limited (us)

All of these are there since Linux 4.10. Integers are in the host's order.
"""

import socket
import struct

from msgspec import Struct

_BYTES = 184
_FIELDS = struct.Struct("=68xI28xI40xI8xIQ8xQ")

assert _FIELDS.size == _BYTES, "the layout above"


class TcpInfo(Struct, frozen=True, kw_only=True):
    """Counters are since the connection began."""

    rtt_s: float  # Smoothed.
    segments: int  # With data, sent; those sent again too.
    resent: int
    delivery_bps: float  # As it was measured lately.
    unsent_bytes: int  # Queued in the kernel, not in flight.
    receiver_limited_s: float  # So long the peer's window was shut.


def read_tcp_info(sock: socket.socket) -> TcpInfo | None:
    """Ask the kernel; None where it is no TCP, or knows less."""
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES)
    except OSError:
        return None
    if len(raw) < _BYTES:
        return None
    rtt_us, resent, unsent_bytes, segments, delivery, limited_us = _FIELDS.unpack(raw)
    return TcpInfo(
        rtt_s=rtt_us / 1e6,
        segments=segments,
        resent=resent,
        delivery_bps=8.0 * delivery,
        unsent_bytes=unsent_bytes,
        receiver_limited_s=limited_us / 1e6,
    )
