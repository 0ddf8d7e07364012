"""A live stream whose parts are byte ranges of their segments' files, as others make them."""

import re

import trio

from edged.media.track import Codec, Kind
from edged.wire.cmaf.fragment import make_fragment
from edged.wire.cmaf.init import make_init
from tests.media.samples import encode_audio
from tests.wire.cmaf.oracle import track
from tests.wire.cmaf.test_fragment import unit

PART_S, PARTS, TICKS = 0.2, 5, 9600
SKIP_UNTIL_S = 6
INIT = b"junk" + make_init(track(Codec.AAC, encode_audio("aac").extradata))
HEAD = """#EXTM3U
#EXT-X-VERSION:6
#EXT-X-TARGETDURATION:1
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6
#EXT-X-PART-INF:PART-TARGET=0.2
#EXT-X-MEDIA-SEQUENCE:0
"""


def chunk(number: int) -> bytes:
    """One part, longer from one to the next."""
    at = number * TICKS
    return make_fragment(Kind.AUDIO, number, at, [unit(bytes(number + 1), pts=at, dts=at)], [TICKS])


class RangedStream:
    """Its server; `lengths`: hints say how long the part will be.

    `skips`: it offers delta updates, and skips so many segments more than it may.
    """

    def __init__(self, *, lengths: bool, drips: bool = False, skips: int | None = None) -> None:
        self._lengths, self._drips, self._skips = lengths, drips, skips
        self._begun = trio.current_time() - (2 if skips is None else 9) * PARTS * PART_S
        self.asked: list[tuple[str, str]] = []  # Targets and ranges.

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        inbox = b""
        while True:
            while b"\r\n\r\n" not in inbox:
                data = await stream.receive_some()
                if not data:
                    return
                inbox += data
            head, _, inbox = inbox.partition(b"\r\n\r\n")
            target = head.split(b" ")[1].decode()
            found = re.search(rb"range: (bytes=\d+-\d+)", head)
            await self._answer(stream, target, found[1].decode() if found else "")

    async def _answer(self, stream: trio.abc.Stream, target: str, asked: str) -> None:
        self.asked.append((target, asked))
        path, _, query = target.partition("?")
        named = re.fullmatch(r"/s(\d+)\.mp4", path)
        start, end = map(int, re.findall(r"\d+", asked)) if asked else (0, 2**53 - 1)
        if path == "/live.m3u8" and query != "_HLS_part=0":
            wanted = [int(number) for number in re.findall(r"=(\d+)", query)]
            number = wanted[0] * PARTS + [*wanted, PARTS - 1][1] if "_HLS_msn" in query else -1
            if self._count() + 3 * PARTS < number:
                await self._send(stream, 400, b"", "")
                return
            await self._wait(number)
            text = self._playlist()
            if self._skips is not None:
                text = text.replace("YES,", f"YES,CAN-SKIP-UNTIL={SKIP_UNTIL_S},", 1)
                text = self._update(text) if "_HLS_skip" in query else text
            await self._send(stream, 200, text.encode(), "")
        elif path == "/init.mp4":
            await self._send(stream, 206, INIT[start : end + 1], f"bytes {start}-{end}/*")
        elif named is not None:
            await self._send_range(stream, int(named[1]), start, end)
        else:
            await self._send(stream, 404, b"", "")

    async def _send_range(self, stream: trio.abc.Stream, msn: int, start: int, end: int) -> None:
        """As it comes; of what is asked for without an end, piece by piece until the segment's."""
        chunks = [chunk(msn * PARTS + n) for n in range(PARTS)]
        size = sum(map(len, chunks))
        last = min(end, size - 1)
        await stream.send_all(
            b"HTTP/1.1 206 Partial\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/*\r\n\r\n"
            % (last - start + 1, start, last)
        )
        at = 0
        for number, data in enumerate(chunks):
            wanted = data[max(start - at, 0) : max(last + 1 - at, 0)]
            at += len(data)
            if wanted and self._drips:
                await stream.send_all(wanted[:10])
                wanted = wanted[10:]
            if wanted:
                await self._wait(msn * PARTS + number)
                await stream.send_all(wanted)

    @staticmethod
    async def _send(stream: trio.abc.Stream, status: int, body: bytes, ranged: str) -> None:
        head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Range: {ranged}\r\n" if ranged else ""
        await stream.send_all(head.encode() + b"\r\n" + body)

    async def _wait(self, number: int) -> None:
        await trio.sleep_until(self._begun + (number + 1) * PART_S)

    def _update(self, text: str) -> str:
        """What is left of a playlist when old segments are skipped."""
        assert self._skips is not None, "only then"
        whole, parts = divmod(self._count(), PARTS)
        old = [msn for msn in range(whole) if (whole - 1 - msn) + parts * PART_S > SKIP_UNTIL_S]
        count = len(old) + self._skips
        last = f"s{count - 1}.mp4\n"
        head, at = text.index("#EXT-X-MAP"), text.rindex(last) + len(last)
        skip = f"#EXT-X-SKIP:SKIPPED-SEGMENTS={count}\n"
        return text[:head].replace("VERSION:6", "VERSION:9") + skip + text[at:]

    def _count(self) -> int:
        return int((trio.current_time() - self._begun) / PART_S + 1e-6)

    def _playlist(self) -> str:
        count = self._count()
        text = HEAD + f'#EXT-X-MAP:URI="init.mp4",BYTERANGE="{len(INIT) - 4}@4"\n'
        at = 0
        for number in range(count + 1):
            msn, index = divmod(number, PARTS)
            at = 0 if index == 0 else at
            size = len(chunk(number))
            if number == count:
                length = f",BYTERANGE-LENGTH={size}" if self._lengths else ""
                return text + (
                    f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="s{msn}.mp4",BYTERANGE-START={at}{length}\n'
                )
            text += f'#EXT-X-PART:DURATION={PART_S},URI="s{msn}.mp4",INDEPENDENT=YES'
            text += f',BYTERANGE="{size}@{at}"\n'
            at += size
            if index == PARTS - 1:
                text += f"#EXTINF:{PARTS * PART_S},\ns{msn}.mp4\n"
        raise AssertionError("the last is hinted")
