"""A stream's ladder: what its transcoder makes, cut into parts beside the source's.

    the source ──▶ Packager ──SegmentStarts──▶ RungSegmenter ──▶ events, as the packager's
        └────────▶ Transcoder (a child) ──units──┘

The source needs none of it: whatever goes wrong here ends this stream's ladder, and no more.
"""

from collections.abc import Callable, Sequence
from functools import partial

import structlog
import trio

from edged.media.ladder import LadderPlan
from edged.media.parts import PackagedEvent
from edged.media.track import AccessUnit, Track
from edged.origin.packager import PackagerConfig, make_writer, segmenter_config
from edged.origin.transcoder import Transcoder, TranscoderStatistics
from edged.policy.ladder import LadderBudget, LadderConfig, choose_ladder
from edged.policy.rung_segmenter import RungSegmenter
from edged.policy.segment_starts import SegmentStart
from edged.runtime.hub import LiveStream

logger = structlog.get_logger("edged.ladder")


class Ladder:
    """The rungs of one stream."""

    def __init__(
        self,
        stream: LiveStream,
        config: LadderConfig,
        packager: PackagerConfig,
        publish: Callable[[PackagedEvent], None],
    ) -> None:
        """`publish` takes the rungs' events; it must not raise for what a window refuses."""
        self._stream, self._publish = stream, publish
        self._segmenter = RungSegmenter(segmenter_config(packager), make_writer())
        self._over = False
        self.scope = trio.CancelScope()
        choose = partial(
            choose_ladder, config=config, priority=stream.grant.priority, budget=LadderBudget()
        )

        def plan(tracks: Sequence[Track]) -> LadderPlan:
            return choose(tracks)

        self.transcoder = Transcoder(
            stream, plan, publish_track=self._take_track, publish_units=self._take_units
        )

    def begin_segment(self, start: SegmentStart) -> None:
        """The source's next segment begins there."""
        self._guard(lambda: self._segmenter.begin_segment(start))

    def end(self) -> None:
        """The source has ended: what is pending is cut, and nothing follows."""
        self._guard(self._segmenter.end)
        self.stop()

    def stop(self) -> None:
        """Make nothing more; the child ends."""
        self._over = True
        self.scope.cancel()

    def statistics(self) -> TranscoderStatistics:
        """How its encoder fares."""
        return self.transcoder.statistics()

    def _take_track(self, track: Track) -> None:
        names = {rung.track_id: f"v{rung.name}" for rung in self.transcoder.plan.video}
        name = names.get(track.track_id, f"a{track.track_id:x}")

        def add() -> list[PackagedEvent]:
            self._segmenter.add_track(track, name)
            return []

        self._guard(add)

    def _take_units(self, units: list[AccessUnit]) -> None:
        self._guard(lambda: [event for unit in units for event in self._segmenter.add_unit(unit)])

    def _guard(self, make: Callable[[], list[PackagedEvent]]) -> None:
        """Publish what comes of it; a bug ends the ladder alone."""
        if self._over:
            return
        try:
            for event in make():
                self._publish(event)
        except Exception:
            logger.exception("ladder failed, the source goes on", channel=self._stream.channel)
            self.stop()


class Ladders:
    """Runs the transcoders of all streams of an origin."""

    def __init__(self) -> None:
        self.running: dict[Ladder, None] = {}
        self.restarts_total = 0  # Of ladders that are over.
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; those that are begun before wait for it."""
        async with trio.open_nursery() as nursery:
            for ladder in list(self.running):
                nursery.start_soon(self._run, ladder)
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def begin(self, ladder: Ladder) -> None:
        """Run a ladder until its source ends."""
        self.running[ladder] = None
        if self._nursery is not None:
            self._nursery.start_soon(self._run, ladder)

    async def _run(self, ladder: Ladder) -> None:
        try:
            with ladder.scope:
                await ladder.transcoder.run()
        except Exception:
            logger.exception("transcoder failed, the source goes on")
            ladder.stop()
        finally:
            if ladder.scope.cancel_called or ladder.transcoder.state == "ended":
                self.running.pop(ladder, None)
                self.restarts_total += ladder.statistics().restarts
