"""What a manifest says unless told otherwise."""

from edged.media.manifest import AdaptationSet, Manifest, Period, Representation
from edged.media.track import Kind


def test_a_manifest_is_live_and_its_sets_are_of_no_language_unless_told() -> None:
    rung = Representation(
        name="v0",
        codecs="avc1.64001f",
        bandwidth_bps=1,
        timescale=1000,
        presentation_offset=0,
        start_number=0,
        segments=((0, 2000),),
        init_uri="v0-ff.mp4",
        media_uri="v0-$Number$.m4s",
    )
    one = AdaptationSet(number=0, kind=Kind.VIDEO, representations=(rung,))
    assert (one.language, one.label, one.is_main) == ("und", "", True)
    assert (one.is_aligned, one.begins_independent) == (False, False), "only what is known"
    period = Period(name="0", start_us=0, sets=(one,))
    manifest = Manifest(
        periods=(period,), published_us=0, update_s=2, depth_s=30, delay_s=12, segment_s_max=4.5
    )
    assert manifest.ended_us is None
