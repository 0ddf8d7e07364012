"""HLS playlists as text (RFC 8216bis): media playlists with parts, and the multivariant playlist.

    VERSION, TARGETDURATION, SERVER-CONTROL, [PART-INF,] MEDIA-SEQUENCE, DISCONTINUITY-SEQUENCE
    in a delta update SKIP, for the oldest segments
    each segment: [DISCONTINUITY] [MAP] PROGRAM-DATE-TIME, its PARTs, then [GAP] EXTINF and its URI
    PRELOAD-HINT of the next part (and its MAP), or ENDLIST; then a RENDITION-REPORT per rendition

Rendering is the edge's hot path: once for each part of each watched rendition. What no longer
changes is rendered once and kept in its entry.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from edged.media.playlist import MediaPlaylist, MultivariantPlaylist, SegmentEntry, Variant
from edged.wire.content_coding import CodedBlock

MEDIA_VERSION = (
    6  # EXT-X-MAP in a playlist of whole segments (RFC 8216bis §8); nothing here needs more.
)
DELTA_VERSION = 9  # EXT-X-SKIP (the same).
WALLCLOCK_US_MAX = 253_402_300_799_999_999  # The last microsecond of the year 9999.
BLOCK_SEGMENTS = 64
US = 1_000_000


class OlderText:
    """The text of those segments of a playlist that no longer change, made once, in blocks.

    So what a playlist of hours costs for each part is to join some dozens of blocks.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, CodedBlock] = {}  # By MSN // BLOCK_SEGMENTS.

    def take(self, segments: Sequence[SegmentEntry], count: int) -> list[CodedBlock]:
        """Whole blocks of the oldest `count` segments, the first with what stands before it."""
        first_msn = segments[0].msn
        start = BLOCK_SEGMENTS - first_msn % BLOCK_SEGMENTS
        numbers = range(
            (first_msn + start) // BLOCK_SEGMENTS, (first_msn + count) // BLOCK_SEGMENTS
        )
        for number in [n for n in self._blocks if n not in numbers]:
            del self._blocks[number]
        if not numbers:
            return []
        for number in numbers:
            if number not in self._blocks:
                at = number * BLOCK_SEGMENTS - first_msn
                text = _render_run(segments[at : at + BLOCK_SEGMENTS], segments[at - 1].init_uri)
                self._blocks[number] = CodedBlock(text.encode())
        first = CodedBlock(_render_run(segments[:start], "").encode())
        return [first, *(self._blocks[number] for number in numbers)]


def render_media_playlist(playlist: MediaPlaylist, *, delta: bool = False) -> bytes:
    """The media playlist's text, UTF-8; `delta`: as an update (RFC 8216bis §6.2.5.1).

    An update is the whole where nothing is old enough to be left out, or all is final.
    """
    return b"".join(block.text for block in render_blocks(playlist, OlderText(), delta=delta))


def render_blocks(
    playlist: MediaPlaylist, older: OlderText, *, delta: bool = False
) -> list[CodedBlock]:
    """The same in blocks, of which `older` has made some before."""
    segments = playlist.segments
    assert segments, "a playlist without segments is not served"
    skipped = playlist.skippable if delta and not playlist.ended else 0
    target_s = playlist.target_duration_s
    has_parts = playlist.part_target_us > 0
    part_hold_back = f"PART-HOLD-BACK={_seconds(playlist.part_hold_back_us)}," if has_parts else ""
    part_inf = f"#EXT-X-PART-INF:PART-TARGET={_seconds(playlist.part_target_us)}\n"
    head = (
        f"#EXTM3U\n#EXT-X-VERSION:{DELTA_VERSION if skipped else MEDIA_VERSION}\n"
        f"#EXT-X-TARGETDURATION:{target_s}\n"
        f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={playlist.skip_until_s},"
        f"{part_hold_back}HOLD-BACK={playlist.hold_back_s}\n{part_inf if has_parts else ''}"
        f"#EXT-X-MEDIA-SEQUENCE:{segments[0].msn}\n"
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{playlist.discontinuity_sequence}\n"
    )
    blocks: list[CodedBlock] = []
    start = skipped
    if skipped:
        head += f"#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}\n"
    else:
        blocks = older.take(segments, playlist.skippable)
        if blocks:
            start = segments[0].msn
            start = (start // BLOCK_SEGMENTS + len(blocks)) * BLOCK_SEGMENTS - start
    init_uri = segments[start - 1].init_uri if start else ""
    rest = _render_run(segments[start:], init_uri, parts_from=playlist.parts_from - start)
    rest += _render_end(playlist)
    if not blocks:
        return [CodedBlock((head + rest).encode())]
    return [CodedBlock(head.encode()), *blocks, CodedBlock(rest.encode())]


def _render_run(
    segments: Sequence[SegmentEntry], init_uri: str, *, parts_from: int = BLOCK_SEGMENTS
) -> str:
    """Segments behind one that has that init; without their parts before `parts_from`."""
    out = []
    for position, entry in enumerate(segments):
        # RFC 8216bis §4.4.4.9: what applies to a segment stands before its first part.
        if entry.discontinuity:
            out.append("#EXT-X-DISCONTINUITY\n")
        if entry.init_uri != init_uri:
            init_uri = entry.init_uri
            out.append(f'#EXT-X-MAP:URI="{init_uri}"\n')
        out.append(_render_segment(entry, with_parts=position >= parts_from))
    return "".join(out)


def render_multivariant(playlist: MultivariantPlaylist, base: str = "") -> bytes:
    """The multivariant playlist's text, UTF-8; `base` stands before each URI."""
    out = ["#EXTM3U\n", f"#EXT-X-VERSION:{MEDIA_VERSION}\n"]
    for audio in playlist.audio:
        language = (
            f',LANGUAGE="{_quoted(audio.language)}"' if audio.language not in ("", "und") else ""
        )
        channels = f',CHANNELS="{audio.channels}"' if audio.channels else ""
        default = "YES" if audio.default else "NO"
        autoselect = "YES" if audio.autoselect or audio.default else "NO"
        out.append(
            f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="{audio.group}",NAME="{_quoted(audio.name)}"{language},'
            f'DEFAULT={default},AUTOSELECT={autoselect}{channels},URI="{base}{audio.uri}"\n'
        )
    for variant in playlist.variants:
        group = f',AUDIO="{variant.audio_group}"' if variant.audio_group else ""
        out.append(f"#EXT-X-STREAM-INF:{_stream_attributes(variant)}{group}\n{base}{variant.uri}\n")
    return "".join(out).encode()


def _render_segment(entry: SegmentEntry, *, with_parts: bool) -> str:
    if not entry.head_text:
        entry.head_text = f"#EXT-X-PROGRAM-DATE-TIME:{_date_time(entry.wallclock_us)}\n"
    if with_parts and entry.parts_rendered < len(entry.parts):
        lines = [entry.parts_text]
        for part in entry.parts[entry.parts_rendered :]:
            independent = ",INDEPENDENT=YES" if part.independent else ""
            gap = ",GAP=YES" if part.gap else ""
            lines.append(
                f"#EXT-X-PART:DURATION={_seconds(part.duration_us)},"
                f'URI="{part.uri}"{independent}{gap}\n'
            )
        entry.parts_text = "".join(lines)
        entry.parts_rendered = len(entry.parts)
    if entry.complete and not entry.tail_text:
        gap = "#EXT-X-GAP\n" if entry.gap else ""
        entry.tail_text = f"{gap}#EXTINF:{_seconds(entry.duration_us)},\n{entry.uri}\n"
    if with_parts:
        return entry.head_text + entry.parts_text + entry.tail_text
    return entry.head_text + entry.tail_text


def _render_end(playlist: MediaPlaylist) -> str:
    text = "#EXT-X-ENDLIST\n" if playlist.ended else ""
    if playlist.hint_init_uri is not None and not playlist.ended:
        text += f'#EXT-X-PRELOAD-HINT:TYPE=MAP,URI="{playlist.hint_init_uri}"\n'
    if playlist.hint_uri is not None and not playlist.ended:
        text += f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{playlist.hint_uri}"\n'
    for report in playlist.reports:
        part = "" if report.last_part is None else f",LAST-PART={report.last_part}"
        text += f'#EXT-X-RENDITION-REPORT:URI="{report.uri}",LAST-MSN={report.last_msn}{part}\n'
    return text


def _stream_attributes(variant: Variant) -> str:
    bandwidth_bps = max(variant.bandwidth_bps, variant.bandwidth_bps_mean, 1)
    codecs = ",".join(map(_quoted, variant.codecs))
    text = f"BANDWIDTH={bandwidth_bps},AVERAGE-BANDWIDTH={max(variant.bandwidth_bps_mean, 1)}"
    text += f',CODECS="{codecs}"'
    if variant.width and variant.height:
        text += f",RESOLUTION={variant.width}x{variant.height}"
    if variant.frame_rate_num:
        text += f",FRAME-RATE={variant.frame_rate_num / variant.frame_rate_den:.3f}"
    return text


def _seconds(duration_us: int) -> str:
    """Microseconds as a decimal number of seconds, exactly."""
    whole, fraction = divmod(duration_us, US)
    return f"{whole}.{fraction:06d}"


def _date_time(wallclock_us: int) -> str:
    """ISO 8601 with milliseconds (RFC 8216bis §4.4.4.6), rounded down."""
    # A publisher's timestamps may lead anywhere; years have four digits.
    whole_s, fraction_us = divmod(min(max(wallclock_us, 0), WALLCLOCK_US_MAX), US)
    moment = datetime.fromtimestamp(whole_s, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction_us // 1000:03d}Z"


def _quoted(text: str) -> str:
    """Text for a quoted string (RFC 8216bis §4.2): no quote, no control character, bounded."""
    return "".join(char for char in text[:64] if char.isprintable() and char != '"')
