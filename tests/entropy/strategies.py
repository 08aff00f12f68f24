"""What the laws of the coders are tried on."""

import numpy as np
from hypothesis import strategies as st

from codec.entropy import Tables

UP_TO_16 = st.integers(4, 16)
NEAR = st.integers(-40, 40)
ANY = st.integers(-(2**20), 2**20)


@st.composite
def tables(draw, precisions=UP_TO_16):
    """One to four tables of two to twelve entries, from skewed to flat."""
    precision = draw(precisions)
    pmfs, offsets = [], []
    for _ in range(draw(st.integers(1, 4))):
        weights = draw(st.lists(st.sampled_from([0, 1, 3, 50, 4000]), min_size=1, max_size=11))
        pmfs.append(np.array([*weights, 1.0]))
        offsets.append(draw(st.integers(-12, 3)))
    return Tables.from_pmfs(pmfs, offsets, precision)


@st.composite
def calls(draw, **options):
    """One to three calls (tables, indexes, symbols), some of them empty, some symbols far out."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        chosen = draw(tables(**options))
        symbols = draw(st.lists(st.one_of(NEAR, NEAR, NEAR, ANY), max_size=40))
        size = len(symbols)
        indexes = draw(
            st.lists(st.integers(0, len(chosen.sizes) - 1), min_size=size, max_size=size)
        )
        found.append((chosen, np.array(indexes, np.int32), np.array(symbols, np.int32)))
    return found
