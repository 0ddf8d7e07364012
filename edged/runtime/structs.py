"""Turning TOML into Structs with every problem found at once, each with its place.

`msgspec.convert` stops at the first mistake; an engineer with a file of ten wants all ten.
"""

import difflib
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Struct
from msgspec import inspect as msgspec_inspect

S = TypeVar("S", bound=Struct)
SHOWN_CHARS_MAX = 60  # Of a value in a problem: fits a line of a terminal with what is around it.
# A URL may be a secret as well: who knows that of a webhook may post there.
# Problems are printed and logged, so the values of keys with these names are not repeated in them.
_SECRET = re.compile(r"(^|\.)(key|key_sha256|token_sha256|secret|secrets\..*|url)$")


class Problem(Struct, frozen=True):
    """One mistake: where, and what is allowed there."""

    key: str  # "ingest.rtmp.listen", "channels[2].key"
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


def decode_hook(wanted: type, value: object) -> object:
    """What msgspec cannot make of a string by itself."""
    if wanted is object:
        return value
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected a {wanted.__name__} as a string")


def read_toml(path: Path, bytes_max: int, problems: list[Problem]) -> dict[str, object] | None:
    """Read and decode a file; adds to `problems` why that cannot be, and returns None then."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
        if len(data) <= bytes_max:
            return tomllib.loads(data.decode())
        why = f"{max(path.stat().st_size, len(data))} bytes exceed {bytes_max}"
    except OSError as error:
        why = f"cannot be read: {error.strerror or error}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        why = f"is not TOML: {error}"
    except RecursionError:
        why = "is not TOML that can be read: nested too deeply"
    problems.append(Problem("", why))
    return None


def convert_all(raw: object, wanted: type[S], key: str, problems: list[Problem]) -> S | None:
    """Convert a table; on mistakes adds them to `problems` and returns None."""
    if not isinstance(raw, dict):
        problems.append(Problem(key, f"must be a table, not {_show(raw, key)}"))
        return None
    before = len(problems)
    fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
    problems.extend(
        Problem(_join(key, name), _unknown(name, list(fields)))
        for name in raw
        if name not in fields
    )
    values: dict[str, object] = {}
    for name, field in fields.items():
        if name in raw:
            values[field.name] = _convert_value(raw[name], field.type, _join(key, name), problems)
        elif field.required:
            problems.append(Problem(_join(key, name), f"is missing; {describe(field.type)}"))
    if len(problems) > before:
        return None
    try:
        return wanted(**values)
    except (ValueError, TypeError) as error:  # `__post_init__` objects to the whole.
        problems.append(Problem(key, str(error)))
        return None


def describe(wanted: object) -> str:
    """What a key takes, for people: type and bounds."""
    return _describe(msgspec_inspect.type_info(wanted))


def _convert_value(raw: object, wanted: object, key: str, problems: list[Problem]) -> object:
    options = _options(wanted)
    for option in options:
        if isinstance(option, type) and issubclass(option, Struct) and isinstance(raw, dict):
            return convert_all(raw, option, key, problems)
    before = len(problems)
    for option in options:
        _check_items(raw, option, key, problems)
    if len(problems) > before:
        return None
    try:
        converted: object = msgspec.convert(raw, wanted, dec_hook=decode_hook)
    except (msgspec.ValidationError, ValueError) as error:
        text, _, where = str(error).partition(" - at `$")
        problems.append(
            Problem(
                key + where.removesuffix("`"),
                f"{_show(raw, key)} is not allowed ({text}); {describe(wanted)}",
            )
        )
        return None
    return converted


def _check_items(raw: object, wanted: object, key: str, problems: list[Problem]) -> None:
    """Find what is wrong inside a list or a table of any names, each with its own place."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (list, tuple) and isinstance(raw, list):
        for index, entry in enumerate(raw):
            _convert_value(entry, arguments[0], f"{key}[{index}]", problems)
    elif origin is dict and isinstance(raw, dict):
        for name, entry in raw.items():
            _convert_value(entry, arguments[1], _join(key, str(name)), problems)


def _options(wanted: object) -> tuple[object, ...]:
    """The types of a union, each without what annotates it."""
    options = typing.get_args(wanted) if _is_union(wanted) else (wanted,)
    return tuple(
        typing.get_args(option)[0] if typing.get_origin(option) is Annotated else option
        for option in options
    )


def _is_union(wanted: object) -> bool:
    return typing.get_origin(wanted) in (typing.Union, types.UnionType)


def _unknown(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key; {hint}allowed here: {', '.join(sorted(allowed))}"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _show(value: object, key: str) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if _SECRET.search(key):
        return "the value (not shown)"
    shown = repr(value)
    return shown if len(shown) <= SHOWN_CHARS_MAX else shown[: SHOWN_CHARS_MAX - 3] + "..."


_PLAIN = {
    msgspec_inspect.BoolType: "true or false",
    msgspec_inspect.NoneType: "nothing",
    msgspec_inspect.DictType: "a table",
    msgspec_inspect.StructType: "a table",
}


def _describe(info: msgspec_inspect.Type) -> str:
    text = _PLAIN.get(type(info), "a value of another type")
    match info:
        case msgspec_inspect.IntType() | msgspec_inspect.FloatType():
            text = _describe_number(info)
        case msgspec_inspect.StrType():
            text = f"a string matching {info.pattern}" if info.pattern else "a string"
        case msgspec_inspect.LiteralType():
            text = "one of " + ", ".join(repr(value) for value in info.values)
        case msgspec_inspect.EnumType():
            text = "one of " + ", ".join(repr(member.value) for member in info.cls)
        case msgspec_inspect.Metadata():  # Here for its description: why the limits are so.
            reason = (info.extra_json_schema or {}).get("description")
            text = _describe(info.type) + (f", {reason}" if reason else "")
        case msgspec_inspect.UnionType():
            kept = [kind for kind in info.types if not isinstance(kind, msgspec_inspect.NoneType)]
            text = " or ".join(_describe(kind) for kind in kept)
        case msgspec_inspect.ListType() | msgspec_inspect.VarTupleType():
            text = f"a list, each {_describe(info.item_type)}"
        case msgspec_inspect.CustomType():
            text = "a path" if info.cls is Path else f"a {info.cls.__name__}"
    return text


def _describe_number(info: msgspec_inspect.IntType | msgspec_inspect.FloatType) -> str:
    name = "an integer" if isinstance(info, msgspec_inspect.IntType) else "a number"
    limits = ((">=", info.ge), (">", info.gt), ("<=", info.le), ("<", info.lt))
    bounds = [f"{sign} {limit:g}" for sign, limit in limits if limit is not None]
    return f"{name} {' and '.join(bounds)}".rstrip()
