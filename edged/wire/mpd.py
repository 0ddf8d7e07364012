"""DASH manifests as text (ISO/IEC 23009-1): live profile, SegmentTemplate with SegmentTimeline.

MPD (availabilityStartTime is 1970: periods begin at wallclock times)
  [Location]
  Period, one for each timeline
    AdaptationSet: [Label], Role
      Representation: [AudioChannelConfiguration]
        SegmentTemplate with $Number$, the MSN, and its SegmentTimeline
  UTCTiming, so that players with wrong clocks know ours
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import quoteattr

from edged.media.manifest import AdaptationSet, Manifest, Period, Representation
from edged.media.track import Kind

PROFILE = "urn:mpeg:dash:profile:isoff-live:2011"
NAMESPACE = "urn:mpeg:dash:schema:mpd:2011"
ROLE = "urn:mpeg:dash:role:2011"
CHANNELS = "urn:mpeg:mpegB:cicp:ChannelConfiguration"
DIRECT = "urn:mpeg:dash:utc:direct:2014"
MIME_TYPES = {Kind.VIDEO: "video/mp4", Kind.AUDIO: "audio/mp4", Kind.DATA: "application/mp4"}
# Channels to ChannelConfiguration (ISO/IEC 23091-3): 8 are 7.1 with four in front, 12.
CONFIGURATIONS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 8: 12}
WALLCLOCK_US_MAX = 253_402_300_799_999_999  # The last microsecond of the year 9999.
TEXT_CHARS_MAX = 64  # Of a publisher's words.
US = 1_000_000
_LANGUAGE = re.compile(r"[a-zA-Z]{1,8}(-[a-zA-Z0-9]{1,8}){0,7}")  # xs:language, of some length.


def render_manifest(manifest: Manifest, *, base: str = "", location: str = "") -> bytes:
    """The manifest's text, UTF-8.

    `base` stands before each address, `location` is where players go on reading it.
    """
    assert manifest.periods, "a manifest without media is not served"
    attributes: dict[str, object] = {
        "xmlns": NAMESPACE,
        "profiles": PROFILE,
        "type": "dynamic",
        "availabilityStartTime": _date_time(0),
        "publishTime": _date_time(manifest.published_us),
        "timeShiftBufferDepth": _duration(manifest.depth_s),
        "suggestedPresentationDelay": _duration(manifest.delay_s),
        "maxSegmentDuration": _duration(manifest.segment_s_max),
        "minBufferTime": _duration(manifest.update_s),
    }
    if manifest.ended_us is None:
        attributes["minimumUpdatePeriod"] = _duration(manifest.update_s)
    else:  # Nothing more will come (§5.3.1.2).
        attributes["mediaPresentationDuration"] = _duration(manifest.ended_us / US)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<MPD{_attributes(attributes)}>"]
    if location:
        lines.append(f"<Location>{location}</Location>")
    for period in manifest.periods:
        lines += _render_period(period, base)
    lines.append(_descriptor("UTCTiming", DIRECT, _date_time(manifest.published_us)))
    lines.append("</MPD>\n")
    return "\n".join(lines).encode()


def _render_period(period: Period, base: str) -> Iterator[str]:
    start = _duration(period.start_us / US)
    yield f"<Period{_attributes({'id': period.name, 'start': start})}>"
    for each in period.sets:
        yield from _render_set(each, base)
    yield "</Period>"


def _render_set(each: AdaptationSet, base: str) -> Iterator[str]:
    attributes: dict[str, object] = {
        "id": each.number,
        "contentType": each.kind.value,
        "mimeType": MIME_TYPES[each.kind],
    }
    if each.language != "und" and _LANGUAGE.fullmatch(each.language):
        attributes["lang"] = each.language
    if each.is_aligned:
        attributes["segmentAlignment"] = "true"
    if each.begins_independent:
        attributes["startWithSAP"] = 1
    yield f"<AdaptationSet{_attributes(attributes)}>"
    if each.label:
        yield f"<Label>{_escaped(each.label)}</Label>"
    yield _descriptor("Role", ROLE, "main" if each.is_main else "alternate")
    for representation in each.representations:
        yield from _render_representation(representation, base)
    yield "</AdaptationSet>"


def _render_representation(shown: Representation, base: str) -> Iterator[str]:
    attributes: dict[str, object] = {
        "id": shown.name,
        "codecs": shown.codecs,
        "bandwidth": max(shown.bandwidth_bps, 1),
    }
    if shown.width and shown.height:
        attributes |= {"width": shown.width, "height": shown.height}
    if shown.sar_num != shown.sar_den:  # Players take samples for square without.
        attributes["sar"] = f"{shown.sar_num}:{shown.sar_den}"
    if shown.frame_rate_num:
        rate, per = shown.frame_rate_num, shown.frame_rate_den
        attributes["frameRate"] = f"{rate}/{per}" if per != 1 else rate
    yield f"<Representation{_attributes(attributes)}>"
    if (configuration := CONFIGURATIONS.get(shown.channels)) is not None:
        yield _descriptor("AudioChannelConfiguration", CHANNELS, str(configuration))
    template = {
        "timescale": shown.timescale,
        "presentationTimeOffset": shown.presentation_offset,
        "startNumber": shown.start_number,
        "initialization": base + shown.init_uri,
        "media": base + shown.media_uri,
    }
    yield f"<SegmentTemplate{_attributes(template)}>"
    yield f"<SegmentTimeline>{''.join(_render_timeline(shown.segments))}</SegmentTimeline>"
    yield "</SegmentTemplate>"
    yield "</Representation>"


def _render_timeline(segments: Sequence[tuple[int, int]]) -> Iterator[str]:
    """S elements; segments that follow each other at the same length are one (§5.3.9.6)."""
    at, expected = 0, None
    while at < len(segments):
        time, length = segments[at]
        count = 1
        for number, following in enumerate(segments[at + 1 :], 1):
            if following != (time + number * length, length):
                break
            count += 1
        begins = f' t="{time}"' if time != expected else ""
        repeat = f' r="{count - 1}"' if count > 1 else ""
        yield f'<S{begins} d="{length}"{repeat}/>'
        at, expected = at + count, time + count * length


def _descriptor(name: str, scheme: str, value: str) -> str:
    return f"<{name}{_attributes({'schemeIdUri': scheme, 'value': value})}/>"


def _attributes(values: dict[str, object]) -> str:
    return "".join(f" {name}={quoteattr(str(value))}" for name, value in values.items())


def _text(text: str) -> str:
    """A publisher's words: none that XML cannot hold, and bounded."""
    return "".join(char for char in text[:TEXT_CHARS_MAX] if char.isprintable())


def _escaped(text: str) -> str:
    return _text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _duration(seconds: float) -> str:
    """An xs:duration, to the millisecond."""
    return f"PT{round(seconds * 1000) / 1000:.3f}S"


def _date_time(wallclock_us: int) -> str:
    """An xs:dateTime with milliseconds, rounded down."""
    whole_s, fraction_us = divmod(min(max(wallclock_us, 0), WALLCLOCK_US_MAX), US)
    moment = datetime.fromtimestamp(whole_s, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction_us // 1000:03d}Z"
