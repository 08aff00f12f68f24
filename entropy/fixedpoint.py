"""Layers of small convolutional networks in integers. Knows no torch and no training.

What chooses a probability table must come out the same on every machine, so these layers work on
integers: activations in steps of 1/256 within +-32767, weights of 16 bits. `codec.models.fixed`
evaluates them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ACTIVATION_MAX",
    "FRACTION_BITS",
    "FixedLayer",
    "quantise_layer",
]

Floats: TypeAlias = NDArray[np.float64]

FRACTION_BITS = 8
ACTIVATION_MAX = 32767
WEIGHT_MAX = 32767


@dataclass(frozen=True)
class FixedLayer:
    """A layer's integers: `weight` (any shape) and `bias` `(C_out,)` as float64, and the `shift`.

    An output is `floor((weight . x + bias) / 2**shift + 1/2)`, clipped to +-32767.
    """

    weight: Floats
    bias: Floats
    shift: int

    def __post_init__(self) -> None:
        for values in (self.weight, self.bias):
            if not np.array_equal(values, np.rint(values)):
                raise ValueError("a fixed layer holds integers")
            values.flags.writeable = False
        if np.abs(self.weight).max(initial=0) > WEIGHT_MAX or not 0 <= self.shift <= 30:
            raise ValueError("weights are within 16 bits, the shift within 0..30")
        if np.abs(self.bias).max(initial=0) > 2**45:
            raise ValueError("biases are within 45 bits")


def quantise_layer(
    weight: Floats, bias: Floats, *, fraction_bits: int = FRACTION_BITS
) -> FixedLayer:
    """The nearest layer of 16-bit weights to a real one; runs when weights are exported.

    `fraction_bits` are those of the activations that the layer will see.
    """
    largest = float(np.abs(weight).max())
    shift = min(20, math.floor(math.log2(WEIGHT_MAX / largest))) if largest > 0 else 0
    fixed_bias = np.rint(bias.astype(np.float64) * 2.0 ** (shift + fraction_bits))
    return FixedLayer(np.rint(weight.astype(np.float64) * 2.0**shift), fixed_bias, shift)
