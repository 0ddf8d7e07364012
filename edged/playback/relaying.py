"""What of a channel at this edge another PoP gets first."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import structs

from edged.media.parts import PackagedEvent, SegmentsListed
from edged.media.stream import StreamId
from edged.policy.window_replay import make_replay

if TYPE_CHECKING:
    from edged.playback.hls import Channel


def replay_of(
    channel: "Channel | None", oldest: Mapping[str, int], *, lists: bool, cold: bool
) -> tuple[StreamId, list[PackagedEvent]] | None:
    """As an origin's replay; None: no run is here that goes on.

    `oldest`: what the origin said of each rendition. It has that still, where we keep less.
    """
    stream = None if channel is None else channel.newest
    if stream is None or stream.ended_at is not None or not stream.window.started:
        return None
    return stream.window.stream_id, [
        structs.replace(event, oldest_msn=min(event.oldest_msn, oldest[event.rendition]))
        if isinstance(event, SegmentsListed) and event.rendition in oldest
        else event
        for event in make_replay(stream.window, lists=lists, cold=cold)
    ]
