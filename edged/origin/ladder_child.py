"""The child process of one stream's ladder: `python -m edged.origin.ladder_child`, by its parent.

It reads units from the socket that is its standard input, makes the rungs and writes them there.
It does one thing at a time: while the parent does not read, it waits, and takes nothing in. It ends
when the input has ended, when the parent is gone, or by whatever FFmpeg does to it.
"""

import os
import socket
import sys
import time

import av.logging

from edged.errors import EdgedError
from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.origin.ladder_engine import LadderEngine, Output
from edged.policy.ladder_encoders import DRIVEN
from edged.runtime.child import MemoryCounted, settle_child
from edged.wire.transcode import (
    LOG_CHARS_MAX,
    Event,
    InputEnded,
    Logged,
    OutputEnded,
    Planned,
    Progressed,
    Ready,
    RungsWanted,
    TrackSet,
    TranscodeLink,
)

NICE = 10  # Ingest and packaging go first.
MEMORY_BYTES_MAX = 3 * 2**30  # Of addresses; a 2160p ladder takes half of it.
RECEIVE_BYTES = 256 * 1024


class LadderChild:
    """The loop around one engine."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._link = TranscodeLink()
        self._engine = LadderEngine(LadderPlan())
        self._busy_s = 0.0
        self._errors_said = 0

    def run(self) -> None:
        """Until the input has ended, or the parent is gone."""
        self._link.send_message(Ready(os.getpid()))
        self._flush()
        while data := self._connection.recv(RECEIVE_BYTES):
            for event in self._link.receive_data(data):
                began = time.monotonic()
                self._take(event)
                self._busy_s += time.monotonic() - began
                self._finish_event(event)
                if isinstance(event, InputEnded):
                    return

    def _take(self, event: Event) -> None:
        out: list[Output] = []
        match event:
            case AccessUnit():
                out = self._engine.take(event)
            case Planned():
                out = self._engine.set_plan(event.plan)
            case TrackSet():
                self._engine.set_track(event.track)
            case RungsWanted():
                out = self._engine.want(frozenset(event.names))
            case InputEnded():
                out = self._engine.finish()
            case _:
                raise EdgedError(f"{type(event).__name__} is not for a child")
        for each in out:
            if isinstance(each, AccessUnit):
                self._link.send_unit(each)
            else:
                self._link.send_message(TrackSet(each))

    def _finish_event(self, event: Event) -> None:
        if isinstance(event, AccessUnit):
            errors = self._engine.statistics().errors
            if errors and not self._errors_said:
                text = f"unit {event.seq} of track {event.track_id} cannot be decoded"
                self._link.send_message(Logged("warning", text[:LOG_CHARS_MAX]))
            self._errors_said = errors
            self._link.send_message(Progressed(event.seq, round(self._busy_s * 1_000_000), errors))
        elif isinstance(event, InputEnded):
            self._link.send_message(OutputEnded())
        self._flush()

    def _flush(self) -> None:
        self._connection.sendall(self._link.data_to_send())


def main() -> int:
    """Be a child."""
    av.logging.set_level(None)
    memory = int(sys.argv[1]) if len(sys.argv) > 1 else MEMORY_BYTES_MAX
    try:
        counts: MemoryCounted = "data" if DRIVEN in sys.argv[2:] else "addresses"
        connection = settle_child(nice=NICE, memory_bytes_max=memory, counts=counts)
        with connection:
            LadderChild(connection).run()
    except (BrokenPipeError, ConnectionResetError):
        return 0  # The parent does not want it any more.
    except (EdgedError, MemoryError) as error:
        print(f"{type(error).__name__}: {error}"[:LOG_CHARS_MAX], file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
