"""One run of each, and the clip that both transcode."""

import functools
import os
import re
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio
from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Kind, Track
from edged.origin.encoders import X264_PARAMS
from edged.origin.transcoder import Transcoder, TranscoderLimits
from edged.policy.ladder import LadderBudget, LadderConfig, PresetName, choose_ladder
from edged.runtime.hub import LiveStream
from tests.bench.goals import verdict
from tests.bench.ingest.processes import BenchError
from tests.e2e.clip import read_units

CPU_RATIO_GOAL: Final = 1.05
RUN_S_MAX = 120.0
GOP_S = 2
LAG_UNITS_MAX = 30
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ENCODED = re.compile(r"Output stream #\d+:0 \(video\): (\d+) frames encoded")
# Nothing is to be shed or skipped: it is not live here.
PATIENT = TranscoderLimits(hang_s=RUN_S_MAX, start_s=RUN_S_MAX, skip_queue_s=1e9)


class Row(Struct, frozen=True):
    """What is transcoded."""

    name: str
    width: int
    height: int
    rate: int


ROWS: Final = (Row("720p30", 1280, 720, 30), Row("1080p60", 1920, 1080, 60))


class Run(Struct, frozen=True):
    """CPU seconds of one round."""

    ffmpeg_s: float
    child_s: float  # From when it was ready.
    start_s: float  # Until it was ready.
    parent_s: float  # Feeding, and taking the rungs.
    units: int

    @property
    def ratio(self) -> float:
        """Ours to ffmpeg's."""
        return (self.child_s + self.parent_s) / self.ffmpeg_s


class Summary(Struct, frozen=True):
    """Medians of a row."""

    row: Row
    runs: int
    ratio: float
    ffmpeg_s: float
    child_s: float
    parent_s: float
    start_s: float
    factor: float  # x real time on one core.


@functools.cache
def make_clip(row: Row, seconds: int) -> Path:
    """Moving test pictures with noise, as a camera's; with B-frames, as OBS sends them."""
    path = Path(_folder().name) / f"{row.name}-{seconds}.mp4"
    source = f"testsrc2=size={row.width}x{row.height}:rate={row.rate},noise=alls=6:allf=t"
    subprocess.run(  # noqa: S603 - our own arguments
        ["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", source,  # noqa: S607
         "-f", "lavfi", "-i", "sine=440:r=48000", "-t", str(seconds), "-pix_fmt", "yuv420p",
         "-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-b:v", "6M", "-maxrate", "6M",
         "-bufsize", "12M", "-g", str(GOP_S * row.rate), "-sc_threshold", "0",
         "-c:a", "aac", str(path)],
        check=True, timeout=RUN_S_MAX,
    )  # fmt: skip
    return path


def choose(tracks: Sequence[Track], preset: PresetName) -> LadderPlan:
    """The defaults' ladder, one thread each."""
    config = LadderConfig(preset=preset)
    budget = LadderBudget(cost_max=1e9, cores=1)
    return choose_ladder(tracks, config, PriorityClass.PARTNER, budget)


def run_once(row: Row, seconds: int, preset: PresetName) -> Run:
    """One after the other."""
    path = make_clip(row, seconds)
    tracks, units = read_units(path)
    plan = choose(tracks, preset)
    theirs: list[int] = []
    ffmpeg_s = _children_s(lambda: theirs.extend(run_ffmpeg(path, plan, row)))
    child = _Child()
    before = resource.getrusage(resource.RUSAGE_SELF)
    children_s = _children_s(lambda: trio.run(child.run, tracks, units, preset))
    after = resource.getrusage(resource.RUSAGE_SELF)
    pictures = sum(unit.track_id == plan.video_track_id for unit in units)
    check_alike(plan, pictures, [child.units.get(rung.track_id, 0) for rung in plan.video], theirs)
    return Run(
        ffmpeg_s=ffmpeg_s,
        child_s=children_s - child.start_s,
        start_s=child.start_s,
        parent_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        units=sum(child.units.values()),
    )


def check_alike(plan: LadderPlan, pictures: int, ours: list[int], theirs: list[int]) -> None:
    """That both have encoded all pictures of all rungs, and no more: else nothing is compared."""
    wanted = [pictures // 2 if rung.spacing_ticks else pictures for rung in plan.video]
    for name, made in (("ours", ours), ("ffmpeg's", theirs)):
        alike = len(made) == len(wanted) and all(
            abs(count - due) <= 1 for count, due in zip(made, wanted, strict=True)
        )
        if not alike:
            raise BenchError(f"{name} rungs have {made} pictures, and were to have {wanted}")


def run_ffmpeg(path: Path, plan: LadderPlan, row: Row) -> list[int]:
    """The same ladder by one command line: scaled in a chain, pictures left out, keys forced.

    How many pictures it has encoded, by rung.
    """
    graph: list[str] = []
    outputs: list[str] = []
    label, halved = "0:v", False
    for index, rung in enumerate(plan.video):
        drop = rung.spacing_ticks > 0 and not halved
        halved = halved or drop
        select = "select='not(mod(n,2))'," if drop else ""
        last = index == len(plan.video) - 1
        scale = f"[{label}]{select}scale={rung.width}:{rung.height}:flags=bicubic"
        graph.append(scale + (f"[o{index}]" if last else f",split[o{index}][c{index}]"))
        label = f"c{index}"
        rate = row.rate // 2 if rung.spacing_ticks else row.rate
        outputs += [
            "-map", f"[o{index}]", "-c:v", "libx264", "-threads", "1", "-preset", rung.preset,
            "-profile:v", "high", "-level", f"{rung.level / 10:g}", "-b:v", str(rung.bitrate_bps),
            "-maxrate", str(rung.maxrate_bps), "-bufsize", str(rung.buffer_bits), "-bf", "0",
            "-g", "1000000", "-forced-idr", "1",
            "-force_key_frames", f"expr:gte(t,n_forced*{GOP_S})",
            "-x264-params", X264_PARAMS + "1", "-r", str(rate), "-f", "null", "-",
        ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["ffmpeg", "-v", "verbose", "-nostdin", "-threads", "1",  # noqa: S607
         "-filter_complex_threads", "1", "-i", str(path),
         "-filter_complex", ";".join(graph), *outputs],
        check=True, timeout=RUN_S_MAX, capture_output=True, text=True,
    )  # fmt: skip
    return [int(count) for count in _ENCODED.findall(done.stderr)]


class _Child:
    """Our side: a transcoder, fed as fast as its child takes units."""

    def __init__(self) -> None:
        self.start_s = 0.0
        self.units: dict[int, int] = {}  # By rung.

    async def run(self, tracks: list[Track], units: list[AccessUnit], preset: PresetName) -> None:
        stream = LiveStream(
            StreamId("bench", 1), Grant(channel="bench"), started_at=0.0, came_from="bench"
        )
        transcoder = Transcoder(
            stream,
            lambda known: choose(known, preset),
            publish_track=lambda track: None,
            publish_units=self._take,
            limits=PATIENT,
        )
        for track in tracks:
            stream.set_track(track)
        video = next(track.track_id for track in tracks if track.kind is Kind.VIDEO)
        with trio.fail_after(RUN_S_MAX):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transcoder.run)
                while transcoder.state != "running":  # noqa: ASYNC110 - another process's doing
                    await trio.sleep(0.01)
                pid = transcoder.statistics().pid
                self.start_s = _cpu_s(pid or 0)
                for seq, unit in enumerate(units):
                    await self._room(transcoder)
                    wallclock_us = unit.pts * 1_000_000 // 90_000 if unit.track_id == video else 0
                    stream.append([unit.replaced(seq=seq, wallclock_us=wallclock_us)])
                stream.end("over")
        assert transcoder.statistics().restarts == 0
        assert transcoder.statistics().shed == ()

    async def _room(self, transcoder: Transcoder) -> None:
        """So little is ahead of the child that it is not late, so much that it does not wait."""
        while (  # noqa: ASYNC110 - another process's doing
            session := transcoder._session
        ) is not None and session._cursor.lag_units > LAG_UNITS_MAX:
            await trio.sleep(0.01)
        assert session is not None, transcoder.last_reason

    def _take(self, units: list[AccessUnit]) -> None:
        for unit in units:
            self.units[unit.track_id] = self.units.get(unit.track_id, 0) + 1


def summarize(row: Row, seconds: int, runs: Sequence[Run]) -> Summary:
    """Medians; the ratio is of each round's own two."""

    def median(value: Callable[[Run], float]) -> float:
        return statistics.median(value(run) for run in runs)

    return Summary(
        row=row,
        runs=len(runs),
        ratio=median(lambda run: run.ratio),
        ffmpeg_s=median(lambda run: run.ffmpeg_s),
        child_s=median(lambda run: run.child_s),
        parent_s=median(lambda run: run.parent_s),
        start_s=median(lambda run: run.start_s),
        factor=seconds / median(lambda run: run.child_s + run.parent_s),
    )


def as_line(summary: Summary) -> str:
    """For people."""
    reached = verdict(reached=summary.ratio <= CPU_RATIO_GOAL)
    return (
        f"{summary.row.name:8} ladder {summary.child_s:6.2f} s + {summary.parent_s:.2f} s feeding"
        f" (and {summary.start_s:.2f} s to start), ffmpeg {summary.ffmpeg_s:6.2f} s:"
        f" {summary.ratio:.3f} x, goal <= {CPU_RATIO_GOAL:g}: {reached};"
        f" {summary.factor:.2f} x real time on a core ({summary.runs} runs)"
    )


def _cpu_s(pid: int) -> float:
    """Of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _children_s(run: Callable[[], object]) -> float:
    """CPU of the processes that were run and reaped meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@functools.cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="edged-transcode-")
