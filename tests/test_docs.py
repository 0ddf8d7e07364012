"""The README's reference: commands, configuration, metrics, refusals are all there; links work."""

import ast
import importlib
import pkgutil
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
import pytest
import typer.main

import edged
from edged.api.problems import CODES
from edged.cli.main import make_app
from edged.media.events import EVENT_TYPES, StreamEvent
from edged.policy.health_rules import RULES
from edged.runtime.metrics import MetricSpec
from tests.api.client import World

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
# Whoever is called by these names is told a refusal's code, and then the reason.
REFUSING_CALLS = {
    "PublishRefusedError",
    "StreamRefused",
    "stop_stream",
    "stop",
    "_break_off",
    "_refuse",
    "refused",
}
CODE = re.compile(r"[a-z]+(?:_[a-z]+)*")


class Parameter(Protocol):
    name: str | None
    opts: list[str]
    secondary_opts: list[str]


@runtime_checkable
class Command(Protocol):
    help: str | None
    params: list[Parameter]


@runtime_checkable
class Group(Protocol):
    commands: dict[str, object]


def section(heading: str) -> str:
    """The text below a heading of the README, up to the next one of its level."""
    match = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL
    )
    assert match is not None, f"README has no section {heading!r}"
    return match[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands() -> Iterator[tuple[str, Command]]:
    """Every command of the command line, with what one types for it."""
    waiting: list[tuple[str, object]] = [("edged", typer.main.get_command(make_app()))]
    while waiting:
        path, command = waiting.pop()
        if isinstance(command, Group):
            waiting += [(f"{path} {name}", one) for name, one in command.commands.items()]
        else:
            assert isinstance(command, Command)
            yield path, command


def test_no_help_text_has_what_rich_takes_for_markup() -> None:
    """`[pop]` once vanished from the help of `edged run`."""
    texts = [command.help or "" for _, command in commands()]
    texts += [
        getattr(parameter, "help", None) or ""
        for _, command in commands()
        for parameter in command.params
    ]
    assert sum(map(bool, texts)) > 20
    assert [text for text in texts if re.search(r"\[[a-z/#@]", text)] == []


def modules() -> Iterator[types.ModuleType]:
    for found in pkgutil.walk_packages(edged.__path__, "edged."):
        yield importlib.import_module(found.name)


def all_metrics() -> dict[str, MetricSpec]:
    found: dict[str, MetricSpec] = {}
    for module in modules():
        for value in vars(module).values():
            for entry in value if isinstance(value, tuple | list) else (value,):
                if isinstance(entry, MetricSpec):
                    found[entry.name] = entry
    return found


def refusal_codes() -> dict[str, str]:
    """Each code that a publisher can be refused with, and one place where that is done."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "edged").rglob("*.py")):
        if path.parent.name == "tools" or path.name in ("feeds.py", "subscriptions.py"):
            continue  # What publishes; and refusals that PoPs hear, of what viewers want.
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and called(node) in REFUSING_CALLS:
                for argument in node.args:
                    value = argument.value if isinstance(argument, ast.Constant) else None
                    if isinstance(value, str) and CODE.fullmatch(value):
                        found[value] = f"{path.relative_to(ROOT)}:{node.lineno}"
                        break
    return found


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def test_every_command_is_in_the_table_and_no_other() -> None:
    told = [re.findall(r"`([^`]+)`", row[0])[0] for row in rows(section("Commands"))]
    names = [" ".join(re.findall(r"^edged|(?<= )[a-z]+(?![^ ]*=)", text)) for text in told]
    assert sorted(names) == sorted(name for name, _ in commands())


def test_every_option_and_argument_is_explained_by_help() -> None:
    for name, command in commands():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", ""), f"{name}: {parameter.name}"


def test_options_that_the_readme_speaks_of_exist() -> None:
    known = {"--help", "--version"}
    for _, command in commands():
        for parameter in command.params:
            known |= set(parameter.opts) | set(parameter.secondary_opts)
    ours = re.sub(r"^.*(?:apt-get|venv|ffmpeg -re|curl ).*$", "", README, flags=re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) <= known


def test_every_metric_is_in_the_table_with_its_labels() -> None:
    told = {row[0].strip("`"): row[1].replace("`", "") for row in rows(section("Metrics"))}
    known = {name: ", ".join(spec.labels) for name, spec in all_metrics().items()}
    assert len(known) > 20, "the introspection finds them"
    assert told == known


def test_metrics_are_named_as_the_architecture_says() -> None:
    for name, spec in all_metrics().items():
        assert re.fullmatch(r"edged_[a-z]+_[a-z_]+", name)
        assert spec.help, name


def test_every_refusal_is_in_the_table_with_what_to_do() -> None:
    told = {row[0].strip("`"): row for row in rows(section("When a publisher is refused"))}
    known = refusal_codes()
    assert {"unknown_key", "full", "no_route", "timeout", "fenced", "lost_state"} <= set(known)
    assert set(told) - set(known) == set(), "told, but no code gives them"
    assert {code: place for code, place in known.items() if code not in told} == {}
    for code, row in told.items():
        assert len(row) == 3, code
        assert all(row), f"{code}: what it means, and what to do about it"


def test_every_operation_of_the_api_is_in_the_table_and_no_other() -> None:
    operations, codes = (rows(table) for table in section("API").split("`code`:"))
    told = [row[0].strip("`") for row in operations]
    known = [f"{each.method} {each.path}" for each in World().table.operations]
    assert sorted(told) == sorted(known)
    assert {row[0].strip("`"): (int(row[1]), row[2]) for row in codes} == CODES


def test_every_event_is_in_the_table_with_its_fields() -> None:
    common = {field.name for field in msgspec.structs.fields(StreamEvent)}
    told = {
        row[0].strip("`"): set(re.findall(r"`(.+?)`", row[2])) for row in rows(section("Webhooks"))
    }
    known = {
        str(kind.__struct_config__.tag): {field.name for field in msgspec.structs.fields(kind)}
        - common
        for kind in EVENT_TYPES
    }
    assert told == known


def test_every_health_warning_is_in_the_table_with_its_severity() -> None:
    told = {
        code: row[1].split()[0]
        for row in rows(section("When a stream is unwell"))
        for code in re.findall(r"`(.+?)`", row[0])
    }
    assert told == {rule.code: rule.severity for rule in RULES}


def test_the_configuration_files_are_pointed_to() -> None:
    for path in sorted((ROOT / "config").glob("*.toml")):
        assert f"(config/{path.name})" in section("Configuration")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_point_to_what_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert (ROOT / target.partition("#")[0]).exists(), target


def test_modules_that_the_readme_names_exist() -> None:
    for target in re.findall(
        r"`((?:media|wire|policy|runtime|backbone|playback)/[a-z_/.0-9]+)`", README
    ):
        assert (ROOT / "edged" / target).exists(), target


def test_the_changelog_has_this_version() -> None:
    entry = re.search(
        rf"^## {re.escape(edged.__version__)}\b.*?\n(.*?)(?=^## |\Z)",
        CHANGELOG,
        re.MULTILINE | re.DOTALL,
    )
    assert entry is not None
    assert len(re.findall(r"^- ", entry[1], re.MULTILINE)) >= 1


def test_the_plug_in_that_the_readme_shows_is_the_one_that_is_tested() -> None:
    shown = section("Write an ingest plug-in")
    folder = ROOT / "tests" / "plugins" / "toy"
    for language, name, count in (("python", "edged_toy.py", 4), ("toml", "pyproject.toml", 1)):
        blocks = re.findall(rf"^```{language}\n(.*?)^```$", shown, re.MULTILINE | re.DOTALL)
        assert len(blocks) == count
        for block in blocks:
            assert block in (folder / name).read_text()
