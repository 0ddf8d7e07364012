"""The child process of the speed test: `python -m edged.origin.speed_child SECONDS CORES`.

It makes the default ladder of generated 1080p pictures with the engine that streams have, on so
many cores at once, and writes what it found to its parent. CPU time is what counts, of each core's
own thread: so a machine that is busy is as fast as one that is idle.
"""

import itertools
import sys
import threading
import time
from fractions import Fraction
from typing import cast

import av
import av.logging
import msgspec
from av.video.frame import PictureType
from msgspec import Struct, structs

from edged.errors import EdgedError
from edged.media import h264
from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.media.stream import PriorityClass
from edged.media.track import Codec, Track
from edged.origin.encoders import X264
from edged.origin.ladder_engine import LadderEngine
from edged.policy.ladder import LadderBudget, LadderConfig, choose_ladder
from edged.policy.ladder_capacity import CORE_SLOTS_MAX, Speed
from edged.runtime.child import settle_child

NICE = 10  # As a ladder's own: ingest and packaging go first.
MEMORY_BYTES_MAX = 4 * 2**30  # Of addresses; four 1080p ladders take a third of it.
WIDTH, HEIGHT, RATE = 1920, 1080, 30
PICTURES = 15  # Generated; they are taken again and again.
PICTURES_MIN = 5  # Of each core: fewer tell nothing.
PATIENCE_S = 2.0  # So much longer, on a busy machine, for those.
TIMESCALE = 90_000
STEP = TIMESCALE // RATE
NOISE = 4  # Of 255: some work for every block, as a camera's picture has; a source of 10 Mbps.
ROUNDS_MAX = 200  # However fast it is.


class _Core(Struct):
    """What one thread has done."""

    pictures: int = 0
    cpu_s: float = 0.0


def make_source() -> tuple[Track, list[AccessUnit]]:
    """Half a second of generated pictures as a publisher sends them: one GOP."""
    graph = av.filter.Graph()
    chain = [
        graph.add("testsrc2", f"size={WIDTH}x{HEIGHT}:rate={RATE}"),
        graph.add("noise", f"alls={NOISE}:allf=t"),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ]
    for one, other in itertools.pairwise(chain):
        one.link_to(other)
    graph.configure()
    encoder = cast("av.VideoCodecContext", av.CodecContext.create(X264, "w"))
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, RATE), Fraction(RATE)
    encoder.gop_size, encoder.max_b_frames, encoder.thread_count = PICTURES, 0, 1
    encoder.options = {"preset": "ultrafast", "x264-params": "annexb=0:repeat-headers=0"}
    encoder.flags |= av.codec.context.Flags.global_header
    packets = []
    for number in range(PICTURES):
        frame = cast("av.VideoFrame", graph.pull())
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        frame.pict_type = PictureType.NONE  # A filter may say that each is a key picture.
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    config = structs.replace(
        h264.parse_config(encoder.extradata or b""), frame_rate_num=RATE, frame_rate_den=1
    )
    units = [
        AccessUnit(
            track_id=0,
            seq=number,
            config_id=0,
            pts=number * STEP,
            dts=number * STEP,
            random_access=packet.is_keyframe,
            wallclock_us=number * STEP * 1_000_000 // TIMESCALE,
            payload=bytes(packet),
        )
        for number, packet in enumerate(packets)
    ]
    return Track(track_id=0, codec=Codec.H264, timescale=TIMESCALE, config=config), units


def make_plan(track: Track) -> LadderPlan:
    """The default ladder, as good as it may be."""
    config = LadderConfig(encoder="x264", preset="veryfast")
    return choose_ladder([track], config, PriorityClass.PARTNER, LadderBudget(cost_max=1e6))


def run_core(
    core: _Core, plan: LadderPlan, source: tuple[Track, list[AccessUnit]], until: float
) -> None:
    """Make the ladder again and again until then; the first picture only opens the encoders."""
    track, units = source
    engine = LadderEngine(plan)
    engine.set_track(track)
    began: float | None = None
    for turn in range(ROUNDS_MAX):
        shift = turn * PICTURES * STEP
        for unit in units:
            moved = unit.replaced(pts=unit.pts + shift, dts=unit.dts + shift)
            engine.take(moved)
            if began is None:
                began = time.thread_time()
                continue
            core.pictures += 1
            core.cpu_s = time.thread_time() - began
            now = time.monotonic()
            if now >= until and (core.pictures >= PICTURES_MIN or now >= until + PATIENCE_S):
                return


def measure(seconds: float, cores: int) -> Speed:
    """How fast these cores are, all at work. Raises EdgedError if that cannot be told."""
    source = make_source()
    plan = make_plan(source[0])
    found = [_Core() for _ in range(cores)]
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=run_core, args=(core, plan, source, until)) for core in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    least = min(core.pictures for core in found)
    if least < PICTURES_MIN:
        raise EdgedError(f"{least} pictures in {seconds:g} s: {PICTURES_MIN} are needed to tell")
    pictures, cpu_s = sum(core.pictures for core in found), sum(core.cpu_s for core in found)
    core_slots = plan.cost * pictures / RATE / cpu_s
    if not 0 < core_slots <= CORE_SLOTS_MAX:
        raise EdgedError(f"a core of {core_slots:.0f} slots: up to {CORE_SLOTS_MAX:.0f} are likely")
    return Speed(core_slots=core_slots, tested=cores, pictures=pictures, cpu_s=cpu_s)


def main() -> int:
    """Be a child."""
    av.logging.set_level(None)
    try:
        connection = settle_child(nice=NICE, memory_bytes_max=MEMORY_BYTES_MAX)
        with connection:
            speed = measure(float(sys.argv[1]), int(sys.argv[2]))
            connection.sendall(msgspec.json.encode(speed))
    except (EdgedError, MemoryError, av.FFmpegError) as error:
        print(f"{type(error).__name__}: {error}"[:1000], file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
