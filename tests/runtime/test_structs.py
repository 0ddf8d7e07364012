"""Every mistake of a table at once, each with its place and what is allowed."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from edged.runtime.structs import Problem, convert_all, describe, read_toml


class Inner(Struct, kw_only=True, forbid_unknown_fields=True):
    listen: str = "[::]:1935"
    limit: Annotated[int, Meta(ge=1, le=10)] = 5


class Outer(Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    state: Path = Path("state")
    inner: Inner | None = None
    entries: tuple[Inner, ...] = ()
    mode: Literal["a", "b"] = "a"
    ratio: Annotated[float, Meta(gt=0)] = 1.0
    flag: bool = False
    words: dict[str, int] = {}


class Picky(Struct, kw_only=True):
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")


def problems_of(raw: object, wanted: type[Struct] = Outer) -> list[str]:
    problems: list[Problem] = []
    made = convert_all(raw, wanted, "", problems)
    assert (made is None) == bool(problems)
    return [str(problem) for problem in problems]


def test_a_right_table_is_converted() -> None:
    raw = {"name": "x", "state": "/var", "inner": {"limit": 3}, "entries": [{"limit": 1}, {}]}
    problems: list[Problem] = []
    assert convert_all(raw, Outer, "", problems) == Outer(
        name="x", state=Path("/var"), inner=Inner(limit=3), entries=(Inner(limit=1), Inner())
    )
    assert not problems


def test_every_problem_is_reported_with_its_place() -> None:
    raw = {
        "inner": {"limit": 11, "lisen": "x"},
        "entries": [{}, {"limit": "many"}],
        "mode": "c",
        "ratio": 0,
        "flag": 1,
        "words": {"a": "b"},
        "state": 5,
    }
    found = problems_of(raw)
    assert found == [
        "name: is missing; a string",
        "state: 5 is not allowed (expected a Path as a string); a path",
        "inner.lisen: unknown key; did you mean 'listen'? allowed here: limit, listen",
        "inner.limit: 11 is not allowed (Expected `int` <= 10); an integer >= 1 and <= 10",
        "entries[1].limit: 'many' is not allowed (Expected `int`, got `str`);"
        " an integer >= 1 and <= 10",
        "mode: 'c' is not allowed (Invalid enum value 'c'); one of 'a', 'b'",
        "ratio: 0 is not allowed (Expected `float` > 0.0); a number > 0",
        "flag: 1 is not allowed (Expected `bool`, got `int`); true or false",
        "words.a: 'b' is not allowed (Expected `int`, got `str`); an integer",
    ]


def test_not_a_table() -> None:
    assert problems_of([1]) == ["must be a table, not a list"]
    assert problems_of({"name": "x", "inner": 5}) == [
        "inner: 5 is not allowed (Expected `object | null`, got `int`); a table"
    ]


class Keyed(Struct, kw_only=True):
    key: str = ""
    secrets: dict[str, str] = {}


def test_secrets_are_not_repeated() -> None:
    assert problems_of({"key": 424242, "secrets": {"main": 434343}}, Keyed) == [
        "key: the value (not shown) is not allowed (Expected `str`, got `int`); a string",
        "secrets.main: the value (not shown) is not allowed (Expected `str`, got `int`); a string",
    ]
    assert problems_of({"key": {"x": "secret"}, "secrets": ["secret"]}, Keyed) == [
        "key: a table is not allowed (Expected `str`, got `object`); a string",
        "secrets: a list is not allowed (Expected `object`, got `array`); a table",
    ]


def test_what_the_whole_objects_to() -> None:
    assert problems_of({"low": 2}, Picky) == ["low 2 is above high 1"]


class Listed(Struct, kw_only=True):
    entries: Annotated[tuple[Inner, ...], Meta(max_length=2)] = ()
    names: Annotated[tuple[str, ...], Meta(min_length=1)] = ("x",)


def test_every_item_of_a_list_is_checked_and_then_its_length() -> None:
    assert problems_of({"entries": [{"limit": 0}, 5, {"a": 1}], "names": [1, "b", 2]}, Listed) == [
        "entries[0].limit: 0 is not allowed (Expected `int` >= 1); an integer >= 1 and <= 10",
        "entries[1]: 5 is not allowed (Expected `object`, got `int`); a table",
        "entries[2].a: unknown key; allowed here: limit, listen",
        "names[0]: 1 is not allowed (Expected `str`, got `int`); a string",
        "names[2]: 2 is not allowed (Expected `str`, got `int`); a string",
    ]
    assert problems_of({"entries": [{}, {}, {}], "names": []}, Listed) == [
        "entries: a list is not allowed (Expected `array` of length <= 2); a list, each a table",
        "names: a list is not allowed (Expected `array` of length >= 1); a list, each a string",
    ]


def test_long_values_are_cut() -> None:
    (found,) = problems_of({"name": "x", "mode": "y" * 500})
    assert len(found) < 700
    assert "..." in found


def test_describe() -> None:
    assert describe(int | None) == "an integer"
    assert describe(list[str]) == "a list, each a string"
    assert describe(Annotated[str, Meta(pattern="^a$")]) == "a string matching ^a$"
    meta = Meta(max_length=1, description="one only: so it is")
    assert describe(Annotated[list[str], meta]) == "a list, each a string, one only: so it is"
    assert describe(Annotated[int, Meta(title="number")]) == "an integer"
    assert describe(bytes) == "a value of another type"


def test_a_file_is_read_up_to_its_limit_or_says_why_not(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"

    def read(data: bytes, bytes_max: int = 20) -> tuple[dict[str, object] | None, list[str]]:
        problems: list[Problem] = []
        path.write_bytes(data)
        raw = read_toml(path, bytes_max, problems)
        return raw, [str(problem) for problem in problems]

    assert read(b"a = 1\r\nb = 'x'") == ({"a": 1, "b": "x"}, [])
    assert read(b"a = 1".ljust(20)) == ({"a": 1}, [])
    assert read(b"a = 1".ljust(21)) == (None, ["21 bytes exceed 20"])
    assert read(b"a = 1".ljust(99)) == (None, ["99 bytes exceed 20"])
    assert read(b"a = '\xff'")[1][0].startswith("is not TOML: 'utf-8' codec can't decode")
    assert read(b"a = ")[1][0].startswith("is not TOML: Invalid value")
    deep = read(b"a = " + 9000 * b"[", 9999)
    assert deep == (None, ["is not TOML that can be read: nested too deeply"])
    problems: list[Problem] = []
    assert read_toml(tmp_path, 20, problems) is None
    assert read_toml(tmp_path / "none", 20, problems) is None
    assert [str(problem) for problem in problems] == [
        "cannot be read: Is a directory",
        "cannot be read: No such file or directory",
    ]
