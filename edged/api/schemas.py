"""The bodies and queries of the API, as they are on the wire."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from edged.policy.descriptions import (
    CATEGORY_CHARS_MAX,
    LABEL_CHARS_MAX,
    LABELS_MAX,
    TITLE_CHARS_MAX,
)

KEY_CHARS_MAX = 1024  # As for publishers.
PAGE_MAX = 500

Title = Annotated[str, Meta(max_length=TITLE_CHARS_MAX, description="Shown to viewers.")]
Category = Annotated[str, Meta(max_length=CATEGORY_CHARS_MAX, description="What it is about.")]
Tags = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=LABEL_CHARS_MAX)]],
    Meta(
        max_length=LABELS_MAX,
        description="Words that describe it; those of the stream key, for routing, are others.",
    ),
]


class IngestRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where shall I publish?"""

    stream_key: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=KEY_CHARS_MAX,
            description="It is looked at as if you published; wrong ones count.",
        ),
    ]
    codec: (
        Annotated[
            str, Meta(max_length=32, description="Of the video: `h264`, `h265`, `av1` or `vp9`.")
        ]
        | None
    ) = None
    bitrate_bps: (
        Annotated[int, Meta(ge=1, description="Bits per second, sound included.")] | None
    ) = None
    protocol: (
        Annotated[str, Meta(max_length=16, description="`rtmp`, `rtmps`; any by default.")] | None
    ) = None

    def __repr__(self) -> str:
        """Without the key, which must come into no log."""
        return f"IngestRequest(codec={self.codec!r}, bitrate_bps={self.bitrate_bps!r})"


class IngestPlaceView(Struct, frozen=True, kw_only=True):
    """A PoP that would take the stream."""

    pop: str
    url: Annotated[str, Meta(description="The encoder's server URL; the key is its own field.")]
    protocol: str


class IngestAnswer(Struct, frozen=True, kw_only=True):
    """Publish here."""

    url: Annotated[str, Meta(description="The encoder's server URL; the key is its own field.")]
    pop: str
    protocol: str
    channel: str
    reason: Annotated[str, Meta(description="Why there.")]
    alternatives: Annotated[
        list[IngestPlaceView], Meta(description="The next best, in order, should it fail.")
    ]


class VideoView(Struct, frozen=True, kw_only=True):
    """A video track."""

    codec: Annotated[str, Meta(description="RFC 6381, as `avc1.64001f`.")]
    width: int
    height: int
    frame_rate: float | None


class AudioView(Struct, frozen=True, kw_only=True):
    """An audio track."""

    codec: Annotated[str, Meta(description="RFC 6381, as `mp4a.40.2`.")]
    channels: int


class MediaView(Struct, frozen=True, kw_only=True):
    """What a stream consists of."""

    video: list[VideoView]
    audio: list[AudioView]


class StreamView(Struct, frozen=True, kw_only=True):
    """A stream that is live, in lists."""

    channel: str
    title: str
    category: str
    tags: list[str]
    started_at: Annotated[str, Meta(description="RFC 3339, UTC.")]
    viewers: Annotated[int, Meta(ge=0, description="At this PoP.")]
    watch_url: Annotated[str, Meta(description="A page, relative to this server.")]
    playlist_url: Annotated[str, Meta(description="For players, relative to this server.")]


class StreamDetail(StreamView, frozen=True, kw_only=True):
    """A stream that is live."""

    media: Annotated[
        MediaView | None, Meta(description="Null while this PoP has not seen any of it.")
    ]


class StreamList(Struct, frozen=True, kw_only=True):
    """A page of the streams that are live, most watched here first."""

    streams: list[StreamView]
    total: Annotated[int, Meta(ge=0, description="Of all pages.")]
    next_cursor: Annotated[str | None, Meta(description="For the next page; null on the last.")]


class StreamQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which streams."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="Of one page.")] = 100
    cursor: Annotated[
        str, Meta(max_length=256, description="`next_cursor` of the page before.")
    ] = ""
    category: Annotated[
        str, Meta(max_length=CATEGORY_CHARS_MAX, description="Only these; case is ignored.")
    ] = ""
    tag: Annotated[
        str, Meta(max_length=LABEL_CHARS_MAX, description="Only with it; case is ignored.")
    ] = ""


class StreamChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """New values (RFC 7396): what is left out stays, null empties."""

    title: Title | UnsetType | None = UNSET
    category: Category | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET


class Health(Struct, frozen=True, kw_only=True):
    """Whether this PoP should be sent new clients."""

    status: Annotated[str, Meta(description="`ok` or `failing`.")]
    reasons: Annotated[
        list[str],
        Meta(description="`loop_lag`, `no_table`, `no_origin`, `draining`: why it is failing."),
    ]
