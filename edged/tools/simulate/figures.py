"""The figures that a run is judged by, and their mean and worst over seeds."""

import math
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

DIGITS = 6  # Of what is told: a run gives the same to the last bit, sums of floats need not.


class Figures(Struct, frozen=True, kw_only=True):
    """One run, or the mean or the worst of several. Shares are 0 to 1; None: it did not occur.

    `served`: stream time that was live, of what was wanted. `of_bound`: live streams of those that
    the clairvoyant bound has live, at its moments. `cost_of_bound`: mean RTT over the bound's.
    `full_use`: live streams over slots, while more was wanted than there were. `calm`: while at
    most 99 % of slots were used. `first_try`: streams that the first origin took that was asked.
    `offers`: origins asked per stream, one where the PoP refused by itself. `moved`: streams that
    lost their origin and found another, in `moved_p99_ms`; `cut`: that found none. `rehomed`: moves
    of streams while they were live. `overload_h`: while a link was beyond its bandwidth. `clear_s`:
    from the cut of a link until all that are left are full to 90 % at most, and stay so, which is
    looked at for CLEAR_S_MAX. `shed`: live streams that were ended as links could not carry them;
    `shed_amiss`: after cuts, those shed that the best plan keeps, and those kept that it does not,
    over those that it does not. `rtt_of_undisturbed`: mean RTT while an event lasts, over that of
    the same time without any; measured where it is a goal, as it takes a second run.
    """

    served: float
    of_bound: float | None
    cost_of_bound: float | None
    full_use: float | None
    rejected: float
    rejected_partner: float
    rejected_affiliate: float
    rejected_basic: float
    first_try: float
    first_try_calm: float | None
    offers: float
    offers_full: float | None
    rtt_ms: float
    rtt_p99_ms: float
    link_load_max: float
    overload_h: float
    clear_s: float | None = None
    shed: float = 0.0
    shed_amiss: float | None = None
    rtt_of_undisturbed: float | None = None
    moved: float
    rehomed: float
    moved_first_try: float | None
    moved_p99_ms: float | None
    cut: float


# Shares of something whole, 0 to 1.
SHARES = {
    "served",
    "of_bound",
    "full_use",
    "rejected",
    "rejected_partner",
    "rejected_affiliate",
    "rejected_basic",
    "first_try",
    "first_try_calm",
    "link_load_max",
    "moved_first_try",
}
# Of these more is better; of all others less.
MORE_IS_BETTER = {
    "served",
    "of_bound",
    "full_use",
    "first_try",
    "first_try_calm",
    "moved",
    "moved_first_try",
}


def mean_of(runs: Sequence[Figures]) -> Figures:
    """The mean of each figure, where it occurred."""
    return figures_by(lambda name: _reduce(runs, name, lambda known: math.fsum(known) / len(known)))


def worst_of(runs: Sequence[Figures]) -> Figures:
    """The worst of each figure."""
    return figures_by(lambda name: _reduce(runs, name, min if name in MORE_IS_BETTER else max))


def _reduce(
    runs: Sequence[Figures], name: str, reduce: Callable[[list[float]], float]
) -> float | None:
    known = [value for run in runs if (value := getattr(run, name)) is not None]
    return reduce(known) if known else None


def figures_by(value: Callable[[str], float | None]) -> Figures:
    """Each figure by its name."""
    found = {}
    for name in Figures.__struct_fields__:
        each = value(name)
        found[name] = None if each is None else round(each, DIGITS)
    return msgspec.convert(found, Figures)
