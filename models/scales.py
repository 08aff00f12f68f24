"""The scale network and its contexts frozen to integers: the level of every table, on any machine.

A level is in steps of 1/256 until it is rounded; a family has some number of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.entropy import IntArray
from codec.entropy.fixedpoint import FRACTION_BITS
from codec.models.context import MAGNITUDES, ScaleContext
from codec.models.fixed import IntegerLayer, depthwise, pointwise
from codec.models.frozen import (
    Layers,
    freeze_layers,
    freeze_rates,
    layers_of_tensors,
    tensors_of_layers,
    thaw_layers,
)
from codec.models.hyper import ScaleNetwork

__all__ = ["FixedScales", "Levels", "Said"]

IntegerLayers: TypeAlias = Mapping[str, IntegerLayer]

SCALE_LAYERS = ("enter", "spatial", "middle", "spatial2", "leave")
CONTEXT_LAYERS = ("spatial", "enter", "leave")
NEAR_LAYERS = (*CONTEXT_LAYERS, "near")


class Said(NamedTuple):
    """What z says: `hidden` `(P, hyper, h, w)` and the levels `(P, out, h, w)`, in 1/256."""

    hidden: Tensor
    levels: Tensor


@final
@dataclass(frozen=True, eq=False)
class FixedScales:
    """All in integers. `rates` is `(101, out)`: what each quality adds to each level.

    `contexts` are those of the core's steps but the first, and the one of all that follow the core;
    there may be none. There are `count` levels.
    """

    layers: Layers
    contexts: tuple[Layers, ...]
    rates: IntArray
    count: int
    _made: dict[torch.device, Levels] = field(default_factory=dict, init=False, repr=False)

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

    def on(self, device: torch.device) -> Levels:
        """The same to be evaluated on `device`; made once."""
        if device not in self._made:
            self._made[device] = Levels(self, device)
        return self._made[device]

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


@final
class Levels:
    """`FixedScales` on a device, for P pictures of one size at once."""

    def __init__(self, scales: FixedScales, device: torch.device) -> None:
        def moved(layers: Layers) -> IntegerLayers:
            return {name: IntegerLayer.on(layer, device) for name, layer in layers.items()}

        self._layers = moved(scales.layers)
        self._contexts = [moved(layers) for layers in scales.contexts]
        self._rates = torch.tensor(scales.rates, device=device)
        self._magnitudes = torch.tensor(MAGNITUDES, dtype=torch.float64, device=device)
        self._count = scales.count

    def of_z(self, z_hat: Tensor, quality: int, h: int, w: int) -> Said:
        """What z_hat `(P, Z, p, q)`, in 1/256, says of y: h is at most 4 p, w at most 4 q."""
        layers = self._layers
        hidden = functional.pixel_shuffle(pointwise(z_hat, layers["enter"]), 2).clamp_(min=0)
        hidden = pointwise(depthwise(hidden, layers["spatial"]), layers["middle"])
        hidden = functional.pixel_shuffle(hidden, 2).clamp_(min=0)
        hidden = depthwise(hidden, layers["spatial2"])[:, :, :h, :w].contiguous()
        levels = pointwise(hidden, layers["leave"]) + self._rates[quality][:, None, None]
        return Said(hidden, levels)

    def indexes(self, said: Said, channels: slice, step: int, seen: Tensor) -> Tensor:
        """The level of every table of `channels`, `(P, channels, h, w)` int32 in [0, count).

        Args:
            said: what z says.
            channels: which levels: the core's, or all others.
            step: of the core, from 0; one more than its last for the others.
            seen: `(P, core, h, w)` the decoded symbols of the core, 0 where there is none yet.
        """
        levels = said.levels[:, channels]
        if step and self._contexts:
            levels = levels + self._change(self._contexts[step - 1], seen, said.hidden)
        nearest = torch.floor(levels / 2**FRACTION_BITS + 0.5)
        return nearest.clamp_(0, self._count - 1).int()

    def _change(self, layers: IntegerLayers, seen: Tensor, hidden: Tensor) -> Tensor:
        """`ScaleContext` in integers: what to add to levels, in 1/256."""
        magnitudes = self._magnitudes[seen.abs().clamp_(max=len(MAGNITUDES) - 1).long()]
        inner = torch.cat([depthwise(magnitudes, layers["spatial"]), hidden], dim=1)
        change = pointwise(pointwise(inner, layers["enter"]).clamp_(min=0), layers["leave"])
        return change + depthwise(magnitudes, layers["near"]) if "near" in layers else change


def _names(context: nn.Module) -> Sequence[str]:
    assert isinstance(context, ScaleContext)
    return CONTEXT_LAYERS if context.near is None else NEAR_LAYERS
