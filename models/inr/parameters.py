"""The networks of a picture as integers: what is added to a prior, in which steps. Knows no coder.

A tensor is `prior + q * 2**-k`, with integers q of its own and the exponent k of its group. The
autoregressive network and the inter-feature contexts become integers exactly; upsampling and
synthesis become floats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.entropy import IntArray
from codec.models.inr.latents import BIAS_MAX, WEIGHT_MAX, Integers
from codec.models.inr.layout import Preset, shapes

__all__ = [
    "GROUPS",
    "Deltas",
    "Prior",
    "Values",
    "codes",
    "floats",
    "group_of",
    "integers",
    "prior_unit",
    "quantise",
]

Values: TypeAlias = Mapping[str, NDArray[np.float64]]

GROUPS = {
    "arm.weight": 8,
    "arm.bias": 16,
    "ifce.weight": 8,
    "ifce.bias": 16,
    "syn.weight": 12,
    "syn.bias": 16,
    "up.weight": 12,
}
"""The largest exponent of each, in the order of coding and of choosing."""

WEIGHT_BITS, BIAS_BITS = 8, 20  # behind the point, of the integers that code
PRIOR_BIAS_BITS, PRIOR_MAX = 16, 2.0**14
Q_MAX = 2**20


def group_of(name: str) -> str:
    """The group of a tensor: its module, and whether it is a weight or a bias."""
    return f"{name.partition('.')[0]}.{name.rpartition('.')[2]}"


@final
@dataclass(frozen=True)
class Prior:
    """Networks that a picture's own start from.

    Attributes:
        preset: their sizes.
        lmbda: what a bit was worth when they were trained, in squared errors.
        values: by the names of `layout.shapes`; of `arm` and `ifce` weights are multiples of 2**-8
            within +-32767 * 2**-8 and biases of 2**-16 within +-2**14.

    Raises:
        ValueError: tensors are missing or of another shape, or not such multiples.
    """

    preset: Preset
    lmbda: float
    values: Values

    def __post_init__(self) -> None:
        wanted = shapes(self.preset)
        if not 0 < self.lmbda < math.inf:
            raise ValueError(f"prior: want a lambda above 0, got {self.lmbda}")
        if {name: value.shape for name, value in self.values.items()} != wanted:
            raise ValueError(f"prior: want the tensors of preset {self.preset.name}")
        for name, value in self.values.items():
            unit, most = prior_unit(name), min(_most(name), PRIOR_MAX)
            if not np.isfinite(value).all():
                raise ValueError(f"prior {name}: want finite numbers")
            if codes(name) and ((value % unit).any() or np.abs(value).max() > most):
                raise ValueError(f"prior {name}: want multiples of {unit} within +-{most}")


@final
@dataclass(frozen=True)
class Deltas:
    """What a picture adds to its prior.

    Attributes:
        exponents: k of each group.
        scales: of each tensor, the scale index 1..63 of the Laplace that codes it; 0 skips it.
        q: integers of each tensor, in its shape, within +-2**20; 0 where it is skipped.
    """

    exponents: Mapping[str, int]
    scales: Mapping[str, int]
    q: Mapping[str, IntArray]

    def values(self, prior: Prior) -> dict[str, NDArray[np.float64]]:
        """The networks themselves, exact."""
        return {
            name: value + self.q[name] * 2.0 ** -self.exponents[group_of(name)]
            for name, value in prior.values.items()
        }


def quantise(name: str, value: NDArray[np.float64], prior: Prior, exponent: int) -> IntArray:
    """The integers q of the tensor `name` that come nearest to `value`."""
    q = np.rint((value - prior.values[name]) * 2.0**exponent)
    found: IntArray = np.clip(np.nan_to_num(q), -Q_MAX, Q_MAX).astype(np.int32)
    return found


def integers(values: Values) -> Integers:
    """The networks that code, as `LatentModel` wants them; clipped to what it allows."""
    found = {}
    for name, value in values.items():
        if codes(name):
            bits = WEIGHT_BITS if name.endswith("weight") else BIAS_BITS
            most = WEIGHT_MAX if name.endswith("weight") else BIAS_MAX
            found[name] = np.clip(value * 2.0**bits, -most, most).astype(np.int64)
    return found


def floats(values: Values, device: torch.device) -> dict[str, Tensor]:
    """All networks as the functions of `network` want them, `(1, ...)` float32."""
    return {
        name: torch.from_numpy(value)[None].to(device, torch.float32)
        for name, value in values.items()
    }


def codes(name: str) -> bool:
    """Whether a tensor is of the networks that predict latents, and therefore made of integers."""
    return name.startswith(("arm", "ifce"))


def prior_unit(name: str) -> float:
    """What numbers of a prior's tensor are multiples of where `codes(name)`."""
    return 2.0 ** -(WEIGHT_BITS if name.endswith("weight") else PRIOR_BIAS_BITS)


def _most(name: str) -> float:
    if name.endswith("weight"):
        return WEIGHT_MAX * 2.0**-WEIGHT_BITS
    return BIAS_MAX * 2.0**-BIAS_BITS
