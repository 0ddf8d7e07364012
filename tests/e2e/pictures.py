"""How long one picture stood, in a page with a <video>: a jump or a new start is no stall there."""

from tests.e2e.browser import Page

STILL_MS_MAX = 300.0  # Between two pictures; one lasts 33 ms. CI grants twice that.
SLACK = 2.0
_NOTE = """(() => {
  const video = document.querySelector("video");
  window.stalls = 0;
  let still = 0, last = performance.now();
  window.stillMs = () => Math.max(still, performance.now() - last);
  video.addEventListener("waiting", () => (window.stalls += video.seeking ? 0 : 1));
  const note = (now) => {
    still = Math.max(still, now - last);
    last = now;
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
})()"""


async def note_pictures(page: Page) -> None:
    """Begin to note them, once in a page."""
    await page.evaluate(_NOTE)


async def longest_still_ms(page: Page) -> float:
    """The longest that one picture stood since then, as the last one still may."""
    found = await page.evaluate("window.stillMs()")
    assert isinstance(found, int | float)
    return float(found)
