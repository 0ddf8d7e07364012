"""What people are told of the streams: changed here, or at the PoP where a stream is published.

A change goes publisher's PoP -> origin -> directory -> every PoP. The publisher's PoP has the
truth: each origin that the stream comes to, also after a failover, has it from there.
"""

from collections.abc import Callable

import structlog
import trio

from edged.errors import EdgedError
from edged.media.stream import Description, DescriptionChange, Grant, StreamId
from edged.policy.descriptions import KeptDescriptions, find_problem
from edged.roles.uplinks import Uplinks
from edged.runtime.hub import Hub, LiveStream

SEEN_S_MAX = 1.0  # From this PoP by two others and back, by directories told ten times a second.
SEEN_POLL_S = 0.02

logger = structlog.get_logger("edged.pop")

Changed = Callable[[StreamId, Description, Description], None]


class NotLiveError(EdgedError):
    """The channel has no run whose description could be changed."""


class Descriptions:
    """The descriptions of one PoP's streams."""

    def __init__(self, hub: Hub, uplinks: Uplinks, now: Callable[[], float]) -> None:
        self.on_changed: Changed = lambda *_: None  # Run, before, after: at the publisher's PoP.
        self._hub, self._uplinks, self._now = hub, uplinks, now
        self._kept = KeptDescriptions()
        uplinks.on_description_wanted = self._wanted

    def adopt(self, grant: Grant) -> Grant:
        """What a new publication here begins with."""
        return self._kept.adopt(grant, self._now())

    def ended(self, channel: str) -> None:
        """A publication here is over."""
        self._kept.ended(channel, self._now())

    def read(self, channel: str) -> Description | None:
        """How a channel is described now; None while it is not live."""
        stream = self._hub.get(channel)
        if stream is not None and stream.ended is None:
            return stream.grant.description
        record = self._uplinks.listing.lookup(channel)
        if record is None:
            return None
        entry = record.entry
        return Description(title=entry.title, category=entry.category, labels=entry.labels)

    async def change(self, channel: str, change: DescriptionChange) -> Description:
        """Change it, wherever it is published; returns how it is described then.

        Raises NotLiveError, or EdgedError when the other PoP has not answered in SEEN_S_MAX.
        """
        assert not find_problem(change), "who asked has been told"
        stream = self._hub.get(channel)
        if stream is not None and stream.ended is None:
            return self._change_here(stream, change)
        before = self.read(channel)
        if before is None:
            raise NotLiveError(f"channel {channel!r} is not live")
        if change.apply(before) == before:
            return before
        if not self._uplinks.want_description(channel, change):
            raise EdgedError(f"channel {channel!r}: no way to the PoP where it is published")
        with trio.move_on_after(SEEN_S_MAX):
            while (now := self.read(channel)) is not None:
                if change.apply(now) == now:
                    return now
                await trio.sleep(SEEN_POLL_S)
            raise NotLiveError(f"channel {channel!r} is not live any more")
        raise EdgedError(
            f"channel {channel!r}: its PoP has not answered in {SEEN_S_MAX:g} s; look again"
        )

    def _wanted(self, channel: str, change: DescriptionChange) -> None:
        """Another PoP, which has checked the key, asks."""
        stream = self._hub.get(channel)
        if problem := find_problem(change):
            logger.warning("description refused", channel=channel[:256], reason=problem)
        elif stream is not None and stream.ended is None:
            self._change_here(stream, change)

    def _change_here(self, stream: LiveStream, change: DescriptionChange) -> Description:
        """The one place where a description changes in the life of a stream."""
        before = stream.grant.description
        after = change.apply(before)
        if after != before:
            stream.grant = stream.grant.described(after)
            self._kept.changed(stream.channel, before, after)
            self._uplinks.tell_description(stream.channel)
            logger.info("description changed", channel=stream.channel)
            self.on_changed(stream.stream_id, before, after)
        return after
