"""An AAC rung of a sound track: decoded, made stereo or mono, and encoded, on the source's times.

The encoder counts samples; the source has times. What has come is held against what was counted:
a difference of milliseconds (a clock that runs a little fast, times that were rounded) is let be
until it grows, and then made good by leaving samples out or adding silence; a longer gap stays one.
So sound and picture are as far apart as they were in the source, however long it runs.

AAC needs the 1024 samples before a unit to decode it. FFmpeg gives a unit the time of the samples
that a decoder makes of it; the first unit, which only primes the decoder, is not sent.
"""

from fractions import Fraction

import av
from av.audio.resampler import AudioResampler
from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.media.ladder import SAMPLES_PER_UNIT, AudioRung
from edged.media.timing import US_PER_S, rescale
from edged.media.track import Codec, CodecConfig, Track
from edged.origin import encoders

DRIFT_MS_MAX = 10  # Beyond it the sound would be seen to be off, with the source's own 10 ms.
FILL_S_MAX = 1  # A longer gap is the source's own: it stays one.
SAMPLE_BYTES = 4  # 32 bit float, planar.
ENOMEM = 12

Output = Track | AccessUnit


class _Format(Struct, frozen=True):
    """What a resampler is made for."""

    name: str
    layout: str
    rate: int


class AudioLadder:
    """One AAC rung."""

    def __init__(self, rung: AudioRung, track: Track) -> None:
        self.rung = rung
        self.errors = 0  # Units that could not be decoded.
        self.corrected_samples = 0  # Left out or added.
        self._track = track
        self._decoder: av.AudioCodecContext | None = None
        self._config_id = -1
        self._encoder: av.AudioCodecContext | None = None
        self._resampler: AudioResampler | None = None
        self._format: _Format | None = None
        self._planes = [bytearray() for _ in range(rung.channels)]
        self._next: int | None = None  # The time of the sample that comes next; None: none yet.
        self._first = 0  # Of what was given to this encoder.
        self._offset_us = 0  # Wallclock of media time 0.
        self._said = False
        self._is_broken = False

    def take(self, unit: AccessUnit, config: CodecConfig) -> list[Output]:
        """What the next unit of the source completes."""
        out: list[Output] = []
        if unit.discontinuity:
            self._end(out)
            self._is_broken = self._said
        if unit.discontinuity or unit.config_id != self._config_id or self._decoder is None:
            self._decoder = encoders.open_audio_decoder(config)
            self._config_id = unit.config_id
        timescale = self._track.timescale
        self._offset_us = unit.wallclock_us - rescale(unit.pts, timescale, US_PER_S)
        packet = av.Packet(unit.payload)
        packet.pts = packet.dts = unit.pts
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError as error:
            if error.errno == ENOMEM:
                raise MemoryError("a decoder asks for more than this process may have") from error
            self.errors += 1
            return out
        pts = unit.pts
        for frame in frames:
            # The frames of a packet follow each other; a decoder's own times are of its own scale.
            frame.pts, frame.time_base = pts, Fraction(1, timescale)
            pts += frame.samples * timescale // frame.sample_rate
            self._push(frame, out)
        return out

    def finish(self) -> list[Output]:
        """Everything that is held back."""
        out: list[Output] = []
        self._end(out)
        return out

    def _push(self, frame: av.AudioFrame, out: list[Output]) -> None:
        form = _Format(frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._format or self._resampler is None:
            self._format = form
            layout = "mono" if self.rung.channels == 1 else "stereo"
            self._resampler = AudioResampler("fltp", layout, self.rung.sample_rate)
        for resampled in self._resampler.resample(frame):
            if resampled.pts is not None and resampled.time_base is not None and resampled.samples:
                at = resampled.pts * resampled.time_base * self.rung.sample_rate
                self._place(round(at), resampled, out)

    def _place(self, at: int, frame: av.AudioFrame, out: list[Output]) -> None:
        """Put samples where they belong."""
        rate = self.rung.sample_rate
        if self._next is None:
            self._next = at
        drift = at - self._next
        skip = 0
        if drift > FILL_S_MAX * rate or drift < -FILL_S_MAX * rate:
            self._end(out)
            self._next = at
        elif abs(drift) * 1000 > DRIFT_MS_MAX * rate:
            self.corrected_samples += abs(drift)
            if drift > 0:
                for plane in self._planes:
                    plane.extend(bytes(drift * SAMPLE_BYTES))
                self._next += drift
            else:
                skip = min(-drift, frame.samples)
        for plane, source in zip(self._planes, frame.planes, strict=True):
            plane.extend(memoryview(source)[skip * SAMPLE_BYTES : frame.samples * SAMPLE_BYTES])
        self._next += frame.samples - skip
        self._encode_whole(out)

    def _encode_whole(self, out: list[Output]) -> None:
        """Encode what makes whole units."""
        assert self._next is not None, "samples have a time"
        size = SAMPLES_PER_UNIT * SAMPLE_BYTES
        while len(self._planes[0]) >= size:
            begin = self._next - len(self._planes[0]) // SAMPLE_BYTES
            self._encode([bytes(plane[:size]) for plane in self._planes], begin, out)
            for plane in self._planes:
                del plane[:size]

    def _encode(self, planes: list[bytes], pts: int, out: list[Output]) -> None:
        if self._encoder is None:
            self._encoder = encoders.open_audio_encoder(self.rung)
            self._first = pts
        layout = "mono" if self.rung.channels == 1 else "stereo"
        samples = len(planes[0]) // SAMPLE_BYTES
        frame = av.AudioFrame("fltp", layout, samples, align=1)
        frame.sample_rate, frame.pts = self.rung.sample_rate, pts
        frame.time_base = Fraction(1, self.rung.sample_rate)
        for plane, data in zip(frame.planes, planes, strict=True):
            plane.update(data)
        self._emit(frame, out)

    def _end(self, out: list[Output]) -> None:
        """The timeline ends: give out what is held back; what comes has an encoder of its own."""
        if self._encoder is not None and self._next is not None:
            rest = [bytes(plane) for plane in self._planes]
            if rest[0]:
                begin = self._next - len(rest[0]) // SAMPLE_BYTES
                size = SAMPLES_PER_UNIT * SAMPLE_BYTES
                self._encode([plane.ljust(size, b"\0") for plane in rest], begin, out)
            self._emit(None, out)
        self._encoder = self._resampler = self._next = None
        for plane in self._planes:
            plane.clear()

    def _emit(self, frame: av.AudioFrame | None, out: list[Output]) -> None:
        assert self._encoder is not None, "it was opened before"
        rate = self.rung.sample_rate
        for packet in self._encoder.encode(frame):
            if packet.pts is None or packet.pts < self._first:
                continue
            if not self._said:
                self._said = True
                out.append(self._make_track(encoders.read_audio_config(self._encoder)))
            out.append(
                AccessUnit(
                    track_id=self.rung.track_id,
                    seq=0,
                    config_id=0,  # An encoder of the same rung has always the same.
                    pts=packet.pts,
                    dts=packet.pts,
                    wallclock_us=self._offset_us + rescale(packet.pts, rate, US_PER_S),
                    payload=bytes(packet),
                    random_access=True,
                    discontinuity=self._is_broken,
                )
            )
            self._is_broken = False

    def _make_track(self, config: CodecConfig) -> Track:
        return Track(
            track_id=self.rung.track_id,
            codec=Codec.AAC,
            timescale=self.rung.sample_rate,
            config=config,
            language=self._track.language,
            name=self._track.name,
        )
