"""What a playlist says, before it is text: the window fills these in, `wire.m3u8` renders them.

URIs are relative to the stream's folder, `/live/CHANNEL/PUB/`, where the media playlists live:

    NAME.m3u8   NAME-DIGEST.mp4   NAME-MSN.INDEX.m4s   NAME-MSN.m4s

The `..._text` fields are the renderer's: what it made of that which no longer changes, so that one
new part costs one new line and not a new playlist.
"""

from collections.abc import Sequence

from msgspec import Struct, field


def playlist_name(rendition: str) -> str:
    """The name of a rendition's media playlist."""
    return f"{rendition}.m3u8"


def init_name(rendition: str, digest: str) -> str:
    """The name of one of a rendition's init segments."""
    return f"{rendition}-{digest}.mp4"


def part_name(rendition: str, msn: int, index: int) -> str:
    """The name of a part."""
    return f"{rendition}-{msn}.{index}.m4s"


def segment_name(rendition: str, msn: int) -> str:
    """The name of a whole segment."""
    return f"{rendition}-{msn}.m4s"


def media_numbers(name: str) -> tuple[int, int | None] | None:
    """MSN and index of a part's name, MSN and None of a segment's; None for any other name."""
    rendition, _, rest = name.partition("-")
    where = rest.removesuffix(".m4s").split(".")
    if not all(number.isascii() and number.isdigit() for number in where):
        return None
    numbers = [int(number[:20]) for number in where]  # Longer ones differ from what is made below.
    if len(numbers) == 1 and name == segment_name(rendition, *numbers):
        return numbers[0], None
    if len(numbers) == 2 and name == part_name(rendition, *numbers):  # noqa: PLR2004 - msn, index
        return numbers[0], numbers[1]
    return None


class PartEntry(Struct, frozen=True):
    """One EXT-X-PART."""

    uri: str
    duration_us: int
    independent: bool = False
    gap: bool = False


class SegmentEntry(Struct, kw_only=True):
    """One segment of a media playlist; the last one may still be growing."""

    msn: int
    uri: str
    init_uri: str
    wallclock_us: int  # Since 1970, of what is presented first.
    discontinuity: bool = False
    gap: bool = False
    complete: bool = False
    duration_us: int = 0  # Of the whole segment once it is complete, else of its parts so far.
    parts: list[PartEntry] = field(default_factory=list)
    head_text: str = ""
    parts_text: str = ""
    parts_rendered: int = 0  # How many of `parts` are in `parts_text`.
    tail_text: str = ""


class RenditionReport(Struct, frozen=True):
    """How far another rendition is; `last_part` is None when its newest segment has no parts."""

    uri: str
    last_msn: int
    last_part: int | None


class MediaPlaylist(Struct, kw_only=True):
    """One rendition's media playlist at one instant."""

    target_duration_s: int
    part_target_us: int  # 0: parts are not told.
    part_hold_back_us: int
    hold_back_s: int
    discontinuity_sequence: int
    segments: Sequence[SegmentEntry]  # Not empty; it goes on changing, as the playlist does.
    parts_from: int  # Index into `segments`: those before it are listed without their parts.
    skip_until_s: int  # The Skip Boundary: before it a delta update may leave out segments,
    skippable: int = 0  # so many as of now.
    reports: Sequence[RenditionReport] = ()
    hint_uri: str | None = None  # The next part; None when ended.
    hint_init_uri: str | None = None  # The next part's init, when it is not the last part's.
    ended: bool = False


class AudioRendition(Struct, frozen=True, kw_only=True):
    """One EXT-X-MEDIA of TYPE=AUDIO."""

    uri: str
    name: str  # What a player's menu shows; once in each group.
    language: str  # RFC 5646; "und" is left out.
    channels: int
    default: bool
    autoselect: bool = True  # No other of the group with this language is.
    group: str = "audio"


class Variant(Struct, frozen=True, kw_only=True):
    """One EXT-X-STREAM-INF."""

    uri: str
    bandwidth_bps: int  # Peak segment bit rate, of the variant and its group's greatest audio.
    bandwidth_bps_mean: int
    codecs: tuple[str, ...]  # RFC 6381: every format that the variant and its audio may hold.
    width: int = 0
    height: int = 0
    frame_rate_num: int = 0
    frame_rate_den: int = 1
    audio_group: str = ""  # Empty where there is no audio beside it.


class MultivariantPlaylist(Struct, frozen=True, kw_only=True):
    """The stream's multivariant playlist."""

    variants: Sequence[Variant]
    audio: Sequence[AudioRendition] = ()
