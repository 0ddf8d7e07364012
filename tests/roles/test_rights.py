"""A PoP's playback rights by its file: what is protected at every door, reloads, numbers."""

import json
import time
from pathlib import Path

import pytest
import trio

from edged.config import Config, find_hints, parse_config
from edged.errors import ConfigError
from edged.playback.hls import HlsService
from edged.playback.http import HttpServer, Router
from edged.playback.token_keys import import_key, sign_token
from edged.roles.pop import PopRole
from edged.roles.rights import RightsOffice
from edged.runtime.metrics import Metrics
from tests.backbone.network import until
from tests.ingest.rtmp_peer import encoder
from tests.roles.network import KEY, broadcast, configure, raw_network, running

PHRASE = "put-at-least-32-characters-of-chance-here"
API = "/api/v1/streams/alice/playlist.m3u8"
MASTER = "/live/alice/master.m3u8"


def token(channel: str = "alice", key_id: str = "a", phrase: str = PHRASE) -> str:
    claims: dict[str, object] = {"channels": channel, "exp": int(time.time()) + 60}
    key = import_key("HS256", phrase.encode())
    return sign_token(claims, key, algorithm="HS256", key_id=key_id)


def table(folder: Path, *ids: str, channels: object = "*", **more: object) -> dict[str, object]:
    path = folder / "rights.key"
    if not path.exists():
        path.write_text(PHRASE)
    keys = [{"id": name, "algorithm": "HS256", "file": str(path)} for name in ids]
    return {"channels": [channels], "keys": keys, **more}


def make(rights: dict[str, object]) -> Config:
    raw: dict[str, object] = {
        "pop": {"name": "a"},
        "irs_client": {"addresses": ["127.0.0.1:1940"]},
        "ingest": {"rtmp": {}},
        "playback": {"rights": rights},
    }
    config, problems = parse_config(raw)
    assert config is not None
    assert problems == []
    return config


@pytest.fixture
def office(tmp_path: Path) -> RightsOffice:
    hls = HlsService(
        lookup=lambda _: None,
        subscribe=lambda _: None,
        unsubscribe=lambda _: None,
        now=lambda: 0.0,
    )
    return RightsOffice(make(table(tmp_path, "a")), HttpServer(Router()), hls)


async def test_protected_at_every_door(tmp_path: Path) -> None:
    raws = raw_network(tmp_path)
    for raw in raws:
        if "pop" in raw:
            playback = raw["playback"]
            assert isinstance(playback, dict)
            playback["rights"] = table(tmp_path, "a", channels="alice")
    async with running(*map(configure, raws)) as network, encoder(network.rtmp(), KEY) as peer:
        await peer.accepted()
        await broadcast(peer)
        (pop,) = [role for role in network.process.roles if isinstance(role, PopRole)]
        await until(lambda: pop.uplinks.lookup("alice"))
        text = token()
        with trio.fail_after(10):
            while (await network.get(f"{MASTER}?token={text}"))[0] != 200:  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert (await network.get(MASTER))[0] == 401
        assert (await network.get(f"{MASTER}?token={token('bob')}"))[0] == 403
        status, body = await network.get(API)
        assert (status, json.loads(body)["code"]) == (401, "playback_token")
        status, body = await network.get(f"{API}?token={token('bob')}")
        assert (status, json.loads(body)["code"]) == (403, "not_admitted")
        status, body = await network.get(f"{API}?token={text}")
        assert status == 200
        assert f"/t/{text}/live/alice/".encode() in body
        status, body = await network.get("/streams.json")
        assert b'"alice"' in body, "who is live is no secret"
        samples = network.process.metrics.render().decode()
        role = '{role="pop west"}' if "west" in pop.name else f'{{role="{pop.name}"}}'
        assert f"edged_playback_tokens_verified_total{role} 2.0" in samples
        assert f"edged_playback_tokens_held{role} 2.0" in samples
        assert 'code="missing"' in samples
        assert 'code="other_channel"' in samples


def test_a_reload_reads_the_files_again(office: RightsOffice, tmp_path: Path) -> None:
    def check(text: str) -> object:
        return office.gate.rights.check(text, "alice", now_unix_s=time.time())

    old, before = token(), office.gate.rights
    assert not hasattr(check(old), "code")
    office.prepare_reload(make(table(tmp_path, "a")))()
    assert office.gate.rights is before, "nothing has changed: nothing is verified again"
    phrase = "another-secret-of-at-least-32-characters"
    (tmp_path / "rights.key").write_text(phrase)
    take = office.prepare_reload(make(table(tmp_path, "a")))
    assert not hasattr(check(old), "code"), "not yet taken"
    take()
    assert getattr(check(old), "code", None) == "signature"
    assert not hasattr(check(token(phrase=phrase)), "code")
    office.prepare_reload(make({}))()
    assert not office.gate.rights.protects("alice")
    office.prepare_reload(make(table(tmp_path, "a")))()
    assert office.gate.rights.protects("alice")


def test_a_reload_with_a_bad_key_changes_nothing(office: RightsOffice, tmp_path: Path) -> None:
    new, before = make(table(tmp_path, "a", "b")), office.gate.rights
    (tmp_path / "rights.key").write_text("short")
    with pytest.raises(ConfigError, match=r"keys\[0\].file: .* has 5 bytes, HS256 needs 32"):
        office.prepare_reload(new)
    assert office.gate.rights is before


def test_what_is_wrong_is_said_with_the_file(tmp_path: Path) -> None:
    raw: dict[str, object] = {
        "pop": {"name": "a"},
        "irs_client": {"addresses": ["127.0.0.1:1940"]},
        "ingest": {"rtmp": {}},
        "playback": {"rights": table(tmp_path, "a", "a")},
    }
    _, problems = parse_config(raw)
    assert [str(problem) for problem in problems] == [
        "playback.rights.keys[1].id: 'a' is there twice"
    ]
    (tmp_path / "rights.key").unlink()
    raw["playback"] = {"rights": table(tmp_path, "a", forms=["query"])}
    (tmp_path / "rights.key").write_text("short")
    _, problems = parse_config(raw)
    assert {problem.key for problem in problems} == {
        "playback.rights.forms",
        "playback.rights.keys[0].file",
    }
    raw["playback"] = {"rights": {"channels": ["*"]}}
    _, problems = parse_config(raw)
    assert [problem.key for problem in problems] == ["playback.rights.keys"]
    assert find_hints(make({}))


def test_metrics_of_an_office(office: RightsOffice) -> None:
    metrics = Metrics()
    office.register(metrics, role="pop a")
    assert 'edged_playback_tokens_held{role="pop a"} 0.0' in metrics.render().decode()
