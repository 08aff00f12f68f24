"""The scale network and its contexts frozen to integers: the level of every table, on any machine.

A level is in steps of 1/256 until it is rounded; a family has some number of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.entropy import IntArray
from codec.entropy.fixedpoint import (
    FRACTION_BITS,
    depthwise,
    pixel_shuffle,
    pointwise,
)
from codec.models.context import MAGNITUDES, ScaleContext
from codec.models.frozen import (
    Layers,
    freeze_layers,
    freeze_rates,
    layers_of_tensors,
    tensors_of_layers,
    thaw_layers,
)
from codec.models.hyper import ScaleNetwork

__all__ = ["FixedScales", "Said"]

Floats: TypeAlias = NDArray[np.float64]

SCALE_LAYERS = ("enter", "spatial", "middle", "spatial2", "leave")
CONTEXT_LAYERS = ("spatial", "enter", "leave")
NEAR_LAYERS = (*CONTEXT_LAYERS, "near")


class Said(NamedTuple):
    """What z says: `hidden` `(hyper, h, w)` and the levels `(out, h, w)`, in 1/256."""

    hidden: Floats
    levels: Floats


@final
@dataclass(frozen=True)
class FixedScales:
    """All in integers. `rates` is `(101, out)`: what each quality adds to each level.

    `contexts` are those of the core's steps but the first, and the one of all that follow the core;
    there may be none. There are `count` levels.
    """

    layers: Layers
    contexts: tuple[Layers, ...]
    rates: IntArray
    count: int

    @classmethod
    @torch.no_grad()
    def freeze(
        cls, network: ScaleNetwork, contexts: Iterable[nn.Module], count: int
    ) -> FixedScales:
        """Round trained networks to integers."""
        rounded = (freeze_layers(part, _names(part)) for part in contexts)
        rates = freeze_rates(network.level).numpy()
        return cls(freeze_layers(network, SCALE_LAYERS), tuple(rounded), rates, count)

    @torch.no_grad()
    def thaw(self, network: ScaleNetwork, contexts: Iterable[nn.Module]) -> None:
        """Write these integers' values into networks' parameters; undoes `freeze`."""
        thaw_layers(network, self.layers)
        for part, layers in zip(contexts, self.contexts, strict=True):
            thaw_layers(part, layers)
        network.level.fit(torch.from_numpy(self.rates * 2.0**-FRACTION_BITS))

    def of_z(self, z_hat: Floats, quality: int, h: int, w: int) -> Said:
        """What z_hat `(Z, p, q)`, in 1/256, says of y: h is at most 4 p, w at most 4 q."""
        layers = self.layers
        hidden = np.maximum(pixel_shuffle(pointwise(z_hat, layers["enter"])), 0)
        hidden = pointwise(depthwise(hidden, layers["spatial"]), layers["middle"])
        hidden = depthwise(np.maximum(pixel_shuffle(hidden), 0), layers["spatial2"])
        hidden = hidden[:, :h, :w]
        levels = pointwise(hidden, layers["leave"]) + self.rates[quality][:, None, None]
        return Said(hidden, levels)

    def indexes(self, said: Said, channels: slice, step: int, seen: IntArray) -> IntArray:
        """The level of every table of `channels`, `(channels, h, w)` in [0, count).

        Args:
            said: what z says.
            channels: which levels: the core's, or all others.
            step: of the core, from 0; one more than its last for the others.
            seen: `(core, h, w)` the decoded symbols of the core, 0 where there is none yet.
        """
        levels = said.levels[channels]
        if step and self.contexts:
            levels = levels + _change(self.contexts[step - 1], seen, said.hidden)
        nearest = np.floor(levels / 2**FRACTION_BITS + 0.5)
        indexes: IntArray = np.clip(nearest, 0, self.count - 1).astype(np.int32)
        return indexes

    def tensors(self) -> dict[str, Tensor]:
        """Its integers, for a weight file."""
        found = {"scales.levels": torch.from_numpy(self.rates)}
        for prefix, layers in self._parts():
            found |= tensors_of_layers(prefix, layers)
        return found

    def _parts(self) -> list[tuple[str, Layers]]:
        numbered = ((f"scales.context.{k}.", part) for k, part in enumerate(self.contexts))
        return [("scales.", self.layers), *numbered]

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], near: Sequence[bool], count: int) -> FixedScales:
        """The inverse of `tensors`; other keys are ignored.

        Args:
            tensors: of a weight file.
            near: of each context, whether it has the layer of that name.
            count: of levels.

        Raises:
            KeyError, ValueError: a tensor is missing or out of range.
        """
        contexts = (
            layers_of_tensors(
                f"scales.context.{k}.", NEAR_LAYERS if own else CONTEXT_LAYERS, tensors
            )
            for k, own in enumerate(near)
        )
        layers = layers_of_tensors("scales.", SCALE_LAYERS, tensors)
        return cls(layers, tuple(contexts), tensors["scales.levels"].numpy(), count)


def _names(context: nn.Module) -> Sequence[str]:
    assert isinstance(context, ScaleContext)
    return CONTEXT_LAYERS if context.near is None else NEAR_LAYERS


def _change(layers: Layers, seen: IntArray, hidden: Floats) -> Floats:
    """`ScaleContext` in integers: what to add to levels, in 1/256."""
    sizes = np.minimum(np.abs(seen), len(MAGNITUDES) - 1)
    magnitudes = np.array(MAGNITUDES, np.float64)[sizes]
    inner = np.concatenate([depthwise(magnitudes, layers["spatial"]), hidden])
    change = pointwise(np.maximum(pointwise(inner, layers["enter"]), 0), layers["leave"])
    return change + depthwise(magnitudes, layers["near"]) if "near" in layers else change
