"""What a forecast and a plan of a day say, and what they cannot say: for people and programs."""

import math
from collections.abc import Sequence

from msgspec import Struct

from edged.policy.link_map import LinkConfig, LinkMap, PathConfig, SiteConfig

WEEK_DAYS = 7
KNOWN_MIN = 0.9  # Of the history, or its gaps are told of.
ABOVE_MAX = 0.2  # Of quarters of an hour: that one whole day of seven is above happens by chance.
NAMES_SHOWN_MAX = 10
SCARCE_MS = 50_000.0  # Dearer, a limit serves who has no place: half of what the lowest class costs


class Network(Struct, frozen=True, kw_only=True):
    """What IRS knows of the network that it plans for."""

    origins: dict[str, int] = {}  # Slots of each.
    rtt_ms: dict[str, dict[str, float]] = {}  # PoP -> origin: as measured, without tolls.
    back_mbps: dict[str, dict[str, float]] = {}  # PoP -> origin: what came from there.
    links: tuple[LinkConfig, ...] = ()
    sites: tuple[SiteConfig, ...] = ()
    paths: tuple[PathConfig, ...] = ()
    reserve_fraction: float = 0.0  # Of each origin, for partners.

    def link_map(self) -> LinkMap:
        """The map, on which nothing is cut."""
        return LinkMap(self.links, self.sites, self.paths)


class Limits(Struct, frozen=True, kw_only=True):
    """How much of all may be planned: the rest is for what no plan knows."""

    slots_part: float = 0.95
    link_part: float = 0.9


class OriginUse(Struct, frozen=True, kw_only=True):
    """An origin in a quarter of an hour."""

    origin: str
    units: float
    part: float  # Of its slots.
    price_ms: float  # What one more slot there saves; see `Need`.
    scarce: bool


class LinkUse(Struct, frozen=True, kw_only=True):
    """One direction of a link."""

    link: str
    towards: str
    mbps: float  # `back_mbps` included.
    back_mbps: float  # Parts on their way to PoPs with viewers.
    part: float
    price_ms: float  # What one more Mbps saves.
    scarce: bool


class Quarter(Struct, frozen=True, kw_only=True):
    """A quarter of an hour of the plan; units by class are partner, affiliate, basic."""

    slot: int
    demand: float
    unserved: list[float]  # By class.
    unserved_pops: dict[str, float]  # Those that have any.
    placed: dict[str, dict[str, float]]  # PoP -> origin: units, where there are any.
    rtt_ms: float | None  # The mean where it is known; None where nothing is placed of which it is.
    rtt_unknown: float  # Units that are placed where nobody has measured it.
    origins: list[OriginUse]
    links: list[LinkUse]

    @property
    def missing(self) -> float:
        """Units that find no place."""
        return math.fsum(self.unserved)

    @property
    def served(self) -> float:
        """The part of the demand that has a place; 1 where there is none."""
        return 1.0 - self.missing / self.demand if self.demand else 1.0


class Need(Struct, frozen=True, kw_only=True):
    """A limit that is reached, over the day.

    `price_ms`: what one more of it would save at most: round trips and what filling links cost. Who
    has no place counts far more than these there (`flows.UNSERVED_MS`), and then it is `scarce`.
    """

    kind: str  # "origin", of which one more is a slot; or "link", of which it is a Mbps.
    name: str
    hours: float
    price_ms: float
    scarce: bool


class DayPlan(Struct, frozen=True, kw_only=True):
    """All of it."""

    quarters: list[Quarter]
    needs: list[Need]  # Dearest first.
    unserved_most: float  # Units that find no place in the worst quarter of an hour.
    slots_missing: int  # More slots that would serve them, if they are where those can get to.
    mbps_assumed: bool  # No PoP has told what it carries.
    off_map: list[str]  # PoPs and origins that no site has: no link counts for them.


class Check(Struct, frozen=True, kw_only=True):
    """How forecasts of days that have come fared: each made of what came before it alone."""

    days: int
    off: float  # All PoPs together, by quarters of an hour: the mean miss, as a part of what came.
    off_worst: float  # Of the worst of these days.
    off_as_before: float | None  # The same if the newest day before had come again.
    off_pops: float  # As `off`, each PoP for itself.
    off_of: dict[str, float]  # The same of each PoP.
    above_high: float | None  # The part of quarters of an hour in which more came than `high`.
    not_forecast: int  # Of single PoPs, quarters of an hour that came and of which nothing told.


class Basis(Struct, frozen=True, kw_only=True):
    """What a forecast is made of."""

    pops: list[str]
    days: float  # From the first row to the last.
    known: float  # The part of the PoPs' quarters of an hour, since each came, that was told.
    age_h: float  # Of the last row.
    growth: float | None  # Of a week; None where there is too little to tell, and it counts as 1.
    gone: list[str]  # PoPs of which the newest day has nothing: they are left out.
    untold: dict[str, int]  # By PoP: quarters of an hour planned as none, as nothing tells of them.
    mixed: int  # Of single PoPs, quarters of an hour made of weekends and other days alike.
    high_from_days: int | None  # None: there are too few days to tell what may be.
    unplaced: dict[str, int]  # By PoP: units that found no place meanwhile.
    later_rows: int  # In the file, later than now.
    origins_gone: list[str]  # Not heard for a day: they are left out.


class DayForecast(Struct, frozen=True, kw_only=True):
    """A day, its plan, and how far to trust both."""

    begin: str  # UTC.
    high: bool  # Planned for as much as one quarter of an hour in twenty has; else as expected.
    basis: Basis
    demand: dict[str, list[list[float]]]  # By PoP: of each quarter of an hour, units by class.
    check: Check | None
    plan: DayPlan
    doubts: list[str]


def find_doubts(basis: Basis, check: Check | None, plan: DayPlan, network: Network) -> list[str]:
    """Whatever is not known, or speaks against the forecast; empty: it can be believed."""
    return [
        *_doubts_of_history(basis),
        *_doubts_of_forecast(basis),
        *_doubts_of_check(check),
        *_doubts_of_network(basis, plan, network),
    ]


def _doubts_of_history(basis: Basis) -> list[str]:
    doubts = []
    if basis.days < WEEK_DAYS:
        doubts.append(f"{basis.days:.1f} days of history are less than a week")
    if basis.known < KNOWN_MIN:
        doubts.append(f"{_percent(basis.known)} of the history is known, the rest nobody told")
    if basis.age_h > 1:
        doubts.append(f"the history ends {basis.age_h:,.0f} hours before now")
    if basis.later_rows:
        doubts.append(
            f"{basis.later_rows:,} rows are later than now and do not count: a clock was wrong"
        )
    if basis.unplaced:
        count = sum(basis.unplaced.values())
        doubts.append(
            f"{count:,} units found no place meanwhile, each try counted, at"
            f" {_names(sorted(basis.unplaced))}: demand was higher than what the history has"
        )
    return doubts


def _doubts_of_forecast(basis: Basis) -> list[str]:
    doubts = []
    if basis.growth is None:
        doubts.append("growth is not known: no two weeks have enough in common; none is planned")
    if basis.mixed:
        doubts.append(
            f"{basis.mixed / 4:,.1f} hours of single PoPs are made of weekends and other days"
            " alike, as there are too few of their kind"
        )
    if basis.high_from_days is None:
        doubts.append("how far days are apart is not known: there are too few")
    if basis.untold:
        hours = sum(basis.untold.values()) / 4
        doubts.append(
            f"{hours:,.1f} hours of single PoPs are planned as none, as no day tells of them:"
            f" {_names(sorted(basis.untold))}"
        )
    if basis.gone:
        doubts.append(f"left out, as the newest day has nothing of them: {_names(basis.gone)}")
    return doubts


def _doubts_of_check(check: Check | None) -> list[str]:
    if check is None:
        return ["no day has been forecast and come: how far off this is nobody knows"]
    doubts = []
    if check.above_high is None:
        doubts.append("of what may be nothing was compared with what came")
    elif check.above_high > ABOVE_MAX:
        doubts.append(
            f"{_percent(check.above_high)} of the time more came than may be in a twentieth of it"
        )
    if check.off_as_before is not None and check.off > check.off_as_before:
        doubts.append(
            f"to take the day before for the next was nearer: off by"
            f" {_percent(check.off_as_before)}"
        )
    if check.not_forecast:
        doubts.append(f"{check.not_forecast / 4:,.1f} hours of single PoPs came unforeseen")
    return doubts


def _doubts_of_network(basis: Basis, plan: DayPlan, network: Network) -> list[str]:
    doubts = []
    if basis.origins_gone:
        doubts.append(f"left out, as not heard for a day: {_names(basis.origins_gone)}")
    if unknown := max((quarter.rtt_unknown for quarter in plan.quarters), default=0.0):
        doubts.append(f"up to {unknown:,.1f} units are placed where nobody measured the round trip")
    if not network.sites:
        doubts.append("the backbone's links are not known (`[[irs.links]]`): none is counted")
    elif plan.off_map:
        doubts.append(f"no site has {_names(plan.off_map)}: no link is counted for them")
    if plan.mbps_assumed and network.links:
        doubts.append("what a stream takes of a link nobody told: 6 Mbps are assumed")
    return doubts


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    more = len(names) - NAMES_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"
