"""A file read again: what has changed, and which keys take effect without a disconnect.

`EFFECTS` says of every key either how it takes effect, or why it needs a restart; what is said of
a table counts for the keys in it that are not there. Plug-ins say it of their own tables, by
`IngestPlugin.live_keys`. A list counts as one key.
"""

import types
import typing
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated

import structlog
from msgspec import Struct, structs

from edged.config import Config, load_plugins, plugin_config
from edged.errors import ConfigError, EdgedError
from edged.roles.common import Commit

logger = structlog.get_logger("edged")


class Effect(Struct, frozen=True):
    """What becomes of a changed key."""

    live: bool
    text: str  # How it takes effect, or why it needs a restart.


class Change(Struct, frozen=True, kw_only=True):
    """A key that is another than what runs: a line of `edged reload`."""

    key: str
    effect: Effect


class ReloadRefusedError(ConfigError):
    """The file is in order, but some of its keys need a restart; nothing has changed."""


def _live(how: str) -> Effect:
    return Effect(live=True, text=how)


def _restart(why: str) -> Effect:
    return Effect(live=False, text=why)


_API = _restart("the API is made when the process starts")
_MEASURED = _restart("streams are measured by it from their beginning")
_ROLE = _restart("roles come and go with their process")
_NAME = _restart("peers know this process by it")
_LISTENER = _restart("a listener is bound once, when the process starts")
_TLS = _restart("listeners and sessions have TLS or not from their beginning")
_FILES = _live("read at once, for connections from now on")
_LADDER = _restart("what an origin has room for is counted with it from the start")
_STREAMS = _live("for streams that begin from now on")
_TABLE = _live("every PoP gets a new table at once")
_LINKS = _live("every PoP gets a new table at once; links are measured anew")
_RIGHTS = _live("from the next request on; each token is verified anew, once")
_SESSION = _live("from the next attempt to connect on")

_REACH = _live("at the next look at orders, within 1 s")
_REACH_PLAN = _live("with the next plan")

EFFECTS: dict[str, Effect] = {
    "pop": _ROLE,
    "pop.name": _NAME,
    "pop.shard": _NAME,
    "pop.publisher_grace_s": _live("for publishers that are lost from now on"),
    "pop.ingest_urls": _restart("every PoP knows this one by them"),
    "pop.reach": _live("with the next orders; without the table, none are obeyed any more"),
    "pop.reach.holds_max": _REACH,
    "pop.reach.hold_mbps_max": _REACH,
    "pop.reach.grace_s": _live("for what is no longer ordered from then on"),
    "pop.reach.changes_per_s": _REACH,
    "pop.reach.listen": _LISTENER,
    "pop.reach.address": _restart("other PoPs are told it while this one runs"),
    "pop.reach.relays_max": _live("for other PoPs' subscriptions from then on"),
    "pop.reach.relay_mbps_max": _live("for other PoPs' subscriptions from then on"),
    "pop.reach.relayed_max": _REACH,
    "pop.tls": _TLS,
    "pop.tls.ca": _FILES,
    "pop.tls.certificate": _FILES,
    "pop.tls.key": _FILES,
    "origin": _ROLE,
    "origin.name": _NAME,
    "origin.listen": _LISTENER,
    "origin.address": _restart("IRS is told it at the beginning of a session"),
    "origin.probe_port": _LISTENER,
    "origin.domain": _restart("IRS is told it at the beginning of a session"),
    "origin.slots": _live("told with the next heartbeat; who has a slot keeps it"),
    "origin.slots_source_only": _live("told with the next heartbeat; who is there stays"),
    "origin.slots_reserve": _live("told with the next heartbeat; who has a slot keeps it"),
    "origin.packager.part_ms": _STREAMS,
    "origin.packager.segment_s": _STREAMS,
    "origin.packager.target_duration_s": _STREAMS,
    "origin.packager.parts": _STREAMS,
    "origin.packager.part_hold_back_ms": _STREAMS,
    "origin.packager.hold_back_s": _STREAMS,
    "origin.packager.classes.low.part_ms": _STREAMS,
    "origin.packager.classes.low.segment_s": _STREAMS,
    "origin.packager.classes.low.target_duration_s": _STREAMS,
    "origin.packager.classes.low.parts": _STREAMS,
    "origin.packager.classes.low.part_hold_back_ms": _STREAMS,
    "origin.packager.classes.low.hold_back_s": _STREAMS,
    "origin.packager.classes.ultra.part_ms": _STREAMS,
    "origin.packager.classes.ultra.segment_s": _STREAMS,
    "origin.packager.classes.ultra.target_duration_s": _STREAMS,
    "origin.packager.classes.ultra.parts": _STREAMS,
    "origin.packager.classes.ultra.part_hold_back_ms": _STREAMS,
    "origin.packager.classes.ultra.hold_back_s": _STREAMS,
    "origin.packager.classes.standard.part_ms": _STREAMS,
    "origin.packager.classes.standard.segment_s": _STREAMS,
    "origin.packager.classes.standard.target_duration_s": _STREAMS,
    "origin.packager.classes.standard.parts": _STREAMS,
    "origin.packager.classes.standard.part_hold_back_ms": _STREAMS,
    "origin.packager.classes.standard.hold_back_s": _STREAMS,
    "origin.playlist_s": _live("for each stream from its next part on"),
    "origin.retention_s": _live("for each stream from its next part on"),
    "origin.payload_bytes_max": _live("for each stream from its next part on"),
    "origin.cache.memory_bytes_max": _live("from the next part of any stream on"),
    "origin.cache.directory": _restart("its folder is made when the process starts"),
    "origin.cache.disk_bytes_max": _live("from the next part of any stream on"),
    "origin.ladder": _LADDER,
    "origin.ladder.slots": _LADDER,
    "origin.tls": _TLS,
    "origin.tls.ca": _FILES,
    "origin.tls.certificate": _FILES,
    "origin.tls.key": _FILES,
    "irs": _ROLE,
    "irs.listen": _LISTENER,
    "irs.push_interval_s": _TABLE,
    "irs.lease_ttl_s": _TABLE,
    "irs.table_ttl_s": _TABLE,
    "irs.reserve_fraction": _TABLE,
    "irs.policy": _TABLE,
    "irs.moves_per_s": _live("for drains and migrations that begin from now on"),
    "irs.warmup_s": _restart("it is counted from the start"),
    "irs.rules": _TABLE,
    "irs.sources": _live("at once; a source whose table is another begins anew, as do the others"),
    "irs.journal": _restart("its files are opened when the process starts"),
    "irs.journal.directory": _restart("its files are opened when the process starts"),
    "irs.journal.bytes_max": _restart("its files are opened when the process starts"),
    "irs.history": _restart("its file is opened when the process starts"),
    "irs.history.file": _restart("its file is opened when the process starts"),
    "irs.history.days": _restart("its file is opened when the process starts"),
    "irs.reach": _live("with the next plan; without the table, what was ordered expires"),
    "irs.reach.interval_s": _REACH_PLAN,
    "irs.reach.ttl_s": _REACH_PLAN,
    "irs.reach.near_ms": _REACH_PLAN,
    "irs.reach.viewers_per_replica": _REACH_PLAN,
    "irs.reach.replicas_max": _REACH_PLAN,
    "irs.reach.margin_ms": _REACH_PLAN,
    "irs.reach.orders_per_pop_max": _REACH_PLAN,
    "irs.sites": _LINKS,
    "irs.links": _LINKS,
    "irs.paths": _LINKS,
    "irs.shedding": _live("with the next look, within 0.5 s; what was shed stays so"),
    "irs.state_file": _restart("it is read and locked once, when the process starts"),
    "irs.tls": _TLS,
    "irs.tls.ca": _FILES,
    "irs.tls.certificate": _FILES,
    "irs.tls.key": _FILES,
    "irs_client": _ROLE,
    "irs_client.addresses": _restart("a session is kept to each from the start"),
    "irs_client.table_file": _restart("it is read once, when the process starts"),
    "irs_client.telemetry_interval_s": _live("from the next report on"),
    "irs_client.persist_interval_s": _live("from the next write on"),
    "irs_client.connect_timeout_s": _SESSION,
    "irs_client.reconnect_s_max": _SESSION,
    "playback.listen": _LISTENER,
    "playback.hls.playlist_s": _live("for each stream from its next part on"),
    "playback.hls.retention_s": _live("for each stream from its next part on"),
    "playback.hls.payload_bytes_max": _live("for each stream from its next part on"),
    "playback.hls.unwatched_s": _live("at the next look at who is watched, within 5 s"),
    "playback.cache.memory_bytes_max": _live("from the next part of any stream on"),
    "playback.cache.directory": _restart("its folder is made when the process starts"),
    "playback.cache.disk_bytes_max": _live("from the next part of any stream on"),
    "playback.rights.channels": _RIGHTS,
    "playback.rights.forms": _RIGHTS,
    "playback.rights.keys": _RIGHTS,
    "playback.rights.jwks": _RIGHTS,
    "playback.rights.audience": _RIGHTS,
    "playback.rights.clock_skew_s": _RIGHTS,
    "playback.rights.tokens_max": _RIGHTS,
    "playback.tls": _LISTENER,
    "playback.tls.listen": _LISTENER,
    "playback.tls.http2": _LISTENER,
    "playback.tls.certificate": _FILES,
    "playback.tls.key": _FILES,
    "stream_keys.static": _live("for publishers from now on; who is live stays"),
    "stream_keys.secrets": _live("for publishers from now on; who is live stays"),
    "stream_keys.apps": _live("for publishers from now on; who is live stays"),
    "stream_keys.callback": _restart(
        "its cache and its connections are made when the process starts"
    ),
    "webhooks": _live("at once; what waits for one that keeps its name is kept"),
    "ingest_health.keyframe_interval_s_max": _MEASURED,
    "ingest_health.partner_mbps_max": _MEASURED,
    "ingest_health.affiliate_mbps_max": _MEASURED,
    "ingest_health.basic_mbps_max": _MEASURED,
    "admin.socket": _LISTENER,
    "admin.listen": _LISTENER,
    "admin.token_file": _restart("the door on HTTP was opened with it"),
    "admin.token_sha256": _restart("the door on HTTP was opened with it"),
    "api.enabled": _API,
    "api.rate_per_minute": _API,
    "api.body_bytes_max": _API,
    "api.requests_max": _API,
    "api.request_timeout_s": _API,
    "api.bitrate_bps_max": _API,
    "api.trusted_proxies": _API,
    "api.admin_token_sha256": _API,
    "backbone.dscp": _restart("sockets are marked when they are opened"),
    "drain.deadline_s": _live("for the next drain"),
    "drain.on_stop_s": _live("for the end of this process"),
    "drain.redirect": _live("for the next drain"),
    "metrics.listen": _LISTENER,
    "log.level": _live("at once"),
    "log.format": _live("at once"),
    "log.lines_per_second_max": _live("at once"),
}
_PLUGIN = _restart("the plug-in takes it when it starts")


def effect_of(key: str) -> Effect:
    """What becomes of a key that has changed; of one that nobody has thought of, a restart."""
    table, _, rest = key.partition(".")
    if table == "ingest":
        name, _, inner = rest.partition(".")
        plugin = load_plugins().get(name)
        how = None if plugin is None else plugin.live_keys.get(inner)
        return _PLUGIN if how is None else _live(how)
    while key:
        if key in EFFECTS:
            return EFFECTS[key]
        key = key.rpartition(".")[0]
    return _restart("it is read when the process starts")


def find_changes(old: Config, new: Config) -> list[Change]:
    """The keys that differ; of a table that came or went, the table."""
    before, after = dict(_values(old)), dict(_values(new))
    keys = [
        key for key in {**before, **after} if before.get(key, _ABSENT) != after.get(key, _ABSENT)
    ]
    tables = [f"{key}." for key in keys]
    return [
        Change(key=key, effect=effect_of(key))
        for key in keys
        if not any(key.startswith(table) for table in tables)
    ]


def check_changes(changes: list[Change]) -> None:
    """Raise ReloadRefusedError with every key that needs a restart, and why."""
    refused = [change for change in changes if not change.effect.live]
    if refused:
        lines = "\n".join(f"  {change.key}: {change.effect.text}" for change in refused)
        count = f"{len(refused)} key{'s' if len(refused) != 1 else ''}"
        raise ReloadRefusedError(f"{count} cannot change without a restart; nothing has\n{lines}")


def prepare_plugin(key: str, prepare: Callable[[], Callable[[], None]]) -> Commit:
    """Have a plug-in check its table `key`, and return what takes that into use.

    Whatever it raises, though it should not, is a ConfigError: it refuses the file.
    """
    try:
        take = prepare()
    except EdgedError:
        raise
    except Exception as error:
        logger.exception("plug-in failed to check its table", key=key)
        raise ConfigError(f"{key}: its plug-in failed to check it: {error!r}") from error
    return partial(take_into_use, key, quietly(take))


def quietly(take: Callable[[], None]) -> Commit:
    """What takes something into use, as one of which nothing is to be known."""

    def commit() -> list[str]:
        take()
        return []

    return commit


def take_into_use(name: str, commit: Commit) -> list[str]:
    """What is to be known of it, be it that it failed: others have the new file already."""
    try:
        return commit()
    except Exception as error:
        logger.exception("configuration taken into use in part", of=name)
        return [f"{name}: not all of the file could be taken into use; restart ({error!r})"]


def all_keys() -> list[str]:
    """Every key there can be, those of the installed plug-ins too; the tables as well that can be
    absent.
    """
    found = [key for key in _keys(Config, "") if key != "ingest"]
    for name, plugin in load_plugins().items():
        found += [f"ingest.{name}", *_keys(plugin.config_type, f"ingest.{name}.")]
    return found


_ABSENT = object()


def _keys(wanted: type[Struct], prefix: str) -> Iterator[str]:
    for field in structs.fields(wanted):
        key = f"{prefix}{field.encode_name}"
        inner, optional = _table_in(field.type)
        if inner is None or optional:
            yield key
        if inner is not None:
            yield from _keys(inner, f"{key}.")


def _values(config: Config) -> Iterator[tuple[str, object]]:
    for key, value in _values_of(config, ""):
        if key != "ingest":
            yield key, value
    for name, table in config.ingest.items():
        plugin_table = plugin_config(name, table, [])
        assert plugin_table is not None, "checked with the file"
        yield f"ingest.{name}", True
        yield from _values_of(plugin_table, f"ingest.{name}.")


def _values_of(table: Struct, prefix: str) -> Iterator[tuple[str, object]]:
    for field in structs.fields(table):
        key, value = f"{prefix}{field.encode_name}", getattr(table, field.name)
        inner, optional = _table_in(field.type)
        if inner is None:
            yield key, value
        elif optional:
            yield key, value is not None
        if isinstance(value, Struct):
            yield from _values_of(value, f"{key}.")


def _table_in(wanted: object) -> tuple[type[Struct] | None, bool]:
    """The table that a key is, if it is one, and whether it can be absent."""
    union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
    options = typing.get_args(wanted) if union else (wanted,)
    for option in options:
        bare = typing.get_args(option)[0] if typing.get_origin(option) is Annotated else option
        if isinstance(bare, type) and issubclass(bare, Struct):
            return bare, union
    return None, False
