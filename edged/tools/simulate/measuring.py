"""Measuring a run: its figures, from what was recorded and the bounds of the moments kept."""

import math
from collections.abc import Sequence

from edged.media.routing import CLASSES
from edged.tools.simulate.bound import Best, unserved_by_class
from edged.tools.simulate.figures import Figures, figures_by
from edged.tools.simulate.recorder import CutMade, Recorder, Sample
from edged.tools.simulate.scenario import Event

ROUNDING = 0.5  # Streams.


def measure(
    recorder: Recorder,
    bounds: Sequence[Best],
    sample_s: float,
    *,
    rtt_of_undisturbed: float | None = None,
) -> Figures:
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
        clear_s=recorder.clear_s,
        shed=float(recorder.shed_total),
        shed_amiss=_shed_amiss(recorder.link_cuts),
        rtt_of_undisturbed=rtt_of_undisturbed,
        moved=float(recorder.moved),
        rehomed=float(recorder.rehomed_total),
        moved_first_try=_share(recorder.moved_first_tries, recorder.moved),
        moved_p99_ms=_p99_ms(recorder.delays_s),
        cut=float(sum(recorder.cut_by_class)),
    )
    return figures_by(lambda name: getattr(made, name))


def compare_rtt(
    disturbed: Recorder, undisturbed: Recorder, events: Sequence[Event]
) -> float | None:
    """Mean RTT while an event lasts, over that of the same time in a run without events."""
    spans = [(each.at_h, each.at_h + each.for_h if each.for_h else math.inf) for each in events]

    def rtt_of(samples: Sequence[Sample]) -> float | None:
        found = [each for each in samples if any(a <= each.at_h < b for a, b in spans)]
        return _share(math.fsum(s.rtt_ms * s.live for s in found), sum(s.live for s in found))

    ours, theirs = rtt_of(disturbed.samples), rtt_of(undisturbed.samples)
    return None if ours is None or not theirs else ours / theirs


def _shed_amiss(cuts: Sequence[CutMade]) -> float | None:
    """How far what was shed is from what has to go, by PoP and class."""
    amiss = wanted = 0.0
    for cut in cuts:
        for row, units in enumerate(unserved_by_class(cut.moment)):
            shed = cut.shed.get((row // len(CLASSES), row % len(CLASSES)), 0)
            amiss += abs(shed - units)
            wanted += units
    return _share(amiss, wanted) if wanted > ROUNDING else None


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
