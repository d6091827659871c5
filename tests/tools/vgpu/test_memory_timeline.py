"""Thinning keeps the order of time, the highest and the lowest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from oomdoctor.vgpu.timeline import Sample, thinned


@given(st.lists(st.integers(0, 1 << 40), max_size=300), st.integers(4, 60))
def test_thinned(amounts: list[int], most: int) -> None:
    samples = [Sample(i / 10, amount, amount, 0) for i, amount in enumerate(amounts)]
    kept = thinned(samples, most)
    assert len(kept) <= most + 2
    assert [s.seconds for s in kept] == sorted(s.seconds for s in kept)
    assert set(kept) <= set(samples)
    if samples:
        assert max(s.allocated for s in kept) == max(amounts)
        assert min(s.allocated for s in kept) == min(amounts)
