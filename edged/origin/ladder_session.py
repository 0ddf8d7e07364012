"""One child of a transcoder, and all that is between it and us: units given, rungs taken.

Three tasks: one gives units as the ring has them and as far as the child is done with others, one
publishes what the child makes, one looks whether it hangs or is too slow. So neither side can hold
the other up for ever: what comes is always read.
"""

import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING

import trio
from msgspec import Struct, structs

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.runtime.child import STDERR_BYTES, Child
from edged.wire.transcode import (
    Event,
    InputEnded,
    Logged,
    OutputEnded,
    Planned,
    Progressed,
    Ready,
    RungsWanted,
    TrackSet,
    TranscodeLink,
)

if TYPE_CHECKING:
    from edged.media.track import Track
    from edged.origin.transcoder import Transcoder

RECEIVE_BYTES = 256 * 1024
MONITOR_S = 0.25
MEASURED_BUSY_S, MEASURED_MEDIA_S = 1.0, 2.0  # Enough of either to tell how fast it is.
GONE_S_MAX = 1.0  # From the end of its connection to that of the process.


class _Given(Struct):
    """A unit that the child has and has not done."""

    seq: int
    size: int
    dts: int | None  # Of the main track only.


class LadderSession:
    """One child and all that is between it and us."""

    def __init__(self, owner: "Transcoder", child: Child) -> None:
        self.child = child
        self.said = bytearray()  # The end of its standard error.
        self.factor = 0.0
        self.queue_s = 0.0
        self.errors = 0
        self._owner = owner
        self._link = TranscodeLink()
        self._cursor, self._begin_seq = owner.open_cursor()
        self._begun = False
        self._flight = deque[_Given]()
        self._flight_bytes = 0
        self._room = trio.Event()
        self._all_said = trio.Event()
        self._sent: dict[int, Track] = {}  # Of the source, as the child knows them.
        self._moved_at = trio.current_time()
        self._done_dts: int | None = None
        self._busy_us = 0
        self._mark: tuple[int, int] | None = None  # Main dts and busy time, when last measured.
        self._is_ready = self._is_over = False
        self._failure: str | None = None
        owner.output.begin_child()

    @property
    def first_in_flight(self) -> int | None:
        """The unit that the child is at, or would be."""
        return self._flight[0].seq if self._flight else None

    async def run(self) -> str | None:
        """To the child's end; why it failed, or None when all is done."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_errors)
            nursery.start_soon(self._monitor, nursery.cancel_scope)
            nursery.start_soon(self._feed)
            await self._receive()
            if not self._is_over and self._failure is None:
                self._failure = await self._why_gone()
            nursery.cancel_scope.cancel()
        if self._failure is None and not self._is_over:
            self._failure = "its input was closed"
        return self._failure

    async def _why_gone(self) -> str:
        with trio.move_on_after(GONE_S_MAX):
            code = await self.child.wait()
            await self._all_said.wait()
            return f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return "closed its connection"

    async def _feed(self) -> None:
        """Give the child units as the ring has them, as far as it is done with others."""
        owner, limits = self._owner, self._owner.limits
        self._link.send_message(Planned(owner.plan))
        if owner.load.shed:
            self._link.send_message(RungsWanted(owner.load.wanted))
        try:
            while True:
                while (
                    len(self._flight) >= limits.flight_units
                    or self._flight_bytes >= limits.flight_bytes
                ):
                    self._room = trio.Event()
                    await self._flush()
                    await self._room.wait()
                owner.woken = trio.Event()
                if self.queue_s > limits.skip_queue_s:
                    self._cursor.skip_to_latest_gop()
                room = limits.flight_units - len(self._flight)
                batch = self._cursor.read(room, limits.flight_bytes - self._flight_bytes)
                owner.units_skipped += batch.skipped
                for unit in batch.units:
                    self._give(unit)
                if not batch.units and owner.source.ended is not None:
                    owner.state = "ending"
                    self._link.send_message(InputEnded())
                    self._moved_at = trio.current_time()
                    await self._flush()
                    return
                await self._flush()
                if not batch.units:
                    await owner.woken.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # `_receive` sees it, too, and after it all that the child has sent.

    async def _flush(self) -> None:
        data = self._link.data_to_send()
        if data:
            await self.child.stream.send_all(data)

    def _give(self, unit: AccessUnit) -> None:
        owner = self._owner
        self._set_track(unit)
        main = owner.main_track()
        is_main = unit.track_id == main
        if not self._begun:
            if not (is_main and unit.random_access and unit.seq >= self._begin_seq):
                owner.units_skipped += 1
                return
            self._begun = True
        needed = {owner.plan.video_track_id, *(r.source_track_id for r in owner.plan.audio)}
        if unit.track_id not in needed:
            return
        if is_main and unit.random_access:
            owner.starts.append((unit.seq, unit.pts))
        if not self._flight:
            self._moved_at = trio.current_time()
        self._flight.append(_Given(unit.seq, len(unit.payload), unit.dts if is_main else None))
        self._flight_bytes += len(unit.payload)
        owner.units_in += 1
        self._link.send_unit(unit)

    def _set_track(self, unit: AccessUnit) -> None:
        """Tell of the unit's track if it is new or has another configuration, and plan anew."""
        sent = self._sent.get(unit.track_id)
        if sent is not None and sent.config_id == unit.config_id:
            return
        source = self._owner.source
        track = source.tracks[unit.track_id]
        config = source.config(unit.track_id, unit.config_id)
        if config is not None:
            track = structs.replace(track, config=config, config_id=unit.config_id)
        self._sent[unit.track_id] = track
        tracks = [self._sent.get(each.track_id, each) for each in source.tracks.values()]
        if self._owner.replan(tracks):
            self._link.send_message(Planned(self._owner.plan))
            if self._owner.load.shed:
                self._link.send_message(RungsWanted(self._owner.load.wanted))
        self._link.send_message(TrackSet(track))

    async def _receive(self) -> None:
        """Publish what the child makes, until it ends."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while not self._is_over:
                data = await self.child.stream.receive_some(RECEIVE_BYTES)
                if not data:
                    return
                try:
                    events = self._link.receive_data(data)
                    self._take(events)
                except RemoteProtocolError as error:
                    self._failure = str(error)
                    return

    def _take(self, events: list[Event]) -> None:
        units: list[AccessUnit] = []
        for event in events:
            if isinstance(event, AccessUnit):
                units.append(event)
                continue
            if units:
                self._owner.output.take(units)
                units = []
            match event:
                case Progressed():
                    self._progress(event)
                case TrackSet():
                    self._owner.output.set_track(event.track)
                case Ready():
                    self._note_ready()
                case Logged():
                    self._owner.note_line(event.level, event.text)
                case OutputEnded():
                    self._is_over = True
                case _:
                    raise RemoteProtocolError(f"{type(event).__name__} is not for a parent")
        if units:
            self._owner.output.take(units)

    def _note_ready(self) -> None:
        self._is_ready = True
        self._moved_at = trio.current_time()
        if self._owner.state == "starting":  # Not ending: a short source may be over by now.
            self._owner.state = "running"

    def _progress(self, progressed: Progressed) -> None:
        self._moved_at = trio.current_time()
        self._busy_us, self.errors = progressed.busy_us, progressed.errors
        while self._flight and self._flight[0].seq <= progressed.seq:
            given = self._flight.popleft()
            self._flight_bytes -= given.size
            if given.dts is not None:
                self._done_dts = given.dts
        self._room.set()

    async def _monitor(self, scope: trio.CancelScope) -> None:
        """Look for a child that hangs, and for one that is too slow."""
        limits = self._owner.limits
        while True:
            await trio.sleep(MONITOR_S)
            still_s = trio.current_time() - self._moved_at
            ending = self._owner.state == "ending" and not self._flight
            if not self._is_ready:
                allowed_s, what = limits.start_s, "did not start"
            elif ending:
                allowed_s, what = limits.end_s, "did not end"
            elif self._flight:
                allowed_s, what = limits.hang_s, "made no progress"
            else:
                allowed_s, what = math.inf, ""
            if still_s > allowed_s:
                self._failure = f"{what} for {still_s:.1f} s"
                scope.cancel()
                return
            self._measure()
            if self._is_ready and self._owner.note_load(self.queue_s, self.factor):
                self._link.send_message(RungsWanted(self._owner.load.wanted))
                self._owner.woken.set()  # The feeder sends it.
                self._room.set()

    def _measure(self) -> None:
        main = self._owner.main_track()
        track = self._owner.source.tracks.get(-1 if main is None else main)
        if track is None:
            self.queue_s = 0.0
            return
        first = next((given.dts for given in self._flight if given.dts is not None), None)
        at = self._done_dts if self._done_dts is not None else first
        newest = self._owner.source.track_statistics[track.track_id].last_dts
        behind = 0 if at is None else max(0, newest - at)
        self.queue_s = behind / track.timescale if self._flight or self._cursor.lag_units else 0.0
        if self._done_dts is None:
            return
        if self._mark is None:
            self._mark = (self._done_dts, self._busy_us)
            return
        media_s = (self._done_dts - self._mark[0]) / track.timescale
        busy_s = (self._busy_us - self._mark[1]) / 1_000_000
        if busy_s >= MEASURED_BUSY_S or media_s >= MEASURED_MEDIA_S:
            self.factor = max(0.0, media_s) / busy_s if busy_s else 0.0
            self._mark = (self._done_dts, self._busy_us)

    async def _read_errors(self) -> None:
        """Keep the end of what it says, for the log."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            while data := await self.child.errors.receive_some(STDERR_BYTES):
                self.said += data
                del self.said[:-STDERR_BYTES]
        self._all_said.set()
