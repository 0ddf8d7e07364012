"""What an item of the checklist is, and what may be found of it."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.tools.conform.answer import Answer
from edged.tools.conform.observe import Observation
from edged.wire.m3u8_reader import ReadMedia, read_media

Level = Literal["must", "profile", "Apple must", "should", "recommended"]
BINDING: tuple[Level, ...] = ("must", "profile", "Apple must")
AT_ONCE_S_MAX = 1.0  # Of an answer that waits for nothing.
PROBLEMS_MAX = 5  # Told of an item; the rest is counted.
NO_PARTS = "there are no parts: it does not apply"
NO_BLOCKING = "CAN-BLOCK-RELOAD=YES is not there: the server does not block reloads"


class NotSeen(Struct, frozen=True):
    """The stream gave no occasion to judge."""

    why: str


class Advice(Struct, frozen=True):
    """Nothing that the item's level forbids, and yet something to do better."""

    problems: list[str]


class Unavoidable(Struct, frozen=True):
    """Against what binds, but as the source is no server can do otherwise; each says why."""

    problems: list[str]


Judgement = list[str] | NotSeen | Advice | Unavoidable  # Problems; an empty list: all is well.


class Item(Struct, frozen=True):
    """One of the checklist."""

    number: int
    level: Level
    title: str
    judge: Callable[[Observation], Judgement]


def has_parts(seen: Observation) -> bool:
    """Whether this is a low-latency stream at all: many items are of parts alone."""
    return any(log.last.part_target_us for log in seen.renditions)


def settle(problems: list[str], count: int, why: str) -> Judgement:
    """Problems, once something was looked at or found; what was found is never dropped."""
    return problems if problems or count else NotSeen(why)


def settle_explained(problems: list[str], explained: list[str], count: int, why: str) -> Judgement:
    """The same where some are the source's: those of the server come first, if there are any."""
    if explained and not problems:
        return Unavoidable(explained)
    return settle(problems + explained, count, why)


def blocks(seen: Observation) -> bool:
    """Whether blocking reload is offered: its rules apply only then (RFC 8216bis §6.2.5.2)."""
    return seen.main.last.control.get("CAN-BLOCK-RELOAD") == "YES"


def probed(seen: Observation, name: str) -> Answer | NotSeen:
    """What was answered to a probe."""
    answer = seen.probes.get(name)
    return NotSeen("the server did not answer what was asked") if answer is None else answer


def playlist_of(answer: Answer, before: ReadMedia | None = None) -> ReadMedia | str:
    """The playlist that an answer is, or why it is none."""
    if answer.status != 200:  # noqa: PLR2004 - HTTP's OK
        return f"{answer.url}: status {answer.status}, not a playlist"
    try:
        return read_media(answer.body, before)
    except RemoteProtocolError as error:
        return f"{answer.url}: {error}"


def status_of(seen: Observation, name: str, wanted: int, *, at_once: bool = False) -> Judgement:
    """Whether a probe was answered with a status, and without waiting."""
    answer = probed(seen, name)
    if isinstance(answer, NotSeen):
        return answer
    if answer.status != wanted:
        return [f"{answer.url}: status {answer.status}, not {wanted}"]
    if at_once and answer.waited_s > AT_ONCE_S_MAX:
        late = f"{answer.waited_s:.1f} s, {AT_ONCE_S_MAX:g} s at most"
        return [f"{answer.url}: {wanted} only after {late}"]
    return []
