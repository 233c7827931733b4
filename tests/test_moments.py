"""Weighted figures against the same of the expanded table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.customers import moments

ROWS = st.lists(
    st.tuples(st.floats(-1e6, 1e6) | st.just(np.nan), st.integers(0, 5)), min_size=2, max_size=30
)
SHARES = np.array([0, 0.1, 0.25, 0.5, 0.75, 0.99, 1])


@given(ROWS)
def test_figures_are_those_of_the_expanded_table(rows):
    values, weights = (np.array(part, dtype=float) for part in zip(*rows, strict=True))
    expanded = np.repeat(values, weights.astype(int))
    known = expanded[~np.isnan(expanded)]
    if len(known) < 2:
        assert len(known) or np.isnan(moments.mean(values, weights))
        return
    near = {"rel": 1e-9, "abs": 1e-6}
    assert moments.mean(values, weights) == pytest.approx(known.mean(), **near)
    assert moments.sd(values, weights, ddof=1) == pytest.approx(known.std(ddof=1), **near)
    assert moments.quantile(values, SHARES, weights) == pytest.approx(
        np.quantile(known, SHARES), **near
    )


def test_nothing_known_gives_nothing():
    assert np.isnan(moments.mean([np.nan], [3]))
    assert np.isnan(moments.sd([1.0], [1], ddof=1))
    assert np.isnan(moments.quantile([np.nan], [0.5], [2])).all()
