"""All items of the checklist, judged."""

from typing import Literal

from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.tools.conform import (
    items_delivery,
    items_delta,
    items_holes,
    items_kept,
    items_media,
    items_playlist,
    items_reload,
    items_renditions,
    items_variants,
)
from edged.tools.conform.item import BINDING, PROBLEMS_MAX, Item, Level, NotSeen
from edged.tools.conform.observe import Observation, RenditionLog

ITEMS: tuple[Item, ...] = tuple(
    sorted(
        (
            *(*items_reload.ITEMS, *items_playlist.ITEMS, *items_media.ITEMS),
            *(*items_delta.ITEMS, *items_renditions.ITEMS, *items_delivery.ITEMS),
            *(*items_holes.ITEMS, *items_kept.ITEMS, *items_variants.ITEMS),
        ),
        key=lambda item: item.number,
    )
)
STALL_TOLD_S = 0.1
Status = Literal["pass", "fail", "warn", "not seen"]


class Verdict(Struct, frozen=True, kw_only=True):
    """What was found of an item."""

    number: int
    level: Level
    title: str
    status: Status  # "fail": against what binds; "warn": against what is recommended,
    # or unavoidably, as the source is.
    details: list[str]


class Report(Struct, frozen=True, kw_only=True):
    """What was found of a stream."""

    url: str
    renditions: list[str]
    urls: list[str]  # Theirs: details name a line of a playlist as `NAME:LINE`.
    verdicts: list[Verdict]
    broken: list[str]  # What could not be read, or was not answered.
    limits: list[str] = []  # What was seen and not kept, so not judged.

    @property
    def conforms(self) -> bool:
        """Whether nothing fails; what was not seen is not held against it."""
        return not self.broken and not any(v.status == "fail" for v in self.verdicts)


def judge(seen: Observation) -> Report:
    """Judge all items."""
    return Report(
        url=seen.url,
        renditions=[log.name for log in seen.renditions],
        urls=[log.url for log in seen.renditions],
        verdicts=[_judge(item, seen) for item in ITEMS],
        broken=seen.broken[:PROBLEMS_MAX],
        limits=[*_stall(seen), *(line for log in seen.renditions for line in _limits(log))],
    )


def _stall(seen: Observation) -> list[str]:
    told = f"this host let us wait for up to {seen.stall_s:.2f} s: so much later may be in time"
    return [told] if seen.stall_s > STALL_TOLD_S else []


def _limits(log: RenditionLog) -> list[str]:
    kept = (
        (log.seen_before, len(log.seen), "versions"),
        (log.parts_before, len(log.parts), "parts"),
    )
    return [
        f"{log.name}: {count} {what} are judged, the newest; {before} before are not kept"
        for before, count, what in kept
        if before
    ]


def _judge(item: Item, seen: Observation) -> Verdict:
    try:
        found = item.judge(seen)
    except RemoteProtocolError as error:  # A value that cannot be read.
        found = [str(error)]
    if isinstance(found, NotSeen):
        status: Status = "not seen"
        details = [found.why]
    else:
        binds = item.level in BINDING and isinstance(found, list)
        problems = found if isinstance(found, list) else found.problems
        status = "pass"
        if problems:
            status = "fail" if binds else "warn"
        details = problems[:PROBLEMS_MAX]
        if len(problems) > PROBLEMS_MAX:
            details.append(f"and {len(problems) - PROBLEMS_MAX} more")
    return Verdict(
        number=item.number, level=item.level, title=item.title, status=status, details=details
    )
