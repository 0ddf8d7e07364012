"""What is published at a PoP, as IRS is told of it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from edged.media.live import ORIGIN_CHARS_MAX, PROTOCOL_CHARS_MAX, LiveRow
from edged.roles.placement import Placement
from edged.runtime.hub import Hub, LiveStream

if TYPE_CHECKING:
    from edged.media.routing import ClassLabel

Sign = tuple[object, ...]


class LiveRows:
    """Of one PoP shard. A row is made when something of it has changed."""

    def __init__(
        self,
        hub: Hub,
        placements: Mapping[str, Placement],
        now: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        """`placements`: where streams go, by channel."""
        self._hub, self._placements, self._now, self._unix_now = hub, placements, now, unix_now
        self._signs: dict[str, Sign] = {}  # What each row was made of.
        self._rows: dict[str, LiveRow] = {}

    def __call__(self) -> Mapping[str, LiveRow]:
        """All rows, by channel."""
        rows: dict[str, LiveRow] = {}
        signs: dict[str, Sign] = {}
        for stream in self._hub:
            channel = stream.channel
            placement = self._placements.get(channel)
            origin = placement.decision.origin if placement is not None else ""
            sign = signs[channel] = (
                stream.stream_id,
                origin,
                stream.grant.priority,
                placement.request.protocol if placement is not None else "",
                stream.came_from,
                stream.waiting_since is None,
            )
            known = self._rows.get(channel)
            if known is None or self._signs[channel] != sign:
                known = self._make(stream, placement, origin, known)
            rows[channel] = known
        self._rows, self._signs = rows, signs
        return rows

    def _make(
        self, stream: LiveStream, placement: Placement | None, origin: str, before: LiveRow | None
    ) -> LiveRow:
        run = stream.stream_id
        since = self._unix_now() - (self._now() - stream.started_at)
        if before is not None and before.publication == run.publication:
            since = before.since  # A clock that was set since does not make it another.
        protocol = placement.request.protocol if placement is not None else ""
        protocol = protocol or stream.came_from.partition(" ")[0]
        return LiveRow(
            stream.channel,
            run.publication,
            run.home_epoch,
            origin[:ORIGIN_CHARS_MAX],
            cast("ClassLabel", stream.grant.priority.label),
            protocol[:PROTOCOL_CHARS_MAX],
            max(0.0, since),
            waits=stream.waiting_since is not None,
        )
