"""The scale network frozen to integers: z_hat in, the table of every y out, on any machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.entropy import IntArray
from codec.entropy.fixedpoint import (
    FRACTION_BITS,
    FixedLayer,
    depthwise,
    pixel_shuffle,
    pointwise,
    quantise_layer,
    to_fixed,
)
from codec.models.iscs.network import LEVELS, ScaleNetwork
from codec.models.layers import QUALITY_MAX, RateTable

__all__ = ["FixedScales", "table_of_rates"]

LAYERS = ("enter", "spatial", "middle", "spatial2", "leave")


def table_of_rates(table: RateTable) -> NDArray[np.float64]:
    """All 101 rows of a rate table, `(101, channels)`."""
    rows: NDArray[np.float64] = table(torch.arange(QUALITY_MAX + 1.0))[:, :, 0, 0].double().numpy()
    return rows


@final
@dataclass(frozen=True)
class FixedScales:
    """`levels` is `(101, M)`: what each rate adds to each channel, in 1/256 of a level."""

    layers: tuple[FixedLayer, ...]
    levels: IntArray

    @classmethod
    @torch.no_grad()
    def freeze(cls, network: ScaleNetwork) -> FixedScales:
        """Round a trained scale network to integers."""
        layers = []
        for name in LAYERS:
            conv = getattr(network, name)
            weight = conv.weight.double()
            weight = weight[:, 0] if conv.groups > 1 else weight[:, :, 0, 0]
            layers.append(quantise_layer(weight.numpy(), conv.bias.double().numpy()))
        levels = np.rint(table_of_rates(network.level) * 2**FRACTION_BITS)
        return cls(tuple(layers), levels.astype(np.int32))

    def indexes(self, z_hat: IntArray, quality: int) -> IntArray:
        """Table of every y: z_hat `(Z, h, w)` to `(M, 4 h, 4 w)` in [0, 64)."""
        enter, spatial, middle, spatial2, leave = self.layers
        hidden = np.maximum(pixel_shuffle(pointwise(to_fixed(z_hat), enter)), 0)
        hidden = pointwise(depthwise(hidden, spatial), middle)
        hidden = np.maximum(pixel_shuffle(hidden), 0)
        level = pointwise(depthwise(hidden, spatial2), leave) + self.levels[quality][:, None, None]
        nearest = np.floor(level / 2**FRACTION_BITS + 0.5)
        indexes: IntArray = np.clip(nearest, 0, LEVELS - 1).astype(np.int32)
        return indexes

    def tensors(self) -> dict[str, Tensor]:
        """Its integers, for a weight file."""
        found = {"scales.levels": torch.from_numpy(self.levels)}
        for name, layer in zip(LAYERS, self.layers, strict=True):
            found[f"scales.{name}.weight"] = torch.from_numpy(layer.weight.astype(np.int16))
            found[f"scales.{name}.bias"] = torch.from_numpy(layer.bias.astype(np.int64))
            found[f"scales.{name}.shift"] = torch.tensor(layer.shift, dtype=torch.int32)
        return found

    @classmethod
    def load(cls, tensors: dict[str, Tensor]) -> FixedScales:
        """The inverse of `tensors`; other keys are ignored.

        Raises:
            KeyError, ValueError: a tensor is missing or out of range.
        """
        layers = tuple(
            FixedLayer(
                tensors[f"scales.{name}.weight"].double().numpy(),
                tensors[f"scales.{name}.bias"].double().numpy(),
                int(tensors[f"scales.{name}.shift"]),
            )
            for name in LAYERS
        )
        return cls(layers, tensors["scales.levels"].numpy())
