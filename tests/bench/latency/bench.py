"""One network, and runs of every row in it."""

from collections.abc import Callable, Sequence
from time import time as unix_now

import trio
from msgspec import Struct

from edged.errors import EdgedError
from edged.tools.test_publisher import PublisherReport, publish
from edged.wire.rtmp import parse_url
from tests.bench.latency.report import Outcome, Row, Run
from tests.bench.latency.stream import FPS, GOP_S, EncodedStream, PacedSource, encode
from tests.bench.latency.viewer import StockServer, open_stock_server, page_url, view
from tests.e2e.browser import open_browser
from tests.e2e.glass import percentile
from tests.e2e.network import Demo, open_demo

CHANNEL = "mine"
WARM_UP_S = 7.0  # Three segments: a viewer joins what is under way.
LEAD_S = 28.0  # Of the stream, beyond the measured seconds: warm-up, phase, the page's start.
RUN_S_MAX = 60.0  # Beyond the measured seconds: a run that hangs is a failure, not a wait.
BAD_REPORTS = ("refused", "lost", "skipped")


class Bench(Struct, frozen=True):
    """What all runs share."""

    demo: Demo
    server: StockServer
    streams: dict[str, EncodedStream]  # By encoding.
    seconds: float

    async def run(self, row: Row, phase_s: float) -> Run:
        """Publish anew, and watch in a new browser. Raises EdgedError or TooSlowError."""
        source = PacedSource(self.streams[row.encoding])
        reports: list[PublisherReport] = []
        place = parse_url(self.demo.publish_url("west", CHANNEL))
        with trio.fail_after(self.seconds + RUN_S_MAX):
            async with open_browser() as browser, trio.open_nursery() as nursery:
                page = await browser.open_page()

                async def broadcast(*, task_status: trio.TaskStatus[None]) -> None:
                    await publish(
                        [place], source,
                        report=reports.append, unix_now=unix_now, task_status=task_status,
                    )  # fmt: skip

                await nursery.start(broadcast)
                await trio.sleep(WARM_UP_S + phase_s)
                viewing = await view(
                    page, row.viewer,
                    page_url(row.viewer, self.server, self.demo.playback("east"), CHANNEL),
                    seconds=self.seconds, fps=FPS, started_unix_us=source.started_unix_us,
                )  # fmt: skip
                nursery.cancel_scope.cancel()
        late = sorted(source.late_s)
        return Run(
            p50_ms=viewing.glass.p50_ms,
            p99_ms=viewing.glass.p99_ms,
            frames=len(viewing.glass.samples),
            frames_share=viewing.frames_share,
            unread=viewing.glass.unread,
            stalls=viewing.stalls,
            seeks=viewing.seeks,
            first_picture_s=viewing.first_picture_s,
            part_target_s=viewing.part_target_s,
            hold_back_s=viewing.hold_back_s,
            late_p99_ms=1000 * percentile(late, 0.99),
            publisher=[f"{r.event} {r.reason}" for r in reports if r.event in BAD_REPORTS],
            console=viewing.console,
        )


async def run_rounds(
    rows: Sequence[Row], runs: int, seconds: float, tell: Callable[[str], None]
) -> list[Outcome]:
    """Run every row once in each of `runs` rounds; end all that was started."""
    streams: dict[str, EncodedStream] = {}
    for encoding in sorted({row.encoding for row in rows}):
        tell(f"encoding {seconds + LEAD_S:g} s of {encoding}")
        streams[encoding] = await trio.to_thread.run_sync(encode, encoding, seconds + LEAD_S)
    outcomes: list[Outcome] = []
    async with open_demo() as demo, open_stock_server() as server:
        bench = Bench(demo, server, streams, seconds)
        for number in range(1, runs + 1):
            for row in rows:
                # Joins are spread over a segment: where one falls decides where playing begins.
                outcome = await _try_run(bench, row, number, GOP_S * (number - 1) / runs)
                tell(outcome.line())
                outcomes.append(outcome)
    return outcomes


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions themselves, whatever nurseries they came through."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def _try_run(bench: Bench, row: Row, number: int, phase_s: float) -> Outcome:
    """A failed run is told, and costs the others nothing."""
    failures: list[str] = []

    run = None
    try:
        run = await bench.run(row, phase_s)
    except* (EdgedError, trio.TooSlowError) as group:
        failures = [f"{type(error).__name__}: {error}" for error in leaves(group)]
    return Outcome(row, number, run, "; ".join(failures) or None)
