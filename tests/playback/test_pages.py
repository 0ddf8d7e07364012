"""`/time` and `/streams.json`."""

import json

from edged.playback.pages import LiveChannel, mount_streams, mount_time
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
