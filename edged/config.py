"""The configuration file: composed of each service's own Struct, checked as a whole.

Which roles a process plays is which of the tables `[pop]`, `[origin]` and `[irs]` its file has. All
problems of a file are reported at once, each with its key, its value and what is allowed.

Two conventions let the whole be checked, plug-ins' tables included: a key named `listen` is an
address that this process listens on, and a table with the keys `certificate` and `key` (and `ca`)
names files.
"""

import ipaddress
from collections.abc import Iterator, Mapping, Set
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, structs

from edged.api import config as api_config
from edged.api.admin import AdminConfig
from edged.api.admin_access import find_problems as find_admin_problems
from edged.api.config import ApiConfig
from edged.backbone.local_end import BackboneConfig
from edged.errors import ConfigError
from edged.ingest.plugin import IngestPlugin
from edged.irs.client import IrsClientConfig
from edged.irs.service import IrsConfig
from edged.irs.service import find_problems as find_irs_problems
from edged.irs.sources import FailureSource, SourcePlugin
from edged.media.routing import INGEST_URLS_MAX, TEXT_CHARS_MAX
from edged.origin.service import OriginConfig
from edged.playback.config import PlaybackConfig
from edged.policy import link_map, playback_rights, rule_examples, rules, stream_keys, webhooks
from edged.policy.ingest_health import IngestHealthConfig
from edged.policy.reach_config import PopReachConfig
from edged.policy.rule_examples import bare
from edged.policy.stream_keys import StreamKeysConfig
from edged.policy.webhooks import WebhookConfig
from edged.runtime.listeners import parse_address
from edged.runtime.log import LogConfig
from edged.runtime.shards import SHARDS_MAX, for_shard
from edged.runtime.structs import Problem, convert_all, read_toml
from edged.runtime.tls import TlsFiles, is_loopback

FILE_BYTES_MAX = 4 * 2**20  # Thousands of static stream keys, with room.
PLUGIN_GROUP = "edged.ingest"
SOURCE_GROUP = "edged.irs.sources"
# rtmp://HOST[:PORT]/APP, as E-RTMP's tcUrl; no key.
REDIRECT_PATTERN = r"^(rtmps?://[A-Za-z0-9.:\[\]_-]{1,255}/[A-Za-z0-9._/-]{1,255})?\Z"
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}\Z"  # As in `edged://ROLE/NAME` of a certificate.
INGEST_URL_PATTERN = r"^[a-z][a-z0-9]{0,15}://[^\s/?#@]+(/[^\s?#]*)?\Z"


class PopConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[pop]`: this process takes publishers in and serves viewers."""

    name: Annotated[str, Meta(pattern=NAME_PATTERN)]
    # How long a stream waits for a publisher that has lost its connection; 0: not at all.
    publisher_grace_s: Annotated[float, Meta(ge=0, le=60)] = 10.0
    # Of several processes (edged@1, edged@2, ...), which share the public ports; 0: it is alone.
    shard: Annotated[int, Meta(ge=0, le=SHARDS_MAX)] = 0
    tls: TlsFiles | None = None  # This PoP's identity; needed unless all peers are on loopback.
    reach: PopReachConfig | None = None  # Without it nothing that IRS orders is done.
    # Where broadcasters reach it, the first first; default: what its listeners say.
    ingest_urls: Annotated[
        tuple[Annotated[str, Meta(pattern=INGEST_URL_PATTERN, max_length=TEXT_CHARS_MAX)], ...],
        Meta(max_length=INGEST_URLS_MAX),
    ] = ()


class MetricsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[metrics]`: Prometheus, on an address that is not public."""

    listen: str = "127.0.0.1:9464"


class DrainConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[drain]`: how this process lets go of what it has."""

    deadline_s: Annotated[float, Meta(ge=1, le=600)] = 30.0  # Of `edged drain`.
    on_stop_s: Annotated[float, Meta(ge=0, le=60)] = 5.0  # Of SIGTERM, while something is live.
    # Where publishers are sent that can be asked to reconnect; "": to the address that they have.
    redirect: Annotated[str, Meta(pattern=REDIRECT_PATTERN)] = ""


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    pop: PopConfig | None = None
    origin: OriginConfig | None = None
    irs: IrsConfig | None = None
    irs_client: IrsClientConfig | None = None
    backbone: BackboneConfig = BackboneConfig()
    ingest: dict[str, dict[str, object]] = {}  # One table per plug-in, converted to its own Struct.
    playback: PlaybackConfig = PlaybackConfig()
    stream_keys: StreamKeysConfig = StreamKeysConfig()
    api: ApiConfig = ApiConfig()
    ingest_health: IngestHealthConfig = IngestHealthConfig()
    webhooks: tuple[WebhookConfig, ...] = ()
    admin: AdminConfig = AdminConfig()
    drain: DrainConfig = DrainConfig()
    metrics: MetricsConfig = MetricsConfig()
    log: LogConfig = LogConfig()


def load_config(path: Path, shard: int | None = None) -> Config:
    """Read a file, for one shard if given; raises `ConfigError` with one line per problem."""
    config, problems = read_config(path, shard)
    if config is None or problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        raise ConfigError(f"{path}: {count}\n{lines}")
    return config


def read_config(path: Path, shard: int | None = None) -> tuple[Config | None, list[Problem]]:
    """Read a file, for one shard if given, and find every problem in it."""
    problems: list[Problem] = []
    raw = read_toml(path, FILE_BYTES_MAX, problems)
    if raw is None:
        return None, problems
    if shard is None:
        return parse_config(raw)
    config, problems = parse_config(
        for_shard(raw, shard, admin=str(AdminConfig().socket), metrics=MetricsConfig().listen)
    )
    problems += [
        Problem(name, "cannot be played by every shard; give it a file of its own")
        for name in ("origin", "irs")
        if name in raw
    ]
    return config, problems


def parse_config(raw: dict[str, object]) -> tuple[Config | None, list[Problem]]:
    """Convert a decoded file, and check what only the whole can show."""
    problems: list[Problem] = []
    config = convert_all(raw, Config, "", problems)
    ingest = raw.get("ingest", {})
    plugins: dict[str, Struct | None] = {}
    if isinstance(ingest, dict):
        for name, table in ingest.items():
            if isinstance(table, dict):  # Else it has been reported.
                plugins[name] = plugin_config(name, table, problems)
    problems += _find_role_problems(raw)
    sound = raw if config is not None else _sound_tables(raw)
    partial = config if config is not None else convert_all(sound, Config, "", [])
    assert partial is not None, "each of its tables has been converted, and none is required"
    tables = dict(_tables(partial, plugins, broken=raw.keys() - sound.keys(), is_pop="pop" in raw))
    problems += _find_rule_problems(partial)
    problems += _find_address_problems(partial, tables)
    broken = {name: raw[name] for name in raw.keys() - sound.keys()}
    if isinstance(ingest, dict):
        no_good = [name for name, table in plugins.items() if table is None]
        broken |= {f"ingest.{name}": ingest[name] for name in no_good}
    problems += _find_raw_address_problems(broken)
    problems += _find_plain_problems(partial)
    problems += _find_file_problems(tables)
    problems += _find_ca_problems(partial)
    problems += _find_rights_problems(partial)
    return config, problems


def find_hints(config: Config) -> list[Problem]:
    """What is allowed but hardly meant; `edged check` says it, `edged run` logs it."""
    hints: list[Problem] = []
    keys = config.stream_keys
    if config.pop is not None and not (keys.static or keys.secrets or keys.callback):
        hints.append(
            Problem("stream_keys", "is empty, so every publisher is refused; see `edged key new`")
        )
    if (
        config.pop is not None
        and config.irs_client is not None
        and not config.irs_client.table_file
    ):
        hints.append(
            Problem(
                "irs_client.table_file",
                "is not set: restarted while IRS is gone, this PoP takes no publishers",
            )
        )
    return hints


def load_plugin(name: str) -> IngestPlugin:
    """An installed ingest plug-in; raises `ConfigError` with the reason when it cannot be used.

    Only what a file asks for is loaded: a broken plug-in harms no PoP that does without it.
    """
    plugin = _load_entry(PLUGIN_GROUP, name)
    if not isinstance(plugin, IngestPlugin):
        raise ConfigError(f"{_entry_values(PLUGIN_GROUP, name)[0]} is no IngestPlugin")
    return plugin


def _entry_values(group: str, name: str) -> list[str]:
    return sorted({entry.value for entry in entry_points(group=group) if entry.name == name})


def _load_entry(group: str, name: str) -> object:
    entries = list(entry_points(group=group))
    found = sorted({entry.value for entry in entries if entry.name == name})
    if not found:
        known = ", ".join(sorted({entry.name for entry in entries})) or "none"
        raise ConfigError(f"no such plug-in; installed: {known}")
    if len(found) > 1:
        raise ConfigError(f"several plug-ins have this name: {', '.join(found)}; uninstall one")
    entry = next(entry for entry in entries if entry.name == name)
    try:
        plugin = entry.load()
    except Exception as error:  # Another's code: it may raise anything.
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(f"plug-in {entry.value} cannot be loaded: {why}") from error
    return plugin


def load_plugins() -> dict[str, IngestPlugin]:
    """All installed ingest plug-ins, by name; raises `ConfigError` when one cannot be used."""
    names = {entry.name for entry in entry_points(group=PLUGIN_GROUP)}
    return {name: load_plugin(name) for name in sorted(names)}


def plugin_config(name: str, table: object, problems: list[Problem]) -> Struct | None:
    """Convert `[ingest.NAME]` to the plug-in's own Struct."""
    try:
        config_type = load_plugin(name).config_type
    except ConfigError as error:
        problems.append(Problem(f"ingest.{name}", str(error)))
        return None
    return convert_all(table, config_type, f"ingest.{name}", problems)


def load_source(name: str) -> SourcePlugin:
    """An installed failure source of IRS; as `load_plugin`."""
    plugin = _load_entry(SOURCE_GROUP, name)
    if not isinstance(plugin, SourcePlugin):
        raise ConfigError(f"{name!r} is no SourcePlugin")
    return plugin


def make_sources(tables: Mapping[str, dict[str, object]]) -> dict[str, FailureSource]:
    """Make the sources of `[irs.sources.NAME]`; raises `ConfigError` with what is wrong."""
    problems: list[Problem] = []
    made = {}
    for name, table in tables.items():
        try:
            plugin = load_source(name)
            config = convert_all(table, plugin.config_type, f"irs.sources.{name}", problems)
            if config is not None:
                made[name] = plugin.make(config)
        except ConfigError as error:
            problems.append(Problem(f"irs.sources.{name}", str(error)))
        except Exception as error:  # Another's code: it may raise anything.
            message = f"its plug-in failed to check it: {error!r}"
            problems.append(Problem(f"irs.sources.{name}", message))
    if problems:
        raise SourcesRefusedError(problems)
    return made


class SourcesRefusedError(ConfigError):
    """Some `[irs.sources.NAME]` cannot be used."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


def _sound_tables(raw: Mapping[str, object]) -> dict[str, object]:
    """What can be converted of a file, so that a mistake in one table hides none in another."""
    return {
        name: table
        for name, table in raw.items()
        if convert_all({name: table}, Config, "", []) is not None
    }


def _tables(
    config: Config, plugins: dict[str, Struct | None], *, broken: Set[str], is_pop: bool
) -> Iterator[tuple[str, Struct]]:
    """All tables that this process uses, those inside others too, by key; not the broken ones."""
    names = ("origin", "irs", "metrics", "admin", *(("pop", "playback") if is_pop else ()))
    tops: dict[str, Struct | None] = {
        name: getattr(config, name) for name in names if name not in broken
    }
    if is_pop:
        tops |= {f"ingest.{name}": table for name, table in plugins.items()}
    waiting = [(key, table) for key, table in tops.items() if table is not None]
    while waiting:
        key, table = waiting.pop(0)
        yield key, table
        for field in structs.fields(table):
            value = getattr(table, field.name)
            if isinstance(value, Struct):
                waiting.append((f"{key}.{field.encode_name}", value))


def _find_role_problems(raw: Mapping[str, object]) -> list[Problem]:
    """Which tables there are, whatever is in them."""
    problems: list[Problem] = []
    if not raw.keys() & {"pop", "origin", "irs"}:
        problems.append(Problem("", "no role: needs a table [pop], [origin] or [irs]"))
    if "irs_client" not in raw and raw.keys() & {"pop", "origin"}:
        problems.append(
            Problem("irs_client", "is missing; PoPs and origins need the addresses of IRS")
        )
    if "pop" in raw and not raw.get("ingest"):
        problems.append(Problem("ingest", "is missing; a PoP needs a table such as [ingest.rtmp]"))
    if "pop" not in raw and raw.get("ingest"):
        problems.append(Problem("ingest", "is of no use without [pop]"))
    if "pop" not in raw and raw.get("webhooks"):
        problems.append(Problem("webhooks", "are of no use without [pop], which has the events"))
    return problems


def _find_rule_problems(config: Config) -> list[Problem]:
    """What the policies object to in their tables."""
    found = [f"stream_keys.{text}" for text in stream_keys.find_problems(config.stream_keys)]
    found += [f"api.{text}" for text in api_config.find_problems(config.api)]
    found += [f"admin.{text}" for text in find_admin_problems(config.admin)]
    rights = playback_rights.find_problems(config.playback.rights)
    found += [f"playback.rights.{text}" for text in rights]
    found += webhooks.find_problems(config.webhooks)
    if config.irs is not None:
        found += [f"irs.{text}" for text in rules.find_problems(bare(config.irs.rules))]
        found += [f"irs.{text}" for text in rule_examples.find_problems(config.irs.rules)]
        irs = config.irs
        problems = link_map.find_problems(irs.links, irs.sites, irs.paths)
        found += [f"irs.{text}" for text in problems]
        try:
            make_sources(irs.sources)
        except SourcesRefusedError as error:
            found += [f"{problem.key}: {problem.message}" for problem in error.problems]
        if config.irs_client is not None:
            found += find_irs_problems(config.irs, config.irs_client)
    parted = (text.partition(": ") for text in found)
    return [Problem(key, message) for key, _, message in parted]


def _find_address_problems(config: Config, tables: dict[str, Struct]) -> list[Problem]:
    problems: list[Problem] = []
    listeners: list[tuple[str, str, int]] = []
    for key, table in tables.items():
        address = getattr(table, "listen", None)
        if isinstance(address, str):
            place = _parse(f"{key}.listen", address, problems)
            listeners += [(f"{key}.listen", *place)] if place is not None else []
    for index, (key, host, port) in enumerate(listeners):
        for other, its_host, its_port in listeners[:index]:
            if port and port == its_port and _overlap(host, its_host):
                problems.append(Problem(key, f"port {port} is taken by {other}"))
    if config.origin is not None:
        _check_reachable("origin", config.origin.address, config.origin.listen, problems)
    reach = None if config.pop is None else config.pop.reach
    if reach is not None and reach.listen is not None:
        _check_reachable("pop.reach", reach.address, reach.listen, problems)
    if config.irs_client is not None:
        for index, address in enumerate(config.irs_client.addresses):
            _parse(f"irs_client.addresses[{index}]", address, problems)
    return problems


def _find_raw_address_problems(broken: Mapping[str, object]) -> list[Problem]:
    """The same of tables that could not be converted: one mistake must not hide another."""
    problems: list[Problem] = []
    for key, table in broken.items():
        if not isinstance(table, dict):
            continue
        if isinstance(address := table.get("listen"), str):
            _parse(f"{key}.listen", address, problems)
        inner = {f"{key}.{name}": value for name, value in table.items()}
        problems += _find_raw_address_problems(inner)
    return problems


def _check_reachable(key: str, address: str, listen: str, problems: list[Problem]) -> None:
    """Whether PoPs can be told `address`, or, where it is "", the address of this listener."""
    if address:
        place = _parse(f"{key}.address", address, problems)
        if place is not None and (_is_any(place[0]) or not place[1]):
            problems.append(Problem(f"{key}.address", f"{address!r} cannot be connected to"))
    elif (place := _parse("", listen, [])) is not None and _is_any(place[0]):
        problems.append(
            Problem(
                f"{key}.address",
                f"is missing; {key}.listen {listen!r} says not where PoPs reach it",
            )
        )


def _find_plain_problems(config: Config) -> list[Problem]:
    """Plain TCP between hosts is refused at start; better to hear of it before."""
    problems: list[Problem] = []
    roles = (("origin", config.origin), ("irs", config.irs), ("pop", config.pop))
    for role, table in roles:
        if table is None or table.tls is not None:
            continue
        at = table.reach if isinstance(table, PopConfig) else table
        listen = None if at is None else at.listen
        key = "pop.reach.listen" if isinstance(table, PopConfig) else f"{role}.listen"
        uses = [] if listen is None else [(key, listen)]
        if role != "irs" and config.irs_client is not None:
            uses += [
                (f"irs_client.addresses[{index}]", address)
                for index, address in enumerate(config.irs_client.addresses)
            ]
        for key, address in uses:
            place = _parse("", address, [])
            if place is not None and not is_loopback(place[0]):
                message = f"{address!r} needs a table [{role}.tls]: plain TCP only on loopback"
                problems.append(Problem(key, message))
    return problems


def _find_file_problems(tables: dict[str, Struct]) -> list[Problem]:
    problems: list[Problem] = []
    for key, table in tables.items():
        if not hasattr(table, "certificate") or not hasattr(table, "key"):
            continue
        for name in ("ca", "certificate", "key"):
            path = getattr(table, name, None)
            if path is not None:
                problems += _find_missing(f"{key}.{name}", path)
    return problems


def _find_ca_problems(config: Config) -> list[Problem]:
    """The files by which called services are verified."""
    named = [(f"webhooks[{index}].ca", hook.ca) for index, hook in enumerate(config.webhooks)]
    if config.pop is not None and config.stream_keys.callback is not None:
        named.append(("stream_keys.callback.ca", config.stream_keys.callback.ca))
    return [problem for key, path in named if path for problem in _find_missing(key, path)]


def _find_rights_problems(config: Config) -> list[Problem]:
    """The files with the keys of playback tokens."""
    if config.pop is None or not config.playback.rights.channels:
        return []
    from edged.playback.token_keys import read_keys  # noqa: PLC0415 - 40 ms for few

    try:
        read_keys(config.playback.rights)
    except ConfigError as error:
        key, _, message = str(error).partition(": ")
        return [Problem(key, message)]
    return []


def _find_missing(key: str, path: str | Path) -> list[Problem]:
    try:
        found = Path(path).is_file()
    except OSError as error:  # A folder above that may not be entered.
        return [Problem(key, f"{str(path)!r}: {error.strerror}")]
    return [] if found else [Problem(key, f"{str(path)!r} is not a file that can be found")]


def _parse(key: str, address: str, problems: list[Problem]) -> tuple[str, int] | None:
    try:
        return parse_address(address)
    except ConfigError as error:
        problems.append(Problem(key, str(error)))
        return None


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False  # A name.


def _overlap(host: str, other: str) -> bool:
    """Whether two listeners of one port would meet: [::] takes IPv4 too, as we open it."""
    if host == other or "::" in (host, other):
        return True
    return (_is_any(host) and ":" not in other) or (_is_any(other) and ":" not in host)
