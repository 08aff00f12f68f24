"""The report: one page with curves, tables and before/after pictures that needs no network.

Knows the result of a run and the template beside this file; measures nothing.
"""

import base64
import dataclasses
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image, features

from codec.benchmark.plots import AXIS
from codec.benchmark.result import Result, finite
from codec.benchmark.rows import Row
from codec.benchmark.summary import Metric

__all__ = ["Picture", "decoded", "original", "render"]

# What the page shows of a decoded image is compressed once more, well above what codecs differ by.
PICTURE_QUALITY = 90

_TIMES = (
    "load_s",
    "encode_s",
    "encode_transform_s",
    "encode_entropy_s",
    "decode_s",
    "decode_transform_s",
    "decode_entropy_s",
)


@dataclass(frozen=True)
class Picture:
    """One picture of the page: the middle of an image, as it is or as a codec left it.

    Attributes:
        file: the image's name.
        codec: "" for the image as it is.
        target: the rate in bpp at which codecs are shown side by side; 0 for the image as it is.
        caption: the rate and the distances that this file really has.
        source: the picture as a data URI.
        width, height: in pixels.
    """

    file: str
    codec: str
    target: float
    caption: str
    source: str
    width: int
    height: int


def original(file: str, crop: Image.Image) -> Picture:
    """The middle of the image itself."""
    return Picture(file, "", 0, "the image itself", _data_uri(crop), crop.width, crop.height)


def decoded(row: Row, target: float, crop: Image.Image) -> Picture:
    """The middle of what `row` was measured on."""
    similarity = "" if row.ms_ssim_db is None else f", MS-SSIM {row.ms_ssim_db:.2f} dB"
    caption = (
        f"{row.bpp:.3f} bpp ({row.bytes} bytes), PSNR {row.psnr_rgb:.2f} dB{similarity}, "
        f"quality {row.quality:g}"
    )
    return Picture(row.file, row.codec, target, caption, _data_uri(crop), crop.width, crop.height)


def render(
    result: Result, *, title: str, svgs: Mapping[Metric, str], pictures: Sequence[Picture]
) -> str:
    """The whole page.

    Args:
        result: what is told.
        title: what was measured, for example the name of the folder.
        svgs: a plot for each metric.
        pictures: for each file the image itself, then codecs at the rates that are shown.
    """
    data = {
        "curves": [{"name": c.name, "label": c.label, "kind": c.kind} for c in result.curves],
        "comparisons": [
            {**dataclasses.asdict(c), **dataclasses.asdict(c.result), "result": None}
            for c in result.comparisons
        ],
        "pictures": [dataclasses.asdict(picture) for picture in pictures],
    }
    parts = {
        "title": html.escape(title),
        "summary": html.escape(_summary(result)),
        "plots": "\n".join(
            f"<figure><figcaption>{html.escape(AXIS[metric])}</figcaption>{_inline(svg)}</figure>"
            for metric, svg in svgs.items()
        ),
        "points": _points(result),
        "times": _times(result),
        "notes": _notes(result),
        "head": html.escape(json.dumps(result.head, indent=1, ensure_ascii=False)),
        "data": _script_json(data),
    }
    template = files("codec.benchmark").joinpath("report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    kind = "webp" if features.check("webp") else "jpeg"
    image.save(buffer, kind, quality=PICTURE_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _inline(svg: str) -> str:
    """The picture without the prologue of a file."""
    return svg[svg.index("<svg") :]


def _script_json(data: Any) -> str:
    """JSON that cannot end the script it stands in."""
    return json.dumps(finite(data), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _summary(result: Result) -> str:
    images = len({row.file for row in result.rows})
    return (
        f"{images} images, {len(result.rows)} files written and read back on {result.head['date']} "
        f"by codec {result.head['libraries']['codec']}: {result.head['command']}"
    )


def _points(result: Result) -> str:
    lines = [
        _cells(
            curve.label,
            _number(point.quality, "g"),
            _number(point.bpp, ".4f"),
            _number(point.psnr_rgb, ".2f"),
            _number(point.psnr_of_mean_mse, ".2f"),
            _number(point.psnr_y, ".2f"),
            _number(point.ms_ssim, ".4f"),
            _number(point.ms_ssim_db, ".2f"),
        )
        for curve in result.curves
        for point in curve.points
    ]
    return "\n".join(lines)


def _times(result: Result) -> str:
    """Medians over all images and qualities, one line per codec and device."""
    lines = []
    for curve in result.curves:
        for device in sorted({row.device for row in curve.rows}):
            rows = [row for row in curve.rows if row.device == device]
            medians = []
            for column in _TIMES:
                values = [getattr(row, column) for row in rows]
                known = [value for value in values if value is not None]
                medians.append(_number(float(np.median(known)) if known else None, ".3g"))
            threads = " ".join(sorted({str(row.threads) for row in rows}))
            lines.append(_cells(curve.label, device, threads, *medians))
    return "\n".join(lines)


def _notes(result: Result) -> str:
    notes = [f"{c.label}: {c.description}" for c in result.curves]
    notes += [f"{c.label}, caveat: {c.caveat}" for c in result.curves if c.caveat]
    notes += [f"anchor {name} is missing: {why}" for name, why in result.missing.items()]
    notes += [f"file {item.file} was skipped: {item.reason}" for item in result.skipped]
    notes += [
        f"{item.codec} at {item.quality:g} failed on {item.file}: {item.reason}"
        for item in result.failures
    ]
    return "\n".join(f"<li>{html.escape(note)}</li>" for note in notes)


def _number(value: float | None, form: str) -> str:
    if value is None:
        return ""
    return format(value, form) if math.isfinite(value) else "lossless"


def _cells(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
