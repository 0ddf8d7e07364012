"""Manifests as text: read back with an XML parser, by the structure of ISO/IEC 23009-1."""

import re
from xml.etree import ElementTree

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.manifest import AdaptationSet, Manifest, Period, Representation
from edged.media.track import Kind
from edged.wire.mpd import render_manifest
from tests.wire.mpd_schema import check_mpd

NS = {"": "urn:mpeg:dash:schema:mpd:2011"}
START_US = 1_700_000_000_250_000
VIDEO = Representation(
    name="v0",
    codecs="avc1.64001f",
    bandwidth_bps=3_000_000,
    timescale=90_000,
    presentation_offset=6000,
    start_number=7,
    segments=((6000, 180_000), (186_000, 180_000), (366_000, 90_000)),
    init_uri="v0-0123456789abcdef.mp4",
    media_uri="v0-$Number$.m4s",
    width=1280,
    height=720,
    frame_rate_num=30_000,
    frame_rate_den=1001,
)
AUDIO = msgspec.structs.replace(
    VIDEO,
    name="a0",
    codecs="mp4a.40.2",
    timescale=48_000,
    segments=((3200, 96_256),),
    width=0,
    height=0,
    frame_rate_num=0,
    channels=6,
)
PICTURES = AdaptationSet(
    number=0, kind=Kind.VIDEO, representations=(VIDEO,), is_aligned=True, begins_independent=True
)
SOUND = AdaptationSet(
    number=1,
    kind=Kind.AUDIO,
    representations=(AUDIO,),
    language="de",
    label='Rock & <Roll> "live"',
    is_main=False,
)
MANIFEST = Manifest(
    periods=(Period(name="0", start_us=START_US, sets=(PICTURES, SOUND)),),
    published_us=START_US + 9_000_000,
    update_s=2.0,
    depth_s=30.0,
    delay_s=12.0,
    segment_s_max=4.5,
)


def read(manifest: Manifest, **where: str) -> ElementTree.Element:
    text = render_manifest(manifest, **where)
    assert check_mpd(text) == [], text.decode()
    return ElementTree.fromstring(text)  # noqa: S314 - our own


def find(node: ElementTree.Element, path: str) -> ElementTree.Element:
    found = node.find(path, NS)
    assert found is not None, path
    return found


def test_a_live_manifest() -> None:
    mpd = read(MANIFEST)
    assert mpd.tag == "{urn:mpeg:dash:schema:mpd:2011}MPD"
    assert mpd.attrib == {
        "profiles": "urn:mpeg:dash:profile:isoff-live:2011",
        "type": "dynamic",
        "availabilityStartTime": "1970-01-01T00:00:00.000Z",
        "publishTime": "2023-11-14T22:13:29.250Z",
        "timeShiftBufferDepth": "PT30.000S",
        "suggestedPresentationDelay": "PT12.000S",
        "maxSegmentDuration": "PT4.500S",
        "minBufferTime": "PT2.000S",
        "minimumUpdatePeriod": "PT2.000S",
    }
    assert [child.tag.partition("}")[2] for child in mpd] == ["Period", "UTCTiming"]
    assert find(mpd, "Period").attrib == {"id": "0", "start": "PT1700000000.250S"}
    assert find(mpd, "UTCTiming").attrib == {
        "schemeIdUri": "urn:mpeg:dash:utc:direct:2014",
        "value": "2023-11-14T22:13:29.250Z",
    }


def test_a_rung() -> None:
    each = find(read(MANIFEST), "Period/AdaptationSet[@contentType='video']")
    assert each.attrib == {
        "id": "0",
        "contentType": "video",
        "mimeType": "video/mp4",
        "segmentAlignment": "true",
        "startWithSAP": "1",
    }
    assert find(each, "Role").get("value") == "main"
    rung = find(each, "Representation")
    assert rung.attrib == {
        "id": "v0",
        "codecs": "avc1.64001f",
        "bandwidth": "3000000",
        "width": "1280",
        "height": "720",
        "frameRate": "30000/1001",
    }
    assert find(rung, "SegmentTemplate").attrib == {
        "timescale": "90000",
        "presentationTimeOffset": "6000",
        "startNumber": "7",
        "initialization": "v0-0123456789abcdef.mp4",
        "media": "v0-$Number$.m4s",
    }
    assert [s.attrib for s in rung.iterfind(".//S", NS)] == [
        {"t": "6000", "d": "180000", "r": "1"},
        {"d": "90000"},
    ]


def test_a_language() -> None:
    each = find(read(MANIFEST), "Period/AdaptationSet[@contentType='audio']")
    assert (each.get("lang"), each.get("mimeType")) == ("de", "audio/mp4")
    assert each.get("segmentAlignment") is each.get("startWithSAP") is None
    assert find(each, "Role").get("value") == "alternate"
    assert find(each, "Label").text == 'Rock & <Roll> "live"'
    configuration = find(each, "Representation/AudioChannelConfiguration")
    assert configuration.get("value") == "6"
    assert find(each, "Representation").get("width") is None


def test_order_of_elements_is_the_schemas() -> None:
    """xs:sequence of Representation: descriptors before SegmentTemplate; of the set, too."""
    mpd = read(MANIFEST, base="ab/", location="ab/manifest.mpd")
    assert [child.tag.partition("}")[2] for child in mpd] == ["Location", "Period", "UTCTiming"]
    for each in mpd.iterfind("Period/AdaptationSet", NS):
        names = [child.tag.partition("}")[2] for child in each]
        assert names == sorted(names, key=["Label", "Role", "Representation"].index)


def test_a_run_that_has_ended_is_read_no_more() -> None:
    ended = msgspec.structs.replace(MANIFEST, ended_us=START_US + 5_000_000)
    mpd = read(ended)
    assert mpd.get("minimumUpdatePeriod") is None
    assert mpd.get("mediaPresentationDuration") == "PT1700000005.250S"


def test_addresses_behind_a_base() -> None:
    mpd = read(MANIFEST, base="1a2b/", location="1a2b/manifest.mpd")
    assert find(mpd, "Location").text == "1a2b/manifest.mpd"
    template = find(mpd, ".//SegmentTemplate")
    assert template.get("initialization") == "1a2b/v0-0123456789abcdef.mp4"
    assert template.get("media") == "1a2b/v0-$Number$.m4s"


def test_whole_frame_rates_are_whole_and_channels_unknown_are_not_told() -> None:
    plain = msgspec.structs.replace(VIDEO, frame_rate_num=25, frame_rate_den=1, channels=7)
    pictures = msgspec.structs.replace(PICTURES, representations=(plain,))
    period = Period(name="0", start_us=0, sets=(pictures,))
    mpd = read(msgspec.structs.replace(MANIFEST, periods=(period,)))
    assert find(mpd, ".//Representation").get("frameRate") == "25"
    assert mpd.find(".//AudioChannelConfiguration", NS) is None


def test_a_manifest_without_media_is_not_served() -> None:
    with pytest.raises(AssertionError, match="without media"):
        render_manifest(msgspec.structs.replace(MANIFEST, periods=()))


LANGUAGES = st.text(max_size=100) | st.from_regex(r"[a-zA-Z]{2,3}(-[a-zA-Z0-9]{1,8})*")


@hypothesis.given(LANGUAGES, st.text(max_size=100))
def test_whatever_a_publisher_says_is_text(language: str, label: str) -> None:
    sound = msgspec.structs.replace(SOUND, language=language, label=label)
    period = Period(name="0", start_us=START_US, sets=(sound,))
    mpd = read(msgspec.structs.replace(MANIFEST, periods=(period,)))
    told = find(mpd, ".//AdaptationSet").get("lang")
    assert told in (None, language), "what is no language is not said to be one"
    assert told or not re.fullmatch("[a-tv-z][a-z]", language)
    assert find(mpd, ".//Role").get("value") == "alternate"


SEGMENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=40)


@hypothesis.given(SEGMENTS)
def test_a_timeline_is_read_back_as_it_was(steps: list[tuple[int, int]]) -> None:
    time, segments = 0, []
    for hole, length in steps:
        time += hole
        segments.append((time, length))
        time += length
    rung = msgspec.structs.replace(VIDEO, segments=tuple(segments))
    pictures = msgspec.structs.replace(PICTURES, representations=(rung,))
    period = Period(name="0", start_us=0, sets=(pictures,))
    mpd = read(msgspec.structs.replace(MANIFEST, periods=(period,)))
    at, found = 0, []
    for s in mpd.iterfind(".//S", NS):
        at, length = int(s.get("t", at)), int(s.get("d", 0))
        for _ in range(int(s.get("r", 0)) + 1):
            found.append((at, length))
            at += length
    assert found == segments


def test_samples_that_are_not_square_are_told() -> None:
    wide = msgspec.structs.replace(VIDEO, sar_num=4, sar_den=3)
    pictures = msgspec.structs.replace(PICTURES, representations=(wide,))
    period = Period(name="0", start_us=0, sets=(pictures,))
    mpd = read(msgspec.structs.replace(MANIFEST, periods=(period,)))
    assert find(mpd, ".//Representation").get("sar") == "4:3"
    assert find(read(MANIFEST), ".//Representation").get("sar") is None


BROKEN = (
    (b' profiles="urn:mpeg:dash:profile:isoff-live:2011"', b"", "without profiles"),
    (b' publishTime="', b' published="', "attribute published"),
    (b'start="PT1', b'start="P', "start="),
    (b'frameRate="30000/1001"', b'frameRate="29.97"', "frameRate='29.97'"),
    (b'width="1280"', b'width="1280px"', "width='1280px'"),
    (b'codecs="avc1.64001f"', b'codecs=""', "codecs=''"),
    (b' codecs="avc1.64001f"', b"", "without codecs"),
    (b'id="v0"', b'id="v 0"', "id='v 0'"),
    (b'id="v0"', b'id="a0"', "representations have the ids"),
    (b'id="1" contentType', b'id="0" contentType', "sets have the ids"),
    (b'lang="de"', b'lang="d e"', "lang='d e'"),
    (b"$Number$", b"$Numero$", "media='v0-$Numero$.m4s'"),
    (b"$Number$", b"7", "names no segment of many"),
    (b'd="180000"', b'd="0"', "lasts 0"),
    (b'<S d="90000"/>', b'<S t="6" d="90000"/>', "begins before"),
    (b"<S d=", b"<R d=", "R is not allowed there"),
    (b"Label>", b"Labels>", "Labels is not allowed there"),
    (b' minimumUpdatePeriod="PT2.000S"', b"", "neither minimumUpdatePeriod nor"),
    (b' schemeIdUri="urn:mpeg:dash:role:2011"', b"", "without schemeIdUri"),
    (b'2011" profiles', b'2012" profiles', "the root is"),
)


@pytest.mark.parametrize(("old", "new", "told"), BROKEN)
def test_the_check_finds_what_is_wrong(old: bytes, new: bytes, told: str) -> None:
    text = render_manifest(MANIFEST)
    assert old in text
    broken = text.replace(old, new)
    found = check_mpd(broken)
    assert any(told in line for line in found), found


def test_the_check_knows_the_order_of_elements() -> None:
    text = render_manifest(MANIFEST, location="ab/manifest.mpd")
    location = b"<Location>ab/manifest.mpd</Location>\n"
    moved = text.replace(location, b"").replace(b"</MPD>", location + b"</MPD>")
    assert check_mpd(text) == []
    assert any("Location is not allowed there" in line for line in check_mpd(moved))
    role = re.findall(rb"<Role [^>]*alternate[^>]*>\n", text)[0]
    moved = text.replace(role, b"").replace(b"<Label>", role + b"<Label>")
    assert any("Label is not allowed there" in line for line in check_mpd(moved))
