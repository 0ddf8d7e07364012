"""What onMetaData says of single tracks (E-RTMP v2, "Enhancing onMetaData").

    videoTrackIdInfoMap: {"1": {width: 1280, framerate: 30, ...}, ...}
    audioTrackIdInfoMap: {"1": {language: "de", title: "Deutsch", ...}, ...}

Keys are track ids as on the wire. The specification leaves the properties open; of those in use we
take the frame rate, the language and the name. What is malformed is passed over: it is but a hint.
"""

import re

from msgspec import Struct

from edged.wire.rtmp.amf0 import AmfValue

TRACK_ID_MAX = 255  # It has 8 bits on the wire.
NAME_CHARS_MAX = 64  # What a player's menu has room for.
_MAPS = (("videoTrackIdInfoMap", 1), ("audioTrackIdInfoMap", 2))
_ID = re.compile(r"[0-9]{1,3}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}")  # RFC 5646 §2.1, in shape.


class TrackInfo(Struct, frozen=True):
    """What is said of one track; empty and 0 where nothing is."""

    language: str = ""
    name: str = ""
    frame_rate: float = 0.0


def parse_track_info(values: dict[str, AmfValue]) -> dict[int, TrackInfo]:
    """What onMetaData says of its tracks, by our track id (video 2n + 1, audio 2n + 2)."""
    found: dict[int, TrackInfo] = {}
    for key, first in _MAPS:
        tracks = values.get(key)
        if not isinstance(tracks, dict):
            continue
        for number, members in tracks.items():
            if _ID.fullmatch(number) is None or int(number) > TRACK_ID_MAX:
                continue
            if isinstance(members, dict):
                found[2 * int(number) + first] = _parse(members)
    return found


def _parse(members: dict[str, AmfValue]) -> TrackInfo:
    language = _text(members, "language", "lang")
    rate = members.get("framerate")
    return TrackInfo(
        language=language if _LANGUAGE.fullmatch(language) else "",
        name=_text(members, "name", "title", "label"),
        frame_rate=rate if isinstance(rate, float) else 0.0,
    )


def _text(members: dict[str, AmfValue], *keys: str) -> str:
    """The first that is text: printable, in one line, of bounded length."""
    for key in keys:
        value = members.get(key)
        if isinstance(value, str):
            text = "".join(char for char in value if char.isprintable()).strip()
            if text:
                return text[:NAME_CHARS_MAX].strip()
    return ""
