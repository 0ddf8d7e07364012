"""Control messages of the backbone: msgpack arrays, their name first, then the fields in order.

    ["stream_accepted", stream_no, wanted_seq]

`stream_id`, `grant`, `tracks` and `track` are maps, as `edged.media` names their fields. A newer
peer may add elements at an array's end; they are ignored. A message that came after PROTO 1 is sent
only to who names its feature in the hello: others would close on it. HELLO's body is `Hello` in the
same form.
Stream numbers belong to the sender of the stream (each direction counts its own), start at 1 and
rise; `sub_no` belongs to the PoP and does the same.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from edged.errors import EdgedError, RemoteProtocolError
from edged.media.latency import DEFAULT
from edged.media.parts import (
    InitSegment,
    ListedSegment,
    PackagedEvent,
    Part,
    Rendition,
    SegmentEnded,
    SegmentPiece,
    SegmentsListed,
    StreamEnded,
)
from edged.media.routing import PLAIN_TERMS, OriginReport, Terms
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Track, TrackFormat
from edged.wire.backbone.frames import (
    FRAME_HEADER_BYTES,
    ITEM_BYTES_MAX,
    KIND_HELLO,
    KIND_MESSAGE,
    MESSAGE_BYTES_MAX,
    META_BYTES_MAX,
    make_frame,
)
from edged.wire.probe import KEY_BYTES

PROTO = 1
# 30 Mbps at 200 ms: an item of 8 MiB begun, 1.2 MB in flight, a quarter not yet granted anew.
STREAM_WINDOW_BYTES = 16 * 2**20
SESSION_WINDOW_BYTES = 64 * 2**20  # 1.7 Gbps at 200 ms, a quarter not yet granted anew.
GRANTS_PER_WINDOW = 4  # A limit is raised when a quarter of its window has been taken.
_ITEM_WIRE_BYTES_MAX = ITEM_BYTES_MAX + 2 * META_BYTES_MAX  # The largest item and its headers.
# What the sender is sure to have is the window less what was taken and not yet granted anew: less
# than the largest item, and that item would wait for ever.
WINDOW_BYTES_MIN = -(-_ITEM_WIRE_BYTES_MAX * GRANTS_PER_WINDOW // (GRANTS_PER_WINDOW - 1))
TEXT_CHARS_MAX = 1000  # Of a reason that we repeat in our log.

FEATURE_DESCRIPTIONS = "descriptions"  # StreamDescribed, DescriptionWanted.
# SegmentsListed to a PoP that has it; SegmentWanted, and what answers it, with an origin.
FEATURE_SEGMENTS = "segments"
FEATURE_PREEMPTION = "preemption"  # The code "preempted".
FEATURE_PROBES = "probes"  # ProbesOffered.
FEATURE_RUNGS = "rungs"  # RungsWanted, and SubscribeParts' rungs.
FEATURES = (  # Ours.
    *(FEATURE_DESCRIPTIONS, FEATURE_SEGMENTS, FEATURE_PREEMPTION, FEATURE_PROBES),
    FEATURE_RUNGS,
)

Purpose = Literal["control", "media"]
RUNGS_MAX = 32  # As many renditions as a stream may have.
Rungs = Annotated[tuple[Annotated[str, Meta(max_length=16)], ...], Meta(max_length=RUNGS_MAX)]


class Hello(Struct, frozen=True, kw_only=True, array_like=True, tag="hello"):
    """Who speaks, what for, and how much media it takes."""

    proto: int
    role: str
    name: str
    shard: int
    instance: int  # 63 bits of chance, of this process: a restart shows.
    purpose: Purpose
    priority: PriorityClass  # Of a media session; 0 for control.
    session_window: int = SESSION_WINDOW_BYTES
    stream_window: int = STREAM_WINDOW_BYTES
    features: tuple[str, ...] = ()


class SessionClosed(Struct, frozen=True, array_like=True, tag="session_closed"):
    """Either way, last: why the session ends. Codes: version, identity, window, protocol, drain."""

    code: str
    reason: str


class RenditionAck(Struct, frozen=True, array_like=True):
    """How far a rendition is packaged: what the next origin needs to splice."""

    name: str
    msn: int
    part: int
    tfdt: int  # Of the part after that one.
    discontinuity_sequence: int
    init_digest: str


class StreamOpened(Struct, frozen=True, kw_only=True, array_like=True, tag="stream_opened"):
    """Units of a publication are to follow; nothing is sent before StreamAccepted."""

    stream_no: int
    stream_id: StreamId
    grant: Grant
    tracks: list[Track]
    first_seq: int  # Oldest unit still there to be sent.
    packaged_seq: int = -1  # What was acked as packaged so far, by this or an earlier origin.
    renditions: list[RenditionAck] = []
    sub_no: int = 0  # The PoP's units subscription that this answers; 0 for a forwarded stream.
    splice: bytes = b""  # As in the last StreamAck that had one.
    # The run is live at the origin under an older epoch, of this PoP or another: it goes on there,
    # from `first_seq` or the unit after the last that came, whichever is later.
    takes_over: bool = False
    waiting: bool = False  # As in StreamWaiting.
    terms: Terms = PLAIN_TERMS  # What is asked when there is no room; older origins refuse then.


class StreamAccepted(Struct, frozen=True, array_like=True, tag="stream_accepted"):
    """Send from `wanted_seq` on.

    -1: a forwarded stream from the oldest unit, one that was subscribed to from the latest GOP.
    """

    stream_no: int
    wanted_seq: int


class StreamRefused(Struct, frozen=True, array_like=True, tag="stream_refused"):
    """At any time: the receiver takes no more of it; the sender answers StreamClosed.

    Codes: fenced (`newest` is a newer publication or epoch, live there or known to have been),
    full, drain, preempted (by a stream of a higher class; only to who has that feature, else
    drain), unsupported_media, stopped, moved, protocol, or what the origin's admission says.
    """

    stream_no: int
    code: str
    reason: str
    newest: StreamId | None = None  # By what it is fenced; None for other codes and older peers.


class StreamClosed(Struct, frozen=True, array_like=True, tag="stream_closed"):
    """The sender's last word on a stream; `ended`: the publication is over, else only this path."""

    stream_no: int
    reason: str
    ended: bool


class StreamWaiting(Struct, frozen=True, array_like=True, tag="stream_waiting"):
    """The publisher of a forwarded stream is lost and may come back, here or elsewhere; or is back.

    Only for origins whose directory has `formats`: older ones do not know this message.
    """

    stream_no: int
    waiting: bool


class TrackChanged(Struct, frozen=True, array_like=True, tag="track_changed"):
    """A track is new, or units from now on need this configuration."""

    stream_no: int
    track: Track


class StreamDescribed(Struct, frozen=True, array_like=True, tag="stream_described"):
    """The description has changed since StreamOpened, whose grant had one."""

    stream_no: int
    title: str
    category: str
    labels: tuple[str, ...]


class DescriptionWanted(Struct, frozen=True, array_like=True, tag="description_wanted"):
    """Someone with a key of the channel wants this changed, at a PoP where it is not published.

    A PoP tells the channel's origin, on the control session; that passes it on to the publisher's
    PoP, on the stream's session, which has the truth and answers with StreamDescribed. None leaves
    a value as it is.
    """

    channel: str
    title: str | None
    category: str | None
    labels: tuple[str, ...] | None


class StreamAck(Struct, frozen=True, array_like=True):
    """How far one stream has got at the origin."""

    stream_no: int
    home_epoch: int
    received_seq: int  # All that will come below and at it has come; -1 for none.
    packaged_seq: int  # No successor needs what is below and at it; -1 for none.
    renditions: list[RenditionAck] = []
    # What a successor goes on from, with the units after `packaged_seq`; opaque to PoPs. Empty:
    # as before.
    splice: bytes = b""


class UnitsAcked(Struct, frozen=True, array_like=True, tag="units_acked"):
    """The streams that moved since the last tick."""

    acks: list[StreamAck]


class KeyFrameWanted(Struct, frozen=True, array_like=True, tag="key_frame_wanted"):
    """Upstream: a reader needs a random access point of a video track soon."""

    stream_no: int
    track_id: int


class SubscribeParts(Struct, frozen=True, array_like=True, tag="subscribe_parts"):
    """Push the channel's packaged events, of each publication it will have, until Unsubscribe."""

    sub_no: int
    channel: str
    # The PoP holds nothing of it: what is listed to it need not be pushed. Older origins push all.
    cold: bool = False
    rungs: Rungs | None = None  # As in RungsWanted. Who does not know it pushes all.


class RungsWanted(Struct, frozen=True, array_like=True, tag="rungs_wanted"):
    """Of this subscription's video push these renditions alone, and list the others' segments.

    None: push all.
    """

    sub_no: int
    rungs: Rungs | None


class SubscribeUnits(Struct, frozen=True, array_like=True, tag="subscribe_units"):
    """Push the channel's units, of each publication it will have, from where the PoP accepts it."""

    sub_no: int
    channel: str


class Unsubscribe(Struct, frozen=True, array_like=True, tag="unsubscribe"):
    """No more of it; the origin answers StreamClosed for what is open."""

    sub_no: int


class SubscriptionAccepted(Struct, frozen=True, array_like=True, tag="subscription_accepted"):
    """EventsOpened or StreamOpened follow, now or when the channel is packaged."""

    sub_no: int


class SubscriptionRefused(Struct, frozen=True, array_like=True, tag="subscription_refused"):
    """At any time: no more. Codes: not_live, full, drain, protocol, unsupported_media, internal."""

    sub_no: int
    code: str
    reason: str


class EventsOpened(Struct, frozen=True, array_like=True, tag="events_opened"):
    """EVENT frames of this publication follow for a parts subscription, at once.

    The first `replay_events` of them are what was packaged before: of use only as a whole.
    """

    stream_no: int
    sub_no: int
    stream_id: StreamId
    replay_events: int = 0


class SegmentWanted(Struct, frozen=True, array_like=True, tag="segment_wanted"):
    """PoP to origin: give a whole segment that was listed, in time left over by live media.

    `fetch_no` belongs to the PoP, starts at 1 and rises; SegmentOpened or SegmentRefused answers.
    """

    fetch_no: int
    stream_id: StreamId  # The epoch does not matter.
    rendition: str
    msn: int


class SegmentOpened(Struct, frozen=True, array_like=True, tag="segment_opened"):
    """EVENT frames with pieces of the segment follow; StreamClosed says `ended` behind the last."""

    stream_no: int
    fetch_no: int
    payload_bytes: int


class SegmentRefused(Struct, frozen=True, array_like=True, tag="segment_refused"):
    """Codes: gone (it is not held here), full (too much is being fetched), disk, not_live."""

    fetch_no: int
    code: str
    reason: str


class Heartbeat(Struct, frozen=True, array_like=True, tag="heartbeat"):
    """Origin to PoP at 10 Hz, from the application, so that a freeze shows."""

    report: OriginReport


class DirectoryEntry(Struct, frozen=True, kw_only=True, array_like=True):
    """A stream that is live at an origin."""

    stream_id: StreamId
    title: str = ""
    priority: PriorityClass = PriorityClass.BASIC
    tags: tuple[str, ...] = ()  # Of the rules.
    pop: str = ""  # Where its publisher is.
    started_at: float = 0.0  # Unix seconds.
    renditions: int = 0  # 0 until it is packaged.
    category: str = ""
    labels: tuple[str, ...] = ()  # Descriptive tags.
    formats: tuple[TrackFormat, ...] = ()  # Of who goes on with it; empty until it is packaged.
    waiting: bool = False  # Its publisher, or the PoP of that, is lost and may come back.
    latency: str = DEFAULT  # The class.


class DirectoryDelta(Struct, frozen=True, kw_only=True, array_like=True, tag="directory_delta"):
    """Origin to PoP: who came and went since `from_version`; 0 begins the whole list anew.

    A list too long for one message goes on in deltas whose `from_version` is their own `version`.
    """

    origin: str
    incarnation: int
    version: int
    from_version: int
    changed: list[DirectoryEntry]
    removed: list[str]  # Channels.


class DirectoryWanted(Struct, frozen=True, array_like=True, tag="directory_wanted"):
    """PoP to origin: a delta did not fit, send the whole list."""

    have_version: int


class ProbesOffered(Struct, frozen=True, array_like=True, tag="probes_offered"):
    """Origin to PoP, on the control session: it answers `wire.probe` there, while this stands."""

    port: Annotated[int, Meta(ge=1, le=65535)]  # UDP, at the address of this session.
    key_id: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


Message = (
    SessionClosed
    | StreamOpened
    | StreamAccepted
    | StreamRefused
    | StreamClosed
    | StreamWaiting
    | TrackChanged
    | StreamDescribed
    | DescriptionWanted
    | UnitsAcked
    | KeyFrameWanted
    | SubscribeParts
    | RungsWanted
    | SubscribeUnits
    | Unsubscribe
    | SubscriptionAccepted
    | SubscriptionRefused
    | EventsOpened
    | SegmentWanted
    | SegmentOpened
    | SegmentRefused
    | Heartbeat
    | DirectoryDelta
    | DirectoryWanted
    | ProbesOffered
)

_encoder = msgspec.msgpack.Encoder()
_message_decoder = msgspec.msgpack.Decoder(Message)
_hello_decoder = msgspec.msgpack.Decoder(Hello)


def make_hello_frame(hello: Hello) -> bytes:
    """Make the HELLO frame."""
    return make_frame(KIND_HELLO, _encoder.encode(hello))


def parse_hello(frame: memoryview) -> Hello:
    """Parse a HELLO frame; raises RemoteProtocolError."""
    try:
        return _hello_decoder.decode(frame[FRAME_HEADER_BYTES:])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"malformed hello: {error}") from error


def make_message_frame(message: Message) -> bytes:
    """Make a MESSAGE frame; EdgedError if the message exceeds MESSAGE_BYTES_MAX."""
    body = _encoder.encode(message)
    if len(body) > MESSAGE_BYTES_MAX:
        raise EdgedError(
            f"{type(message).__name__} of {len(body)} bytes, allowed are {MESSAGE_BYTES_MAX}"
        )
    return make_frame(KIND_MESSAGE, body)


def encoded_bytes(entry: Struct) -> int:
    """What a part of a message takes, for those who fill messages to a limit."""
    return len(_encoder.encode(entry))


def parse_message(frame: memoryview) -> Message:
    """Parse a MESSAGE frame; raises RemoteProtocolError."""
    try:
        message: Message = _message_decoder.decode(frame[FRAME_HEADER_BYTES:])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"malformed message: {error}") from error
    return message


class EncodedEvent(Struct, frozen=True):
    """A packaged event, encoded once for all who get it."""

    code: int
    meta: bytes
    body: bytes
    event: PackagedEvent


_EVENT_CODES: dict[type, int] = {
    Rendition: 1,
    InitSegment: 2,
    Part: 3,
    SegmentEnded: 4,
    StreamEnded: 5,
    SegmentsListed: 6,
    SegmentPiece: 7,
}
CODE_PIECE = _EVENT_CODES[SegmentPiece]
PIECE_META = _encoder.encode(SegmentPiece(b""))
_event_decoders: dict[int, msgspec.msgpack.Decoder[PackagedEvent | SegmentPiece]] = {
    code: msgspec.msgpack.Decoder(kind) for kind, code in _EVENT_CODES.items()
}
_listed_decoder = msgspec.msgpack.Decoder(tuple[ListedSegment, ...])


def encode_event(event: PackagedEvent) -> EncodedEvent:
    """Encode a packaged event's meta, and set its bytes beside it, uncopied."""
    body = b""
    bare = event
    if isinstance(event, Part):
        body, bare = event.payload, msgspec.structs.replace(event, payload=b"")
    elif isinstance(event, InitSegment):
        body, bare = event.data, msgspec.structs.replace(event, data=b"")
    elif isinstance(event, SegmentsListed) and event.segments:
        body, bare = _encoder.encode(event.segments), msgspec.structs.replace(event, segments=())
    return EncodedEvent(_EVENT_CODES[type(event)], _encoder.encode(bare), body, event)


def parse_event_meta(code: int, meta: memoryview) -> PackagedEvent | SegmentPiece:
    """Parse an event without its body; raises RemoteProtocolError."""
    decoder = _event_decoders.get(code)
    if decoder is None:
        raise RemoteProtocolError(f"packaged event of unknown code {code}")
    try:
        return decoder.decode(meta)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"malformed packaged event of code {code}: {error}") from error


def with_body(event: PackagedEvent | SegmentPiece, body: bytes) -> PackagedEvent | SegmentPiece:
    """Give an event its bytes back; raises RemoteProtocolError if it takes none, or others."""
    if isinstance(event, Part | SegmentPiece):
        return msgspec.structs.replace(event, payload=body)
    if isinstance(event, InitSegment):
        return msgspec.structs.replace(event, data=body)
    if not body:
        return event
    if not isinstance(event, SegmentsListed):
        raise RemoteProtocolError(f"{type(event).__name__} has a body of {len(body)} bytes")
    try:
        return msgspec.structs.replace(event, segments=_listed_decoder.decode(body))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"malformed list of segments: {error}") from error
