"""The API of real PoPs: an IRS, an origin and two PoPs in one process, over real sockets."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio
from msgspec import Struct
from structlog.testing import capture_logs

from edged import config as config_module
from edged.errors import ConfigError, PublishRefusedError
from edged.ingest.plugin import Door, HttpAnswer, HttpRequest, HttpRoute, IngestPlugin
from edged.roles.pop import PopRole
from edged.runtime.metrics import Metrics
from tests.api.client import Answer, Client, connected
from tests.backbone.network import until
from tests.ingest.rtmp_peer import Encoder, encoder
from tests.roles.network import KEY, Network, broadcast, configure, raw_network, running

SEEN_S_MAX = 0.5  # From a change to every PoP's lists.
BEARER = {"Authorization": f"Bearer {KEY}"}
ALICE = "/api/v1/streams/alice"
INGEST = "/api/v1/streams/ingest"


def roles_of(network: Network) -> dict[str, PopRole]:
    found = [role for role in network.process.roles if isinstance(role, PopRole)]
    return {role.name.removeprefix("pop "): role for role in found}


class Setting(Struct):
    network: Network
    encoder: Encoder
    west: Client
    east: Client

    @property
    def pops(self) -> dict[str, PopRole]:
        return roles_of(self.network)


@contextlib.asynccontextmanager
async def live(folder: Path) -> AsyncIterator[Setting]:
    """Alice is live at west, and known at east, each asked over one connection."""
    raws = raw_network(folder, pops=("west", "east"))
    async with (
        running(*map(configure, raws)) as network,
        encoder(network.rtmp(), KEY) as peer,
        connected(network.addresses["pop west"]["http"]) as west,
        connected(network.addresses["pop east"]["http"]) as east,
    ):
        await peer.accepted()
        await broadcast(peer)
        pops = roles_of(network).values()
        await until(lambda: all(pop.uplinks.lookup("alice") for pop in pops))
        yield Setting(network, peer, west, east)


async def test_a_stream_is_shown_at_both_without_addresses_and_routes(tmp_path: Path) -> None:
    async with live(tmp_path) as setting:
        for client in (setting.west, setting.east):
            listed = await client.ask("/api/v1/streams")
            assert listed.json["total"] == 1
            one = await client.ask(ALICE)
            assert one.json["title"] == "Alice"
            assert one.json["playlist_url"] == "/live/alice/master.m3u8"
            for answer in (listed, one):
                assert b"127.0.0.1" not in answer.body
                assert b"fra1" not in answer.body
                assert KEY.encode() not in answer.body
        media = (await setting.west.ask(ALICE)).json["media"]
        assert media == {
            "video": [{"codec": "avc1.64000a", "width": 128, "height": 72, "frame_rate": 30.0}],
            "audio": [{"codec": "mp4a.40.2", "channels": 2}],
        }
        assert (await setting.east.ask(ALICE)).json["media"] is None  # Not seen there yet.
        assert (await setting.east.ask("/api/v1/streams/bob")).code == "not_live"


async def test_the_playlist_is_that_of_players_with_paths_that_work_from_there(
    tmp_path: Path,
) -> None:
    async with live(tmp_path) as setting:
        for client in (setting.west, setting.east):
            there = await client.ask(f"{ALICE}/playlist.m3u8")  # It waits until it has come here.
            master = await client.ask("/live/alice/master.m3u8")
            assert there.status == master.status == 200
            assert there.body.replace(b"/live/alice/", b"") == master.body
            for name in ("cache-control", "content-type", "access-control-allow-origin"):
                assert there.fields[name] == master.fields[name]
            uris = [line for line in there.body.decode().splitlines() if line.startswith("/")]
            assert len(uris) == 1
            assert (await client.ask(uris[0])).status == 200
        assert (await setting.east.ask(ALICE)).json["media"] == (
            await setting.west.ask(ALICE)
        ).json["media"]
        answer = await setting.east.ask("/api/v1/streams/bob/playlist.m3u8")
        assert answer.code == "not_live"


async def test_a_playlist_that_cannot_come_is_a_problem(tmp_path: Path) -> None:
    async with live(tmp_path) as setting, trio.open_nursery() as nursery:
        hls = setting.pops["east"].hls

        async def ask() -> None:
            answer = await setting.east.ask(f"{ALICE}/playlist.m3u8")
            assert (answer.status, answer.code) == (503, "not_ready")
            assert answer.fields["content-type"] == "application/problem+json"
            assert answer.fields["retry-after"] == "1"
            assert answer.json["detail"] == "full: no room"

        nursery.start_soon(ask)
        with trio.fail_after(5):
            while not hls.statistics().blocked:
                await trio.lowlevel.checkpoint()
        hls.channel_unavailable("alice", "full: no room")


@pytest.mark.parametrize(("changed_at", "seen_at"), [("west", "east"), ("east", "west")])
async def test_a_change_at_either_pop_is_seen_at_the_other_in_half_a_second(
    tmp_path: Path, changed_at: str, seen_at: str
) -> None:
    change = {"title": "now", "category": "Music", "tags": ["live", "jazz"]}
    async with live(tmp_path) as setting:
        there = {"west": setting.west, "east": setting.east}
        told: list[object] = []
        setting.pops["west"].descriptions.on_changed = lambda *change: told.append(change)
        await there[seen_at].ask("/api/v1/streams")
        started = time.perf_counter()
        answer = await there[changed_at].ask(ALICE, "PATCH", change, BEARER)
        assert answer.status == 200
        assert {name: answer.json[name] for name in change} == change
        while True:
            listed = await there[seen_at].ask("/api/v1/streams")
            streams = msgspec.convert(listed.json["streams"], list[dict[str, object]])
            if {name: streams[0][name] for name in change} == change:
                break
        assert time.perf_counter() - started < SEEN_S_MAX
        assert len(told) == 1
        pop = setting.pops["west"]
        stream = pop.hub.get("alice")
        assert stream is not None
        assert stream.grant.title == "now"
        assert stream.grant.tags == ()  # Those of routing are others.


async def test_where_to_publish_is_told_by_who_is_asked_and_by_its_state(tmp_path: Path) -> None:
    asked = {"stream_key": KEY, "codec": "h264", "bitrate_bps": 6_000_000}
    async with live(tmp_path) as setting:
        west, east = setting.pops["west"], setting.pops["east"]
        await until(lambda: states_at(west) == states_at(east) == ["up"])
        for name, client in (("west", setting.west), ("east", setting.east)):
            told = (await client.ask(INGEST, "POST", asked)).json
            assert (told["pop"], told["channel"], told["protocol"]) == (name, "alice", "rtmp")
            assert told["url"] == f"rtmp://{setting.network.rtmp(name)}/live"
            assert told["reason"] == "the PoP that you asked takes it"
            alternatives = msgspec.convert(told["alternatives"], list[dict[str, str]])
            assert [place["pop"] for place in alternatives] == [
                {"west": "east", "east": "west"}[name]
            ]
        west.offers.draining = True
        told = (await setting.west.ask(INGEST, "POST", asked)).json
        assert (told["pop"], told["alternatives"]) == ("east", [])
        assert "is being drained" in str(told["reason"])
        assert (await setting.west.ask("/api/v1/health")).json["reasons"] == ["draining"]
        await until(lambda: states_at(east) == ["drain"])
        east.offers.draining = True
        await until(lambda: states_at(west) == ["drain"])
        answer = await setting.west.ask(INGEST, "POST", asked)
        assert (answer.status, answer.code) == (503, "no_route")
        assert answer.fields["retry-after"] == "1"
        async with encoder(setting.network.rtmp("east"), KEY) as other:
            await other.accepted()  # What is told is advice: the door has the last word.


def states_at(pop: PopRole) -> list[str]:
    """Of the other PoPs, as this one knows them."""
    return [row.ingest.state for row in pop.offers.others()]


async def test_why_not(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with live(tmp_path) as setting:
            for body, status, code in (
                ({"stream_key": "wrong-key-entirely"}, 403, "unknown_key"),
                ({"stream_key": KEY, "codec": "vp8"}, 422, "unsupported_codec"),
                ({"stream_key": KEY, "bitrate_bps": 10**9}, 422, "bitrate_too_high"),
                ({}, 422, "invalid_body"),
            ):
                answer = await setting.west.ask(INGEST, "POST", body)
                assert (answer.status, answer.code) == (status, code)
            async with encoder(setting.network.rtmp(), KEY) as second:
                await second.accepted()
                answer = await setting.west.ask(INGEST, "POST", {"stream_key": KEY})
                assert (answer.status, answer.code) == (409, "takeover")
                assert 0 < int(answer.fields["retry-after"]) <= 30
            for _ in range(9):
                await setting.west.ask(INGEST, "POST", {"stream_key": "another-wrong-key"})
            answer = await setting.west.ask(ALICE, "PATCH", {"title": "x"}, BEARER)
            assert (answer.status, answer.code) == (429, "rate_limited")
            assert 0 < int(answer.fields["retry-after"]) <= 60
            async with encoder(setting.network.rtmp(), KEY) as third:
                assert "rate_limited" in (await third.refused()).description
    assert KEY not in str(logs)
    assert "wrong-key" not in str(logs)


async def test_without_it_nothing_is_there(tmp_path: Path) -> None:
    raws = raw_network(tmp_path)
    raws[2]["api"] = {"enabled": False}
    async with running(*map(configure, raws)) as network:
        assert (await network.get("/api/v1/streams"))[0] == 404
        assert (await network.get("/streams.json"))[0] == 200


async def test_health_and_metrics(tmp_path: Path) -> None:
    _, _, pop = raw_network(tmp_path)
    async with running(configure(pop)) as network:
        status, body = await network.get("/api/v1/health")
        assert (status, msgspec.json.decode(body)) == (
            503,
            {"status": "failing", "reasons": ["no_table", "no_origin"]},
        )
        assert (await network.get("/api/v1/metrics"))[
            0
        ] == 404  # They have a listener of their own.
        text = network.process.metrics.render().decode()
        assert (
            'edged_api_requests_total{method="GET",role="pop west",route="/api/v1/health",'
            'status="503"} 1.0' in text
        )


# A plug-in with an HTTP side, as WHIP's will be.


class SignalConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ingest.signal]`."""

    path: str = "/signal/{channel}"


seen: list[HttpRequest] = []


async def signal(request: HttpRequest) -> HttpAnswer:
    seen.append(request)
    if request.body == b"full":
        raise PublishRefusedError("full", "no room", "origin fra1")
    return HttpAnswer(
        status=201,
        body=b"answer to " + request.body,
        content_type="application/sdp",
        fields=(("Location", f"/api/v1/signal/{request.params['channel']}/1"),),
    )


async def serve_signal(
    config: Struct, door: Door, *, task_status: trio.TaskStatus[dict[str, str]]
) -> None:
    path = msgspec.convert(config, SignalConfig).path
    door.add_routes(
        [
            HttpRoute(
                name="signal",
                method="POST",
                path=path,
                summary="Signal",
                description="Offers, and is answered.",
                content_types=("application/sdp",),
                handle=signal,
            )
        ]
    )
    task_status.started({})
    await trio.sleep_forever()


PLUGIN = IngestPlugin(name="signal", config_type=SignalConfig, serve=serve_signal, codecs=("opus",))


@pytest.fixture
def _with_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    known = config_module.load_plugins() | {"signal": PLUGIN}
    for place in ("edged.config.load_plugin", "edged.roles.plugins.load_plugin"):
        monkeypatch.setattr(place, known.__getitem__)
    seen.clear()


@pytest.mark.usefixtures("_with_plugin")
async def test_a_plug_in_has_routes_of_its_own_in_the_api(tmp_path: Path) -> None:
    raws = raw_network(tmp_path)
    raws[2]["ingest"] = {"rtmp": {"listen": "127.0.0.1:0"}, "signal": {}}
    async with (
        running(*map(configure, raws)) as network,
        connected(network.addresses["pop west"]["http"]) as client,
    ):
        fields = {"Content-Type": "application/sdp", **BEARER}

        async def offer(body: bytes) -> Answer:
            return await client.ask("/api/v1/signal/alice?x=1", "POST", body, fields)

        answer = await offer(b"offer")
        assert (answer.status, answer.body) == (201, b"answer to offer")
        assert answer.fields["content-type"] == "application/sdp"
        assert answer.fields["location"] == "/api/v1/signal/alice/1"
        (request,) = seen
        assert (request.params, request.query) == ({"channel": "alice"}, "x=1")
        assert (request.peer, request.secure) == ("[127.0.0.1]:0", False)
        assert (b"authorization", b"Bearer key-of-alice") in request.fields
        answer = await offer(b"full")
        assert (answer.status, answer.code) == (503, "full")
        assert b"fra1" not in answer.body
        document = await client.ask("/api/v1/openapi.json")
        assert "/api/v1/signal/{channel}" in msgspec.convert(
            document.json["paths"], dict[str, object]
        )
        assert b"Offers, and is answered." in (await client.ask("/api/v1/")).body


@pytest.mark.usefixtures("_with_plugin")
async def test_a_plug_in_whose_routes_clash_is_named_at_the_start(tmp_path: Path) -> None:
    raws = raw_network(tmp_path)
    raws[2]["ingest"] = {"signal": {"path": "/streams/ingest"}}
    role = PopRole(configure(raws[2]), Metrics())
    with pytest.raises(BaseExceptionGroup) as raised:
        await role.run()
    found: list[BaseException] = [raised.value]
    errors = []
    while found:
        error = found.pop()
        if isinstance(error, BaseExceptionGroup):
            found += error.exceptions
        else:
            errors.append(error)
    assert [type(error) for error in errors] == [ConfigError]
    assert "POST /api/v1/streams/ingest is there twice" in str(errors[0])
