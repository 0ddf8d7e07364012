"""A pump and connections without sockets or time of their own, for cores with their shells on."""

import errno
import os
import socket
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edged.runtime.connection import PumpHandler
    from edged.runtime.standing import StandingAnswer, StandingAnswers


class StillPump:
    """Runs flush callbacks when told; time moves only when told."""

    share_ports = False

    def __init__(self) -> None:
        self.time = 100.0
        self._callbacks: dict[Callable[[], None], None] = {}

    def itself(self) -> "StillPump":
        """For who would make one."""
        return self

    def now(self) -> float:
        """Monotonic seconds."""
        return self.time

    def at_flush(self, callback: Callable[[], None]) -> None:
        """Call back in `turn`."""
        self._callbacks[callback] = None

    def spread(self, work: Callable[[float], bool]) -> None:
        """Do it all."""
        while work(float("inf")):
            pass

    def turn(self) -> None:
        """The end of a turn."""
        for _ in range(100):
            callbacks, self._callbacks = self._callbacks, {}
            if not callbacks:
                return
            for callback in callbacks:
                callback()
        raise AssertionError("a turn of the pump that never ends")


class NoNursery:
    """Starts nothing."""

    def start_soon(self, *_: object, **__: object) -> None:
        """Never."""


class NoSocket:
    """Takes every option."""

    family = socket.AF_UNIX

    def setsockopt(self, *_: object) -> None:
        """Whatever."""

    def fileno(self) -> int:
        """As of a closed one: the kernel holds nothing."""
        return -1

    def getpeername(self) -> tuple[str, int]:
        """As of one whose peer has just gone: nobody is to be probed."""
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


class StillConnection:
    """Counts what is written."""

    ssl = None
    fd = -1
    peer = "fuzz"
    received_bytes = 0

    def __init__(self, pump: StillPump) -> None:
        self.pump = pump
        self.sock = NoSocket()
        self.lost: str | None = None
        self.handler: PumpHandler | None = None
        self.out_bytes = 0
        self.sent_bytes = 0
        self.sent_crc = 0  # Of all of it.
        self.standing: StandingAnswers | None = None
        self.stood = 0
        self.stood_at = float("-inf")
        self.timeout_at = float("inf")
        self.reading = True

    def write(self, data: bytes | memoryview) -> None:
        """All of it leaves at once."""
        self.sent_bytes += len(data)
        self.sent_crc = zlib.crc32(data, self.sent_crc)

    def write_many(self, chunks: "Sequence[bytes | memoryview]") -> None:
        """All of it leaves at once."""
        for chunk in chunks:
            self.write(chunk)

    send = write_many

    def send_standing(self, answer: "StandingAnswer", now: float) -> None:
        """All of it leaves at once."""
        answer.times += 1
        self.stood += 1
        self.stood_at = now
        self.send(answer.chunks)

    def set_timeout(self, at: float) -> None:
        """Note it."""
        self.timeout_at = at

    def set_receive_low_water(self, wanted: int) -> None:
        """Whatever."""

    def pause_reading(self) -> None:
        """Note it."""
        self.reading = False

    def resume_reading(self) -> None:
        """Note it."""
        self.reading = True

    def abort(self, reason: str) -> None:
        """The end."""
        if self.lost is None:
            self.lost = reason
            assert self.handler is not None
            self.handler.connection_lost(reason)

    close = abort
