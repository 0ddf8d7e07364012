"""The GOP ring: a publication's last seconds, bounded in bytes and time, a cursor per reader.

Units are kept by groups of pictures and leave by whole groups, from the front. A reader that falls
behind what is kept goes on at the next group and is told how many units it missed; nobody waits for
it.

    evicted | GOP | GOP | GOP, growing | next_seq
            ^ first_seq   ^ last_gop_start_seq
"""

from collections import deque
from typing import Final, Literal

from edged.media.access_unit import AccessUnit
from edged.media.ring_batch import RingBatch

# What a unit takes beside its payload: the Struct, its integers, two bytes headers. It counts
# against the ring's bytes, so that empty units cannot fill the memory either.
UNIT_OVERHEAD_BYTES: Final = 320
AUDIO_GOP_US: Final = 1_000_000  # Where there is no video to say, a group is a second.
JOIN_US_MAX: Final = 500_000  # Rungs whose random access is further apart are not aligned.
# A group longer than the ring is cut to this share at once, and not unit by unit.
CUT_NUM, CUT_DEN = 3, 4
_DELTA, _RANDOM_ACCESS = 1, 2
_VIDEO: Final = _DELTA | _RANDOM_ACCESS

Start = Literal["oldest", "latest_gop", "live"]


class _Gop:
    """One group: units with consecutive `seq` from `first_seq`."""

    __slots__ = (
        *("__weakref__", "evicted", "first_byte", "first_seq", "following", "keyed", "start_us"),
        "units",
    )

    def __init__(self, first_seq: int, first_byte: int, start_us: int, *, keyed: bool) -> None:
        self.first_seq = first_seq
        self.first_byte = first_byte  # Payload bytes appended before it, ever.
        self.start_us = start_us
        self.keyed = keyed  # A reader may begin here.
        self.evicted = False
        self.following: _Gop | None = None
        self.units: list[AccessUnit] = []


class GopRing:
    """The units of one publication, all tracks in order of arrival.

    A group starts at a random access unit of a video track, unless it is the track's first unit in
    the growing group: so the random access units of several rungs at one time begin one group
    together, whichever comes first. While no track has shown itself to be video (by having both
    random access and other units), a group starts at any unit a second after the last start.

    At the limits: whole groups leave from the front; a group that alone exceeds a limit loses its
    own front, `gapless` turns False, and a reader that had not got so far waits for the next group.
    """

    __slots__ = (
        *("_bytes_max", "_duration_us_max", "_duration_us_target", "_flags", "_gop", "_gops"),
        *("_gops_target", "_newest_us", "_overhead_bytes", "_trim_seq", "_video", "gapless"),
        *("next_seq", "payload_bytes", "payload_bytes_total"),
    )

    def __init__(
        self,
        *,
        bytes_max: int,
        duration_us_max: int,
        gops_target: int = 2,
        duration_us_target: int = 2_000_000,
    ) -> None:
        assert bytes_max > 0, "a ring holds something"
        assert duration_us_target <= duration_us_max, "the target lies within the limit"
        self._bytes_max = bytes_max
        self._duration_us_max = duration_us_max
        self._gops_target = gops_target
        self._duration_us_target = duration_us_target
        self._gop = _Gop(0, 0, 0, keyed=False)  # The growing one; empty until the first unit.
        self._gops: deque[_Gop] = deque([self._gop])
        self._flags: dict[int, int] = {}  # By track: which sorts of units it has had.
        self._video = False
        self._newest_us = 0
        self._overhead_bytes = 0
        self._trim_seq = 0
        self.gapless = True
        self.next_seq = 0
        self.payload_bytes = 0  # Now held.
        self.payload_bytes_total = 0  # Ever appended.

    @property
    def first_seq(self) -> int:
        """The oldest unit held; equal to `next_seq` when there is none."""
        return self._gops[0].first_seq

    @property
    def held_bytes(self) -> int:
        """Payloads and what each unit takes beside its payload: what `bytes_max` bounds."""
        return self.payload_bytes + self._overhead_bytes

    @property
    def duration_us(self) -> int:
        """Wallclock from the first unit held to the newest."""
        return max(0, self._newest_us - self._gops[0].start_us) if self else 0

    @property
    def gops(self) -> int:
        """Groups held, the growing one included."""
        return len(self._gops) if self else 0

    @property
    def last_gop_start_seq(self) -> int:
        """Where the newest group starts at which one may begin; `next_seq` if there is none."""
        gop = self._latest_keyed()
        return self.next_seq if gop is None else gop.first_seq

    def __len__(self) -> int:
        return sum(len(gop.units) for gop in self._gops)

    def __bool__(self) -> bool:
        return bool(self._gops[0].units)

    def append(self, unit: AccessUnit) -> None:
        """Take the unit `next_seq` (the first one ever may have any seq). Hot path."""
        if unit.seq != self.next_seq:
            assert not self._flags, "a unit's seq follows the last one's"
            self.note_loss(unit.seq)
        flag = _RANDOM_ACCESS if unit.random_access else _DELTA
        flags = self._flags.get(unit.track_id, 0)
        if not flags & flag:
            flags |= flag
            self._learn(unit.track_id, flags)
        wallclock_us = unit.wallclock_us
        gop = self._gop
        # Of a stream with video, only what may be a key frame: not the audio, all of which is
        # random access.
        if (flag == _RANDOM_ACCESS and flags == _VIDEO) or not self._video:
            gop = self._start_gop(unit, flags)
        if not gop.units:
            gop.start_us = wallclock_us
        gop.units.append(unit)
        self.next_seq += 1
        size = len(unit.payload)
        self.payload_bytes += size
        self.payload_bytes_total += size
        self._overhead_bytes += UNIT_OVERHEAD_BYTES
        self._newest_us = wallclock_us
        if (
            self.payload_bytes + self._overhead_bytes > self._bytes_max
            or wallclock_us - self._gops[0].start_us > self._duration_us_max
        ):
            self._evict()

    def note_loss(self, next_seq: int) -> None:
        """Units before `next_seq` will never come: readers get them counted as skipped."""
        assert next_seq >= self.next_seq, "what has come is not lost"
        if next_seq == self.next_seq:
            return
        self.next_seq = next_seq
        if self._gop.units:
            self._open_gop(self._newest_us, keyed=False)
        else:
            self._gop.first_seq = next_seq

    def trim_below(self, seq: int) -> None:
        """Units below `seq` are safe elsewhere: groups wholly below leave, down to the target."""
        self._trim_seq = max(self._trim_seq, seq)
        self._trim()

    def reader(self, *, start: Start | int) -> "RingCursor":
        """A cursor at the oldest group, the newest, what comes next, or a given unit.

        Where no group is held at which one may begin, the reader waits for the next. A seq no
        longer held is a reader fallen behind: its first batch says what it skipped.
        """
        if start == "live":
            return RingCursor(self, self._gop, self.next_seq)
        if isinstance(start, int):
            assert start <= self.next_seq, "a reader begins within what was appended"
            found = self._gops[0]
            for gop in self._gops:
                if gop.first_seq <= start:
                    found = gop
            return RingCursor(self, found, start)
        keyed = self._first_keyed(0) if start == "oldest" else self._latest_keyed()
        if keyed is not None:
            return RingCursor(self, keyed, keyed.first_seq)
        cursor = RingCursor(self, self._gop, self.next_seq)
        cursor.wait_for_gop()
        return cursor

    def _learn(self, track_id: int, flags: int) -> None:
        """A track has sent its first unit of a sort."""
        self._flags[track_id] = flags
        if flags == _VIDEO:
            self._video = True

    def _start_gop(self, unit: AccessUnit, flags: int) -> _Gop:
        """The group for a unit that is a random access, or of a stream that has shown no video."""
        gop = self._gop
        if self._video:
            starts = flags == _VIDEO and not (gop.keyed and self._joins(unit, gop))
        elif not gop.units and not gop.keyed:
            starts = True
        else:
            since_us = unit.wallclock_us - gop.start_us
            starts = since_us >= AUDIO_GOP_US or since_us <= -AUDIO_GOP_US
        if starts:
            gop = self._open_gop(unit.wallclock_us, keyed=True)
            self._trim()
        return gop

    def _joins(self, unit: AccessUnit, gop: _Gop) -> bool:
        """Whether a random access unit is another rung's share of the group's start."""
        if abs(unit.wallclock_us - gop.start_us) > JOIN_US_MAX:
            return False
        track_id = unit.track_id
        return all(other.track_id != track_id for other in gop.units)

    def _open_gop(self, start_us: int, *, keyed: bool) -> _Gop:
        last = self._gop
        if not last.units:
            last.start_us, last.keyed = start_us, keyed
            return last
        gop = _Gop(self.next_seq, self.payload_bytes_total, start_us, keyed=keyed)
        last.following = gop
        self._gops.append(gop)
        self._gop = gop
        return gop

    def _trim(self) -> None:
        gops = self._gops
        while (
            len(gops) > self._gops_target
            and gops[1].units
            and gops[1].first_seq <= self._trim_seq
            and self._newest_us - gops[1].start_us >= self._duration_us_target
        ):
            self._drop_first()

    def _evict(self) -> None:
        while len(self._gops) > 1 and self._is_over(1, 1):
            self._drop_first()
        if self._is_over(1, 1):
            self._cut_first()

    def _is_over(self, num: int, den: int) -> bool:
        """Whether what is held exceeds `num / den` of a limit."""
        return (
            den * (self.payload_bytes + self._overhead_bytes) > num * self._bytes_max
            or den * (self._newest_us - self._gops[0].start_us) > num * self._duration_us_max
        )

    def _drop_first(self) -> None:
        gop = self._gops.popleft()
        gop.evicted = True
        self.payload_bytes -= self._gops[0].first_byte - gop.first_byte
        self._overhead_bytes -= UNIT_OVERHEAD_BYTES * len(gop.units)
        gop.units = []  # A cursor may hold the group for long,
        gop.following = None  # and with it all that have come since.

    def _cut_first(self) -> None:
        """The only group exceeds a limit: it loses its front and with that its random access."""
        gop = self._gops[0]
        units = gop.units
        self.gapless = False
        gop.keyed = False
        count = 0
        # To below the limit, so that this is not done for each unit; the newest stays if it can.
        while (count < len(units) - 1 and self._is_over(CUT_NUM, CUT_DEN)) or self._is_over(1, 1):
            size = len(units[count].payload)
            gop.first_byte += size
            self.payload_bytes -= size
            self._overhead_bytes -= UNIT_OVERHEAD_BYTES
            count += 1
            gop.start_us = units[count].wallclock_us if count < len(units) else self._newest_us
        del units[:count]
        gop.first_seq += count
        has_video = any(self._flags[unit.track_id] == _VIDEO for unit in units)
        if not has_video and self.duration_us >= AUDIO_GOP_US:
            # The video has stopped and the audio goes on: groups by the second again.
            self._video = False
            self._flags = {key: flags for key, flags in self._flags.items() if flags != _VIDEO}

    def _first_keyed(self, seq: int) -> _Gop | None:
        """The oldest group from `seq` on at which a reader may begin."""
        for gop in self._gops:
            if gop.keyed and gop.units and gop.first_seq >= seq:
                return gop
        return None

    def _latest_keyed(self) -> _Gop | None:
        for gop in reversed(self._gops):
            if gop.keyed and gop.units:
                return gop
        return None


class RingCursor:
    """One reader's place in a ring. It holds nothing in the ring back."""

    __slots__ = ("_gop", "_position_bytes", "_ring", "_skipped", "_waiting", "next_seq")

    def __init__(self, ring: GopRing, gop: _Gop, next_seq: int) -> None:
        self._ring = ring
        self._gop = gop
        self.next_seq = next_seq  # Of the unit that would come next if it is still held.
        self._waiting = False  # For a group to begin at.
        self._skipped = 0  # Not yet told.
        before = gop.units[: max(0, next_seq - gop.first_seq)]
        self._position_bytes = gop.first_byte + sum(len(unit.payload) for unit in before)

    @property
    def lag_units(self) -> int:
        """Units appended that this reader has neither read nor skipped."""
        return self._ring.next_seq - self.next_seq

    @property
    def lag_bytes(self) -> int:
        """Their payload bytes: also those no longer held, if they were when it was opened."""
        return self._ring.payload_bytes_total - self._position_bytes

    def read(self, units_max: int, bytes_max: int) -> RingBatch:
        """The next units: at most `units_max`, and `bytes_max` of payload unless one exceeds it.

        An empty batch means that there is nothing to read now. A batch never spans a gap: `skipped`
        stands before its first unit. Hot path.
        """
        gop = self._gop
        index = self.next_seq - gop.first_seq
        if index < 0 or gop.evicted or self._waiting:
            if not self._recover():
                return RingBatch([], self._take_skipped())
            gop, index = self._gop, self.next_seq - self._gop.first_seq
        if units_max <= 0 or bytes_max <= 0:
            return RingBatch([], self._take_skipped())
        units: list[AccessUnit] = []
        size = 0
        following: _Gop | None = gop
        while following is not None:
            gop = following
            for unit in gop.units[index : index + units_max - len(units)]:
                size += len(unit.payload)
                if size > bytes_max and units:
                    return self._advance(gop, units, size - len(unit.payload))
                units.append(unit)
            index = 0
            following = self._next_gop(gop, units) if len(units) < units_max else None
        return self._advance(gop, units, size)

    def skip_to_latest_gop(self) -> int:
        """Go to the newest group if that is ahead; returns the units jumped over.

        The next batch's `skipped` counts them as well, so that whoever reads needs no other source.
        """
        gop = self._ring._latest_keyed()
        if gop is None or gop.first_seq <= self.next_seq:
            return 0
        jumped = gop.first_seq - self.next_seq
        self._waiting = False
        self._enter(gop)
        return jumped

    def wait_for_gop(self) -> None:
        """Read nothing before the next group that one may begin at."""
        self._waiting = True

    def _recover(self) -> bool:
        """Behind, or waiting: go to the next group to begin at; False while there is none."""
        gop = self._ring._first_keyed(self.next_seq)
        if gop is None:
            self._waiting = True
            return False
        self._waiting = False
        self._enter(gop)
        return True

    def _enter(self, gop: _Gop) -> None:
        self._skipped += gop.first_seq - self.next_seq
        self._gop = gop
        self.next_seq = gop.first_seq
        self._position_bytes = gop.first_byte

    def _next_gop(self, gop: _Gop, units: list[AccessUnit]) -> _Gop | None:
        """The group to go on with after the end of `gop`; None ends the batch of `units`."""
        following = gop.following
        if following is None or following.first_seq == gop.first_seq + len(gop.units):
            return following
        if units:
            return None  # A gap is told at the head of the next batch.
        if not following.keyed:  # Upstream lost units: go where one may begin.
            return self._gop if self._recover() else None
        self._enter(following)
        return following

    def _advance(self, gop: _Gop, units: list[AccessUnit], size: int) -> RingBatch:
        if units:
            self._gop = gop
            self.next_seq += len(units)
            self._position_bytes += size
        return RingBatch(units, self._take_skipped() if self._skipped else 0)

    def _take_skipped(self) -> int:
        skipped, self._skipped = self._skipped, 0
        return skipped
