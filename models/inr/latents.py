"""The integer model of an overfitted picture's latents, for either direction. Knows no pixel.

Grids are coded from coarse to fine, each in raster order. A latent's Laplace comes from latents
before it in its own grid and, in the three finest grids, from features of all coarser ones:
Cool-chic 5's autoregressive network and inter-feature contexts, in the integers that
docs/format/inr.md specifies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.entropy import AbstractCausalModel, IntArray, Tables
from codec.errors import BitstreamError
from codec.models.inr.layout import CONTEXTS, GRIDS, IFCE_LEVELS, Preset

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["BIAS_MAX", "LATENT_MAX", "LATENT_MIN", "WEIGHT_MAX", "Integers", "LatentModel"]

LATENT_MIN, LATENT_MAX = -2048, 2047
WEIGHT_MAX, BIAS_MAX = 2**15 - 1, 2**35
CLIP = 2.0**31

Integers: TypeAlias = Mapping[str, NDArray[np.int64]]
Floats: TypeAlias = NDArray[np.float64]


@final
class LatentModel(AbstractCausalModel):
    """Predicts and codes the latents of one tile."""

    def __init__(
        self,
        preset: Preset,
        integers: Integers,
        tables: Tables,
        sizes: Sequence[tuple[int, int]],
        coded: Sequence[bool],
    ) -> None:
        """What both sides know.

        Args:
            preset: of the networks.
            integers: the tensors of `arm` and `ifce`, by the names of `layout.shapes`: weights in
                2**-8 within +-32767, biases in 2**-20 within +-2**35.
            tables: of `laplace_tables`.
            sizes: rows and columns of each of `GRIDS`.
            coded: which of them are coded at all; the others are 0.
        """
        self._sizes, self._coded = sizes, coded
        self._features = preset.features
        self._ifce = [
            (
                integers[f"ifce.{k}.weight"].astype(np.float64),
                integers[f"ifce.{k}.bias"].astype(np.float64),
            )
            for k in range(IFCE_LEVELS)
        ]
        contexts = np.array(CONTEXTS[: preset.neighbours], np.int64)
        self._network = (contexts, *_arrays(integers))
        self._tables = (tables.cdf, tables.offsets, tables.sizes)
        self.count = sum(h * w for (h, w), some in zip(sizes, coded, strict=True) if some)

    def operations(self, symbols: IntArray) -> NDArray[np.uint32]:
        """See `AbstractCausalModel.operations`."""
        _check(symbols, ValueError)
        blocks = [np.zeros(0, np.uint32)]
        for grid, told in self._walk(np.array(symbols)):
            ops = np.empty(2 * grid.size, np.uint32)
            used = _kernels().encode(grid, told, *self._network, *self._tables, ops)
            blocks.append(ops[:used].copy())
        return np.concatenate(blocks)

    def decode(
        self, words: NDArray[np.uint16], at: int, states: NDArray[np.uint64], k: int
    ) -> tuple[IntArray, int, int]:
        """See `AbstractCausalModel.decode`."""
        symbols = np.zeros(self.count, np.int32)
        for grid, told in self._walk(symbols):
            at, k = _kernels().decode(
                words, at, states, k, grid, told, *self._network, *self._tables
            )
        _check(symbols, BitstreamError)
        return symbols, int(at), int(k)

    def _walk(self, symbols: IntArray) -> Iterator[tuple[IntArray, Floats]]:
        """Each coded grid, a view of `symbols`, and its features, after the grids before."""
        before: list[IntArray] = []
        start = 0
        for place, size, some in zip(GRIDS, self._sizes, self._coded, strict=True):
            grid = np.zeros(size, np.int32)
            if some:
                grid = symbols[start : start + grid.size].reshape(size)
                start += grid.size
                level = IFCE_LEVELS if place.hyper else place.level
                yield grid, self._told(level, size, before)
            before.append(grid)

    def _told(self, level: int, size: tuple[int, int], before: Sequence[IntArray]) -> Floats:
        """Features of a grid, `(ceil(w / 2), ceil(h / 2), F)`; 0 above the third level."""
        rows, columns = (np.arange(-(-side // 2)) for side in size)
        if level >= IFCE_LEVELS:
            return np.zeros((len(columns), len(rows), self._features))
        weight, bias = self._ifce[level]
        nearest = np.empty((len(before), len(rows), len(columns)))
        for plane, grid, place in zip(nearest, before, GRIDS, strict=False):
            shift = place.level - level - 1
            plane[:] = grid[rows[:, None] >> shift, columns >> shift]
        return _rounded((4096 * nearest).T @ weight.T + bias)


def _rounded(sums: Floats) -> Floats:
    """Sums in 2**-20 as activations in 2**-12."""
    return np.clip(np.floor(sums / 256 + 0.5), -CLIP, CLIP)


def _arrays(integers: Integers) -> tuple[Floats, Floats, Floats, Floats]:
    """The arrays of `kernels`: `hidden`, `hidden_bias`, `out`, `out_bias`."""
    layers = ("arm.0", "arm.1")
    hidden = np.stack([integers[f"{name}.weight"] for name in layers]).astype(np.float64)
    hidden += 256 * np.eye(hidden.shape[2])
    hidden_bias = np.stack([integers[f"{name}.bias"] for name in layers]).astype(np.float64)
    out = np.stack([integers["arm.out.weight"], integers["arm.skip.weight"]], axis=1)
    out_bias = integers["arm.out.bias"].astype(np.float64)
    return hidden, hidden_bias, out.astype(np.float64), out_bias


def _check(symbols: IntArray, error: type[Exception]) -> None:
    low, high = symbols.min(initial=0), symbols.max(initial=0)
    if low < LATENT_MIN or high > LATENT_MAX:
        raise error(f"latents: want {LATENT_MIN}..{LATENT_MAX}, got {low}..{high}")


def _kernels() -> ModuleType:
    from codec.models.inr import kernels  # numba takes half a second to import

    return kernels
