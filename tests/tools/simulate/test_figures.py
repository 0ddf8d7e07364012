"""Figures: their mean and worst over seeds."""

import msgspec

from edged.tools.simulate.figures import MORE_IS_BETTER, SHARES, Figures, mean_of, worst_of


def made(**changed: float | None) -> Figures:
    zero = dict.fromkeys(Figures.__struct_fields__, 0.0)
    return msgspec.convert({**zero, **changed}, Figures)


def test_mean_and_worst_know_what_is_better() -> None:
    runs = [made(served=0.9, rejected=0.1, cut=4.0), made(served=0.7, rejected=0.3, cut=0.0)]
    assert mean_of(runs) == made(served=0.8, rejected=0.2, cut=2.0)
    assert worst_of(runs) == made(served=0.7, rejected=0.3, cut=4.0)
    assert set(Figures.__struct_fields__) >= MORE_IS_BETTER | SHARES


def test_what_did_not_occur_is_left_out() -> None:
    runs = [made(full_use=None), made(full_use=0.5)]
    assert mean_of(runs).full_use == 0.5
    assert mean_of([made(full_use=None)]).full_use is None
