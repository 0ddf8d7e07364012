"""A live stream with a transcoder of real processes, in real time or faster."""

import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence

import trio

from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.media.stream import Grant, StreamId
from edged.media.track import Kind, Track
from edged.origin.transcoder import MODULE, Transcoder, TranscoderLimits
from edged.runtime.hub import LiveStream
from tests.origin.sources import Made, Source, plan_for

DEADLINE_S = 30.0
# A child whose engine does `before` with each unit first.
CHILD = """
import os, sys, time
from edged.origin import ladder_child
from edged.origin.ladder_engine import LadderEngine
take = LadderEngine.take
def before(engine, unit):
    {before}
def taken(self, unit):
    before(self, unit)
    return take(self, unit)
LadderEngine.take = taken
sys.exit(ladder_child.main())
"""


# A child that has a hardware encoder, made of x264, which does `before` with each picture first.
DRIVER = """
import os, sys
from msgspec import structs
from edged.errors import EncoderError
from edged.origin import encoders, ladder_child
opened, encode = encoders.open_video_encoder, encoders.encode_picture
def open_video_encoder(rung, plan, look, timescale):
    rung = structs.replace(rung, preset=rung.preset or "ultrafast")
    return opened(rung, structs.replace(plan, encoder="libx264"), look, timescale)
def encode_picture(encoder, frame):
    if plan == "{encoder}" and frame is not None:
        {before}
    return encode(encoder, frame)
def canonical_payload(payload, name):
    return payload
encoders.open_video_encoder, encoders.encode_picture = open_video_encoder, encode_picture
encoders.canonical_payload = canonical_payload
plan = "{encoder}" if sys.argv[-1] == "driven" else "libx264"
sys.exit(ladder_child.main())
"""


def driven(encoder: str, before: str) -> tuple[str, ...]:
    """The command of a child whose encoder of this name does this with each picture first."""
    return ("-c", DRIVER.format(encoder=encoder, before=before))


def faulty(before: str) -> tuple[str, ...]:
    """The command of a child that does this with each unit before it takes it."""
    return ("-c", CHILD.format(before=before))


class Live:
    """One stream, its ladder, and what that published."""

    def __init__(
        self,
        source: Source,
        *,
        limits: TranscoderLimits | None = None,
        command: Sequence[str] = ("-m", MODULE),
        choose: Callable[[Sequence[Track]], LadderPlan] = plan_for,
        failed: Callable[[str, str, float], bool] = lambda _, __, ___: False,
    ) -> None:
        self.source = source
        self.stream = LiveStream(
            StreamId("alice", 1), Grant(channel="alice"), started_at=0.0, came_from="test"
        )
        self.tracks: dict[int, list[Track]] = defaultdict(list)
        self.units: dict[int, list[AccessUnit]] = defaultdict(list)
        self.wanted: list[tuple[str, ...]] = []  # Of the picture's rungs; each change.
        self.transcoder = Transcoder(
            self.stream,
            choose,
            publish_track=lambda track: self.tracks[track.track_id].append(track),
            publish_units=self._take,
            limits=limits,
            command=command,
            failed=failed,
        )
        self.transcoder.on_wanted = self._note_wanted
        self.seq = 0
        self.late_s = 0.0  # The most that it was fed late, where it has a pace.

    def _take(self, units: list[AccessUnit]) -> None:
        for unit in units:
            assert unit.config_id == self.tracks[unit.track_id][-1].config_id
            self.units[unit.track_id].append(unit)

    def _note_wanted(self, track_ids: set[int]) -> None:
        rungs = self.transcoder.plan.video
        names = tuple(rung.name for rung in rungs if rung.track_id in track_ids)
        if names not in self.wanted[-1:]:
            self.wanted.append(names)

    @property
    def made(self) -> Made:
        """What was published, as of an engine."""
        plan = self.transcoder.plan
        return Made(plan, self.tracks, self.units, None)

    async def begun(self) -> None:
        """Until it reads the ring: else it begins at the newest GOP, which may be the last."""
        self.set_tracks()
        await self.wait_until(lambda: self.transcoder._session is not None)

    def set_tracks(self) -> None:
        for track in self.source.tracks:
            self.stream.set_track(track)

    async def feed(
        self,
        *,
        turns: int = 1,
        speed: float = 1.0,
        change: Callable[[AccessUnit], AccessUnit] = lambda unit: unit,
    ) -> None:
        """Publish the source so many times in a row."""
        if not self.stream.tracks:
            self.set_tracks()
        scales = {track.track_id: track.timescale for track in self.source.tracks}
        first = self.source.units[0]
        length_s = round(
            max(unit.dts / scales[unit.track_id] for unit in self.source.units)
            - first.dts / scales[first.track_id]
        )
        began = trio.current_time()
        for turn in range(turns):
            for each in self.source.units:
                scale = scales[each.track_id]
                shift = turn * length_s
                at = each.dts / scale - first.dts / scales[first.track_id] + shift
                if math.isfinite(speed):
                    due_at = began + at / speed
                    await trio.sleep_until(due_at)
                    self.late_s = max(self.late_s, trio.current_time() - due_at)
                unit = each.replaced(
                    seq=self.seq,
                    pts=each.pts + shift * scale,
                    dts=each.dts + shift * scale,
                    wallclock_us=each.wallclock_us + shift * 1_000_000,
                )
                self.seq += 1
                self.stream.append([change(unit)])
            if not math.isfinite(speed):
                await trio.lowlevel.checkpoint()

    async def wait_until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110 - what happens is another process's
            await trio.sleep(0.01)

    def gops(self, name: str) -> list[list[int]]:
        """Times of a rung's pictures, by GOP."""
        found: list[list[int]] = []
        for unit in self.made.rung(name):
            if unit.random_access:
                found.append([])
            found[-1].append(unit.pts)
        return found

    @property
    def keys(self) -> list[int]:
        """Where the source, once, has random access."""
        return [unit.pts for unit in self.source.of(Kind.VIDEO) if unit.random_access]


@contextlib.asynccontextmanager
async def running(live: Live) -> AsyncIterator[None]:
    """Run its transcoder; at the end, the source ends and all is given out."""
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.transcoder.run)
            yield
            live.stream.end("over")
