"""`edged key new`: what it prints can be used as it stands."""

import json
import tomllib
from pathlib import Path

import pytest

from edged.errors import ConfigError, PublishRefusedError
from edged.media.stream import PriorityClass
from edged.policy.stream_keys import StreamKeys, StreamKeysConfig
from edged.runtime.structs import Problem, convert_all
from tests.cli.invoke import Answer

SECRET = "s" * 40
POP = f"""
[pop]
name = "a"
[irs_client]
addresses = ["127.0.0.1:1940"]
[ingest.rtmp]
[stream_keys.secrets]
new = "{SECRET}"
old = "{"o" * 40}"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pop.toml"
    path.write_text(POP)
    return path


def keys_of(text: str) -> tuple[StreamKeys, str]:
    """The table printed, read as the PoP reads it; and the key in it."""
    problems: list[Problem] = []
    table = tomllib.loads(text)["stream_keys"]
    made = convert_all(table, StreamKeysConfig, "stream_keys", problems)
    assert made is not None, problems
    return StreamKeys.from_config(made), table["static"][0]["key"]


def test_a_static_key_is_a_table_for_the_file() -> None:
    answer = Answer("key", "new", "alice")
    assert answer.out.startswith("# Put this into the file of each PoP")
    keys, key = keys_of(answer.out)
    grant = keys.check("live", key, 0.0, "rtmp")
    assert (grant.channel, grant.priority) == ("alice", PriorityClass.BASIC)
    assert keys_of(Answer("key", "new", "alice").out)[1] != key


@pytest.mark.parametrize("signed", [False, True])
def test_a_key_for_some_protocols(signed: bool, config: Path) -> None:
    of_file = ("-c", str(config)) if signed else ()
    answer = Answer("key", "new", "alice", "--protocol", "rtmps", "--protocol", "srt", *of_file)
    if signed:
        keys = StreamKeys.from_config(StreamKeysConfig(secrets={"new": SECRET}))
        key = answer.out.strip()
    else:
        keys, key = keys_of(answer.out)
    assert keys.check("live", key, 0.0, "rtmps").channel == "alice"
    with pytest.raises(PublishRefusedError, match="it allows publish:rtmps, publish:srt"):
        keys.check("live", key, 0.0, "rtmp")
    answer = Answer("key", "new", "alice", "--protocol", "No Such", *of_file)
    assert isinstance(answer.error, ConfigError)


def test_all_that_a_static_key_may_say() -> None:
    title = 'A "quoted" \\ title, für alle 🎬'
    answer = Answer(
        *("key", "new", "alice", "--class", "Partner"),
        *("--title", title, "--tag", "event:final", "--tag", "lang:en"),
    )
    keys, key = keys_of(answer.out)
    grant = keys.check("live", key, 0.0, "rtmp")
    assert grant.priority is PriorityClass.PARTNER
    assert grant.title == title
    assert grant.tags == ("event:final", "lang:en")


def test_with_a_secret_the_key_is_signed_by_the_first(config: Path) -> None:
    answer = Answer("key", "new", "alice", "-c", config, "--title", "Hello", "--tag", "x")
    key = answer.out.strip()
    grant = StreamKeys(secrets={"new": SECRET}).check("live", key, 0.0, "rtmp")
    assert (grant.channel, grant.title, grant.tags) == ("alice", "Hello", ("x",))
    assert grant.expires_at is None


def test_a_signed_key_expires(config: Path) -> None:
    shown = json.loads(Answer("key", "new", "alice", "-c", config, "--days", "1", "--json").out)
    assert (shown["channel"], shown["signed_by"]) == ("alice", "new")
    keys = StreamKeys(secrets={"new": SECRET})
    expires_at = keys.check("live", shown["key"], 0.0, "rtmp").expires_at
    assert expires_at is not None
    with pytest.raises(PublishRefusedError, match="expired_key"):
        keys.check("live", shown["key"], expires_at + 1, "rtmp")


def test_json_of_a_static_key() -> None:
    shown = json.loads(Answer("key", "new", "alice", "--json").out)
    assert shown["signed_by"] is None
    assert len(shown["key"]) >= 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("alice", "--class", "vip"), "--class 'vip' is none of partner, affiliate, basic"),
        (
            ("alice", "--latency", "fast"),
            "--latency 'fast' is none of default, low, ultra, standard",
        ),
        (("alice", "--days", "3"), "--days needs a signed key"),
        (("Bad Name",), "channel: 'Bad Name' is not allowed"),
        (("alice", "--tag", "Bad Tag"), r"tags\[0\]: 'Bad Tag' is not allowed"),
        (("alice", "--title", "x" * 141), "title: 'x"),
    ],
)
def test_what_could_never_be_used_is_refused(arguments: tuple[str, ...], message: str) -> None:
    answer = Answer("key", "new", *arguments)
    assert isinstance(answer.error, ConfigError)
    with pytest.raises(ConfigError, match=message):
        raise answer.error


def test_a_signed_key_for_no_channel(config: Path) -> None:
    assert isinstance(Answer("key", "new", "Bad Name", "-c", config).error, ConfigError)


@pytest.mark.parametrize("signed", [False, True])
def test_a_key_of_a_latency_class(signed: bool, config: Path) -> None:
    of_file = ("-c", str(config)) if signed else ()
    answer = Answer("key", "new", "alice", "--latency", "ultra", *of_file)
    if signed:
        keys = StreamKeys.from_config(StreamKeysConfig(secrets={"new": SECRET}))
        key = answer.out.strip()
    else:
        keys, key = keys_of(answer.out)
    assert keys.check("live", key, 0.0, "rtmp").latency == "ultra"
