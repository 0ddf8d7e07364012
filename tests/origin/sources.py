"""Sources for the ladder's tests, made by Debian's ffmpeg; and what a decoder makes of rungs."""

import array
import functools
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from msgspec import Struct

from edged.media import h264
from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.media.stream import PriorityClass
from edged.media.track import Kind, Track
from edged.origin import encoders
from edged.origin.ladder_engine import EngineStatistics, LadderEngine, Output
from edged.policy.ladder import (
    LadderBudget,
    LadderConfig,
    RungConfig,
    choose_ladder,
)
from tests.conftest import require
from tests.e2e.clip import read_units

ENCODE_TIMEOUT_S = 60.0
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
SMALL = LadderConfig(
    rungs=(
        RungConfig(height=120, kbps=400, fps_max=60),
        RungConfig(height=96, kbps=200),
        RungConfig(height=64, kbps=100),
    ),
    preset="ultrafast",
    slots=1000,  # So nothing is measured,
    encoder="x264",  # or tried.
)
RICH = LadderBudget(cost_max=1e6)


class Source(Struct, frozen=True):
    """A clip as a publisher's units."""

    path: Path
    tracks: list[Track]
    units: list[AccessUnit]

    def of(self, kind: Kind) -> list[AccessUnit]:
        """Units of all tracks of a kind."""
        ids = {track.track_id for track in self.tracks if track.kind is kind}
        return [unit for unit in self.units if unit.track_id in ids]

    def track(self, kind: Kind) -> Track:
        """The first track of a kind."""
        return next(track for track in self.tracks if track.kind is kind)


@functools.cache
def make_source(
    *options: str,
    size: str = "320x180",
    rate: str = "30",
    seconds: float = 2,
    video: str | None = "testsrc2",
    audio: str | None = None,
    suffix: str = "mkv",
) -> Source:
    """Encode test pictures, and a sound given as a filter; `options` are ffmpeg's."""
    require("ffmpeg")
    inputs: list[str] = []
    if video is not None:
        inputs += ["-f", "lavfi", "-i", f"{video}=size={size}:rate={rate}"]
    if audio is not None:
        inputs += ["-f", "lavfi", "-i", audio]
    path = Path(_folder().name) / f"{len(list(Path(_folder().name).iterdir()))}.{suffix}"
    subprocess.run(  # noqa: S603 - our own arguments
        ["ffmpeg", "-v", "error", "-nostdin", "-y", *inputs, "-t", str(seconds),  # noqa: S607
         "-threads", "2", *options, str(path)],
        check=True, timeout=ENCODE_TIMEOUT_S,
    )  # fmt: skip
    tracks, units = read_units(path)
    for seq, unit in enumerate(units):
        unit.seq = seq
        scale = next(t.timescale for t in tracks if t.track_id == unit.track_id)
        unit.wallclock_us = unit.pts * 1_000_000 // scale
    return Source(path, tracks, units)


@functools.cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="edged-ladder-")


def let_go() -> None:
    """Remove what was made."""
    if _folder.cache_info().currsize:
        _folder().cleanup()
        _folder.cache_clear()


def plan_for(
    source: Source | Sequence[Track],
    config: LadderConfig = SMALL,
) -> LadderPlan:
    """The ladder of a source."""
    tracks = source.tracks if isinstance(source, Source) else source
    return choose_ladder(tracks, config, PriorityClass.BASIC, RICH)


class Made(Struct):
    """What an engine made."""

    plan: LadderPlan
    tracks: dict[int, list[Track]]  # Each configuration.
    units: dict[int, list[AccessUnit]]
    engine: LadderEngine | None

    def rung(self, name: str) -> list[AccessUnit]:
        """The units of a rung."""
        return self.units[self._ids[name]]

    def track(self, name: str) -> Track:
        """Its track, as it was last."""
        return self.tracks[self._ids[name]][-1]

    @property
    def statistics(self) -> EngineStatistics:
        """The engine's."""
        assert self.engine is not None, "it was another process's"
        return self.engine.statistics()

    @property
    def _ids(self) -> dict[str, int]:
        ids = {rung.name: rung.track_id for rung in self.plan.video}
        return ids | {rung.name: rung.track_id for rung in self.plan.audio}


def make_rungs(
    source: Source, plan: LadderPlan | None = None, units: Sequence[AccessUnit] | None = None
) -> Made:
    """Run an engine over a source."""
    plan = plan or plan_for(source)
    engine = LadderEngine(plan)
    for track in source.tracks:
        engine.set_track(track)
    out: list[Output] = []
    for unit in source.units if units is None else units:
        out += engine.take(unit.replaced())
    out += engine.finish()
    return collect(plan, engine, out)


def collect(plan: LadderPlan, engine: LadderEngine | None, out: Sequence[Output]) -> Made:
    """Sort what came out; units name a configuration that was announced before."""
    made = Made(plan, defaultdict(list), defaultdict(list), engine)
    for each in out:
        if isinstance(each, Track):
            made.tracks[each.track_id].append(each)
        else:
            assert each.config_id == made.tracks[each.track_id][-1].config_id
            made.units[each.track_id].append(each)
    return made


class Picture(Struct):
    """A decoded picture's properties."""

    pts: int
    size: tuple[int, int]
    is_key: bool
    colours: tuple[int, int, int, int]
    rotation: int


def decode_video(track: Track, units: Sequence[AccessUnit]) -> list[Picture]:
    """What a decoder shows of a video track; it must not complain."""
    decoder = encoders.open_video_decoder(track.config, 1)
    packets: list[av.Packet[av.VideoStream] | None] = []
    for unit in units:
        packet = cast("av.Packet[av.VideoStream]", av.Packet(unit.payload))
        packet.pts, packet.dts = unit.pts, unit.dts
        packets.append(packet)
    pictures: list[Picture] = []
    for each in [*packets, None]:
        for frame in decoder.decode(each):
            assert frame.pts is not None
            assert not frame.is_corrupt
            colours = (
                int(frame.color_range),
                int(frame.color_primaries),
                int(frame.color_trc),
                int(frame.colorspace),
            )
            pictures.append(
                Picture(
                    frame.pts,
                    (frame.width, frame.height),
                    frame.key_frame,
                    colours,
                    frame.rotation,
                )
            )
    return pictures


def decode_audio(
    track: Track, units: Sequence[AccessUnit]
) -> "tuple[Fraction, array.array[float]]":
    """When the samples of the first channel begin, in seconds, and the samples."""
    decoder = encoders.open_audio_decoder(track.config)
    samples = array.array("f")
    for unit in units:
        for frame in decoder.decode(cast("av.Packet[av.AudioStream]", av.Packet(unit.payload))):
            plane = array.array("f", bytes(frame.planes[0]))
            samples.extend(plane[: frame.samples])
    return Fraction(units[0].pts, track.timescale), samples


def onsets(
    begin: Fraction, samples: "array.array[float]", rate: int, level: float = 0.15
) -> list[float]:
    """When, in seconds, sound begins after silence."""
    found: list[float] = []
    quiet = rate // 10
    still = quiet
    for index, sample in enumerate(samples):
        if abs(sample) >= level:
            if still >= quiet:
                found.append(float(begin + Fraction(index, rate)))
            still = 0
        else:
            still += 1
    return found


def measure_psnr(made: Made, name: str, source: Source, *, every: int = 1) -> float:
    """Against the source in the rung's size, of the worst plane; `every`: pictures it has."""
    track = made.track(name)
    record = h264.parse_record(track.config.record)
    stream = b"".join(
        h264.to_annexb(unit.payload, (*record.sps, *record.pps) if unit.random_access else ())
        for unit in made.rung(name)
    )
    path = Path(_folder().name) / f"{name}.h264"
    path.write_bytes(stream)
    width, height = track.config.width, track.config.height
    # Debian's scaler has to be told where H.264 has its chroma: left (§E.2.1); PyAV's knows.
    graph = (
        f"[1:v]select='not(mod(n,{every}))',"
        f"scale={width}:{height}:flags=bicubic:in_h_chr_pos=0:out_h_chr_pos=0,"
        "format=yuv420p,setpts=N/(30*TB)[source];[0:v]setpts=N/(30*TB)[rung];[rung][source]psnr"
    )
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["ffmpeg", "-nostdin", "-i", str(path), "-i", str(source.path),  # noqa: S607
         "-lavfi", graph, "-f", "null", "-"],
        check=True, timeout=ENCODE_TIMEOUT_S, capture_output=True, text=True,
    )  # fmt: skip
    planes = re.findall(r"\b[yuv]:([\d.]+|inf)", done.stderr.rsplit("PSNR ", 1)[1])
    assert len(planes) == 3
    return min(map(float, planes))
