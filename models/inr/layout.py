"""Sizes of an overfitted picture: grids of latents, contexts, tensors of networks. Knows no torch.

A picture of H x W has latents y_0 .. y_6 of ceil(H / 2^k) x ceil(W / 2^k), and hyper-latents
h_4 .. h_6 of the same sizes, which only entropy coding sees. All are coded from coarse to fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = [
    "CONTEXTS",
    "GRIDS",
    "LEVELS",
    "PRESETS",
    "Grid",
    "Preset",
    "coarser",
    "grid_sizes",
    "preset_called",
    "shapes",
]

LEVELS = 7
HYPER_LEVELS = (6, 5, 4)
IFCE_LEVELS = 3


@final
@dataclass(frozen=True)
class Grid:
    """One grid of integers: its level k, and whether only entropy coding sees it."""

    level: int
    hyper: bool


GRIDS = (
    *(Grid(k, hyper=True) for k in HYPER_LEVELS),
    *(Grid(k, hyper=False) for k in reversed(range(LEVELS))),
)
"""In the order of coding."""

CONTEXTS = (
    (0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-3, 0), (0, -3), (-1, -2), (-2, 1),
    (-2, -1), (-1, 2), (-2, -2), (-1, -3), (-2, 2), (-3, 1), (0, -4), (-1, 3), (-2, -3), (-2, 3),
)  # fmt: skip
"""Rows and columns from a latent to those decoded before, the most telling first (Cool-chic 5)."""


@final
@dataclass(frozen=True)
class Preset:
    """How large the networks of a picture are.

    Attributes:
        name: as Cool-chic 5 calls it.
        neighbours: contexts of the autoregressive network, the first of `CONTEXTS`.
        features: and its inputs from coarser grids.
        width: channels of the synthesis' hidden layer.
        residuals: 3x3 layers at its end.
    """

    name: str
    neighbours: int
    features: int
    width: int
    residuals: int

    @property
    def inputs(self) -> int:
        """Of the autoregressive network."""
        return self.neighbours + self.features


PRESETS = (Preset("lop", 6, 2, 8, 1), Preset("mop", 10, 4, 16, 2), Preset("hop", 14, 6, 48, 2))


def preset_called(name: str) -> Preset:
    """The one of `PRESETS` with a name.

    Raises:
        KeyError: there is none.
    """
    return {preset.name: preset for preset in PRESETS}[name]


def grid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of each of `GRIDS`."""
    return [(-(-height >> grid.level), -(-width >> grid.level)) for grid in GRIDS]


def coarser(level: int) -> int:
    """How many grids are coded before y_level."""
    return len(HYPER_LEVELS) + LEVELS - 1 - level


def shapes(preset: Preset) -> dict[str, tuple[int, ...]]:
    """The tensors that a picture's networks consist of, in the order of coding."""
    inputs, width = preset.inputs, preset.width
    found: dict[str, tuple[int, ...]] = {}
    for layer in ("0", "1"):
        found[f"arm.{layer}.weight"] = (inputs, inputs)
        found[f"arm.{layer}.bias"] = (inputs,)
    found["arm.out.weight"] = (2, inputs)
    found["arm.out.bias"] = (2,)
    found["arm.skip.weight"] = (2, inputs)
    for level in range(IFCE_LEVELS):
        found[f"ifce.{level}.weight"] = (preset.features, coarser(level))
        found[f"ifce.{level}.bias"] = (preset.features,)
    found["up.kernel.weight"] = (LEVELS - 1, 4)
    found["up.filter.weight"] = (LEVELS - 1, 4)
    found["syn.in.weight"] = (width, LEVELS)
    found["syn.in.bias"] = (width,)
    found["syn.out.weight"] = (3, width)
    found["syn.out.bias"] = (3,)
    for number in range(preset.residuals):
        found[f"syn.res{number}.weight"] = (3, 3, 3, 3)
        found[f"syn.res{number}.bias"] = (3,)
    found["syn.skip.weight"] = (3, LEVELS)
    return found
