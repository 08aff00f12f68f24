"""Rate-distortion plots of curves. Knows curves and matplotlib, which it imports when it draws."""

import importlib
import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from codec.benchmark.summary import Curve, Metric
from codec.errors import UsageError

__all__ = ["AXIS", "draw", "require"]

AXIS: Mapping[Metric, str] = MappingProxyType(
    {
        "psnr_rgb": "PSNR, RGB (dB), mean of images",
        "ms_ssim_db": "MS-SSIM (dB), mean of images",
    }
)

# Okabe and Ito's colours, which the colour-blind can tell apart; black is kept for our models.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#8c8c8c")
_OURS = ("#000000", "#7a0177", "#665c00")
_RC: Any = {"svg.hashsalt": "codec", "svg.fonttype": "none", "font.size": 10}


def require() -> None:
    """Make sure that plots can be drawn, before hours are spent on their figures.

    Raises:
        UsageError: matplotlib is not installed; the message names the extra that brings it.
    """
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise UsageError(
            "a benchmark draws plots with matplotlib, which is not installed: "
            "pip install 'codec[bench]'"
        ) from error


def draw(
    curves: Sequence[Curve], metric: Metric, *, title: str, kind: str, bpp_max: float = 2.0
) -> bytes:
    """One plot: bpp to the right, the metric upwards; published curves are thin and dashed.

    Args:
        curves: at least one; those without the metric are left out.
        metric: what is drawn upwards.
        title: above the plot, and the description inside of an SVG.
        kind: "png" or "svg".
        bpp_max: the plot ends here; points beyond it are kept in the tables.

    Returns:
        The bytes of the picture; the same for the same curves and matplotlib.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_RC):
        figure = Figure(figsize=(9.5, 5.2), layout="constrained")
        axes = figure.add_subplot()
        for curve, style in zip(curves, _styles(curves), strict=True):
            points = curve.values(metric)
            points = points[points[:, 0] <= bpp_max * 1.2]
            if len(points) > 0:
                axes.plot(points[:, 0], points[:, 1], label=curve.label, **style)
        axes.set(xlabel="bits per pixel (8 x file size / pixels)", ylabel=AXIS[metric], title=title)
        axes.set_xlim(0, bpp_max)
        axes.grid(visible=True, alpha=0.3)
        if axes.lines:
            figure.legend(fontsize=8, loc="outside right upper")
        buffer = io.BytesIO()
        metadata = {"Date": None, "Description": title} if kind == "svg" else None
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _styles(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    ours, others, published, styles = 0, 0, 0, []
    for curve in curves:
        if curve.kind == "published":
            colour = _COLOURS[published % len(_COLOURS)]
            styles.append({"color": colour, "linewidth": 0.7, "linestyle": "--", "alpha": 0.9})
            published += 1
        elif curve.kind == "ours":
            colour = _OURS[ours % len(_OURS)]
            styles.append({"color": colour, "linewidth": 2.4, "marker": "o", "markersize": 4})
            ours += 1
        else:
            colour = _COLOURS[others % len(_COLOURS)]
            styles.append({"color": colour, "linewidth": 1.4, "marker": ".", "markersize": 5})
            others += 1
    return styles
