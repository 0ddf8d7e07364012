"""`edged publish` against our own ingest; the publisher itself has its tests in tests/tools."""

from pathlib import Path

import pytest
import trio

from edged.cli import publish as publish_module
from edged.errors import ConfigError, EdgedError
from edged.tools.test_publisher import PublisherReport
from tests.cli.invoke import Answer, in_a_thread
from tests.ingest.test_rtmp_publisher import Door, serving


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("http://x/live", "--key", "k"), ConfigError, "not an rtmp url"),
        (("rtmp://x", "--key", "k"), ConfigError, "not an rtmp url"),
        (("rtmp://x/live", "--key", "k", "--count", "0"), ConfigError, "a count of 0"),
        (("rtmp://x/live", "--key", "k", "--count", "2"), ConfigError, 'need "{n}"'),
        (("rtmp://x/live/k", "--size", "720p"), EdgedError, "is not WIDTHxHEIGHT"),
        (("rtmp://x/live/k", "--size", "1281x720"), EdgedError, "a multiple of 80"),
        (("rtmp://x/live/k", "--size", "1280x721"), EdgedError, "the height even"),
        (("rtmp://x/live/k", "--file", "/nowhere.mp4"), EdgedError, "/nowhere.mp4"),
    ],
)
def test_what_cannot_be_published_is_said_at_once(
    arguments: tuple[str, ...], error: type[EdgedError], message: str
) -> None:
    answer = Answer("publish", *arguments)
    found = answer.error
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, error)
    assert message in str(found)


@pytest.mark.e2e
def test_the_test_picture_arrives() -> None:
    doors: list[Door] = []

    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with serving() as service:
            doors.append(service.door)
            task_status.started(service.address)
            await trio.sleep_forever()

    with in_a_thread(main) as address:
        url = f"rtmp://{address}/live"
        answer = Answer(
            *("publish", url, "--key", "secret", "--seconds", "1", "--size", "160x90"),
        )
        assert answer.error is None
        assert f"{url} accepted" in answer.out
        assert "secret" not in answer.out + answer.err
        stream = doors[0].publications[0].stream
        assert {track.codec for track in stream.tracks.values()} == {"h264", "aac"}
        assert stream.tracks[1].config.width == 160


@pytest.mark.e2e
def test_a_refused_key_ends_with_the_reason() -> None:
    async def main(*, task_status: trio.TaskStatus[str]) -> None:
        async with serving() as service:
            task_status.started(service.address)
            await trio.sleep_forever()

    with in_a_thread(main) as address:
        answer = Answer("publish", f"rtmp://{address}/live/wrong-key", "--size", "160x90")
        assert answer.error is not None
        assert "unknown_key: the stream key is not valid here" in answer.err + repr(answer.error)
        assert "wrong-key" not in answer.out + answer.err


@pytest.mark.parametrize(
    ("report", "out", "err"),
    [
        (PublisherReport(index=0, place="rtmp://x/live", event="accepted"), " accepted", ""),
        (
            PublisherReport(
                index=0, place="rtmp://x/live", event="lost", reason="[reset]", retry_s=0.25
            ),
            "",
            " lost: [reset]; again in 0.2 s",
        ),
    ],
)
def test_reports_are_one_line(
    report: PublisherReport, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_module.print_report(report)
    shown = capsys.readouterr()
    assert shown.out == (f"rtmp://x/live{out}\n" if out else "")
    assert shown.err == (f"rtmp://x/live{err}\n" if err else "")


def test_the_file_is_published_as_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "garbage.mp4"
    path.write_bytes(b"garbage")
    answer = Answer("publish", "rtmp://127.0.0.1:1/live/k", "--file", path, "--once")
    assert answer.error is not None
    assert "garbage.mp4" in repr(answer.error)
