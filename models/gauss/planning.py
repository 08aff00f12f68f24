"""Steps for a scene, from what is in it and a quality. Encoder only; knows no slice."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from codec.errors import UsageError
from codec.gaussians import Gaussians
from codec.models.gauss.plan import BIN_MAX, FAR, LOG_MAX, SLIMS, TWIST_UNIT, UNIT, Plan

__all__ = ["fineness", "planned"]

EDGE = 2.0  # percent of the centres that are beyond the box, on each side
SMALL = 10.0  # percent of the Gaussians that are smaller than those the lattice is made for
RADIUS_MIN = 1e-6
MIDDLE, OCTAVE = 60, 20.0  # a quality, and how much more halves all steps
# Steps at that quality, chosen so that a bit more of one gains about as much as of another in
# pictures of scripted scenes: in a small Gaussian's deviation, of a logarithm, in 1 of an
# octahedron, in half a turn, in full opacity, of the first harmonic, of the others.
CELLS, SCALE, NORMAL, TWIST, OPACITY, COLOUR, REST = 6.5, 0.11, 32, 48, 24, 0.1, 0.11


def fineness(quality: int) -> float:
    """How much finer steps are than in the middle."""
    return float(2.0 ** ((quality - MIDDLE) / OCTAVE))


def planned(frames: Iterable[Gaussians], quality: int) -> Plan:
    """See `AbstractSceneFamily.plan`."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    degrees, small, most = set(), [], 0.0
    for frame in frames:
        degrees.add(frame.degree)
        if not len(frame):
            continue
        means = frame.means.astype(np.float64)
        edges = np.percentile(means, [EDGE, 100 - EDGE], axis=0)
        low, high = np.minimum(low, edges[0]), np.maximum(high, edges[1])
        sizes = np.sort(np.clip(frame.scales, -LOG_MAX, LOG_MAX), axis=1)[:, 1:]
        small.append(np.percentile(sizes.mean(1, dtype=np.float64), SMALL))
        most = max(most, float(np.abs(frame.sh).max()))
    if len(degrees) != 1:
        raise UsageError(f"scene: want frames of one degree, got {sorted(degrees)}")
    fine = fineness(quality)
    if not small:
        low, high, small = np.zeros(3), np.zeros(3), [0.0]
    scale = _whole(SCALE / fine * UNIT)
    log = scale / UNIT
    x, y, z = ((low + high) / 2).astype(np.float32).tolist()
    radius = max(float(np.float32((high - low).max() / 2)), RADIUS_MIN)
    plan = Plan(
        degree=degrees.pop(),
        centre=(x, y, z),
        radius=radius,
        cells=int(np.clip(CELLS * fine * radius / np.exp(min(small)), 1, BIN_MAX // 8)),
        scale=scale,
        normal=_whole(NORMAL * fine),
        twist=_whole(TWIST * fine / TWIST_UNIT) * TWIST_UNIT,
        opacity=_whole(OPACITY * fine),
        colour=_whole(COLOUR / fine * UNIT),
        rest=_whole(REST / fine * UNIT),
        slims=tuple(round(float(np.arcsinh(2.0**-j / 2)) / log) for j in range(SLIMS)),
    )
    if most * UNIT / min(plan.colour, plan.rest) >= BIN_MAX / 2:
        raise UsageError(f"scene: want harmonics up to {BIN_MAX // 2} steps, got {most}")
    if max(radius, abs(x), abs(y), abs(z)) > FAR:
        raise UsageError(f"scene: want most centres within {FAR:g} of 0")
    return plan


def _whole(value: float) -> int:
    return int(np.clip(round(value), 1, (1 << 16) - TWIST_UNIT))
