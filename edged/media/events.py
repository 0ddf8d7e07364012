"""What happens to live streams, told to whoever wants to know: webhooks, logs, later stores.

An event says what has happened, of which run of which channel. Whoever notices it fills in what it
knows; id, time and PoP are added where it is emitted (`runtime/event_stream.py`). As JSON an event
is an object with its kind in `event`, for example {"event": "stream_went_live", "channel": ...}.
"""

import re
from typing import Literal, get_args

from msgspec import Struct

EventKind = Literal[
    "stream_went_live",
    "stream_went_offline",
    "title_changed",
    "stream_taken_over",
    "stream_rehomed",
    "stream_shed",
    "publisher_lost",
    "publisher_returned",
    "health_warned",
    "health_cleared",
]
KINDS: tuple[EventKind, ...] = get_args(EventKind)
Severity = Literal["info", "warning", "critical"]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


class StreamEvent(Struct, frozen=True, kw_only=True, tag_field="event", tag=_snake):
    """What every event has."""

    channel: str
    publication: str  # The run, as in logs: hexadecimal.
    event_id: str = ""  # Of this event alone; the same when it is delivered twice.
    at_ms: int = 0  # Unix time in milliseconds.
    pop: str = ""  # Where it happened.

    @property
    def kind(self) -> str:
        """The name that configuration and JSON have for it."""
        return str(self.__struct_config__.tag)


class StreamWentLive(StreamEvent, frozen=True, kw_only=True):
    """A publisher was let in, and its stream placed."""

    title: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()  # What people are told, not those for routing.
    priority: str = "basic"  # The class: "partner", "affiliate", "basic".
    protocol: str = ""  # By which it is published: "rtmp", "rtmps".
    origin: str = ""  # That packages it.


class StreamWentOffline(StreamEvent, frozen=True, kw_only=True):
    """A run is over; the channel may be live again by another."""

    reason: str = ""
    duration_s: float = 0.0


class TitleChanged(StreamEvent, frozen=True, kw_only=True):
    """What viewers are told of a stream has changed."""

    title: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()


class StreamTakenOver(StreamEvent, frozen=True, kw_only=True):
    """A newer run of the channel has ended this one."""

    by_publication: str = ""  # Empty when it is not known here.
    by_pop: str = ""  # Empty when it is not known here.


class StreamRehomed(StreamEvent, frozen=True, kw_only=True):
    """Another origin goes on with a stream."""

    origin_before: str
    origin_after: str
    why: str = ""
    home_epoch: int = 1  # From here on.


class StreamShed(StreamEvent, frozen=True, kw_only=True):
    """IRS had a stream ended, as a link cannot carry it; that it is offline is told as well."""

    link: str
    origin: str  # Where it went.
    priority: str  # Its class.
    number: int  # Of the order.


class PublisherLost(StreamEvent, frozen=True, kw_only=True):
    """The encoder is gone without a goodbye; the stream waits for it."""

    reason: str = ""
    grace_s: float = 0.0  # So long.


class PublisherReturned(StreamEvent, frozen=True, kw_only=True):
    """The encoder is back in time: the stream goes on."""

    away_s: float = 0.0


class HealthWarned(StreamEvent, frozen=True, kw_only=True):
    """Something is wrong with what the encoder sends (`policy/ingest_health.py`)."""

    code: str
    severity: Severity
    text: str  # In plain words, for the broadcaster.
    value: float
    limit: float


class HealthCleared(StreamEvent, frozen=True, kw_only=True):
    """It is no longer so."""

    code: str
    lasted_s: float = 0.0


EVENT_TYPES: tuple[type[StreamEvent], ...] = (
    StreamWentLive,
    StreamWentOffline,
    TitleChanged,
    StreamTakenOver,
    StreamRehomed,
    StreamShed,
    PublisherLost,
    PublisherReturned,
    HealthWarned,
    HealthCleared,
)
Event = (
    StreamWentLive
    | StreamWentOffline
    | TitleChanged
    | StreamTakenOver
    | StreamRehomed
    | StreamShed
    | PublisherLost
    | PublisherReturned
    | HealthWarned
    | HealthCleared
)


def ignore_event(event: StreamEvent) -> None:
    """For those who are built without a stream of events."""
    del event
