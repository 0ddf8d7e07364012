"""The matrix that programs of flows have in common: who goes where, by class.

Columns: x[p,o,k], by PoP, then origin, then class; then u[p,k], what is not served. Rows: demand by
PoP and class; capacity by origin and class, which counts the class and those below it; then what a
program has of its own, links for one.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edged.policy.linear_program import Entries

Places = NDArray[np.int64]


class FlowColumns(Struct, frozen=True, kw_only=True):
    """The columns x[p,o,k], each by its PoP, origin and class; no column for who may not go."""

    pops: int
    origins: int
    width: int  # Classes.
    pop: Places
    origin: Places
    k: Places

    @property
    def flows(self) -> int:
        """How many there are."""
        return self.pop.size

    @property
    def columns(self) -> int:
        """With those of what is not served."""
        return self.flows + self.pops * self.width

    @property
    def rows(self) -> int:
        """Of demand and capacity."""
        return (self.pops + self.origins) * self.width

    @property
    def place(self) -> Places:
        """Where each x is among all PoPs, origins and classes."""
        return (self.pop * self.origins + self.origin) * self.width + self.k

    def crossing(self, pairs: Iterable[int]) -> Places:
        """The columns of these pairs, each given as PoP x origins + origin."""
        return np.flatnonzero(np.isin(self.pop * self.origins + self.origin, list(pairs)))


def flow_columns(
    pops: int, origins: int, width: int, forbidden: Iterable[tuple[int, int]] = ()
) -> FlowColumns:
    """All columns but those of forbidden (PoP, origin)."""
    place = np.arange(pops * origins * width)
    if closed := [row * origins + at for row, at in forbidden]:
        place = place[~np.isin(place // width, closed)]
    return FlowColumns(
        pops=pops,
        origins=origins,
        width=width,
        pop=place // (origins * width),
        origin=place // width % origins,
        k=place % width,
    )


def flow_entries(
    flows: FlowColumns, more: Sequence[tuple[Places, Places, NDArray[np.float64]]] = ()
) -> Entries:
    """The matrix; `more`: rows, columns and values of entries that it has beside."""
    left = np.arange(flows.pops * flows.width)
    within = np.arange(flows.flows)
    rows = [flows.pop * flows.width + flows.k, left]
    columns = [within, flows.flows + left]
    for each in range(flows.width):  # The capacity of class `each` counts it and those below it.
        counted = within[flows.k >= each]
        rows.append((flows.pops + flows.origin[counted]) * flows.width + each)
        columns.append(counted)
    values = [np.ones(sum(each.size for each in rows))]
    for of_rows, of_columns, of_values in more:
        rows.append(of_rows)
        columns.append(of_columns)
        values.append(of_values)
    return Entries(
        np.concatenate(rows).astype(np.int32),
        np.concatenate(columns).astype(np.int32),
        np.concatenate(values),
    )
