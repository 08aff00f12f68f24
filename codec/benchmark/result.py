"""What a benchmark found, as one value. Knows nothing of how it was found or is shown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.benchmark.rows import Row
from codec.benchmark.runner import Failure, Skipped
from codec.benchmark.summary import Comparison, Curve

__all__ = ["Result", "finite"]


@dataclass(frozen=True)
class Result:
    """What a run found. Everything in it is also in the folder that it wrote.

    Attributes:
        head: where the figures come from.
        rows: the table, sorted by file, codec and quality.
        curves: the means of each codec, then the published ones.
        comparisons: Bjontegaard deltas of every pair.
        skipped: files of the folder that are no images.
        missing: anchors that cannot run here, with the reason.
        failures: what raised; it is tried again when the run is repeated.
        report: the page.
    """

    head: Mapping[str, Any]
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...]
    comparisons: tuple[Comparison, ...]
    skipped: tuple[Skipped, ...]
    missing: Mapping[str, str]
    failures: tuple[Failure, ...]
    report: Path


def finite(content: Any) -> Any:
    """The same with None for what JSON has no word for: NaN and the infinities."""
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return content
