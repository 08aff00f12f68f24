"""From integers of Gaussians to floats, compiled. Knows arrays only; loads numba when imported."""

from __future__ import annotations

import math

from codec.entropy.kernels import compiled

__all__ = ["fill"]

FAR = 1e30  # that no centre exceeds
FAR_LOG = 80.0
OPPOSITE = 1e-6  # below which 1 + z of a unit vector is nothing


@compiled
def fill(  # type: ignore[no-untyped-def]
    base,
    rest,
    sizes,
    turns,
    logits,
    means,
    quats,
    scales,
    opacities,
    sh,
):
    """Fill the last five arrays, those of `Gaussians`; docs/format/gauss.md has the formulas.

    base: (N, 13) int32.
    rest: (N, R) int32.
    sizes: (9,) float64, the centre, the radius, 1 / cells, the scales' step, steps of a normal,
        steps of the first harmonic and of the others.
    turns: (T, 2) float64, cosine and sine of half of each turn.
    logits: (n + 1,) float64, of each opacity.
    sh: (N, 3 + R) float32.
    """
    for i in range(len(base)):
        for axis in range(3):
            even = base[i, axis] * sizes[4]
            if abs(even) > 1:
                even = math.copysign(math.exp(min(abs(even) - 1, FAR_LOG)), even)
            means[i, axis] = min(max(sizes[axis] + even * sizes[3], -FAR), FAR)
            scales[i, axis] = min(max(base[i, 3 + axis] * sizes[5], -FAR_LOG), FAR_LOG)
            sh[i, axis] = base[i, 10 + axis] * sizes[7]
        u = min(max(base[i, 6] / sizes[6], -1.0), 1.0)
        v = min(max(base[i, 7] / sizes[6], -1.0), 1.0)
        z = 1 - abs(u) - abs(v)
        fold = min(z, 0.0)
        x = u - fold if u < 0 else u + fold
        y = v - fold if v < 0 else v + fold
        w = math.sqrt(x * x + y * y + z * z) + z
        a, b = -y, x
        if w < OPPOSITE:
            w, a, b = 0.0, 1.0, 0.0
        turn = base[i, 8] % len(turns)
        c, s = turns[turn, 0], turns[turn, 1]
        quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3] = (
            w * c,
            a * c + b * s,
            b * c - a * s,
            w * s,
        )
        opacities[i] = logits[min(max(base[i, 9], 0), len(logits) - 1)]
        for d in range(rest.shape[1]):
            sh[i, 3 + d] = rest[i, d] * sizes[8]
