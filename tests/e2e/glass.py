"""Glass to glass: from the moment a frame was made, as its bit strip says, to its presentation in
Chromium.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from msgspec import Struct

from tests.e2e.browser import Page

SCRIPT = Path(__file__).with_name("glass.js")


class GlassSample(Struct, frozen=True):
    """One presented frame."""

    counter: int
    presented_unix_ms: float
    latency_ms: float


class GlassReport(Struct, frozen=True, kw_only=True):
    """A measurement."""

    samples: list[GlassSample]
    unread: int  # Frames presented whose strip could not be read.
    p50_ms: float
    p99_ms: float


async def start_glass(page: Page) -> None:
    """Begin to record each frame that the page's video presents, anew if it does already."""
    if await page.evaluate("'glass' in window"):
        await page.evaluate("window.glass.samples.length = window.glass.unread = 0")
    else:
        await page.evaluate(SCRIPT.read_text())


async def read_glass(page: Page, *, started_unix_us: int, fps: Fraction) -> GlassReport:
    """Return what has been recorded since the last call.

    The publisher and the browser must share a clock: latency = presented - (started + counter /
    fps).
    """
    seen = await page.evaluate(
        "({samples: window.glass.samples.splice(0), unread: window.glass.unread})"
    )
    assert isinstance(seen, dict), "the script gives an object"
    start_ms = started_unix_us / 1000
    samples = [
        GlassSample(counter, presented, presented - start_ms - float(counter * 1000 / fps))
        for counter, presented in seen["samples"]
    ]
    return _report(samples, seen["unread"])


def join_reports(reports: Sequence[GlassReport]) -> GlassReport:
    """Several measurements as one."""
    samples = [sample for report in reports for sample in report.samples]
    return _report(samples, sum(report.unread for report in reports))


def _report(samples: list[GlassSample], unread: int) -> GlassReport:
    latencies = sorted(sample.latency_ms for sample in samples)
    return GlassReport(
        samples=samples,
        unread=unread,
        p50_ms=percentile(latencies, 0.5),
        p99_ms=percentile(latencies, 0.99),
    )


def percentile(ordered: list[float], share: float) -> float:
    """Return the nearest-rank percentile of an ordered list, which must not be empty."""
    assert ordered, "no frame was read: is the strip in the picture?"
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
