"""How long one picture stood, in a page with a <video>: a jump or a new start is no stall there."""

from msgspec import Struct

from tests.e2e.browser import Page

STILL_MS_MAX = 300.0  # Between two pictures; one lasts 33 ms. CI grants twice that.
SLACK = 2.0
_NOTE = """(() => {
  const video = document.querySelector("video");
  window.stalls = 0;
  let last = performance.now(), mediaTime = video.currentTime;
  let longest = [0, 0, mediaTime];
  window.longestStill = () => {
    const now = performance.now() - last;
    return now > longest[0] ? [now, 0, video.currentTime] : longest;
  };
  video.addEventListener("waiting", () => (window.stalls += video.seeking ? 0 : 1));
  const note = (now, shown) => {
    if (now - last > longest[0]) longest = [now - last, 1000 * (shown.mediaTime - mediaTime), mediaTime];
    [last, mediaTime] = [now, shown.mediaTime];
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
})()"""  # noqa: E501 - a line of the page's


class Still(Struct, frozen=True):
    """The longest that one picture stood."""

    ms: float
    skipped_ms: float  # How much later in the stream the next one was: as much, if it played on.
    at_s: float  # Where in it.


async def note_pictures(page: Page) -> None:
    """Begin to note them, once in a page."""
    await page.evaluate(_NOTE)


async def longest_still(page: Page) -> Still:
    """Since then; the last one may stand still."""
    found = await page.evaluate("window.longestStill()")
    assert isinstance(found, list)
    return Still(*found)
