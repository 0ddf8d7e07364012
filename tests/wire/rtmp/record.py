"""Records Debian's ffmpeg publishing, for tests/captures: `python -m tests.wire.rtmp.record`.

It encodes two seconds once, has ffmpeg publish them by RTMP to our core on a loopback socket, and
keeps the bytes that ffmpeg sent and, as the oracle, what ffmpeg says is in the file (framemd5).
"""

import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from edged.wire.rtmp import PublishRequested, RtmpServerSession

CAPTURES = Path(__file__).parents[2] / "captures"
CAPTURE = CAPTURES / "ffmpeg-h264-aac.rtmp"
ORACLE = CAPTURES / "ffmpeg-h264-aac.framemd5"
TIMEOUT_S = 20.0
_SOURCE = (
    "-f lavfi -i testsrc=size=128x72:rate=30 -f lavfi -i sine=440:sample_rate=48000 -t 2 "
    "-c:v libx264 -preset medium -g 30 -bf 2 -crf 34 -pix_fmt yuv420p -c:a aac -b:a 32k"
)


def main() -> None:
    """Make both files anew."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.mp4"
        _ffmpeg(*_SOURCE.split(), str(source))
        _ffmpeg("-i", str(source), "-c", "copy", "-f", "framemd5", str(ORACLE))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            url = f"rtmp://127.0.0.1:{port}/live/secret?session=1"
            with subprocess.Popen(  # noqa: S603 (our own command line)
                _command("-i", str(source), "-c", "copy", "-f", "flv", url)
            ) as publisher:
                CAPTURE.write_bytes(record_one(listener))
                publisher.wait(TIMEOUT_S)
    print(f"{CAPTURE}: {CAPTURE.stat().st_size} bytes")


def record_one(listener: socket.socket) -> bytes:
    """Serve one publisher until it closes; all that it sent."""
    listener.settimeout(TIMEOUT_S)
    peer, _ = listener.accept()
    recorded = bytearray()
    with peer:
        peer.settimeout(TIMEOUT_S)
        session = RtmpServerSession(now=time.monotonic(), entropy=os.urandom)
        while data := peer.recv(65536):
            recorded += data
            for event in session.receive_data(data, time.monotonic()):
                if isinstance(event, PublishRequested):
                    session.accept_publish(time.monotonic())
            if answer := session.data_to_send():
                peer.sendall(answer)
    return bytes(recorded)


def _command(*arguments: str) -> list[str]:
    return ["ffmpeg", "-hide_banner", "-loglevel", "warning", "-y", "-bitexact", *arguments]


def _ffmpeg(*arguments: str) -> None:
    subprocess.run(_command(*arguments), check=True, timeout=TIMEOUT_S)  # noqa: S603 (our own)


if __name__ == "__main__":
    main()
