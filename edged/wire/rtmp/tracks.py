"""From audio and video messages to tracks and access units with exact times.

RTMP has milliseconds of 32 bits; the canonical stream has ticks of 64 bits. Times are unrolled for
the whole publication, then snapped to each track's frame grid where its rate is known.
"""

from fractions import Fraction

import msgspec
from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.media import aac, av1, h264, h265, opus, vp9
from edged.media.access_unit import AccessUnit
from edged.media.nal import normalise_lengths
from edged.media.timing import FrameGrid, Unroller, rescale
from edged.media.track import Codec, CodecConfig, Kind, Track
from edged.wire.rtmp import amf0, flv
from edged.wire.rtmp.amf0 import AmfValue
from edged.wire.rtmp.events import (
    DataReceived,
    ServerEvent,
    TrackAnnounced,
    UnitsUnusable,
)
from edged.wire.rtmp.flv import MediaPacket, PacketType
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.messages import Message
from edged.wire.rtmp.track_info import TrackInfo, parse_track_info

VIDEO_TIMESCALE = 90_000
OPUS_TIMESCALE = 48_000  # RFC 6716: Opus counts at 48 kHz whatever it encodes.
BACK_MS_MAX = 1_000  # A step back up to it is jitter and is evened out; beyond it time began anew.
AHEAD_MS_MAX = 10_000  # A step ahead up to it is frames dropped by the encoder.
TIME_MS_MAX = 2**45  # A thousand years: whoever gets there by jumps would leave 64 bits next.
FRAME_RATE_MAX = 300
_NANO = 1_000_000
# Looked up once: an enumeration's attributes are slow, and each unit passes here.
_FRAMES, _AAC, _H264 = PacketType.FRAMES, Codec.AAC, Codec.H264
_VIDEO_TRACK, _AUDIO_TRACK = 1, 2  # Of track 0 on the wire.
_H264_KEY = flv.FRAME_KEY << 4 | flv.LEGACY_AVC  # FLV §E.4.3.1: frame type, codec id.
_H264_FIRST = (_H264_KEY, 2 << 4 | flv.LEGACY_AVC)  # 2: an inter frame.
_NO_INFO = TrackInfo()
_TEMPORAL_DELIMITER = b"\x12\x00"


class TrackState(Struct):
    """One track's state; plain data."""

    track: Track
    wire_record: bytes  # As the publisher sent it.
    length_size: int  # Of NAL units on the wire; 0 for codecs without.
    grid: FrameGrid | None
    grid_samples: int = 0  # Opus: the packet duration that the grid is for.
    announced: bool = True  # VP9 waits for a key frame, because its record has no size.
    last_ms: int | None = None
    last_dts: int = -1


class AssemblerState(Struct):
    """All of a TrackAssembler; plain data."""

    unroller: Unroller
    tracks: dict[int, TrackState] = {}
    frame_rate_num: int = 0  # From onMetaData: for video whose configuration has none.
    frame_rate_den: int = 1
    info: dict[int, TrackInfo] = {}  # What onMetaData says of single tracks.
    units: int = 0  # Received so far.
    unit_bytes: int = 0
    units_unusable: int = 0  # Without the configuration that they need.
    told_unusable: set[int] = set()  # Tracks of which that has been said.


class TrackAssembler:
    """One publication's tracks."""

    def __init__(self, limits: RtmpLimits, state: AssemblerState | None = None) -> None:
        self._limits = limits
        self.state = state if state is not None else AssemblerState(Unroller(32))

    def receive_video(self, message: Message, events: list[ServerEvent]) -> None:
        """Add what a video message brings. Hot path: nearly all are legacy H.264 units."""
        body = message.body
        if len(body) > flv.LEGACY_VIDEO_BYTES and body[0] in _H264_FIRST and body[1] == 1:
            state = self.state.tracks.get(_VIDEO_TRACK)
            if state is not None and state.track.codec is _H264:
                view = memoryview(body)
                shift_ms = int.from_bytes(view[2:5], "big", signed=True)
                key = body[0] == _H264_KEY
                self._add_unit(state, view[5:], message.timestamp, events, key, shift_ms, 0)
                return
        for packet in flv.parse_video(body):
            self._receive(packet, 2 * packet.track + 1, message.timestamp, events)

    def receive_audio(self, message: Message, events: list[ServerEvent]) -> None:
        """Add what an audio message brings. Hot path: nearly all are legacy AAC units."""
        body = message.body
        if len(body) > flv.LEGACY_AUDIO_BYTES and body[0] >> 4 == flv.LEGACY_AAC and body[1] == 1:
            state = self.state.tracks.get(_AUDIO_TRACK)
            if state is not None and state.track.codec is _AAC:
                view = memoryview(body)
                self._add_unit(state, view[2:], message.timestamp, events, True, 0, 0)
                return
        for packet in flv.parse_audio(body):
            if packet.codec is not None:  # Else a channel layout; the codec's own record has it.
                self._receive(packet, 2 * packet.track + 2, message.timestamp, events)

    def receive_metadata(self, values: dict[str, AmfValue], events: list[ServerEvent]) -> None:
        """Take what onMetaData says of the tracks: those known already change their names."""
        rate = values.get("framerate")
        if isinstance(rate, float):
            self.set_frame_rate(rate)
        info = parse_track_info(values)
        if info == self.state.info:
            return
        self.state.info = info
        self._give_grids()
        for state in self.state.tracks.values():
            track = state.track
            named = self._name(msgspec.structs.replace(track, config_id=track.config_id + 1))
            if state.announced and (named.language, named.name) != (track.language, track.name):
                state.track = named
                events.append(TrackAnnounced(named))

    def describe_silence(self) -> str:
        """What did not come, where nothing came of use."""
        count = self.state.units_unusable
        if not count or self.state.tracks:
            return "no audio or video"
        units = "access unit" if count == 1 else "access units"
        return f"no sequence header, and so nothing of {count} {units} that can be decoded,"

    def set_frame_rate(self, frames_per_s: float) -> None:
        """What onMetaData says of all video; out of bounds it is passed over."""
        rate = _frame_rate(frames_per_s)
        if rate is not None:
            self.state.frame_rate_num, self.state.frame_rate_den = rate.numerator, rate.denominator
            self._give_grids()

    def _give_grids(self) -> None:
        for state in self.state.tracks.values():
            if state.grid is None and state.track.kind is Kind.VIDEO:
                state.grid = self._make_grid(state.track)

    def _name(self, track: Track) -> Track:
        """The track with what onMetaData says of it."""
        info = self.state.info.get(track.track_id, _NO_INFO)
        return msgspec.structs.replace(track, language=info.language or "und", name=info.name)

    def _receive(
        self, packet: MediaPacket, track_id: int, timestamp: int, events: list[ServerEvent]
    ) -> None:
        if not packet.payload:
            return  # Some encoders send empty ones, as their last word for instance.
        if packet.type is _FRAMES:
            self._receive_unit(packet, track_id, timestamp, events)
        elif packet.type is PacketType.CONFIG:
            self._configure(packet, track_id, events)
        elif packet.type is PacketType.METADATA:
            if len(packet.payload) > self._limits.command_bytes_max:
                raise RemoteProtocolError(
                    f"metadata of {len(packet.payload)} bytes exceeds"
                    f" {self._limits.command_bytes_max}"
                )
            values = amf0.decode(packet.payload)
            name = values[0] if values else None
            if isinstance(name, str):
                events.append(DataReceived(name, values[1:], timestamp))

    def _receive_unit(
        self, packet: MediaPacket, track_id: int, timestamp: int, events: list[ServerEvent]
    ) -> None:
        state = self.state.tracks.get(track_id)
        if state is None or state.track.codec is not packet.codec:
            # An encoder may have begun to send before we listened, or lost a message: what can be
            # decoded goes on, and the track with its next configuration.
            self.state.units_unusable += 1
            if track_id not in self.state.told_unusable:
                self.state.told_unusable.add(track_id)
                reason = f"{packet.codec} access unit on track {track_id} before its configuration"
                events.append(UnitsUnusable(track_id, reason))
            return
        shift_ms, nano = packet.composition_ms, packet.nano
        self._add_unit(state, packet.payload, timestamp, events, packet.key, shift_ms, nano)

    def _add_unit(  # noqa: PLR0917 (the hot path: names would cost a tenth of the call)
        self,
        state: TrackState,
        view: memoryview,
        timestamp: int,
        events: list[ServerEvent],
        key: bool,
        composition_ms: int,
        nano: int,
    ) -> None:
        whole, codec = self.state, state.track.codec
        payload = bytes(view)
        if state.length_size:
            payload = normalise_lengths(payload, state.length_size)
        elif codec is not _AAC:
            payload = self._prepare(state, payload, events, key=key)
        wire_ms = whole.unroller.unroll(timestamp)
        last_ms = state.last_ms
        discontinuity = last_ms is not None and not (
            -BACK_MS_MAX <= wire_ms - last_ms <= AHEAD_MS_MAX
        )
        if discontinuity and not -TIME_MS_MAX <= wire_ms <= TIME_MS_MAX:
            raise RemoteProtocolError(f"timestamps jumped on to {wire_ms} ms")
        state.last_ms = wire_ms
        pts, dts = _times(state, wire_ms, composition_ms, nano, discontinuity)
        if not (payload and state.announced):
            return  # Nothing but empty NAL units or delimiters, or not yet of use.
        unit = AccessUnit(
            track_id=state.track.track_id,
            seq=0,
            config_id=state.track.config_id,
            pts=pts,
            dts=dts,
            wallclock_us=0,
            payload=payload,
            random_access=key and (codec is _AAC or _is_random_access(codec, payload)),
            discontinuity=discontinuity,
        )
        whole.units += 1
        whole.unit_bytes += len(payload)
        events.append(unit)

    def _prepare(
        self, state: TrackState, payload: bytes, events: list[ServerEvent], *, key: bool
    ) -> bytes:
        """What some codecs want before their unit: the canonical payload."""
        codec = state.track.codec
        if codec is Codec.OPUS:
            _regrid_opus(state, opus.packet_duration(payload))
        elif codec is Codec.AV1 and payload.startswith(_TEMPORAL_DELIMITER):
            return av1.strip_temporal_delimiters(payload)
        elif codec is Codec.VP9 and key:
            self._size_vp9(state, payload, events)
        return payload

    def _configure(self, packet: MediaPacket, track_id: int, events: list[ServerEvent]) -> None:
        """A sequence header: a new track, a new configuration, or the same once more."""
        codec = packet.codec
        assert codec is not None, "a configuration has a codec"
        record = bytes(packet.payload)
        old = self.state.tracks.get(track_id)
        if old is not None and old.wire_record == record and old.track.codec is codec:
            return
        if old is None and len(self.state.tracks) >= self._limits.tracks_max:
            raise RemoteProtocolError(
                f"track {track_id} is one more than {self._limits.tracks_max}"
            )
        config, length_size = _parse_config(codec, record)
        timescale = _timescale(config)
        track = self._name(
            Track(
                track_id=track_id,
                codec=config.codec,
                timescale=timescale,
                config=config,
                config_id=0 if old is None else old.track.config_id + 1,
            )
        )
        grid = self._make_grid(track)
        state = TrackState(track, record, length_size, grid, announced=codec is not Codec.VP9)
        if old is not None:
            state.last_ms = old.last_ms
            state.last_dts = rescale(old.last_dts, old.track.timescale, timescale)
            if old.grid is not None and grid is not None and _same_rate(old.grid, grid):
                state.grid = old.grid  # Exact times go on through the change.
                state.grid_samples = old.grid_samples
        self.state.tracks[track_id] = state
        self.state.told_unusable.discard(track_id)
        if state.announced:
            events.append(TrackAnnounced(track))

    def _make_grid(self, track: Track) -> FrameGrid | None:
        config, timescale = track.config, track.timescale
        if config.codec.kind is Kind.AUDIO:
            if not config.samples_per_unit:
                return None  # Opus: with its first packet.
            return FrameGrid.for_audio(timescale, config.samples_per_unit)
        num, den = config.frame_rate_num, config.frame_rate_den
        if not num:
            num, den = self.state.frame_rate_num, self.state.frame_rate_den
            rate = _frame_rate(self.state.info.get(track.track_id, _NO_INFO).frame_rate)
            if rate is not None:
                num, den = rate.numerator, rate.denominator
        if not den <= num <= FRAME_RATE_MAX * den:
            return None
        return FrameGrid.for_video(timescale, num, den)

    def _size_vp9(self, state: TrackState, payload: bytes, events: list[ServerEvent]) -> None:
        """The size that a key frame says becomes the configuration's."""
        track = state.track
        config = vp9.with_size(track.config, payload)
        if config is track.config:
            return
        config_id = track.config_id + state.announced
        state.track = msgspec.structs.replace(track, config=config, config_id=config_id)
        state.announced = True
        events.append(TrackAnnounced(state.track))


def _frame_rate(frames_per_s: float) -> Fraction | None:
    """The exact rate that metadata means; None out of bounds."""
    if not 1 <= frames_per_s <= FRAME_RATE_MAX:
        return None
    rate = Fraction(frames_per_s).limit_denominator(1001)
    ntsc = Fraction(1001 * frames_per_s / 1000).limit_denominator(1) * Fraction(1000, 1001)
    if abs(ntsc - Fraction(frames_per_s)) < Fraction(1, 100) and rate.denominator != 1:
        return ntsc  # 29.97 is 30000/1001.
    return rate


def _regrid_opus(state: TrackState, samples: int) -> None:
    """A grid for packets of this duration, which goes on where the last one's ends."""
    if samples == state.grid_samples:
        return
    old, state.grid_samples = state.grid, samples
    grid = FrameGrid.for_audio(OPUS_TIMESCALE, samples)
    if old is not None:
        grid.last = old.last
        grid.anchor = old.last + old.frame_num - samples
    state.grid = grid


def _times(
    state: TrackState, wire_ms: int, composition_ms: int, nano: int, discontinuity: bool
) -> tuple[int, int]:
    """The unit's pts and dts; dts rises strictly except at a discontinuity. Hot path."""
    timescale = state.track.timescale
    grid = state.grid
    if nano:
        wire = rescale(wire_ms * _NANO + nano, 1000 * _NANO, timescale)
    else:
        wire = (2 * wire_ms * timescale + 1000) // 2000
    if grid is None:
        dts = wire
    else:
        if discontinuity:
            grid.anchor = None
        dts = grid.snap(wire)[0]
    if dts <= state.last_dts and not discontinuity:
        dts = state.last_dts + 1
    state.last_dts = dts
    if not composition_ms:
        return dts, dts
    pts = rescale((wire_ms + composition_ms) * _NANO + nano, 1000 * _NANO, timescale)
    if grid is not None:
        pts = grid.nearest(pts)
    return (max(pts, dts) if composition_ms > 0 else pts), dts


def _same_rate(a: FrameGrid, b: FrameGrid) -> bool:
    return (a.timescale, a.frame_num, a.frame_den) == (b.timescale, b.frame_num, b.frame_den)


def _timescale(config: CodecConfig) -> int:
    if config.codec is Codec.AAC:
        return config.sample_rate
    return OPUS_TIMESCALE if config.codec is Codec.OPUS else VIDEO_TIMESCALE


def _parse_config(codec: Codec, record: bytes) -> tuple[CodecConfig, int]:
    """The configuration, and the bytes of a NAL unit's length on the wire (0: no NAL units)."""
    match codec:
        case Codec.H264:
            return h264.parse_config(record), h264.parse_record(record).length_size
        case Codec.H265:
            return h265.parse_config(record), h265.parse_record(record).length_size
        case Codec.AV1:
            return av1.parse_config(record), 0
        case Codec.VP9:
            return vp9.parse_config(record), 0
        case Codec.OPUS:
            return opus.parse_config(opus.dops_from_head(record)), 0
        case _:
            return aac.parse_config(record), 0


def _is_random_access(codec: Codec | None, payload: bytes) -> bool:
    """Whether a unit that its sender calls a key frame is one."""
    match codec:
        case Codec.H264:
            return h264.is_random_access(payload)
        case Codec.H265:
            return h265.is_random_access(payload)
        case Codec.AV1:
            return av1.is_random_access(payload)
        case Codec.VP9:
            return vp9.is_random_access(payload)
        case _:
            return True
