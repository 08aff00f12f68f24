"""Layers of `codec.entropy.fixedpoint` evaluated: exact integers in float64, on any device.

Sums of products stay below 2**53, where float64 holds every integer: the order of a sum, the
number of threads and fused multiply-adds cannot change a result, so an ordinary matrix product is
exact, and a GPU gives what a CPU gives.

    x: (P, C, h, w) float64 tensors that hold integers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from codec.entropy.fixedpoint import ACTIVATION_MAX, FRACTION_BITS, FixedLayer

__all__ = ["IntegerLayer", "depthwise", "pointwise", "to_fixed"]


@final
@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A layer on a device: `weight` and `bias` as in `FixedLayer`, and 2**-shift."""

    weight: Tensor
    bias: Tensor
    scale: float

    @classmethod
    def on(cls, layer: FixedLayer, device: torch.device) -> IntegerLayer:
        """A copy of `layer` on `device`."""
        weight, bias = (torch.tensor(part, device=device) for part in (layer.weight, layer.bias))
        return cls(weight, bias, 2.0**-layer.shift)


def to_fixed(values: Tensor) -> Tensor:
    """Integers in units of 1 to activations in units of 1/256, clipped to +-32767."""
    limit = ACTIVATION_MAX >> FRACTION_BITS
    return values.clamp(-limit, limit).double().mul_(2**FRACTION_BITS)


def pointwise(x: Tensor, layer: IntegerLayer) -> Tensor:
    """A 1x1 convolution; weight `(C_out, C_in)`. Returns `(P, C_out, h, w)`."""
    total = layer.weight @ x.flatten(2)
    return _requantise(total.view(*total.shape[:2], *x.shape[2:]), layer)


def depthwise(x: Tensor, layer: IntegerLayer) -> Tensor:
    """A depthwise 3x3 convolution, zero-padded; weight `(C, 3, 3)`. Returns `(P, C, h, w)`."""
    h, w = x.shape[2:]
    padded = functional.pad(x, (1, 1, 1, 1))
    total = torch.zeros_like(x)
    for row in range(3):
        for column in range(3):
            tap = layer.weight[:, row, column, None, None]
            total.addcmul_(tap, padded[:, :, row : row + h, column : column + w])
    return _requantise(total, layer)


def _requantise(total: Tensor, layer: IntegerLayer) -> Tensor:
    """In place: `floor((total + bias) / 2**shift + 1/2)`, clipped."""
    total.add_(layer.bias[:, None, None]).mul_(layer.scale).add_(0.5).floor_()
    return total.clamp_(-ACTIVATION_MAX, ACTIVATION_MAX)
