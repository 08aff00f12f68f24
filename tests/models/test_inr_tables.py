import numpy as np
import pytest

from codec.models.inr.tables import PHASES, SCALES, laplace_pmf, laplace_tables, scale_of

TABLES = laplace_tables()
ESCAPE_BITS = 12


def laplace_cdf(x, mean, scale):
    side = np.exp(-np.abs(x - mean) / scale) / 2
    return np.where(x < mean, side, 1 - side)


@pytest.mark.parametrize("mean", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("scale", [0.05, 0.7, 20.0])
def test_probabilities_are_differences_of_the_distribution(mean, scale):
    edges = np.arange(-5, 8) - 0.5
    expected = np.diff(laplace_cdf(edges, mean, scale))
    pmf = laplace_pmf(mean, scale, -5, 6)
    np.testing.assert_allclose(expected, pmf[:-1], atol=1e-15)
    assert pmf.sum() == pytest.approx(1, abs=1e-14)


def test_there_is_a_table_for_each_phase_and_scale():
    assert TABLES.cdf.shape[0] == PHASES * SCALES
    assert TABLES.precision == 16
    np.testing.assert_allclose(scale_of(np.array([0, 24, 63])), [np.exp(-3), 1, np.exp(4.875)])


def loss(mean, scale):
    """Bits of the nearest table above the entropy of a Laplace in unit bins, and these bits."""
    fine = int(np.floor(32 * mean + 0.5))
    index = int(np.clip(np.floor(8 * np.log(scale) + 0.5) + 24, 0, 63))
    t = SCALES * fine + index
    first, size = int(TABLES.offsets[t]), int(TABLES.sizes[t])
    freqs = np.diff(TABLES.cdf[t, : size + 1].astype(np.float64))
    bits = 16 - np.log2(freqs)
    bits[-1] += ESCAPE_BITS
    pmf = laplace_pmf(mean, scale, first, first + size - 2)
    whole = laplace_pmf(mean, scale, -4000, 4000)[:-1]
    entropy = -(whole[whole > 0] * np.log2(whole[whole > 0])).sum()
    return (pmf * bits).sum() - entropy, entropy


@pytest.mark.parametrize("low", [0.1, 0.3, 1.0, 3.0, 10.0])
def test_tables_cost_little_more_than_any_laplace_has_bits(low):
    rng = np.random.default_rng(0)
    losses = [
        loss(*case)
        for case in zip(rng.uniform(0, 0.5, 200), low * 3 ** rng.random(200), strict=True)
    ]
    lost, entropy = np.sum(losses, axis=0)
    assert 0 < lost / entropy < 0.002


def test_an_outlier_of_five_is_no_escape():
    assert TABLES.offsets.max() == -5
    assert (TABLES.offsets + TABLES.sizes - 2).min() == 5
