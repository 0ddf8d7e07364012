"""`edged conform`, pointed at our own edge."""

import msgspec
import pytest
import trio

from edged.tools.conform.report import Report
from tests.e2e.network import open_demo, run_edged

pytestmark = pytest.mark.e2e

LACKS = {31, 32}  # HTTP/2, gzip: to come. The demo speaks plain HTTP.


async def test_our_edge_conforms_but_for_what_is_to_come() -> None:
    with trio.fail_after(90):
        async with open_demo("--verbose") as demo:
            await demo.wait_log("stream opened")
            await trio.sleep(4)
            url = f"{demo.playback('east')}/live/demo/master.m3u8"
            out, _ = await run_edged(
                demo.folder, "conform", url, "--seconds", "8", "--json", code=1, timeout_s=60
            )
    report = msgspec.json.decode(out, type=Report)
    assert report.broken == []
    failed = [verdict for verdict in report.verdicts if verdict.status == "fail"]
    assert {verdict.number for verdict in failed} == LACKS, failed
    passed = {verdict.number for verdict in report.verdicts if verdict.status == "pass"}
    assert len(passed) >= 28, report
