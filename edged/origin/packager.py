"""The packager: from a live stream's units to LL-HLS parts, as fast as they come.

It has no task of its own. The hub wakes it after each append; it reads what is there, lets the
segmenter decide, and hands each event to `publish`, synchronously. So it is never behind by more
than one append, and a stream costs nothing while nothing comes.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import structlog
from msgspec import Struct

from edged.errors import EdgedError, RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import InitSegment, PackagedEvent, SegmentEnded, StreamEnded
from edged.media.ring_batch import RingBatch
from edged.media.stream import StreamId
from edged.media.track import Track
from edged.policy.cutter import FragmentWriter
from edged.policy.segment_rule import LATE_S_MAX, SegmenterConfig
from edged.policy.segment_starts import SegmentStart
from edged.policy.segmenter import Segmenter
from edged.policy.segmenter_report import RenditionMark, SegmenterStatistics
from edged.policy.splice import Resumed, read_state, save
from edged.policy.window import StreamWindow
from edged.wire.cmaf.fragment import make_fragment
from edged.wire.cmaf.init import make_init

READ_UNITS_MAX = 256  # Of one turn of the loop: bounds what is in flight beside the ring.
READ_BYTES_MAX = 16 * 2**20
SPLICES_WAITING_MAX = 1  # The PoP's ring holds two segments; one may fall silent in its midst.

logger = structlog.get_logger("edged.packager")


class Cursor(Protocol):
    """What the packager needs of a ring's reader."""

    @property
    def lag_units(self) -> int:
        """Units that it has neither read nor skipped."""

    def read(self, units_max: int, bytes_max: int) -> RingBatch:
        """The next units, and how many were missed before them."""


class Ring(Protocol):
    """What the packager needs of a ring."""

    @property
    def next_seq(self) -> int:
        """What comes next."""

    def reader(self, *, start: Literal["oldest", "latest_gop", "live"] | int) -> Cursor:
        """A cursor of its own."""


class Source(Protocol):
    """What the packager needs of a live stream; the hub's `LiveStream` has it."""

    @property
    def stream_id(self) -> StreamId:
        """Which run of which channel."""

    @property
    def ring(self) -> Ring:
        """Its units."""

    @property
    def tracks(self) -> dict[int, Track]:
        """Its tracks, as configured now."""

    @property
    def ended(self) -> str | None:
        """Why it ended; None while it is live."""

    @property
    def goes_on(self) -> bool:
        """Whether it ended here only: what is pending is another's to package, its end to tell."""


class Progress(Struct, frozen=True, kw_only=True):
    """What an ack carries: nothing above `packaged_seq` may be forgotten by the PoP."""

    received_seq: int
    packaged_seq: int  # As of `splice`.
    renditions: list[RenditionMark]
    splice: bytes  # Of the last segment's end that all are beyond; empty before the first.


class _Waiting(Struct):
    """A splice that is no use yet: a successor's window could not begin with these renditions.

    It would lack the beginning of the segments that they were in the midst of, and so their rest.
    """

    splice: bytes
    packaged_seq: int
    within: dict[str, int]  # The segment, by rendition.


def _to_nobody(_: PackagedEvent) -> None:
    pass


class _CmafWriter:
    make_init = staticmethod(make_init)
    make_fragment = staticmethod(make_fragment)


def make_writer() -> FragmentWriter:
    """What turns units into CMAF."""
    return _CmafWriter()


class Packager:
    """One stream's packager; whoever makes it calls `wake` from the hub's watch."""

    def __init__(
        self,
        stream: Source,
        config: SegmenterConfig,
        publish: Callable[[PackagedEvent], None],
        *,
        splice: bytes = b"",
    ) -> None:
        """`splice`: what another origin's packager of the stream said last in its progress.

        It goes on by that one's figures, not by `config`: no name may have two byte strings.

        Raises RemoteProtocolError if that cannot be read, or is of units that are yet to come.
        """
        self.failed: str | None = None  # Why it gave up; a stream that cannot be packaged.
        self._stream = stream
        self._publish = publish
        self._splice, self._packaged_seq = splice, -1
        self._waiting = deque[_Waiting]()
        self._known: dict[int, Track] = {}
        self._done = False
        self._warned = False
        self._has_lost = False  # Units before the next one.
        self._owes_from: int | None = None  # Units from here on are all that a successor can get.
        self._resumed: Resumed | None = None  # Until all that it had seen has come again.
        self._announced = not splice
        if splice:
            state = read_state(splice)
            self._resumed = Resumed(state, _CmafWriter())
            self._segmenter = self._resumed.segmenter
            self._packaged_seq = state.packaged_seq
            if state.packaged_seq >= stream.ring.next_seq:
                raise RemoteProtocolError(
                    f"splice goes on after unit {state.packaged_seq}, but unit "
                    f"{stream.ring.next_seq} is the next to come"
                )
            self._check_announced()
            self._cursor = stream.ring.reader(start=state.packaged_seq + 1)
            return
        self._cursor = stream.ring.reader(start="oldest")
        self._segmenter = Segmenter(config, _CmafWriter())

    @property
    def config(self) -> SegmenterConfig:
        """By what the stream is cut."""
        return self._segmenter.config

    @property
    def ended(self) -> bool:
        """Whether the last event has been published."""
        return self._done

    def on_segment_start(self, tell: Callable[[SegmentStart], None]) -> None:
        """Have each segment's beginning told from now on, for who cuts other renditions."""
        self._segmenter.on_boundary = tell

    def progress(self) -> Progress:
        """How far the stream is packaged."""
        return Progress(
            received_seq=self._segmenter.received_seq,
            packaged_seq=self._packaged_seq,
            renditions=self._segmenter.marks(),
            splice=self._splice,
        )

    def statistics(self) -> SegmenterStatistics:
        """What has been cut, and what was wrong with the stream."""
        return self._segmenter.statistics()

    def wake(self, _stream: object = None) -> None:
        """Package what the ring has; after the end, publish `StreamEnded`.

        A stream that cannot be packaged ends here, with the reason; the hub's stays as it is.
        """
        if self._done:
            return
        try:
            self._read()
        except EdgedError as error:
            self.failed = str(error)
            self._finish(f"cannot be packaged: {error}")
            return
        if self._stream.ended is not None:
            self._finish(self._stream.ended)

    def close(self, reason: str) -> None:
        """End the packaged stream now: taken over, or the origin leaves."""
        if not self._done:
            self._finish(reason)

    def _read(self) -> None:
        self._announce()
        for track_id, track in self._stream.tracks.items():
            if self._known.get(track_id) is not track:
                self._known[track_id] = track
                self._segmenter.add_track(track)
        while True:
            batch = self._cursor.read(READ_UNITS_MAX, READ_BYTES_MAX)
            if batch.skipped:
                for event in self._segmenter.skip_units():
                    self._publish(event)
                    if isinstance(event, SegmentEnded):
                        self._note_ended(event)
                self._has_lost = True
            if not batch.units:
                return
            if self._package(batch.units) and not self._warned:
                self._warn()
            if not self._cursor.lag_units:
                return

    def _package(self, units: list[AccessUnit]) -> bool:
        """Whether there may be more to warn of: a segment has ended, here or before the splice."""
        if self._has_lost:
            self._has_lost, self._owes_from = False, units[0].seq
        may_warn = False
        segmenter = self._segmenter
        for unit in units:
            if self._resumed is not None:
                if self._resumed.takes(unit):
                    continue
                self._resumed, may_warn = None, True
            events = segmenter.add_unit(unit)
            ended = False  # A segment of the leading rendition.
            for event in events:
                self._publish(event)
                if isinstance(event, SegmentEnded):
                    ended |= event.rendition == segmenter.leader
                    may_warn = True
                    self._note_ended(event)
            if self._owes_from is not None and self._may_pay():
                self._take_splice()
            elif ended:
                # At once: a successor's window begins with a whole segment of the leading one.
                self._save_splice()
        return may_warn

    def _save_splice(self) -> None:
        if self._owes_from is not None and self._segmenter.packaged_seq >= self._owes_from - 1:
            self._take_splice()
            return
        marks = self._segmenter.marks()
        within = {mark.name: mark.msn for mark in marks if mark.part >= 0}
        self._waiting.append(_Waiting(save(self._segmenter), self._segmenter.packaged_seq, within))
        self._use_splices()

    def _note_ended(self, ended: SegmentEnded) -> None:
        for waiting in self._waiting:
            if waiting.within.get(ended.rendition, ended.msn + 1) <= ended.msn:
                del waiting.within[ended.rendition]
        self._use_splices()

    def _use_splices(self) -> None:
        while self._waiting and (
            not self._waiting[0].within or len(self._waiting) > SPLICES_WAITING_MAX
        ):
            used = self._waiting.popleft()
            self._splice, self._packaged_seq = used.splice, used.packaged_seq

    def _take_splice(self) -> None:
        """As it is: all that was saved before asks for units that nobody has."""
        self._waiting.clear()
        self._splice, self._packaged_seq = save(self._segmenter), self._segmenter.packaged_seq
        self._owes_from = None

    def _may_pay(self) -> bool:
        """Whether units were lost, and all that is pending is from behind them by now.

        What was saved before asks for units that nobody has: of another PoP, which had the stream
        until then, or lost on the way.
        """
        segmenter = self._segmenter
        if self._owes_from is None or segmenter.packaged_seq < self._owes_from - 1:
            return False
        begun = next((m for m in segmenter.marks() if m.name == segmenter.leader), None)
        return begun is not None and begun.part < 0  # Its segment is whole for the successor.

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            for event in self._announcements():
                self._publish(event)

    def _announcements(self) -> Iterator[PackagedEvent]:
        """The renditions, here too: where they began was elsewhere."""
        for rendition, track, digest in self._segmenter.announced():
            yield rendition
            yield InitSegment(rendition=rendition.name, digest=digest, data=make_init(track))

    def _check_announced(self) -> None:
        """Raise RemoteProtocolError for a splice's renditions that no window would take."""
        window = StreamWindow(self._stream.stream_id)
        try:
            for event in self._announcements():
                window.add(event)
        except (EdgedError, ValueError, OverflowError, struct.error) as error:
            raise RemoteProtocolError(f"splice has a rendition that is none: {error}") from error

    def _warn(self) -> None:
        """Say once what the broadcaster should change; how often it happened is said at the end."""
        stream_id = self._stream.stream_id
        names = {"channel": stream_id.channel, "publication": f"{stream_id.publication:x}"}
        if (gop_s := self._segmenter.long_gop_s) is not None:
            self._warned = True
            logger.warning(
                "key frames too far apart: segments begin without one, so viewers start late",
                **names,
                gop_s_min=round(gop_s, 3),  # It goes on.
                gop_s_max=self.config.target_duration_s + LATE_S_MAX,
            )
        elif self._segmenter.misaligned:
            self._warned = True
            logger.warning(
                "key frames of the rungs are not at the same times: viewers change rungs late",
                **names,
            )

    def _finish(self, reason: str) -> None:
        self._done = True
        events: list[PackagedEvent] = []
        if self._resumed is not None and not self._resumed.whole:
            events = [StreamEnded(reason=reason)]  # Of its pending units the payloads lack.
        elif not self._stream.goes_on:
            try:
                events = self._segmenter.end(reason)
            except EdgedError as error:
                self.failed = self.failed or str(error)
                events = [StreamEnded(reason=reason)]
        for event in events:
            self._publish(event)
        self._publish = _to_nobody  # It is over, and who was told may have this: a cycle.
        statistics = self._segmenter.statistics()
        logger.info(
            "packaging ended",
            channel=self._stream.stream_id.channel,
            publication=f"{self._stream.stream_id.publication:x}",
            reason=reason,
            units=statistics.units,
            parts=statistics.parts,
            long_gops=statistics.long_gops,
            unaligned=statistics.unaligned,
            deviation_s=round(statistics.deviation_s, 3),
            discontinuities=statistics.discontinuities,
            units_dropped=statistics.units_dropped,
            missing_s=round(statistics.missing_s, 3),
        )
