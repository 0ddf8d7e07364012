"""A stream's ladder beside its source, at an origin: with real children."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import trio
from structlog.testing import capture_logs

from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, Part, StreamEnded
from edged.media.stream import Grant, StreamId
from edged.origin.ladder import DRAIN_S_MAX, Ladder
from edged.origin.ladders import Ladders
from edged.origin.service import OriginConfig, OriginService
from edged.policy.latency import PackagerConfig
from edged.policy.rung_segmenter import RungSegmenter
from edged.runtime.hub import Hub, LiveStream
from tests.origin.sources import SMALL, X264, Source, make_source

pytestmark = pytest.mark.e2e
PACKAGER = PackagerConfig(segment_s=1.0, target_duration_s=2)


class Setting:
    """An origin's service and one stream at it."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.events: list[PackagedEvent] = []
        self.failures: list[str] = []
        self.service = OriginService(
            OriginConfig(name="fra1", ladder=SMALL, packager=PACKAGER),
            publish=lambda _, event: self.events.append(event),
            packaged=lambda _, __: None,
            failed=lambda _, reason: self.failures.append(reason),
        )
        self.source: Source = make_source(*X264, "-g", "30", "-bf", "0", seconds=4)

    @property
    def ladders(self) -> Ladders:
        assert self.service.ladders is not None
        return self.service.ladders

    def open(self, publication: int = 1) -> LiveStream:
        stream_id = StreamId("alice", publication)
        self.service.admit(stream_id, Grant(channel="alice"), [])
        stream = self.hub.open(stream_id, Grant(channel="alice"), started_at=0.0, came_from="test")
        self.service.open(stream)
        for track in self.source.tracks:
            stream.set_track(track)
        return stream

    async def feed(self, stream: LiveStream, speed: float = 1.5) -> None:
        """Publish the source, somewhat faster than it is."""
        scales = {track.track_id: track.timescale for track in self.source.tracks}
        began = trio.current_time()
        for seq, unit in enumerate(self.source.units):
            await trio.sleep_until(began + unit.dts / scales[unit.track_id] / speed)
            stream.append([unit.replaced(seq=seq)])

    def parts(self, name: str) -> list[Part]:
        return [e for e in self.events if isinstance(e, Part) and e.rendition == name]


@contextlib.asynccontextmanager
async def running(setting: Setting) -> AsyncIterator[None]:
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            await nursery.start(setting.ladders.run)
            yield
            nursery.cancel_scope.cancel()


async def until_ready(ladder: Ladder) -> None:
    while ladder.statistics().state != "running":  # noqa: ASYNC110 - a process starts
        await trio.sleep(0.02)


async def test_rungs_are_packaged_beside_the_source_and_end_before_it() -> None:
    setting = Setting()
    async with running(setting):
        stream = setting.open()
        (ladder,) = setting.ladders.running
        await until_ready(ladder)
        await setting.feed(stream)
        with trio.fail_after(10):
            while len(setting.parts("v96p")) < 8:  # noqa: ASYNC110 - another process's
                await trio.sleep(0.02)
        assert setting.service.statistics().ladders == 1
        setting.hub.close(stream, "over")
        setting.service.close(stream, "over")
        assert not isinstance(setting.events[-1], StreamEnded), "its rungs are behind"
        assert setting.service.replay("alice") is not None
        with trio.fail_after(3):
            while setting.ladders.running:  # noqa: ASYNC110 - another process's
                await trio.sleep(0.02)
        assert setting.service.statistics().ladders == 0
        assert setting.service.statistics().streams == 0
        assert setting.service.replay("alice") is None
    assert isinstance(setting.events[-1], StreamEnded)
    assert sum(isinstance(event, StreamEnded) for event in setting.events) == 1
    assert not setting.failures
    ends = [setting.parts(name)[-1] for name in ("v0", "v96p", "v64p")]
    assert len({part.tfdt + part.duration for part in ends}) == 1, "to the last picture"
    first = {msn_of.msn: msn_of.tfdt for msn_of in setting.parts("v0") if msn_of.index == 0}
    for name in ("v96p", "v64p"):
        begun = {part.msn: part.tfdt for part in setting.parts(name) if part.index == 0}
        assert begun
        assert begun == {msn: first[msn] for msn in begun}


async def test_an_encoder_that_hangs_holds_the_end_up_for_a_second_only() -> None:
    setting = Setting()
    async with running(setting):
        stream = setting.open()
        (ladder,) = setting.ladders.running
        await until_ready(ladder)
        await setting.feed(stream)
        pid = ladder.statistics().pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        began = trio.current_time()
        setting.hub.close(stream, "over")
        setting.service.close(stream, "over")
        with trio.fail_after(3):
            while not isinstance(setting.events[-1], StreamEnded):  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert DRAIN_S_MAX - 0.5 <= trio.current_time() - began <= 2 * DRAIN_S_MAX
        assert not setting.ladders.running


async def test_a_newer_run_of_the_channel_does_not_wait_for_the_end_of_the_older() -> None:
    setting = Setting()
    async with running(setting):
        stream = setting.open()
        (ladder,) = setting.ladders.running
        await until_ready(ladder)
        await setting.feed(stream)
        setting.hub.close(stream, "over")
        setting.service.close(stream, "over")
        assert not isinstance(setting.events[-1], StreamEnded)
        newer = setting.open(publication=2)
        assert isinstance(setting.events[-1], StreamEnded)
        (other,) = setting.ladders.running
        assert other is not ladder
        assert setting.service.statistics().streams == 1
        setting.hub.close(newer, "over")
        setting.service.close(newer, "over")
        await trio.sleep(0.1)
        assert setting.service.statistics().streams == 0


async def test_a_bug_of_the_ladder_ends_it_and_not_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: RungSegmenter, unit: AccessUnit) -> list[PackagedEvent]:
        raise ZeroDivisionError

    monkeypatch.setattr(RungSegmenter, "add_unit", fail)
    setting = Setting()
    with capture_logs() as logs:
        async with running(setting):
            stream = setting.open()
            (ladder,) = setting.ladders.running
            await until_ready(ladder)
            await setting.feed(stream)
            await trio.sleep(0.2)
            assert not setting.ladders.running
            setting.hub.close(stream, "over")
            setting.service.close(stream, "over")
    assert any(line["event"] == "ladder failed, the source goes on" for line in logs)
    assert len(setting.parts("v0")) > 15
    assert not setting.failures


async def test_one_that_was_begun_before_its_service_runs_waits_for_it() -> None:
    setting = Setting()
    stream = setting.open()
    assert len(setting.ladders.running) == 1
    async with running(setting):
        (ladder,) = setting.ladders.running
        await until_ready(ladder)
        setting.hub.close(stream, "over")
        setting.service.close(stream, "over")
        await trio.sleep(0.3)
        assert not setting.ladders.running
