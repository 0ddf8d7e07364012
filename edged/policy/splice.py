"""A segmenter as plain data: what an origin hands on, so that its successor goes on exactly.

    origin A: units -> segmenter -> parts         ack: save() of a moment ago
    PoP:      keeps the units since then, and what was saved, unread
    origin B: restore() -> the same units again -> the same parts, byte for byte

What is saved has no payloads. The units of which the segmenter had seen only the beginning of a
part are sent again, first of all; what they were to it stands in the state. All that a segmenter
does follows from the order of its units, so what A had pushed after the state was taken, B makes
again under the same names.
"""

from collections import deque
from fractions import Fraction
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, structs

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import Rendition
from edged.media.track import Track
from edged.policy.boundary import Boundary
from edged.policy.cadence import Cadence
from edged.policy.cutter import FragmentWriter, RenditionCutter
from edged.policy.gops import Gops
from edged.policy.segment_rule import PARTS_MAX, SegmenterConfig
from edged.policy.segmenter import Segmenter
from edged.policy.segmenter_report import SegmenterStatistics

VERSION = 2  # Another version's state means other parts: it is refused, not guessed at.
STATE_BYTES_MAX = 256 * 1024  # 32 tracks with 2048 waiting units between them, and room.

Count = Annotated[int, Meta(ge=0, le=2**53)]  # No stream lives to count further.
# A hole may have a part cut twice for one unit, at the end of a segment too.
Index = Annotated[int, Meta(ge=0, le=PARTS_MAX + 4)]
Ticks = Annotated[int, Meta(ge=-(2**62), le=2**62)]


class PaceState(Struct, array_like=True):
    """Of `cadence.Pace`."""

    cadence: Cadence
    last: int | None
    due: Ticks
    times: list[int]
    skips: Count


class RuleState(Struct, array_like=True):
    """Of `segment_rule.SegmentRule`."""

    long_gops: Count
    long_gop_ticks: Ticks


class UnitState(Struct, kw_only=True):
    """Of `access_unit.AccessUnit`, without its payload."""

    track_id: int
    seq: int
    config_id: int
    pts: int
    dts: int
    wallclock_us: int
    payload: bytes = b""  # Older ones have the field.
    random_access: bool = False
    discontinuity: bool = False
    capture_us: int | None = None

    def restore(self) -> AccessUnit:
        """The unit, whose payload is to come."""
        return AccessUnit(**structs.asdict(self) | {"payload": b""})


class CutterState(Struct, array_like=True, kw_only=True):
    """Of `cutter.RenditionCutter`."""

    track: Track
    rendition: Rendition
    config_id: Count
    init_digest: str
    msn: Count
    index: Index
    started: bool
    segment_start: Ticks
    end_dts: Ticks
    last: UnitState | None
    boundaries: list[Boundary]
    expected_end: Ticks | None
    offset_ticks: Ticks
    discontinuity_sequence: Count
    parts_cut: Count
    segment_bytes: Count
    ticks_missing: Count
    lag_s: float
    gops: Gops
    pace: PaceState
    units: list[UnitState]
    cut_to: Ticks | None
    discontinuity: bool
    planned_end: Ticks | None = None


class SegmenterState(Struct, array_like=True, kw_only=True):
    """Of `segmenter.Segmenter`, at a moment between two units."""

    version: int
    config: SegmenterConfig
    rule: RuleState
    statistics: SegmenterStatistics
    tracks: dict[int, dict[int, Track]]
    names: dict[int, str]
    waiting: dict[int, list[UnitState]]
    held: dict[int, list[UnitState]]
    cutters: dict[int, CutterState]
    leader: int | None
    skipped: list[int]
    offset_s: int
    discontinuities_left: Ticks
    last_seq: int
    packaged_seq: int  # The units from the one after it on are needed again.
    expected_pts: int | None


def save(segmenter: Segmenter) -> bytes:
    """Take a segmenter's state; it may go on."""
    s = segmenter
    leader = next((key for key, cutter in s._cutters.items() if cutter is s._leader), None)
    state = SegmenterState(
        version=VERSION,
        config=s.config,
        rule=RuleState(s._rule.long_gops, s._rule.long_gop_ticks),
        statistics=s._statistics,
        tracks=s._tracks.configs,
        names=s._tracks.names,
        waiting={key: [_bare(u) for u in units] for key, units in s._waiting.by_track.items()},
        held={key: [_bare(u) for u in units] for key, units in s._held.by_track.items()},
        cutters={key: _save_cutter(cutter) for key, cutter in s._cutters.items()},
        leader=leader,
        skipped=sorted(s._skipped),
        offset_s=s._offset_s,
        discontinuities_left=s._discontinuities_left,
        last_seq=s._last_seq,
        packaged_seq=s.packaged_seq,
        expected_pts=s._expected_pts,
    )
    return msgspec.msgpack.encode(state, enc_hook=_encode_fraction)


def read_state(data: bytes) -> SegmenterState:
    """Decode what `save` gave; RemoteProtocolError for anything else."""
    if len(data) > STATE_BYTES_MAX:
        raise RemoteProtocolError(f"splice of {len(data)} bytes exceeds {STATE_BYTES_MAX}")
    try:
        state = msgspec.msgpack.decode(data, type=SegmenterState, dec_hook=_decode_fraction)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # No UTF-8, nested.
        raise RemoteProtocolError(f"splice cannot be read: {error}") from error
    if state.version != VERSION:
        raise RemoteProtocolError(f"splice of version {state.version}, not {VERSION}")
    if state.config.target_duration_s < state.config.segment_s:
        raise RemoteProtocolError(
            f"splice of segments of {state.config.segment_s:g} s, longer than their"
            f" target of {state.config.target_duration_s} s"
        )
    if state.leader is not None and state.leader not in state.cutters:
        raise RemoteProtocolError(f"splice names the leader {state.leader}, which it does not have")
    if state.cutters.keys() - state.tracks.keys() or state.waiting.keys() - state.tracks.keys():
        raise RemoteProtocolError("splice has a rendition of a track that it does not have")
    if state.held.keys() - state.cutters.keys() or not all(state.held.values()):
        raise RemoteProtocolError("splice holds units of a rendition that it does not have")
    return state


class Resumed:
    """A segmenter that goes on from a state. Feed it the units after `packaged_seq`, in order."""

    def __init__(self, state: SegmenterState, writer: FragmentWriter) -> None:
        self.segmenter = _restore(state, writer)
        self._last_seq = state.last_seq
        self._missing: dict[int, tuple[list[AccessUnit], int]] = {}
        lists = [cutter._units for cutter in self.segmenter._cutters.values()]
        lists += self.segmenter._waiting.by_track.values()
        lists += self.segmenter._held.by_track.values()
        for units in lists:
            for index, unit in enumerate(units):
                self._missing[unit.seq] = units, index

    @property
    def whole(self) -> bool:
        """Whether all that was pending has come again."""
        return not self._missing

    def takes(self, unit: AccessUnit) -> bool:
        """Take a unit that the segmenter had before; False for one that is new to it.

        Raises RemoteProtocolError where one is new and units that are needed have not come.
        """
        if unit.seq > self._last_seq:
            if self._missing:
                raise RemoteProtocolError(
                    f"unit {min(self._missing)} is needed to splice, and lost"
                )
            return False
        place = self._missing.pop(unit.seq, None)
        if place is not None:
            units, index = place
            units[index] = units[index].replaced(payload=unit.payload)
        if not self._missing:
            self._count()
        return True

    def _count(self) -> None:
        """Payloads are back: so are their bytes."""
        segmenter = self.segmenter
        for cutter in segmenter._cutters.values():
            cutter._bytes = sum(len(unit.payload) for unit in cutter._units)
        segmenter._waiting.count_bytes()


def _bare(unit: AccessUnit) -> UnitState:
    return UnitState(**(unit.fields() | {"payload": b""}))


def _whole(units: list[UnitState]) -> list[AccessUnit]:
    return [unit.restore() for unit in units]


def _save_cutter(cutter: RenditionCutter) -> CutterState:
    pace = cutter._pace
    return CutterState(
        track=cutter.track,
        rendition=cutter.rendition,
        config_id=cutter.config_id,
        init_digest=cutter.init_digest,
        msn=cutter.msn,
        index=cutter.index,
        started=cutter.started,
        segment_start=cutter.segment_start,
        end_dts=cutter.end_dts,
        last=None if cutter.last is None else _bare(cutter.last),
        boundaries=list(cutter.boundaries),
        expected_end=cutter.expected_end,
        offset_ticks=cutter.offset_ticks,
        discontinuity_sequence=cutter.discontinuity_sequence,
        parts_cut=cutter.parts_cut,
        segment_bytes=cutter.segment_bytes,
        ticks_missing=cutter.ticks_missing,
        lag_s=cutter.lag_s,
        gops=cutter.gops,
        pace=PaceState(pace.cadence, pace.last, pace.due, list(pace._times), pace._skips),
        units=[_bare(unit) for unit in cutter._units],
        cut_to=cutter._cut_to,
        discontinuity=cutter._discontinuity,
        planned_end=cutter.planned_end,
    )


def _restore(state: SegmenterState, writer: FragmentWriter) -> Segmenter:
    segmenter = Segmenter(state.config, writer)
    rule = segmenter._rule
    rule.long_gops, rule.long_gop_ticks = state.rule.long_gops, state.rule.long_gop_ticks
    segmenter._statistics = state.statistics
    segmenter._tracks.configs, segmenter._tracks.names = state.tracks, state.names
    segmenter._waiting.by_track = {key: _whole(u) for key, u in state.waiting.items()}
    segmenter._held.by_track = {key: _whole(u) for key, u in state.held.items()}
    segmenter._cutters = {key: _restore_cutter(one, writer) for key, one in state.cutters.items()}
    segmenter._leader = None if state.leader is None else segmenter._cutters[state.leader]
    segmenter._skipped = set(state.skipped)
    segmenter._offset_s = state.offset_s
    segmenter._discontinuities_left = state.discontinuities_left
    segmenter._last_seq = state.last_seq
    segmenter._expected_pts = state.expected_pts
    return segmenter


def _restore_cutter(state: CutterState, writer: FragmentWriter) -> RenditionCutter:
    cutter = RenditionCutter(state.track, state.rendition, state.pace.cadence, writer)
    cutter.config_id, cutter.init_digest = state.config_id, state.init_digest
    cutter.msn, cutter.index = state.msn, state.index
    cutter.started, cutter.segment_start = state.started, state.segment_start
    cutter.end_dts = state.end_dts
    cutter.last = None if state.last is None else state.last.restore()
    cutter.boundaries = deque(state.boundaries)
    cutter.expected_end, cutter.offset_ticks = state.expected_end, state.offset_ticks
    cutter.discontinuity_sequence = state.discontinuity_sequence
    cutter.parts_cut, cutter.segment_bytes = state.parts_cut, state.segment_bytes
    cutter.ticks_missing, cutter.lag_s = state.ticks_missing, state.lag_s
    cutter.gops = state.gops
    pace = cutter._pace
    pace.last, pace.due, pace._skips = state.pace.last, state.pace.due, state.pace.skips
    pace._times.extend(state.pace.times)
    cutter._units, cutter._cut_to = _whole(state.units), state.cut_to
    cutter._discontinuity = state.discontinuity
    cutter.planned_end = state.planned_end
    return cutter


def _encode_fraction(value: object) -> object:
    assert isinstance(value, Fraction), "the only field that msgpack does not know"
    return [value.numerator, value.denominator]


def _decode_fraction(kind: type, value: Any) -> object:  # noqa: ANN401 - msgspec's own signature
    assert kind is Fraction, "the only field that msgpack does not know"
    match value:
        case [int(numerator), int(denominator)] if denominator > 0:
            return Fraction(numerator, denominator)
    raise ValueError("a fraction is two integers")
