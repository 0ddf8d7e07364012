"""What of a channel at this edge another PoP gets first."""

from typing import TYPE_CHECKING

from edged.media.parts import PackagedEvent
from edged.media.stream import StreamId
from edged.policy.window_replay import make_replay

if TYPE_CHECKING:
    from edged.playback.hls import Channel


def replay_of(
    channel: "Channel | None", *, lists: bool, cold: bool
) -> tuple[StreamId, list[PackagedEvent]] | None:
    """As an origin's replay; None: no run is here that goes on."""
    stream = None if channel is None else channel.newest
    if stream is None or stream.ended_at is not None or not stream.window.started:
        return None
    return stream.window.stream_id, make_replay(stream.window, lists=lists, cold=cold)
