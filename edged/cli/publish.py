"""`edged publish`: the test picture, or a file, over RTMP."""

import time
from pathlib import Path
from typing import Annotated

import trio
import typer

from edged.cli.output import console, errors
from edged.cli.run import until_signal
from edged.errors import EdgedError
from edged.tools.file_source import FileSource
from edged.tools.test_picture import PictureConfig, TestPicture
from edged.tools.test_publisher import (
    PublisherReport,
    PublishOptions,
    Source,
    expand_urls,
    publish,
)


def publish_command(
    url: Annotated[str, typer.Argument(help="rtmp://HOST[:PORT]/live, or with /KEY at its end.")],
    *,
    key: Annotated[str | None, typer.Option(help="The stream key, if not in the URL.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Publish all tracks of this file, looped, not the test picture."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Do not loop the file.")] = False,
    count: Annotated[int, typer.Option(help='Publishers; "{n}" in the key becomes 1, 2, ...')] = 1,
    seconds: Annotated[float, typer.Option(help="Stop after so long.")] = float("inf"),
    size: Annotated[str, typer.Option(help="Of the test picture.")] = "1280x720",
    gop: Annotated[
        float,
        typer.Option(min=0.1, max=20, help="Seconds between the test picture's key frames."),
    ] = 2.0,
) -> None:
    """Publish the test picture (H.264 and AAC, encoded live) or a file over RTMP or RTMPS."""
    places = expand_urls(url, key, count)

    async def main() -> None:
        source: Source = (
            FileSource(file, loop=not once)
            if file is not None
            else TestPicture(_picture(size, gop))
        )
        await publish(
            places,
            source,
            PublishOptions(duration_s=seconds),
            report=print_report,
            unix_now=time.time,
        )

    trio.run(until_signal, main)


def print_report(report: PublisherReport) -> None:
    """One line for what happened to a publisher."""
    detail = f": {report.reason}" if report.reason else ""
    again = f"; again in {report.retry_s:.1f} s" if report.retry_s is not None else ""
    output = console if report.event in ("accepted", "ended") else errors
    output.print(f"{report.place} {report.event}{detail}{again}", markup=False, soft_wrap=True)


def _picture(size: str, gop_s: float) -> PictureConfig:
    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise EdgedError(f"--size {size!r} is not WIDTHxHEIGHT, such as 1280x720")
    if int(width) % 80 or int(height) % 2:
        raise EdgedError(f"--size {size!r}: the width must be a multiple of 80, the height even")
    return PictureConfig(width=int(width), height=int(height), gop_s=gop_s)
