"""A media file as a live `Source`: looped, in real time. A stream is copied as it is where the
canonical stream has its codec, and otherwise re-encoded (to H.264 and AAC).
"""

import collections
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
from av.audio.resampler import AudioResampler
from av.codec.context import Flags
from av.video.frame import PictureType
from msgspec import Struct

from edged.errors import EdgedError, RemoteProtocolError, ToolMissingError, UnsupportedMediaError
from edged.media import aac, av1, h264, h265, opus, vp9
from edged.media.access_unit import AccessUnit
from edged.media.nal import LENGTH_BYTES, from_annexb, split_annexb
from edged.media.track import CodecConfig, Track

VIDEO_TIMESCALE = 90_000
SAMPLE_RATE = 48_000
FIRST_PACKETS_MAX = 2_000  # Read to find each stream's first; no sane interleaving needs more.
UNDATED_MAX = 32  # Twice the deepest reordering of any codec; a file beyond it has no dts at all.
REENCODED_KBPS_MAX = 6_000
GOP_S = 2
TRACKS_MAX = 16  # What a publication may have.

_SPS, _PPS = 7, 8  # NAL unit types (ISO/IEC 14496-10 table 7-1).
_VPS_SPS_PPS = (32, 33, 34)  # The same of ISO/IEC 23008-2 table 7-1.
AvPacket: TypeAlias = (
    "av.Packet[av.stream.Stream] | av.Packet[av.VideoStream] | av.Packet[av.AudioStream]"
)
AvStream = av.VideoStream | av.AudioStream
Reshape = Callable[[bytes], bytes]


class TimedUnit(Struct):
    """A payload with the file's own times, in seconds."""

    track_id: int
    pts_s: Fraction
    dts_s: Fraction
    end_s: Fraction
    random_access: bool
    payload: bytes


class Fitting(Struct, frozen=True):
    """How a stream's packets become the canonical stream's payloads without re-encoding."""

    config: CodecConfig
    reshape: Reshape
    is_random_access: Callable[[bytes], bool] | None = None  # None: as the file says.


def choose_fitting(path: Path, stream: AvStream) -> Fitting | None:
    """Return how to copy the stream, or None where it must be re-encoded."""
    codec = stream.codec_context.codec.canonical_name
    try:
        if codec == "vp9":
            return _fit_vp9(_first_packet(path, stream.index))
        return _fit(codec, stream.codec_context)
    except (RemoteProtocolError, UnsupportedMediaError):
        return None  # FFmpeg may still decode what we can't carry.


def _fit(codec: str, context: av.CodecContext) -> Fitting | None:
    record = context.extradata or b""
    fitting: Fitting | None = None
    if codec == "h264" and (fit := _fit_nal(record, _annexb_avcc, length_size_at=4)):
        fitting = Fitting(h264.parse_config(fit[0]), fit[1], h264.is_random_access)
    elif codec == "hevc" and (fit := _fit_nal(record, _annexb_hvcc, length_size_at=21)):
        fitting = Fitting(h265.parse_config(fit[0]), fit[1], h265.is_random_access)
    elif codec == "av1" and record:
        fitting = Fitting(
            av1.parse_config(record), av1.strip_temporal_delimiters, av1.is_random_access
        )
    elif codec == "aac" and record:
        fitting = Fitting(aac.parse_config(record), bytes)
    elif codec == "aac" and isinstance(context, av.AudioCodecContext):
        # ADTS has no record; its header says as much.
        made = aac.make_config(context.sample_rate, context.layout.nb_channels)
        fitting = Fitting(aac.parse_config(made), _strip_adts)
    elif codec == "opus" and record:
        fitting = Fitting(opus.parse_config(opus.dops_from_head(record)), bytes)
    return fitting


def _fit_vp9(key_frame: bytes) -> Fitting:
    """Of its own files FFmpeg gives no record; the first picture says as much."""
    config = vp9.with_size(vp9.parse_config(vp9.make_record(key_frame)), key_frame)
    return Fitting(config, bytes, vp9.is_random_access)


def _first_packet(path: Path, index: int) -> bytes:
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams[index]):
            if packet.size:
                return bytes(packet)
    raise UnsupportedMediaError(f"{path}: stream {index} has no packet")


class Copier:
    """Passes a stream's packets on."""

    def __init__(self, track_id: int, fitting: Fitting) -> None:
        self.config = fitting.config
        self._track_id = track_id
        self._fitting = fitting
        # Matroska has no dts; FFmpeg knows it only once it has seen how pictures are reordered.
        self._undated: list[TimedUnit] = []

    def take(self, packet: AvPacket) -> list[TimedUnit]:
        """Return the packet's unit, and those before it that had waited for their dts."""
        if packet.pts is None or not packet.size or len(self._undated) > UNDATED_MAX:
            return []
        payload = self._fitting.reshape(bytes(packet))
        unit = _timed(self._track_id, packet, payload)
        if self._fitting.is_random_access is not None:
            unit.random_access = self._fitting.is_random_access(payload)
        if packet.dts is None:
            self._undated.append(unit)
            return []
        units, self._undated = [*self._undated, unit], []
        step_s = unit.end_s - unit.dts_s
        for place, earlier in enumerate(reversed(units[:-1]), start=1):
            earlier.dts_s = unit.dts_s - place * step_s
            earlier.end_s = earlier.dts_s + step_s
        return units


class Transcoder:
    """Decodes a stream and encodes it anew."""

    def __init__(self, track_id: int, stream: AvStream) -> None:
        self._track_id = track_id
        self._flushed = False
        self._video: av.VideoCodecContext | None = None
        self._audio: av.AudioCodecContext | None = None
        if isinstance(stream, av.VideoStream):
            self._video = _open_video(stream)
            self.config = h264.parse_config(self._video.extradata or b"")
        else:
            self._audio = _open_audio()
            self._resampler = AudioResampler("fltp", "stereo", SAMPLE_RATE, frame_size=1024)
            self.config = aac.parse_config(self._audio.extradata or b"")

    def take(self, packet: AvPacket) -> list[TimedUnit]:
        """Return the units that the packet completes; an empty one, at the end of the file,
        flushes.
        """
        packets: list[AvPacket] = []
        for frame in packet.decode():
            if self._video is not None and isinstance(frame, av.VideoFrame):
                plain = frame.reformat(self._video.width, self._video.height, "yuv420p")
                plain.pict_type = PictureType.NONE
                packets += self._video.encode(plain)
            elif self._audio is not None and isinstance(frame, av.AudioFrame):
                for samples in self._resampler.resample(frame):
                    packets += self._audio.encode(samples)
        if not packet.size and not self._flushed:
            self._flushed = True
            packets += self._flush()
        return [
            _timed(self._track_id, made, bytes(made)) for made in packets if made.pts is not None
        ]

    def _flush(self) -> list[AvPacket]:
        if self._video is not None:
            return self._video.encode(None)
        assert self._audio is not None, "it has one of the two"
        packets = [
            packet
            for samples in self._resampler.resample(None)
            for packet in self._audio.encode(samples)
        ]
        return packets + self._audio.encode(None)


class FileSource:
    """All of a file's video and audio streams as a live `Source`: video first, each in the file's
    order. Not thread-safe, one caller at a time.

    Raises ToolMissingError if there is no such file, UnsupportedMediaError if nothing in it can be
    published, or too much.
    """

    def __init__(self, path: Path, *, loop: bool = True) -> None:
        if not path.is_file():
            raise ToolMissingError(f"no file {str(path)!r}")
        self._path = path
        self._loop = loop
        self._seq = 0
        self._pass_start_s = self._end_s = Fraction(
            0
        )  # Where this pass through the file begins, and the last unit ends.
        self._labels: dict[int, tuple[str, str]] = {}  # Language and name, by track.
        self._container, self._makers = self._open()
        self._units = self._read()
        self._base_s, self._ahead = self._find_base()
        self.tracks: Sequence[Track] = [
            Track(
                track_id=track_id,
                codec=maker.config.codec,
                timescale=_timescale(maker.config),
                config=maker.config,
                language=self._labels[track_id][0],
                name=self._labels[track_id][1],
            )
            for track_id, maker in sorted(self._by_track.items())
        ]

    @property
    def _by_track(self) -> dict[int, Copier | Transcoder]:
        return dict(self._makers.values())

    def start(self, unix_us: int) -> None:
        """A file shows no clock."""

    def next_due_s(self) -> float | None:
        """Return when the next unit is due, in seconds since the start, or None at the end of a
        file not looped.
        """
        if not self._ahead and not self._refill():
            return None
        return float(self._at(self._ahead[0].dts_s))

    def skip_to(self, elapsed_s: float) -> None:
        """Leave nothing out: a file that is late catches up by itself."""

    def request_key_frame(self) -> None:
        """A file has its key frames where it has them."""

    def take_units(self) -> list[AccessUnit]:
        """Return the next unit (call after `next_due_s`). Takes CPU only where the file is
        re-encoded.
        """
        timed = self._ahead.popleft()
        config = self._by_track[timed.track_id].config
        timescale = _timescale(config)
        self._end_s = max(self._end_s, self._at(timed.end_s))
        unit = AccessUnit(
            track_id=timed.track_id,
            seq=self._seq,
            config_id=0,
            pts=round(self._at(timed.pts_s) * timescale),
            dts=round(self._at(timed.dts_s) * timescale),
            wallclock_us=0,
            payload=timed.payload,
            random_access=timed.random_access,
        )
        self._seq += 1
        return [unit]

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _at(self, time_s: Fraction) -> Fraction:
        return self._pass_start_s + max(Fraction(0), time_s - self._base_s)

    def _open(
        self,
    ) -> tuple[av.container.InputContainer, dict[int, tuple[int, Copier | Transcoder]]]:
        try:
            container = av.open(str(self._path))
        except (av.FFmpegError, OSError) as error:
            raise UnsupportedMediaError(
                f"{self._path}: not media that FFmpeg can read: {error}"
            ) from error
        makers: dict[int, tuple[int, Copier | Transcoder]] = {}
        covers = av.stream.Disposition.attached_pic
        chosen: list[AvStream] = [v for v in container.streams.video if not v.disposition & covers]
        chosen += container.streams.audio
        if len(chosen) > TRACKS_MAX:
            container.close()
            raise UnsupportedMediaError(
                f"{self._path}: {len(chosen)} video and audio streams, limit {TRACKS_MAX}"
            )
        for track_id, stream in enumerate(chosen, start=1):
            self._labels[track_id] = (stream.language or "und", stream.metadata.get("title", ""))
            fitting = choose_fitting(self._path, stream)
            maker = Copier(track_id, fitting) if fitting else Transcoder(track_id, stream)
            makers[stream.index] = (track_id, maker)
        if not makers:
            container.close()
            raise UnsupportedMediaError(f"{self._path}: neither video nor audio in it")
        return container, makers

    def _read(self) -> Iterator[TimedUnit]:
        streams = [self._container.streams[index] for index in self._makers]
        try:
            for packet in self._container.demux(streams):
                yield from self._makers[packet.stream_index][1].take(packet)
        except av.FFmpegError as error:
            raise EdgedError(f"{self._path}: cannot be read on: {error}") from error

    def _find_base(self) -> tuple[Fraction, collections.deque[TimedUnit]]:
        """Read until each track has begun; return the earliest time, and what has been read, in
        order of time.
        """
        ahead: list[TimedUnit] = []
        begun: set[int] = set()
        for unit in self._units:
            ahead.append(unit)
            begun.add(unit.track_id)
            if len(begun) == len(self._makers) or len(ahead) >= FIRST_PACKETS_MAX:
                break
        if not ahead:
            raise UnsupportedMediaError(f"{self._path}: no packet in it")
        ahead.sort(key=lambda unit: unit.dts_s)
        return ahead[0].dts_s, collections.deque(ahead)

    def _refill(self) -> bool:
        """Read on, from the start again where the file is looped; False at its end."""
        unit = next(self._units, None)
        if unit is None and self._loop:
            self._container.close()
            self._container, self._makers = self._open()
            self._units = self._read()
            self._pass_start_s = self._end_s
            unit = next(self._units, None)
        if unit is None:
            return False
        self._ahead.append(unit)
        return True


def _timed(track_id: int, packet: AvPacket, payload: bytes) -> TimedUnit:
    assert packet.pts is not None, "packets without times are left out"
    base = packet.time_base
    pts_s = packet.pts * base
    dts_s = pts_s if packet.dts is None else packet.dts * base
    # The end in decoding order, from which the next pass goes on: the times of its pictures follow
    # suit.
    end_s = dts_s + (packet.duration or 0) * base
    return TimedUnit(track_id, pts_s, dts_s, end_s, packet.is_keyframe, payload)


def _timescale(config: CodecConfig) -> int:
    return config.sample_rate or VIDEO_TIMESCALE


def _fit_nal(
    record: bytes, make: Callable[[bytes], bytes], length_size_at: int
) -> tuple[bytes, Reshape] | None:
    """H.264 or H.265: record and payload as they are with 4-byte lengths, or made from Annex B."""
    if record.startswith((b"\x00\x00\x01", b"\x00\x00\x00\x01")):
        return make(record), from_annexb
    if len(record) <= length_size_at or record[length_size_at] & 3 != LENGTH_BYTES - 1:
        return None
    return record, bytes


def _annexb_avcc(sets: bytes) -> bytes:
    nals = split_annexb(sets)
    return h264.make_record(
        [n for n in nals if n[0] & 31 == _SPS], [n for n in nals if n[0] & 31 == _PPS]
    )


def _annexb_hvcc(sets: bytes) -> bytes:
    nals = split_annexb(sets)
    vps, sps, pps = ([n for n in nals if n[0] >> 1 & 63 == kind] for kind in _VPS_SPS_PPS)
    return h265.make_record(vps, sps, pps)


def _strip_adts(payload: bytes) -> bytes:
    return aac.strip_adts(payload)[0]


def _open_video(stream: av.VideoStream) -> av.VideoCodecContext:
    encoder = av.VideoCodecContext.create("libx264", "w")
    context = stream.codec_context
    encoder.width, encoder.height, encoder.pix_fmt = (
        context.width & ~1,
        context.height & ~1,
        "yuv420p",
    )
    rate = stream.average_rate or Fraction(30)
    encoder.time_base, encoder.framerate = Fraction(1, VIDEO_TIMESCALE), rate
    encoder.gop_size, encoder.max_b_frames = math.ceil(GOP_S * rate), 0
    encoder.flags |= Flags.global_header
    kbps = REENCODED_KBPS_MAX
    encoder.options = {
        "preset": "ultrafast", "tune": "zerolatency", "crf": "23",
        "maxrate": f"{kbps}k", "bufsize": f"{kbps}k", "x264-params": "annexb=0:scenecut=0",
    }  # fmt: skip
    encoder.open()
    return encoder


def _open_audio() -> av.AudioCodecContext:
    encoder = av.AudioCodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = (
        SAMPLE_RATE,
        "stereo",
        av.AudioFormat("fltp"),
    )
    encoder.bit_rate = 128_000
    encoder.flags |= Flags.global_header
    encoder.open()
    return encoder
