"""Integers of weight files: layers of `codec.entropy.fixedpoint`, and tables. Knows no family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from codec.entropy import Tables
from codec.entropy.fixedpoint import FRACTION_BITS, FixedLayer, quantise_layer
from codec.models.layers import RateTable

__all__ = [
    "Layers",
    "freeze_layers",
    "freeze_rates",
    "layers_of_tensors",
    "tables_of_tensors",
    "tensors_of_layers",
    "tensors_of_tables",
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


def tensors_of_tables(prefix: str, tables: Tables) -> dict[str, Tensor]:
    """Tables of up to 16 bits, for a weight file: frequencies one table after another."""
    inside = np.arange(tables.cdf.shape[1] - 1) < tables.sizes[:, None]
    freqs = np.diff(tables.cdf.astype(np.int64), axis=1)[inside].astype(np.uint16)
    return {
        f"{prefix}freqs": torch.from_numpy(freqs.view(np.int16)),
        f"{prefix}offsets": torch.from_numpy(tables.offsets.copy()),
        f"{prefix}sizes": torch.from_numpy(tables.sizes.copy()),
    }


def tables_of_tensors(prefix: str, tensors: Mapping[str, Tensor], precision: int = 16) -> Tables:
    """The inverse of `tensors_of_tables`.

    Raises:
        KeyError, ValueError: a tensor is missing, or they are no tables.
    """
    freqs = tensors[f"{prefix}freqs"].numpy().view(np.uint16).astype(np.uint32)
    offsets, sizes = (tensors[f"{prefix}{part}"].numpy() for part in ("offsets", "sizes"))
    cdf = np.zeros((len(sizes), int(sizes.max()) + 1), np.uint32)
    cdf[:, 1:][np.arange(cdf.shape[1] - 1) < sizes[:, None]] = freqs
    return Tables(np.cumsum(cdf, axis=1, dtype=np.uint32), offsets, sizes, precision)
