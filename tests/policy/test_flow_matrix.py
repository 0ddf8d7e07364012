"""The matrix: what each row sums up."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from edged.policy.flow_matrix import flow_columns, flow_entries

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


@hypothesis.given(SIZES, st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_rows_sum_up_demand_and_what_each_class_may_have(
    size: tuple[int, int, int], closed: set[tuple[int, int]]
) -> None:
    pops, origins, width = size
    forbidden = {(row, place) for row, place in closed if row < pops and place < origins}
    flows = flow_columns(pops, origins, width, forbidden)
    assert flows.flows == (pops * origins - len(forbidden)) * width
    entries = flow_entries(flows)
    matrix = np.zeros((flows.rows, flows.columns))
    matrix[entries.rows, entries.columns] += entries.values
    assert matrix.max() == 1  # Each place once.
    x = np.zeros((pops, origins, width))
    rng = np.random.default_rng(1)
    values = rng.integers(0, 9, flows.columns).astype(float)
    x.ravel()[flows.place] = values[: flows.flows]
    left = values[flows.flows :].reshape(pops, width)
    sums = matrix @ values
    assert np.array_equal(sums[: pops * width].reshape(pops, width), x.sum(axis=1) + left)
    capacity = sums[pops * width :].reshape(origins, width)
    for k in range(width):
        assert np.array_equal(capacity[:, k], x[:, :, k:].sum(axis=(0, 2)))
    for row, place in forbidden:
        assert not x[row, place].any()


def test_more_entries_come_behind_and_pairs_are_found() -> None:
    flows = flow_columns(2, 2, 1, [(0, 1)])
    found = flows.crossing([1, 2])  # The first is forbidden.
    assert found.tolist() == [1]
    more = (np.full(1, flows.rows), found, np.array([6.0]))
    entries = flow_entries(flows, [more])
    assert (entries.rows[-1], entries.columns[-1], entries.values[-1]) == (flows.rows, 1, 6.0)
