"""The parent of one stream's ladder: feeds a child process, publishes its rungs, begins it anew.

The child may crash, hang or be killed; the source is never touched by it: it is read from the ring,
and what the child does not take in time lags there and is skipped by whole GOPs.

    starting --Ready--> running --source ended--> ending --> ended
        ^                  | crash, hang, kill
        +--- waiting <-----+   (back-off; goes on at random access that no rung has shown yet)

It may be paused: then there is no child, until it is resumed.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import structlog
import trio
from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.gop_ring import RingCursor
from edged.media.ladder import LadderPlan
from edged.media.track import Kind, Track
from edged.origin.ladder_session import LadderSession
from edged.origin.rung_output import RungOutput
from edged.policy.ladder_encoders import DRIVEN, HARDWARE
from edged.policy.ladder_load import LoadRule, RestartRule, Shed
from edged.runtime.child import open_child
from edged.runtime.hub import LiveStream

MODULE = "edged.origin.ladder_child"
STARTS_MAX = 64  # Random access that was fed and may be where to go on: GOPs of a whole ring.
RESUME_S_MAX = 4.0  # What is older is not made up for after a restart; viewers are past it.
ARENAS = {"MALLOC_ARENA_MAX": "2"}  # glibc's arenas count against the limit of addresses.

State = Literal["waiting", "starting", "running", "ending", "ended"]

logger = structlog.get_logger("edged.transcoder")


def _ignore(_: LadderPlan) -> None:
    pass


def _ignore_rungs(_: set[int]) -> None:
    pass


def _keep(_encoder: str, _reason: str, _ran_s: float) -> bool:
    return False


class TranscoderLimits(Struct, frozen=True, kw_only=True):
    """What bounds a child."""

    flight_units: int = 64  # Given to the child and not done: 0.8 s of 30 fps and 48 kHz AAC.
    flight_bytes: int = 4 * 2**20  # Or one unit.
    start_s: float = 20.0  # Until it is ready: Python and FFmpeg, on a busy machine.
    hang_s: float = 5.0  # Without progress while units are given to it.
    end_s: float = 10.0  # To give out what it holds when the source has ended.
    skip_queue_s: float = 8.0  # So far behind the source, it goes on at the newest GOP.
    memory_bytes: int = 3 * 2**30  # Of addresses.


class TranscoderStatistics(Struct, frozen=True, kw_only=True):
    """How a stream's ladder is doing."""

    state: State
    pid: int | None
    factor: float  # x real time, lately; 0: not known.
    queue_s: float  # Behind the source.
    restarts: int
    rungs: tuple[str, ...]  # That are made.
    shed: tuple[str, ...]
    units_in: int
    units_out: int
    units_skipped: int  # Of the source, as the child was too slow or away.
    units_dropped: int  # Of rungs, as they were shown already.
    errors: int  # Units that the child could not decode, since it started.
    last_reason: str  # Of the last restart, shedding or return.


class Transcoder:
    """One stream's ladder. `publish_units` gets units whose `seq` counts this ladder's own."""

    def __init__(
        self,
        source: LiveStream,
        choose: Callable[[Sequence[Track]], LadderPlan],
        *,
        publish_track: Callable[[Track], None],
        publish_units: Callable[[list[AccessUnit]], None],
        limits: TranscoderLimits | None = None,
        command: Sequence[str] = ("-m", MODULE),
        planned: Callable[[LadderPlan], None] = _ignore,
        failed: Callable[[str, str, float], bool] = _keep,
        paused: bool = False,
    ) -> None:
        """`choose` plans the ladder for the source's tracks, each time when they change; `command`
        is what Python is to run as the child. `planned` is told of each other plan, and may pause
        or resume it. `failed` is told of the encoder, why its child failed and how long that ran;
        whether `choose` chooses anew is what it returns.
        """
        self.source = source
        self.limits = limits or TranscoderLimits()
        self.plan = LadderPlan()
        self.load = LoadRule(self.plan)
        self.state: State = "waiting"
        self.last_reason = ""
        self.woken = trio.Event()
        self.starts = deque[tuple[int, int]](maxlen=STARTS_MAX)  # seq and pts, as they were fed.
        self.units_in = self.units_skipped = 0
        self._choose, self._command = choose, command
        self.output = RungOutput(publish_track, publish_units)
        self._restarts = RestartRule()
        self._resume_seq: int | None = None
        self._session: LadderSession | None = None
        self._planned, self._failed = planned, failed
        # Told by their track ids which rungs are to be made from now on.
        self.on_wanted: Callable[[set[int]], None] = _ignore_rungs
        self._tracks: list[Track] = []  # That the plan is of.
        self.paused = paused
        self._child_scope = trio.CancelScope()

    async def run(self) -> None:
        """Until the source has ended and its last units are published.

        If it was cancelled before, it may be run again.
        """
        unwatch = self.source.watch(lambda _: self.woken.set())
        self.state = "waiting"
        self._note_where()
        try:
            while await self._wait_for_plan():
                failure = await self._run_child()
                if self.source.ended is not None:
                    break
                if self._child_scope.cancelled_caught:
                    self._note_where()
                    continue
                if failure is None:
                    break
                await self._back_off(*failure)
        finally:
            unwatch()
            self.state = "ended"
            self._log("info", "ladder ended", units=self.output.units)

    @property
    def is_making(self) -> bool:
        """Whether there is a child that is to go on."""
        return self._session is not None and not self.paused

    def pause(self, reason: str) -> None:
        """End the child; its rungs are absent until it is resumed."""
        self.paused, self.last_reason = True, reason
        self._child_scope.cancel()
        self._tell_wanted()

    def resume(self) -> None:
        """Go on with the newest GOP, if no rung has shown any of it."""
        self.paused = False
        if self._resume_seq is not None:
            self._resume_seq = max(self._resume_seq, self.source.ring.last_gop_start_seq)
        self._tell_wanted()
        self.woken.set()

    def statistics(self) -> TranscoderStatistics:
        """How it is doing."""
        session = self._session
        return TranscoderStatistics(
            state=self.state,
            pid=None if session is None else session.child.pid,
            factor=0.0 if session is None else session.factor,
            queue_s=0.0 if session is None else session.queue_s,
            restarts=self._restarts.failures,
            rungs=self.load.wanted,
            shed=self.load.shed,
            units_in=self.units_in,
            units_out=self.output.units,
            units_skipped=self.units_skipped,
            units_dropped=self.output.units_dropped,
            errors=0 if session is None else session.errors,
            last_reason=self.last_reason,
        )

    def replan(self, tracks: Sequence[Track]) -> bool:
        """Choose anew; whether the ladder is another one now."""
        self._tracks = list(tracks)
        plan = self._choose(tracks)
        changed = plan != self.plan
        self.plan = plan
        if changed:
            self.load.set_plan(plan)
            self._planned(plan)
            self._tell_wanted()
        return changed

    def main_track(self) -> int | None:
        """The track of the source whose random access begins a ladder."""
        if self.plan.video_track_id is not None:
            return self.plan.video_track_id
        return self.plan.audio[0].source_track_id if self.plan.audio else None

    def note_load(self, queue_s: float, factor: float) -> bool:
        """Shed a rung or give one back, if it is time; whether it was."""
        change = self.load.observe(queue_s, factor, trio.current_time())
        if change is None:
            return False
        self._tell_wanted()
        if isinstance(change, Shed):
            self.last_reason = f"rung {change.name} shed: {queue_s:.1f} s behind"
        else:
            self.last_reason = f"rung {change.name} given back: {factor:.2f} x real time"
        level: Literal["warning", "info"] = "warning" if isinstance(change, Shed) else "info"
        self._log(
            level,
            "rung shed" if isinstance(change, Shed) else "rung given back",
            rung=change.name,
            queue_s=round(queue_s, 2),
            factor=round(factor, 2),
            shed=list(self.load.shed),
        )
        return True

    def note_line(self, level: str, text: str) -> None:
        """What the child has to say."""
        self._log("info" if level == "info" else "warning", "ladder says", text=text)

    def open_cursor(self) -> tuple[RingCursor, int]:
        """Where a child begins: a cursor, and the first unit that it may begin with."""
        ring = self.source.ring
        resume = self._resume_seq
        if resume is None:
            return ring.reader(start="latest_gop"), 0
        latest = ring.last_gop_start_seq
        behind_s = self._behind_s(resume)
        if resume < latest and behind_s > RESUME_S_MAX:
            resume = latest
        return ring.reader(start=min(resume, ring.next_seq)), resume

    async def _wait_for_plan(self) -> bool:
        """Until there is something to make; False if the source ends before."""
        while True:
            self.woken = trio.Event()
            tracks = list(self.source.tracks.values())
            if tracks != self._tracks:  # Not for each unit.
                self.replan(tracks)
            if self.source.ended is not None and (self.plan.is_empty or self.paused):
                return False
            if not self.plan.is_empty and not self.paused:
                return True
            self.state = "waiting"
            await self.woken.wait()

    async def _run_child(self) -> tuple[str, int | None, float] | None:
        """One child, to its end; why it failed, at which unit, how long it ran; None: all done, or
        it is paused.
        """
        self.state = "starting"
        began_at = trio.current_time()
        arguments = [*self._command, str(self.limits.memory_bytes)]
        if self.plan.encoder in HARDWARE:
            arguments.append(DRIVEN)
        self._child_scope = trio.CancelScope()
        with self._child_scope:
            async with open_child(arguments, ARENAS) as child:
                session = self._session = LadderSession(self, child)
                try:
                    self._log("info", "ladder started", pid=child.pid, rungs=self.load.wanted)
                    failure = await session.run()
                finally:
                    self._session = None
                if failure is None:
                    return None
                said = bytes(session.said).decode(errors="replace").strip()
                if said:
                    failure = f"{failure}: {said.splitlines()[-1]}"
            return failure, session.first_in_flight, trio.current_time() - began_at
        return None

    async def _back_off(self, reason: str, seq: int | None, ran_s: float) -> None:
        restart = self._restarts.note_failure(seq, ran_s)
        self._resume_seq = self._find_resume(seq, skips=restart.skips_gop)
        self.last_reason = reason
        self.state = "waiting"
        self._log(
            "warning",
            "ladder failed, begun anew",
            reason=reason,
            after_s=round(restart.after_s, 1),
            failures=self._restarts.failures,
            skips_gop=restart.skips_gop,
        )
        encoder = self.plan.encoder
        if self._failed(encoder, reason, ran_s):
            self.replan(self._tracks)
            self._log(
                "warning",
                "ladder has another encoder",
                encoder=self.plan.encoder,
                before=encoder,
                reason=reason,
            )
        with trio.move_on_after(restart.after_s):
            while self.source.ended is None and not self.paused:
                self.woken = trio.Event()
                await self.woken.wait()

    def _note_where(self) -> None:
        """There is no child: note where the next one is to begin, if any rung was shown."""
        if self.output.units:
            self._resume_seq = self._find_resume(None, skips=False)

    def _find_resume(self, seq: int | None, *, skips: bool) -> int:
        """The first unit to begin with: random access after all that rungs have shown."""
        if skips and seq is not None:
            return seq + 1
        track = self.source.tracks.get(self.main_track() or 0)
        if track is not None and track.kind is Kind.VIDEO:
            shown = self.output.last_dts({rung.track_id for rung in self.plan.video})
            for start, pts in self.starts:
                if shown is None or pts > shown:
                    return start
        return self.source.ring.next_seq if seq is None else seq

    def _tell_wanted(self) -> None:
        made = LadderPlan() if self.paused else self.plan
        names = self.load.wanted
        video = {rung.track_id for rung in made.video if rung.name in names}
        self.on_wanted(video | {rung.track_id for rung in made.audio})

    def _behind_s(self, seq: int) -> float:
        """How old the unit is, next to the newest."""
        main = self.main_track()
        track = self.source.tracks.get(main or 0)
        pts = next((pts for start, pts in self.starts if start == seq), None)
        if track is None or pts is None:
            return 0.0
        return (self.source.track_statistics[track.track_id].last_dts - pts) / track.timescale

    def _log(self, level: Literal["info", "warning"], event: str, **values: object) -> None:
        stream_id = self.source.stream_id
        say = logger.warning if level == "warning" else logger.info
        say(
            event,
            channel=stream_id.channel,
            publication=f"{stream_id.publication:x}",
            **values,
        )
