"""A session twice, with the core in Python and the compiled one: what one does, the other does."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from edged.errors import EdgedError
from edged.wire.rtmp import RtmpServerSession, RtmpState, RtmpStatistics, ServerEvent, reader
from edged.wire.rtmp.limits import RtmpLimits
from tests.wire.rtmp.peers import entropy

T = TypeVar("T")
STATES_AT_FIRST, STATES_EVERY = 200, 50  # Calls after which the states are compared: it takes long.


class TwinSessions:
    """Stands for an RtmpServerSession; AssertionError where the two differ in anything."""

    def __init__(self, limits: RtmpLimits | None = None, now: float = 0.0) -> None:
        assert reader.HAS_FAST, "there are two cores"
        before = reader.is_compiled()
        sessions = []
        for compiled in (False, True):
            reader.use_compiled(compiled)
            sessions.append(RtmpServerSession(now=now, entropy=entropy, limits=limits))
        reader.use_compiled(before)
        self.python, self.compiled = sessions
        self._calls = 0
        self._broken = False  # What came before an error in its piece is counted by one only.

    @property
    def deadline(self) -> float:
        assert self.python.deadline == self.compiled.deadline
        return self.compiled.deadline

    def receive_data(self, data: bytes | memoryview, now: float) -> list[ServerEvent]:
        def receive(session: RtmpServerSession) -> list[ServerEvent]:
            buffer = bytearray(data)
            events = session.receive_data(memoryview(buffer), now)
            buffer[:] = len(buffer) * b"\xee"  # Whoever kept a view of it is found out.
            return events

        return self._both(receive)

    def handle_timeout(self, now: float) -> list[ServerEvent]:
        return self._both(lambda session: session.handle_timeout(now))

    def accept_publish(self, now: float) -> list[ServerEvent]:
        return self._both(lambda session: session.accept_publish(now))

    def close(self, code: str, description: str) -> None:
        self._both(lambda session: session.close(code, description))

    def data_to_send(self) -> bytes:
        return self._both(lambda session: session.data_to_send())

    def statistics(self) -> RtmpStatistics:
        if self._broken:
            return self.compiled.statistics()
        return self._both(lambda session: session.statistics())

    def _both(self, call: Callable[[RtmpServerSession], T]) -> T:
        outcomes: list[T | str] = []
        errors: list[EdgedError] = []
        for session in (self.python, self.compiled):
            try:
                outcomes.append(call(session))
            except EdgedError as error:
                errors.append(error)
                outcomes.append(f"{type(error).__name__}: {error}")
        python, compiled = outcomes
        assert python == compiled, f"in Python: {python}\ncompiled: {compiled}"
        if errors:
            self._broken = True
            raise errors[0]
        if self._broken:
            return compiled  # type: ignore[return-value]  # No error: it is what the call gave.
        assert self.python.bytes_wanted == self.compiled.bytes_wanted
        self._calls += 1
        if self._calls > STATES_AT_FIRST and self._calls % STATES_EVERY:
            return compiled  # type: ignore[return-value]  # No error: it is what the call gave.
        states = [plain(session.state()) for session in (self.python, self.compiled)]
        assert states[0] == states[1], f"in Python: {states[0]}\ncompiled: {states[1]}"
        return compiled  # type: ignore[return-value]


def plain(state: RtmpState) -> object:
    """What counts of a session's state; where no chunk is under way, its `left` is an old one."""
    if state.reader.current is None:
        state.reader.left = 0
    return msgspec.to_builtins(state)
