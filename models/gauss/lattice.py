"""Gaussians as integers and back. Knows steps, no bit.

A row of `bins` has of one Gaussian: means (3), rotation (3), scales (3), opacity, colour (3), and
then the higher harmonics, coefficient by coefficient. Only reconstructions are made of floats.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.entropy import IntArray
from codec.errors import UsageError
from codec.gaussians import COEFFICIENTS, Gaussians

__all__ = ["BASE", "BIN_MAX", "Lattice"]

BASE = 13  # columns before the higher harmonics
BIN_MAX = (1 << 20) - 1
OCTAVE = 8  # steps of means to a factor of 2
UNIT_MIN, UNIT_MAX = -512, 512

MEANS, QUATS, SCALES, OPACITY, COLOUR = (
    slice(0, 3),
    slice(3, 6),
    slice(6, 9),
    slice(9, 10),
    slice(10, 13),
)

# Steps at quality 60, which halve every 20 qualities; that of means is a share of their size.
MEANS_STEP, QUATS_STEP, SCALES_STEP, OPACITY_STEP, COLOUR_STEP, REST_STEP = (
    0.25,
    0.05,
    0.16,
    0.045,
    0.06,
    0.09,
)
QUALITY_HALVES = 20

Reals: TypeAlias = NDArray[np.float64]


def _symmetries() -> Reals:
    """The 24 turns of a cube onto itself as quaternions `(24, 4)`."""
    ones = np.eye(4)
    found = [*ones]
    for a, b in itertools.combinations(range(4), 2):
        found += [(ones[a] + sign * ones[b]) / math.sqrt(2) for sign in (1, -1)]
    found += [np.array([1, *signs]) / 2 for signs in itertools.product((1, -1), repeat=3)]
    return np.stack(found)


def _turned(q: Reals, by: Reals) -> Reals:
    """Products of quaternions `(..., 4)`: first `by`, then `q`."""
    a, b, c, d = np.moveaxis(q, -1, 0)
    e, f, g, h = np.moveaxis(by, -1, 0)
    return np.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ],
        -1,
    )


def _axes(turn: Reals) -> NDArray[np.intp]:
    """Which axis comes to lie on each when a cube is turned, `(3,)`."""
    rows = [_turned(_turned(turn, axis), turn * (1, -1, -1, -1))[1:] for axis in np.eye(4)[1:]]
    found: NDArray[np.intp] = np.abs(np.stack(rows, 1)).argmax(0)
    return found


SYMMETRIES = _symmetries()
AXES = np.stack([_axes(turn) for turn in SYMMETRIES])


@final
@dataclass(frozen=True)
class Lattice:
    """The steps of a stream.

    Attributes:
        degree: of the harmonics, 0 to 3.
        quality: 0 to 100.
        unit: the step of means is 2^(unit / 8).
    """

    degree: int
    quality: int
    unit: int

    @classmethod
    def of(cls, frames: Iterable[Gaussians], quality: int) -> Lattice:
        """For all of some frames; see `AbstractSceneFamily.plan`."""
        degree, size, far = None, 1.0, 0.0
        for number, frame in enumerate(frames):
            if degree is None:
                degree = frame.degree
                if len(frame):
                    size = float(np.exp(np.median(frame.scales.mean(1, dtype=np.float64))))
            elif frame.degree != degree:
                raise UsageError(
                    f"scene: want one degree of harmonics, frame {number} has {frame.degree}, "
                    f"those before it {degree}"
                )
            far = max(far, float(np.abs(frame.means).max(initial=0)))
        if degree is None:
            raise UsageError("scene: want one frame at least, got none")
        step = MEANS_STEP * size * _coarseness(quality)
        unit = max(
            math.floor(OCTAVE * math.log2(max(step, 1e-12))),
            math.ceil(OCTAVE * math.log2(max(far, 1e-12) / BIN_MAX)),
        )
        if not UNIT_MIN <= unit <= UNIT_MAX:
            raise UsageError(f"scene: no step of means fits values up to {far:g}")
        return cls(degree, quality, unit)

    @property
    def columns(self) -> int:
        """Of `bins`."""
        return BASE + 3 * (COEFFICIENTS[self.degree] - 1)

    @property
    def steps(self) -> Reals:
        """Of each column `(columns,)`."""
        rest = [REST_STEP] * (self.columns - BASE)
        own = [QUATS_STEP] * 3 + [SCALES_STEP] * 3 + [OPACITY_STEP] + [COLOUR_STEP] * 3 + rest
        means = [2.0 ** (self.unit / OCTAVE)] * 3
        return np.concatenate([means, np.array(own) * _coarseness(self.quality)])

    def real(self, gaussians: Gaussians, near: IntArray | None = None) -> Reals:
        """What is to be rounded to `bins`, `(N, columns)`.

        A Gaussian whose axes change places is the same one. Of the 24 ways to name them the one
        is taken that turns least, or comes nearest to the rotation in the bins `near`.
        """
        steps, count = self.steps, len(gaussians)
        quats = gaussians.quats.astype(np.float64)
        quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
        ways = _turned(quats[:, None], SYMMETRIES[None])
        ways = np.where(ways[..., :1] < 0, -ways, ways)[..., 1:] / steps[QUATS]
        target = np.zeros((count, 3)) if near is None else near[:, QUATS]
        best = np.square(ways - target[:, None]).sum(2).argmin(1)
        rows = np.arange(count)
        scales = gaussians.scales.astype(np.float64)[rows[:, None], AXES[best]]
        alpha = 1 / (1 + np.exp(-gaussians.opacities.astype(np.float64).clip(-60, 60)))
        found = np.concatenate(
            [
                gaussians.means / steps[MEANS],
                ways[rows, best],
                scales / steps[SCALES],
                np.arcsin(np.sqrt(alpha))[:, None] / steps[OPACITY],
                gaussians.sh.reshape(count, self.columns - COLOUR.start) / steps[COLOUR.start :],
            ],
            axis=1,
        )
        return found.clip(-BIN_MAX, BIN_MAX)

    def gaussians(self, bins: IntArray) -> Gaussians:
        """What `bins` `(N, columns)` stand for."""
        values = bins * self.steps
        vector = values[:, QUATS]
        length = np.linalg.norm(vector, axis=1, keepdims=True)
        vector = vector / np.maximum(length, 1)
        w = np.sqrt(np.maximum(1 - np.square(vector).sum(1, keepdims=True), 0))
        alpha = np.square(np.sin(values[:, OPACITY.start].clip(0.01, math.pi / 2 - 0.01)))
        arrays = {
            "means": values[:, MEANS],
            "quats": np.concatenate([w, vector], axis=1),
            "scales": values[:, SCALES],
            "opacities": np.log(alpha / (1 - alpha)),
            "sh": values[:, COLOUR.start :].reshape(len(bins), COEFFICIENTS[self.degree], 3),
        }
        highest = np.finfo(np.float32).max
        return Gaussians(
            **{
                name: array.clip(-highest, highest).astype(np.float32)
                for name, array in arrays.items()
            }
        )


def _coarseness(quality: int) -> float:
    """Of steps, 1 at quality 60."""
    return math.pow(2.0, (60 - quality) / QUALITY_HALVES)
