"""A broadcast with all that can befall it, as a receiver of webhooks hears of it."""

import hashlib
import hmac
import signal
import time

import pytest
import trio

from tests.api.client import connected
from tests.api.service import Received, serving
from tests.conftest import require
from tests.e2e.clip import make_clip
from tests.e2e.network import wait_until
from tests.e2e.pair import Pair, key_of, open_pair
from tests.e2e.publisher import publish_clip
from tests.e2e.test_api import STREAM
from tests.e2e.test_takeover import ffmpeg

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SECRET = "a-secret-of-this-receiver-and-no-other"  # noqa: S105 - a test's
LATE_S_MAX = 10.0  # Of what an encoder does wrong, until it has been bad for long enough.


def check_signed(received: Received) -> None:
    """As the README tells receivers to check."""
    timestamp = received.fields["edged-timestamp"]
    signed = f"{timestamp}.".encode() + received.body
    digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert received.fields["edged-signature"] == f"sha256={digest}"
    assert abs(time.time() - int(timestamp)) < 60


async def change_title(pair: Pair) -> None:
    """By the API, with the stream key."""
    async with connected(pair.http.removeprefix("http://")) as client:
        fields = {"Authorization": f"Bearer {key_of('one')}"}
        answer = await client.ask(STREAM, "PATCH", {"title": "the second half"}, fields)
        assert answer.status == 200


async def test_a_receiver_hears_of_all_that_happens() -> None:
    require("ffmpeg")
    clip, other = make_clip(seconds=60, gop=300), make_clip("hevc", seconds=6)
    async with serving() as service:
        tables = f'[[webhooks]]\nname = "hook"\nurl = "{service.url}"\nsecret = "{SECRET}"\n'

        def heard(kind: str, channel: str = "one") -> list[dict[str, object]]:
            events = [received.json() for received in service.received]
            return [each for each in events if (each["event"], each["channel"]) == (kind, channel)]

        async def hear(kind: str, count: int = 1, within_s: float = 5.0) -> dict[str, object]:
            await wait_until(lambda: len(heard(kind)) >= count, within_s)
            return heard(kind)[count - 1]

        with trio.fail_after(110):
            async with open_pair(pop_tables=tables) as pair, trio.open_nursery() as nursery:
                async with ffmpeg(clip, pair.publish_url()):
                    live = await hear("stream_went_live")
                    home = await pair.home()
                    assert (live["pop"], live["origin"], live["protocol"]) == ("ams1", home, "rtmp")
                    await trio.sleep(2.5)  # How to go on from there is known.
                    await change_title(pair)
                    told = await hear("title_changed")
                    assert told["title"] == "the second half"
                    pair.origins[home].process.send_signal(signal.SIGKILL)
                    moved = await hear("stream_rehomed")
                    assert moved["origin_before"] == home
                    assert moved["origin_after"] == await pair.home(2) != home
                    warned = await hear("health_warned", within_s=LATE_S_MAX + 5)
                    assert warned["code"] == "keyframe_interval"
                    assert "keyframe" in str(warned["text"])
                lost = await hear("publisher_lost")
                assert lost["grace_s"] == 10.0
                async with ffmpeg(clip, pair.publish_url()):
                    await hear("publisher_returned")
                    await trio.sleep(2)
                    nursery.start_soon(publish_clip, other, pair.publish_url())
                    taken = await hear("stream_taken_over")
                newer = await hear("stream_went_live", 2)
                assert taken["by_publication"] == newer["publication"] != live["publication"]
                assert taken["by_pop"] == live["pop"]
                one = [live, told, moved, warned, lost, taken]
                assert {each["publication"] for each in one} == {live["publication"]}
                await pair.pop.wait_log("publisher started", count=3)
                gone = await hear("stream_went_offline", within_s=15)
                assert gone["publication"] == newer["publication"]
        for received in service.received:
            check_signed(received)
        ids = [received.json()["event_id"] for received in service.received]
        assert len(set(ids)) == len(ids), "each was delivered once"
