"""Laws of the metrics; pytorch-msssim and the package bjontegaard are the outside oracles."""

import math

import bjontegaard as oracle
import numpy as np
import pytest
import pytorch_msssim
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from codec.errors import UsageError
from codec.metrics import (
    bd_psnr,
    bd_rate,
    bjontegaard,
    max_abs_diff,
    ms_ssim,
    ms_ssim_db,
    psnr,
    psnr_y,
)

CURVE = np.array([[0.1, 28.0], [0.2, 30.5], [0.4, 33.2], [0.8, 36.1]])  # bpp, dB
METHODS = ("pchip", "akima")
IMAGES = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=8))


def picture(height, width, seed, channels=3):
    """Smooth shapes and noise, `(H, W, C)` uint8."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:height, :width] / 17
    waves = [np.sin(down * (c + 1)) + np.cos(right * (c + 2)) for c in range(channels)]
    noisy = 128 + 40 * np.stack(waves, axis=2) + rng.normal(0, 8, (height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def worsened(image, seed, spread):
    noise = np.random.default_rng(seed).normal(0, spread, image.shape)
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)


@st.composite
def curves(draw):
    """Between 4 and 9 points with rate and quality both increasing."""
    count = draw(st.integers(4, 9))
    steps = st.lists(st.floats(0.2, 2.0), min_size=count, max_size=count)
    rates = np.exp(-3 + np.cumsum(draw(steps)) * 0.5)
    return np.stack([rates, 24 + draw(st.floats(0, 4)) + np.cumsum(draw(steps)) * 2], axis=1)


@given(IMAGES)
def test_an_image_has_no_distance_to_itself(image):
    assert psnr(image, image) == math.inf
    assert max_abs_diff(image, image) == 0


@given(IMAGES, st.data())
def test_psnr_of_one_changed_sample_is_the_definition(image, data):
    changed = image.copy()
    at = tuple(data.draw(st.integers(0, side - 1)) for side in image.shape)
    changed[at] ^= 255
    difference = abs(int(changed[at]) - int(image[at]))
    assert psnr(image, changed) == pytest.approx(
        10 * math.log10(255**2 * image.size / difference**2)
    )
    assert max_abs_diff(image, changed) == difference


@given(IMAGES, st.integers(0, 2**32 - 1))
def test_the_unit_of_the_samples_does_not_matter(image, seed):
    test = worsened(image, seed, 20)
    expected = psnr(image, test)
    wide = [(array.astype(np.uint16) * 257) for array in (image, test)]
    floats = [array / 255 for array in (image, test)]
    tensors = [as_tensor(array).double() / 255 for array in (image, test)]
    for pair in (wide, floats, tensors):
        assert psnr(*pair) == pytest.approx(expected, rel=1e-12)


def test_pillow_images_arrays_and_tensors_measure_the_same():
    image, test = picture(170, 181, 1), worsened(picture(170, 181, 1), 2, 9)
    tensors = [as_tensor(array).double() / 255 for array in (image, test)]
    opened = [Image.fromarray(array) for array in (image, test)]
    for measure in (psnr, psnr_y, ms_ssim):
        expected = measure(image, test)
        assert measure(*opened) == expected
        assert measure(*tensors) == pytest.approx(expected, rel=1e-9)
        assert measure(*(t[None] for t in tensors)) == pytest.approx(expected, rel=1e-9)


def test_luma_weighs_the_channels_as_bt601_does():
    black = np.zeros((4, 5, 3), np.uint8)
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        test = black.copy()
        test[..., channel] = 100
        assert psnr_y(black, test) == pytest.approx(20 * math.log10(255 / (100 * weight)))


def test_luma_of_a_grey_image_is_the_image():
    image, test = picture(9, 9, 3, channels=1), picture(9, 9, 4, channels=1)
    assert psnr_y(image, test) == psnr(image, test)
    assert psnr_y(image[..., 0], test[..., 0]) == psnr(image, test)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(161, 230),
    st.integers(161, 230),
    st.integers(0, 2**32 - 1),
    st.floats(1, 60),
    st.sampled_from([1, 3]),
)
def test_ms_ssim_agrees_with_the_package_that_papers_quote(height, width, seed, spread, channels):
    image = picture(height, width, seed, channels)
    test = worsened(image, seed + 1, spread)
    pair = [as_tensor(array)[None].double() for array in (image, test)]
    expected = float(pytorch_msssim.ms_ssim(*pair, data_range=255))
    # The package holds its window in float32, which alone moves its result by 1e-6.
    assert ms_ssim(image, test) == pytest.approx(expected, abs=3e-6)


def test_ms_ssim_of_equal_images_is_one_and_infinitely_many_db():
    value = ms_ssim(picture(161, 161, 5), picture(161, 161, 5))
    assert value == pytest.approx(1, abs=1e-12)
    assert ms_ssim_db(1.0) == math.inf


def test_ms_ssim_is_left_out_below_161_pixels():
    assert ms_ssim(picture(161, 161, 6), picture(161, 161, 7)) is not None
    assert ms_ssim(picture(160, 900, 6), picture(160, 900, 7)) is None
    assert ms_ssim_db(None) is None


def test_ms_ssim_in_db_counts_the_nines():
    assert ms_ssim_db(0.99) == pytest.approx(20)


@pytest.mark.parametrize(
    ("reference", "test", "says"),
    [
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), "differ in shape"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint16), "differ in range"),
        (np.zeros((4, 4), np.int64), np.zeros((4, 4), np.int64), "int64"),
        (np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8), r"\(0, 4\)"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_reason(reference, test, says):
    with pytest.raises(UsageError, match=says):
        psnr(reference, test)


def test_luma_of_four_channels_is_refused():
    with pytest.raises(UsageError, match="1 or 3 channels"):
        psnr_y(np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8))


@pytest.mark.parametrize("method", METHODS)
def test_bd_rate_of_a_scaled_curve_is_the_scale(method):
    assert bd_rate(CURVE, CURVE, method=method) == pytest.approx(0)
    assert bd_rate(CURVE, CURVE * [0.9, 1], method=method) == pytest.approx(-10)


@pytest.mark.parametrize("method", METHODS)
def test_bd_psnr_of_a_raised_curve_is_the_step(method):
    assert bd_psnr(CURVE, CURVE + np.array([0, 1.5]), method=method) == pytest.approx(1.5)


@given(curves(), curves(), st.sampled_from(METHODS))
def test_bd_agrees_with_the_package_bjontegaard(anchor, test, method):
    result = bjontegaard(anchor, test, method=method)
    apart_in_quality = max(anchor[0, 1], test[0, 1]) >= min(anchor[-1, 1], test[-1, 1])
    apart_in_rate = max(anchor[0, 0], test[0, 0]) >= min(anchor[-1, 0], test[-1, 0])
    options = {"method": method, "min_overlap": 0, "require_matching_points": False}
    pair = (anchor[:, 0], anchor[:, 1], test[:, 0], test[:, 1])
    if apart_in_quality:
        assert math.isnan(result.rate_percent)
        assert result.overlap == 0
    else:
        assert result.rate_percent == pytest.approx(oracle.bd_rate(*pair, **options), abs=1e-6)
    if apart_in_rate:
        assert math.isnan(result.gain_db)
    else:
        assert result.gain_db == pytest.approx(oracle.bd_psnr(*pair, **options), abs=1e-6)


@given(curves(), curves(), st.sampled_from(METHODS))
def test_bd_rate_there_and_back_is_one(anchor, test, method):
    there = bd_rate(anchor, test, method=method)
    back = bd_rate(test, anchor, method=method)
    if not math.isnan(there):
        assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


@given(curves(), st.randoms())
def test_the_order_of_the_points_does_not_matter(curve, random):
    shuffled = curve.tolist()
    random.shuffle(shuffled)
    # As text, because the NaN of curves without a common range is unequal to itself.
    assert repr(bjontegaard(CURVE, shuffled)) == repr(bjontegaard(CURVE, curve))


def test_the_evidence_of_a_comparison_is_stated():
    test = np.vstack([CURVE[1:] * [0.5, 1], [[3.0, math.inf], [0.3, 33.2]]])
    result = bjontegaard(CURVE, test)
    assert (result.low_db, result.high_db) == (30.5, 36.1)
    assert result.overlap == pytest.approx((36.1 - 30.5) / (36.1 - 28))
    # The lossless point is left out; of the two points at 33.2 dB the cheaper one counts.
    assert (result.anchor_points, result.test_points) == (4, 3)
    assert result.rate_percent == pytest.approx(bd_rate(CURVE, CURVE[1:] * [0.5, 1]))


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([1.0, 2.0, 3.0], r"\(S, 2\)"),
        ([[0.0, 30.0], [1.0, 31.0]], "above 0"),
        ([[0.5, 30.0], [1.0, math.inf]], "two different points"),
        ([[0.5, 30.0], [0.5, 31.0]], "two different points"),
    ],
)
def test_what_is_no_curve_is_refused_with_a_reason(points, says):
    with pytest.raises(UsageError, match=says):
        bjontegaard(CURVE, points)
