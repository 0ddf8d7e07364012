"""What people are told of a stream (title, category, labels), changed while it is live.

The PoP where a stream is published has the truth. It keeps what was changed for KEPT_S after the
stream's end, because an encoder that lost its connection comes back as a new publication.
"""

from edged.media.stream import Description, DescriptionChange, Grant

TITLE_CHARS_MAX = 200
CATEGORY_CHARS_MAX = 100
LABELS_MAX = 10
LABEL_CHARS_MAX = 50
KEPT_S = 600.0  # An encoder's restart, or a broken line; the next show begins with the key's title.
CHANNELS_MAX = 10_000  # Beyond it the one changed the longest ago is forgotten.


def find_problem(change: DescriptionChange) -> str:
    """Say what is wrong with a change; "" when it can be made."""
    texts = [("title", change.title, TITLE_CHARS_MAX)]
    texts.append(("category", change.category, CATEGORY_CHARS_MAX))
    labels = change.labels or ()
    if len(labels) > LABELS_MAX:
        return f"tags: {len(labels)} exceed {LABELS_MAX}"
    texts += [(f"tags[{index}]", label, LABEL_CHARS_MAX) for index, label in enumerate(labels)]
    for name, text, chars_max in texts:
        if text is None:
            continue
        if len(text) > chars_max:
            return f"{name}: {len(text)} characters exceed {chars_max}"
        bad = next((char for char in text if not _is_fit(char)), None)
        if bad is not None:
            return f"{name}: the character U+{ord(bad):04X} is not allowed"
    if any(not label.strip() for label in labels):
        return "tags: one is empty"
    if len(set(labels)) != len(labels):
        return "tags: one is there twice"
    return ""


def cut(text: str, chars_max: int) -> str:
    """A text of a peer as we list it: without what `find_problem` refuses."""
    return "".join(char for char in text[:chars_max] if _is_fit(char))


def _is_fit(char: str) -> bool:
    """Whether a text may hold it: no controls (C0, DEL, C1), line or paragraph ends, surrogates,
    nor what turns the direction of the text around it.
    """
    code = ord(char)
    is_control = code < 0x20 or 0x7F <= code < 0xA0  # noqa: PLR2004 - the ranges' own names
    is_layout = code in (0x2028, 0x2029) or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069  # noqa: PLR2004
    return not (is_control or is_layout or 0xD800 <= code <= 0xDFFF)  # noqa: PLR2004


class _Kept:
    __slots__ = ("description", "ended_at", "granted")

    def __init__(self, granted: Description, description: Description) -> None:
        self.granted = granted  # What the stream key says.
        self.description = description
        self.ended_at: float | None = None  # None while it is live.


class KeptDescriptions:
    """What was changed at this PoP, by channel, for a publication that comes back."""

    def __init__(self, channels_max: int = CHANNELS_MAX) -> None:
        self._channels_max = channels_max
        self._kept: dict[str, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def changed(self, channel: str, before: Description, after: Description) -> None:
        """Note a change of a stream that is live."""
        known = self._kept.pop(channel, None)
        granted = before if known is None else known.granted
        self._kept[channel] = _Kept(granted, after)
        if len(self._kept) > self._channels_max:
            del self._kept[next(iter(self._kept))]

    def ended(self, channel: str, now: float) -> None:
        """Note the end of a stream."""
        if (known := self._kept.get(channel)) is not None:
            known.ended_at = now

    def adopt(self, grant: Grant, now: float) -> Grant:
        """What a new publication begins with: the last description, if that is not long ago.

        A key that says something else than the last one has a show of its own.
        """
        known = self._kept.get(grant.channel)
        if known is None:
            return grant
        is_old = known.ended_at is not None and now - known.ended_at >= KEPT_S
        if is_old or known.granted != grant.description:
            del self._kept[grant.channel]
            return grant
        known.ended_at = None
        return grant.described(known.description)
