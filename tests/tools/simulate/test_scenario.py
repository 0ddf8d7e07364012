"""Scenarios: those that are shipped, and what is said of bad ones."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from edged.errors import ConfigError
from edged.tools.simulate.scenario import (
    EVENTS_MAX,
    FILE_BYTES_MAX,
    DemandConfig,
    Event,
    FlashCrowd,
    IrsConfig,
    LinkCut,
    OriginDead,
    Scenario,
    Upgrade,
    find_problems,
    find_world_problems,
    load_scenario,
)
from tests.tools.simulate.worlds import SCENARIOS, WORLD, brief

SHIPPED = sorted(path for path in SCENARIOS.glob("*.toml") if "world" not in path.name)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_is_shipped_can_be_used_and_says_what_it_is(path: Path) -> None:
    loaded = load_scenario(path)
    assert len(loaded.world.origins) >= 4
    text = path.read_text()
    assert text.startswith("# "), "it begins with what it is about"
    assert path.stem == "day" or "day.toml explains every key" in text


def test_all_that_were_asked_for_are_there() -> None:
    assert {path.stem for path in SHIPPED} >= {
        *("day", "saturated", "origin-dead", "irs-dead", "link-cut"),
        *("flash-crowd", "stale", "upgrade", "small"),
    }


def test_the_network_is_of_the_size_that_the_article_tells() -> None:
    world = load_scenario(SCENARIOS / "day.toml").world
    assert len(world.pops) == 100
    assert len(world.origins) >= 10
    assert len(world.links) == 54


def test_day_explains_every_key_with_its_default_and_limits() -> None:
    text = (SCENARIOS / "day.toml").read_text()
    written = tomllib.loads(text)
    for table, wanted in (
        (written, Scenario),
        (written["demand"], DemandConfig),
        (written["irs"], IrsConfig),
    ):
        names = {field.encode_name for field in msgspec.structs.fields(wanted)}
        assert names - set(table) - {"events"} == set()
    for event in Event.__args__:
        assert issubclass(event, Struct)
        assert re.search(rf"^#   {event.__struct_config__.tag} ", text, re.MULTILINE)
        for field in msgspec.structs.fields(event):
            assert re.search(rf"^# .*\b{field.name}\b", text, re.MULTILINE), field.name


def write(folder: Path, text: str, world: str = "") -> Path:
    (folder / "world.toml").write_text(world or (SCENARIOS / "small-world.toml").read_text())
    path = folder / "scenario.toml"
    path.write_text(f'name = "x"\nworld = "world.toml"\n{text}')
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hour = 1", "hour: unknown key; did you mean 'hours'?"),
        ("hours = 0.0", "> 0.0"),
        ("hours = 169.0", "<= 168.0"),
        ("[demand]\nload = 11.0", "<= 10.0"),
        ("[demand]\npartner = 0.8\naffiliate = 0.3", "partner 0.8 + affiliate 0.3"),
        ("[demand]\nslots = 1000000\nduration_mean_s = 10.0", "may exceed 50000000"),
        ("[irs]\nlease_ttl_s = 5.0", "at least twice push_interval_s 5"),
        (
            'policies = ["best"]',
            "policies[0]: 'best' is not allowed (Invalid enum value 'best'); one of 'greedy', ",
        ),
        ('policies = ["price", "price"]', "policies: price is there 2 times"),
        ("seeds = []", "length >= 1"),
        ("seeds = [3, 3]", "seeds: 3 is there 2 times"),
        ("sample_s = 1.0\nhours = 168.0", "604800 samples exceed 100000"),
        (
            '[[events]]\nkind = "fire"\nat_h = 1.0',
            "events[0].kind: 'fire' is not allowed; one of origin-dead, ",
        ),
        ('[[events]]\nkind = "irs-dead"\nat_h = 24.0', "at_h: 24 is not before the end, 24"),
        (
            '[[events]]\nkind = "origin-dead"\nat_h = 1.0\norigin = "o"',
            "none of the world's 4 origins",
        ),
        ('[[events]]\nkind = "link-cut"\nat_h = 1.0\nlink = "a-b"', "'a-b' is none of the world's"),
        (
            '[[events]]\nkind = "flash-crowd"\nat_h = 1.0\ntimes = 2.0\nfor_h = 1.0\npops = ["?"]',
            "pops",
        ),
        ('[[events]]\nkind = "flash-crowd"\nat_h = 1.0\ntimes = 2.0', "say when it is over"),
        ("events = 3", "events: must be tables [[events]], 1000 at most"),
        ("[[events]]\nat_h = 1.0", "events[0].kind: is missing; one of origin-dead, "),
        ('[[events]]\nkind = "irs-dead"\nat_h = -1.0', "events[0].at_h: -1.0 is not allowed"),
        (
            '[[events]]\nkind = "irs-dead"\nat_h = 1.0\norigin = "o"',
            "events[0].origin: unknown key",
        ),
        ("x = ", "is not TOML: Invalid value"),
        ("x = " + 2000 * "[", "nested too deeply"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_scenario(write(tmp_path, text))
    assert "scenario.toml" in str(caught.value)
    assert told in str(caught.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    world = (SCENARIOS / "small-world.toml").read_text().replace('at = "nyc"', 'at = "xyz"')
    path = write(tmp_path, "seeds = [1, 1]", world)
    with pytest.raises(ConfigError) as caught:
        load_scenario(path)
    assert "world.toml: origins.at: nyc1 is at 'xyz', which is none of the 12 pops" in str(
        caught.value
    )
    assert "seeds: 1 is there 2 times" in str(caught.value)


def test_so_are_those_of_types(tmp_path: Path) -> None:
    path = write(tmp_path, 'hours = "two"\nstart_hour = 24.0\n[demand]\nload = 0.0')
    with pytest.raises(ConfigError) as caught:
        load_scenario(path)
    keys = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert keys == ["start_hour", "hours", "demand.load"]


@pytest.mark.parametrize(("count", "fits"), [(EVENTS_MAX, True), (EVENTS_MAX + 1, False)])
def test_events_are_limited(tmp_path: Path, count: int, *, fits: bool) -> None:
    path = write(tmp_path, count * '[[events]]\nkind = "irs-dead"\nat_h = 1.0\n')
    if fits:
        assert len(load_scenario(path).scenario.events) == count
        return
    with pytest.raises(ConfigError, match="1000 at most"):
        load_scenario(path)


def test_a_world_that_no_file_can_be_called_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text('name = "x"\nworld = "a\\u0000b"\n')
    with pytest.raises(
        ConfigError, match=r"scenario\.toml: world: .a.x00b. cannot be the name of a file"
    ):
        load_scenario(path)


def test_a_file_that_is_not_there_or_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_scenario(tmp_path / "none.toml")
    path = write(tmp_path, "#")
    path.write_bytes(path.read_bytes().ljust(FILE_BYTES_MAX, b"#"))
    assert load_scenario(path).scenario.name == "x"
    path.write_bytes(path.read_bytes() + b"#")
    with pytest.raises(ConfigError, match="1048577 bytes exceed 1048576"):
        load_scenario(path)
    path.write_text('name = "x"\nworld = "elsewhere.toml"\n')
    with pytest.raises(ConfigError, match=r"elsewhere\.toml: cannot be read: No such file"):
        load_scenario(path)


def test_links_may_be_named_in_either_order() -> None:
    for name in ("nyc-lhr", "lhr-nyc"):
        loaded = brief(LinkCut(at_h=0.01, link=name))
        assert find_problems(loaded.scenario, loaded.world) == []


def test_events_speak_of_what_there_is() -> None:
    loaded = brief(
        OriginDead(at_h=0.0, origin="nyc1"),
        FlashCrowd(at_h=0.0, for_h=0.01, times=2.0, pops=("lhr",)),
        Upgrade(at_h=0.0, origins=("lhr1",)),
    )
    assert find_problems(loaded.scenario, loaded.world) == []
    bad = brief(Upgrade(at_h=0.0, origins=("lhr1", "x")))
    assert find_problems(bad.scenario, bad.world) == [
        "events[0].origin: 'x' is none of the world's 3 origins"
    ]


def test_a_link_needs_two_ends() -> None:
    assert find_world_problems(WORLD) == []
    loop = msgspec.structs.replace(WORLD.links[0], b="nyc")
    nowhere = msgspec.structs.replace(WORLD.links[0], a="?")
    bad = msgspec.structs.replace(WORLD, links=(*WORLD.links, loop, nowhere, WORLD.links[0]))
    problems = find_world_problems(bad)
    assert "links: nyc-nyc joins a PoP with itself" in problems
    assert any("ends at '?'" in problem for problem in problems)
    assert "links: lhr-nyc is there 2 times" in problems
