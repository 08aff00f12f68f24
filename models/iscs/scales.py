"""The scale network and its contexts frozen to integers: the table of every y, on any machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
from codec.models.iscs.context import MAGNITUDES, ScaleContext
from codec.models.iscs.network import LEVELS, IscsNetwork
from codec.models.layers import QUALITY_MAX, RateTable

__all__ = ["FixedScales", "Said", "table_of_rates"]

Floats: TypeAlias = NDArray[np.float64]

SCALE_LAYERS = ("enter", "spatial", "middle", "spatial2", "leave")
CONTEXT_LAYERS = ("spatial", "enter", "leave")
NEAR_LAYERS = (*CONTEXT_LAYERS, "near")
Layers: TypeAlias = Mapping[str, FixedLayer]


def table_of_rates(table: RateTable) -> NDArray[np.float64]:
    """All 101 rows of a rate table, `(101, channels)`."""
    rows: NDArray[np.float64] = table(torch.arange(QUALITY_MAX + 1.0))[:, :, 0, 0].double().numpy()
    return rows


class Said(NamedTuple):
    """What z says: `hidden` `(hyper, h, w)` and the level of every y `(M, h, w)`, in 1/256."""

    hidden: Floats
    levels: Floats


@final
@dataclass(frozen=True)
class FixedScales:
    """All in integers. `levels` is `(101, M)`: what each rate adds to each channel, in 1/256.

    `contexts` are those of the core's steps 1, 2 and 3 and the one of all other channels; there are
    none in weights without groups.
    """

    layers: Layers
    contexts: tuple[Layers, ...]
    levels: IntArray

    @classmethod
    @torch.no_grad()
    def freeze(cls, network: IscsNetwork) -> FixedScales:
        """Round a trained network's scales to integers."""
        contexts = (_frozen(part, _names(part)) for part in network.scale_context)
        levels = np.rint(table_of_rates(network.h_s_scale.level) * 2**FRACTION_BITS)
        layers = _frozen(network.h_s_scale, SCALE_LAYERS)
        return cls(layers, tuple(contexts), levels.astype(np.int32))

    @torch.no_grad()
    def thaw(self, network: IscsNetwork) -> None:
        """Write these integers' values into the parameters of `network`; undoes `freeze`."""
        parts = [network.h_s_scale, *network.scale_context]
        for part, layers in zip(parts, [self.layers, *self.contexts], strict=True):
            for name, layer in layers.items():
                conv = getattr(part, name)
                weight = torch.from_numpy(layer.weight * 2.0**-layer.shift)
                conv.weight.copy_(weight.view_as(conv.weight))
                bias = layer.bias * 2.0 ** -(layer.shift + FRACTION_BITS)
                conv.bias.copy_(torch.from_numpy(bias))
        network.h_s_scale.level.fit(torch.from_numpy(self.levels * 2.0**-FRACTION_BITS))

    def of_z(self, z_hat: IntArray, quality: int, h: int, w: int) -> Said:
        """What z_hat `(Z, p, q)` says of y `(M, h, w)`; h is at most 4 p, w at most 4 q."""
        layers = self.layers
        hidden = np.maximum(pixel_shuffle(pointwise(to_fixed(z_hat), layers["enter"])), 0)
        hidden = pointwise(depthwise(hidden, layers["spatial"]), layers["middle"])
        hidden = depthwise(np.maximum(pixel_shuffle(hidden), 0), layers["spatial2"])
        hidden = hidden[:, :h, :w]
        levels = pointwise(hidden, layers["leave"]) + self.levels[quality][:, None, None]
        return Said(hidden, levels)

    def indexes(self, said: Said, channels: slice, step: int, seen: IntArray) -> IntArray:
        """The table of every y of `channels`, `(channels, h, w)` in [0, 64).

        Args:
            said: what z says.
            channels: the core, or all others.
            step: 0..3 of the core; 4 for the others.
            seen: `(core, h, w)` the decoded symbols of the core, 0 where there is none yet.
        """
        levels = said.levels[channels]
        if step and self.contexts:
            levels = levels + _change(self.contexts[step - 1], seen, said.hidden)
        nearest = np.floor(levels / 2**FRACTION_BITS + 0.5)
        indexes: IntArray = np.clip(nearest, 0, LEVELS - 1).astype(np.int32)
        return indexes

    def tensors(self) -> dict[str, Tensor]:
        """Its integers, for a weight file."""
        found = {"scales.levels": torch.from_numpy(self.levels)}
        for prefix, layers in self._parts():
            for name, layer in layers.items():
                found[f"{prefix}{name}.weight"] = torch.from_numpy(layer.weight.astype(np.int16))
                found[f"{prefix}{name}.bias"] = torch.from_numpy(layer.bias.astype(np.int64))
                found[f"{prefix}{name}.shift"] = torch.tensor(layer.shift, dtype=torch.int32)
        return found

    def _parts(self) -> list[tuple[str, Layers]]:
        numbered = ((f"scales.context.{k}.", part) for k, part in enumerate(self.contexts))
        return [("scales.", self.layers), *numbered]

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], contexts: int) -> FixedScales:
        """The inverse of `tensors`, with so many contexts; other keys are ignored.

        Raises:
            KeyError, ValueError: a tensor is missing or out of range.
        """

        def part(prefix: str, names: Sequence[str]) -> Layers:
            return {
                name: FixedLayer(
                    tensors[f"{prefix}{name}.weight"].double().numpy(),
                    tensors[f"{prefix}{name}.bias"].double().numpy(),
                    int(tensors[f"{prefix}{name}.shift"]),
                )
                for name in names
            }

        names = [NEAR_LAYERS if k < contexts - 1 else CONTEXT_LAYERS for k in range(contexts)]
        read = (part(f"scales.context.{k}.", found) for k, found in enumerate(names))
        return cls(part("scales.", SCALE_LAYERS), tuple(read), tensors["scales.levels"].numpy())


def _names(context: nn.Module) -> Sequence[str]:
    assert isinstance(context, ScaleContext)
    return CONTEXT_LAYERS if context.near is None else NEAR_LAYERS


def _frozen(part: nn.Module, names: Sequence[str]) -> Layers:
    found = {}
    for name in names:
        conv = getattr(part, name)
        weight = conv.weight.double()
        weight = weight[:, 0] if conv.groups > 1 else weight[:, :, 0, 0]
        found[name] = quantise_layer(weight.numpy(), conv.bias.double().numpy())
    return found


def _change(layers: Layers, seen: IntArray, hidden: Floats) -> Floats:
    """`ScaleContext` in integers: what to add to levels, in 1/256."""
    sizes = np.minimum(np.abs(seen), len(MAGNITUDES) - 1)
    magnitudes = np.array(MAGNITUDES, np.float64)[sizes]
    inner = np.concatenate([depthwise(magnitudes, layers["spatial"]), hidden])
    change = pointwise(np.maximum(pointwise(inner, layers["enter"]), 0), layers["leave"])
    return change + depthwise(magnitudes, layers["near"]) if "near" in layers else change
