"""How far a decoded image is from its source, and one rate-distortion curve from another.

Knows no codec, no file and no torch: it takes arrays, Pillow images, or anything with `detach()`.

An image is one of
    a Pillow image, or an array `(H, W)` or `(H, W, C)` of uint8 (peak 255), uint16 (peak 65535) or
    floats in [0, 1]; or a torch tensor `(C, H, W)`, `(1, C, H, W)` or `(H, W)` of floats in [0, 1].
Both images of a pair have the same size, number of channels and peak; else it is a UsageError.

    >>> round(bd_rate([(0.1, 28), (0.2, 31), (0.4, 34)], [(0.09, 28), (0.18, 31), (0.36, 34)]))
    -10
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator
from scipy.ndimage import convolve1d

from codec.errors import UsageError

__all__ = [
    "MS_SSIM_MIN_SIDE",
    "Bjontegaard",
    "Interpolation",
    "RateCurve",
    "bd_psnr",
    "bd_rate",
    "bjontegaard",
    "max_abs_diff",
    "ms_ssim",
    "ms_ssim_db",
    "psnr",
    "psnr_y",
]

Floats = NDArray[np.float64]
Interpolation = Literal["pchip", "akima"]

# Wang, Simoncelli, Bovik 2003: the exponent of each of the five scales, finest first.
SCALE_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
WINDOW_SIGMA = 1.5
# The window has to fit into the image that was halved four times.
MS_SSIM_MIN_SIDE = (WINDOW - 1) * 2 ** (len(SCALE_EXPONENTS) - 1) + 1

BT601_LUMA = (0.299, 0.587, 0.114)


def psnr(reference: object, test: object) -> float:
    """Peak signal-to-noise ratio over all channels of one image pair.

    Returns:
        dB; infinity for equal images.
    """
    a, b, peak = _pair(reference, test)
    return _decibels(float(np.mean((a - b) ** 2)), peak)


def psnr_y(reference: object, test: object) -> float:
    """PSNR of the luma `Y = 0.299 R + 0.587 G + 0.114 B` (BT.601, full range, not rounded).

    Returns:
        dB; infinity for equal luma. An image of one channel is its own luma.
    """
    a, b, peak = _pair(reference, test)
    return _decibels(float(np.mean((_luma(a) - _luma(b)) ** 2)), peak)


def max_abs_diff(reference: object, test: object) -> float:
    """The largest difference of any two samples, in the unit of the images (levels or [0, 1])."""
    a, b, _ = _pair(reference, test)
    return float(np.abs(a - b).max())


def ms_ssim(reference: object, test: object) -> float | None:
    """Multi-scale structural similarity, the mean over channels of five scales.

    An 11-tap Gaussian window (sigma 1.5) without padding, K = (0.01, 0.03), halving by 2x2 means;
    a negative scale counts as 0. Agrees with the package pytorch-msssim, which papers quote.

    Returns:
        A number in [0, 1], 1 for equal images; None where a side is shorter than 161 pixels, for
        which the five scales are not defined.
    """
    a, b, peak = _pair(reference, test)
    if min(a.shape[1:]) < MS_SSIM_MIN_SIDE:
        return None
    product = np.ones(len(a))
    for scale, exponent in enumerate(SCALE_EXPONENTS):
        similarity, contrast = _ssim(a, b, peak)
        last = scale == len(SCALE_EXPONENTS) - 1
        product *= np.maximum(similarity if last else contrast, 0.0) ** exponent
        if not last:
            a, b = _halve(a), _halve(b)
    return float(np.mean(product))


def ms_ssim_db(value: float | None) -> float | None:
    """`-10 log10(1 - value)`: MS-SSIM in dB, infinity for 1, None for None."""
    if value is None:
        return None
    return math.inf if value >= 1 else -10 * math.log10(1 - value)


@dataclass(frozen=True)
class Bjontegaard:
    """What lies between two rate-distortion curves, and on how much evidence.

    Attributes:
        rate_percent: rate of the test over the anchor's at equal quality, averaged over the common
            range of quality; negative is better. NaN where the ranges have nothing in common.
        gain_db: quality of the test minus the anchor's at equal rate, averaged over the common
            range of log-rate; positive is better. NaN likewise.
        low_db, high_db: the common range of quality. `high_db <= low_db` where there is none.
        overlap: its share of the range that the two curves cover together, in [0, 1].
        anchor_points, test_points: how many points of each curve were used.
    """

    rate_percent: float
    gain_db: float
    low_db: float
    high_db: float
    overlap: float
    anchor_points: int
    test_points: int


@final
class RateCurve:
    """A rate-distortion curve that is interpolated piecewise, ready to be compared with others."""

    def __init__(self, points: ArrayLike, *, method: Interpolation = "pchip") -> None:
        """Interpolate log-rate over quality, and quality over log-rate.

        Args:
            points: `(S, 2)`, rows of (bpp > 0, dB), in any order. Points with an infinite or
                missing quality are left out; of points with equal quality (or rate) the better one
                is kept.
            method: "pchip" keeps the monotone shape of the points, "akima" is smoother.

        Raises:
            UsageError: it is not `(S, 2)`, has a rate that is not positive, or has fewer than two
                different points.
        """
        curve = _finite_points(points)
        by_rate, by_quality = _increasing(curve, 0), _increasing(curve, 1)
        interpolate = {"pchip": PchipInterpolator, "akima": Akima1DInterpolator}[method]
        self._quality_over_rate = interpolate(by_rate[:, 0], by_rate[:, 1])
        self._rate_over_quality = interpolate(by_quality[:, 1], by_quality[:, 0])
        self.points = len(by_quality)

    def versus(self, anchor: "RateCurve") -> Bjontegaard:
        """Compare this curve, the test, with an anchor."""
        first, second = anchor._rate_over_quality, self._rate_over_quality
        log_ratio = _mean_gap(first, second)
        low, high = _common_range(first, second)
        ends = [first.x[0], first.x[-1], second.x[0], second.x[-1]]
        return Bjontegaard(
            rate_percent=100 * math.expm1(log_ratio),
            gain_db=_mean_gap(anchor._quality_over_rate, self._quality_over_rate),
            low_db=low,
            high_db=high,
            overlap=float(max(high - low, 0.0) / (max(ends) - min(ends))),
            anchor_points=anchor.points,
            test_points=self.points,
        )


def bjontegaard(
    anchor: ArrayLike, test: ArrayLike, *, method: Interpolation = "pchip"
) -> Bjontegaard:
    """Compare two rate-distortion curves, given as their points: see `RateCurve`."""
    return RateCurve(test, method=method).versus(RateCurve(anchor, method=method))


def bd_rate(anchor: ArrayLike, test: ArrayLike, *, method: Interpolation = "pchip") -> float:
    """BD-rate of `test` against `anchor` in percent, negative is better: see `bjontegaard`."""
    return bjontegaard(anchor, test, method=method).rate_percent


def bd_psnr(anchor: ArrayLike, test: ArrayLike, *, method: Interpolation = "pchip") -> float:
    """BD-PSNR of `test` against `anchor` in dB, positive is better: see `bjontegaard`."""
    return bjontegaard(anchor, test, method=method).gain_db


def _planes(image: Any) -> tuple[Floats, float]:
    """The channels `(C, H, W)` of any kind of image, and the value that is its white."""
    is_tensor = hasattr(image, "detach")
    array = image.detach().cpu().numpy() if is_tensor else np.asarray(image)
    if is_tensor and array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.dtype not in (np.uint8, np.uint16) and not np.issubdtype(array.dtype, np.floating):
        raise UsageError(f"image: want uint8, uint16 or floats in [0, 1], got {array.dtype}")
    if array.ndim not in (2, 3) or array.size == 0:
        raise UsageError(f"image: want (H, W), (H, W, C) or a tensor (C, H, W), got {array.shape}")
    peak = float(np.iinfo(array.dtype).max) if array.dtype.kind == "u" else 1.0
    if array.ndim == 2:
        array = array[None]
    elif not is_tensor:
        array = np.moveaxis(array, 2, 0)
    return np.ascontiguousarray(array, dtype=np.float64), peak


def _pair(reference: object, test: object) -> tuple[Floats, Floats, float]:
    (a, peak), (b, other_peak) = _planes(reference), _planes(test)
    if a.shape != b.shape:
        raise UsageError(f"images differ in shape: (C, H, W) is {a.shape} and {b.shape}")
    if peak != other_peak:
        raise UsageError(f"images differ in range: their peaks are {peak:g} and {other_peak:g}")
    return a, b, peak


def _decibels(mse: float, peak: float) -> float:
    return math.inf if mse == 0 else 10 * math.log10(peak**2 / mse)


def _luma(planes: Floats) -> Floats:
    if len(planes) not in (1, 3):
        raise UsageError(f"luma: want 1 or 3 channels, got {len(planes)}")
    weights = np.array(BT601_LUMA if len(planes) == 3 else (1.0,))
    luma: Floats = np.tensordot(weights, planes, axes=1)
    return luma


def _window() -> Floats:
    at = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(at**2) / (2 * WINDOW_SIGMA**2))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _blur(planes: Floats) -> Floats:
    """Means under the window, where it fits: `(C, H, W)` to `(C, H - 10, W - 10)`."""
    margin = WINDOW // 2
    rows: Floats = convolve1d(planes, _window(), axis=1)[:, margin:-margin]
    columns: Floats = convolve1d(rows, _window(), axis=2)[:, :, margin:-margin]
    return columns


def _ssim(a: Floats, b: Floats, peak: float) -> tuple[Floats, Floats]:
    """SSIM and its contrast-structure part, `(C,)` each."""
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    variances = _blur(a * a + b * b) - mean_a**2 - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    contrast = (2 * covariance + c2) / (variances + c2)
    similarity = contrast * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return similarity.mean(axis=(1, 2)), contrast.mean(axis=(1, 2))


def _halve(planes: Floats) -> Floats:
    """Means of 2x2; an odd side gets a margin of zeros on both ends, as the quoted package does."""
    H, W = planes.shape[1:]
    padded = np.pad(planes, ((0, 0), (H % 2, H % 2), (W % 2, W % 2)))
    H, W = (side // 2 * 2 for side in padded.shape[1:])
    padded = padded[:, :H, :W]
    means: Floats = padded.reshape(-1, H // 2, 2, W // 2, 2).mean(axis=(2, 4))
    return means


def _finite_points(points: ArrayLike) -> Floats:
    """Points as rows of (log rate, quality), without those of no finite quality."""
    curve = np.array(points, dtype=np.float64)
    if curve.ndim != 2 or curve.shape[1] != 2:
        raise UsageError(f"curve: want (S, 2) rows of bpp and dB, got shape {curve.shape}")
    curve = curve[np.isfinite(curve[:, 1])]
    if not (curve[:, 0] > 0).all():
        raise UsageError(f"curve: want rates above 0, got {curve[:, 0].min():g}")
    curve[:, 0] = np.log(curve[:, 0])
    if min(len(np.unique(curve[:, axis])) for axis in (0, 1)) < 2:
        raise UsageError("curve: want at least two different points of finite quality")
    return curve


def _increasing(curve: Floats, axis: int) -> Floats:
    """The curve sorted by one coordinate; of equal ones the point that is better stays."""
    other = curve[:, 0] if axis == 1 else -curve[:, 1]
    ordered = curve[np.lexsort((other, curve[:, axis]))]
    keep = np.diff(ordered[:, axis], prepend=-np.inf) > 0
    kept: Floats = ordered[keep]
    return kept


def _common_range(first: Any, second: Any) -> tuple[float, float]:
    """Where both of two interpolating polynomials are defined; empty if high <= low."""
    return float(max(first.x[0], second.x[0])), float(min(first.x[-1], second.x[-1]))


def _mean_gap(first: Any, second: Any) -> float:
    """Mean of (second - first) over the common range of two interpolating polynomials."""
    low, high = _common_range(first, second)
    if high <= low:
        return math.nan
    return float(second.integrate(low, high) - first.integrate(low, high)) / (high - low)
