"""What one file says for each of its shards."""

import copy
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.runtime.shards import SHARDS_MAX, for_shard, of_shard

FILE: dict[str, object] = {
    "pop": {"name": "ams1", "shard": 9},
    "irs_client": {"addresses": ["127.0.0.1:1940"], "table_file": "/var/lib/edged/table"},
    "ingest": {"rtmp": {"listen": "[::]:1935"}},
    "playback": {"listen": "[::]:8080"},
}


def derive(raw: dict[str, object], shard: int) -> dict[str, object]:
    return for_shard(raw, shard, admin="/run/edged/admin.sock", metrics="127.0.0.1:9464")


def test_what_shards_cannot_share_gets_their_number() -> None:
    before = copy.deepcopy(FILE)
    own = derive(FILE, 2)
    assert own["pop"] == {"name": "ams1", "shard": 2}
    assert own["irs_client"] == {
        "addresses": ["127.0.0.1:1940"],
        "table_file": "/var/lib/edged/table-2",
    }
    assert own["admin"] == {"socket": "/run/edged/admin-2.sock"}
    assert own["metrics"] == {"listen": "127.0.0.1:9465"}
    assert (own["ingest"], own["playback"]) == (FILE["ingest"], FILE["playback"])
    assert before == FILE, "the file itself is not touched"


def test_what_the_file_says_is_derived_from() -> None:
    raw: dict[str, object] = {
        "admin": {"socket": "/tmp/a.b.sock", "listen": "127.0.0.1:9000"},  # noqa: S108 - a name
        "metrics": {"listen": "[::1]:7000"},
    }
    own = derive(raw, SHARDS_MAX)
    assert own["admin"] == {"socket": "/tmp/a.b-64.sock", "listen": "127.0.0.1:9063"}  # noqa: S108
    assert own["metrics"] == {"listen": "[::1]:7063"}
    assert derive({"metrics": {"listen": "127.0.0.1:0"}}, 5)["metrics"] == {"listen": "127.0.0.1:0"}


@pytest.mark.parametrize("wrong", [5, "", "nowhere", ["x"], {"listen": 5}, {"socket": 5}, None])
def test_what_is_wrong_is_left_to_be_reported(wrong: object) -> None:
    raw: dict[str, object] = dict.fromkeys(("pop", "irs_client", "admin", "metrics"), wrong)
    own = derive(raw, 3)
    for name in ("pop", "irs_client", "admin", "metrics"):
        if not isinstance(wrong, dict):
            assert own[name] == wrong
    own = derive({"metrics": {"listen": wrong}, "admin": {"socket": wrong}}, 3)
    assert own["metrics"] == {"listen": wrong}


@hypothesis.given(st.lists(st.integers(1, SHARDS_MAX), min_size=2, max_size=2, unique=True))
def test_no_two_shards_share_what_they_must_not(two: list[int]) -> None:
    one, other = (derive(FILE, shard) for shard in two)
    for name in ("pop", "irs_client", "admin", "metrics"):
        assert one[name] != other[name]


def test_names_of_files() -> None:
    assert of_shard(Path("/run/edged/admin.sock"), 12) == Path("/run/edged/admin-12.sock")
    assert of_shard(Path("table"), 1) == Path("table-1")
    assert of_shard(Path("/"), 1) == Path("/")


def test_what_other_pops_connect_to_is_each_shards_own() -> None:
    raw: dict[str, object] = {
        "pop": {"name": "ams1", "reach": {"listen": "[::]:1942", "address": "ams1.net:1942"}}
    }
    own = for_shard(raw, 3, admin="/run/admin.sock", metrics="127.0.0.1:9464")
    pop = own["pop"]
    assert isinstance(pop, dict)
    assert pop["reach"] == {"listen": "[::]:1944", "address": "ams1.net:1944"}
    assert raw["pop"]["reach"]["listen"] == "[::]:1942"  # type: ignore[index] # a table
