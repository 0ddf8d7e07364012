"""The multivariant playlist: which rungs there are, and which audio may go with each.

Rungs are listed from the largest. Audio renditions are alternatives in one group where one codec
has them all. Where the same languages come in several codecs, each codec has a group, and each rung
is listed once for each group, so that a player that lacks a codec finds a variant without it. What
only one codec has stands in every group (RFC 8216bis §4.4.6.2: groups have the same members), and
CODECS names every format of a variant and its group. Where the origin offers sound alone, each
group has a variant of it, behind the rungs: its URI is that of the group's first member.
"""

from collections.abc import Iterator

from msgspec import Struct

from edged.media.parts import Rendition
from edged.media.playlist import (
    AudioRendition,
    MultivariantPlaylist,
    Variant,
    playlist_name,
)
from edged.media.track import Kind
from edged.policy.rendition_window import RenditionWindow

ONE_GROUP = "audio"
LABEL_CHARS_MAX = 44  # With our name behind it it is still whole in a playlist.


class _Group(Struct):
    """Audio renditions that go with a rung together, by their member's name."""

    name: str
    members: dict[str, RenditionWindow]


def make_multivariant(prefix: str, windows: list[RenditionWindow]) -> MultivariantPlaylist:
    """The playlist of these renditions, which all have media; `prefix` begins their URIs."""
    video = [window for window in windows if window.rendition.kind is Kind.VIDEO]
    audio = [window for window in windows if window.rendition.kind is Kind.AUDIO]
    if not video:
        alone = [_variant(prefix, window, None) for window in audio]
        return MultivariantPlaylist(variants=alone, audio=[])
    groups: list[_Group | None] = [*_make_groups(audio)] or [None]
    return MultivariantPlaylist(
        variants=[
            _variant(prefix, rung, group)
            for group in groups
            for rung in sorted(video, key=_size, reverse=True)
        ]
        + [alone for group in groups if group for alone in _alone(prefix, group)],
        audio=[each for group in groups if group for each in _alternatives(prefix, group)],
    )


def _size(window: RenditionWindow) -> tuple[int, float, int]:
    """The order of rungs; the bit rate, which varies, decides only between equal pictures."""
    shown = window.rendition
    rate = shown.frame_rate_num / max(shown.frame_rate_den, 1)
    return shown.width * shown.height, rate, window.bandwidth_bps


def _make_groups(audio: list[RenditionWindow]) -> list[_Group]:
    """A group for each codec, completed by other codecs' renditions; equal ones only once."""
    by_codec: dict[str, dict[tuple[str, str, int], RenditionWindow]] = {}
    for window in audio:
        same = by_codec.setdefault(_codec(window.rendition), {})
        language, label = window.rendition.language, window.rendition.label
        number = sum(key[:2] == (language, label) for key in same)
        same[language, label, number] = window
    first: dict[tuple[str, str, int], RenditionWindow] = {}
    for same in by_codec.values():
        for key, window in same.items():
            first.setdefault(key, window)
    names = dict(zip(first, _name(list(first.values())), strict=True))
    groups: list[_Group] = []
    for codec, same in by_codec.items():
        members = {names[key]: same.get(key, window) for key, window in first.items()}
        if all(group.members != members for group in groups):
            groups.append(_Group(f"{ONE_GROUP}-{codec}", members))
    if len(groups) == 1:
        groups[0].name = ONE_GROUP
    return groups


def _name(windows: list[RenditionWindow]) -> Iterator[str]:
    """What a menu shows: the publisher's name, else the language, else ours; each once."""
    taken: set[str] = set()
    for window in windows:
        shown = window.rendition
        language = "" if shown.language == "und" else shown.language
        label = shown.label.replace('"', "'")[:LABEL_CHARS_MAX]
        name = label or language or shown.name
        while name in taken:
            name = f"{name} {shown.name}"
        taken.add(name)
        yield name


def _codec(rendition: Rendition) -> str:
    """The sample entry's name, the first element of the codec string: "mp4a", "opus"."""
    return "".join(filter(str.isalnum, rendition.codec_string.partition(".")[0].lower()))


def _alternatives(prefix: str, group: _Group) -> Iterator[AudioRendition]:
    languages: set[str] = set()
    for number, (name, window) in enumerate(group.members.items()):
        shown = window.rendition
        yield AudioRendition(
            uri=f"{prefix}/{playlist_name(shown.name)}",
            name=name,
            language=shown.language,
            channels=shown.channels,
            default=number == 0,
            autoselect=shown.language not in languages,
            group=group.name,
        )
        languages.add(shown.language)


def _alone(prefix: str, group: _Group) -> Iterator[Variant]:
    """The variant of a group's sound without a picture, if it is offered."""
    members = list(group.members.values())
    if not members[0].rendition.alone:
        return
    codecs = [codec for each in members for codec in each.codec_strings]
    yield Variant(
        uri=f"{prefix}/{playlist_name(members[0].rendition.name)}",
        bandwidth_bps=max(each.bandwidth_bps for each in members),
        bandwidth_bps_mean=max(each.bandwidth_bps_mean for each in members),
        codecs=tuple(dict.fromkeys(codecs)),
        audio_group=group.name,
    )


def _variant(prefix: str, window: RenditionWindow, group: _Group | None) -> Variant:
    shown = window.rendition
    beside = [] if group is None else list(group.members.values())
    codecs = [codec for each in (window, *beside) for codec in each.codec_strings]
    return Variant(
        uri=f"{prefix}/{playlist_name(shown.name)}",
        bandwidth_bps=window.bandwidth_bps
        + max((other.bandwidth_bps for other in beside), default=0),
        bandwidth_bps_mean=window.bandwidth_bps_mean
        + max((other.bandwidth_bps_mean for other in beside), default=0),
        codecs=tuple(dict.fromkeys(codecs)),
        width=shown.width,
        height=shown.height,
        frame_rate_num=shown.frame_rate_num,
        frame_rate_den=shown.frame_rate_den,
        audio_group="" if group is None else group.name,
    )
