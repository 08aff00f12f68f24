"""Steps for a scene, from a quality. Encoder only; knows no slice."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from codec.errors import UsageError
from codec.gaussians import Gaussians
from codec.models.gauss.plan import BIN_MAX, SLIMS, TWIST_UNIT, Plan

__all__ = ["planned"]

EDGE = 2.0  # percent of the centres that are beyond the box, on each side
OCTAVE = 20.0  # points of quality that halve all steps
BEST = 60
CELLS, SCALE, NORMAL, TWIST, OPACITY, COLOUR, REST = 4096, 0.125, 16, 1, 64, 0.125, 0.125
UNIT = 4096


def planned(frames: Iterable[Gaussians], quality: int) -> Plan:
    """See `AbstractSceneFamily.plan`."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    degrees, largest, most = set(), [], 0.0
    for frame in frames:
        degrees.add(frame.degree)
        if not len(frame):
            continue
        means = frame.means.astype(np.float64)
        edges = np.percentile(means, [EDGE, 100 - EDGE], axis=0)
        low, high = np.minimum(low, edges[0]), np.maximum(high, edges[1])
        sizes = np.sort(frame.scales, axis=1)[:, 1:].sum(1, dtype=np.float64)
        largest.append(np.percentile(np.clip(sizes, -160, 160), 90))
        most = max(most, float(np.abs(frame.sh).max()))
    if len(degrees) != 1:
        raise UsageError(f"scene: want frames of one degree, got {sorted(degrees)}")
    fine = 2.0 ** ((quality - BEST) / OCTAVE)
    if not largest:
        low, high, largest = np.zeros(3), np.zeros(3), [0.0]
    scale = _whole(SCALE / fine * UNIT)
    log = scale / UNIT
    plan = Plan(
        degree=degrees.pop(),
        centre=tuple(float(x) for x in np.float32((low + high) / 2)),
        radius=max(float(np.float32((high - low).max() / 2)), 1e-6),
        cells=min(round(CELLS * fine), BIN_MAX // 8),
        scale=scale,
        normal=_whole(NORMAL * fine),
        twist=_whole(TWIST * fine) * TWIST_UNIT,
        opacity=_whole(OPACITY * fine),
        colour=_whole(COLOUR / fine * UNIT),
        rest=_whole(REST / fine * UNIT),
        reach=round(float(np.mean(largest)) / log),
        octave=_whole(2 * np.log(2) / log),
        slims=tuple(round(float(np.arcsinh(2.0**-j / 2)) / log) for j in range(SLIMS)),
    )
    if most * UNIT / min(plan.colour, plan.rest) >= BIN_MAX / 2:
        raise UsageError(f"scene: want harmonics up to {BIN_MAX // 2} steps, got {most}")
    return plan


def _whole(value: float) -> int:
    return int(np.clip(round(value), 1, (1 << 16) - TWIST_UNIT))
