"""The answer to `edged routes`."""

import re

import pytest
import trio

from edged.errors import EdgedError
from edged.media.routing import RouteRequest
from edged.media.stream import PriorityClass
from edged.roles import routes
from edged.roles.routes import describe_routes, parse_request
from edged.roles.sampler import Sampler
from edged.wire.table import Drain
from tests.roles.crowd import add_stream, make_pop


async def test_table_rules_and_streams() -> None:
    pop = make_pop()
    add_stream(pop, "bob", matched="the final")
    add_stream(pop, "alice")
    samples = Sampler([pop], []).of(pop)
    seen = describe_routes(pop, samples, trio.current_time(), 1004.0)
    assert (seen.pop, seen.table, seen.table_age_s) == ("west", (7, 42), 4.0)
    assert [origin.origin for origin in seen.origins] == ["fra1", "fra2"]
    (rule,) = seen.rules
    assert (rule.label, rule.match, rule.does) == ("the final", {}, "prefer fra2")
    assert rule.placed == 1
    assert [(stream.channel, stream.route.matched) for stream in seen.streams] == [
        ("alice", ""),
        ("bob", "the final"),
    ]
    assert seen.streams_total == 2
    assert seen.drained == []
    pop.rehomer.command(Drain(origin="fra1", until=1e9, left_s=60.0))
    (drained,) = describe_routes(pop, samples, trio.current_time(), 1004.0).drained
    homes = [placement.decision.origin for placement in pop.uplinks.placements.values()]
    assert (drained.origin, drained.left) == ("fra1", homes.count("fra1"))
    assert drained.seconds_left == 60.0


async def test_streams_are_limited() -> None:
    pop = make_pop()
    for number in range(routes.STREAMS_MAX + 1):
        add_stream(pop, f"c{number:04}")
    samples = Sampler([pop], []).of(pop)
    seen = describe_routes(pop, samples, trio.current_time(), 1004.0)
    assert len(seen.streams) == routes.STREAMS_MAX
    assert seen.streams_total == routes.STREAMS_MAX + 1


def test_what_stream_is_asked_about() -> None:
    assert parse_request({"channel": "alice"}) == RouteRequest(channel="alice")
    given = {"channel": "alice", "class": "partner", "tags": '["a b","c"]', "protocol": "rtmps"}
    assert parse_request(given) == RouteRequest(
        channel="alice", priority=PriorityClass.PARTNER, tags=("a b", "c"), protocol="rtmps"
    )
    for arguments, message in (
        ({}, "route-explain needs a channel"),
        ({"channel": "a", "class": "vip"}, "class 'vip' is none of partner, affiliate, basic"),
        ({"channel": "a", "tags": "a,b"}, "tags 'a,b' are no list of texts"),
        ({"channel": "a", "tags": "[5]"}, "Expected `str`, got `int`"),
    ):
        with pytest.raises(EdgedError, match=re.escape(message)):
            parse_request(arguments)
