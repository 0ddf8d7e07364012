"""The files in config/ say everything: each key that exists, explained, and none that does not."""

import re
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, Struct

from edged.config import Config, find_hints, load_plugins, load_source, parse_config

ROOT = Path(__file__).parents[1]
NAMES = ("irs", "origin", "pop", "dev")
COMMENTED_KEY = re.compile(r"^#(?=\[|[a-z_0-9]+ = )", re.MULTILINE)
KEY_LINE = re.compile(r"^(#?)([a-z_0-9]+) = (.+)$")
TABLE_LINE = re.compile(r"^#?\[+([a-z_0-9.]+)\]+$")


class Known(Struct, frozen=True):
    """A key that exists, by introspection."""

    field: msgspec.structs.FieldInfo | None  # None: a name that is free, as of a secret.
    in_list: bool


class Written(Struct, frozen=True):
    """A key in a file, with the lines of comment right above it."""

    path: str
    value: object
    commented: bool
    comment: str


def text_of(name: str) -> str:
    return (ROOT / "config" / f"{name}.toml").read_text()


def uncommented(text: str) -> str:
    return COMMENTED_KEY.sub("", text)


def known_keys(
    wanted: type[Struct], prefix: str = "", *, in_list: bool = False
) -> dict[str, Known]:
    """Every key that a table takes, tables inside it too; lists and free names are passed over."""
    found: dict[str, Known] = {}
    for field in msgspec.structs.fields(wanted):
        path = f"{prefix}{field.encode_name}"
        inner = None
        for option in options_of(field.type):
            if typing.get_origin(option) in (tuple, list):
                item = typing.get_args(option)[0]
                if isinstance(item, type) and issubclass(item, Struct):
                    inner = known_keys(item, f"{path}.", in_list=True)
            elif option == dict[str, str]:
                inner = {f"{path}.*": Known(None, in_list)}
            elif isinstance(option, type) and issubclass(option, Struct):
                inner = known_keys(option, f"{path}.", in_list=in_list)
        found |= inner if inner is not None else {path: Known(field, in_list)}
    return found


def options_of(wanted: object) -> list[object]:
    is_union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
    options = typing.get_args(wanted) if is_union else (wanted,)
    bare = [
        typing.get_args(option)[0] if typing.get_origin(option) is Annotated else option
        for option in options
    ]
    return [option for option in bare if option is not type(None)]


def all_known_keys() -> dict[str, Known]:
    found = known_keys(Config)
    del found["ingest"]  # One table per plug-in.
    del found["irs.sources"]  # And so here.
    found |= known_keys(load_source("maintenance").config_type, "irs.sources.maintenance.")
    for name, plugin in load_plugins().items():
        found |= known_keys(plugin.config_type, f"ingest.{name}.")
    return found


def written_keys(text: str) -> Iterator[Written]:
    table, comment = "", ""
    for line in text.splitlines():
        if heading := TABLE_LINE.match(line):
            table, comment = heading[1], ""
        elif key := KEY_LINE.match(line):
            path = f"{table}.{'*' if table == 'stream_keys.secrets' else key[2]}"
            value = tomllib.loads(f"x = {key[3]}")["x"]
            yield Written(path, value, bool(key[1]), comment)
            comment = ""
        else:
            comment = f"{comment}\n{line}" if line.startswith("# ") else ""


def with_files(text: str, folder: Path) -> dict[str, object]:
    """The file decoded, with the files that it names put where they can be."""
    for place in set(re.findall(r'"/etc/edged/([^"]+)"', text)):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tomllib.loads(text.replace("/etc/edged", str(folder)))


def paths_in(table: dict[str, object], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in table.items():
        path = f"{prefix}{'*' if prefix == 'stream_keys.secrets.' else key}"
        for entry in value if isinstance(value, list) and value else [value]:
            found |= paths_in(entry, f"{path}.") if isinstance(entry, dict) else {path}
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("whole", [False, True], ids=["as it is", "uncommented"])
def test_the_file_can_be_used(name: str, whole: bool, tmp_path: Path) -> None:
    text = uncommented(text_of(name)) if whole else text_of(name)
    config, problems = parse_config(with_files(text, tmp_path))
    assert problems == []
    assert config is not None
    if whole or name != "pop":  # As it is it has no stream key: that is said.
        assert find_hints(config) == []
    else:
        assert [hint.key for hint in find_hints(config)] == ["stream_keys"]


def test_together_they_have_every_key_and_no_other() -> None:
    found: set[str] = set()
    for name in NAMES:
        found |= paths_in(tomllib.loads(uncommented(text_of(name))))
    known = set(all_known_keys())
    assert found - known == set(), "in a file, but not in any Struct"
    assert known - found == set(), "in a Struct, but not in any file"


def test_the_reading_of_lines_misses_nothing() -> None:
    for name in NAMES:
        text = text_of(name)
        by_line = {written.path for written in written_keys(text)}
        assert by_line == paths_in(tomllib.loads(uncommented(text)))
        active = {written.path for written in written_keys(text) if not written.commented}
        assert active >= paths_in(tomllib.loads(text))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_explained(name: str) -> None:
    for written in written_keys(text_of(name)):
        assert re.search(r"[Dd]efault|[Rr]equired", written.comment), written.path


@pytest.mark.parametrize("name", ["irs", "origin", "pop"])
def test_limits_and_defaults_are_the_true_ones(name: str) -> None:
    known = all_known_keys()
    for written in written_keys(text_of(name)):
        entry = known[written.path]
        if entry.field is None:
            continue
        numbers = set(re.findall(r"(?<![\d.])\d+(?:\.\d+)?(?![\d.]*\d)", written.comment))
        numbers |= set(re.findall(r"(?<!\S)-\d+(?:\.\d+)?(?![\d.]*\d)", written.comment))
        is_text = str in options_of(entry.field.type) and entry.in_list  # Told for all at once.
        for limit in [] if is_text else limits_of(entry.field.type):
            assert f"{limit:.15g}" in numbers, f"{written.path}: the limit {limit} is not told"
        default = entry.field.default
        if entry.field.required:
            assert "equired" in written.comment, f"{written.path}: it is not told to be required"
        elif isinstance(default, int | float) and not isinstance(default, bool):
            assert f"{default:.15g}" in numbers, f"{written.path}: default {default} is not told"
        elif isinstance(default, str | Path) and str(default):
            assert f'Default: "{default}"' in written.comment, written.path
        if written.commented and not entry.in_list and default not in ("", None, msgspec.NODEFAULT):
            shown = msgspec.json.decode(msgspec.json.encode(default, enc_hook=str))
            assert shown == written.value, written.path


def limits_of(wanted: object) -> list[float]:
    is_union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
    found: list[float] = []
    for option in typing.get_args(wanted) if is_union else (wanted,):
        if typing.get_origin(option) is Annotated:
            for meta in typing.get_args(option)[1:]:
                assert isinstance(meta, Meta)
                bounds = (meta.ge, meta.gt, meta.le, meta.lt, meta.min_length, meta.max_length)
                found += [bound for bound in bounds if bound is not None]
    return found
