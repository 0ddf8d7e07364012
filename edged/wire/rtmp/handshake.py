"""The RTMP handshake, plain and with digests, both sides.

C0 and S0 are the version, 3. C1, S1, C2, S2 are 1536 bytes: u32 time, then in the plain form u32
zero and random bytes (Adobe RTMP 1.0 §5.2), in the digest form a u32 version and random bytes with
an HMAC-SHA256 of the rest at a place named by four bytes inside. Scheme 0 names it at byte 772,
scheme 1 at byte 8. The answer to a digest (C2, S2) ends in an HMAC keyed by that digest.
"""

import enum
import hashlib
import hmac
from collections.abc import Callable

from msgspec import Struct

from edged.errors import RemoteProtocolError

VERSION = 3
PACKET_BYTES = 1536
DIGEST_BYTES = 32
_DIGEST_AT_MODULUS = 728
_SCHEME_BASES = (772, 8)  # Where scheme 0 and scheme 1 name the digest's place.
_SALT = bytes.fromhex("f0eec24a8068bee82e00d0d1029e7e576eec5d2d29806fab93b8e636cfeb31ae")
_CLIENT_TEXT = b"Genuine Adobe Flash Player 001"
_SERVER_TEXT = b"Genuine Adobe Flash Media Server 001"
_SERVER_VERSION = bytes((5, 0, 3, 1))
_CLIENT_VERSION = bytes((9, 0, 124, 2))

Entropy = Callable[[int], bytes]


class Stage(enum.IntEnum):
    """What a side still waits for."""

    FIRST = 0  # Version and first packet.
    SECOND = 1  # The peer's answer to our first packet.
    DONE = 2


class HandshakeState(Struct):
    """All of a server's handshake."""

    stage: Stage = Stage.FIRST
    inbox: bytearray = bytearray()


class ServerHandshake:
    """The accepting side: answers in the form in which the client asks."""

    def __init__(self, now: float, entropy: Entropy, state: HandshakeState | None = None) -> None:
        self._time = int(now * 1000) & 0xFFFFFFFF
        self._entropy = entropy
        self.state = state if state is not None else HandshakeState(inbox=bytearray())

    def receive_data(self, data: bytes | memoryview) -> tuple[bytes, bytes | memoryview]:
        """What to send, and what of `data` lies behind the handshake (when it is done).

        Raises RemoteProtocolError for another version (RTMPE, HTTP, garbage).
        """
        state = self.state
        answer = b""
        if state.stage is Stage.FIRST:
            data = _fill(state.inbox, data, 1 + PACKET_BYTES)
            _check_version(state.inbox)
            if len(state.inbox) < 1 + PACKET_BYTES:
                return b"", b""
            answer = self._answer(bytes(state.inbox[1:]))
            state.inbox.clear()
            state.stage = Stage.SECOND
        if state.stage is Stage.SECOND:
            data = _fill(state.inbox, data, PACKET_BYTES)
            if len(state.inbox) == PACKET_BYTES:
                # C2 is not verified: real encoders echo carelessly, and nothing rests on it.
                state.inbox.clear()
                state.stage = Stage.DONE
        return answer, data

    def _answer(self, c1: bytes) -> bytes:
        time = self._time.to_bytes(4, "big")
        found = _find_digest(c1, _CLIENT_TEXT)
        if found is None:
            s1 = time + bytes(4) + self._entropy(PACKET_BYTES - 8)
            s2 = c1[:4] + time + c1[8:]  # §5.2.4: the echo, with when we read it.
        else:
            scheme, digest = found
            s1 = time + _SERVER_VERSION + self._entropy(PACKET_BYTES - 8)
            s1 = _sign(s1, _SERVER_TEXT, scheme)
            s2 = _answer_digest(self._entropy, digest, _SERVER_TEXT)
        return bytes([VERSION]) + s1 + s2


class ClientHandshake:
    """The connecting side. `scheme` None is plain, as OBS sends it; 0 or 1 with a digest."""

    def __init__(self, now: float, entropy: Entropy, scheme: int | None = None) -> None:
        time = (int(now * 1000) & 0xFFFFFFFF).to_bytes(4, "big")
        random = entropy(PACKET_BYTES - 8)
        if scheme is None:
            self._c1 = time + bytes(4) + random
        else:
            self._c1 = _sign(time + _CLIENT_VERSION + random, _CLIENT_TEXT, scheme)
        self._scheme = scheme
        self._entropy = entropy
        self._inbox = bytearray()
        self.done = False

    def first(self) -> bytes:
        """C0 and C1."""
        return bytes([VERSION]) + self._c1

    def receive_data(self, data: bytes | memoryview) -> tuple[bytes, bytes | memoryview]:
        """What to send, and what of `data` lies behind the handshake (when it is done)."""
        data = _fill(self._inbox, data, 1 + 2 * PACKET_BYTES)
        _check_version(self._inbox)
        if len(self._inbox) < 1 + 2 * PACKET_BYTES:
            return b"", b""
        s1 = bytes(self._inbox[1 : 1 + PACKET_BYTES])
        s2 = bytes(self._inbox[1 + PACKET_BYTES :])
        self._inbox.clear()
        self.done = True
        found = _find_digest(s1, _SERVER_TEXT) if self._scheme is not None else None
        if found is None:
            return s1, data
        ours = _find_digest(self._c1, _CLIENT_TEXT)
        assert ours is not None, "C1 was signed"
        if not hmac.compare_digest(_answer_tag(s2, ours[1], _SERVER_TEXT), s2[-DIGEST_BYTES:]):
            raise RemoteProtocolError("the server's answer to our handshake digest is wrong")
        return _answer_digest(self._entropy, found[1], _CLIENT_TEXT), data


def _fill(inbox: bytearray, data: bytes | memoryview, size: int) -> bytes | memoryview:
    """Move up to `size` bytes in all into the inbox; what is left over."""
    missing = size - len(inbox)
    inbox += data[:missing]
    return data[missing:]


def _check_version(inbox: bytearray) -> None:
    if inbox and inbox[0] != VERSION:
        raise RemoteProtocolError(f"rtmp version is {inbox[0]}, not {VERSION}")


def _digest_at(packet: bytes, scheme: int) -> int:
    base = _SCHEME_BASES[scheme]
    return sum(packet[base : base + 4]) % _DIGEST_AT_MODULUS + base + 4


def _digest(packet: bytes, at: int, text: bytes) -> bytes:
    return hmac.digest(text, packet[:at] + packet[at + DIGEST_BYTES :], hashlib.sha256)


def _sign(packet: bytes, text: bytes, scheme: int) -> bytes:
    at = _digest_at(packet, scheme)
    return packet[:at] + _digest(packet, at, text) + packet[at + DIGEST_BYTES :]


def _find_digest(packet: bytes, text: bytes) -> tuple[int, bytes] | None:
    """The scheme and digest of a signed first packet; None when it is a plain one."""
    if packet[4:8] == bytes(4):
        return None
    for scheme in range(len(_SCHEME_BASES)):
        at = _digest_at(packet, scheme)
        digest = packet[at : at + DIGEST_BYTES]
        if hmac.compare_digest(digest, _digest(packet, at, text)):
            return scheme, digest
    return None


def _answer_tag(packet: bytes, digest: bytes, text: bytes) -> bytes:
    key = hmac.digest(text + _SALT, digest, hashlib.sha256)
    return hmac.digest(key, packet[:-DIGEST_BYTES], hashlib.sha256)


def _answer_digest(entropy: Entropy, digest: bytes, text: bytes) -> bytes:
    packet = entropy(PACKET_BYTES)
    return packet[:-DIGEST_BYTES] + _answer_tag(packet, digest, text)
