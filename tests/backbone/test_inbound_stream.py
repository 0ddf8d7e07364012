"""A stream that comes in: whose it is, and whether it waits."""

from typing import TYPE_CHECKING, cast

from edged.backbone.inbound_stream import Inbound
from edged.media.stream import Grant, StreamId
from edged.runtime.hub import LiveStream

if TYPE_CHECKING:
    from edged.backbone.session import BackboneSession


def test_it_waits_without_a_session_or_a_publisher() -> None:
    stream = LiveStream(
        StreamId("alice", 1), Grant(channel="alice"), started_at=0.0, came_from="test"
    )
    inbound = Inbound(stream, "pop/west", 5.0)
    assert (inbound.received_seq, inbound.packaged_seq, inbound.orphaned_at) == (-1, -1, 5.0)
    assert inbound.waits
    inbound.session = cast("BackboneSession", object())
    assert not inbound.waits
    stream.waiting_since = 6.0
    assert inbound.waits
    stream.stream_id = StreamId("alice", 1, 2)
    assert inbound.stream_id.home_epoch == 2
