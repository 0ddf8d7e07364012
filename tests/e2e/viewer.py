"""A viewer as LL-HLS players are: blocking reloads, every part once, as soon as it is there."""

import itertools
import re
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import trio
from msgspec import Struct, field

from tests.e2e.clip import Packet, Packets, read_packets
from tests.wire.hls_reader import ReadPlaylist, ReadSegment, attributes_of, read_media_playlist

ANSWER_S_MAX = 15.0  # Blocking requests wait for media; ours take no longer.
RECEIVE_BYTES = 64 * 1024


class Answer(Struct, frozen=True):
    status: int
    fields: dict[str, str]  # Names in lower case.
    body: bytes


class ServerClosedError(AssertionError):
    """A server must not do that while it runs."""


class HttpClient:
    """HTTP/1.1 with one connection kept alive."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        assert parts.hostname is not None
        assert parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        self._stream: trio.SocketStream | None = None
        self._inbox = bytearray()
        self.was_let_in = False  # Something has come on this connection.

    async def get(self, url: str) -> Answer:
        """Fetch a path or a URL of this server."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        with trio.fail_after(ANSWER_S_MAX):
            if self._stream is None:
                self._stream = await trio.open_tcp_stream(self._host, self._port)
                self._inbox.clear()
                self.was_let_in = False
            request = f"GET {target} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n\r\n"
            await self._stream.send_all(request.encode())
            return await self._receive(self._stream)

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)

    async def _receive(self, stream: trio.SocketStream) -> Answer:
        while (end := self._inbox.find(b"\r\n\r\n")) < 0:
            await self._more(stream)
        first, *lines = self._inbox[:end].decode().split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (s.partition(":") for s in lines)
        }
        del self._inbox[: end + 4]
        size = int(fields["content-length"])
        while len(self._inbox) < size:
            await self._more(stream)
        body = bytes(self._inbox[:size])
        del self._inbox[:size]
        if fields.get("connection") == "close":
            await stream.aclose()
            self._stream = None
        return Answer(int(first.split(" ")[1]), fields, body)

    async def _more(self, stream: trio.SocketStream) -> None:
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise ServerClosedError("the server closed in the middle of an answer")
        self._inbox += data
        self.was_let_in = True

    async def forget(self) -> None:
        """Begin the next request on a new connection."""
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)
            self._stream = None


class Arrival(Struct, frozen=True):
    """A part, or a whole segment whose parts the playlist no longer lists."""

    uri: str
    at: float  # Of this machine's monotonic clock.
    duration_us: int
    body: bytes


class Track(Struct):
    """What a viewer got of one rendition."""

    url: str
    inits: list[str] = field(default_factory=list)
    init: bytes = b""  # The first.
    arrivals: list[Arrival] = field(default_factory=list)
    stretches: list[tuple[bytes, int]] = field(default_factory=list)  # Each init, and what came.
    discontinuities: int = 0
    gaps: int = 0
    ended: bool = False

    def check_flow(self, stall_s_max: float = 1.5) -> None:
        """No hole in the media, and none in its arrival."""
        assert self.discontinuities == 0
        assert self.gaps == 0
        assert len(self.inits) == 1
        times = [arrival.at for arrival in self.arrivals]
        waits = [b - a for a, b in itertools.pairwise(times)]
        assert max(waits) < stall_s_max, f"stalled for {max(waits):.2f} s"


class Viewer:
    """Watches one run of a channel, all its renditions."""

    def __init__(self, base: str, channel: str) -> None:
        self.base = base
        self.master_url = f"{base}/live/{channel}/master.m3u8"
        self.master = b""
        self.urls: set[str] = set()  # Everything asked for.
        self.tracks: dict[str, Track] = {}  # By rendition name.

    async def join(self, within_s: float = 10.0) -> None:
        """Wait for the channel and read its multivariant playlist."""
        with trio.fail_after(within_s):
            async with HttpClient(self.base) as client:
                while (answer := await self._ask(client)) is None or answer.status != 200:
                    assert answer is None or answer.status in (404, 503), answer
                    await trio.sleep(0.1)
        self.urls.add(self.master_url)
        self.master = answer.body
        for line in answer.body.decode().splitlines():
            media = re.fullmatch(r"#EXT-X-MEDIA:(.*)", line)
            uri = attributes_of(media[1]).get("URI") if media else line
            if uri and not uri.startswith("#"):
                name = uri.rpartition("/")[2].removesuffix(".m3u8")
                self.tracks[name] = Track(urljoin(self.master_url, uri))

    async def _ask(self, client: HttpClient) -> Answer | None:
        """None where it was turned away unheard: the loop that should have let it in lags."""
        try:
            return await client.get(self.master_url)
        except ServerClosedError:
            if client.was_let_in:
                raise
            await client.forget()
            return None

    async def watch(self, *, seconds: float = float("inf"), join: bool = True) -> "Viewer":
        """Watch until the run ends, or so long."""
        if join:
            await self.join()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for track in self.tracks.values():
                    nursery.start_soon(self._follow, track)
        return self

    def packets(self) -> Packets:
        """What FFmpeg finds in what came, by kind."""
        found: Packets = {}
        for track in self.tracks.values():
            found |= read_packets(track.init + b"".join(piece.body for piece in track.arrivals))
        return found

    def packets_by_init(self, name: str) -> list[list[Packet]]:
        """The same of one rendition, apart for each init that its playlist named in turn."""
        track, found = self.tracks[name], list[list[Packet]]()
        ends = [begin for _, begin in track.stretches[1:]] + [len(track.arrivals)]
        for (init, begin), end in zip(track.stretches, ends, strict=True):
            read = read_packets(init + b"".join(p.body for p in track.arrivals[begin:end]))
            found += read.values()
        return found

    async def _follow(self, track: Track) -> None:
        done: set[str] = set()
        query = ""
        async with HttpClient(self.base) as client:
            while not track.ended:
                playlist = read_media_playlist(await self._get(client, track.url + query))
                for segment in playlist.segments:
                    await self._take(client, track, segment, done)
                track.ended = bool(playlist.all("EXT-X-ENDLIST"))
                query = "?_HLS_msn={}&_HLS_part={}".format(*_next_part(playlist))

    async def _take(
        self, client: HttpClient, track: Track, segment: ReadSegment, done: set[str]
    ) -> None:
        key = f"{segment.msn}"
        if key in done:
            return
        if segment.map_uri is not None and segment.map_uri not in track.inits:
            track.inits.append(segment.map_uri)
            init = await self._get(client, urljoin(track.url, segment.map_uri))
            track.init = track.init or init
            track.stretches.append((init, len(track.arrivals)))
        if segment.discontinuity and key + "d" not in done:
            done.add(key + "d")
            track.discontinuities += 1
        pieces = [(part.uri, part.duration_us, part.gap) for part in segment.parts]
        if not pieces and segment.uri:
            assert not any(name.startswith(f"{key}.") for name in done), "parts went unseen"
            pieces = [(segment.uri, segment.duration_us, segment.gap)]
        for number, (uri, duration_us, gap) in enumerate(pieces):
            name = f"{key}.{number}"
            if name in done:
                continue
            done.add(name)
            track.gaps += gap
            if not gap:
                body = await self._get(client, urljoin(track.url, uri))
                now = trio.current_time()
                track.arrivals.append(Arrival(uri, now, duration_us, body))
        if segment.uri:
            done.add(key)

    async def _get(self, client: HttpClient, url: str) -> bytes:
        self.urls.add(url)
        answer = await client.get(url)
        if answer.status != 200:
            _fail(url, answer)
        return answer.body


def _fail(url: str, answer: Answer) -> NoReturn:
    raise AssertionError(f"{url}: {answer.status} {answer.body[:300]!r}")


def _next_part(playlist: ReadPlaylist) -> tuple[int, int]:
    last = playlist.segments[-1]
    return (last.msn + 1, 0) if last.uri else (last.msn, len(last.parts))


async def fetch(base: str, path: str) -> Answer:
    """One request on a connection of its own."""
    async with HttpClient(base) as client:
        return await client.get(base + path)
