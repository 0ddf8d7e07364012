"""A stream's ladder: what its transcoder makes, cut into parts beside the source's.

    the source ──▶ Packager ──SegmentStarts──▶ RungSegmenter ──▶ events, as the packager's
        └────────▶ Transcoder (a child) ──units──┘

The source needs none of it: whatever goes wrong here ends this stream's ladder, and no more.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
import trio

from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.media.parts import PackagedEvent
from edged.media.track import Track
from edged.origin.packager import make_writer
from edged.origin.transcoder import Transcoder, TranscoderStatistics
from edged.policy.ladder import LadderBudget, LadderConfig, choose_ladder
from edged.policy.ladder_encoders import EncoderTrust
from edged.policy.rung_segmenter import RungSegmenter
from edged.policy.segment_rule import SegmenterConfig
from edged.policy.segment_starts import SegmentStart
from edged.runtime.faults import contained
from edged.runtime.hub import LiveStream

DRAIN_S_MAX = 1.0  # From a source's end to its rungs'; they are 0.3 s behind, if all is well.

logger = structlog.get_logger("edged.ladder")


class LadderHost(Protocol):
    """Who has the compute that ladders are made with."""

    @property
    def budget(self) -> LadderBudget:
        """What one ladder may take, and with which encoders; none is run before that is known."""

    def planned(self, ladder: "Ladder", plan: LadderPlan) -> None:
        """A ladder wants to make this now; it is resumed when it may, and paused when not."""

    def stopped(self, ladder: "Ladder") -> None:
        """A ladder makes nothing more."""


class Ladder:
    """The rungs of one stream."""

    def __init__(
        self,
        stream: LiveStream,
        config: LadderConfig,
        segmenter: SegmenterConfig,
        publish: Callable[[PackagedEvent], None],
        host: LadderHost,
    ) -> None:
        """`segmenter`: by what the source is cut.

        `publish` takes the rungs' events; it must not raise for what a window refuses.
        """
        self.stream = stream
        self._publish, self._config, self._host = publish, config, host
        self._segmenter = RungSegmenter(segmenter, make_writer())
        self.encoders = EncoderTrust()
        self.is_over = False
        self._scope = trio.CancelScope()
        self._drained: Callable[[], None] | None = None
        self.transcoder = Transcoder(
            stream,
            self._plan,
            publish_track=self._take_track,
            publish_units=self._take_units,
            planned=lambda plan: host.planned(self, plan),
            failed=self.encoders.note_failure,
            paused=True,  # Until the host grants it.
        )
        self.transcoder.on_wanted = self._want

    async def run(self) -> None:
        """Make it until its source ends or it is stopped; if cancelled, it may be run again."""
        if self.is_over:
            return
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                await self.transcoder.run()
        finally:
            drained, self._drained = self._drained, None
            if drained is not None:
                drained()

    def begin_segment(self, start: SegmentStart) -> None:
        """The source's next segment begins there."""
        self._guard(lambda: self._segmenter.begin_segment(start))

    def drain(self, drained: Callable[[], None]) -> None:
        """The source has ended: have what its last units give made, within `DRAIN_S_MAX`.

        `drained` is called then; now, if nothing is being made.
        """
        if self.is_over or not self.transcoder.is_making:
            drained()
            return
        self._drained = drained
        self._scope.deadline = trio.current_time() + DRAIN_S_MAX

    def end(self) -> None:
        """Nothing more comes: what is pending is cut."""
        self._guard(self._segmenter.end)
        self.stop()

    def stop(self) -> None:
        """Make nothing more; the child ends."""
        if not self.is_over:
            self.is_over = True
            self._scope.cancel()
            self._host.stopped(self)

    def fail(self) -> None:
        """Stop after a fault of ours; who watches a rung is told to leave it."""
        self.stop()
        with contained(logger, "rungs not taken back", channel=self.stream.channel):
            for event in self._segmenter.want(()):
                self._publish(event)

    def statistics(self) -> TranscoderStatistics:
        """How its encoder fares."""
        return self.transcoder.statistics()

    def _plan(self, tracks: Sequence[Track]) -> LadderPlan:
        budget = self.encoders.limit(self._host.budget)
        return choose_ladder(tracks, self._config, self.stream.grant.priority, budget)

    def _take_track(self, track: Track) -> None:
        names = {rung.track_id: f"v{rung.name}" for rung in self.transcoder.plan.video}
        name = names.get(track.track_id, f"a{track.track_id:x}")

        def add() -> list[PackagedEvent]:
            self._segmenter.add_track(track, name)
            return []

        self._guard(add)

    def _want(self, track_ids: set[int]) -> None:
        self._guard(lambda: self._segmenter.want(track_ids))

    def _take_units(self, units: list[AccessUnit]) -> None:
        self._guard(lambda: [event for unit in units for event in self._segmenter.add_unit(unit)])

    def _guard(self, make: Callable[[], list[PackagedEvent]]) -> None:
        """Publish what comes of it; a bug ends the ladder alone."""
        if self.is_over:
            return
        try:
            for event in make():
                self._publish(event)
        except Exception:
            logger.exception("ladder failed, the source goes on", channel=self.stream.channel)
            self.fail()
