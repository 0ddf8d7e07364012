"""Clips for the end-to-end tests, the encoders that publish them, and FFmpeg as the judge."""

import functools
import hashlib
import io
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import trio
from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.track import Track
from edged.tools.file_source import FileSource

SIZE = (320, 180)
RATE = 30
GOP = 30
MS = Fraction(1, 1000)
ENCODE_TIMEOUT_S = 60.0

VIDEO = {
    "h264": ("libx264", "-preset", "veryfast", "-bf", "2", "-x264-params", "scenecut=0"),
    "hevc": ("libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params",
             "log-level=none:bframes=2:pools=1:scenecut=0:open-gop=0"),
    "av1": ("libsvtav1", "-preset", "12", "-svtav1-params", "lp=1"),
    "vp9": ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0",
            "-auto-alt-ref", "0"),
}  # fmt: skip
AUDIO = {"aac": ("aac",), "opus": ("libopus",)}


class Packet(Struct, frozen=True):
    """One access unit, as FFmpeg reads it."""

    digest: str
    size: int
    pts: Fraction  # Seconds.
    dts: Fraction
    key: bool | None = None  # None where it is not known.


Packets = dict[str, list[Packet]]  # By "video" and "audio", or by the names of renditions.


@functools.cache
def make_clip(
    video: str = "h264",
    audio: str = "aac",
    seconds: int = 6,
    tone: int = 440,
    gop: int = GOP,
    *,
    size: tuple[int, int] = SIZE,
    rate: int = 48_000,
) -> Path:
    """A clip as Debian's ffmpeg makes it; other tones make other pictures too."""
    width, height = size
    path = _folder() / f"{video}-{audio}-{seconds}-{tone}-{gop}-{width}-{rate}.mp4"
    picture = f"testsrc2=size={width}x{height}:rate={RATE},drawbox=color=red@{tone / 4000}:t=fill"
    subprocess.run(  # noqa: S603 - our own arguments
        ["ffmpeg", "-v", "error", "-nostdin", "-y",  # noqa: S607 - whichever is installed
         "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"sine=frequency={tone}:r=48000",
         "-t", str(seconds), "-pix_fmt", "yuv420p", "-threads", "2", "-ac", "2", "-ar", str(rate),
         "-g", str(gop), "-keyint_min", str(gop), "-b:v", "300k", "-c:v", *VIDEO[video],
         "-c:a", *AUDIO[audio], str(path)],
        check=True, timeout=ENCODE_TIMEOUT_S,
    )  # fmt: skip
    return path


class Rung(Struct, frozen=True):
    """One rung of a ladder."""

    codec: str
    size: tuple[int, int]
    kbps: int


@functools.cache
def make_ladder_clip(
    rungs: tuple[Rung, ...], audio: tuple[tuple[str, str], ...], seconds: int = 6, gop: int = GOP
) -> Path:
    """A clip of several rungs, their key frames aligned, and of audio given as codec, language.

    Each audio track has a tone of its own.
    """
    name = "-".join([*(f"{r.codec}{r.size[1]}" for r in rungs), *map("".join, audio)])
    path = _folder() / f"ladder-{name}-{seconds}-{gop}.mp4"
    inputs = ["-f", "lavfi", "-i", f"testsrc2=size=640x360:rate={RATE}"]
    outputs: list[str] = []
    for index, rung in enumerate(rungs):
        width, height = rung.size
        options = [f"{o}:v:{index}" if o.startswith("-") else o for o in VIDEO[rung.codec][1:]]
        outputs += [
            "-map", "0:v", f"-filter:v:{index}", f"scale={width}:{height}",
            f"-c:v:{index}", VIDEO[rung.codec][0], f"-b:v:{index}", f"{rung.kbps}k",
            *(option.replace("-tag:v:v:", "-tag:v:") for option in options),
        ]  # fmt: skip
    for index, (codec, language) in enumerate(audio):
        inputs += ["-f", "lavfi", "-i", f"sine=frequency={440 * (index + 1)}:r=48000"]
        outputs += ["-map", f"{index + 1}:a", f"-c:a:{index}", *AUDIO[codec],
                    f"-metadata:s:a:{index}", f"language={language}"]  # fmt: skip
    subprocess.run(  # noqa: S603 - our own arguments
        ["ffmpeg", "-v", "error", "-nostdin", "-y", *inputs, *outputs,  # noqa: S607
         "-t", str(seconds), "-pix_fmt", "yuv420p", "-threads", "2", "-ac", "2",
         "-g", str(gop), "-keyint_min", str(gop), str(path)],
        check=True, timeout=ENCODE_TIMEOUT_S,
    )  # fmt: skip
    return path


@functools.cache
def _folder() -> Path:
    # Removed with the process: the object is kept by the cache of the function below.
    return Path(_temporary().name)


@functools.cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="edged-clips-")


def read_renditions(source: Path) -> Packets:
    """The same by the names of the renditions that a file's streams become: "v0", "a1"."""
    with av.open(str(source), "r") as container:
        kinds = [stream.type for stream in container.streams]
    names = [f"{kind[0]}{kinds[:index].count(kind)}" for index, kind in enumerate(kinds)]
    return {names[index]: packets for index, packets in _read(source).items()}


def read_packets(source: Path | bytes) -> Packets:
    """What FFmpeg's demuxer finds in a file of one stream of each kind."""
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(file, "r") as container:
        kinds = [stream.type for stream in container.streams]
    return {kinds[index]: packets for index, packets in _read(source).items()}


def _read(source: Path | bytes) -> dict[int, list[Packet]]:
    read: dict[int, list[Packet]] = {}
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(file, "r") as container:
        for packet in container.demux():
            if not packet.size:
                continue
            assert packet.pts is not None
            assert packet.dts is not None
            read.setdefault(packet.stream_index, []).append(
                Packet(
                    hashlib.md5(bytes(packet)).hexdigest(),  # noqa: S324 - as framemd5 has it
                    packet.size,
                    packet.pts * packet.time_base,
                    packet.dts * packet.time_base,
                    packet.is_keyframe,
                )
            )
    return read


def check_same(published: Packets, served: Packets, *, whole: bool = True) -> None:
    """What was served is what was published: payloads, order, times, and A/V offset.

    `whole`: from the first picture (audio that comes before it has no segment to be in) to the end.

    Each time is `published` plus one shift for the whole stream, within RTMP's millisecond of
    rounding (half of one each way, for dts and for the composition time, and the clip's own ticks).
    """
    assert served.keys() == published.keys()
    shifts: list[Fraction] = []
    for kind, sent in published.items():
        got = served[kind]
        assert got, kind
        digests = [packet.digest for packet in sent]
        assert got[0].digest in digests, f"{kind} begins with what was not sent"
        first = digests.index(got[0].digest)
        if whole:
            leading = published.get("video") or published["v0"]
            begin = leading[0].dts
            assert first == 0 or sent[first - 1].dts < begin, f"{kind} begins with unit {first}"
            assert first + len(got) == len(sent), f"{kind}: {first} + {len(got)} of {len(sent)}"
        matching = sent[first : first + len(got)]
        mine = [packet.digest for packet in got]
        assert mine == [packet.digest for packet in matching], kind
        for ours, theirs in zip(got, matching, strict=True):
            assert ours.size == theirs.size
            assert kind[0] == "a" or ours.key in (None, theirs.key)
            shifts += [ours.pts - theirs.pts, ours.dts - theirs.dts]
    spread = max(shifts) - min(shifts)
    assert spread <= 2 * MS, f"times spread by {float(spread) * 1000:.2f} ms"


def check_spacing(packets: Sequence[Packet], spacing: Fraction) -> None:
    """Decoding times rise by exactly this much (within the reader's own ticks)."""
    steps = {b.dts - a.dts for a, b in itertools.pairwise(packets)}
    assert all(abs(step - spacing) <= Fraction(1, 40_000) for step in steps), steps


def read_units(path: Path) -> tuple[list[Track], list[AccessUnit]]:
    """The clip as access units, in the order of their decoding times."""
    source = FileSource(path, loop=False)
    units: list[AccessUnit] = []
    while source.next_due_s() is not None:
        units += source.take_units()
    source.close()
    return list(source.tracks), _sorted(list(source.tracks), units)


def _sorted(tracks: list[Track], units: list[AccessUnit]) -> list[AccessUnit]:
    scales = {track.track_id: track.timescale for track in tracks}
    return sorted(units, key=lambda unit: Fraction(unit.dts, scales[unit.track_id]))


# Encoders and players as processes.


async def run_ffmpeg(*arguments: str, timeout_s: float = 40.0) -> str:
    """Run Debian's ffmpeg to its end; its standard output."""
    with trio.fail_after(timeout_s):
        done = await trio.run_process(
            ["ffmpeg", "-v", "error", "-nostdin", *arguments],
            capture_stdout=True, capture_stderr=True, check=False,
        )  # fmt: skip
    errors = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"ffmpeg {arguments}: {errors}"
    return done.stdout.decode()


async def publish_ffmpeg(clip: Path, url: str) -> None:
    """Debian's ffmpeg publishes the clip as it is, in real time."""
    await run_ffmpeg("-re", "-i", str(clip), "-c", "copy", "-f", "flv", url)


async def publish_pyav(clip: Path, url: str) -> None:
    """PyAV's FFmpeg (newer, with E-RTMP) publishes the clip as it is, in real time."""
    with trio.fail_after(60):
        done = await trio.run_process(
            [sys.executable, "-c", _PYAV, str(clip), url], capture_stderr=True, check=False
        )
    assert done.returncode == 0, done.stderr.decode(errors="replace")


_PYAV = """
import sys, time
import av

source, url = sys.argv[1:]
with av.open(source) as clip, av.open(url, "w", format="flv") as server:
    streams = {s.index: server.add_stream_from_template(s, opaque=True) for s in clip.streams}
    began = time.monotonic()
    for packet in clip.demux():
        if packet.size:
            time.sleep(max(0, began + float(packet.dts * packet.time_base) - time.monotonic()))
            packet.stream = streams[packet.stream_index]
            server.mux(packet)
"""


async def play_ffmpeg(url: str) -> Packets:
    """Debian's ffmpeg plays a playlist from its start to its end: framemd5 of every packet."""
    text = await run_ffmpeg(
        "-live_start_index", "0", "-i", url, "-map", "0:v:0", "-map", "0:a:0",
        "-c", "copy", "-copyts", "-f", "framemd5", "-",
    )  # fmt: skip
    kinds = ("video", "audio")
    bases: dict[str, Fraction] = {}
    played: Packets = {}
    for line in text.splitlines():
        if line.startswith("#tb "):
            number, _, base = line.removeprefix("#tb ").partition(": ")
            bases[number] = Fraction(base)
        elif line and not line.startswith("#"):
            number, dts, pts, _, size, digest = (part.strip() for part in line.split(","))
            tick = bases[number]
            packet = Packet(digest, int(size), int(pts) * tick, int(dts) * tick)
            played.setdefault(kinds[int(number)], []).append(packet)
    return played
