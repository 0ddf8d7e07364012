"""The figures that a run is judged by, and their mean and worst over seeds."""

import math
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from edged.tools.simulate.bound import Best
from edged.tools.simulate.recorder import Recorder

DIGITS = 6  # Of what is told: a run gives the same to the last bit, sums of floats need not.


class Figures(Struct, frozen=True, kw_only=True):
    """One run, or the mean or the worst of several. Shares are 0 to 1; None: it did not occur.

    `served`: stream time that was live, of what was wanted. `of_bound`: live streams of those that
    the clairvoyant bound has live, at its moments. `cost_of_bound`: mean RTT over the bound's.
    `full_use`: live streams over slots, while more was wanted than there were. `calm`: while at
    most 99 % of slots were used. `first_try`: streams that the first origin took that was asked.
    `offers`: origins asked per stream, one where the PoP refused by itself. `moved`: streams that
    lost their origin and found another, in `moved_p99_ms`; `cut`: that found none. `rehomed`: moves
    of streams while they were live. `overload_h`:
    while a link was beyond its bandwidth.
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
    moved: float
    rehomed: float
    moved_first_try: float | None
    moved_p99_ms: float | None
    cut: float


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


def measure(recorder: Recorder, bounds: Sequence[Best], sample_s: float) -> Figures:
    """Figures of one run; `bounds` are of the recorder's kept moments, in their order."""
    samples = recorder.samples
    full = [sample for sample in samples if sample.wanted > sample.slots]
    rejected = [
        _share(lost, came) or 0.0
        for lost, came in zip(recorder.rejected_by_class, recorder.came_by_class, strict=True)
    ]
    overloaded = sum(sample.link_load > 1 for sample in samples)
    made = Figures(
        served=_share(sum(s.live for s in samples), sum(s.wanted for s in samples)) or 0.0,
        of_bound=_share(
            sum(kept.live for kept in recorder.kept), math.fsum(bound.served for bound in bounds)
        ),
        cost_of_bound=_cost(recorder, bounds),
        full_use=_share(sum(s.live for s in full), sum(s.slots for s in full)),
        rejected=_share(sum(recorder.rejected_by_class), recorder.decided) or 0.0,
        rejected_partner=rejected[0],
        rejected_affiliate=rejected[1],
        rejected_basic=rejected[2],
        first_try=_share(recorder.first_tries, recorder.decided) or 0.0,
        first_try_calm=_share(recorder.calm_first_tries, recorder.calm),
        offers=_share(recorder.offers, recorder.decided) or 0.0,
        offers_full=_share(recorder.full_offers, recorder.full),
        rtt_ms=_share(math.fsum(s.rtt_ms * s.live for s in samples), sum(s.live for s in samples))
        or 0.0,
        rtt_p99_ms=percentile(recorder.rtt_histogram, 0.99),
        link_load_max=max((sample.link_load for sample in samples), default=0.0),
        overload_h=overloaded * sample_s / 3600,
        moved=float(recorder.moved),
        rehomed=float(recorder.rehomed_total),
        moved_first_try=_share(recorder.moved_first_tries, recorder.moved),
        moved_p99_ms=_p99_ms(recorder.delays_s),
        cut=float(sum(recorder.cut_by_class)),
    )
    return _each(lambda name: getattr(made, name))


def mean_of(runs: Sequence[Figures]) -> Figures:
    """The mean of each figure, where it occurred."""
    return _each(lambda name: _reduce(runs, name, lambda known: math.fsum(known) / len(known)))


def worst_of(runs: Sequence[Figures]) -> Figures:
    """The worst of each figure."""
    return _each(lambda name: _reduce(runs, name, min if name in MORE_IS_BETTER else max))


def percentile(histogram: dict[int, int], part: float) -> float:
    """The least value that this part of all does not exceed."""
    wanted = part * sum(histogram.values())
    seen = 0
    for value, count in sorted(histogram.items()):
        seen += count
        if seen >= wanted:
            return float(value)
    return 0.0


def _p99_ms(delays_s: Sequence[float]) -> float | None:
    if not delays_s:
        return None
    ranked = sorted(delays_s)
    return 1000 * ranked[min(len(ranked) - 1, math.ceil(0.99 * len(ranked)) - 1)]


def _cost(recorder: Recorder, bounds: Sequence[Best]) -> float | None:
    ours = _share(
        math.fsum(kept.rtt_sum_ms for kept in recorder.kept),
        sum(kept.live for kept in recorder.kept),
    )
    best = _share(
        math.fsum(bound.rtt_sum_ms for bound in bounds), math.fsum(bound.served for bound in bounds)
    )
    return None if ours is None or not best else ours / best


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _reduce(
    runs: Sequence[Figures], name: str, reduce: Callable[[list[float]], float]
) -> float | None:
    known = [value for run in runs if (value := getattr(run, name)) is not None]
    return reduce(known) if known else None


def _each(value: Callable[[str], float | None]) -> Figures:
    found = {}
    for name in Figures.__struct_fields__:
        each = value(name)
        found[name] = None if each is None else round(each, DIGITS)
    return msgspec.convert(found, Figures)
