"""A full network under failures: twenty encoders, a browser, and processes that die or stand still.

What a single stream goes through is in `test_failover`; here it is that all do so at once.
"""

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.conftest import require
from tests.e2e.browser import Page, open_browser, player_state
from tests.e2e.clip import RATE, check_same, make_clip, publish_ffmpeg, read_packets
from tests.e2e.machine import watch_machine
from tests.e2e.network import wait_until
from tests.e2e.pair import Pair, open_pair
from tests.e2e.publisher import publish_clip
from tests.e2e.restart import restart_without_irs
from tests.e2e.test_watch_page import STATE, require_player
from tests.e2e.viewer import Viewer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

CHANNELS = tuple(f"c{number:02}" for number in range(20))
POPS = ("ams1", "lon1")  # Encoders come to the first; viewers to both.
CLIP_S = 20
HARM_AFTER_S = 9.0
STALL_S_MAX = 3.0  # Of what a viewer gets, with everything on one shared machine.
LOST_S_MAX = 2.0  # One segment; and what the machine itself stood still, as far as that is little.
STOOD_S_MAX = 0.5
PAUSE_S = 0.35
DECISION_S_MAX = 2.0  # The goal is 1 s from the process's start; CI's machine is shared.


@contextlib.asynccontextmanager
async def twenty_on_air(pair: Pair, clip: Path) -> AsyncIterator[dict[str, Viewer]]:
    """Publish all channels by ffmpeg to the first PoP, and watch each at one of the two.

    The block's end waits until all is over.
    """
    viewers = {
        channel: Viewer(pair.playback(POPS[number % len(POPS)]), channel)
        for number, channel in enumerate(CHANNELS)
    }
    async with trio.open_nursery() as nursery:
        for channel in CHANNELS:
            nursery.start_soon(publish_ffmpeg, clip, pair.publish_url(channel))
            nursery.start_soon(viewers[channel].watch)
        yield viewers


async def frames_shown(page: Page) -> int:
    """How many frames of the page's video have been shown or dropped."""
    shown = await page.evaluate("document.querySelector('video').getVideoPlaybackQuality()"
                                ".totalVideoFrames")  # fmt: skip
    assert isinstance(shown, int)
    return shown


def check_all(viewers: dict[str, Viewer], clip: Path, stall_s_max: float = STALL_S_MAX) -> None:
    """Each viewer got every unit, once, without a discontinuity."""
    published = read_packets(clip)
    for channel, viewer in viewers.items():
        try:
            for track in viewer.tracks.values():
                track.check_flow(stall_s_max=stall_s_max)
            check_same(published, viewer.packets())
        except AssertionError as error:
            raise AssertionError(f"channel {channel}: {error}") from error


def check_publishers(pair: Pair) -> None:
    """Each published once, and left by itself."""
    started, ended = pair.pop.log("publisher started"), pair.pop.log("publisher ended")
    assert len(started) == len(ended) == len(CHANNELS)
    assert all("publisher sent" in str(line["reason"]) for line in ended), ended


def check_fenced(pair: Pair, returned: str, moved: set[str]) -> None:
    """The origin that came back was told that its streams go on elsewhere, and ended each."""
    for event in ("stream closed", "packaging ended"):
        ended = [line for line in pair.origins[returned].log(event) if line["channel"] in moved]
        assert {str(line["channel"]) for line in ended} == moved
        assert len(ended) == len(moved)
        assert all("elsewhere" in str(line["reason"]) for line in ended), ended


@pytest.mark.alone
@pytest.mark.parametrize(
    ("harm", "back_after_s"),
    [
        # In CI `test_failover` kills one, with fewer encoders.
        pytest.param(signal.SIGKILL, 0.0, marks=pytest.mark.slow),
        (signal.SIGSTOP, 2.0),
    ],
    ids=["dies", "freezes"],
)
async def test_one_of_two_origins_fails_under_twenty_encoders(
    harm: signal.Signals, back_after_s: float
) -> None:
    require("ffmpeg")
    require_player()
    clip = make_clip(seconds=CLIP_S)
    with trio.fail_after(120):
        async with open_pair(pops=POPS, channels=CHANNELS) as pair, open_browser() as browser:
            page = await browser.open_page()
            async with twenty_on_air(pair, clip) as viewers:
                await pair.pop.wait_log("stream placed", count=len(CHANNELS))
                homes = pair.homes()
                await page.navigate(f"{pair.playback(POPS[1])}/watch/{CHANNELS[0]}")
                await page.wait_for(f"{STATE} === 'live'", 15)
                await trio.sleep(HARM_AFTER_S / 2)
                harmed = homes[CHANNELS[0]]
                process = pair.origins[harmed].process
                async with watch_machine() as stillness:
                    frames, since = await frames_shown(page), trio.current_time()
                    process.send_signal(harm)
                    if back_after_s:
                        await trio.sleep(back_after_s)
                        process.send_signal(signal.SIGCONT)
                    await trio.sleep(6 - back_after_s)
                    due = (trio.current_time() - since) * RATE
                    lost_s = (due - (await frames_shown(page) - frames)) / RATE
                await page.wait_for(f"{STATE} === 'live'", 10)
                told = f"{lost_s:.2f} s of pictures were not shown in time"
                print(f"{told}; the machine stood still for {stillness.late_s_max:.2f} s")
                state = await page.evaluate(player_state("window.edged.player.hls"))
                stood_s = min(stillness.late_s_max, STOOD_S_MAX)
                assert lost_s <= LOST_S_MAX + stood_s, f"{told}: {state}"
            check_all(viewers, clip, STALL_S_MAX + stood_s)
            check_publishers(pair)
            moved = {str(line["channel"]) for line in pair.pop.log("stream goes on elsewhere")}
            assert moved == {channel for channel, home in homes.items() if home == harmed}
            assert len(pair.pop.log("stream placed")) == len(CHANNELS) + len(moved)
            if back_after_s:
                check_fenced(pair, harmed, moved)


@pytest.mark.light
async def test_a_short_pause_of_any_process_moves_nothing() -> None:
    """350 ms each, one after the other: as a garbage collection, a page fault, a busy host."""
    clip = make_clip(seconds=14)
    with trio.fail_after(90):
        async with open_pair() as pair:
            viewer = Viewer(pair.http, "one")
            sessions = len(pair.pop.log("backbone session started"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_clip, clip, pair.publish_url())
                nursery.start_soon(viewer.watch)
                await pair.home()
                await trio.sleep(2)
                for host in (pair.irs, *pair.origins.values(), pair.pop):
                    host.process.send_signal(signal.SIGSTOP)
                    await trio.sleep(PAUSE_S)
                    host.process.send_signal(signal.SIGCONT)
                    await trio.sleep(1.5)
            for track in viewer.tracks.values():
                track.check_flow(stall_s_max=STALL_S_MAX)
            check_same(read_packets(clip), viewer.packets())
            assert pair.pop.log("stream goes on elsewhere") == []
            assert len(pair.pop.log("stream placed")) == 1
            assert len(pair.pop.log("backbone session started")) == sessions
            assert pair.pop.log("origin is lost") == []
            assert len(pair.pop.log("irs session begins")) == 1


@pytest.mark.alone
@pytest.mark.slow  # 30 s: as above, beside twenty encoders and a browser.
async def test_a_short_pause_of_any_process_moves_none_of_twenty() -> None:
    require("ffmpeg")
    require_player()
    clip = make_clip(seconds=CLIP_S)
    with trio.fail_after(120):
        async with open_pair(pops=POPS, channels=CHANNELS) as pair, open_browser() as browser:
            page = await browser.open_page()
            async with twenty_on_air(pair, clip) as viewers:
                await pair.pop.wait_log("stream placed", count=len(CHANNELS))
                await page.navigate(f"{pair.playback(POPS[1])}/watch/{CHANNELS[0]}")
                await page.wait_for(f"{STATE} === 'live'", 15)
                frames, since = await frames_shown(page), trio.current_time()
                for host in (pair.irs, *pair.origins.values(), *pair.pops.values()):
                    host.process.send_signal(signal.SIGSTOP)
                    await trio.sleep(PAUSE_S)
                    host.process.send_signal(signal.SIGCONT)
                    await trio.sleep(1.0)
                due = (trio.current_time() - since) * RATE
                lost_s = (due - (await frames_shown(page) - frames)) / RATE
                print(f"{lost_s:.2f} s of pictures were not shown in time")
                assert lost_s <= LOST_S_MAX
            check_all(viewers, clip)
            check_publishers(pair)
            assert pair.pop.log("stream goes on elsewhere") == []
            assert len(pair.pop.log("stream placed")) == len(CHANNELS)
            assert pair.pop.log("origin is lost") == []


@pytest.mark.light
async def test_a_pop_restarts_while_irs_is_dead() -> None:
    """It routes by the table that it kept, and joins what others publish by the directory."""
    clip = make_clip(seconds=14)
    channels = ("one", "two")
    with trio.fail_after(90):
        async with open_pair(("fra1",), ("ams1", "ams2"), channels, doomed=("irs", "ams1")) as pair:
            await wait_until((pair.folder / "ams1.table").exists)
            pair.irs.process.kill()
            pair.pop.process.terminate()
            await pair.pop.process.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_clip, clip, pair.publish_url("two", "ams2"))
                await pair.pops["ams2"].wait_log("stream placed")
                async with restart_without_irs(pair, clip, "one") as (_, took_s):
                    for channel in channels:
                        viewer = Viewer(pair.http, channel)
                        await viewer.watch(seconds=4)
                        assert all(len(track.arrivals) > 8 for track in viewer.tracks.values())
                nursery.cancel_scope.cancel()
            assert took_s < DECISION_S_MAX, f"the first decision took {took_s:.2f} s"
            print(f"from the process's start to its first decision: {took_s:.2f} s")
