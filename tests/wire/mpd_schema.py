"""Whether an MPD is valid: a check written from ISO/IEC 23009-1, as its schema is in no package.

Names, order and number of children, attributes and their types are those of the elements that
edged writes and of what may stand beside them (clause 5, Annex B); beyond the schema, what the text
demands of a dynamic MPD of the live profile (clauses 5.3 and 8.4).
"""

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from msgspec import Struct

NAMESPACE = "urn:mpeg:dash:schema:mpd:2011"
SPACES = {"": NAMESPACE}
MANY = 1 << 30

# Lexical spaces: XML Schema's, and the MPD schema's own types.
UINT = r"\d+"
INT = r"-?\d+"
BOOLEAN = "true|false|0|1"
DOUBLE = r"-?\d+(\.\d+)?([eE][-+]?\d+)?|INF"
DURATION = r"PT(?=\d)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?"
DATE_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
ANY_URI = r"[^\s<>\"{}|\\^`]*"
TEXT = r"[\s\S]*"
NO_SPACE = r"[^\r\n\t \xa0]*"
LANGUAGE = r"[a-zA-Z]{1,8}(-[a-zA-Z0-9]{1,8})*"
RATIO = r"[0-9]*:[0-9]*"
FRAME_RATE = r"[0-9]*[0-9](/[0-9]*[0-9])?"
SAP = "[0-6]"
CODECS = r"[^ ,]+(,[^ ,]+)*"
MIME = r"[a-z]+/[a-zA-Z0-9.+-]+"
KIND = "dynamic|static"
CONTENT = "text|image|audio|video|application|font"


class Element(Struct, frozen=True, kw_only=True):
    """What may be in an element."""

    attributes: dict[str, str] = {}  # Patterns.
    required: frozenset[str] = frozenset()
    children: tuple[tuple[str, int, int], ...] = ()  # In order: name, least and most.
    text: str = ""  # The pattern of its content.


def _any(*names: str) -> tuple[tuple[str, int, int], ...]:
    return tuple((name, 0, MANY) for name in names)


def _one(*names: str) -> tuple[tuple[str, int, int], ...]:
    return tuple((name, 0, 1) for name in names)


_DESCRIPTOR = Element(
    attributes={"schemeIdUri": ANY_URI, "value": TEXT, "id": TEXT},
    required=frozenset({"schemeIdUri"}),
)
# RepresentationBaseType (§5.3.7).
_BASE_ATTRIBUTES = {
    "profiles": TEXT, "width": UINT, "height": UINT, "sar": RATIO, "frameRate": FRAME_RATE,
    "audioSamplingRate": r"\d+( \d+)?", "mimeType": MIME, "codecs": CODECS,
    "startWithSAP": SAP, "maxPlayoutRate": DOUBLE, "codingDependency": BOOLEAN,
    "scanType": "progressive|interlaced|unknown",
}  # fmt: skip
_BASE_CHILDREN = _any(
    "FramePacking", "AudioChannelConfiguration", "ContentProtection", "EssentialProperty",
    "SupplementalProperty", "InbandEventStream", "Switching", "RandomAccess", "GroupLabel",
    "Label", "ProducerReferenceTime", "ContentPopularityRate", "Resync",
)  # fmt: skip
_SEGMENTS = _one("SegmentBase", "SegmentList", "SegmentTemplate")

ELEMENTS = {
    "MPD": Element(
        attributes={
            "id": TEXT, "profiles": TEXT, "type": KIND, "availabilityStartTime": DATE_TIME,
            "availabilityEndTime": DATE_TIME, "publishTime": DATE_TIME,
            "mediaPresentationDuration": DURATION, "minimumUpdatePeriod": DURATION,
            "minBufferTime": DURATION, "timeShiftBufferDepth": DURATION,
            "suggestedPresentationDelay": DURATION, "maxSegmentDuration": DURATION,
            "maxSubsegmentDuration": DURATION,
        },
        required=frozenset({"profiles", "minBufferTime"}),
        children=(
            *_any("ProgramInformation", "BaseURL", "Location", "PatchLocation",
                  "ServiceDescription", "ContentProtection"),
            ("Period", 1, MANY),
            *_any("Metrics", "EssentialProperty", "SupplementalProperty", "UTCTiming"),
            *_one("LeapSecondInformation"),
        ),
    ),
    "Location": Element(text=ANY_URI),
    "Period": Element(
        attributes={"id": TEXT, "start": DURATION, "duration": DURATION,
                    "bitstreamSwitching": BOOLEAN},
        children=(
            *_any("BaseURL"), *_SEGMENTS, *_one("AssetIdentifier"),
            *_any("EventStream", "ServiceDescription", "ContentProtection", "AdaptationSet",
                  "Subset", "SupplementalProperty"),
        ),
    ),
    "AdaptationSet": Element(
        attributes=_BASE_ATTRIBUTES | {
            "id": UINT, "group": UINT, "lang": LANGUAGE, "contentType": CONTENT, "par": RATIO,
            "minBandwidth": UINT, "maxBandwidth": UINT, "segmentAlignment": BOOLEAN,
            "subsegmentAlignment": BOOLEAN, "subsegmentStartsWithSAP": SAP,
            "bitstreamSwitching": BOOLEAN,
        },
        children=(
            *_BASE_CHILDREN,
            *_any("Accessibility", "Role", "Rating", "Viewpoint", "ContentComponent", "BaseURL"),
            *_SEGMENTS, *_any("Representation"),
        ),
    ),
    "Representation": Element(
        attributes=_BASE_ATTRIBUTES | {
            "id": NO_SPACE, "bandwidth": UINT, "qualityRanking": UINT, "dependencyId": TEXT,
        },
        required=frozenset({"id", "bandwidth"}),
        children=(
            *_BASE_CHILDREN, *_any("BaseURL", "ExtendedBandwidth", "SubRepresentation"),
            *_SEGMENTS,
        ),
    ),
    "SegmentTemplate": Element(
        attributes={
            "timescale": UINT, "presentationTimeOffset": UINT, "presentationDuration": UINT,
            "availabilityTimeOffset": DOUBLE, "availabilityTimeComplete": BOOLEAN,
            "duration": UINT, "startNumber": UINT, "endNumber": UINT,
            "media": TEXT, "index": TEXT, "initialization": TEXT, "bitstreamSwitching": TEXT,
        },
        children=_one("Initialization", "RepresentationIndex", "SegmentTimeline",
                      "BitstreamSwitching"),
    ),
    "SegmentTimeline": Element(children=(("S", 1, MANY),)),
    "S": Element(
        attributes={"t": UINT, "n": UINT, "d": UINT, "r": INT, "k": UINT},
        required=frozenset({"d"}),
    ),
    "Label": Element(attributes={"id": UINT, "lang": LANGUAGE}, text=TEXT),
    "Role": _DESCRIPTOR,
    "AudioChannelConfiguration": _DESCRIPTOR,
    "UTCTiming": _DESCRIPTOR,
}  # fmt: skip


def check_mpd(text: bytes) -> list[str]:
    """What is wrong with an MPD, by where it is."""
    root = ElementTree.fromstring(text)  # noqa: S314 - our own
    if root.tag != f"{{{NAMESPACE}}}MPD":
        return [f"the root is {root.tag}"]
    found = list(_check(root, "MPD"))
    return found or list(_check_rules(root))


def _name(node: ElementTree.Element) -> str:
    return node.tag.removeprefix(f"{{{NAMESPACE}}}")


def _check(node: ElementTree.Element, path: str) -> Iterator[str]:
    allowed = ELEMENTS.get(_name(node))
    if allowed is None:
        yield f"{path}: no such element is known here"
        return
    for name, value in node.attrib.items():
        pattern = allowed.attributes.get(name)
        if pattern is None:
            yield f"{path}: attribute {name}"
        elif re.fullmatch(pattern, value) is None:
            yield f"{path}: {name}={value!r}"
    for name in allowed.required - node.attrib.keys():
        yield f"{path}: without {name}"
    content = (node.text or "").strip()
    if allowed.text:
        if re.fullmatch(allowed.text, content) is None:
            yield f"{path}: {content!r}"
    elif content:
        yield f"{path}: text {content!r}"
    names = [_name(child) for child in node]
    yield from _check_order(names, allowed.children, path)
    for number, child in enumerate(node):
        yield from _check(child, f"{path}/{_name(child)}[{number}]")


def _check_order(
    names: Sequence[str], allowed: Sequence[tuple[str, int, int]], path: str
) -> Iterator[str]:
    at = 0
    for name, least, most in allowed:
        count = 0
        while at < len(names) and names[at] == name:
            at, count = at + 1, count + 1
        if not least <= count <= most:
            yield f"{path}: {count} {name}"
    if at < len(names):
        yield f"{path}: {names[at]} is not allowed there"


def _check_rules(root: ElementTree.Element) -> Iterator[str]:
    """What the text demands beyond the schema."""
    if root.get("type") == "dynamic":  # Table 3.
        for name in ("availabilityStartTime", "publishTime"):
            if root.get(name) is None:
                yield f"MPD: dynamic, without {name}"
        if not {"minimumUpdatePeriod", "mediaPresentationDuration"} & root.attrib.keys():
            yield "MPD: neither minimumUpdatePeriod nor mediaPresentationDuration (§5.3.1.2)"
    periods = root.findall("Period", SPACES)
    yield from _check_ids("MPD: periods", periods)
    starts = [_seconds(period.get("start", "PT0S")) for period in periods]
    if starts != sorted(starts):
        yield f"MPD: periods begin at {starts}"
    for period in periods:
        where = f"Period {period.get('id')}"
        sets = period.findall("AdaptationSet", SPACES)
        yield from _check_ids(f"{where}: sets", sets)
        shown = [
            (owner, each) for owner in sets for each in owner.findall("Representation", SPACES)
        ]
        yield from _check_ids(f"{where}: representations", [each for _, each in shown])
        for owner, each in shown:
            yield from _check_media(owner, each, f"{where}/{each.get('id')}")


def _check_ids(where: str, nodes: Sequence[ElementTree.Element]) -> Iterator[str]:
    """§5.3.2.2, §5.3.3.2, §5.3.5.2."""
    ids = [node.get("id") for node in nodes]
    if None in ids or len(set(ids)) < len(ids):
        yield f"{where} have the ids {ids}"


def _check_media(
    owner: ElementTree.Element, shown: ElementTree.Element, where: str
) -> Iterator[str]:
    for name in ("mimeType", "codecs"):  # Table 9; codecs by the profile (§8.4).
        if shown.get(name) is None and owner.get(name) is None:
            yield f"{where}: without {name}"
    template = shown.find("SegmentTemplate", SPACES)
    if template is None:
        yield f"{where}: without SegmentTemplate (§8.4.3)"
        return
    names = {
        "media": (r"RepresentationID|Bandwidth(%0\d+d)?|(Number|Time)(%0\d+d)?|", True),
        "initialization": (r"RepresentationID|Bandwidth(%0\d+d)?|", False),
    }
    for name, (pattern, counts) in names.items():  # Table 16.
        fields = re.findall(r"\$([^$]*)\$", template.get(name, ""))
        if not template.get(name) or any(re.fullmatch(pattern, field) is None for field in fields):
            yield f"{where}: {name}={template.get(name)!r}"
        counted = [field for field in fields if field.startswith(("Number", "Time"))]
        if len(counted) != counts:
            yield f"{where}: {name}={template.get(name)!r} names no segment of many"
    timeline = template.find("SegmentTimeline", SPACES)
    if (timeline is None) == (template.get("duration") is None):
        yield f"{where}: either a timeline or a duration (§5.3.9.2)"
    if timeline is not None:
        yield from _check_timeline(timeline, where)


def _check_timeline(timeline: ElementTree.Element, where: str) -> Iterator[str]:
    """§5.3.9.6."""
    end = 0
    for run in timeline:
        begin, length, repeat = int(run.get("t", end)), int(run.get("d", 0)), int(run.get("r", 0))
        if begin < end:
            yield f"{where}: S at {begin} begins before {end}"
        if length < 1 or repeat < 0:
            yield f"{where}: S at {begin} lasts {length}, repeated {repeat} times"
        end = begin + length * (repeat + 1)


def _seconds(duration: str) -> float:
    found = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?", duration)
    assert found is not None, "its lexical space was checked"
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds
