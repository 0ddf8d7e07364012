"""A network at one moment, as its IRS sees it, and what has changed from one moment to the next.

Rows are whole numbers, so that they are small where thousands of them are kept; `*_ROW` name what
stands where.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from edged.media.epochs import DrainNote
from edged.media.routing import OriginState, PopState
from edged.policy.restrictions import Restriction
from edged.policy.well import LinkStatus

ORIGIN_STATES: Final = tuple(state.value for state in OriginState)
POP_STATES: Final = tuple(state.value for state in PopState)
LINK_STATES: Final = ("up", "cut", "closed", "unknown")
UNKNOWN: Final = -1
TEXT_CHARS_MAX: Final = 200
CHANNELS_MAX: Final = 3  # Named of the streams that moved together.

POP_ROW: Final = (
    *("connected", "state", "streams"),
    *("arrivals", "refusals", "unplaced", "load_percent"),
)
ORIGIN_ROW: Final = (
    *("state", "connected", "slots", "used"),
    *("partner", "affiliate", "basic", "usable_percent"),
)
REACH_ROW: Final = ("holds", "relayed", "hold_mbps")  # Of PoPs: channels; and Mbps by plan.
LINK_ROW: Final = (
    *("state", "use_percent", "use_back_percent"),
    *("rtt_tenth_ms", "loss_hundredth_percent", "price_ms"),
)

Row = tuple[int, ...]
Pair = tuple[str, str]  # PoP, origin.


class NetworkEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened, in words that the page makes sentences of; `at` is Unix seconds."""

    at: float
    kind: str  # "moved", "kept", "wanted", "origin", "link", "shed", "full", "drain", "pop"...
    pop: str = ""
    origin: str = ""  # Where streams came from, or whom it is about.
    to: str = ""  # Where they went.
    link: str = ""
    before: str = ""
    after: str = ""
    why: str = ""
    count: int = 1
    channels: tuple[str, ...] = ()


class SitePlace(Struct, frozen=True, array_like=True):
    """A site of the map; without coordinates both are None."""

    name: str
    latitude: float | None = None
    longitude: float | None = None


class LinkPlace(Struct, frozen=True, array_like=True):
    """A link of the map."""

    name: str
    ends: tuple[str, str]
    mbps: float


class NetworkMap(Struct, frozen=True, kw_only=True):
    """What stands still: which site has which PoP and origin, and which links join them."""

    sites: tuple[SitePlace, ...] = ()
    links: tuple[LinkPlace, ...] = ()
    site_of_pop: Mapping[str, str] = {}
    site_of_origin: Mapping[str, str] = {}


class IrsPoint(Struct, frozen=True, kw_only=True):
    """IRS itself."""

    standing: str  # "alone", "active", "standby", "campaign"
    epoch: int
    version: int
    fallback: str = ""  # Why plans are made without the solver; "" while it makes them.
    unserved: int = 0  # Units without room anywhere, by the last plan.


class NetworkSample(Struct, frozen=True, kw_only=True):
    """All of it; rows by name."""

    at: float  # Unix seconds.
    irs: IrsPoint
    pops: Mapping[str, Row]
    origins: Mapping[str, Row]
    links: Mapping[str, Row]
    flows: Mapping[Pair, int]  # Units; those that are not there have none.
    reach: Mapping[str, Row] = {}  # Of PoPs that hold, or are relayed, anything.
    relays: Mapping[Pair, int] = {}  # Channels that a PoP, the second, takes from the first.
    drains: tuple[DrainNote, ...] = ()
    limits: tuple[tuple[str, Restriction], ...] = ()  # Source, what it says.
    link_why: Mapping[str, str] = {}


def link_row(link: LinkStatus) -> Row:
    """A link as numbers: whole percents and tenths of a millisecond are what can be told."""
    there, back = (round(100 * use) for use in link.utilisation)
    alone = len(link.told_as) == 1  # Else the figure is of several links together.
    rtt = UNKNOWN if link.rtt_ms is None or not alone else _steady(10 * link.rtt_ms)
    loss = UNKNOWN if link.loss is None or not alone else round(10_000 * link.loss)
    return (LINK_STATES.index(link.state), there, back, rtt, loss, round(link.price_ms))


def _steady(tenths_ms: float) -> int:
    """In steps that do not change with each sample: a tenth, and whole ones from 10 ms on."""
    return round(tenths_ms) if tenths_ms < 100 else 10 * round(tenths_ms / 10)  # noqa: PLR2004


def differences(before: NetworkSample, after: NetworkSample) -> Iterator[NetworkEvent]:
    """What has changed in between, but for what is told as it happens (moves, origins)."""
    at = after.at
    for name, row in after.pops.items():
        was = before.pops.get(name)
        if was is None or was[0] != row[0]:
            yield NetworkEvent(at=at, kind="pop", pop=name, after="here" if row[0] else "gone")
    yield from _of_links(before, after)
    yield from _of_drains(before.drains, after.drains, at)
    yield from _of_limits(before.limits, after.limits, at)
    yield from _of_irs(before.irs, after.irs, at)


def _of_links(before: NetworkSample, after: NetworkSample) -> Iterator[NetworkEvent]:
    for name, row in after.links.items():
        was = before.links.get(name)
        if was is None:
            continue
        why = after.link_why.get(name, "")[:TEXT_CHARS_MAX]
        states = [LINK_STATES[each[0]] for each in (was, row)]
        if states[0] != states[1]:
            yield NetworkEvent(
                at=after.at, kind="link", link=name, before=states[0], after=states[1], why=why
            )
        elif states[1] == "up" and bool(was[-1]) != bool(row[-1]):
            use = max(row[1], row[2])
            filling = "filling" if row[-1] else "eased"
            yield NetworkEvent(at=after.at, kind="link", link=name, after=filling, count=use)


def _of_drains(
    before: Sequence[DrainNote], after: Sequence[DrainNote], at: float
) -> Iterator[NetworkEvent]:
    known, now = {each.origin for each in before}, {each.origin for each in after}
    for note in after:
        if note.origin not in known:
            by = note.by[:TEXT_CHARS_MAX]
            yield NetworkEvent(at=at, kind="drain", origin=note.origin, after="begun", why=by)
    for origin in sorted(known - now):
        yield NetworkEvent(at=at, kind="drain", origin=origin, after="over")


def _of_limits(
    before: Sequence[tuple[str, Restriction]],
    after: Sequence[tuple[str, Restriction]],
    at: float,
) -> Iterator[NetworkEvent]:
    for held, others, word in ((after, before, "begun"), (before, after, "over")):
        known = {_said(source, limit) for source, limit in others}
        for source, limit in held:
            if _said(source, limit) not in known:
                yield NetworkEvent(
                    at=at,
                    kind="limit",
                    origin=limit.name if limit.kind == "origin" else "",
                    link=limit.name if limit.kind == "link" else "",
                    before=source,
                    after=word,
                    why=limit.reason[:TEXT_CHARS_MAX],
                    count=round(100 * limit.usable),
                )


def _said(source: str, limit: Restriction) -> tuple[str, str, str, str, int]:
    """A limit as its event says it: another end of it, or part of a percent, is no event."""
    return (source, limit.kind, limit.name, limit.reason, round(100 * limit.usable))


def _of_irs(before: IrsPoint, after: IrsPoint, at: float) -> Iterator[NetworkEvent]:
    if (before.standing, before.epoch) != (after.standing, after.epoch):
        yield NetworkEvent(
            at=at, kind="irs", before=before.standing, after=after.standing, count=after.epoch
        )
    if bool(before.fallback) != bool(after.fallback):
        word = "without" if after.fallback else "with"
        yield NetworkEvent(at=at, kind="plans", after=word, why=after.fallback[:TEXT_CHARS_MAX])
    if bool(before.unserved) != bool(after.unserved):
        word = "lacking" if after.unserved else "enough"
        yield NetworkEvent(at=at, kind="room", after=word, count=after.unserved)
