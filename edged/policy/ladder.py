"""Which rungs a stream gets: by its source, the configuration, its class, and what may be spent.

The source itself is never encoded again; a rung is something smaller beside it. A source that not
every player can decode (H.265, AV1, VP9) may have a rung of its own size, in H.264. A rung's size
is that of the shorter side, so that an upright picture gets the same rungs as a wide one.
"""

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from edged.errors import EdgedError
from edged.media import aac
from edged.media.ladder import (
    AUDIO_TRACK_ID_MIN,
    RUNGS_MAX,
    VIDEO_TRACK_ID_MIN,
    AudioRung,
    LadderPlan,
    VideoRung,
)
from edged.media.picture import describe_picture
from edged.media.stream import PriorityClass
from edged.media.track import Codec, CodecConfig, Kind, Track
from edged.policy.h264_levels import choose_level
from edged.policy.ladder_threads import Threads, choose_threads

PriorityName = Literal["partner", "affiliate", "basic"]
EncoderName = Literal["auto", "x264", "nvenc", "vaapi", "qsv"]
PresetName = Literal["auto", "fast", "faster", "veryfast", "superfast", "ultrafast"]

ALL_CLASSES: tuple[PriorityName, ...] = ("partner", "affiliate", "basic")
ENCODERS: dict[str, str] = {  # As FFmpeg names them; in the order in which `auto` prefers them.
    "nvenc": "h264_nvenc",
    "qsv": "h264_qsv",
    "vaapi": "h264_vaapi",
    "x264": "libx264",
}
X264 = "libx264"
# What a megapixel costs, `veryfast` being 1; the best first. (Measured on noisy pictures of 720p.)
PRESET_COSTS: dict[str, float] = {
    "fast": 2.6,
    "faster": 1.6,
    "veryfast": 1.0,
    "superfast": 0.65,
    "ultrafast": 0.3,
}
HARDWARE_COST = 0.05  # Of a rung whose encoding is not the CPU's: the way there and back.
SCALE_COST = 0.06  # Per megapixel that is scaled from.
DECODE_COSTS = {Codec.H264: 0.3, Codec.H265: 0.45, Codec.AV1: 0.5, Codec.VP9: 0.4}
AUTO_BEST = "veryfast"  # `auto` goes no slower: what more costs buys little at these rates.

HIGH_RATE_FPS = 31  # Above it a rung has the bit rate of a fast one.
HIGH_RATE_NUM, HIGH_RATE_DEN = 7, 5  # x the configured one: half the pictures differ by less.
RATE_SLACK = Fraction(21, 20)  # 59.94 and 60.1 are both 60.
BUFFER_MS = 1_000  # Of the rate control: what a player may have to fetch at once.
PEAK_NUM, PEAK_DEN = 11, 10  # Of the bit rate: VBV's maximum. More would break BANDWIDTH's promise.
SIDE_MIN = 32  # Pixels; encoders take no less, and nobody sees it.
PIXELS_MAX = 8192 * 4352  # More than this is not decoded.
PRESET_SHARE = 4  # A better preset may take this part of a machine, or a core; all rungs, it all.
FPS_UNKNOWN = Fraction(30)  # Of a source that does not say, for what it costs.
SIMILAR_DEN = 10  # A publisher's own rung within a tenth of the size makes ours needless.

AUDIO_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000)  # Kept; others become the first.
STEREO = 2


class RungConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rung of `[ladder]`."""

    height: Annotated[int, Meta(ge=64, le=4320)]  # Of an upright picture: its width.
    kbps: Annotated[int, Meta(ge=50, le=50_000)]  # At up to 30 fps; 1.4 x as much above.
    fps_max: Annotated[int, Meta(ge=10, le=120)] | None = None  # Default: 60 from 720 on, else 30.
    classes: tuple[PriorityName, ...] = ALL_CLASSES  # Who gets it.

    @property
    def name(self) -> str:
        """What it is called everywhere."""
        return f"{self.height}p"

    @property
    def rate_max(self) -> int:
        """Pictures per second, at most; of a faster source every second one is left out."""
        if self.fps_max is not None:
            return self.fps_max
        return 60 if self.height >= 720 else 30  # noqa: PLR2004 - the default is said above


class LadderConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ladder]`: what is made of a stream beside its source."""

    rungs: Annotated[tuple[RungConfig, ...], Meta(max_length=RUNGS_MAX)] = (
        RungConfig(height=1080, kbps=4_500),
        RungConfig(height=720, kbps=2_400),
        RungConfig(height=480, kbps=1_300),
        RungConfig(height=360, kbps=700),
        RungConfig(height=160, kbps=250),
    )
    classes: tuple[PriorityName, ...] = ALL_CLASSES  # Who gets a ladder at all.
    audio_kbps: Annotated[int, Meta(ge=32, le=320)] = 128  # Stereo; half of it for one channel.
    audio_only: bool = True  # Whether there is a choice without the picture.
    encoder: EncoderName = "auto"
    preset: PresetName = "auto"  # Of x264; auto: the best that the budget allows.
    # Of compute, for all ladders (`edged.policy.ladder_slots`); default: measured at the start.
    slots: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None

    def __post_init__(self) -> None:
        """Rungs go from large to small, each once."""
        heights = [rung.height for rung in self.rungs]
        if any(upper <= lower for upper, lower in itertools.pairwise(heights)):
            raise ValueError(f"rungs must go from large to small, each height once: {heights}")

    def offers_sound_alone(self, priority: PriorityClass) -> bool:
        """Whether there is a choice without the picture; that needs nothing to be encoded."""
        return self.audio_only and priority.label in self.classes


class LadderBudget(Struct, frozen=True, kw_only=True):
    """What one stream's ladder may take."""

    cost_max: float = 100.0  # Of all its threads, see `edged.media.ladder`.
    core_max: float | None = None  # Of one thread; None: all of it.
    cores: int = 1  # Threads that may run at once.
    # FFmpeg's encoders that work on this machine, and why others don't.
    encoders: tuple[str, ...] = (X264,)
    missing: dict[str, str] = {}

    @property
    def thread_max(self) -> float:
        """What one thread may have to do."""
        return self.cost_max if self.core_max is None else min(self.core_max, self.cost_max)


class _Source(Struct, frozen=True):
    """The picture that rungs are made of."""

    track: Track
    side: Fraction  # The shorter one, as shown.
    fps: Fraction  # 0: not known.

    @property
    def pixels_per_s(self) -> float:
        config = self.track.config
        return float(config.width * config.height * (self.fps or FPS_UNKNOWN))


def choose_ladder(
    tracks: Sequence[Track],
    config: LadderConfig,
    priority: PriorityClass,
    budget: LadderBudget,
) -> LadderPlan:
    """The ladder of a stream with these tracks; an empty plan, with the reason, if it has none."""
    if priority.label not in config.classes:
        return LadderPlan(notes=(f"class {priority.label} has no ladder",))
    notes = [
        f"track {track.track_id}: ids from {VIDEO_TRACK_ID_MIN} on are for rungs"
        for track in tracks
        if track.track_id >= VIDEO_TRACK_ID_MIN
    ]
    tracks = [track for track in tracks if track.track_id < VIDEO_TRACK_ID_MIN]
    encoder = _choose_encoder(config, budget, notes)
    source = _find_source(tracks, notes)
    rungs: list[VideoRung] = []
    threads = Threads()
    decode_cost = 0.0
    if source is not None:
        wanted = _choose_rungs(tracks, source, config, priority, notes)
        decode_cost = source.pixels_per_s / 1e6 * DECODE_COSTS[source.track.codec]
        rungs, threads = _fit_budget(
            source,
            wanted,
            config,
            budget,
            encoder=encoder,
            decode_cost=decode_cost,
            notes=notes,
        )
    audio = _choose_audio(tracks, config, notes)
    return LadderPlan(
        video_track_id=source.track.track_id if source is not None and rungs else None,
        video=tuple(rungs),
        audio=tuple(audio),
        audio_only_track_id=_choose_audio_only(tracks, audio) if config.audio_only else None,
        encoder=encoder,
        encode_threads=threads.encode,
        decode_threads=threads.decode,
        decode_cost=decode_cost if rungs else 0.0,
        notes=tuple(notes),
    )


def usual_ladder(config: LadderConfig, budget: LadderBudget) -> LadderPlan:
    """The ladder of what most send: 1080p30 in H.264."""
    picture = CodecConfig(
        codec=Codec.H264,
        record=b"",
        codec_string="avc1.640028",
        width=1920,
        height=1080,
        frame_rate_num=30,
    )
    track = Track(track_id=0, codec=Codec.H264, timescale=90_000, config=picture)
    highest = next((each for each in PriorityClass if each.label in config.classes), None)
    return choose_ladder([track], config, highest or PriorityClass.PARTNER, budget)


def explain_ladder(plan: LadderPlan) -> list[str]:
    """The plan in words, a line for each rung, and then why."""
    lines = [
        f"{rung.name}: {rung.width}x{rung.height}, {_rate_text(rung)}, "
        f"{rung.bitrate_bps // 1000} kbps (up to {rung.maxrate_bps // 1000}), High@"
        f"{rung.level / 10:g}, {plan.encoder} {rung.preset}".rstrip()
        + f", cost {rung.cost:.0f}"
        for rung in plan.video
    ]
    lines += [
        f"{rung.name}: AAC-LC of track {rung.source_track_id}, {rung.sample_rate} Hz, "
        f"{rung.channels} ch, {rung.bitrate_bps // 1000} kbps"
        for rung in plan.audio
    ]
    if plan.audio_only_track_id is not None:
        lines.append(f"audio only: track {plan.audio_only_track_id}")
    if plan.video:
        lines.append(f"cost {plan.cost:.0f}, of which decoding {plan.decode_cost:.0f}")
    threads = Threads(decode=plan.decode_threads, encode=plan.encode_threads)
    if threads.delay_pictures:
        lines.append(
            f"threads: {threads.decode} decode, {threads.encode} encode each rung, which comes"
            f" {threads.delay_pictures} pictures later for it"
        )
    return lines + list(plan.notes)


def choose_encoder(name: EncoderName, budget: LadderBudget) -> tuple[str, str]:
    """FFmpeg's encoder for a configured name, and why it is that one."""
    if name != "auto":
        wanted = ENCODERS[name]
        if wanted in budget.encoders:
            return wanted, f"encoder {name}, as configured"
        why = budget.missing.get(wanted, "not found here")
        return X264, f"encoder x264, not {name} as configured: {why}"
    hardware = [each for each in ENCODERS.values() if each != X264]
    found = next((each for each in hardware if each in budget.encoders), None)
    if found is not None:
        return found, f"encoder {found}: found here"
    why = "; ".join(f"{each}: {budget.missing.get(each, 'not found here')}" for each in hardware)
    return X264, f"encoder x264: {why}"


def _choose_encoder(config: LadderConfig, budget: LadderBudget, notes: list[str]) -> str:
    encoder, why = choose_encoder(config.encoder, budget)
    notes.append(why)
    return encoder


def _find_source(tracks: Sequence[Track], notes: list[str]) -> _Source | None:
    """The largest picture that can be decoded."""
    found: list[_Source] = []
    for track in tracks:
        if track.kind is not Kind.VIDEO:
            continue
        config = track.config
        if track.codec not in DECODE_COSTS or min(config.width, config.height) <= 0:
            notes.append(f"track {track.track_id}: {track.codec} of this size is not decoded")
        elif config.width * config.height > PIXELS_MAX:
            notes.append(
                f"track {track.track_id}: {config.width}x{config.height} is more than is decoded"
            )
        else:
            fps = Fraction(config.frame_rate_num, config.frame_rate_den)
            found.append(_Source(track, _shorter_side(track), fps))
    if not found:
        notes.append("no picture to make rungs of")
        return None
    return max(found, key=lambda each: (each.side, each.track.codec is Codec.H264))


def _shorter_side(track: Track) -> Fraction:
    try:
        picture = describe_picture(track.config)
        shape = Fraction(picture.sar_num, picture.sar_den)
    except EdgedError:
        shape = Fraction(1)
    return min(track.config.width * shape, Fraction(track.config.height))


def _choose_rungs(
    tracks: Sequence[Track],
    source: _Source,
    config: LadderConfig,
    priority: PriorityClass,
    notes: list[str],
) -> list[tuple[int, RungConfig, int]]:
    """The rungs that this source shall have: place in the configuration, and bits per second."""
    plays_everywhere = source.track.codec is Codec.H264
    others = [
        _shorter_side(track)
        for track in tracks
        if track.kind is Kind.VIDEO and track.codec is Codec.H264 and track is not source.track
    ]
    chosen: list[tuple[int, RungConfig, int]] = []
    for place, rung in enumerate(config.rungs):
        if priority.label not in rung.classes:
            notes.append(f"{rung.name}: not for class {priority.label}")
        elif rung.height > source.side or (plays_everywhere and rung.height == source.side):
            notes.append(f"{rung.name}: the source has no more than {float(source.side):g}")
        elif any(abs(side - rung.height) * SIMILAR_DEN <= rung.height for side in others):
            notes.append(f"{rung.name}: the publisher sends one")
        else:
            chosen.append((place, rung, _bitrate(rung, source)))
    if not chosen and not plays_everywhere and config.rungs:
        small = config.rungs[-1]
        notes.append(f"source: one rung of its size, as {source.track.codec} plays not everywhere")
        chosen.append((len(config.rungs) - 1, small, _bitrate(small, source)))
    return chosen


def _bitrate(rung: RungConfig, source: _Source) -> int:
    rate = _rate_of(rung, source)[0]
    factor = Fraction(HIGH_RATE_NUM, HIGH_RATE_DEN) if rate > HIGH_RATE_FPS else 1
    return int(rung.kbps * 1000 * factor)


def _rate_of(rung: RungConfig, source: _Source) -> tuple[Fraction, int]:
    """Pictures per second (0: not known), and the spacing in ticks."""
    timescale, most = source.track.timescale, rung.rate_max
    if not source.fps:
        # Of 60 fps every second picture comes too soon, of 30 fps none, jitter included.
        return Fraction(0), timescale * 3 // (4 * most)
    every = -(-source.fps // (most * RATE_SLACK))
    if every <= 1:
        return source.fps, 0
    # Half a picture of slack on either side: times may be rounded to milliseconds.
    return source.fps / every, int((every - Fraction(1, 2)) * timescale / source.fps)


def _fit_budget(
    source: _Source,
    wanted: list[tuple[int, RungConfig, int]],
    config: LadderConfig,
    budget: LadderBudget,
    *,
    encoder: str,
    decode_cost: float,
    notes: list[str],
) -> tuple[list[VideoRung], Threads]:
    """The best preset with which all rungs fit; with the fastest, as many as do, the large first
    to go.
    """
    usual = replace(
        budget,
        cost_max=min(budget.cost_max, max(budget.thread_max, budget.cost_max / PRESET_SHARE)),
    )
    if encoder != X264:
        presets = [""]
    elif config.preset != "auto":
        presets = [config.preset]
    else:
        known = list(PRESET_COSTS)
        presets = known[known.index(AUTO_BEST) :]
    for limit, preset in itertools.product((usual, budget), presets):
        rungs = _make_rungs(source, wanted, preset)
        found = _fit(decode_cost, rungs, limit)
        if isinstance(found, Threads):
            if preset and rungs:
                notes.append(f"preset {preset}: fits {limit.cost_max:.0f}")
            return rungs, found
    preset = presets[-1]
    rungs = _make_rungs(source, wanted, preset)
    while rungs:
        found = _fit(decode_cost, rungs, budget)
        if isinstance(found, Threads):
            return rungs, found
        costliest = max(rungs, key=lambda rung: rung.cost)
        notes.append(f"{costliest.name}: {found}")
        wanted = [each for each in wanted if each[1].name != costliest.name]
        rungs = _make_rungs(source, wanted, preset)
    return [], Threads()


def _fit(decode_cost: float, rungs: Sequence[VideoRung], budget: LadderBudget) -> Threads | str:
    """With how many threads it fits, or why it does not."""
    if decode_cost + sum(rung.cost for rung in rungs) > budget.cost_max:
        return f"does not fit a budget of {budget.cost_max:.0f}"
    encodes = [rung.encode_cost for rung in rungs if rung.encode_cost]
    scale = sum(rung.cost - rung.encode_cost for rung in rungs)
    core, cores = budget.thread_max, budget.cores
    return choose_threads(decode_cost, scale, encodes, core=core, cores=cores)


def _make_rungs(
    source: _Source, wanted: list[tuple[int, RungConfig, int]], preset: str
) -> list[VideoRung]:
    width, height = source.track.config.width, source.track.config.height
    above_per_s = source.pixels_per_s
    rungs: list[VideoRung] = []
    for place, rung, bitrate in wanted:
        scale = min(Fraction(1), rung.height / source.side)
        rate, spacing = _rate_of(rung, source)
        shape = (_even(width * scale), _even(height * scale))
        pixels_per_s = float(
            shape[0] * shape[1] * (rate or min(Fraction(rung.rate_max), FPS_UNKNOWN))
        )
        weight = PRESET_COSTS.get(preset, HARDWARE_COST)
        maxrate = bitrate * PEAK_NUM // PEAK_DEN
        rungs.append(
            VideoRung(
                name=rung.name,
                track_id=VIDEO_TRACK_ID_MIN + place,
                width=shape[0],
                height=shape[1],
                frame_rate_num=rate.numerator,
                frame_rate_den=rate.denominator,
                spacing_ticks=spacing,
                bitrate_bps=bitrate,
                maxrate_bps=maxrate,
                buffer_bits=maxrate * BUFFER_MS // 1000,
                level=choose_level(shape, rate or Fraction(rung.rate_max), maxrate),
                preset=preset,
                cost=(pixels_per_s * weight + above_per_s * SCALE_COST) / 1e6,
                encode_cost=pixels_per_s * weight / 1e6 if preset else 0.0,
            )
        )
        above_per_s = pixels_per_s
    return rungs


def _even(side: Fraction) -> int:
    return max(SIDE_MIN, 2 * round(side / 2))


def _choose_audio(
    tracks: Sequence[Track], config: LadderConfig, notes: list[str]
) -> list[AudioRung]:
    """An AAC rung for each track that not every player can play."""
    rungs: list[AudioRung] = []
    for track in tracks:
        if track.kind is not Kind.AUDIO:
            continue
        channels = min(track.config.channels or STEREO, STEREO)
        bitrate = config.audio_kbps * 1000 * channels // STEREO
        why = ""
        if track.codec is not Codec.AAC:
            why = f"{track.codec} plays not everywhere"
        elif track.config.channels > STEREO:
            why = f"{track.config.channels} channels play not everywhere"
        elif (rate := _output_rate(track)) not in AUDIO_RATES:
            why = f"{rate} Hz play not everywhere"
        if not why:
            continue
        rungs.append(
            AudioRung(
                name=f"aac-{track.track_id}",
                track_id=AUDIO_TRACK_ID_MIN + track.track_id,
                source_track_id=track.track_id,
                sample_rate=_sample_rate(track),
                channels=channels,
                bitrate_bps=bitrate,
            )
        )
        notes.append(f"{rungs[-1].name}: {why}")
    return rungs


def _sample_rate(track: Track) -> int:
    rate = _output_rate(track)
    return rate if rate in AUDIO_RATES else AUDIO_RATES[0]


def _output_rate(track: Track) -> int:
    """Samples per second that come out of a decoder; those of AAC's SBR are twice its own."""
    if track.codec is Codec.AAC:
        try:
            return aac.parse_audio_specific_config(track.config.record).output_sample_rate
        except EdgedError:
            return AUDIO_RATES[0]
    return track.config.sample_rate


def _choose_audio_only(tracks: Sequence[Track], audio: list[AudioRung]) -> int | None:
    """The first track of sound, by our rung of it if there is one; none if there is no picture."""
    first = next((track for track in tracks if track.kind is Kind.AUDIO), None)
    if first is None or all(track.kind is not Kind.VIDEO for track in tracks):
        return None
    ours = (rung.track_id for rung in audio if rung.source_track_id == first.track_id)
    return next(ours, first.track_id)


def _rate_text(rung: VideoRung) -> str:
    if not rung.frame_rate_num:
        return "rate as the source's"
    return f"{rung.frame_rate_num / rung.frame_rate_den:.4g} fps"
