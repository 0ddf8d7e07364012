from msgspec.structs import replace

from edged.tools.conform.observe import Observation
from edged.wire.m3u8_reader import ReadVariant
from tests.tools.conform.faulty import Change, Fault, finds, verdict


def _attributes(**changes: str | None) -> Change:
    """Other attributes of the variant; None: it is missing. `_` is a hyphen."""

    def change(seen: Observation) -> None:
        assert seen.multivariant is not None
        (variant,) = seen.multivariant.variants
        told = {**variant.attributes, **{k.replace("_", "-"): v for k, v in changes.items()}}
        attributes = {name: value for name, value in told.items() if value is not None}
        seen.multivariant.variants = [ReadVariant(variant.uri, attributes)]

    return change


def _told(seen: Observation, name: str) -> str:
    assert seen.multivariant is not None
    (variant,) = seen.multivariant.variants
    return variant.attributes[name]


def _too_little(seen: Observation) -> None:
    """What comes is more than a tenth above it."""
    bandwidth_bps = int(_told(seen, "BANDWIDTH")) * 8 // 10
    _attributes(BANDWIDTH=str(bandwidth_bps), AVERAGE_BANDWIDTH="1")(seen)


def _without_its_sound(seen: Observation) -> None:
    """As if the pictures alone were played."""
    log = seen.main
    video_bps = max(
        piece.size * 8 * 1_000_000 // segment.media_us for segment, piece in log.fetched
    )
    _attributes(BANDWIDTH=str(video_bps * 95 // 100), AVERAGE_BANDWIDTH="1")(seen)


FAULTS: list[Fault] = [
    (30, _attributes(CODECS=None, BANDWIDTH=None), "fail", "no BANDWIDTH, CODECS"),
    (30, _attributes(RESOLUTION=None), "fail", "no RESOLUTION"),
    (
        30,
        _attributes(CODECS="hvc1.1.6.L93.B0,mp4a.40.2"),
        "fail",
        "leaves out avc1, which is in v0",
    ),
    (30, _attributes(CODECS="avc1.42c01e"), "fail", "leaves out mp4a, which is in a0.m3u8"),
    (30, _attributes(BANDWIDTH="1"), "fail", "BANDWIDTH=1, of its segments come up to "),
    (30, _attributes(BANDWIDTH="1"), "fail", "which is above BANDWIDTH"),
    (30, _too_little, "fail", "of its segments come up to "),
    (30, _without_its_sound, "fail", "of its segments come up to "),
    (30, _attributes(RESOLUTION="321x180"), "fail", "RESOLUTION=321x180, its init segment says "),
    (30, _attributes(FRAME_RATE="25.000"), "fail", "FRAME-RATE=25.000, its pictures come at 30.0"),
    (30, _attributes(FRAME_RATE="60.000"), "fail", "FRAME-RATE=60.000, its pictures come at 30.0"),
    (30, _attributes(FRAME_RATE="many"), "fail", "FRAME-RATE 'many' is no decimal number"),
]


test_faults_are_found = finds(FAULTS)


def test_of_a_variable_rate_it_is_the_most(good: Observation) -> None:
    _attributes(FRAME_RATE="60.000")(good)
    for piece in good.main.segments.values():
        ((number, samples),) = piece.tracks.items()
        piece.tracks[number] = samples[::3] + samples[-1:]
    assert verdict(good, 30).status == "pass"


def test_what_was_not_fetched_contradicts_nothing(good: Observation) -> None:
    for log in good.renditions:
        log.segments.clear()
        log.parts.clear()
        log.inits.clear()
    _attributes(CODECS="hvc1", BANDWIDTH="1", AVERAGE_BANDWIDTH="1", RESOLUTION="1x1")(good)
    assert verdict(good, 30).status == "pass"


def test_names_of_formats_that_are_not_alike(good: Observation) -> None:
    """As 'fLaC' and 'Opus'; and what is encrypted does not say what it is."""
    for entry, codec in (("fLaC", "flac"), ("Opus", "opus"), ("enca", "mp4a.40.2")):
        for log in good.renditions[1:]:
            log.inits = {
                place: {n: replace(track, formats=(entry,)) for n, track in init.items()}
                for place, init in log.inits.items()
            }
        _attributes(CODECS=f"avc1.42c01e,{codec}")(good)
        assert verdict(good, 30).status == "pass", entry


def test_a_media_playlist_has_no_variants(good: Observation) -> None:
    good.multivariant = None
    assert verdict(good, 30).status == "not seen"
