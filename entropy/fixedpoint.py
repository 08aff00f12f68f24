"""Small convolutional networks in exact integer arithmetic. Knows no torch and no training.

What chooses a probability table must come out the same on every machine, so these layers work on
integers: activations in steps of 1/256 within +-32767, weights of 16 bits. Sums of their products
stay below 2**53, where float64 holds every integer: the order of a sum, the number of threads and
fused multiply-adds cannot change a result, and an ordinary matrix product is exact.

    x: (C, h, w) float64 arrays that hold integers
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
    "depthwise",
    "pixel_shuffle",
    "pointwise",
    "quantise_layer",
    "to_fixed",
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


def to_fixed(values: NDArray[np.int32]) -> Floats:
    """Integers in units of 1 to activations in units of 1/256, clipped to +-32767."""
    limit = ACTIVATION_MAX >> FRACTION_BITS
    activations: Floats = np.clip(values, -limit, limit).astype(np.float64) * 2**FRACTION_BITS
    return activations


def pointwise(x: Floats, layer: FixedLayer) -> Floats:
    """A 1x1 convolution; weight `(C_out, C_in)`. Returns `(C_out, h, w)`."""
    total = layer.weight @ x.reshape(len(x), -1)
    return _requantise(total.reshape(-1, *x.shape[1:]), layer)


def depthwise(x: Floats, layer: FixedLayer) -> Floats:
    """A depthwise 3x3 convolution, zero-padded; weight `(C, 3, 3)`. Returns `(C, h, w)`."""
    _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    total = np.zeros_like(x)
    for row in range(3):
        for column in range(3):
            tap = layer.weight[:, row, column, None, None]
            total += tap * padded[:, row : row + h, column : column + w]
    return _requantise(total, layer)


def pixel_shuffle(x: Floats) -> Floats:
    """Depth to space: `(4 C, h, w)` to `(C, 2 h, 2 w)`, in torch's order of channels."""
    channels, h, w = x.shape
    squares = x.reshape(channels // 4, 2, 2, h, w).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(squares).reshape(channels // 4, 2 * h, 2 * w)


def _requantise(total: Floats, layer: FixedLayer) -> Floats:
    total = total + layer.bias[:, None, None]
    rounded = np.floor(total * 2.0**-layer.shift + 0.5)
    return np.clip(rounded, -ACTIVATION_MAX, ACTIVATION_MAX)
