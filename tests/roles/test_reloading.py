"""What a changed key becomes: every key there is has an effect, and a file's changes are found."""

from typing import Literal

import pytest
from msgspec import Struct, structs

from edged.config import Config, MetricsConfig, load_plugins
from edged.roles import reloading
from edged.roles.reloading import (
    EFFECTS,
    ReloadRefusedError,
    all_keys,
    check_changes,
    effect_of,
    find_changes,
)
from tests.roles.network import configure

POP: dict[str, object] = {
    "pop": {"name": "a"},
    "irs_client": {"addresses": ["127.0.0.1:1940"]},
    "ingest": {"rtmp": {}},
    "stream_keys": {"static": [{"channel": "alice", "key": "key-of-alice"}]},
}


def changed(**tables: object) -> list[str]:
    return [change.key for change in find_changes(configure(POP), configure({**POP, **tables}))]


def test_every_key_has_an_effect_and_every_effect_a_key() -> None:
    """A key that is added to the configuration is added to the table, or this fails."""
    keys = all_keys()
    assert len(keys) == len(set(keys)) > 60
    ours = {key for key in keys if not key.startswith("ingest.")}
    told = {key for key in ours if any(f"{key}.".startswith(f"{known}.") for known in EFFECTS)}
    assert ours - told == set(), "what becomes of these keys? say it in EFFECTS"
    assert EFFECTS.keys() - ours == set(), "there are no such keys"
    assert all(effect.text for effect in EFFECTS.values())
    for name, plugin in load_plugins().items():
        inner = {key.removeprefix(f"ingest.{name}.") for key in keys}
        assert plugin.live_keys.keys() - inner == set(), name


def test_the_enumeration_is_whole() -> None:
    keys = all_keys()
    assert {"pop", "pop.tls", "pop.tls.ca", "irs.rules", "origin.packager.part_ms"} <= set(keys)
    assert {"ingest.rtmp", "ingest.rtmp.tls", "ingest.rtmp.tls.key"} <= set(keys)
    assert "playback" not in keys, "a table that is always there is no key"
    assert "ingest" not in keys
    tables = {field.encode_name for field in structs.fields(Config)}
    assert {key.partition(".")[0] for key in keys} == tables


@pytest.mark.parametrize(
    ("tables", "keys"),
    [
        ({}, []),
        ({"log": {"level": "info"}}, []),  # The default, now written down.
        ({"log": {"level": "debug"}}, ["log.level"]),
        ({"pop": {"name": "b", "shard": 2}}, ["pop.name", "pop.shard"]),
        ({"ingest": {"rtmp": {"publishers_max": 5}}}, ["ingest.rtmp.publishers_max"]),
        ({"playback": {"hls": {"playlist_s": 20}}}, ["playback.hls.playlist_s"]),
        ({"stream_keys": {"static": []}}, ["stream_keys.static"]),
        ({"irs": {"listen": "127.0.0.1:1940", "warmup_s": 10}}, ["irs"]),
    ],
)
def test_changes_are_found_by_value(tables: dict[str, object], keys: list[str]) -> None:
    assert changed(**tables) == keys


def test_of_a_table_that_came_or_went_the_table_is_told(tmp_path: object) -> None:
    old = configure(POP)
    assert old.pop is not None
    (change,) = find_changes(old, structs.replace(old, pop=None, ingest=old.ingest))
    assert (change.key, change.effect.live) == ("pop", False)
    with_tls = structs.replace(
        old, ingest={"rtmp": {"tls": {"certificate": "c.pem", "key": "k.pem"}}}
    )
    (change,) = find_changes(old, with_tls)
    assert (change.key, change.effect.live) == ("ingest.rtmp.tls", False)
    (change,) = find_changes(structs.replace(old, ingest={}), old)
    assert (change.key, change.effect.live) == ("ingest.rtmp", False)


def test_all_that_need_a_restart_are_named_at_once() -> None:
    changes = find_changes(
        configure(POP),
        configure({**POP, "pop": {"name": "b"}, "log": {"level": "debug"},
                   "metrics": {"listen": "127.0.0.1:1"}}),
    )  # fmt: skip
    with pytest.raises(ReloadRefusedError) as refusal:
        check_changes(changes)
    assert str(refusal.value).splitlines() == [
        "2 keys cannot change without a restart; nothing has",
        "  pop.name: peers know this process by it",
        "  metrics.listen: a listener is bound once, when the process starts",
    ]
    check_changes([change for change in changes if change.effect.live])


class Grown(Struct, frozen=True, kw_only=True):
    """A configuration with keys that nobody has thought of."""

    metrics: MetricsConfig = MetricsConfig()
    novel: int = 0
    choice: Literal["a", "b"] | None = None


def test_what_nobody_thought_of_needs_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "Config", Grown)
    assert {"novel", "choice", "metrics.listen"} <= set(all_keys())
    assert not effect_of("novel").live
    assert not effect_of("pop.tls.novel").live
    assert not effect_of("ingest.nobody.novel").live
    assert not effect_of("ingest.rtmp.listen").live
    assert effect_of("ingest.rtmp.tls.key").live
