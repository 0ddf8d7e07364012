"""An operator at work under live streams: kick, drain, stop, reload."""

import contextlib
import signal
from pathlib import Path

import msgspec
import pytest
import trio

from edged.errors import PeerLostError
from edged.wire.rtmp import Closed, ReconnectRequested
from tests.conftest import require
from tests.e2e.clip import check_same, make_clip, publish_ffmpeg, read_packets
from tests.e2e.network import run_edged, wait_until
from tests.e2e.pair import Pair, key_of, open_pair
from tests.e2e.publisher import Publisher, publish_clip
from tests.e2e.viewer import Viewer, fetch

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CHANNELS = ("one", "two", "three", "four", "five")
STALL_S_MAX = 3.0  # Of what a viewer gets while an origin drains; CI's machine is shared.
ON_STOP_S = 5.0  # The default of `drain.on_stop_s`.
EXIT_S_MAX = 2.0  # Beyond it, as Ctrl-C has.


async def operate(pair: Pair, host: str, *arguments: str, code: int = 0) -> str:
    """Run a command against one host; what it printed."""
    command, *rest = arguments
    out, errors = await run_edged(
        pair.folder, command, *rest, "-c", str(pair.folder / f"{host}.toml"), code=code
    )
    return out + errors


async def start_publishing(nursery: trio.Nursery, clip: Path, url: str) -> Publisher:
    """Publish until the end or until it is lost; starts when it is accepted."""

    async def publish(*, task_status: trio.TaskStatus[Publisher]) -> None:
        await publish_clip(clip, url, task_status=task_status)

    publisher: Publisher = await nursery.start(publish)
    return publisher


async def ffmpeg_ends(clip: Path, url: str) -> None:
    """Publish by ffmpeg, which ends with an error when the server ends it."""
    with contextlib.suppress(AssertionError):
        await publish_ffmpeg(clip, url)


async def refused(clip: Path, url: str) -> str:
    """What an encoder is told that is not let in."""
    with pytest.RaisesGroup(PeerLostError, flatten_subgroups=True) as caught:
        await publish_clip(clip, url)
    return str(caught.value.exceptions[0])


async def test_kick_ends_one_broadcast_and_no_other() -> None:
    require("ffmpeg")
    clip = make_clip(seconds=13)
    with trio.fail_after(70):
        async with open_pair(("fra1",), channels=("one", "two")) as pair:
            viewer = Viewer(pair.http, "two")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ffmpeg_ends, clip, pair.publish_url("one"))
                nursery.start_soon(publish_clip, clip, pair.publish_url("two"))
                nursery.start_soon(viewer.watch)
                await pair.pop.wait_log("publisher started", count=2)
                await trio.sleep(2)
                told = await operate(
                    pair, "ams1", "kick", "one", "--reason", "no rights", "--block", "60s"
                )
                assert "one was ended at pop ams1" in told
                ended = await pair.pop.wait_log("publisher ended")
                assert (ended["channel"], ended["reason"]) == ("one", "kicked: no rights")
                assert "kicked: no rights; refused for another" in await refused(
                    clip, pair.publish_url("one")
                )
                told = await operate(pair, "ams1", "kick", "one", code=1)
                assert "channel 'one' is not published here; live here: two" in told
                told = await operate(pair, "fra1", "kick", "two", code=1)
                assert "no publisher is connected here" in told
            check_same(read_packets(clip), viewer.packets())


@pytest.mark.light
async def test_an_origin_drains_and_nobody_notices() -> None:
    clip = make_clip(seconds=15)
    with trio.fail_after(90):
        async with open_pair(channels=CHANNELS) as pair:
            viewers = {channel: Viewer(pair.http, channel) for channel in CHANNELS}
            async with trio.open_nursery() as nursery:
                for channel in CHANNELS:
                    nursery.start_soon(publish_clip, clip, pair.publish_url(channel))
                    nursery.start_soon(viewers[channel].watch)
                await pair.pop.wait_log("stream placed", count=len(CHANNELS))
                homes = pair.homes()
                await trio.sleep(3)
                drained = homes["one"]
                told = await operate(pair, drained, "drain", "--deadline", "10s")
                there = [channel for channel, home in homes.items() if home == drained]
                assert f"{len(there)} of {len(there)} left" in told
                assert f"origin {drained}: drained, 0 of {len(there)} left" in told
                assert set(pair.homes().values()) == {"fra1", "fra2"} - {drained}
                (line,) = pair.origins[drained].log("drained")
                assert (line["streams"], line["ended"]) == (len(there), 0)
            for channel, viewer in viewers.items():
                for track in viewer.tracks.values():
                    track.check_flow(stall_s_max=STALL_S_MAX)
                check_same(read_packets(clip), viewer.packets())
                assert channel in pair.homes()
            assert len(pair.pop.log("publisher started")) == len(CHANNELS)
            assert "takes what comes" in await operate(pair, drained, "drain", "--undo")
            before = len(pair.pop.log("stream placed"))
            other = next(name for name in pair.origins if name != drained)
            await operate(pair, other, "drain")
            async with trio.open_nursery() as nursery:
                await start_publishing(nursery, clip, pair.publish_url("one"))
                assert await pair.home(before + 1) == drained
                nursery.cancel_scope.cancel()


async def test_a_pop_drains() -> None:
    """Who can be asked to reconnect is asked, and has its time; the others are closed."""
    require("ffmpeg")
    clip = make_clip(seconds=20)
    with trio.fail_after(90):
        async with open_pair(("fra1",), pops=("ams1", "lon1"), channels=("one", "two")) as pair:
            ams1, to = pair.pops["ams1"], f"rtmp://127.0.0.1:{pair.ports['lon1.rtmp']}/live"
            async with trio.open_nursery() as nursery:
                polite = await start_publishing(nursery, clip, pair.publish_url("one"))
                nursery.start_soon(ffmpeg_ends, clip, pair.publish_url("two"))
                await ams1.wait_log("publisher started", count=2)
                assert "connection" not in (await fetch(pair.http, "/streams.json")).fields
                told = await operate(
                    pair, "ams1", "drain", "--deadline", "20s", "--to", to, "--no-wait"
                )
                assert "2 of 2 left" in told
                asked = await polite.wait_for(ReconnectRequested)
                assert asked == ReconnectRequested(to, "this PoP is draining")
                closed = await ams1.wait_log("publisher ended")
                assert closed["channel"] == "two"
                assert closed["reason"] == "drain: this PoP is draining; connect again"
                # The one that was asked goes on here until it has a place elsewhere.
                await trio.sleep(1)
                assert not any(isinstance(event, Closed) for event in polite.events)
                await start_publishing(nursery, clip, f"{to}/{key_of('one')}")
                await ams1.wait_log("drained")
                assert len(ams1.log("publisher ended")) == 2
                # Encoders that come again hear why not; viewers are served, and sent on.
                assert f"drain: this PoP is draining; publish to {to}" in await refused(
                    clip, pair.publish_url("two")
                )
                answer = await fetch(pair.http, "/streams.json")
                assert (answer.status, answer.fields["connection"]) == (200, "close")
                lines = msgspec.json.decode(
                    await operate(pair, "ams1", "drain", "--undo", "--json")
                )
                assert [(line["state"], line["left"]) for line in lines] == [("serving", 0)]
                await start_publishing(nursery, clip, pair.publish_url("two"))
                assert "connection" not in (await fetch(pair.http, "/streams.json")).fields
                nursery.cancel_scope.cancel()


async def test_sigterm_drains_and_ends_when_all_have_gone_elsewhere() -> None:
    clip = make_clip(seconds=20)
    with trio.fail_after(70):
        async with open_pair(("fra1",), pops=("ams1", "lon1")) as pair:
            async with trio.open_nursery() as nursery:
                ours = await start_publishing(nursery, clip, pair.publish_url())
                await trio.sleep(2)
                begun_at = trio.current_time()
                pair.pop.process.terminate()
                await ours.wait_for(ReconnectRequested)
                await start_publishing(nursery, clip, pair.publish_url("one", "lon1"))
                assert await pair.pop.process.wait() == 0
                assert trio.current_time() - begun_at < ON_STOP_S + EXIT_S_MAX
                nursery.cancel_scope.cancel()
            (line,) = pair.pop.log("drained")
            assert (line["streams"], line["ended"]) == (1, 0)


async def test_sigterm_drains_within_its_deadline() -> None:
    """Ours announces that it can reconnect, and does not; ffmpeg is closed, its run waits."""
    require("ffmpeg")
    clip = make_clip(seconds=20)
    with trio.fail_after(70):
        async with open_pair(("fra1",), channels=("one", "two")) as pair:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ffmpeg_ends, clip, pair.publish_url("two"))
                ours = await start_publishing(nursery, clip, pair.publish_url("one"))
                await pair.pop.wait_log("publisher started", count=2)
                await trio.sleep(2)
                begun_at = trio.current_time()
                pair.pop.process.terminate()
                assert await pair.pop.process.wait() == 0
                assert ON_STOP_S <= trio.current_time() - begun_at < ON_STOP_S + EXIT_S_MAX
                assert any(isinstance(event, ReconnectRequested) for event in ours.events)
                told = next(event for event in ours.events if isinstance(event, Closed))
                assert told.description == "drain: this PoP is draining; connect again"
                nursery.cancel_scope.cancel()
            (line,) = pair.pop.log("drained")
            assert (line["streams"], line["ended"]) == (2, 2)


async def test_a_second_signal_ends_the_drain() -> None:
    clip = make_clip(seconds=20)
    with trio.fail_after(60):
        async with open_pair(("fra1",)) as pair, trio.open_nursery() as nursery:
            await start_publishing(nursery, clip, pair.publish_url("one"))
            pair.pop.process.terminate()
            await pair.pop.wait_log("draining")
            begun_at = trio.current_time()
            pair.pop.process.terminate()
            assert await pair.pop.process.wait() == 0
            assert trio.current_time() - begun_at < EXIT_S_MAX
            nursery.cancel_scope.cancel()


async def test_a_reload_disconnects_nobody() -> None:
    """By SIGHUP or command; with a mistake, or a key that cannot change, it changes nothing."""
    clip = make_clip(seconds=14)
    with trio.fail_after(70):
        async with open_pair(("fra1",)) as pair:
            viewer = Viewer(pair.http, "one")
            path = pair.folder / "ams1.toml"
            good = path.read_text()
            key = '[[stream_keys.static]]\nchannel = "two"\nkey = "key-of-two-only"\n'
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_clip, clip, pair.publish_url("one"))
                nursery.start_soon(viewer.watch)
                await pair.pop.wait_log("publisher started")
                assert "not valid here" in await refused(clip, pair.publish_url("two"))

                path.write_text(good + '[log]\nlevel = "loud"\n')
                pair.pop.process.send_signal(signal.SIGHUP)
                line = await pair.pop.wait_log("configuration not reloaded")
                assert "log.level: 'loud' is not allowed" in str(line["reason"])

                path.write_text(good.replace('name = "ams1"', 'name = "ams2"') + key)
                told = await operate(pair, "ams1", "reload", code=1)
                assert "pop.name: peers know this process by it" in told
                assert "not valid here" in await refused(clip, pair.publish_url("two"))

                path.write_text(good + key + '[log]\nlevel = "debug"\n')
                pair.pop.process.send_signal(signal.SIGHUP)
                line = await pair.pop.wait_log("configuration reloaded")
                assert line["changed"] == ["stream_keys.static", "log.level"]
                two = await start_publishing(nursery, clip, pair.publish_url("two"))

                path.write_text(good)
                told = await operate(pair, "ams1", "reload")
                assert "stream_keys.static: for publishers from now on; who is live stays" in told
                assert "channel 'two' is live, though its stream key is no longer valid" in told
                await trio.sleep(0.5)
                assert not any(isinstance(event, Closed) for event in two.events)
                await operate(pair, "ams1", "kick", "two")
                await two.wait_for(Closed)
            check_same(read_packets(clip), viewer.packets())
            await wait_until(lambda: len(pair.pop.log("publisher ended")) == 2)


async def test_log_level_at_run_time() -> None:
    with trio.fail_after(40):
        async with open_pair(("fra1",)) as pair:
            await operate(pair, "ams1", "log", "level", "debug", "--logger", "edged.http",
                          "--for", "10m")  # fmt: skip
            await fetch(pair.http, "/streams.json")
            line = await pair.pop.wait_log("viewer connection ended")
            assert (line["level"], line["logger"]) == ("debug", "edged.http")
            told = await operate(pair, "ams1", "log", "level", "--logger", "edged.nobody",
                                 "debug", code=1)  # fmt: skip
            assert "no logger 'edged.nobody'; there are: edged, " in told
