import functools
import hashlib
import io
import itertools
import json
import math
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import msgspec
import pytest
from msgspec import Struct
from structlog.testing import capture_logs

from edged.errors import RemoteProtocolError
from edged.media import aac, h264
from edged.media.access_unit import AccessUnit
from edged.media.latency import LATENCY_LABELS, Latency
from edged.media.parts import PackagedEvent, Part, StreamEnded
from edged.media.stream import Grant, StreamId
from edged.media.track import Codec, Track
from edged.origin.packager import Packager
from edged.policy.latency import PackagerConfig, choose_latency
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.splice import read_state
from edged.policy.window import StreamWindow
from edged.policy.window_replay import make_replay
from edged.runtime.hub import RING_BYTES_MAX, LiveStream
from tests.conftest import require
from tests.media.samples import Packet, Sample, box, demux, encode_audio, encode_video
from tests.policy.ladder import Rung, make_ladder
from tests.policy.synthetic import (
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)
from tests.wire.cmaf.oracle import decoded_frames, read_back

THIRTY = Fraction(30)


def live_stream() -> LiveStream:
    return LiveStream(
        StreamId(channel="ch", publication=0xAB),
        Grant(channel="ch"),
        started_at=0.0,
        came_from="test",
    )


class Origin:
    """A live stream, its packager and the window that takes its events."""

    def __init__(self, *tracks: Track, config: SegmenterConfig | None = None) -> None:
        self.stream = live_stream()
        for track in tracks:
            self.stream.set_track(track)
        self.events: list[PackagedEvent] = []
        self.window = StreamWindow(self.stream.stream_id)
        self.packager = Packager(self.stream, config or SegmenterConfig(), self.publish)
        self.unwatch = self.stream.watch(self.packager.wake)

    def publish(self, event: PackagedEvent) -> None:
        self.events.append(event)
        self.window.add(event)

    def parts(self, name: str) -> list[Part]:
        return [e for e in self.events if isinstance(e, Part) and e.rendition == name]

    def served(self, name: str) -> list[bytes]:
        """What a viewer gets who plays whole segments from the first on."""
        shown = self.window.renditions[name]
        inits = [init.data for init in shown.inits.values()]
        bodies = [self.window.segment(name, msn) or [] for msn in shown.segments]
        return inits + list(itertools.chain.from_iterable(bodies))


def synthetic(seconds: float = 5) -> list[AccessUnit]:
    pictures = video_units(video_times(THIRTY, seconds), 2)
    return in_order((90_000, pictures), (48_000, audio_units(seconds)))


class Encoded(Struct):
    """What FFmpeg's encoders made, as a publisher's canonical stream."""

    tracks: tuple[Track, Track]
    units: list[AccessUnit]


@functools.cache
def encoded(rate: Fraction, frames: int, gop: int, *, open_gop: bool = False) -> Encoded:
    """H.264 with B-frames and AAC of the same length."""
    params = f"open-gop={int(open_gop)}:min-keyint=1:bframes=2:b-adapt=0:scenecut=0:log-level=none"
    options = (("x264-params", params),)
    picture = encode_video("libx264", rate=rate, frames=frames, gop=gop, options=options)
    sound = encode_audio("aac", frames=int(frames / rate * 48_000) // 1024)
    video = Track(
        track_id=1,
        codec=Codec.H264,
        timescale=90_000,
        config=h264.parse_config(box(picture.file, b"avcC")),
    )
    audio = Track(
        track_id=2,
        codec=Codec.AAC,
        timescale=48_000,
        config=aac.parse_config(sound.extradata),
    )
    step = 90_000 / rate
    with av.open(io.BytesIO(picture.file), "r") as container:
        time_base = container.streams[0].time_base
    assert time_base is not None
    pictures = as_units(1, in_frames(picture, time_base * rate), step, 90_000)
    sounds = as_units(2, list(sound.packets), Fraction(1), 48_000)
    return Encoded(
        (video, audio),
        in_order((90_000, pictures), (48_000, sounds)),
    )


def in_frames(sample: Sample, frames_per_tick: Fraction) -> list[Packet]:
    """The packets with their times counted in frames."""
    return [
        msgspec.structs.replace(
            packet,
            pts=round(packet.pts * frames_per_tick),
            dts=round(packet.dts * frames_per_tick),
        )
        for packet in demux(sample.file)
    ]


def as_units(
    track_id: int, packets: list[Packet], step: Fraction, timescale: int
) -> list[AccessUnit]:
    return [
        AccessUnit(
            track_id=track_id,
            seq=0,
            config_id=0,
            pts=math.floor(packet.pts * step + Fraction(1, 2)),
            dts=math.floor(packet.dts * step + Fraction(1, 2)),
            wallclock_us=1_700_000_000_000_000 + int(packet.pts * step * 1_000_000 / timescale),
            payload=packet.data,
            # An open GOP's key picture is none to FFmpeg.
            random_access=packet.keyframe or (track_id == 1 and h264.is_random_access(packet.data)),
        )
        for packet in packets
    ]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("rate", "gop"),
    [
        (THIRTY, 30),
        (Fraction(25), 50),
        (Fraction(24_000, 1001), 36),
        (Fraction(30_000, 1001), 60),
        (Fraction(60), 60),
    ],
)
def test_item_16_ffmpeg_reads_back_exactly_what_was_published(rate: Fraction, gop: int) -> None:
    """Payload MD5s, pts and dts of every packet, through init, parts and segments."""
    source = encoded(rate, int(3 * rate), gop)
    origin = Origin(*source.tracks)
    for unit in source.units:
        origin.stream.append([unit])
    origin.stream.end("over")
    first = {track: next(u for u in source.units if u.track_id == track) for track in (1, 2)}
    assert first[1].pts > first[1].dts, "B-frames"
    assert first[2].dts == -1024, "AAC priming"
    for name, track_id, timescale in (("v0", 1, 90_000), ("a0", 2, 48_000)):
        read = read_back(*origin.served(name))
        published = [unit for unit in source.units if unit.track_id == track_id]
        # Negative decode times moved everything up by one second, in both.
        assert [(md5(p.data), p.pts, p.dts) for p in read] == [
            (md5(u.payload), u.pts + timescale, u.dts + timescale) for u in published
        ]
        assert decoded_frames(*origin.served(name)) == len(published)
    keyframes = [p.keyframe for p in read_back(*origin.served("v0"))]
    assert keyframes == [unit.random_access for unit in source.units if unit.track_id == 1]


@pytest.mark.parametrize("open_gop", [True, False])
def test_item_29_a_segments_date_is_that_of_its_earliest_picture(open_gop: bool) -> None:
    """hls.js dates what it plays from a segment's PROGRAM-DATE-TIME and its least pts."""
    source = encoded(THIRTY, 130, 60, open_gop=open_gop)
    origin = Origin(*source.tracks)
    origin.stream.append(source.units)
    origin.stream.end("over")
    zeros_us = []
    leading = 0
    for name, timescale in (("v0", 90_000), ("a0", 48_000)):
        shown = origin.window.renditions[name]
        (init,) = shown.inits.values()
        for msn, listed in shown.segments.items():
            packets = read_back(init.data, *(origin.window.segment(name, msn) or []))
            pts = min(packet.pts for packet in packets)
            leading += sum(packet.pts < packets[0].pts for packet in packets)
            zeros_us.append(listed.entry.wallclock_us - pts * 1_000_000 // timescale)
    assert leading == (2 * 2 if open_gop else 0), "two before each key picture but the first"
    assert len(zeros_us) == 2 * 3
    assert max(zeros_us) - min(zeros_us) <= 1, "one date for one time, up to rounding"


@pytest.mark.e2e
def test_ffmpegs_framemd5_of_segments_is_that_of_the_packets(tmp_path: Path) -> None:
    require("ffmpeg", "ffprobe")
    source = encoded(THIRTY, 90, 30)
    origin = Origin(*source.tracks)
    origin.stream.append(source.units)
    origin.stream.end("over")
    for name, track_id in (("v0", 1), ("a0", 2)):
        file = tmp_path / f"{name}.mp4"
        file.write_bytes(b"".join(origin.served(name)))
        command = ["ffmpeg", "-v", "error", "-i", str(file), "-c", "copy", "-f", "framemd5", "-"]
        printed = subprocess.run(  # noqa: S603 - our own arguments
            command, capture_output=True, check=True, timeout=20
        ).stdout.decode()
        sums = [line.split(",")[5].strip() for line in printed.splitlines() if line[0] != "#"]
        payloads = [unit.payload for unit in source.units if unit.track_id == track_id]
        assert sums == [md5(payload) for payload in payloads]
        probe = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(file)]
        printed = subprocess.run(  # noqa: S603 - our own arguments
            probe, capture_output=True, check=True, timeout=20
        ).stdout.decode()
        (shown,) = json.loads(printed)["streams"]
        assert shown["codec_name"] == {"v0": "h264", "a0": "aac"}[name]


def test_parts_come_with_the_append_that_completes_them() -> None:
    origin = Origin(video_track(THIRTY), audio_track())
    units = synthetic()
    for unit in units:
        before = len(origin.parts("v0"))
        origin.stream.append([unit])
        # 6 pictures a part; the first 9 are awaited, to measure.
        if unit.track_id == 1 and unit.dts >= 30_000:
            complete = (unit.dts // 3000 + 1) // 6
            assert len(origin.parts("v0")) == complete
            assert len(origin.parts("v0")) - before in (0, 1)


def test_however_units_are_batched_the_events_are_the_same() -> None:
    one, other = (
        Origin(video_track(THIRTY), audio_track()),
        Origin(video_track(THIRTY), audio_track()),
    )
    one.stream.append(synthetic(9))
    for unit in synthetic(9):
        other.stream.append([unit])
    assert one.events == other.events
    assert len(one.events) > 90


def test_a_packager_that_comes_late_begins_with_the_oldest_group() -> None:
    stream = live_stream()
    for track in (video_track(THIRTY), audio_track()):
        stream.set_track(track)
    stream.append(synthetic(5))
    events: list[PackagedEvent] = []
    Packager(stream, SegmenterConfig(), events.append).wake(stream)
    first = next(event for event in events if isinstance(event, Part))
    assert (first.rendition, first.tfdt) == ("v0", 0)


def test_progress_is_what_an_ack_carries() -> None:
    origin = Origin(video_track(THIRTY), audio_track())
    progress = origin.packager.progress()
    assert (progress.received_seq, progress.packaged_seq, progress.renditions) == (-1, -1, [])
    assert progress.splice == b""
    units = synthetic(5)
    origin.stream.append(units)
    progress = origin.packager.progress()
    assert progress.received_seq == units[-1].seq
    begins = next(unit.seq for unit in units if unit.track_id == 1 and unit.dts == 4 * 90_000)
    assert begins - 10 < progress.packaged_seq < begins, "as of the newest segment's first unit"
    video, audio = progress.renditions
    newest = origin.parts("v0")[-1]
    assert (video.name, video.msn, video.part) == ("v0", newest.msn, newest.index)
    assert (video.tfdt, video.init_digest) == (newest.tfdt + newest.duration, newest.init_digest)
    assert (audio.name, audio.discontinuity_sequence) == ("a0", 0)


def resume(
    origin: Origin, units: list[AccessUnit], config: SegmenterConfig | None = None
) -> Origin:
    """Another origin that goes on from what this one said last; it gets the units after that."""
    progress = origin.packager.progress()
    other = Origin(*origin.stream.tracks.values())
    other.unwatch()
    other.stream.ring.note_loss(progress.packaged_seq + 1)
    other.packager = Packager(
        other.stream, config or SegmenterConfig(), other.publish, splice=progress.splice
    )
    other.stream.watch(other.packager.wake)
    assert other.packager.progress().packaged_seq == progress.packaged_seq
    as_they_come(other, [unit for unit in units if unit.seq > progress.packaged_seq])
    return other


def as_they_come(origin: Origin, units: list[AccessUnit]) -> None:
    for unit in units:
        origin.stream.append([unit])


@pytest.mark.parametrize("stopped_after", [260, 300, 390])
def test_another_origin_goes_on_with_the_same_bytes(stopped_after: int) -> None:
    units = synthetic(9)
    whole = Origin(video_track(THIRTY), audio_track())
    as_they_come(whole, units)
    first = Origin(video_track(THIRTY), audio_track())
    as_they_come(first, units[:stopped_after])
    second = resume(first, units)
    described = [type(event).__name__ for event in second.events[:4]]
    assert described == ["Rendition", "InitSegment"] * 2
    for name in ("v0", "a0"):
        made = {(part.msn, part.index): part for part in first.parts(name)}
        again = {(part.msn, part.index): part for part in second.parts(name)}
        assert made.keys() & again.keys(), "what the first one had pushed since"
        assert all(made[key] == again[key] for key in made.keys() & again.keys())
        assert list((made | again).values()) == whole.parts(name)
    third = resume(second, units)  # Also the second may fail.
    assert third.parts("v0")[-1] == whole.parts("v0")[-1]


@pytest.mark.parametrize("label", LATENCY_LABELS)
def test_another_origin_goes_on_by_the_figures_of_the_class(label: str) -> None:
    """Whatever its own are, or two byte strings would have one name."""
    units = synthetic(9)
    figures, _ = choose_latency(PackagerConfig(), label)
    whole = Origin(video_track(THIRTY), audio_track(), config=figures)
    as_they_come(whole, units)
    first = Origin(video_track(THIRTY), audio_track(), config=figures)
    as_they_come(first, units[:300])
    others = SegmenterConfig(part_ms=400, segment_s=3.0, latency=Latency(hold_back_s=99))
    second = resume(first, units, others)
    assert second.packager.config == figures
    for name in ("v0", "a0"):
        made = {(part.msn, part.index): part for part in first.parts(name)}
        again = {(part.msn, part.index): part for part in second.parts(name)}
        assert list((made | again).values()) == whole.parts(name)
    assert {w.rendition.latency for w in second.window.renditions.values()} == {figures.latency}


@pytest.mark.parametrize("late", [0, 10, 70, 130], ids="sound {} units late".format)
def test_who_subscribes_to_a_successor_late_misses_nothing(late: int) -> None:
    """At each new splice the first origin is gone, with what it had pushed until then.

    A subscriber comes to the second when that is a second further: it gets what its window has.
    """
    units = shifted(synthetic(9), late)
    first = Origin(video_track(THIRTY), audio_track())
    splices = 0
    for count, unit in enumerate(units, 1):
        before = first.packager.progress().splice
        first.stream.append([unit])
        if first.packager.progress().splice == before:
            continue
        splices += 1
        playback = StreamWindow(first.stream.stream_id)
        for event in first.events:
            playback.add(event)
        second = resume(first, units[:count])
        as_they_come(second, units[count : count + 75])
        for event in make_replay(second.window):
            playback.add(event)
        seen = len(second.events)
        as_they_come(second, units[count + 75 : count + 200])
        for event in second.events[seen:]:
            playback.add(event)
        assert playback.parts_missing == 0, f"after unit {count}"
    assert splices >= 3


def test_a_track_that_falls_silent_holds_no_splice_up_for_long() -> None:
    units = [unit for unit in synthetic(14) if unit.track_id == 1 or unit.dts < 3 * 48_000]
    for seq, unit in enumerate(units):
        unit.seq = seq
    first = Origin(video_track(THIRTY), audio_track())
    checked = 0
    for unit in units:
        first.stream.append([unit])
        pending = units[first.packager.progress().packaged_seq + 1 :][0]
        if unit.track_id == 1 and unit.dts > 6 * 90_000:
            assert pending.track_id == 1
            assert unit.dts - pending.dts <= 2 * 90_000
            checked += 1
    assert checked > 200


def shifted(units: list[AccessUnit], late: int) -> list[AccessUnit]:
    """The same, the sound so many units later among the pictures: encoders mux as they like."""
    order = sorted(
        range(len(units)), key=lambda place: place + (late if units[place].track_id == 2 else 0)
    )
    moved = [units[place] for place in order]
    for seq, unit in enumerate(moved):
        unit.seq = seq
    return moved


def test_a_splice_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="splice cannot be read"):
        Packager(live_stream(), SegmenterConfig(), lambda _: None, splice=b"?")


def test_a_splice_whose_init_no_window_would_take_is_refused() -> None:
    origin = Origin(video_track(THIRTY), audio_track())
    as_they_come(origin, synthetic(5))
    progress = origin.packager.progress()
    digest = progress.renditions[0].init_digest.encode()
    for broken in (b"\0" * 16, b"no hex digits at "[:16]):
        other = live_stream()
        other.ring.note_loss(progress.packaged_seq + 1)
        splice = progress.splice.replace(digest, broken)
        assert splice != progress.splice
        with pytest.raises(RemoteProtocolError, match=r"splice has a rendition.*16 hex digits"):
            Packager(other, SegmenterConfig(), lambda _: None, splice=splice)


def test_a_splice_of_units_yet_to_come_is_refused() -> None:
    first = Origin(video_track(THIRTY), audio_track())
    first.stream.append(synthetic(5)[:300])
    progress = first.packager.progress()
    second = live_stream()
    second.ring.note_loss(progress.packaged_seq)
    told = f"after unit {progress.packaged_seq}, but unit {progress.packaged_seq} is the next"
    with pytest.raises(RemoteProtocolError, match=told):
        Packager(second, SegmenterConfig(), lambda _: None, splice=progress.splice)


def test_what_a_splice_needs_and_lacks_ends_the_packaging() -> None:
    units = synthetic(5)
    first = Origin(video_track(THIRTY), audio_track())
    first.stream.append(units[:300])
    needed = first.packager.progress().packaged_seq + 1
    second = resume(first, [unit for unit in units if unit.seq != needed])
    assert second.packager.failed == f"unit {needed} is needed to splice, and lost"
    assert not any(isinstance(event, Part) for event in second.events), "of empty samples"
    assert isinstance(second.events[-1], StreamEnded)


def test_a_stream_that_goes_on_elsewhere_does_not_end() -> None:
    origin = Origin(video_track(THIRTY), audio_track())
    origin.stream.append(synthetic(5))
    before = len(origin.events)
    origin.stream.goes_on = True
    origin.stream.end("sent elsewhere")
    assert origin.packager.ended
    assert len(origin.events) == before


def test_units_that_the_ring_lost_are_a_discontinuity() -> None:
    origin = Origin(video_track(THIRTY))
    origin.unwatch()
    pictures = list(video_units(video_times(THIRTY, 12), 2, payload_bytes=10))
    for seq, unit in enumerate(pictures):
        unit.seq = seq
    origin.stream.append(pictures[:75])
    origin.packager.wake()
    big = bytes(RING_BYTES_MAX // 130)
    origin.stream.append([u.replaced(payload=big) for u in pictures[75:]])
    origin.packager.wake()
    assert origin.packager.statistics().discontinuities == 1
    behind = [part for part in origin.parts("v0") if part.discontinuity]
    assert behind[0].index == 0
    assert behind[0].independent


def test_behind_a_takeover_a_successor_needs_nothing_from_before_it() -> None:
    """The other PoP has none of it. It can go on long before the next segment's end."""
    units = synthetic(9)
    first = Origin(video_track(THIRTY), audio_track())
    as_they_come(first, units[:300])
    before = first.packager.progress().packaged_seq
    assert before < 299
    newer = synthetic(9)
    for seq, unit in enumerate(newer, 2**32):
        unit.seq = seq
    for name in (1, 2):
        next(unit for unit in newer if unit.track_id == name).discontinuity = True
    first.stream.ring.note_loss(2**32)
    as_they_come(first, newer[:4])
    assert first.packager.progress().packaged_seq >= 2**32 - 1
    as_they_come(first, newer[4:30])
    second = resume(first, newer)
    whole = Origin(video_track(THIRTY), audio_track())
    as_they_come(whole, units[:300])
    whole.stream.ring.note_loss(2**32)
    as_they_come(whole, newer)
    for rendition in ("v0", "a0"):
        made = {(part.msn, part.index): part for part in first.parts(rendition)}
        again = {(part.msn, part.index): part for part in second.parts(rendition)}
        assert list((made | again).values()) == whole.parts(rendition)
        assert max(made) < max(again)


def test_a_changed_track_is_taken_up() -> None:
    origin = Origin(video_track(THIRTY))
    pictures = list(video_units(video_times(THIRTY, 8), 2))
    for seq, unit in enumerate(pictures):
        unit.seq = seq
        unit.config_id = seq // 120
    origin.stream.append(pictures[:120])
    origin.stream.set_track(video_track(THIRTY, config_id=1, width=640))
    origin.stream.append(pictures[120:])
    assert origin.window.renditions["v0"].rendition.width == 640
    assert len(origin.window.renditions["v0"].inits) == 2
    assert origin.packager.statistics().discontinuities == 1


def test_the_end_is_published_once_and_logged() -> None:
    origin = Origin(video_track(THIRTY), audio_track())
    origin.stream.append(synthetic(3))
    assert not origin.packager.ended
    with capture_logs() as logs:
        origin.stream.end("publisher left")
    assert origin.packager.ended
    assert origin.events[-1] == StreamEnded(reason="publisher left")
    count = len(origin.events)
    origin.packager.wake()
    origin.packager.close("again")
    assert len(origin.events) == count
    (line,) = logs
    assert line["event"] == "packaging ended"
    assert (line["channel"], line["publication"], line["reason"]) == ("ch", "ab", "publisher left")
    assert line["units"] == len(synthetic(3))


def test_a_gop_beyond_the_limit_is_warned_of_once() -> None:
    origin = Origin(video_track(THIRTY))
    pictures = list(video_units(video_times(THIRTY, 24), 9))
    for seq, unit in enumerate(pictures):
        unit.seq = seq
    with capture_logs() as logs:
        for seq, unit in enumerate(pictures):
            origin.stream.append([unit])
            assert len(logs) == (seq >= 132), "with the picture that begins the second segment"
        origin.stream.end("over")
    warning, ended = logs
    assert warning == {
        "event": "key frames too far apart: segments begin without one, so viewers start late",
        "log_level": "warning",
        "channel": "ch",
        "publication": "ab",
        "gop_s_min": 4.4,
        "gop_s_max": 4.4,
    }
    assert (ended["event"], ended["long_gops"]) == ("packaging ended", 5)


def test_who_takes_over_warns_with_the_first_unit_of_its_own() -> None:
    """What the first origin saw of the stream is in the splice; a segment later would be late."""
    first = Origin(video_track(THIRTY))
    pictures = list(video_units(video_times(THIRTY, 12), 9))
    for seq, unit in enumerate(pictures):
        unit.seq = seq
    for unit in pictures[:140]:
        first.stream.append([unit])
    state = read_state(first.packager.progress().splice)
    assert state.rule.long_gops == 1
    second = resume(first, [])
    with capture_logs() as logs:
        as_they_come(second, pictures[state.packaged_seq + 1 : state.last_seq + 1])
        assert logs == [], "nothing of it is new"
        as_they_come(second, pictures[state.last_seq + 1 : state.last_seq + 3])
    (warning,) = logs
    assert warning["event"].startswith("key frames too far apart")


def test_rungs_that_are_not_aligned_are_warned_of_once() -> None:
    tracks, units = make_ladder([Rung(), Rung(offset_s=1)], seconds=9)
    origin = Origin(*tracks)
    with capture_logs() as logs:
        for unit in units:
            origin.stream.append([unit])
        origin.stream.end("over")
    warning, ended = logs
    assert warning == {
        "event": "key frames of the rungs are not at the same times: viewers change rungs late",
        "log_level": "warning",
        "channel": "ch",
        "publication": "ab",
    }
    assert (ended["unaligned"], ended["deviation_s"]) == (0, 1.0)


def test_what_a_skip_lets_go_is_published() -> None:
    """The second rung's key frame waits for the leading one's, which the ring has lost."""
    tracks, units = make_ladder([Rung(), Rung(reorder=12_000)], seconds=9)
    origin = Origin(*tracks)
    held = next(n for n, u in enumerate(units) if u.track_id == 3 and u.dts >= 4 * 90_000)
    origin.stream.append(units[: held + 1])
    assert origin.packager.progress().packaged_seq < held
    ring = origin.stream.ring
    ring.note_loss(units[held + 20].seq)
    origin.stream.append(units[held + 20 :])
    origin.stream.end("over")
    assert {len(origin.window.renditions[name].listed) for name in ("v0", "v1", "a0")} == {4}
    assert origin.window.parts_missing == 0
    assert [part.discontinuity for part in origin.parts("v1") if part.index == 0].count(True) == 1


def test_closing_ends_the_playlists_with_what_is_pending() -> None:
    origin = Origin(video_track(THIRTY), audio_track())
    units = synthetic(3)
    origin.stream.append(units)
    origin.packager.close("the origin drains")
    assert origin.events[-1] == StreamEnded(reason="the origin drains")
    assert max(part.last_seq for part in origin.parts("a0")) >= units[-2].seq


def test_a_stream_that_cannot_be_packaged_ends_with_the_reason() -> None:
    track = video_track(THIRTY)
    config = msgspec.structs.replace(track.config, codec=Codec.VP8)
    origin = Origin(msgspec.structs.replace(track, codec=Codec.VP8, config=config))
    pictures = list(video_units(video_times(THIRTY, 3), 2))
    for seq, unit in enumerate(pictures):
        unit.seq = seq
    origin.stream.append(pictures)
    assert origin.packager.failed == "codec vp8 has no CMAF sample entry"
    ended = origin.events[-1]
    assert isinstance(ended, StreamEnded)
    assert ended.reason == "cannot be packaged: codec vp8 has no CMAF sample entry"
    assert origin.stream.ended is None
    count = len(origin.events)
    origin.stream.append([])
    assert len(origin.events) == count


def test_one_that_fails_only_when_it_ends_says_so_too() -> None:
    track = video_track(THIRTY)
    config = msgspec.structs.replace(track.config, codec=Codec.VP8)
    origin = Origin(msgspec.structs.replace(track, codec=Codec.VP8, config=config))
    (unit,) = video_units([0], 2)
    origin.stream.append([unit])
    origin.stream.end("publisher left")
    assert origin.packager.failed == "codec vp8 has no CMAF sample entry"
    assert origin.events == [StreamEnded(reason="publisher left")]


def test_configuration() -> None:
    config = SegmenterConfig(part_ms=100, segment_s=1.0, target_duration_s=2)
    origin = Origin(video_track(THIRTY), audio_track(), config=config)
    origin.stream.append(synthetic(5))
    assert origin.window.renditions["v0"].rendition.part_target_us == 100_000
    assert origin.window.renditions["v0"].rendition.target_duration_s == 2
