"""What a PoP tells of its streams: the events of their lives, each made in one place."""

from collections.abc import Callable

from edged.media.events import (
    PublisherLost,
    PublisherReturned,
    StreamEvent,
    StreamRehomed,
    StreamShed,
    StreamTakenOver,
    StreamWentLive,
    StreamWentOffline,
    TitleChanged,
    ignore_event,
)
from edged.media.stream import Description, StreamId
from edged.runtime.hub import LiveStream
from edged.wire.table import REASON_CHARS_MAX, Moved


class Telling:
    """Makes events and emits them; synchronous, in the pump's turn."""

    def __init__(
        self,
        emit: Callable[[StreamEvent], object] = ignore_event,
        *,
        pop: str = "",
        newest: Callable[[str], tuple[StreamId, str] | None] = lambda _: None,
    ) -> None:
        """`pop`: whose streams they are; `newest`: a channel's newest run anywhere, and its PoP."""
        self.emit = emit
        self._pop, self._newest = pop, newest
        self.on_rehomed: Callable[[Moved], object] = lambda _: None  # For IRS.

    def went_live(self, stream: LiveStream, protocol: str, origin: str) -> None:
        """A run has begun, and is placed."""
        grant = stream.grant
        self.emit(
            StreamWentLive(
                channel=stream.channel,
                publication=_name(stream.stream_id),
                title=grant.title,
                category=grant.category,
                tags=grant.labels,
                priority=grant.priority.label,
                protocol=protocol,
                origin=origin,
            )
        )

    def went_offline(self, stream: LiveStream, reason: str, now: float) -> None:
        """A run is over."""
        self.emit(
            StreamWentOffline(
                channel=stream.channel,
                publication=_name(stream.stream_id),
                reason=stream.ended or reason,
                duration_s=round(now - stream.started_at, 3),
            )
        )

    def taken_over(self, stream: LiveStream, by: StreamId | None = None) -> None:
        """Another publisher has it: of the same run, or of one that ends it; `by`: one of ours."""
        by_pop = "" if by is None else self._pop
        if by is None and (found := self._newest(stream.channel)) is not None:
            by, by_pop = found if found[0] > stream.stream_id else (None, "")
        self.emit(
            StreamTakenOver(
                channel=stream.channel,
                publication=_name(stream.stream_id),
                by_publication="" if by is None else _name(by),
                by_pop=by_pop,
            )
        )

    def rehomed(
        self,
        stream: LiveStream,
        before: str,
        after: str,
        why: str,
        *,
        unit_seq: int,
        number: int = 0,
    ) -> None:
        """Another origin goes on with a stream, from a unit on; `number`: as IRS has asked."""
        self.emit(
            StreamRehomed(
                channel=stream.channel,
                publication=_name(stream.stream_id),
                origin_before=before,
                origin_after=after,
                why=why,
                home_epoch=stream.stream_id.home_epoch,
            )
        )
        self.on_rehomed(
            Moved(
                channel=stream.channel,
                publication=stream.stream_id.publication,
                home_epoch=stream.stream_id.home_epoch,
                from_origin=before,
                to_origin=after,
                unit_seq=max(0, unit_seq),
                why=why[:REASON_CHARS_MAX],
                number=number,
            )
        )

    def shed(self, stream: LiveStream, origin: str, link: str, number: int) -> None:
        """A stream has to go, as a link is full; `number`: of the order of IRS."""
        self.emit(
            StreamShed(
                channel=stream.channel,
                publication=_name(stream.stream_id),
                link=link,
                origin=origin,
                priority=stream.grant.priority.label,
                number=number,
            )
        )

    def lost(self, stream: LiveStream, reason: str, grace_s: float) -> None:
        """A publisher is gone, and is waited for."""
        self.emit(
            PublisherLost(
                channel=stream.channel,
                publication=_name(stream.stream_id),
                reason=reason,
                grace_s=grace_s,
            )
        )

    def returned(self, stream: LiveStream, away_s: float | None) -> None:
        """It is back; None: it was another PoP's, which knows how long it was away."""
        self.emit(
            PublisherReturned(
                channel=stream.channel,
                publication=_name(stream.stream_id),
                away_s=round(away_s or 0.0, 3),
            )
        )

    def described(self, stream_id: StreamId, before: Description, after: Description) -> None:
        """What people are told of a stream has changed."""
        del before
        self.emit(
            TitleChanged(
                channel=stream_id.channel,
                publication=_name(stream_id),
                title=after.title,
                category=after.category,
                tags=after.labels,
            )
        )


def _name(stream_id: StreamId) -> str:
    return f"{stream_id.publication:x}"
