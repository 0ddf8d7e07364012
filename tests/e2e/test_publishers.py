"""Publishers that must not get in, those that leave and come back, and those who take over."""

import secrets
from functools import partial
from pathlib import Path

import pytest
import trio

from edged.errors import PeerLostError
from edged.wire.rtmp import Closed, RtmpClientOptions
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.chunks import ChunkReader, ChunkWriter
from edged.wire.rtmp.handshake import ClientHandshake
from edged.wire.rtmp.limits import RtmpLimits
from tests.conftest import require
from tests.e2e.clip import check_same, make_clip, publish_ffmpeg, read_packets
from tests.e2e.network import Demo, open_demo, wait_until
from tests.e2e.publisher import Publisher, publish_clip
from tests.e2e.viewer import Viewer, fetch

pytestmark = pytest.mark.e2e


async def refused(url: str) -> str:
    """What the encoder is told; it must not be accepted."""
    with pytest.RaisesGroup(PeerLostError, flatten_subgroups=True) as caught:
        await publish_clip(make_clip(seconds=2), url)
    return str(caught.value.exceptions[0])


async def raw(demo: Demo, data: bytes, *, until_closed_s: float) -> bytes:
    """Send bytes to the RTMP port; what it answers until it closes."""
    host, port = demo.addresses.rtmp["west"].split("/")[2].split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        answer = b""
        with trio.fail_after(until_closed_s):
            try:
                await stream.send_all(data)
                while more := await stream.receive_some(65536):
                    answer += more
            except trio.BrokenResourceError:
                pass  # Closed with our bytes unread.
        return answer


async def ask_to_play(demo: Demo) -> list[m.Command]:
    """A player's connection; the commands that it is answered."""
    host, port = demo.addresses.rtmp["west"].split("/")[2].split(":")
    writer, reader, commands = ChunkWriter(), ChunkReader(RtmpLimits()), []
    handshake = ClientHandshake(0.0, secrets.token_bytes)
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(handshake.first())
        rest: bytes | memoryview = b""
        while not handshake.done:
            answer, rest = handshake.receive_data(await stream.receive_some(65536))
            await stream.send_all(answer)
        asked = (
            m.encode_command("connect", 1, [{"app": "live", "tcUrl": demo.addresses.rtmp["west"]}]),
            m.encode_command("createStream", 2, [None]),
            m.encode_command("play", 3, [None, demo.keys["mine"]]),
        )
        for number, body in enumerate(asked):
            message = m.Message(m.COMMAND_AMF0, 0, 1 if number == 2 else 0, body)
            await stream.send_all(b"".join(writer.write(3, message)))
        with trio.fail_after(5):
            data: bytes | memoryview = rest
            while True:
                commands += [
                    m.decode_command(message)
                    for message in reader.receive_data(data)
                    if message.kind == m.COMMAND_AMF0
                ]
                data = await stream.receive_some(65536)
                if not data:
                    return commands


async def test_refused_with_reason_and_nobody_else_is_harmed() -> None:
    """A good publisher goes on meanwhile, without a gap; the key is in no log and on no page."""
    clip = make_clip(seconds=8)
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            viewer = Viewer(demo.playback("east"), "mine")
            nursery.start_soon(publish_clip, clip, demo.publish_url("west"))
            await viewer.join()
            nursery.start_soon(_intrude, demo)
            await viewer.watch(join=False)
            for track in viewer.tracks.values():
                track.check_flow()
            check_same(read_packets(clip), viewer.packets())
            reasons = {line["code"]: line["reason"] for line in demo.log("publisher refused")}
            assert "not valid" in str(reasons["unknown_key"])
            assert "no such application" in str(reasons["unknown_app"])
            ends = {str(line["reason"]) for line in demo.log("connection ended")}
            assert any("version" in reason for reason in ends), ends
            assert any("no handshake within" in reason for reason in ends), ends
            assert any("play over RTMP is not offered" in reason for reason in ends), ends
            for pop in ("west", "east"):
                for path in ("/", "/watch/mine", "/streams.json", "/live/mine/master.m3u8"):
                    page = await fetch(demo.playback(pop), path)
                    assert not any(key.encode() in page.body for key in demo.keys.values()), path
            metrics = await fetch(demo.addresses.metrics.removesuffix("/metrics"), "/metrics")
            assert metrics.status == 200
            text = demo.log_text() + metrics.body.decode()
            assert not any(key in text for key in demo.keys.values())
            assert "wrong-key-of-somebody" not in text


async def _intrude(demo: Demo) -> None:
    server, key = demo.addresses.rtmp["west"], demo.keys["mine"]
    told = await refused(f"{server}/wrong-key-of-somebody")
    assert "NetStream.Publish." in told
    assert "the stream key is not valid here" in told
    told = await refused(f"{server.replace('/live', '/elsewhere')}/{key}")
    assert "no such application" in told
    # Set up wrongly, with the key where the application belongs.
    await refused(f"{server.replace('/live', f'/{key}')}/{key}")
    async with trio.open_nursery() as nursery:

        async def stall() -> None:
            await raw(demo, b"\3" + bytes(700), until_closed_s=8)  # Half of a handshake.

        async def babble() -> None:
            await raw(demo, bytes(range(256)) * 16, until_closed_s=4)
            # The handshake in good order, then anything.
            await raw(demo, b"\3" + bytes(3072) + secrets.token_bytes(8192), until_closed_s=4)

        nursery.start_soon(stall)
        nursery.start_soon(babble)
        commands = await ask_to_play(demo)
        codes = [command.members(1).get("code") for command in commands]
        assert "NetStream.Play.Failed" in codes or "NetStream.Play.StreamNotFound" in codes, codes


async def test_refused_ffmpeg_says_so_and_ends() -> None:
    require("ffmpeg")
    with trio.fail_after(40):
        async with open_demo() as demo:
            with pytest.raises(AssertionError, match="ffmpeg"):
                await publish_ffmpeg(make_clip(seconds=2), f"{demo.addresses.rtmp['east']}/nokey")
            assert demo.log("publisher refused")


async def test_leaves_and_comes_back() -> None:
    """ENDLIST, and gone from streams.json; then a new run under the same name."""
    clip, again = make_clip(seconds=4), make_clip(seconds=4, tone=880)
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            east = demo.playback("east")
            first, second = Viewer(east, "mine"), Viewer(east, "mine")
            nursery.start_soon(publish_clip, clip, demo.publish_url("west"))
            await first.join()
            assert b'"channel":"mine"' in (await fetch(east, "/streams.json")).body
            await first.watch(join=False)
            assert all(track.ended for track in first.tracks.values())
            for pop in ("west", "east"):
                await wait_listed(demo, pop, live=False)
                assert (await fetch(demo.playback(pop), "/live/mine/master.m3u8")).status == 404
            nursery.start_soon(publish_clip, again, demo.publish_url("east"))
            await second.watch()
            check_same(read_packets(clip), first.packets())
            check_same(read_packets(again), second.packets())
            assert not first.urls & second.urls - {first.master_url}
            # The ended run is still there for those who are behind.
            ended = await fetch(east, first.tracks["v0"].url.removeprefix(east))
            assert b"#EXT-X-ENDLIST\n" in ended.body


@pytest.mark.parametrize("pop", ["west", pytest.param("east", marks=pytest.mark.slow)])
async def test_takeover(pop: str) -> None:
    """A second publisher with the same key and another codec, at the same PoP and at another.

    With the same tracks it would go on with the run of the first: see test_takeover.
    """
    old, new = make_clip(seconds=8), make_clip("hevc", seconds=4, tone=880)
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            west = demo.playback("west")
            before, after = Viewer(west, "mine"), Viewer(west, "mine")
            told: list[object] = []

            async def publish_old(*, task_status: trio.TaskStatus[Publisher]) -> None:
                publisher = await publish_clip(
                    old, demo.publish_url("west"), task_status=task_status
                )
                told.extend(publisher.events)

            await nursery.start(publish_old)
            await before.join()
            nursery.start_soon(partial(before.watch, join=False))
            await trio.sleep(1)
            await nursery.start(publish, new, demo.publish_url(pop))
            await join_next_run(after, before)
            await after.watch(join=False)
            check_same(read_packets(new), after.packets())
            check_same(read_packets(old), before.packets(), whole=False)
            assert all(track.ended for track in before.tracks.values())
            await demo.wait_log("publisher ended", count=2)
            await wait_until(lambda: bool(told))
            stopped = next(event for event in told if isinstance(event, Closed))
            assert stopped.code.startswith("NetStream.Publish.")
            assert "taken over" in stopped.description
            await wait_listed(demo, "west", live=False)
            # Two encoders with one key must not evict each other for ever, at one PoP or at two.
            keeps = partial(publish_clip, old, demo.publish_url("west"))
            nursery.start_soon(keeps)
            await demo.wait_log("publisher started", count=3)
            await wait_listed(demo, pop, live=True)
            for where in {"west", pop}:
                assert "takeover" in await refused(demo.publish_url(where))
            nursery.cancel_scope.cancel()


async def wait_listed(demo: Demo, pop: str, *, live: bool) -> None:
    """Until a PoP has heard that something is live, or that nothing is any more."""
    with trio.fail_after(2):
        while True:
            listed = (await fetch(demo.playback(pop), "/streams.json")).body
            if (listed != b"[]") is live:
                return
            await trio.sleep(0.05)


async def publish(clip: Path, url: str, *, task_status: trio.TaskStatus[Publisher]) -> None:
    await publish_clip(clip, url, task_status=task_status)


async def join_next_run(viewer: Viewer, last: Viewer) -> None:
    """Join until what is joined is another run; in between there may be none."""
    with trio.fail_after(5):
        while True:
            await viewer.join()
            if viewer.tracks["v0"].url != last.tracks["v0"].url:
                return
            await trio.sleep(0.05)


async def test_lost_publisher_ends_the_run() -> None:
    """The connection goes without a word, as when a laptop's lid closes, and does not come back."""
    clip = make_clip(seconds=4)
    with trio.fail_after(60):
        async with open_demo() as demo, trio.open_nursery() as nursery:
            viewer = Viewer(demo.playback("east"), "mine")

            async def publish_and_vanish() -> None:
                await publish_clip(clip, demo.publish_url("west"), leave=False,
                                   options=RtmpClientOptions(chunk_size=128))  # fmt: skip

            nursery.start_soon(publish_and_vanish)
            await viewer.watch()
            assert all(track.ended for track in viewer.tracks.values())
            check_same(read_packets(clip), viewer.packets())
            reason = (await demo.wait_log("publisher ended"))["reason"]
            assert "closed" in str(reason)
            (line,) = demo.log("stream ended without its publisher")
            assert line["why"] == "the publisher did not come back within 10 s"
