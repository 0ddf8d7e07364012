"""What is told is plain data."""

from edged.wire.h2.events import RequestRefused, SessionEnded, StreamReset
from edged.wire.h2.head import H2Request
from tests.wire.h2.peer import Peer, headers


def test_events_are_values() -> None:
    (event,) = Peer().tell(headers(1))
    (again,) = Peer().tell(headers(1))
    assert isinstance(event, H2Request)
    assert event == again
    assert RequestRefused(1, 414, "x") != RequestRefused(1, 413, "x")
    assert StreamReset(1, "x") == StreamReset(1, "x")
    assert SessionEnded("x").reason == "x"
