"""Which samples are shown: the first of all by several keys, without a sort of all."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo.reporting.galleries import _first


@given(
    rows=st.lists(st.tuples(st.integers(-2, 2), st.sampled_from([0.5, 1.0, np.inf])), max_size=30),
    count=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_the_first_by_all_keys(rows, count, seed):
    ids = np.random.default_rng(seed).permutation(len(rows)) + 100
    times = np.array([row[0] for row in rows], dtype=np.int32)
    loss = np.array([row[1] for row in rows], dtype=np.float32)
    expected = [number for *_, number in sorted(zip(times.tolist(), loss.tolist(), ids.tolist(), strict=True))]
    assert _first(ids, [times, loss], count).tolist() == expected[:count]
