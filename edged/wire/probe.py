"""Path probes: a PoP asks, the origin echoes, and loss and round trip are what comes back.

One UDP datagram of 64 bytes each way, so nobody is sent more than they (or who took their address)
sent. The key is handed over on the control session (`messages.ProbesOffered`) and ends with it.
All integers are big-endian.

     0  4 bytes  "edgp"
     4  u8       1 question, 2 answer
     5  3 bytes  0
     8  u64      key id: of the session, below 2**63
    16  u64      seq, from 1 on; copied to the answer
    24  u32      answer: microseconds from the question's arrival to the answer; question: 0
    28  20 bytes 0, for what a newer peer may mean by them
    48  16 bytes MAC: BLAKE2b-128 (RFC 7693) of bytes 0 to 47 by the key of 32 bytes

What is malformed, forged, or came before is dropped without a word. The origin keeps a few numbers
per session: the newest seq, which of the 64 up to it came, and how many it may still answer.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable

from msgspec import Struct

DATAGRAM_BYTES = 64
KEY_BYTES = 32
KEY_ID_BYTES = 8
INTERVAL_S = 0.2  # 5 Hz.
LOST_S = 2.0  # Then no answer is awaited any more: far beyond any path of ours.
ASKED_MAX = 64  # Awaited at once: LOST_S at 5 Hz, with room for ticks that were late.
PEERS_MAX = 4096  # Keys at an origin: one per control session.
REPLAY_BITS = 64  # How far behind the newest a question may come and still be answered.
ANSWERS_PER_S = 10.0  # Of one key: twice the rate that is asked at.
ANSWERS_BURST = 20.0
SEQ_MAX = 2**64 - 1
HELD_S_MAX = 60.0  # Longer in a queue is no measurement.

_QUESTION, _ANSWER = 1, 2
_BODY = struct.Struct(">4sB3xQQI20x")
_MAGIC = b"edgp"
_BODY_BYTES = _BODY.size
_MAC_BYTES = DATAGRAM_BYTES - _BODY_BYTES

assert _BODY_BYTES + 16 == DATAGRAM_BYTES, "the layout above"


class ProbeKey(Struct, frozen=True):
    """What a PoP probes one origin with, as long as their control session lasts."""

    key_id: int
    key: bytes


class ProbeAnswered(Struct, frozen=True):
    """An answer came, for the first time. `rtt_s` is None when a clock jumped meanwhile."""

    asked_at: float
    rtt_s: float | None


class ProbeAsker:
    """A PoP's end of the probes to one origin."""

    def __init__(self, key: ProbeKey) -> None:
        self._key = key
        self._seq = 0
        self._asked: dict[int, float] = {}  # When, by seq; oldest first.
        self.ignored = 0  # Datagrams that were no answer to anything that is awaited.

    def ask(self, now: float) -> bytes:
        """Make the next question."""
        self._seq += 1
        self._asked[self._seq] = now
        return _make(self._key, _QUESTION, self._seq, 0)

    def receive_datagram(
        self, data: bytes, now: float, *, waited_s: float = 0.0
    ) -> ProbeAnswered | None:
        """Take a datagram that has waited for us so long; None: it tells nothing."""
        parsed = _parse(data, _ANSWER)
        if parsed is None or parsed[0] != self._key.key_id or not _is_genuine(data, self._key.key):
            self.ignored += 1
            return None
        _, seq, held_us = parsed
        asked_at = self._asked.pop(seq, None)
        if asked_at is None:  # It came before, or too late.
            self.ignored += 1
            return None
        rtt_s = now - waited_s - asked_at - held_us / 1e6
        return ProbeAnswered(asked_at, rtt_s if 0 <= rtt_s <= LOST_S + HELD_S_MAX else None)

    def take_lost(self, now: float) -> list[float]:
        """When those were asked that are not awaited any more."""
        lost = []
        while self._asked:
            seq, asked_at = next(iter(self._asked.items()))
            if now - asked_at < LOST_S and len(self._asked) <= ASKED_MAX:
                break
            del self._asked[seq]
            lost.append(asked_at)
        return lost


class _Peer:
    """One key at the origin."""

    __slots__ = ("allowed", "allowed_at", "key", "newest", "seen")

    def __init__(self, key: ProbeKey, now: float) -> None:
        self.key = key
        self.newest = 0
        self.seen = 0  # Bit n: the question `newest` - n has come.
        self.allowed = ANSWERS_BURST
        self.allowed_at = now

    def is_new(self, seq: int) -> bool:
        """Whether a question has not come yet, nor is too old to tell; from now on it has."""
        ahead = seq - self.newest
        if ahead > 0:
            self.seen = (self.seen << min(ahead, REPLAY_BITS) | 1) & ((1 << REPLAY_BITS) - 1)
            self.newest = seq
            return True
        bit = 1 << -ahead if -ahead < REPLAY_BITS else 0
        if not bit or self.seen & bit or not seq:
            return False
        self.seen |= bit
        return True

    def may_answer(self, now: float) -> bool:
        """Whether there is an answer left for it; it is taken."""
        gained = max(0.0, now - self.allowed_at) * ANSWERS_PER_S
        self.allowed, self.allowed_at = min(ANSWERS_BURST, self.allowed + gained), now
        if self.allowed < 1:
            return False
        self.allowed -= 1
        return True


class ProbeAnswererStatistics(Struct, frozen=True, kw_only=True):
    """Counters since the start."""

    keys: int
    answered: int
    ignored: int  # Malformed, forged, of no key, or come before.
    limited: int  # Genuine, but more than ANSWERS_PER_S.


class ProbeAnswerer:
    """An origin's end: gives out keys, and echoes what bears one."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._peers: dict[int, _Peer] = {}
        self._answered = self._ignored = self._limited = 0

    def admit(self, now: float) -> ProbeKey | None:
        """Make a key for one more peer; None when there are PEERS_MAX."""
        if len(self._peers) >= PEERS_MAX:
            return None
        key_id = int.from_bytes(self._entropy(KEY_ID_BYTES), "big") >> 1  # What msgspec bounds.
        if key_id in self._peers:
            return None  # Chance of 2**-51; the peer does without.
        key = ProbeKey(key_id, self._entropy(KEY_BYTES))
        self._peers[key_id] = _Peer(key, now)
        return key

    def forget(self, key: ProbeKey) -> None:
        """The peer's session has ended, and its key with it."""
        self._peers.pop(key.key_id, None)

    def receive_datagram(self, data: bytes, now: float, *, waited_s: float = 0.0) -> bytes | None:
        """Take a datagram that has waited for us so long; the answer to it, if it gets one."""
        parsed = _parse(data, _QUESTION)
        peer = None if parsed is None else self._peers.get(parsed[0])
        if parsed is None or peer is None or not _is_genuine(data, peer.key.key):
            self._ignored += 1
            return None
        seq = parsed[1]
        if not peer.is_new(seq):
            self._ignored += 1
            return None
        if not peer.may_answer(now):
            self._limited += 1
            return None
        self._answered += 1
        held_us = round(min(max(waited_s, 0.0), HELD_S_MAX) * 1e6)
        return _make(peer.key, _ANSWER, seq, held_us)

    def statistics(self) -> ProbeAnswererStatistics:
        """Counters since the start."""
        return ProbeAnswererStatistics(
            keys=len(self._peers),
            answered=self._answered,
            ignored=self._ignored,
            limited=self._limited,
        )


def _make(key: ProbeKey, kind: int, seq: int, held_us: int) -> bytes:
    body = _BODY.pack(_MAGIC, kind, key.key_id, seq, held_us)
    return body + _mac(body, key.key)


def _parse(data: bytes, kind: int) -> tuple[int, int, int] | None:
    """Key id, seq, time held; None if it is no datagram of this kind. Its MAC is not looked at."""
    if len(data) != DATAGRAM_BYTES:
        return None
    magic, its_kind, key_id, seq, held_us = _BODY.unpack_from(data)
    if magic != _MAGIC or its_kind != kind:
        return None
    return key_id, seq, held_us


def _is_genuine(data: bytes, key: bytes) -> bool:
    return hmac.compare_digest(data[_BODY_BYTES:], _mac(data[:_BODY_BYTES], key))


def _mac(body: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_MAC_BYTES, key=key).digest()
