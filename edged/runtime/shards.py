"""Several processes of one PoP on a host, its shards, which one file configures.

Public ports are shared (SO_REUSEPORT), and so are names, keys and certificates. What a process
cannot share is derived from the shard's number: the admin socket and the file of the routing table
get names of their own, admin.sock becoming admin-2.sock, and what else listens for people of this
host the port of the file + number - 1.
"""

from collections.abc import Callable
from pathlib import Path

from edged.errors import ConfigError
from edged.runtime.listeners import parse_address

SHARDS_MAX = 64  # Of one host: a process for each core of a large one.


def for_shard(raw: dict[str, object], shard: int, *, admin: str, metrics: str) -> dict[str, object]:
    """What a decoded file says for one of its shards.

    `admin` and `metrics`: the socket and the address where the file says nothing. What is of a
    wrong type is left as it is, to be reported.
    """
    assert 1 <= shard <= SHARDS_MAX, "checked by the command line"
    own = {name: dict(table) if isinstance(table, dict) else table for name, table in raw.items()}
    if isinstance(pop := own.get("pop"), dict):
        pop["shard"] = shard
        if isinstance(reach := pop.get("reach"), dict):
            pop["reach"] = reach = dict(reach)
            _change(reach, "listen", lambda listen: _later_port(listen, shard - 1))
            _change(reach, "address", lambda address: _later_port(address, shard - 1))
    if isinstance(client := own.get("irs_client"), dict) and client.get("table_file"):
        _change(client, "table_file", lambda file: str(of_shard(Path(file), shard)))
    if isinstance(table := own.setdefault("admin", {}), dict):
        table.setdefault("socket", admin)
        _change(table, "socket", lambda place: str(of_shard(Path(place), shard)))
        _change(table, "listen", lambda listen: _later_port(listen, shard - 1))
    if isinstance(table := own.setdefault("metrics", {}), dict):
        table.setdefault("listen", metrics)
        _change(table, "listen", lambda listen: _later_port(listen, shard - 1))
    return own


def of_shard(path: Path, shard: int) -> Path:
    """A file's name with a shard's number."""
    return path.with_name(f"{path.stem}-{shard}{path.suffix}") if path.name else path


def _change(table: dict[str, object], key: str, change: Callable[[str], str]) -> None:
    if isinstance(value := table.get(key), str):
        table[key] = change(value)


def _later_port(listen: str, count: int) -> str:
    try:
        _, port = parse_address(listen)
    except ConfigError:
        return listen
    # Beyond the last port the address is reported for what it has become; 0 is any.
    return f"{listen.rpartition(':')[0]}:{port + count}" if port else listen
