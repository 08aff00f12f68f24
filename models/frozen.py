"""Layers of a trained network as the integers of `codec.entropy.fixedpoint`. Knows no family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from codec.entropy.fixedpoint import FRACTION_BITS, FixedLayer, quantise_layer
from codec.models.layers import RateTable

__all__ = [
    "Layers",
    "freeze_layers",
    "freeze_rates",
    "layers_of_tensors",
    "tensors_of_layers",
    "thaw_layers",
]

Layers: TypeAlias = Mapping[str, FixedLayer]


@torch.no_grad()
def freeze_layers(part: nn.Module, names: Sequence[str]) -> Layers:
    """The nearest integers to some convolutions of `part`, 1x1 or depthwise."""
    found = {}
    for name in names:
        conv = getattr(part, name)
        weight = conv.weight.double()
        weight = weight[:, 0] if conv.groups > 1 else weight[:, :, 0, 0]
        found[name] = quantise_layer(weight.numpy(), conv.bias.double().numpy())
    return found


@torch.no_grad()
def thaw_layers(part: nn.Module, layers: Layers) -> None:
    """Write the integers' values into the convolutions of `part`; undoes `freeze_layers`."""
    for name, layer in layers.items():
        conv = getattr(part, name)
        weight = torch.from_numpy(layer.weight * 2.0**-layer.shift)
        conv.weight.copy_(weight.view_as(conv.weight))
        bias = layer.bias * 2.0 ** -(layer.shift + FRACTION_BITS)
        conv.bias.copy_(torch.from_numpy(bias))


def freeze_rates(table: RateTable) -> Tensor:
    """All 101 rows of a rate table in steps of 1/256, `(101, channels)` int32."""
    return torch.round(table.rows() * 2**FRACTION_BITS).to(torch.int32)


def tensors_of_layers(prefix: str, layers: Layers) -> dict[str, Tensor]:
    """Their integers, for a weight file."""
    found = {}
    for name, layer in layers.items():
        found[f"{prefix}{name}.weight"] = torch.from_numpy(layer.weight.astype(np.int16))
        found[f"{prefix}{name}.bias"] = torch.from_numpy(layer.bias.astype(np.int64))
        found[f"{prefix}{name}.shift"] = torch.tensor(layer.shift, dtype=torch.int32)
    return found


def layers_of_tensors(prefix: str, names: Sequence[str], tensors: Mapping[str, Tensor]) -> Layers:
    """The inverse of `tensors_of_layers`; other keys are ignored.

    Raises:
        KeyError, ValueError: a tensor is missing or out of range.
    """
    return {
        name: FixedLayer(
            tensors[f"{prefix}{name}.weight"].double().numpy(),
            tensors[f"{prefix}{name}.bias"].double().numpy(),
            int(tensors[f"{prefix}{name}.shift"]),
        )
        for name in names
    }
