"""One moment of a scene: Gaussians as 3D Gaussian splatting trains them. Knows no file, no codec.

>>> import numpy as np
>>> one = Gaussians(
...     means=np.zeros((1, 3), np.float32),
...     quats=np.float32([[1, 0, 0, 0]]),
...     scales=np.full((1, 3), -3, np.float32),
...     opacities=np.zeros(1, np.float32),
...     sh=np.zeros((1, 4, 3), np.float32),
... )
>>> len(one), one.degree
(1, 1)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["COEFFICIENTS", "FIRST_HARMONIC", "Gaussians"]

Floats: TypeAlias = NDArray[np.float32]
COEFFICIENTS = (1, 4, 9, 16)
"""Of spherical harmonics of degree 0 to 3."""

FIRST_HARMONIC = 0.28209479177387814
"""The one of degree 0: a half of the square root of 1 / pi."""


@final
@dataclass(frozen=True)
class Gaussians:
    """N Gaussians before any activation (Kerbl et al. 2023), float32; N may be 0.

    Axes are those of INRIA's PLY files: x to the right, y down, z forward. All values are finite.

    Attributes:
        means: `(N, 3)` centres, in units of the scene.
        quats: `(N, 4)` rotations as w, x, y, z, of any length but 0.
        scales: `(N, 3)` natural logarithms of standard deviations.
        opacities: `(N,)` logits.
        sh: `(N, K, 3)` coefficients of red, green and blue, K = (degree + 1)^2; colour as seen from
            a direction is 0.5 plus their sum with the harmonics, first of all `FIRST_HARMONIC`.

    Raises:
        ValueError: an array has another shape or type, a value is not finite, a rotation is 0.
    """

    means: Floats
    quats: Floats
    scales: Floats
    opacities: Floats
    sh: Floats

    def __post_init__(self) -> None:
        count = len(self.means)
        coefficients = self.sh.shape[1] if self.sh.ndim == 3 else 0
        if coefficients not in COEFFICIENTS:
            raise ValueError(f"sh: want (N, K, 3) with K in {COEFFICIENTS}, got {self.sh.shape}")
        shapes = {
            "means": (count, 3),
            "quats": (count, 4),
            "scales": (count, 3),
            "opacities": (count,),
            "sh": (count, coefficients, 3),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name}: want float32 {shape}, got {array.dtype} {array.shape}")
            if not np.isfinite(array).all():
                bad = int((~np.isfinite(array).all(tuple(range(1, array.ndim)))).sum())
                raise ValueError(f"{name}: want finite values, {bad} of {count} have others")
        w, x, y, z = self.quats.T
        zero = int(((w == 0) & (x == 0) & (y == 0) & (z == 0)).sum())
        if zero:
            raise ValueError(f"quats: want rotations, {zero} of {count} are 0")

    def __len__(self) -> int:
        """N."""
        return len(self.means)

    @property
    def degree(self) -> int:
        """Of the spherical harmonics, 0 to 3."""
        return COEFFICIENTS.index(self.sh.shape[1])

    def take(self, which: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Gaussians:
        """Those of these numbers, in this order."""
        return Gaussians(**{field.name: getattr(self, field.name)[which] for field in fields(self)})
