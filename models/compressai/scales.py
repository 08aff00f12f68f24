"""The hyper-synthesis in exact integers: the table of every y, on any machine. Knows no means.

Weights have 16 bits, activations steps of 2**-14 within +-2**24. Every sum of products, with its
bias, stays below 2**52 (checked when weights are loaded), so float64 holds it and all of its parts
exactly: ordinary float64 convolutions give the same integers in any order of summation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from codec.entropy import IntArray
from codec.entropy.fixedpoint import FixedLayer, quantise_layer
from codec.models.compressai.upsampling import Upsampling

__all__ = ["FRACTION_BITS", "FixedScales"]

FRACTION_BITS = 14
ACTIVATION_MAX = 2**24
SUM_MAX = 2**52
SLOPE, SLOPE_BITS = 10486, 20  # of a leaky ReLU, 0.01
LAYERS = 3


@final
@dataclass(frozen=True)
class FixedScales:
    """The integers of it.

    Attributes:
        layers: two transposed 5x5 convolutions of stride 2, weights `(C_in, C_out, 5, 5)`, and a
            3x3 convolution, `(M, C_in, 3, 3)`, whose outputs are the scales.
        leaky: ReLUs between layers have slope 0.01 below 0 instead of 0.
        medians: `(N,)` what is added to z's symbols, in steps of 2**-14.
        thresholds: `(T - 1,)` rising; a table's is the largest scale that it is for.

    Raises:
        ValueError: there are more or fewer layers, or sums might be inexact.
    """

    layers: Sequence[FixedLayer]
    leaky: bool
    medians: IntArray
    thresholds: IntArray

    def __post_init__(self) -> None:
        if len(self.layers) != LAYERS:
            raise ValueError(f"hyper-synthesis: want {LAYERS} layers, got {len(self.layers)}")
        for number, layer in enumerate(self.layers):
            inputs = (0, 2, 3) if number < LAYERS - 1 else (1, 2, 3)
            sums = np.abs(layer.weight).sum(inputs) * ACTIVATION_MAX + np.abs(layer.bias)
            if sums.max(initial=0) + 2.0**layer.shift >= SUM_MAX:
                raise ValueError(f"hyper-synthesis: sums of layer {number} may leave 52 bits")
        if (np.diff(self.thresholds) <= 0).any():
            raise ValueError("hyper-synthesis: want thresholds that rise")

    @classmethod
    def freeze(
        cls,
        weights: Sequence[tuple[Tensor, Tensor]],
        *,
        leaky: bool,
        medians: Tensor,
        scales: Tensor,
    ) -> FixedScales:
        """Round real layers, `(weight, bias)` each; `scales` `(T,)` are those of the tables."""
        unit = 2.0**FRACTION_BITS
        return cls(
            [
                quantise_layer(
                    weight.double().numpy(), bias.double().numpy(), fraction_bits=FRACTION_BITS
                )
                for weight, bias in weights
            ],
            leaky,
            np.rint(medians.double().numpy() * unit).astype(np.int32),
            np.floor(scales.double().numpy()[:-1] * unit).astype(np.int32),
        )

    @torch.inference_mode()
    def indexes(self, z: IntArray, h: int, w: int) -> IntArray:
        """The table of every y, `(M, h, w)`, of symbols z `(N, p, q)`; h <= 4 p and w <= 4 q.

        It is the first one whose scale is not below that of y, as in CompressAI.
        """
        fixed = z * 2.0**FRACTION_BITS + self.medians[:, None, None]
        x = torch.from_numpy(np.clip(fixed, -ACTIVATION_MAX, ACTIVATION_MAX))[None]
        for layer, up in zip(self.layers, self._upsamplings, strict=False):
            x = self._activate(_requantise(up(x), layer.shift))
        weight, bias, thresholds = self._last
        x = functional.conv2d(x, weight, bias, padding=1)
        scales = _requantise(x[0, :, :h, :w].contiguous(), self.layers[-1].shift)
        found: IntArray = torch.bucketize(scales, thresholds, out_int32=True).numpy()
        return found

    @cached_property
    def _upsamplings(self) -> list[Upsampling]:
        return [Upsampling(_copy(layer.weight), _copy(layer.bias)) for layer in self.layers[:-1]]

    @cached_property
    def _last(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight and bias of the last layer, and the thresholds."""
        last = self.layers[-1]
        return _copy(last.weight), _copy(last.bias), _copy(self.thresholds)

    def _activate(self, x: Tensor) -> Tensor:
        if not self.leaky:
            return x.clamp_(min=0)
        return torch.maximum(x, (x * (SLOPE * 2.0**-SLOPE_BITS)).floor_())

    def tensors(self) -> dict[str, Tensor]:
        """Its integers, for a weight file."""
        found = {
            "scales.medians": torch.from_numpy(self.medians),
            "scales.thresholds": torch.from_numpy(self.thresholds),
        }
        for number, layer in enumerate(self.layers):
            name = f"scales.{number}"
            found[f"{name}.weight"] = torch.from_numpy(layer.weight.astype(np.int16))
            found[f"{name}.bias"] = torch.from_numpy(layer.bias.astype(np.int64))
            found[f"{name}.shift"] = torch.tensor(layer.shift, dtype=torch.int32)
        return found

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], *, leaky: bool) -> FixedScales:
        """The inverse of `tensors`; other keys are ignored.

        Raises:
            KeyError, ValueError: a tensor is missing or out of range.
        """
        layers = [
            FixedLayer(
                tensors[f"scales.{number}.weight"].double().numpy(),
                tensors[f"scales.{number}.bias"].double().numpy(),
                int(tensors[f"scales.{number}.shift"]),
            )
            for number in range(LAYERS)
        ]
        medians, thresholds = tensors["scales.medians"], tensors["scales.thresholds"]
        return cls(layers, leaky, medians.numpy(), thresholds.numpy())


def _copy(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.float64))


def _requantise(total: Tensor, shift: int) -> Tensor:
    """Sums to activations: half a step more, a shift to the right, and the bounds; in place."""
    half = 2.0 ** (shift - 1) if shift else 0.0
    total = total.add_(half).mul_(2.0**-shift).floor_()
    return total.clamp_(-ACTIVATION_MAX, ACTIVATION_MAX)
