from msgspec.structs import replace

from edged.tools.conform.media import Piece, Sample, place_of
from edged.tools.conform.observe import Observation, RenditionLog
from edged.wire.m3u8_reader import ReadPart, ReadSegment
from tests.tools.conform.faulty import Change, Fault, finds, verdict
from tests.tools.conform.test_items_media import change_segment, missing_segment


def _hole(seen: Observation) -> None:
    """A segment's media is that of the one before, a segment's duration early."""
    first, second = sorted(seen.main.segments)
    tracks = seen.main.segments[first].tracks
    seen.main.segments[second] = replace(seen.main.segments[second], tracks=tracks)


def _second_track_has_a_hole(seen: Observation) -> None:
    """Muxed: pictures go on, sound does not."""
    log = seen.main
    for n, (msn, piece) in enumerate(sorted(log.segments.items())):
        assert piece.init is not None
        (number, track), *_ = log.inits[piece.init].items()
        log.inits[piece.init][number + 1] = replace(track, handler="soun", timescale=1000)
        sound = [Sample(9_000 * n, 1_000, 0, 1, sync=True, digest=b"")]
        tracks = {**piece.tracks, number + 1: sound}
        log.segments[msn] = replace(piece, tracks=tracks)


def _last_with_parts(log: RenditionLog) -> ReadSegment:
    segment = log.last.segment(max(log.segments))
    assert segment is not None
    assert len(segment.parts) > 4
    return segment


def _move(log: RenditionLog, part: ReadPart, by_s: float) -> None:
    """Its samples are that much later."""
    piece = log.parts[place_of(part)]
    log.parts[piece.place] = replace(piece, tracks=_moved(log, piece, by_s))


def _moved(log: RenditionLog, piece: Piece, by_s: float) -> dict[int, list[Sample]]:
    assert piece.init is not None
    init = log.inits[piece.init]
    return {
        number: [replace(s, dts=s.dts + round(by_s * init[number].timescale)) for s in samples]
        for number, samples in piece.tracks.items()
    }


def _hole_inside(by_s: float, *renditions: int) -> Change:
    """From the third part of a segment on media is that much later."""

    def change(seen: Observation) -> None:
        for number in renditions:
            log = seen.renditions[number]
            for part in _last_with_parts(log).parts[2:]:
                _move(log, part, by_s)

    return change


def _another_video_has_it(seen: Observation) -> None:
    """A rung beside it, without the hole."""
    seen.renditions.append(replace_log(seen.main))
    _hole_inside(0.5, 0)(seen)


def replace_log(log: RenditionLog) -> RenditionLog:
    return replace(log, name="v1.m3u8", url=log.url.replace("v0", "v1"), parts={**log.parts})


def _hole_in_a_part(seen: Observation) -> None:
    """The second picture of a part is gone."""
    log = seen.main
    piece = log.parts[place_of(_last_with_parts(log).parts[2])]
    ((number, samples),) = piece.tracks.items()
    log.parts[piece.place] = replace(piece, tracks={number: [samples[0], *samples[2:]]})


def _hole_in_a_whole(seen: Observation) -> None:
    """Of a segment without parts."""
    log = seen.main
    msn = max(log.segments)
    for one in log.seen:
        for segment in one.playlist.segments:
            segment.parts.clear()
    ((_, samples),) = log.segments[msn].tracks.items()
    del samples[10:20]


def _another_map(seen: Observation) -> None:
    segment = seen.main.last.segments[-1]
    assert segment.map_uri
    changed = replace(segment, map_uri="another.mp4")
    for one in seen.main.seen:
        playlist = one.playlist
        playlist.segments = [
            replace(each, map_uri=changed.map_uri) if each.msn == segment.msn else each
            for each in playlist.segments
        ]


def _map_of_another_size(seen: Observation) -> None:
    """It was looked into, and is of another format."""
    _another_map(seen)
    ((_, init),) = seen.main.inits.items()
    seen.main.inits["another.mp4", None] = {
        number: replace(track, formats=("hvc1",)) for number, track in init.items()
    }


FAULTS: list[Fault] = [
    (21, _hole, "fail", "begins -2.000 s off"),
    (21, _second_track_has_a_hole, "fail", "track 2 begins +8.000 s off"),
    (21, change_segment(problem="box b'moof' of 7 bytes"), "fail", "box b'moof'"),
    (21, missing_segment, "fail", "status 404"),
    (21, change_segment(tracks={}), "fail", "without a sample"),
    (
        21,
        _hole_inside(0.5, 0),
        "warn",
        "goes on +0.500 s off its end before, without a part of GAP",
    ),
    (21, _hole_inside(0.5, 0, 1), "warn", "no rendition has it"),
    (21, _another_video_has_it, "fail", "part 2: track 1 goes on +0.500 s off"),
    (21, _hole_inside(-0.1, 0), "fail", "goes on -0.100 s off its end before"),
    (21, _hole_in_a_part, "warn", "goes on +0.033 s off"),
    (21, _hole_in_a_whole, "warn", "goes on +0.333 s off"),
    (21, _another_map, "fail", "is another.mp4, before it was"),
    (21, _map_of_another_size, "fail", "without EXT-X-DISCONTINUITY"),
]


test_faults_are_found = finds(FAULTS)


def test_what_a_gap_stands_for_is_no_hole(good: Observation) -> None:
    log = good.main
    segment = _last_with_parts(log)
    gone = segment.parts[2]
    for one in log.seen:
        for each in one.playlist.segments:
            each.parts = [replace(p, gap=True) if p == gone else p for p in each.parts]
    del log.parts[place_of(gone)]
    assert verdict(good, 21).status == "pass"


def test_what_is_told_as_a_discontinuity_may_be_another(good: Observation) -> None:
    _another_map(good)
    for one in good.main.seen:
        for segment in one.playlist.segments:
            segment.discontinuity = segment.map_uri == "another.mp4"
    assert verdict(good, 21).status == "pass"


def test_another_map_of_the_same_tracks_needs_none(good: Observation) -> None:
    _another_map(good)
    ((_, init),) = good.main.inits.items()
    good.main.inits["another.mp4", None] = init
    assert verdict(good, 21).status == "pass"
