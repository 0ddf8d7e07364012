"""A configuration file as a whole: every problem at once, and what no table shows alone."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from msgspec import Struct

from edged import config as config_module
from edged.config import (
    FILE_BYTES_MAX,
    Config,
    find_hints,
    load_config,
    load_plugins,
    parse_config,
    read_config,
)
from edged.errors import ConfigError
from edged.irs.sources import FailureSource, SourcePlugin

POP = """
[pop]
name = "ams1"
[irs_client]
addresses = ["127.0.0.1:1940"]
table_file = "/var/lib/edged/table"
[ingest.rtmp]
[[stream_keys.static]]
channel = "alice"
key = "a-key-of-alice"
"""
ORIGIN = """
[origin]
name = "fra1"
listen = "127.0.0.1:7410"
[irs_client]
addresses = ["127.0.0.1:1940"]
"""
IRS = """
[irs]
"""


def problems_of(text: str) -> list[str]:
    config, problems = parse_config(tomllib.loads(text))
    assert problems or config is not None
    return [str(problem) for problem in problems]


def config_of(text: str) -> Config:
    config, problems = parse_config(tomllib.loads(text))
    assert config is not None
    assert not problems
    return config


def test_the_least_that_each_role_needs() -> None:
    assert config_of(POP).pop is not None
    assert config_of(ORIGIN).origin is not None
    assert config_of(IRS).irs is not None


def test_eleven_mistakes_give_eleven_messages(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(
        """
        [pop]
        name = "Ams1"
        shard = 65
        colour = "red"
        [irs_client]
        addresses = []
        reconect_s_max = 1.0
        [ingest.rtmp]
        handshake_timeout_s = 61
        listen = 1935
        [log]
        level = "loud"
        [playback.hls]
        playlist_s = 30.0
        retention_s = 20.0
        [[stream_keys.static]]
        key = 12345678
        """
    )
    config, problems = read_config(path)
    assert config is None
    assert [str(problem) for problem in problems] == [
        "pop.colour: unknown key;"
        " allowed here: ingest_urls, name, publisher_grace_s, reach, shard, tls",
        "pop.name: 'Ams1' is not allowed (Expected `str` matching regex"
        " '^[a-z0-9][a-z0-9._-]{0,62}\\\\Z'); a string matching ^[a-z0-9][a-z0-9._-]{0,62}\\Z",
        "pop.shard: 65 is not allowed (Expected `int` <= 64); an integer >= 0 and <= 64",
        "irs_client.reconect_s_max: unknown key; did you mean 'reconnect_s_max'? allowed here:"
        " addresses, connect_timeout_s, persist_interval_s, reconnect_s_max, table_file,"
        " telemetry_interval_s",
        "irs_client.addresses: a list is not allowed (Expected `array` of length >= 1);"
        " a list, each a string",
        "playback.hls: retention_s 20 is less than playlist_s + 10, which is 40",
        "stream_keys.static[0].channel: is missing; a string matching ^[a-z0-9][a-z0-9_-]{0,62}\\Z",
        "stream_keys.static[0].key: the value (not shown) is not allowed"
        " (Expected `str`, got `int`); a string",
        "log.level: 'loud' is not allowed (Invalid enum value 'loud');"
        " one of 'debug', 'error', 'info', 'warning'",
        "ingest.rtmp.listen: 1935 is not allowed (Expected `str`, got `int`); a string",
        "ingest.rtmp.handshake_timeout_s: 61 is not allowed (Expected `float` <= 60.0);"
        " a number > 0 and <= 60",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 11 problems"
    assert lines[1:] == [f"  {problem}" for problem in problems]


def test_mistakes_in_one_table_hide_none_in_the_others() -> None:
    found = problems_of(
        POP.replace("a-key-of-alice", "a key of alice")
        + """
        [stream_keys.secrets]
        main = "12characters"
        [playback]
        listen = "nowhere"
        [log]
        level = "loud"
        """
    )
    assert found == [
        "log.level: 'loud' is not allowed (Invalid enum value 'loud');"
        " one of 'debug', 'error', 'info', 'warning'",
        "stream_keys.static[0] (channel 'alice'): key may hold letters, digits and -_.~ only,"
        " to be safe in URLs",
        "stream_keys.secrets.main: 12 characters, at least 32 are needed",
        "playback.listen: address 'nowhere' is not \"HOST:PORT\" with a port of 0 to 65535",
    ]


def test_mistakes_in_one_table_do_not_hide_where_it_listens() -> None:
    found = problems_of(
        POP.replace("[ingest.rtmp]", '[ingest.rtmp]\nlisten = "nowhere"\npublishers_max = 0')
        + """
        [playback]
        listen = 8080
        [playback.tls]
        listen = "there"
        certificate = "c.pem"
        key = "c.key"
        """
    )
    wrong = 'is not "HOST:PORT" with a port of 0 to 65535'
    assert f"ingest.rtmp.listen: address 'nowhere' {wrong}" in found
    assert f"playback.tls.listen: address 'there' {wrong}" in found
    assert len(found) == 4


def test_what_a_broken_pop_would_listen_on_is_checked_too(tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    found = problems_of(
        f"""
        [pop]
        name = "A PoP"
        [irs_client]
        addresses = ["irs"]
        [ingest.rtmp.tls]
        certificate = "{gone}"
        key = "{gone}"
        [playback]
        listen = ":9464"
        [metrics]
        listen = 9464
        """
    )
    assert [text.partition(": ")[0] for text in found] == [
        "pop.name",
        "metrics.listen",  # And its default is not taken for what was meant.
        "irs_client.addresses[0]",
        "ingest.rtmp.tls.certificate",
        "ingest.rtmp.tls.key",
    ]


def test_there_are_three_irss_at_most_and_each_is_named_once() -> None:
    addresses = '["127.0.0.1:1940"]'
    assert problems_of(POP.replace(addresses, '["127.0.0.1:1940", "127.0.0.1:1941"]')) == []
    four = str([f"127.0.0.1:{port}" for port in range(1940, 1944)]).replace("'", '"')
    assert problems_of(POP.replace(addresses, four)) == [
        "irs_client.addresses: a list is not allowed (Expected `array` of length <= 3);"
        " a list, each a string"
    ]
    twice = '["127.0.0.1:1940", "127.0.0.1:1940"]'
    assert problems_of(POP.replace(addresses, twice)) == [
        "irs_client: addresses: 127.0.0.1:1940 is there more than once"
    ]


def test_one_problem_is_one(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_text("")
    with pytest.raises(
        ConfigError, match=r"edged.toml: 1 problem\n  no role: needs a table \[pop\]"
    ):
        load_config(path)


def test_a_right_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(f'{POP}title = "Alice, für alle"\n', encoding="utf-8")
    assert load_config(path).stream_keys.static[0].title == "Alice, für alle"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[pop\n", "is not TOML: Expected ']'"),
        (b"[pop]\nname = 'a'\n[pop]\n", "is not TOML: Cannot declare"),
        (b"x = '\xff'", "is not TOML: 'utf-8' codec can't decode"),
        (b"x = " + b"[" * 100_000, "is not TOML that can be read: nested too deeply"),
    ],
)
def test_what_is_not_toml(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_bytes(content)
    config, problems = read_config(path)
    assert config is None
    assert [problem.message[: len(message)] for problem in problems] == [message]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert [str(p) for p in read_config(tmp_path / "none.toml")[1]] == [
        "cannot be read: No such file or directory"
    ]
    assert [str(p) for p in read_config(tmp_path)[1]] == ["cannot be read: Is a directory"]


@pytest.mark.parametrize("excess", [0, 1])
def test_the_largest_file(excess: int, tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_bytes(f"{IRS}# ".encode().ljust(FILE_BYTES_MAX + excess, b"x"))
    config, problems = read_config(path)
    if excess:
        assert [str(p) for p in problems] == [f"{FILE_BYTES_MAX + 1} bytes exceed {FILE_BYTES_MAX}"]
    else:
        assert config is not None


def test_the_status_page_is_for_loopback_and_behind_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    admin = f"[admin]\nlisten = '%s'\ntoken_file = '{token}'\n"
    assert problems_of(IRS + admin % "127.0.0.1:9465") == []
    assert problems_of(IRS + admin % "[::1]:9465") == []
    (problem,) = problems_of(IRS + admin % "[::]:9465")
    assert problem.startswith("admin.listen: '[::]:9465' is not on loopback")
    assert problems_of(IRS + "[admin]\nlisten = '127.0.0.1:9465'\n") == [
        "admin: listen needs a token: token_file or token_sha256"
    ]
    clash = problems_of(IRS + admin % "127.0.0.1:9464")
    assert clash in (
        ["admin.listen: port 9464 is taken by metrics.listen"],
        ["metrics.listen: port 9464 is taken by admin.listen"],
    )
    (problem,) = problems_of(IRS + "[admin]\nlisten = '127.0.0.1:1'\ntoken_sha256 = 'secret'\n")
    assert problem.startswith("admin.token_sha256: ")
    assert "'secret'" not in problem


def test_unknown_tables() -> None:
    (problem,) = problems_of(IRS + "[iirs]\n")
    assert problem.startswith(
        "iirs: unknown key; did you mean 'irs'? allowed here: admin, api, backbone, drain, ingest,"
    )


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            POP.replace("[irs_client]", "[admin]").replace("addresses", "#").replace("table", "#"),
            ["irs_client: is missing; PoPs and origins need the addresses of IRS"],
        ),
        (
            POP.replace("[ingest.rtmp]", ""),
            ["ingest: is missing; a PoP needs a table such as [ingest.rtmp]"],
        ),
        (IRS + "[ingest.rtmp]\n", ["ingest: is of no use without [pop]"]),
        (
            POP + "[ingest.srt]\n",
            ["ingest.srt: no such plug-in; installed: rtmp"],
        ),
        (
            POP.replace("[ingest.rtmp]", "[ingest]\nrtmp = 5"),
            ["ingest.rtmp: 5 is not allowed (Expected `object`, got `int`); a table"],
        ),
        (
            POP.replace("[ingest.rtmp]", "[ingest.rtmp.tls]\nlisen = 'x'"),
            [
                "ingest.rtmp.tls.lisen: unknown key; did you mean 'listen'? allowed here:"
                " certificate, key, listen",
                "ingest.rtmp.tls.certificate: is missing; a path",
                "ingest.rtmp.tls.key: is missing; a path",
            ],
        ),
    ],
)
def test_what_roles_need(text: str, problems: list[str]) -> None:
    assert problems_of(text) == problems


def test_stream_keys_are_checked_and_not_repeated() -> None:
    found = problems_of(
        POP
        + """
        [[stream_keys.static]]
        channel = "bob"
        key = "short"
        [[stream_keys.static]]
        channel = "carol"
        key = "a-key-of-alice"
        [stream_keys.secrets]
        main = "too short a secret"
        """
    )
    assert found == [
        "stream_keys.static[1] (channel 'bob'): key of 5 characters, allowed are 6 to 1024",
        "stream_keys.static[2] (channel 'carol'): the same key as static[0];"
        " a key names one channel",
        "stream_keys.secrets.main: 18 characters, at least 32 are needed",
    ]


def test_a_table_where_a_list_belongs_does_not_show_the_key() -> None:
    found = problems_of(POP.replace("[[stream_keys.static]]", "[stream_keys.static]"))
    assert found == [
        "stream_keys.static: a table is not allowed (Expected `array`, got `object`);"
        " a list, each a table"
    ]


def test_the_map_of_the_backbone_is_checked() -> None:
    text = """
        [irs]
        [[irs.sites]]
        name = "ams"
        pops = ["ams1"]
        [[irs.links]]
        name = "ams-fra"
        ends = ["ams", "fra"]
        mbps = 1000
    """
    assert problems_of(text) == [
        "irs.links[0] (ams-fra): ends has 'fra', which is no site; sites are ams"
    ]


def test_rules_are_checked_all_of_them() -> None:
    found = problems_of(
        """
        [[irs.rules]]
        name = "one"
        pin = "fra1"
        prefer = ["fra2"]
        [[irs.rules]]
        name = "one"
        """
    )
    assert found == [
        "irs.rules[0] (one): pin leaves no choice to prefer, avoid, group_by and anti_affinity",
        "irs.rules[1] (one): the same name as rules[0]; decisions are logged by it",
    ]


def test_a_warm_up_shorter_than_its_network_s_reconnects_is_a_mistake() -> None:
    text = """
        [irs]
        warmup_s = {}
        [irs_client]
        addresses = ["127.0.0.1:1940"]
        connect_timeout_s = 2.0
        reconnect_s_max = 1.0
        """
    assert problems_of(text.format(3.4)) == [
        "irs.warmup_s: 3.4 is less than the 3.5 s in which origins are back"
        " (irs_client.connect_timeout_s 2 + 1.5 x irs_client.reconnect_s_max 1):"
        " PoPs would get tables without them"
    ]
    assert problems_of(text.format(3.5)) == problems_of(text.format(0)) == []


def test_addresses_are_checked_those_of_plug_ins_too() -> None:
    found = problems_of(
        """
        [pop]
        name = "a"
        [origin]
        name = "a"
        listen = "7410"
        address = "fra1.example.net"
        [irs]
        listen = "127.0.0.1:99999"
        [irs_client]
        addresses = ["irs"]
        [ingest.rtmp]
        listen = "rtmp"
        [playback]
        listen = "127.0.0.1:http"
        [metrics]
        listen = ""
        """
    )
    wrong = 'is not "HOST:PORT" with a port of 0 to 65535'
    assert sorted(found) == [
        f"ingest.rtmp.listen: address 'rtmp' {wrong}",
        f"irs.listen: address '127.0.0.1:99999' {wrong}",
        f"irs_client.addresses[0]: address 'irs' {wrong}",
        f"metrics.listen: address '' {wrong}",
        f"origin.address: address 'fra1.example.net' {wrong}",
        f"origin.listen: address '7410' {wrong}",
        f"playback.listen: address '127.0.0.1:http' {wrong}",
    ]


def test_what_a_pop_alone_has_is_not_checked_elsewhere() -> None:
    assert problems_of(IRS + '[playback]\nlisten = "nowhere"\n') == []


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("127.0.0.1:9000", "127.0.0.1:9000", True),
        ("[::]:9000", "127.0.0.1:9000", True),
        ("127.0.0.1:9000", ":9000", True),
        ("0.0.0.0:9000", "127.0.0.1:9000", True),
        ("[::1]:9000", "[::]:9000", True),
        ("0.0.0.0:9000", "[::1]:9000", False),
        ("127.0.0.1:9000", "127.0.0.2:9000", False),
        ("127.0.0.1:9000", "127.0.0.1:9001", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("localhost:9000", "localhost:9000", True),
    ],
)
def test_two_listeners_on_one_port(first: str, second: str, clash: bool) -> None:
    text = POP.replace("[ingest.rtmp]", f'[ingest.rtmp]\nlisten = "{first}"')
    found = problems_of(f'{text}[playback]\nlisten = "{second}"\n')
    assert found == (["ingest.rtmp.listen: port 9000 is taken by playback.listen"] if clash else [])


def test_plain_tcp_between_hosts_is_found_before_it_runs() -> None:
    found = problems_of(
        """
        [pop]
        name = "a"
        [origin]
        name = "a"
        listen = "[::]:7410"
        address = "192.0.2.1:7410"
        [irs]
        listen = "192.0.2.1:1940"
        [irs_client]
        addresses = ["192.0.2.1:1940"]
        [ingest.rtmp]
        """
    )
    assert found == [
        "origin.listen: '[::]:7410' needs a table [origin.tls]: plain TCP only on loopback",
        "irs_client.addresses[0]: '192.0.2.1:1940' needs a table [origin.tls]:"
        " plain TCP only on loopback",
        "irs.listen: '192.0.2.1:1940' needs a table [irs.tls]: plain TCP only on loopback",
        "irs_client.addresses[0]: '192.0.2.1:1940' needs a table [pop.tls]:"
        " plain TCP only on loopback",
    ]


@pytest.mark.parametrize(
    ("listen", "address", "message"),
    [
        ("127.0.0.1:7410", "", None),
        ("127.0.0.1:7410", "127.0.0.1:7410", None),
        (":7410", "", "is missing; origin.listen ':7410' says not where PoPs reach it"),
        ("0.0.0.0:7410", "", "is missing; origin.listen '0.0.0.0:7410' says not where"),
        ("127.0.0.1:7410", "[::]:7410", "'[::]:7410' cannot be connected to"),
        ("127.0.0.1:7410", "127.0.0.1:0", "'127.0.0.1:0' cannot be connected to"),
    ],
)
def test_pops_must_be_told_where_an_origin_is(
    listen: str, address: str, message: str | None
) -> None:
    text = ORIGIN.replace('"127.0.0.1:7410"', f'"{listen}"\naddress = "{address}"')
    found = [text for text in problems_of(text) if text.startswith("origin.address")]
    assert len(found) == (message is not None)
    assert all(text.startswith(f"origin.address: {message}") for text in found)


def test_certificates_and_keys_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "there.pem").touch()
    there, gone = tmp_path / "there.pem", tmp_path / "gone.pem"
    private = f'certificate = "{there}"\nkey = "{gone}"\n'
    text = POP.replace("[ingest.rtmp]", f"[ingest.rtmp.tls]\n{private}")
    text += f'[playback.tls]\n{private}[pop.tls]\nca = "{tmp_path}"\n{private}'
    missing = "is not a file that can be found"
    assert problems_of(text) == [
        f"pop.tls.ca: '{tmp_path}' {missing}",
        f"pop.tls.key: '{gone}' {missing}",
        f"playback.tls.key: '{gone}' {missing}",
        f"ingest.rtmp.tls.key: '{gone}' {missing}",
    ]


def test_a_path_that_cannot_be_is_a_problem(tmp_path: Path) -> None:
    name = "x" * 300
    files = f'ca = "/{name}"\ncertificate = "/{name}"\nkey = "/{name}"\n'
    found = problems_of(f"{IRS}[irs.tls]\n{files}")
    assert [text.partition(": ")[0] for text in found] == [
        "irs.tls.ca",
        "irs.tls.certificate",
        "irs.tls.key",
    ]
    assert all(text.endswith("File name too long") for text in found)


def test_hints_are_no_problems() -> None:
    assert find_hints(config_of(POP)) == []
    assert find_hints(config_of(IRS)) == []
    assert find_hints(config_of(ORIGIN)) == []
    poor = POP.partition("[[stream_keys")[0].replace("table_file", "#")
    assert [str(hint) for hint in find_hints(config_of(poor))] == [
        "stream_keys: is empty, so every publisher is refused; see `edged key new`",
        "irs_client.table_file: is not set: restarted while IRS is gone, this PoP takes no"
        " publishers",
    ]
    signed = f'{poor}[stream_keys.secrets]\nmain = "{"x" * 32}"\n'
    assert "stream_keys" not in [hint.key for hint in find_hints(config_of(signed))]


def entry_point(value: str) -> EntryPoint:
    return EntryPoint(name="mine", value=value, group=config_module.PLUGIN_GROUP)


def test_plug_ins_are_found_by_their_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(load_plugins()) >= {"rtmp"}
    entries = [entry_point("edged.ingest.rtmp:plugin")]
    monkeypatch.setattr(config_module, "entry_points", lambda group: entries)
    assert list(load_plugins()) == ["mine"]
    text = POP.replace("[ingest.rtmp]", "[ingest.mine]\npublishers_max = 0")
    assert problems_of(text) == [
        "ingest.mine.publishers_max: 0 is not allowed (Expected `int` >= 1); an integer >= 1"
    ]


WINDOW = """
    [irs]
    [[irs.sources.maintenance.windows]]
    from = 2027-01-15T02:00:00Z
    until = 2027-01-15T04:00:00Z
    reason = "new disks"
"""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'{WINDOW}\norigin = "fra1"', ""),
        (WINDOW, "origin or link, one of them: neither is given"),
        (f'{WINDOW}\norigin = "a"\nlink = "b"', "origin or link, one of them: both are given"),
        (f'{WINDOW}\nlink = "B b"', "irs.sources.maintenance.windows[0].link: 'B b'"),
        (f'{WINDOW}\nlink = "a"\nusable = 1', "irs.sources.maintenance.windows[0].usable: 1"),
        (f'{WINDOW.replace("04:", "01:")}\nlink = "a"', "is not after from"),
        (WINDOW.replace("Z", ""), "irs.sources.maintenance.windows[0].from"),
        ("[irs.sources.tea]", "irs.sources.tea: no such plug-in; installed: maintenance"),
    ],
)
def test_failure_sources_are_checked(text: str, problem: str) -> None:
    found = problems_of(text)
    assert all(each.startswith("irs.sources.") for each in found)
    if problem:
        assert any(problem in each for each in found), found
    else:
        assert found == []


class OddConfig(Struct):
    """Of the sources below."""


def make_nothing(config: Struct) -> FailureSource:
    raise ZeroDivisionError(type(config).__name__)


NOT_WELL_MADE = SourcePlugin(name="mine", config_type=OddConfig, make=make_nothing)


def test_a_source_of_others_is_found_by_its_entry_point_and_may_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = [entry_point("tests.test_config:NOT_WELL_MADE")]
    monkeypatch.setattr(config_module, "entry_points", lambda group: entries)
    (problem,) = problems_of("[irs.sources.mine]")
    wanted = "irs.sources.mine: its plug-in failed to check it: ZeroDivisionError('OddConfig')"
    assert problem == wanted
    entries[0] = entry_point("edged.ingest.rtmp:plugin")
    assert problems_of("[irs.sources.mine]") == ["irs.sources.mine: 'mine' is no SourcePlugin"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "edged.ingest.nothing:plugin",
            "plug-in edged.ingest.nothing:plugin cannot be loaded: ModuleNotFoundError: No module",
        ),
        (
            "edged.ingest.rtmp:nothing",
            "plug-in edged.ingest.rtmp:nothing cannot be loaded: AttributeError: module",
        ),
        ("antigravity_of_theirs", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("edged.ingest.rtmp:RtmpConfig", "edged.ingest.rtmp:RtmpConfig is no IngestPlugin"),
    ],
)
def test_a_broken_plug_in_is_named(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "antigravity_of_theirs.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    good = EntryPoint(name="rtmp", value="edged.ingest.rtmp:plugin", group="edged.ingest")
    monkeypatch.setattr(config_module, "entry_points", lambda group: [good, entry_point(value)])
    with pytest.raises(ConfigError, match=message):
        load_plugins()
    (problem,) = problems_of(POP + "[ingest.mine]\n")
    assert problem.startswith("ingest.mine: ")
    assert message in problem
    assert problems_of(POP) == [], "who does without it is not harmed"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[pop]\nname = "a"\ningest_urls = ["ams1.example"]', "pop.ingest_urls[0]: 'ams1.example'"),
        ('[pop]\nname = "a"\ningest_urls = ["rtmp://u@h/live"]', "pop.ingest_urls[0]"),
        ('[pop]\nname = "a"\ningest_urls = ["rtmp://h/a?key=x"]', "pop.ingest_urls[0]"),
        ("[api]\nrate_per_minute = 0", "api.rate_per_minute: 0 is not allowed"),
        ("[api]\nbody_bytes_max = 65537", "api.body_bytes_max: 65537 is not allowed"),
        ('[api]\ntrusted_proxies = ["x"]', "api.trusted_proxies[0]: 'x' does not appear"),
        ('[api]\nadmin_token_sha256 = "x"', "api.admin_token_sha256: must be 64 hex digits"),
    ],
)
def test_mistakes_about_the_api(text: str, problem: str) -> None:
    assert any(problem in found for found in problems_of(text)), problems_of(text)


def test_two_plug_ins_of_one_name_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry_point("edged.ingest.rtmp:plugin"), entry_point("theirs:plugin")]
    monkeypatch.setattr(config_module, "entry_points", lambda group: entries)
    assert problems_of(POP.replace("[ingest.rtmp]", "[ingest.mine]")) == [
        "ingest.mine: several plug-ins have this name: edged.ingest.rtmp:plugin, theirs:plugin;"
        " uninstall one"
    ]
    entries[1] = entries[0]  # Seen by two ways, as an editable installation is.
    assert problems_of(POP.replace("[ingest.rtmp]", "[ingest.mine]")) == []


SHARED = """
[pop]
name = "ams1"
[irs_client]
addresses = ["127.0.0.1:1940"]
table_file = "/var/lib/edged/table"
[ingest.rtmp]
"""


def test_a_file_for_one_of_its_shards(tmp_path: Path) -> None:
    path = tmp_path / "pop.toml"
    path.write_text(SHARED)
    config = load_config(path, 3)
    assert config.pop is not None
    assert config.irs_client is not None
    assert (config.pop.shard, config.irs_client.table_file) == (3, "/var/lib/edged/table-3")
    assert config.admin.socket == Path("/run/edged/admin-3.sock")
    assert config.metrics.listen == "127.0.0.1:9466"
    alone = load_config(path)
    assert alone.pop is not None
    assert (alone.pop.shard, alone.metrics.listen) == (0, "127.0.0.1:9464")


def test_what_shards_cannot_be_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pop.toml"
    path.write_text(
        SHARED
        + """
        [origin]
        name = "fra1"
        listen = "127.0.0.1:7410"
        [irs]
        [metrics]
        listen = "127.0.0.1:8079"
        """
    )
    _, problems = read_config(path, 2)
    assert [str(problem) for problem in problems] == [
        "playback.listen: port 8080 is taken by metrics.listen",
        "origin: cannot be played by every shard; give it a file of its own",
        "irs: cannot be played by every shard; give it a file of its own",
    ]
    path.write_text(SHARED + '[metrics]\nlisten = "127.0.0.1:65535"\n')
    _, problems = read_config(path, 2)
    assert [problem.key for problem in problems] == ["metrics.listen"]
    assert "'127.0.0.1:65536' is not" in problems[0].message
    path.write_text("[irs]\n")
    _, problems = read_config(path, 1)
    assert [problem.key for problem in problems] == ["irs"]


def callback(lines: str) -> str:
    return f"{POP}[stream_keys.callback]\n{lines}"


def test_the_key_callback() -> None:
    config = config_of(callback('url = "https://auth.example.net/key"'))
    assert config.stream_keys.callback is not None
    assert config.stream_keys.callback.timeout_s == 3.0
    asked_only = callback('url = "http://localhost:9000/"').replace("[[stream_keys.static]]", "")
    asked_only = asked_only.replace('channel = "alice"\nkey = "a-key-of-alice"\n', "")
    assert find_hints(config_of(asked_only)) == []


def test_what_is_wrong_with_the_key_callback_is_said_without_its_secrets(tmp_path: Path) -> None:
    found = problems_of(
        callback(
            f'url = "http://example.net/token"\nsecret = "short-one"\nca = "{tmp_path}/none.pem"'
        )
    )
    assert found == [
        "stream_keys.callback.url: http:// is allowed only to loopback; use https://",
        "stream_keys.callback.secret: 9 characters, at least 32 are needed",
        f"stream_keys.callback.ca: '{tmp_path}/none.pem' is not a file that can be found",
    ]
    assert problems_of(callback('url = ["https://token"]\nsecret = 1234567\ntimeout_s = 6.1')) == [
        "stream_keys.callback.url: a list is not allowed (Expected `str`, got `array`); a string",
        "stream_keys.callback.secret: the value (not shown) is not allowed"
        " (Expected `str`, got `int`); a string",
        "stream_keys.callback.timeout_s: 6.1 is not allowed (Expected `float` <= 6.0);"
        " a number > 0 and <= 6",
    ]


HOOK = """
[[webhooks]]
name = "studio"
url = "https://studio.example.net/"
secret = "0123456789abcdef0123456789abcdef"
"""


def test_webhooks(tmp_path: Path) -> None:
    assert [hook.name for hook in config_of(POP + HOOK).webhooks] == ["studio"]
    assert problems_of(IRS + HOOK) == [
        "webhooks: are of no use without [pop], which has the events"
    ]
    bad = HOOK.replace("https", "ftp") + f'ca = "{tmp_path}/none"\n'
    assert problems_of(POP + HOOK + bad) == [
        "webhooks[1].url: must begin with https://HOST (http:// only to loopback)",
        "webhooks[1].name: 'studio' is taken by webhooks[0]",
        f"webhooks[1].ca: '{tmp_path}/none' is not a file that can be found",
    ]
    assert problems_of(POP + HOOK + 'events = ["none"]') == [
        "webhooks[0].events[0]: 'none' is not allowed (Invalid enum value 'none');"
        " one of 'health_cleared', 'health_warned', 'publisher_lost', 'publisher_returned',"
        " 'stream_rehomed', 'stream_shed', 'stream_taken_over', 'stream_went_live',"
        " 'stream_went_offline', 'title_changed'"
    ]


def test_ingest_health() -> None:
    config = config_of(f"{POP}[ingest_health]\nkeyframe_interval_s_max = 2.5")
    assert config.ingest_health.keyframe_interval_s_max == 2.5
    assert problems_of(f"{POP}[ingest_health]\nkeyframe_interval_s_max = 0.4") == [
        "ingest_health.keyframe_interval_s_max: 0.4 is not allowed (Expected `float` >= 0.5);"
        " a number >= 0.5 and <= 20"
    ]


def test_where_other_pops_reach_a_relay_is_to_be_said_and_under_tls() -> None:
    raw: dict[str, object] = {
        "pop": {"name": "ams1", "reach": {"listen": "[::]:1942"}},
        "ingest": {"rtmp": {}},
        "irs_client": {"addresses": ["127.0.0.1:1940"]},
    }
    _, problems = parse_config(raw)
    assert {problem.key for problem in problems} == {"pop.reach.address", "pop.reach.listen"}
    raw["pop"] = {"name": "ams1", "reach": {"listen": "127.0.0.1:1942"}}
    assert parse_config(raw)[1] == []
    raw["pop"] = {"name": "ams1", "reach": {"listen": "127.0.0.1:1942", "address": "[::]:1"}}
    assert [problem.key for problem in parse_config(raw)[1]] == ["pop.reach.address"]
    raw["pop"] = {"name": "ams1", "reach": {"listen": "nowhere"}}
    assert [problem.key for problem in parse_config(raw)[1]] == ["pop.reach.listen"]
