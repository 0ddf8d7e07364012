"""The viewers: a bare page with hls.js as it comes, from a server of the bench's own, and our watch
page.
"""

import contextlib
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

import trio
from msgspec import Struct

from edged.errors import ToolMissingError
from edged.playback.web.pages import read_hls
from tests.e2e.browser import BrowserError, Page
from tests.e2e.glass import GlassReport, read_glass, start_glass

STOCK_PAGE = Path(__file__).with_name("stock.html")
REQUEST_BYTES_MAX = 16 * 1024
REQUEST_S_MAX = 10.0
FIRST_PICTURE_S_MAX = 15.0
SETTLE_S = 1.0  # After the first picture; the watch page has done its one seek by then.
HLS = {"stock": "window.hls", "watch": "window.edged.player.hls"}

# Counts what a person would notice while the measurement runs.
BEGIN = """(() => {
  const video = document.querySelector("video");
  const seen = (window.seen = { stalls: 0, seeks: 0 });
  video.addEventListener("waiting", () => (seen.stalls += 1));
  video.addEventListener("seeking", () => (seen.seeks += 1));
  window.glass.samples.length = 0;
  window.glass.unread = 0;
})()"""


class Viewing(Struct, frozen=True, kw_only=True):
    """What one viewer saw."""

    glass: GlassReport
    first_picture_s: float  # From the navigation.
    frames_share: float  # Different frames presented, of those due.
    stalls: int
    seeks: int
    part_target_s: float
    hold_back_s: float
    console: list[str]


class StockServer:
    """Two files on a port of their own: another origin than the edge's."""

    def __init__(self) -> None:
        hls = read_hls()
        if hls is None:
            raise ToolMissingError("hls.js is not in the package: with npm, install it again")
        self.base = ""
        self._files = {
            "/": ("text/html; charset=utf-8", STOCK_PAGE.read_bytes()),
            "/hls.min.js": ("text/javascript; charset=utf-8", hls),
        }

    async def handle(self, stream: trio.SocketStream) -> None:
        """Answer one request."""
        head = b""
        with trio.move_on_after(REQUEST_S_MAX), contextlib.suppress(trio.BrokenResourceError):
            while b"\r\n\r\n" not in head and len(head) < REQUEST_BYTES_MAX:
                data = await stream.receive_some()
                if not data:
                    return
                head += data
            path = head.split(b" ", 2)[1].decode("latin-1").partition("?")[0]
            status, (kind, body) = "200 OK", self._files.get(path, ("text/plain", b""))
            if path not in self._files:
                status = "404 Not Found"
            await stream.send_all(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )


@contextlib.asynccontextmanager
async def open_stock_server() -> AsyncIterator[StockServer]:
    """Serve the bare page until the context ends."""
    server = StockServer()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.handle, listeners)
        server.base = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield server
        nursery.cancel_scope.cancel()


def page_url(viewer: str, server: StockServer, edge: str, channel: str) -> str:
    """Where a viewer of this kind goes."""
    if viewer == "watch":
        return f"{edge}/watch/{channel}"
    return f"{server.base}/?src={quote(f'{edge}/live/{channel}/master.m3u8', safe='')}"


async def view(
    page: Page, viewer: str, url: str, *, seconds: float, fps: Fraction, started_unix_us: int
) -> Viewing:
    """Open the page, and read each frame presented in `seconds` from SETTLE_S after the first.

    Raises BrowserError when no picture comes.
    """
    begun_at = trio.current_time()
    await page.navigate(url)
    await start_glass(page)
    await page.wait_for("window.glass.samples.length > 0", FIRST_PICTURE_S_MAX)
    first_picture_s = trio.current_time() - begun_at
    await trio.sleep(SETTLE_S)
    await page.evaluate(BEGIN)
    await trio.sleep(seconds)
    if not await page.evaluate("window.glass.samples.length"):
        raise BrowserError(f"the picture stood still for {seconds:g} s\n{page.console[-20:]}")
    glass = await read_glass(page, started_unix_us=started_unix_us, fps=fps)
    details = f"{HLS[viewer]}.latestLevelDetails"
    seen = await page.evaluate(
        f"[window.seen.stalls, window.seen.seeks, {details}.partTarget, {details}.partHoldBack]"
    )
    assert isinstance(seen, list), "the script gives a list"
    return Viewing(
        glass=glass,
        first_picture_s=first_picture_s,
        frames_share=len({sample.counter for sample in glass.samples}) / float(seconds * fps),
        stalls=seen[0],
        seeks=seen[1],
        part_target_s=seen[2],
        hold_back_s=seen[3],
        console=[line for line in page.console if not line.startswith(("log:", "debug:"))],
    )
