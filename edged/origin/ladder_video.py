"""The picture's ladder: decoded once, each rung scaled from the one above it, and encoded.

Times pass through untouched, and no rung has more bits than the source (`rung_rates`). A rung's
picture is random access where, and only where, the source's is. Where the source's own random
access picture is lost, the next picture takes its place.
"""

from collections import deque
from fractions import Fraction
from typing import cast

import av
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter
from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan, VideoRung
from edged.media.nal import join_length_prefixed
from edged.media.track import Codec, CodecConfig, Track
from edged.origin import encoders
from edged.origin.encoders import X264, Look
from edged.policy.rung_rates import RungRates, SourceRate

STAMPS_MAX = 512  # Pictures on their way through decoder and encoders: 16 and a few.
ENOMEM = 12
_SEI_DISPLAY_ORIENTATION = 47
_NAL_SEI = 6
_TURN = 1 << 16  # Of anticlockwise_rotation.
# AVCOL_RANGE: what is said of no range is limited, as everywhere.
_RANGES = {True: 2, False: 1}

Output = Track | AccessUnit


class _Stamp(Struct):
    """What a picture keeps of its unit."""

    wallclock_us: int
    capture_us: int | None


class _Known(Struct):
    """The configuration of a rung that was said last."""

    config: CodecConfig
    config_id: int


class _Maker:
    """One rung that is being made."""

    def __init__(self, rung: VideoRung, plan: LadderPlan, look: Look, timescale: int) -> None:
        self.rung = rung
        self.encoder = encoders.open_video_encoder(rung, plan, look, timescale)
        self.config = encoders.read_config(self.encoder, rung)
        self.last_pts: int | None = None
        self.said = False  # Its configuration.
        self._name, self._pixels = plan.encoder, encoders.pixel_format(self.encoder)
        self._threads = plan.encode_threads
        self._scaler = VideoReformatter()
        self._full_range = look.full_range

    def takes(self, pts: int) -> bool:
        """Whether a picture that is not random access is one of this rung's."""
        return self.last_pts is None or pts - self.last_pts >= self.rung.spacing_ticks

    def scale(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The picture in this rung's size; the same one where it has that."""
        span = _RANGES[self._full_range]
        if frame.colorspace not in encoders.MATRICES_SCALED:
            frame.colorspace = encoders.UNSPECIFIED  # Nothing is converted: YUV stays YUV.
        return self._scaler.reformat(
            frame,
            self.rung.width,
            self.rung.height,
            self._pixels,
            interpolation=Interpolation.BICUBIC,
            src_color_range=span,
            dst_color_range=span,
            threads=self._threads,
        )

    def encode(self, frame: av.VideoFrame | None) -> list[tuple[int, bool, bytes]]:
        """Presentation time, random access and payload of what is ready; None: of the rest."""
        return [
            (
                packet.pts,
                packet.is_keyframe,
                encoders.canonical_payload(bytes(packet), self._name),
            )
            for packet in encoders.encode_picture(self.encoder, frame)
            if packet.pts is not None
        ]


class VideoLadder:
    """All video rungs of a stream."""

    def __init__(self, plan: LadderPlan, track: Track) -> None:
        self.errors = 0  # Units that could not be decoded.
        self.pictures = 0
        self._plan = plan
        self._track = track
        self._wanted = frozenset(rung.name for rung in plan.video)
        self._decoder: av.VideoCodecContext | None = None
        self._config_id = -1
        self._makers: list[_Maker] = []
        self._known: dict[int, _Known] = {}
        self._broken: set[int] = set()  # Rungs whose next unit is a discontinuity.
        self._stamps: dict[int, _Stamp] = {}
        self._keys = deque[int]()  # Times of random access that were not shown yet.
        self._waits = True  # For random access.
        self._look: Look | None = None
        self._last_pts: int | None = None
        self._orientation = b""
        self._source_rate = SourceRate(track.timescale)
        self._rates = RungRates(track.codec)

    def set_plan(self, plan: LadderPlan) -> None:
        """Make this from the next random access on; rungs that stay the same go on."""
        self._plan = plan
        self._wanted = frozenset(rung.name for rung in plan.video)

    def want(self, names: frozenset[str]) -> list[Output]:
        """Make only these: others end at once, new ones begin at the next random access."""
        self._wanted = names
        out: list[Output] = []
        for maker in [each for each in self._makers if each.rung.name not in names]:
            self._close(maker, out)
        return out

    def take(self, unit: AccessUnit, config: CodecConfig) -> list[Output]:
        """What the next unit of the source completes."""
        out: list[Output] = []
        if unit.discontinuity or unit.config_id != self._config_id or self._decoder is None:
            self._drain(out)
            if unit.discontinuity:
                self._break(out)
            self._decoder = encoders.open_video_decoder(config, self._plan.decode_threads)
            self._config_id = unit.config_id
            self._waits = True
        if self._waits and not unit.random_access:
            return out
        self._waits = False
        if unit.random_access:
            self._keys.append(unit.pts)
        self._source_rate.add(unit.dts, len(unit.payload), random_access=unit.random_access)
        self._stamps[unit.pts] = _Stamp(unit.wallclock_us, unit.capture_us)
        while len(self._stamps) > STAMPS_MAX:
            del self._stamps[next(iter(self._stamps))]
        packet = av.Packet(unit.payload)
        packet.pts, packet.dts = unit.pts, unit.dts
        self._decode(packet, out)
        return out

    def finish(self) -> list[Output]:
        """Everything that is held back."""
        out: list[Output] = []
        self._drain(out)
        for maker in list(self._makers):
            self._close(maker, out)
        return out

    def _decode(self, packet: "av.Packet[av.stream.Stream] | None", out: list[Output]) -> None:
        assert self._decoder is not None, "it was opened before"
        try:
            frames = self._decoder.decode(cast("av.Packet[av.VideoStream] | None", packet))
        except av.FFmpegError as error:
            if error.errno == ENOMEM:
                raise MemoryError("a decoder asks for more than this process may have") from error
            self.errors += 1
            return
        for frame in frames:
            self._show(frame, out)

    def _drain(self, out: list[Output]) -> None:
        if self._decoder is not None:
            self._decode(None, out)
            self._decoder = None

    def _break(self, out: list[Output]) -> None:
        """The source's timeline ends here."""
        for maker in list(self._makers):
            self._close(maker, out)
        self._broken = {rung.track_id for rung in self._plan.video} | set(self._known)
        self._keys.clear()
        self._stamps.clear()
        self._last_pts = None

    def _show(self, frame: av.VideoFrame, out: list[Output]) -> None:
        """A decoded picture, in order of presentation."""
        pts = frame.pts
        if pts is None or (self._last_pts is not None and pts <= self._last_pts):
            self.errors += 1
            return
        self._last_pts = pts
        self.pictures += 1
        is_key = False
        while self._keys and self._keys[0] <= pts:
            self._keys.popleft()
            is_key = True
        frame.time_base = Fraction(1, self._track.timescale)
        if is_key:
            self._reconcile(frame, out)
        current = frame
        for maker in self._makers:
            if not is_key and not maker.takes(pts):
                continue
            current = maker.scale(current)
            current.pict_type = PictureType.I if is_key else PictureType.NONE
            maker.last_pts = pts
            self._emit(maker, maker.encode(current), out)

    def _reconcile(self, frame: av.VideoFrame, out: list[Output]) -> None:
        """At random access: have makers for what is wanted, as the source looks now."""
        assert self._decoder is not None, "it made this frame"
        look = _look_of(frame, self._decoder)
        self._orientation = make_orientation(frame.rotation)
        if look != self._look:
            self._look = look
            for maker in list(self._makers):
                self._close(maker, out)
        wanted = [rung for rung in self._plan.video if rung.name in self._wanted]
        if self._plan.encoder == X264:  # Another's configuration may be another with each rate.
            wanted = self._rates.limit(wanted, self._source_rate.bps, frame.width * frame.height)
        for maker in [each for each in self._makers if each.rung not in wanted]:
            self._close(maker, out)
        making = {maker.rung.track_id: maker for maker in self._makers}
        self._makers = [
            making.get(rung.track_id) or _Maker(rung, self._plan, look, self._track.timescale)
            for rung in wanted
        ]

    def _close(self, maker: _Maker, out: list[Output]) -> None:
        if maker.last_pts is not None:
            self._emit(maker, maker.encode(None), out)
        self._makers.remove(maker)

    def _emit(
        self, maker: _Maker, packets: list[tuple[int, bool, bytes]], out: list[Output]
    ) -> None:
        rung = maker.rung
        for pts, is_key, payload in packets:
            if not maker.said:
                maker.said = True
                self._say(maker, out)
            track_id = rung.track_id
            stamp = self._stamps.get(pts) or _Stamp(0, None)
            out.append(
                AccessUnit(
                    track_id=track_id,
                    seq=0,
                    config_id=self._known[track_id].config_id,
                    pts=pts,
                    dts=pts,
                    wallclock_us=stamp.wallclock_us,
                    payload=self._orientation + payload if is_key else payload,
                    random_access=is_key,
                    discontinuity=track_id in self._broken,
                    capture_us=stamp.capture_us,
                )
            )
            self._broken.discard(track_id)

    def _say(self, maker: _Maker, out: list[Output]) -> None:
        """Tell of the rung's track, if it is new or not as it was."""
        track_id = maker.rung.track_id
        known = self._known.get(track_id)
        if known is not None and known.config == maker.config:
            return
        if known is not None:
            self._broken.add(track_id)
        known = _Known(maker.config, known.config_id + 1 if known is not None else 0)
        self._known[track_id] = known
        out.append(
            Track(
                track_id=track_id,
                codec=Codec.H264,
                timescale=self._track.timescale,
                config=known.config,
                config_id=known.config_id,
                language=self._track.language,
                name=maker.rung.name,
            )
        )


def make_orientation(degrees: int) -> bytes:
    """The SEI that has the picture turned by so much anticlockwise (§D.1.27), length-prefixed.

    It stands before each random access picture and counts until the next one. None for 0.
    """
    turn = round(degrees * _TURN / 360) % _TURN
    if not turn:
        return b""
    # cancel 0, hor_flip 0, ver_flip 0, turn u(16), repetition_period ue(1) = 010, extension 0; the
    # payload ends on a byte with its own 1 bit.
    bits = f"000{turn:016b}" + "010" + "0" + "1"
    body = int(bits, 2).to_bytes(3, "big")
    escaped = bytes([_NAL_SEI]) + _escape(
        bytes([_SEI_DISPLAY_ORIENTATION, len(body)]) + body + b"\x80"
    )
    return join_length_prefixed([escaped])


def _escape(rbsp: bytes) -> bytes:
    """Emulation prevention (§7.4.1)."""
    escaped = bytearray()
    zeros = 0
    for byte in rbsp:
        if zeros >= 2 and byte <= 3:  # noqa: PLR2004 - 00 00 0x, as the standard has it
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(escaped)


def _look_of(frame: av.VideoFrame, decoder: av.VideoCodecContext) -> Look:
    sar = decoder.sample_aspect_ratio
    is_full = frame.color_range == encoders.RANGE_FULL or frame.format.name.startswith("yuvj")
    return Look(
        sar=Fraction(sar) if sar else Fraction(1),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=int(frame.colorspace),
        full_range=is_full,
    )
