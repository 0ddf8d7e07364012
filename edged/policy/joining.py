"""Whether a publisher can go on with a run that is live, and what becomes of its units then.

    tracks, units --> held until it shows --> fits:  the run goes on, behind a discontinuity
                                          `-> does not: a run of its own, nothing of it lost

It fits when it has announced the very tracks of the run, each with its codec; another size, profile
or sample rate is a new configuration and no hindrance, and the run keeps its timescales. What it
sends is held until all tracks are there and the first picture that one may begin at, so that the
run goes on with that. A publisher that does not come to it within HOLD_S of its own time is judged
by what there is.
"""

from collections.abc import Mapping, Sequence

import msgspec

from edged.media.access_unit import AccessUnit
from edged.media.stream import Grant
from edged.media.timing import rescale
from edged.media.track import CodecConfig, Kind, Track, TrackFormat

HOLD_S = 1.0  # For a track that the run has and that is not announced: headers come at once.
HOLD_PICTURE_S = 3.0  # For the first picture that one may begin at, of one who came amid a GOP.
HELD_UNITS_MAX = 2048  # As many as a segmenter lets wait; then what there is decides,
HELD_BYTES_MAX = 16 * 2**20  # and at this: a second at 120 Mbps.

Item = Track | AccessUnit


def can_go_on(granted: Grant, asked: Grant) -> bool:
    """Whether a publisher with that grant may go on with a run that has the other.

    Its title may be another, and so may the time at which its key expires.
    """
    same = msgspec.structs.replace(asked, title=granted.title, expires_at=granted.expires_at)
    return same == granted


class Joining:
    """One publisher that joins a run. Tracks and units go in as it sends them.

    `fits` is None until it shows; then `take` gives what goes on, in order: to the run, numbered
    as it needs, if it fits, else as it came.
    """

    def __init__(
        self,
        formats: Sequence[TrackFormat],
        configs: Mapping[int, tuple[int, CodecConfig]] | None = None,
        *,
        configs_from: int = 0,
    ) -> None:
        """`formats` are the run's, `configs` what its tracks have now and by which number.

        Without `configs` they are not known here: those of this publisher count from
        `configs_from`, which is above all that the run has had.
        """
        assert formats, "a run without tracks is nothing to go on with"
        self.fits: bool | None = None
        self.units_dropped = 0  # Before the first picture.
        self.config_shifts: dict[int, int] = {}  # By track: what is added to its config ids.
        self._formats = {known.track_id: known for known in formats}
        self._configs = configs
        self._configs_from = configs_from
        self._announced: set[int] = set()
        self._video: set[int] = set()
        self._begun: set[int] = set()  # Tracks of which a unit has been kept.
        self._awaited: set[int] = set()  # Tracks of which none has gone on yet.
        self._held: list[Item] = []
        self._held_units = self._held_bytes = 0
        self._first_s: dict[int, float] = {}  # By track: decode time of its first unit.
        self._timescales: dict[int, int] = {}
        self._spent = False  # The time to show that it fits is over.
        self._picture_s: float | None = None  # When the first picture is presented.

    @property
    def done(self) -> bool:
        """Whether nothing is left to do but to add `config_shifts`."""
        same = all(self._timescales.get(k) == f.timescale for k, f in self._formats.items())
        return self.fits is True and same and not self._awaited and not self._held

    def add_track(self, track: Track) -> None:
        """Take a track, or the new configuration of one."""
        self._held.append(track)
        self._timescales[track.track_id] = track.timescale
        if self.fits is None and track.kind is not Kind.DATA:
            self._announced.add(track.track_id)
            known = self._formats.get(track.track_id)
            if known is None or known.codec != track.codec:
                self.fits = False
                return
            if track.kind is Kind.VIDEO:
                self._video.add(track.track_id)
        self._judge()

    def add_units(self, units: Sequence[AccessUnit]) -> None:
        """Take units, in order of arrival."""
        for unit in units:
            track_id = unit.track_id
            at_s = unit.dts / self._timescales[track_id]
            since_s = at_s - self._first_s.setdefault(track_id, at_s)
            if self.fits is None and not 0 <= since_s < self._patience_s:
                self._spent = True
            if track_id not in self._begun:
                if track_id in self._video and not unit.random_access:
                    self.units_dropped += 1  # Nobody could decode it, in this run or in another.
                    continue
                self._begun.add(track_id)
            if self._picture_s is None and track_id in self._video and self.fits is None:
                self._picture_s = unit.pts / self._timescales[track_id]
            self._held.append(unit)
            self._held_units += 1
            self._held_bytes += len(unit.payload)
        self._judge()

    def take(self) -> list[Item]:
        """What goes on now; empty until it shows whether the publisher fits."""
        if self.fits is None:
            return []
        held, self._held = self._held, []
        if not self.fits:
            return held
        return [self._adopt(item) for item in held if not self._is_early(item)]

    @property
    def _patience_s(self) -> float:
        return HOLD_PICTURE_S if self._announced >= self._formats.keys() else HOLD_S

    def _judge(self) -> None:
        if self.fits is not None:
            return
        whole = self._announced >= self._formats.keys()
        ready = self._held_units > 0 and (self._picture_s is not None or not self._video)
        full = self._held_units >= HELD_UNITS_MAX or self._held_bytes >= HELD_BYTES_MAX
        if self._spent or full or (whole and ready):
            self.fits = whole
            self._awaited = set(self._formats)

    def _is_early(self, item: Item) -> bool:
        """Whether a unit is sound from before the first picture, with which the run goes on."""
        if isinstance(item, Track) or item.track_id not in self._awaited:
            return False
        if item.track_id in self._video or self._picture_s is None:
            return False
        early = item.pts / self._timescales[item.track_id] < self._picture_s
        self.units_dropped += early
        return early

    def _adopt(self, item: Item) -> Item:
        """Give a track or a unit the numbers by which the run knows them, and its timescale."""
        known = self._formats.get(item.track_id)
        if isinstance(item, Track):
            timescale = item.timescale if known is None else known.timescale
            config_id = item.config_id + self._shift(item)
            return msgspec.structs.replace(item, config_id=config_id, timescale=timescale)
        own = self._timescales[item.track_id]
        if known is not None and known.timescale != own:
            item.dts = rescale(item.dts, own, known.timescale)
            item.pts = rescale(item.pts, own, known.timescale)
        item.config_id += self.config_shifts.get(item.track_id, 0)
        if item.track_id in self._awaited:
            self._awaited.discard(item.track_id)
            item.discontinuity = True
        return item

    def _shift(self, track: Track) -> int:
        """What is added to a track's config ids, from its first configuration on."""
        shift = self.config_shifts.get(track.track_id)
        if shift is None:
            known = None if self._configs is None else self._configs.get(track.track_id)
            if known is None:
                shift = self._configs_from
            else:
                config_id, config = known
                shift = config_id + (config != track.config) - track.config_id
            self.config_shifts[track.track_id] = shift
        return shift
