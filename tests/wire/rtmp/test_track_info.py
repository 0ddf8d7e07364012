import hypothesis
import pytest
from hypothesis import strategies as st

from edged.wire.rtmp.amf0 import AmfValue, EcmaArray
from edged.wire.rtmp.track_info import (
    NAME_CHARS_MAX,
    TRACK_ID_MAX,
    TrackInfo,
    parse_track_info,
)


def audio(**members: AmfValue) -> TrackInfo:
    return parse_track_info({"audioTrackIdInfoMap": {"1": members}})[4]


def test_the_specifications_examples() -> None:
    values: dict[str, AmfValue] = {
        "width": 640.0,
        "videoTrackIdInfoMap": EcmaArray(
            {"1": {"width": 1024.0, "framerate": 30.0}, "2": EcmaArray({"width": 3840.0})}
        ),
        "audioTrackIdInfoMap": {"0": {"channels": 2.0}, "1": {"samplerate": 22050.0}},
    }
    assert parse_track_info(values) == {
        3: TrackInfo(frame_rate=30.0),
        5: TrackInfo(),
        2: TrackInfo(),
        4: TrackInfo(),
    }


def test_languages_and_names() -> None:
    assert audio(language="pt-BR", name="Português") == TrackInfo("pt-BR", "Português")
    assert audio(lang="deu", title=" Deutsch\n ") == TrackInfo("deu", "Deutsch")
    assert audio(language="", lang="en", name="", label="x") == TrackInfo("en", "x")


@pytest.mark.parametrize("language", ["e", "english language", "en_GB", "<b>", "x" * 40, 7.0, None])
def test_what_is_no_language_is_passed_over(language: AmfValue) -> None:
    assert audio(language=language).language == ""


def test_names_are_bounded() -> None:
    assert audio(name="x" * NAME_CHARS_MAX).name == "x" * NAME_CHARS_MAX
    assert audio(name="x" * (NAME_CHARS_MAX + 1)).name == "x" * NAME_CHARS_MAX


def test_track_ids_at_the_limit_and_past_it() -> None:
    tracks: dict[str, AmfValue] = {
        key: {} for key in (str(TRACK_ID_MAX), str(TRACK_ID_MAX + 1), "-1", "one", "", "1.5")
    }
    assert list(parse_track_info({"videoTrackIdInfoMap": tracks})) == [511]
    assert parse_track_info({"videoTrackIdInfoMap": [{}], "audioTrackIdInfoMap": {"1": 3.0}}) == {}


VALUES: st.SearchStrategy[AmfValue] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["0", "1"]), inner),
)


@hypothesis.given(VALUES, VALUES)
def test_anything_is_taken_or_passed_over(video: AmfValue, sound: AmfValue) -> None:
    found = parse_track_info({"videoTrackIdInfoMap": video, "audioTrackIdInfoMap": sound})
    for info in found.values():
        assert len(info.name) <= NAME_CHARS_MAX
        assert info.name.isprintable()
