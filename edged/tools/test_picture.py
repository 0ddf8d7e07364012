"""The generated picture of the test publisher, encoded live: a clock for people, the bit strip for
tests, a tone.

`TestPicture` is a `Source`: the publisher asks when the next access units are due and takes them
then. Frame n shows `started_unix_us` + n / fps, so whoever reads the strip in a picture knows when
it was made.
"""

import array
import datetime
import math
from fractions import Fraction
from typing import Annotated, TypeAlias

import av
from av.codec.context import Flags
from av.video.frame import PictureType
from msgspec import Meta, Struct

from edged.media import aac, h264
from edged.media.access_unit import AccessUnit
from edged.media.track import Codec, Track
from edged.tools.bitstrip import CELLS, COUNTER_MAX, StripPainter
from edged.tools.font import Font

VIDEO_TIMESCALE = 90_000
SAMPLE_RATE = 48_000
SAMPLES_PER_UNIT = 1024
BEEP_S = 0.08  # The tone's beep and the picture's flash, at the start of each second.
TONE_HZ, BEEP_HZ = (
    440,
    880,
)  # Whole numbers of cycles in a second, so that one second of samples loops.
TONE_LEVEL, BEEP_LEVEL = 0.02, 0.2
VIDEO_TRACK_ID, AUDIO_TRACK_ID = 1, 2

# Luma and chroma, limited range (ITU-R BT.709 §3.4).
PAPER, INK, DIM, FLASH, TRACE = 30, 235, 120, 210, 60
TINT_CB, TINT_CR = 138, 124  # A dark blue.
AvPacket: TypeAlias = "av.Packet[av.VideoStream] | av.Packet[av.AudioStream]"
BARS = (
    (180, 128, 128),
    (168, 44, 136),
    (145, 147, 44),
    (134, 63, 52),
    (63, 193, 204),
    (51, 109, 212),
    (28, 212, 120),
)


class PictureConfig(Struct, frozen=True, kw_only=True):
    """What the test picture looks like and how it is encoded."""

    width: Annotated[int, Meta(ge=320, le=3840, multiple_of=80)] = (
        1280  # 40 cells of an even number of pixels.
    )
    height: Annotated[int, Meta(ge=180, le=2160, multiple_of=2)] = 720
    fps: Fraction = Fraction(30)
    gop_s: Annotated[float, Meta(ge=0.1, le=20)] = 2  # From one key frame to the next.
    title: str = "EDGED TEST PICTURE"
    video_kbps_max: Annotated[int, Meta(ge=100, le=50_000)] = 3_000
    audio_kbps: Annotated[int, Meta(ge=32, le=320)] = 96


class PicturePainter:
    """Draws frame after frame into one reused picture: only what has changed since the last one."""

    def __init__(self, config: PictureConfig) -> None:
        width, height = config.width, config.height
        self.frame = av.VideoFrame(width, height, "yuv420p")
        self._width, self._height = width, height
        self._stride = self.frame.planes[0].line_size
        self._luma = memoryview(self.frame.planes[0]).cast("B")
        self._strip = StripPainter(width, height)
        # The clock's twelve characters take about 0.9 of the width, the labels a third of the
        # clock's size.
        self._clock = Font(max(1, width // 80), INK, PAPER)
        self._label = Font(max(1, width // 240), DIM, PAPER)
        self._clock_y = round(height * 0.34)
        self._paint_still(config.title)

    def paint(self, counter: int, unix_us: int, since_us: int) -> None:
        """Draw frame `counter`, made at `unix_us`, `since_us` after the first one."""
        upper, lower = self._strip.rows(counter)
        self._fill_rows(0, upper, self._strip.row_height)
        self._fill_rows(self._strip.row_height, lower, self._strip.row_height)
        when = datetime.datetime.fromtimestamp(unix_us // 1_000_000, tz=datetime.UTC)
        self._text(self._clock, f"{when:%H:%M:%S}.{unix_us // 1000 % 1000:03d}", self._clock_y)
        below = self._clock_y + self._clock.height + self._label.height
        self._text(self._label, f"{when:%Y-%m-%d} UTC   FRAME {counter:08d}", below)
        self._sweep(since_us)

    def _paint_still(self, title: str) -> None:
        luma, cb, cr = self.frame.planes
        luma.update(bytes([PAPER]) * luma.buffer_size)
        cb.update(bytes([TINT_CB]) * cb.buffer_size)
        cr.update(bytes([TINT_CR]) * cr.buffer_size)
        # The strip is neutral grey, so that the browser's conversion to RGB keeps its contrast.
        strip_lines = self._strip.row_height
        for plane in (cb, cr):
            memoryview(plane).cast("B")[: strip_lines * plane.line_size] = bytes([128]) * (
                strip_lines * plane.line_size
            )
        self._text(self._label, title, self._clock_y - 2 * self._label.height)
        top = round(self._height * 0.9) & ~1
        for place, (y, u, v) in enumerate(BARS):
            left, right = (self._width * edge // len(BARS) & ~1 for edge in (place, place + 1))
            self._box(left, top, right - left, self._height - top, y)
            for plane, value in ((cb, u), (cr, v)):
                view = memoryview(plane).cast("B")
                for line in range(top // 2, self._height // 2):
                    at = line * plane.line_size + left // 2
                    view[at : at + (right - left) // 2] = bytes([value]) * ((right - left) // 2)

    def _sweep(self, since_us: int) -> None:
        """Draw the block that crosses the picture once in two seconds, and the flash that goes with
        the beep.
        """
        y, high = round(self._height * 0.74) & ~1, max(2, self._height // 24)
        wide, margin = self._width // 20, self._width // 20
        self._box(margin, y, self._width - 2 * margin, high, TRACE)
        travel = self._width - 2 * margin - wide
        self._box(margin + travel * (since_us % 2_000_000) // 2_000_000, y, wide, high, INK)
        flash = since_us % 1_000_000 < BEEP_S * 1_000_000
        self._box(
            self._width - margin - wide,
            round(self._height * 0.14),
            wide,
            high,
            FLASH if flash else PAPER,
        )

    def _text(self, font: Font, text: str, y: int) -> None:
        """Draw a centred line of text, cut where it is wider than the picture."""
        text = text[: self._width // (6 * font.scale)]
        x = (self._width - font.width(text)) // 2
        for row, samples in enumerate(font.rows(text)):
            for line in range(font.scale):
                at = (y + row * font.scale + line) * self._stride + x
                self._luma[at : at + len(samples)] = samples

    def _box(self, x: int, y: int, width: int, height: int, value: int) -> None:
        samples = bytes([value]) * width
        for line in range(y, y + height):
            at = line * self._stride + x
            self._luma[at : at + width] = samples

    def _fill_rows(self, y: int, samples: bytes, height: int) -> None:
        for line in range(y, y + height):
            self._luma[line * self._stride : line * self._stride + self._width] = samples


def make_tone() -> bytes:
    """Return one second of the tone as 32-bit floats, and one unit more: any unit is a slice, and
    it loops.
    """
    samples = array.array("f")
    for index in range(SAMPLE_RATE + SAMPLES_PER_UNIT):
        second = index % SAMPLE_RATE / SAMPLE_RATE
        beep = BEEP_LEVEL * math.sin(2 * math.pi * BEEP_HZ * second) if second < BEEP_S else 0.0
        samples.append(beep + TONE_LEVEL * math.sin(2 * math.pi * TONE_HZ * second))
    return samples.tobytes()


class TestPicture:
    """The generated picture and tone as a live `Source` of access units; not thread-safe, one
    caller at a time.
    """

    __test__ = False  # Not a test, whatever its name says to pytest.

    def __init__(self, config: PictureConfig) -> None:
        assert config.width % CELLS == 0, "cells have a whole number of pixels"
        self.config = config
        self.started_unix_us = 0
        self._painter = PicturePainter(config)
        self._tone = make_tone()
        self._samples = av.AudioFrame("fltp", "stereo", SAMPLES_PER_UNIT)
        self._samples.sample_rate = SAMPLE_RATE
        self._video = _open_video(config)
        self._audio = _open_audio(config)
        self.tracks: list[Track] = [
            _track(VIDEO_TRACK_ID, Codec.H264, VIDEO_TIMESCALE, self._video.extradata),
            _track(AUDIO_TRACK_ID, Codec.AAC, SAMPLE_RATE, self._audio.extradata),
        ]
        self.counter = 0  # Of the next frame.
        self._audio_pts = 0
        self._seq = 0
        self._key_frame_wanted = False

    def start(self, unix_us: int) -> None:
        """Take this as the wallclock of frame 0."""
        self.started_unix_us = unix_us

    def next_due_s(self) -> float | None:
        """Return when the next units are due, in seconds since the start; never None, the picture
        has no end.
        """
        return float(self.counter / self.config.fps)

    def skip_to(self, elapsed_s: float) -> None:
        """Leave out what was due before `elapsed_s`: the machine was too slow, and live is live."""
        self.counter = max(self.counter, int(elapsed_s * self.config.fps))
        skipped_units = int(elapsed_s * SAMPLE_RATE) // SAMPLES_PER_UNIT
        self._audio_pts = max(self._audio_pts, skipped_units * SAMPLES_PER_UNIT)

    def request_key_frame(self) -> None:
        """Make the next frame a random access point: a new connection needs one to begin with."""
        self._key_frame_wanted = True

    def take_units(self) -> list[AccessUnit]:
        """Draw and encode the next frame, and the tone up to the frame after it. Takes milliseconds
        of CPU.
        """
        assert self.counter <= COUNTER_MAX, "the counter lasts for four years at 30 fps"
        fps, counter = self.config.fps, self.counter
        since_us = int(counter * 1_000_000 / fps)
        self._painter.paint(counter, self.started_unix_us + since_us, since_us)
        frame = self._painter.frame
        frame.pts, frame.time_base = counter, 1 / fps
        frame.pict_type = PictureType.I if self._key_frame_wanted else PictureType.NONE
        self._key_frame_wanted = False
        units: list[AccessUnit] = []
        for packet in self._video.encode(frame):
            assert packet.pts is not None, "the encoder was given a pts"
            units.append(
                self._unit(VIDEO_TRACK_ID, packet, int(packet.pts * VIDEO_TIMESCALE / fps))
            )
        self.counter += 1
        while self._audio_pts / SAMPLE_RATE < self.counter / fps:
            units += self._take_audio()
        return units

    def close(self) -> None:
        """Nothing to give back: the encoders go with the object."""

    def _take_audio(self) -> list[AccessUnit]:
        start = self._audio_pts % SAMPLE_RATE
        samples = self._tone[4 * start : 4 * (start + SAMPLES_PER_UNIT)]
        for plane in self._samples.planes:
            plane.update(samples)
        self._samples.pts, self._samples.time_base = self._audio_pts, Fraction(1, SAMPLE_RATE)
        self._audio_pts += SAMPLES_PER_UNIT
        # The first packet is priming, before time 0, which RTMP can't say.
        return [
            self._unit(AUDIO_TRACK_ID, packet, packet.pts)
            for packet in self._audio.encode(self._samples)
            if packet.pts is not None and packet.pts >= 0
        ]

    def _unit(self, track_id: int, packet: AvPacket, pts: int) -> AccessUnit:
        unit = AccessUnit(
            track_id=track_id,
            seq=self._seq,
            config_id=0,
            pts=pts,
            dts=pts,
            wallclock_us=0,
            payload=bytes(packet),
            random_access=packet.is_keyframe and track_id == VIDEO_TRACK_ID,
        )
        self._seq += 1
        return unit


def _open_video(config: PictureConfig) -> av.VideoCodecContext:
    encoder = av.VideoCodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = config.width, config.height, "yuv420p"
    encoder.time_base, encoder.framerate = 1 / config.fps, config.fps
    encoder.gop_size, encoder.max_b_frames = math.ceil(config.gop_s * config.fps), 0
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header
    kbps = config.video_kbps_max
    encoder.options = {
        "preset": "ultrafast", "tune": "zerolatency", "crf": "23", "forced-idr": "1",
        "maxrate": f"{kbps}k", "bufsize": f"{kbps // 2}k",
        # With annexb=0 payloads are length-prefixed and the extradata is an avcC record, as the
        # canonical stream has them.
        "x264-params": "annexb=0:scenecut=0:colorprim=bt709:transfer=bt709:colormatrix=bt709",
    }  # fmt: skip
    encoder.open()
    return encoder


def _open_audio(config: PictureConfig) -> av.AudioCodecContext:
    encoder = av.AudioCodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = (
        SAMPLE_RATE,
        "stereo",
        av.AudioFormat("fltp"),
    )
    encoder.bit_rate = config.audio_kbps * 1000
    encoder.flags |= Flags.global_header
    encoder.open()
    return encoder


def _track(track_id: int, codec: Codec, timescale: int, record: bytes | None) -> Track:
    assert record is not None, "encoders with a global header have extradata once open"
    parse = h264.parse_config if codec is Codec.H264 else aac.parse_config
    return Track(track_id=track_id, codec=codec, timescale=timescale, config=parse(record))
