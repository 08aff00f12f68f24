"""From rows to curves, and from curves to Bjontegaard deltas with their uncertainty.

Knows rows and published points; runs no codec and draws nothing.

Two rules of averaging are in use, and both are computed and named:
    "mean curve"      the curves of the means over the images are compared (what papers print);
    "mean of images"  the curves of each image are compared, and the results averaged.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codec.benchmark.anchors import ANCHORS
from codec.benchmark.rows import Row
from codec.errors import InputError, UsageError
from codec.metrics import Bjontegaard, Interpolation, RateCurve

__all__ = [
    "METRICS",
    "Comparison",
    "Curve",
    "Metric",
    "Point",
    "compare_all",
    "curves_of",
    "psnr_of_mean_mse",
    "read_published",
]

Floats = NDArray[np.float64]
Metric = Literal["psnr_rgb", "ms_ssim_db"]
Rule = Literal["mean curve", "mean of images"]
Kind = Literal["ours", "anchor", "published"]

METRICS: tuple[Metric, ...] = ("psnr_rgb", "ms_ssim_db")
INTERPOLATIONS: tuple[Interpolation, ...] = ("pchip", "akima")
RESAMPLES = 300
INTERVAL_PERCENT = 95


@dataclass(frozen=True)
class Point:
    """The means over all images at one quality.

    Attributes:
        quality: in the codec's own unit; None for a published point.
        bpp: mean of the images' bits per pixel.
        psnr_rgb: mean of the images' dB; infinite if one of them lost nothing.
        psnr_of_mean_mse: dB of the mean squared error over all images, each counting the same;
            None if unknown.
        ms_ssim, ms_ssim_db: means, None if an image has none.
        psnr_y: mean of the images' dB, None if unknown.
        encode_s, decode_s: medians; None if unknown.
    """

    quality: float | None
    bpp: float
    psnr_rgb: float | None
    psnr_of_mean_mse: float | None = None
    psnr_y: float | None = None
    ms_ssim: float | None = None
    ms_ssim_db: float | None = None
    encode_s: float | None = None
    decode_s: float | None = None


@dataclass(frozen=True)
class Curve:
    """One codec over all images: `points` from the smallest rate to the largest.

    Attributes:
        name, label: in tables and in plots.
        kind: whether it is ours or was taken from elsewhere instead of measured.
        description: settings and versions, or the source of published points.
        points: means over the images.
        caveat: what a reader of published points has to know, or "".
        rows: what the points were made of; empty for published points.
    """

    name: str
    label: str
    kind: Kind
    description: str
    points: tuple[Point, ...]
    caveat: str = ""
    rows: tuple[Row, ...] = ()

    def values(self, metric: Metric) -> Floats:
        """The points that have this metric, `(S, 2)` rows of bpp and dB."""
        pairs = [(point.bpp, getattr(point, metric)) for point in self.points]
        return np.array([pair for pair in pairs if pair[1] is not None]).reshape(-1, 2)


@dataclass(frozen=True)
class Comparison:
    """How much `test` needs or gains against `anchor`, by one rule, metric and interpolation.

    Attributes:
        result: means over the images for the rule "mean of images" (points: of the fewest).
        images: how many images it rests on; 0 for published curves.
        low_percent, high_percent: the interval of the rate that holds 95 % of the results of
            drawing as many images again with replacement; None if there are no rows to draw.
    """

    anchor: str
    test: str
    metric: Metric
    interpolation: Interpolation
    rule: Rule
    result: Bjontegaard
    images: int
    low_percent: float | None = None
    high_percent: float | None = None


def curves_of(rows: Sequence[Row]) -> tuple[Curve, ...]:
    """The curve of every codec of a table, our models before the anchors.

    Only qualities at which every image of the table has a row count, because a mean over other
    images is another quantity; a codec without such a quality has no curve.
    """
    files = {row.file for row in rows}
    names = {row.codec for row in rows}
    curves = []
    for name in [*sorted(names.difference(ANCHORS)), *(name for name in ANCHORS if name in names)]:
        mine = [row for row in rows if row.codec == name]
        at = {quality: [r for r in mine if r.quality == quality] for quality in _qualities(mine)}
        whole = {quality: found for quality, found in at.items() if len(found) == len(files)}
        points = sorted((_point(q, found) for q, found in whole.items()), key=lambda p: p.bpp)
        if not points:
            continue
        kept = tuple(row for found in whole.values() for row in found)
        made_by = "; ".join(sorted({row.made_by for row in kept}))
        is_anchor = name in ANCHORS
        label = ANCHORS[name].label if is_anchor else f"codec {name}"
        kind: Kind = "anchor" if is_anchor else "ours"
        curves.append(Curve(name, label, kind, made_by, tuple(points), rows=kept))
    return tuple(curves)


def psnr_of_mean_mse(values: Sequence[float]) -> float:
    """PSNR of the mean of the squared errors that belong to `values` dB; infinite if all are 0."""
    mean = float(np.mean(10 ** (-np.array(values) / 10)))
    return math.inf if mean == 0 else -10 * math.log10(mean)


def read_published(path: Path) -> tuple[Curve, ...]:
    """Published points, one curve per entry, in either of two layouts.

    Layouts: `{name: {"bpp": [..], "psnr": [..], "source": "..", "caveat": ".."}}`, or
    `{"meta": {"settings": {name: ".."}, ..}, "curves": {name: {"bpp": [..], "psnr": [..]}}}`.

    Raises:
        InputError: the file is neither.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = content.get("meta", {}).get("settings", {})
        return tuple(
            _published(name, entry, settings.get(name, path.name))
            for name, entry in content.get("curves", content).items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: want published points, got {reason}") from error


def compare_all(
    curves: Sequence[Curve],
    *,
    generator: np.random.Generator,
    metrics: Sequence[Metric] = METRICS,
) -> tuple[Comparison, ...]:
    """Every ordered pair of curves of which one was measured, by every rule, metric, interpolation.

    Pairs of which a curve has too few points are left out. The bootstrap draws the same images for
    both curves of a pair, so that what is hard for every codec cancels out; it is done for "pchip".
    """
    files = sorted({row.file for curve in curves for row in curve.rows})
    draws = generator.integers(0, len(files), (RESAMPLES, len(files)))
    pairs = [
        (anchor, test)
        for anchor in curves
        for test in curves
        if anchor is not test and not (anchor.kind == test.kind == "published")
    ]
    compared = []
    for metric in metrics:
        for interpolation in INTERPOLATIONS:
            ready = {
                curve.name: _ready(curve, metric, interpolation, files, draws) for curve in curves
            }
            for anchor, test in pairs:
                how = (anchor.name, test.name, metric, interpolation)
                first, second = ready[anchor.name], ready[test.name]
                found = (_by_mean_curve(how, first, second), _by_images(how, first, second, draws))
                compared += [comparison for comparison in found if comparison is not None]
    return tuple(compared)


def _qualities(rows: Sequence[Row]) -> list[float]:
    return sorted({row.quality for row in rows})


def _point(quality: float, rows: Sequence[Row]) -> Point:
    return Point(
        quality=quality,
        bpp=float(np.mean([row.bpp for row in rows])),
        psnr_rgb=float(np.mean([row.psnr_rgb for row in rows])),
        psnr_of_mean_mse=psnr_of_mean_mse([row.psnr_rgb for row in rows]),
        psnr_y=float(np.mean([row.psnr_y for row in rows])),
        ms_ssim=_mean([row.ms_ssim for row in rows]),
        ms_ssim_db=_mean([row.ms_ssim_db for row in rows]),
        encode_s=float(np.median([row.encode_s for row in rows])),
        decode_s=float(np.median([row.decode_s for row in rows])),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if len(present) == len(values) else None


def _published(name: str, entry: Mapping[str, Any], source: str) -> Curve:
    pairs = zip(entry["bpp"], entry["psnr"], strict=True)
    points = tuple(Point(None, float(bpp), float(psnr)) for bpp, psnr in pairs)
    source = str(entry.get("source", source))
    caveat = str(entry.get("caveat", ""))
    return Curve(f"published {name}", f"{name} (published)", "published", source, points, caveat)


@dataclass(frozen=True)
class _Ready:
    """A codec's curves by one metric and interpolation; None where there are too few points.

    Attributes:
        mean: of the means over all images.
        images: of each image; empty for published points.
        drawn: of the means over each draw of images; empty where none are drawn.
    """

    mean: RateCurve | None
    images: tuple[RateCurve | None, ...]
    drawn: tuple[RateCurve | None, ...]


_How = tuple[str, str, Metric, Interpolation]


def _ready(
    curve: Curve,
    metric: Metric,
    interpolation: Interpolation,
    files: Sequence[str],
    draws: NDArray[np.int64],
) -> _Ready:
    mean = _rate_curve(curve.values(metric), interpolation)
    if curve.kind == "published":
        return _Ready(mean, (), ())
    cells = _table(curve, metric, files)
    images = tuple(_rate_curve(cell, interpolation) for cell in cells)
    chosen = draws if interpolation == "pchip" else ()
    drawn = tuple(_rate_curve(cells[draw].mean(0), interpolation) for draw in chosen)
    return _Ready(mean, images, drawn)


def _table(curve: Curve, metric: Metric, files: Sequence[str]) -> Floats:
    """`(images, S, 2)`: bpp and dB of each image at each quality; NaN where it has none."""
    at = {file: index for index, file in enumerate(files)}
    qualities = _qualities(curve.rows)
    cells = np.full((len(files), len(qualities), 2), np.nan)
    for row in curve.rows:
        value = getattr(row, metric)
        if value is not None:
            cells[at[row.file], qualities.index(row.quality)] = row.bpp, value
    return cells


def _rate_curve(points: Floats, interpolation: Interpolation) -> RateCurve | None:
    try:
        return RateCurve(points, method=interpolation)
    except UsageError:
        return None


def _versus(
    anchors: Sequence[RateCurve | None], tests: Sequence[RateCurve | None]
) -> list[Bjontegaard | None]:
    """Each test against its anchor; None where one of them has no curve."""
    return [
        None if anchor is None or test is None else test.versus(anchor)
        for anchor, test in zip(anchors, tests, strict=True)
    ]


def _by_mean_curve(how: _How, anchor: _Ready, test: _Ready) -> Comparison | None:
    if anchor.mean is None or test.mean is None:
        return None
    measured = len(anchor.images) > 0 and len(test.images) > 0
    redone = _versus(anchor.drawn, test.drawn) if measured else []
    return Comparison(
        *how,
        "mean curve",
        test.mean.versus(anchor.mean),
        len(test.images) if measured else 0,
        *_interval([again.rate_percent for again in redone if again is not None]),
    )


def _by_images(
    how: _How, anchor: _Ready, test: _Ready, draws: NDArray[np.int64]
) -> Comparison | None:
    if not anchor.images or not test.images:
        return None
    each = _versus(anchor.images, test.images)
    found = [delta for delta in each if delta is not None and not math.isnan(delta.rate_percent)]
    if not found:
        return None
    gains = [delta.gain_db for delta in found if not math.isnan(delta.gain_db)]
    result = Bjontegaard(
        rate_percent=float(np.mean([delta.rate_percent for delta in found])),
        gain_db=float(np.mean(gains)) if gains else math.nan,
        low_db=float(np.mean([delta.low_db for delta in found])),
        high_db=float(np.mean([delta.high_db for delta in found])),
        overlap=float(np.mean([delta.overlap for delta in found])),
        anchor_points=min(delta.anchor_points for delta in found),
        test_points=min(delta.test_points for delta in found),
    )
    rates = np.array([math.nan if delta is None else delta.rate_percent for delta in each])
    drawn = [rates[draw][np.isfinite(rates[draw])] for draw in draws]
    redone = [float(np.mean(finite)) for finite in drawn if len(finite) > 0]
    return Comparison(*how, "mean of images", result, len(found), *_interval(redone))


def _interval(results: Sequence[float]) -> tuple[float | None, float | None]:
    """Where `INTERVAL_PERCENT` of the results lie; None and None where there are no results."""
    finite = [result for result in results if math.isfinite(result)]
    if not finite:
        return None, None
    outside = (100 - INTERVAL_PERCENT) / 2
    low, high = np.percentile(finite, [outside, 100 - outside])
    return float(low), float(high)
