"""How much of a core parsing takes: `python -m tests.wire.rtmp.bench [--profile]`.

A stream of 6.25 Mbps at 30 frames a second with AAC at 160 kbps, in 4096-byte chunks as OBS sends
it, is made once by the client core and fed to the server core in pieces of several sizes.
"""

import argparse
import cProfile
import pstats
import time

from edged.wire.rtmp import RtmpClientOptions, RtmpServerSession
from tests.wire.rtmp.peers import AAC, H264, accepted_pair, h264_unit, unit

SECONDS = 20
FRAME_RATE = 30
VIDEO_BYTES_PER_S = 6_250_000 // 8
AUDIO_BYTES = 427  # 160 kbps of AAC at 48 kHz.
PIECES = (1448, 4096, 8192, 65536)
ROUNDS = 5


def main() -> None:
    """Print a table; with --profile also where the time goes at 4096-byte pieces."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", action="store_true")
    profiled = parser.parse_args().profile
    for chunk_size in (4096, 65536, 128):
        wire = make_wire(chunk_size)
        for piece in PIECES:
            seconds, units, pieces = min(run(wire, chunk_size, piece) for _ in range(ROUNDS))
            print(
                f"chunks {chunk_size:5} pieces {piece:5}: {seconds / SECONDS:.4%} of a core, "
                f"{seconds / pieces * 1e6:.2f} us a piece, {seconds / units * 1e6:.2f} us a unit"
            )
    if profiled:
        profile = cProfile.Profile()
        wire = make_wire(4096)
        profile.enable()
        run(wire, 4096, 4096)
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(16)


def make_wire(chunk_size: int) -> bytes:
    """The media of a broadcast as bytes on the wire."""
    client, _ = accepted_pair(RtmpClientOptions(chunk_size=chunk_size))
    client.send_track(H264)
    client.send_track(AAC)
    frame_bytes = VIDEO_BYTES_PER_S // FRAME_RATE
    audio = 0
    for frame in range(SECONDS * FRAME_RATE):
        key = frame % 60 == 0
        video = h264_unit(frame * 3000, key=key, size=frame_bytes * (4 if key else 1))
        client.send_unit(video, H264)
        while audio * 1024 * FRAME_RATE < frame * 48000:
            client.send_unit(unit(AAC, audio * 1024, bytes(AUDIO_BYTES)), AAC)
            audio += 1
    return client.data_to_send()


def run(wire: bytes, chunk_size: int, piece: int) -> tuple[float, int, int]:
    """Seconds of processor time, units and pieces."""
    _, server = accepted_pair(RtmpClientOptions(chunk_size=chunk_size))
    buffer = memoryview(bytearray(wire))
    now, units, pieces = 0.0, 0, 0
    started = time.process_time()
    for start in range(0, len(wire), piece):
        now += 0.01
        units += count(server, buffer[start : start + piece], now)
        pieces += 1
    return time.process_time() - started, units, pieces


def count(server: RtmpServerSession, data: memoryview, now: float) -> int:
    """Feed one piece, as the pump does; how many events came of it, nearly all units."""
    events = server.receive_data(data, now)
    _ = server.data_to_send(), server.deadline, server.bytes_wanted
    return len(events)


if __name__ == "__main__":
    main()
