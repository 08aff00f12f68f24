"""What a stream of Gaussians says once: a lattice and steps, as numbers and as bytes.

Knows no slice. All numbers that choose a table or a branch are integers; the floats among them
only move what is reconstructed.
"""

from __future__ import annotations

import math
import struct
from dataclasses import astuple, dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError
from codec.gaussians import COEFFICIENTS

__all__ = ["BIN_MAX", "CELL_BITS", "FAR", "LOG_MAX", "SLIMS", "TWIST_UNIT", "UNIT", "Plan"]

CELL_BITS = 21
BIN_MAX = 1 << (CELL_BITS - 1)
"""That no integer of a Gaussian exceeds; those of a centre are below it."""

SLIMS = 3
"""Octaves that an angle of a round Gaussian may be coarser."""

TWIST_UNIT = 1 << SLIMS
UNIT = 4096
"""Parts of 1 in which steps are given."""

LOG_MAX = 80.0
"""Of a scale, so that no standard deviation is 0 or infinite."""

FAR = 1e15
"""That no centre or radius exceeds."""

LAYOUT = struct.Struct("<B4fI6H3H")


@final
@dataclass(frozen=True)
class Plan:
    """Numbers of a whole stream; see docs/format/gauss.md for what each does.

    Attributes:
        degree: of the harmonics, 0 to 3.
        centre: x, y, z, float32.
        radius: within which the lattice is even, float32, above 0.
        cells: of the lattice in a radius, 1 to 2**20.
        scale: the step of a logarithm, in 1/4096.
        normal: steps of a coordinate of the octahedron from 0 to 1.
        twist: steps of half a turn, a multiple of `TWIST_UNIT`.
        opacity: steps from 0 to 1.
        colour: the step of the first harmonic, in 1/4096.
        rest: that of the others.
        slims: `SLIMS` differences of scales, falling; below each an angle's step doubles.
    """

    degree: int
    centre: tuple[float, float, float]
    radius: float
    cells: int
    scale: int
    normal: int
    twist: int
    opacity: int
    colour: int
    rest: int
    slims: tuple[int, ...]

    def pack(self) -> bytes:
        """The bytes that `parse` reads."""
        flat: list[float] = []
        for value in astuple(self):
            flat.extend(value if isinstance(value, tuple) else (value,))
        return LAYOUT.pack(*flat)

    @classmethod
    def parse(cls, data: bytes) -> Plan:
        """The inverse of `pack`; a BitstreamError if these bytes are no plan."""
        if len(data) != LAYOUT.size:
            raise BitstreamError(f"plan: want {LAYOUT.size} bytes, got {len(data)}")
        degree, x, y, z, radius, *numbers = LAYOUT.unpack(data)
        cells, scale, normal, twist, opacity, colour, rest, *slims = numbers
        centre = (x, y, z)
        plan = cls(
            degree, centre, radius, cells, scale, normal, twist, opacity, colour, rest, tuple(slims)
        )  # fmt: skip
        if degree >= len(COEFFICIENTS):
            raise BitstreamError(f"plan: want a degree of 0 to 3, got {degree}")
        if not all(math.isfinite(value) and abs(value) <= FAR for value in (x, y, z, radius)):
            raise BitstreamError(f"plan: want a centre and a radius of at most {FAR:g}")
        if not (radius > 0 and 1 <= plan.cells <= BIN_MAX):
            raise BitstreamError(f"plan: want 1..{BIN_MAX} cells in a radius above 0")
        steps = (plan.scale, plan.normal, plan.twist, plan.opacity, plan.colour, plan.rest)
        if min(steps) < 1 or plan.twist % TWIST_UNIT:
            raise BitstreamError(f"plan: want steps of at least 1, got {steps}")
        if list(plan.slims) != sorted(plan.slims, reverse=True):
            raise BitstreamError(f"plan: want falling numbers, got {plan.slims}")
        return plan

    @property
    def rest_width(self) -> int:
        """Numbers of the harmonics after the first."""
        return 3 * COEFFICIENTS[self.degree] - 3

    @property
    def integers(self) -> NDArray[np.int64]:
        """`(2 + SLIMS,)` int64: all that chooses what is coded and how."""
        return np.array([self.twist, self.opacity.bit_length(), *self.slims], np.int64)
