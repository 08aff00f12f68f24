import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import LimitError
from codec.models.gauss.raster import rasterize, rasterize_densely


def flat(count, width, height, *, seed=0, dtype=torch.float64, opaque=1.0):
    """Random ellipses, some of them outside of the picture."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(-0.2, 1.2, (count, 2)) * [width, height]
    sides, angle = rng.uniform(0.6, 6, (count, 2)), rng.uniform(0, np.pi, count)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.einsum("ikn,nk,jkn->nij", turn, sides**-2.0, turn)
    conics = np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], 1)
    values = [
        means,
        conics,
        rng.uniform(0, 1, (count, 3)),
        np.minimum(1, opaque * rng.uniform(0.05, 1, count)),
        rng.uniform(1, 5, count),
    ]
    return [torch.tensor(value, dtype=dtype) for value in values]


@given(st.integers(0, 60), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_tiles_draw_what_the_dense_reference_draws(count, width, height, seed):
    given_ = flat(count, width, height, seed=seed)
    for ours, theirs in zip(
        rasterize(*given_, width, height), rasterize_densely(*given_, width, height), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_single_precision_is_near_double():
    # A pixel at the edge of a Gaussian may have it or not: 1 / 255 at most of its light.
    many = flat(2000, 96, 80)
    exact, _ = rasterize(*many, 96, 80)
    rough, _ = rasterize(*(given_.float() for given_ in many), 96, 80)
    assert (exact - rough).abs().max() < 5e-3
    assert (exact - rough).abs().mean() < 1e-5


@pytest.mark.parametrize("opaque", [0.3, 1.0, 9.0])
def test_gradients_are_those_of_the_dense_reference(opaque):
    width, height = 30, 21
    sides = torch.randn(height, width, 4, dtype=torch.float64)
    grads = []
    for draw in (rasterize, rasterize_densely):
        given_ = [value.requires_grad_() for value in flat(100, width, height, opaque=opaque)]
        rgb, alpha = draw(*given_, width, height)
        (torch.cat([rgb, alpha[..., None]], 2) * sides).sum().backward()
        grads.append([value.grad for value in given_[:4]])
    for ours, theirs in zip(*grads, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=1e-4)


def test_gradients_are_differences():
    # Few and faint, so that no step moves a pixel over an edge that matters.
    given_ = [value.requires_grad_() for value in flat(6, 12, 9, seed=3, opaque=0.9)[:4]]
    depths = torch.arange(6, dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda *values: rasterize_densely(*values, depths, 12, 9), given_, eps=1e-7, atol=1e-3
    )
    torch.autograd.gradcheck(
        lambda *values: rasterize(*values, depths, 12, 9), given_, eps=1e-7, atol=1e-3
    )


def test_drawing_twice_gives_the_same_bits_and_so_do_gradients():
    found = []
    for _ in range(2):
        given_ = [value.requires_grad_() for value in flat(500, 50, 40, dtype=torch.float32)]
        rgb, alpha = rasterize(*given_, 50, 40)
        (rgb.sum() + alpha.square().sum()).backward()
        found.append([rgb, alpha, *(value.grad for value in given_[:4])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def assert_nearest_in_front(draw):
    values = [
        torch.tensor([[4.0, 4.0]] * 2),
        torch.tensor([[0.1, 0, 0.1]] * 2),
        torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]),
        torch.tensor([0.98, 0.98]),
    ]
    for depths, front in (([1.0, 2], 0), ([2.0, 1], 1), ([1.0, 1], 0)):
        rgb, _ = draw(*values, torch.tensor(depths), 8, 8)
        assert rgb[3, 3].argmax() == front


def test_the_nearest_is_in_front_and_of_equals_the_first():
    assert_nearest_in_front(rasterize)


def test_what_is_no_ellipse_is_not_drawn():
    for place, value in (
        ((0, 0), np.nan), ((0, 0), 1e300), ((0, 1), -np.inf), ((1, 0), 0), ((1, 0), np.nan),
        ((1, 1), 9), ((1, 0), 1e-320), ((2, 0), np.inf), ((3,), np.nan), ((3,), 2), ((3,), -1),
    ):  # fmt: skip
        given_ = flat(1, 20, 20)
        given_[0][:] = 10
        assert rasterize(*given_, 20, 20)[1].max() > 0
        given_[place[0]][0][place[1:] or ...] = value
        rgb, alpha = rasterize(*given_, 20, 20)
        assert rgb.abs().max() == 0
        assert alpha.max() == 0


def test_shapes_that_do_not_fit_are_refused():
    given_ = flat(5, 8, 8)
    for at in range(5):
        wrong = list(given_)
        wrong[at] = wrong[at][:4]
        with pytest.raises(ValueError, match="want"):
            rasterize(*wrong, 8, 8)
    with pytest.raises(ValueError, match="want"):
        rasterize(*given_, 0, 8)
    with pytest.raises(ValueError, match="float32"):
        rasterize(*(value.half() for value in given_), 8, 8)


def test_too_many_too_large_are_refused_before_they_are_counted():
    many = 1 << 18  # over a million tiles each: to count them would take minutes
    place = torch.full((many, 2), 8192.0)
    flat = torch.tensor([[1e-9, 0.0, 1e-9]]).repeat(many, 1)
    started = time.process_time()
    with pytest.raises(LimitError, match="in tiles"):
        rasterize(
            place, flat, torch.ones(many, 3), torch.ones(many), torch.ones(many), 16384, 16384
        )
    assert time.process_time() - started < 20
