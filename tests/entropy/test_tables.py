import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from codec.entropy import Tables, gaussian_tables
from tests.entropy import strategies

SCALES = np.exp(np.linspace(np.log(0.11), np.log(64), 64))
ROW = [0, 5, 15, 16]


def made(cdf=(ROW,), offsets=(-1,), sizes=(3,), precision=4, dtype=np.uint32):
    return Tables(
        np.array(cdf, dtype), np.array(offsets, np.int32), np.array(sizes, np.int32), precision
    )


@given(strategies.tables(precisions=st.integers(4, 24)))
def test_every_entry_has_a_count_and_the_sum_is_exact(tables):
    for row, size in zip(tables.cdf.astype(np.int64), tables.sizes, strict=True):
        assert row[0] == 0
        assert (np.diff(row)[:size] >= 1).all()
        assert (row[size:] == 2**tables.precision).all()


@given(arrays(np.float64, st.integers(2, 9), elements=st.sampled_from([0, 0.001, 0.3, 1, 7])))
def test_no_count_can_be_moved_for_fewer_bits(pmf):
    pmf[0] = 1
    counts = np.diff(Tables.from_pmfs([pmf], [0], 5).cdf[0].astype(np.int64))
    for giver in np.flatnonzero(counts > 1):
        for taker in range(len(counts)):
            other = counts.copy()
            other[giver] -= 1
            other[taker] += 1
            assert (pmf * -np.log2(other)).sum() >= (pmf * -np.log2(counts)).sum() - 1e-9


def test_tables_cannot_be_changed():
    tables = made()
    for array in (tables.cdf, tables.offsets, tables.sizes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        tables.precision = 5


def test_tables_do_not_change_with_the_arrays_they_were_made_of():
    cdf = np.array([ROW], np.uint32)
    tables = Tables(cdf, np.zeros(1, np.int32), np.full(1, 3, np.int32), 4)
    cdf[0, 1] = 7
    assert tables.cdf.tolist() == [ROW]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cdf": [[1, 5, 15, 16]]},
        {"cdf": [[0, 5, 5, 16]]},
        {"cdf": [[0, 9, 5, 16]]},
        {"cdf": [[0, 5, 15, 15]]},
        {"cdf": [[0, 5, 16, 16]]},
        {"cdf": [[0, 5, 16, 17, 16]], "sizes": [2]},
        {"cdf": [ROW, ROW]},
        {"cdf": np.zeros((0, 4)), "offsets": [], "sizes": []},
        {"cdf": ROW},
        {"cdf": [[0, 16]], "sizes": [1]},
        {"sizes": [4]},
        {"sizes": [2]},
        {"offsets": [-(2**20) - 1]},
        {"offsets": [2**20 - 1]},
        {"precision": 5},
        {"precision": 0},
        {"precision": 25, "cdf": [[0, 5, 15, 2**25]]},
        {"dtype": np.int64},
    ],
    ids=str,
)
def test_integers_that_make_no_tables_are_refused(wrong):
    made()
    with pytest.raises(ValueError, match=r"want|support"):
        made(**wrong)


@pytest.mark.parametrize(
    "pmf", [[1.0], [0, 0], [-1, 2], [np.nan, 1], [np.inf, 1], np.ones(17)], ids=str
)
def test_probabilities_that_make_no_table_are_refused(pmf):
    with pytest.raises(ValueError, match=r"entries|probabilities"):
        Tables.from_pmfs([np.array(pmf, np.float64)], [0], 4)


def test_gaussian_tables_cover_all_but_the_tail_on_both_sides_alike():
    from scipy.special import ndtr

    tables = gaussian_tables(SCALES, 16, tail_mass=2.0**-12)
    last = -tables.offsets
    assert (tables.sizes == 2 * last + 2).all()
    assert (last >= 1).all()
    assert (2 * ndtr(-(last + 0.5) / SCALES) <= 2.0**-12).all()
    assert (2 * ndtr(-(last - 0.5) / SCALES) > 2.0**-12)[last > 1].all()


def test_gaussian_tables_cost_less_than_a_thousandth_more_than_the_gaussians():
    from scipy.special import ndtr

    tables = gaussian_tables(SCALES, 16)
    for scale, row, offset, size in zip(
        SCALES, tables.cdf.astype(np.int64), tables.offsets, tables.sizes, strict=True
    ):
        distance = np.abs(np.arange(offset, offset + size - 1))
        p = ndtr((0.5 - distance) / scale) - ndtr((-0.5 - distance) / scale)
        bits = 16 - np.log2(np.diff(row)[: size - 1])
        assert p @ (bits + np.log2(p)) < max(1e-3 * (p @ -np.log2(p)), 1e-4)
