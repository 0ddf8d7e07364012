"""Fuzz target of the path probes: whatever reaches either end, no more comes out than went in."""

import random
from collections.abc import Sequence

from edged.policy.path_meter import PathMeter
from edged.wire.probe import DATAGRAM_BYTES, ProbeAnswerer, ProbeAsker
from tests.fuzz.script import Script, Target, block

STEP_ASK, STEP_AGAIN, STEP_SPOILT, STEP_RAW, STEP_CROSSED, STEP_TIME = range(6)
SENT_MAX = 256


class Paths:
    """Two PoPs and an origin, and every genuine datagram that was sent among them."""

    def __init__(self) -> None:
        self.answerer = ProbeAnswerer(random.Random(1).randbytes)  # noqa: S311 - keys that are none
        keys = [self.answerer.admit(0.0), self.answerer.admit(0.0)]
        self.askers = [ProbeAsker(key) for key in keys if key is not None]
        self.meters = [PathMeter(0.0), PathMeter(0.0)]
        self.now = 0.0
        self.sent: list[bytes] = []
        self.answered: set[bytes] = set()
        self.counted: set[bytes] = set()
        self.out = 0
        for who in (0, 1):
            self.ask(who)

    def ask(self, who: int) -> bytes:
        """One of them asks."""
        self.meters[who].asked(self.now)
        self.sent.append(self.askers[who].ask(self.now))
        return self.sent[-1]

    def arrive(self, datagram: bytes, who: int, waited_s: float) -> None:
        """A datagram reaches the origin, and one of the PoPs."""
        answer = self.answerer.receive_datagram(datagram, self.now, waited_s=waited_s)
        if answer is not None:
            assert datagram in self.sent, "who has no key gets no answer"
            assert datagram not in self.answered, "a question is answered once"
            assert len(answer) <= len(datagram), "never an amplifier"
            self.answered.add(datagram)
            self.sent.append(answer)
            self.out += len(answer)
        heard = self.askers[who].receive_datagram(datagram, self.now, waited_s=waited_s)
        if heard is not None:
            assert datagram in self.sent, "it is the origin's"
            assert datagram not in self.counted, "an answer counts once"
            self.counted.add(datagram)
            self.meters[who].answered(heard.asked_at, heard.rtt_s, self.now)
        path = self.meters[who].measure(self.now)
        assert path is None or (0 <= path.loss <= 1 and 0 <= path.silent_s <= self.now)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        for asker, meter in zip(self.askers, self.meters, strict=True):
            for asked_at in asker.take_lost(self.now):
                meter.lost(asked_at)


def run_probes(data: bytes) -> int:
    """Datagrams come in any order, again, spoilt, at the wrong PoP, or are any bytes."""
    script, paths = Script(data), Paths()
    while not script.done and len(paths.sent) < SENT_MAX:
        choice = script.number()
        step, who = choice % 6, choice // 6 % 2
        datagram = paths.sent[script.number() % len(paths.sent)]
        waited_s = (script.number() - 64) / 64
        if step == STEP_ASK:
            datagram = paths.ask(who)
        elif step == STEP_SPOILT:
            spoilt = bytearray(datagram)
            spoilt[script.below(DATAGRAM_BYTES)] ^= script.number() or 1
            datagram = bytes(spoilt)
        elif step == STEP_RAW:
            datagram = script.block()
        elif step == STEP_TIME:
            paths.wait(script.number() / 32)
        elif step == STEP_CROSSED:
            paths.arrive(datagram, 1 - who, waited_s)
        paths.arrive(datagram, who, waited_s)
    return paths.out


def probe_seeds() -> Sequence[bytes]:
    """Questions and their answers, in order, again, late, spoilt and of the other PoP."""

    def step(kind: int, who: int = 0, which: int = 0, waited: int = 64) -> bytes:
        return bytes([kind + 6 * who, which, waited])

    asked = b"".join(step(STEP_ASK, n % 2, n) for n in range(12))
    heard = b"".join(step(STEP_AGAIN, n % 2, n) for n in range(40))
    spoilt = b"".join(step(STEP_SPOILT, 0, n) + bytes([n, 1]) for n in range(DATAGRAM_BYTES))
    crossed = b"".join(step(STEP_CROSSED, n % 2, n) for n in range(20))
    raw = step(STEP_RAW) + block(bytes(DATAGRAM_BYTES)) + step(STEP_RAW) + block(b"")
    late = step(STEP_TIME) + b"\xff"
    return [asked + heard, asked + late + heard, heard + spoilt, asked + crossed + raw + heard]


TARGETS = [Target(name="probes", run=run_probes, seeds=probe_seeds)]
