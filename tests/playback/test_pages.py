"""`/time`, `/streams.json` and `/streams/CHANNEL.json`."""

import json
import time

import msgspec

from edged.playback.http import HttpServer, Router
from edged.playback.pages import LISTING_S, LiveChannel, mount_streams, mount_time
from edged.wire.request import RequestReceived
from tests.playback.fakes import world


def test_time_is_epoch_milliseconds() -> None:
    with world() as edge:
        mount_time(edge.server.router, lambda: 1_700_000_000.1239)
        answer = edge.client().get("/time")
    assert answer.body == b"1700000000123"
    assert answer.fields["cache-control"] == "no-store"
    assert answer.fields["content-type"].startswith("text/plain")


def test_streams_are_listed_most_watched_first() -> None:
    live = [
        LiveChannel(channel="a", title="A", since=1.5, viewers=2),
        LiveChannel(channel="b", title='"<B>"', since=2.5, viewers=7),
        LiveChannel(channel="0", title="", since=3.5, viewers=2),
    ]
    with world() as edge:
        mount_streams(edge.server.router, lambda: live)
        answer = edge.client().get("/streams.json")
    listed = json.loads(answer.body)
    assert [entry["channel"] for entry in listed] == ["b", "0", "a"]
    assert listed[0] == {"channel": "b", "title": '"<B>"', "since": 2.5, "viewers": 7}
    assert answer.fields["content-type"] == "application/json"
    assert answer.fields["cache-control"] == "max-age=1"


def live(channel: str, **changes: object) -> LiveChannel:
    return msgspec.structs.replace(
        LiveChannel(channel=channel, title="A title", since=1.5, viewers=1), **changes
    )


def test_one_channel_has_a_document_of_its_own() -> None:
    with world() as edge:
        channels = [live("alice"), live("no one"), live("0", title="zero")]
        mount_streams(edge.server.router, lambda: channels)
        client = edge.client()
        answer = client.get("/streams/alice.json")
        assert json.loads(answer.body) == json.loads(client.get("/streams.json").body)[1]
        assert answer.fields["content-type"] == "application/json"
        assert answer.fields["cache-control"] == "max-age=1"
        assert json.loads(client.get("/streams/no%20one.json").body)["channel"] == "no one"
        for name in ("bob.json", "alice", "", ".json", "alice.json/", "a/lice.json", "%E0.json"):
            answer = client.get(f"/streams/{name}")
            assert (answer.status, answer.fields["cache-control"]) == (404, "max-age=1"), name
        assert answer.body == b"the channel is not live\n"


def test_the_list_is_made_once_in_a_while() -> None:
    calls = 0
    now = 5.0

    def list_channels() -> list[LiveChannel]:
        nonlocal calls
        calls += 1
        return [live("alice", viewers=calls)]

    with world() as edge:
        mount_streams(edge.server.router, list_channels, lambda: now)
        client = edge.client()

        def seen() -> list[int]:
            whole = json.loads(client.get("/streams.json").body)
            return [
                whole[0]["viewers"],
                json.loads(client.get("/streams/alice.json").body)["viewers"],
            ]

        assert seen() == seen() == [1, 1]
        now += LISTING_S - 0.01
        assert seen() == [1, 1]
        now += 0.01
        assert seen() == [2, 2]


def test_many_channels_and_many_pages_cost_little() -> None:
    channels = [live(f"channel-{number}") for number in range(5000)]
    server = HttpServer(Router())
    mount_streams(server.router, lambda: channels)
    for path in ("/streams.json", "/streams/channel-7.json"):
        request = RequestReceived(method="GET", path=path, query="", fields=[], keep_alive=True)
        started = time.process_time()
        for _ in range(200):
            server.router.find(path)(request)  # type: ignore[misc] # It is mounted.
        each_s = (time.process_time() - started) / 200
        assert each_s < 1e-3, f"{path}: {each_s * 1e6:.0f} us"  # Made each time it takes 4 ms.
