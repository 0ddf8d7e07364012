"""What each link is by itself, from what whole paths were measured to be.

A path's round trip is the sum of its links'; its loss, as -ln(1 - loss), too. The fit is the one
with the least sum of absolute errors (L1), values not negative: a linear program. Unlike least
squares it is not drawn by a path that is off for a reason of its own.

What cannot be told is not told. Links that only ever occur together have one value, that of all of
them. And a sum may be known of which the parts are not: where all paths are one of some links on
the PoPs' side and one of some on the origins', what one side has more the other may have less. By
linear algebra: a value is known if its unit vector is in the row space of the matrix (path, link).
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from edged.policy.linear_program import INFINITY, Entries, Floats, LinearProgram, Numbers

PRECISION = 1e-7  # Of the projection: entries of the matrix are 0 and 1.


class Measured(Struct, frozen=True):
    """What a path was measured to be."""

    links: frozenset[str]
    value: float
    weight: float = 1.0


class Fitted(Struct, frozen=True):
    """Links that are told as one, and the sum of them; None where it cannot be known."""

    links: tuple[str, ...]
    value: float | None


class LinkFitter:
    """Fits again and again, from where it was while the paths stay."""

    def __init__(self) -> None:
        self._shape: tuple[frozenset[str], ...] = ()
        self._program: LinearProgram | None = None
        self._groups: list[tuple[str, ...]] = []
        self._merged: list[tuple[str, ...]] = []  # Groups of which only sums are known.
        self._known: list[bool] = []

    def fit(self, measured: Sequence[Measured]) -> list[Fitted]:
        """The links of these paths, by name; raises SolverError."""
        rows = _merge(measured)
        shape = tuple(rows)
        if not shape:
            return []
        if shape != self._shape or self._program is None:
            self._build(shape)
        assert self._program is not None, "just built"
        count, paths = len(self._groups), len(shape)
        values = np.array([value for value, _ in rows.values()], dtype=np.float64)
        weights = np.array([weight for _, weight in rows.values()], dtype=np.float64)
        optimum = self._program.solve(
            Numbers(
                cost=np.concatenate([np.zeros(count), weights, weights]),
                lower=np.zeros(count + 2 * paths),
                upper=np.full(count + 2 * paths, INFINITY),
                row_lower=values,
                row_upper=values,
            )
        )
        found = [
            Fitted(group, max(0.0, value))
            for group, known, value in zip(
                self._groups, self._known, optimum.values[:count].tolist(), strict=True
            )
            if known
        ]
        found += [Fitted(links, None) for links in self._merged]
        return sorted(found, key=lambda fitted: fitted.links)

    def _build(self, shape: tuple[frozenset[str], ...]) -> None:
        """One column for each group, and each path's error by two that are not negative."""
        crossed: dict[str, list[int]] = {}
        for place, links in enumerate(shape):
            for link in sorted(links):
                crossed.setdefault(link, []).append(place)
        together: dict[tuple[int, ...], list[str]] = {}
        for link in sorted(crossed):
            together.setdefault(tuple(crossed[link]), []).append(link)
        groups = sorted((tuple(links), rows) for rows, links in together.items())
        self._groups = [links for links, _ in groups]
        matrix = np.zeros((len(shape), len(groups)))
        for place, (_, crossing) in enumerate(groups):
            matrix[list(crossing), place] = 1.0
        self._know(matrix)
        row, column = np.nonzero(matrix)
        every = np.arange(len(shape))
        count = len(groups)
        entries = Entries(
            np.concatenate([row, every, every]).astype(np.int32),
            np.concatenate([column, count + every, count + len(shape) + every]).astype(np.int32),
            np.concatenate([np.ones(row.size), np.ones(len(shape)), -np.ones(len(shape))]),
        )
        self._program = LinearProgram(entries, columns=count + 2 * len(shape), rows=len(shape))
        self._shape = shape

    def _know(self, matrix: Floats) -> None:
        """Which groups have a value of their own, and which of the others hang together."""
        count = matrix.shape[1]
        free = np.eye(count) - np.linalg.pinv(matrix) @ matrix  # Onto what no path can tell.
        tied = np.abs(free) > PRECISION
        self._known = [not tied[group, group] for group in range(count)]
        left = {group for group in range(count) if not self._known[group]}
        self._merged = []
        while left:
            waiting, found = [min(left)], set[int]()
            while waiting:
                group = waiting.pop()
                if group in found:
                    continue
                found.add(group)
                waiting += [other for other in left if tied[group, other]]
            left -= found
            links = sorted(link for group in found for link in self._groups[group])
            self._merged.append(tuple(links))


def _merge(measured: Sequence[Measured]) -> dict[frozenset[str], tuple[float, float]]:
    """Paths over the same links are one: their weighted median, the sum of their weights."""
    found: dict[frozenset[str], list[tuple[float, float]]] = {}
    for each in measured:
        if each.links and each.weight > 0:
            found.setdefault(each.links, []).append((each.value, each.weight))
    merged = {}
    for links in sorted(found, key=sorted):
        values = sorted(found[links])
        total = sum(weight for _, weight in values)
        passed = 0.0
        for value, weight in values:
            passed += weight
            if passed >= total / 2:
                merged[links] = (value, total)
                break
    return merged
