import hypothesis
from hypothesis import strategies as st

from edged.media.playlist import MultivariantPlaylist, Variant
from edged.policy.window import StreamWindow
from edged.wire.m3u8 import render_multivariant
from tests.policy.window_events import feed, init, make_window, rendition, whole
from tests.wire.hls_reader import attributes_of


def playlist_of(window: StreamWindow) -> MultivariantPlaylist:
    playlist = window.multivariant_playlist()
    assert playlist is not None
    return playlist


def showing(**renditions: dict[str, object]) -> StreamWindow:
    """A window with a segment of each rendition; `payload` is of its parts."""
    window = make_window(names=())
    for name, changes in renditions.items():
        payload = changes.pop("payload", bytes(100))
        feed(window, rendition(name, **changes), init(name), whole(0, name, payload=payload))
    return window


def with_audio(*audio: tuple[str, str, str]) -> MultivariantPlaylist:
    """One rung, and audio renditions given as codec string, language and label."""
    renditions: dict[str, dict[str, object]] = {"v0": {}}
    for index, (codec, language, label) in enumerate(audio):
        renditions[f"a{index}"] = {"codec_string": codec, "language": language, "label": label}
    return playlist_of(showing(**renditions))


def groups_of(playlist: MultivariantPlaylist) -> dict[str, list[tuple[str, str]]]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for audio in playlist.audio:
        uri = audio.uri.removeprefix("ab/").removesuffix(".m3u8")
        groups.setdefault(audio.group, []).append((audio.name, uri))
    return groups


AAC, HE_AAC, OPUS = "mp4a.40.2", "mp4a.40.5", "opus"


def test_rungs_are_listed_from_the_largest_each_with_its_own_formats() -> None:
    shown: dict[str, dict[str, object]] = {
        "v0": {"width": 640, "height": 360, "codec_string": "avc1.4d401e", "frame_rate_num": 30},
        "v1": {"width": 1920, "height": 1080, "codec_string": "hvc1.1.6.L120.90",
               "frame_rate_num": 60},
        "v2": {"width": 1920, "height": 1080, "codec_string": "av01.0.08M.08",
               "frame_rate_num": 30},
        "v3": {"width": 1280, "height": 720, "codec_string": "vp09.00.31.08",
               "frame_rate_num": 30},
    }  # fmt: skip
    window = showing(**shown, a0={})
    variants = playlist_of(window).variants
    assert [variant.uri for variant in variants] == [f"ab/v{n}.m3u8" for n in (1, 2, 3, 0)]
    for variant in variants:
        own = shown[variant.uri[3:5]]
        assert variant.codecs == (own["codec_string"], AAC)
        assert (variant.width, variant.height) == (own["width"], own["height"])
        assert variant.frame_rate_num == own["frame_rate_num"]
        assert variant.audio_group == "audio"


def test_sound_alone_is_the_last_variant_of_each_group_where_it_is_offered() -> None:
    window = showing(v0={"width": 640, "height": 360}, a0={"alone": True, "payload": bytes(900)})
    picture, alone = playlist_of(window).variants
    assert (alone.uri, alone.audio_group, alone.codecs) == ("ab/a0.m3u8", "audio", (AAC,))
    assert picture.codecs[1:] == (AAC,)
    assert (alone.bandwidth_bps, picture.bandwidth_bps) == (18_000, 20_000)
    text = render_multivariant(playlist_of(window)).decode()
    tag, uri = text.splitlines()[-2:]
    assert uri == "ab/a0.m3u8"
    given = attributes_of(tag.partition(":")[2])
    assert given.keys() == {"BANDWIDTH", "AVERAGE-BANDWIDTH", "CODECS", "AUDIO"}
    both = showing(v0={}, a0={"alone": True}, a1={"alone": True, "codec_string": OPUS})
    alone_of = {v.audio_group: v.uri for v in playlist_of(both).variants if "/a" in v.uri}
    assert alone_of == {"audio-mp4a": "ab/a0.m3u8", "audio-opus": "ab/a1.m3u8"}
    assert [v.uri for v in playlist_of(showing(v0={}, a0={})).variants] == ["ab/v0.m3u8"]
    sound = showing(a0={"alone": True})
    assert [v.uri for v in playlist_of(sound).variants] == ["ab/a0.m3u8"], "as it always was"


def test_the_bit_rate_decides_between_rungs_of_one_size() -> None:
    window = showing(v0={}, v1={"payload": bytes(900)})
    assert [variant.uri for variant in playlist_of(window).variants] == ["ab/v1.m3u8", "ab/v0.m3u8"]


def test_a_variants_bandwidth_has_the_greatest_of_its_own_group() -> None:
    names = ("v0", "a0", "a1")
    window = make_window(whole(0), whole(0, "a0"), whole(0, "a1", payload=bytes(1000)), names=names)
    feed(window, rendition("a1", codec_string=OPUS))
    aac, opus = playlist_of(window).variants
    assert (aac.audio_group, opus.audio_group) == ("audio-mp4a", "audio-opus")
    assert (aac.bandwidth_bps, opus.bandwidth_bps) == (2000 + 2000, 2000 + 20_000)
    assert (aac.bandwidth_bps_mean, opus.bandwidth_bps_mean) == (4000, 22_000)


def test_languages_of_one_codec_are_one_group() -> None:
    playlist = with_audio((AAC, "en", "English"), (AAC, "de", ""), (AAC, "und", ""))
    assert groups_of(playlist) == {"audio": [("English", "a0"), ("de", "a1"), ("a2", "a2")]}
    assert [(a.default, a.autoselect) for a in playlist.audio] == [
        (True, True),
        (False, True),
        (False, True),
    ]
    (variant,) = playlist.variants
    assert variant.codecs == ("avc1.64001f", AAC)


def test_of_one_language_only_the_first_is_selected_by_itself() -> None:
    playlist = with_audio((AAC, "en", "Stadium"), (AAC, "en", "Commentary"))
    assert [(a.name, a.autoselect) for a in playlist.audio] == [
        ("Stadium", True),
        ("Commentary", False),
    ]


def test_names_are_there_once_whatever_the_publisher_says() -> None:
    same = "x" * 64
    playlist = with_audio((AAC, "en", same), (AAC, "en", same), (HE_AAC, "de", 'say "hi"'))
    names = [audio.name for audio in playlist.audio]
    assert len(set(names)) == 3
    lines = render_multivariant(playlist).decode().splitlines()
    media = [line for line in lines if line.startswith("#EXT-X-MEDIA:")]
    shown = [attributes_of(line.removeprefix("#EXT-X-MEDIA:"))["NAME"] for line in media]
    assert shown == names


def test_the_same_audio_in_two_codecs_is_two_groups() -> None:
    playlist = with_audio((AAC, "und", ""), (OPUS, "und", ""))
    assert groups_of(playlist) == {"audio-mp4a": [("a0", "a0")], "audio-opus": [("a0", "a1")]}
    assert [(v.audio_group, v.codecs) for v in playlist.variants] == [
        ("audio-mp4a", ("avc1.64001f", AAC)),
        ("audio-opus", ("avc1.64001f", OPUS)),
    ]


def test_what_only_one_codec_has_stands_in_each_group() -> None:
    """RFC 8216bis §4.4.6.2: groups of a type have the same members."""
    playlist = with_audio((AAC, "en", ""), (AAC, "de", ""), (OPUS, "en", ""))
    assert groups_of(playlist) == {
        "audio-mp4a": [("en", "a0"), ("de", "a1")],
        "audio-opus": [("en", "a2"), ("de", "a1")],
    }
    assert [variant.codecs for variant in playlist.variants] == [
        ("avc1.64001f", AAC),
        ("avc1.64001f", OPUS, AAC),
    ]


def test_languages_each_in_a_codec_of_its_own_are_one_group() -> None:
    playlist = with_audio((AAC, "en", ""), (OPUS, "de", ""))
    assert groups_of(playlist) == {"audio": [("en", "a0"), ("de", "a1")]}
    (variant,) = playlist.variants
    assert variant.codecs == ("avc1.64001f", AAC, OPUS)


def test_audio_alone_is_a_variant_each() -> None:
    playlist = playlist_of(showing(a0={}, a1={"codec_string": OPUS}))
    assert playlist.audio == []
    assert [(v.uri, v.codecs, v.audio_group) for v in playlist.variants] == [
        ("ab/a0.m3u8", (AAC,), ""),
        ("ab/a1.m3u8", (OPUS,), ""),
    ]


def test_a_rung_that_stopped_is_named_until_its_last_part_has_left() -> None:
    window = make_window(whole(0), whole(0, "v1"), names=("v0", "v1"))
    named, versions = [], []
    for msn in range(1, 40):
        last = whole(msn, "v1")[-1]
        feed(window, whole(msn), [last] if msn < 30 else whole(msn, "v1"))
        named.append(len(playlist_of(window).variants))
        versions.append(window.version)
    listed = len(window.renditions["v0"].listed)
    assert named == [2] * (listed - 1) + [1] * (29 - listed + 1) + [2] * 10
    for before, after in ((listed - 2, listed - 1), (28, 29)):
        assert versions[after] > versions[before], "players that come get another playlist"


def test_renditions_that_are_all_silent_are_named_all_the_same() -> None:
    window = make_window(whole(0))
    for msn in range(1, 30):
        feed(window, whole(msn)[-1])
    assert len(playlist_of(window).variants) == 1


AUDIO = st.tuples(
    st.sampled_from([AAC, HE_AAC, OPUS]),
    st.sampled_from(["und", "en", "de"]),
    st.sampled_from(["", "A", "B"]),
)


@hypothesis.given(st.lists(AUDIO, min_size=1, max_size=6))
@hypothesis.settings(max_examples=60, deadline=None)
def test_groups_keep_to_the_rules(audio: list[tuple[str, str, str]]) -> None:
    playlist = with_audio(*audio)
    groups = groups_of(playlist)
    members = [[name for name, _ in group] for group in groups.values()]
    assert all(group == members[0] for group in members), "the same members"
    for name in groups:
        alternatives = [a for a in playlist.audio if a.group == name]
        assert len({a.name for a in alternatives}) == len(alternatives)
        assert [a.default for a in alternatives].count(True) == 1
        selected = [a.language for a in alternatives if a.autoselect]
        assert len(set(selected)) == len(selected)
    assert {uri for group in groups.values() for _, uri in group} == {
        f"a{index}" for index in range(len(audio))
    }
    for variant in playlist.variants:
        assert set(variant.codecs[1:]) == codecs_in(playlist, variant, audio)


def codecs_in(
    playlist: MultivariantPlaylist, variant: Variant, audio: list[tuple[str, str, str]]
) -> set[str]:
    uris = [a.uri for a in playlist.audio if a.group == variant.audio_group]
    return {audio[int(uri[4:].partition(".")[0])][0] for uri in uris}
