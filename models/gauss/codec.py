"""`gauss`, the family object: moving Gaussians as integers. Knows no file.

A key frame is cut into slices of neighbours, and each slice then follows its own Gaussians, in
differences of integers, so that every decoder has the encoder's state bit for bit. Gated, quantised
residuals are the idea of Girish et al., "QUEEN: QUantized Efficient ENcoding of Dynamic Gaussians
for Streaming Free-viewpoint Videos" (NeurIPS 2024); docs/adr has what differs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.entropy import AbstractCoder
from codec.errors import BitstreamError
from codec.gaussians import COEFFICIENTS, Gaussians
from codec.models.base import AbstractScene, AbstractSceneFamily, SliceState, Symbols
from codec.models.frozen import tables_of_tensors, tensors_of_tables
from codec.models.gauss.lattice import BASE, UNIT_MAX, UNIT_MIN, Lattice
from codec.models.gauss.morton import morton
from codec.models.gauss.syntax import (
    Change,
    Coding,
    after_change,
    after_key,
    change_symbols,
    code_slice,
    key_symbols,
)
from codec.models.gauss.tracking import followers, nearest_rows

__all__ = ["Gauss", "GaussScene"]

SLICE = 4096
PLAN = struct.Struct(">BBh")  # degree, quality, unit
HOLD = 0.7  # of a step: what is nearer to its bin than that stays there


@final
class Gauss(AbstractSceneFamily):
    """The tables, which are all that ships."""

    slice_max = SLICE
    streams = ("head", "base", "rest")
    layers = 1

    def __init__(self, coding: Coding) -> None:
        self._coding = coding

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Gauss:
        """See `AbstractSceneFamily.load`; the inverse of `tensors`."""
        values, side = (tables_of_tensors(f"{name}.", tensors) for name in ("values", "side"))
        return cls(Coding(values, side, tensors["spreads"].numpy()))

    def tensors(self) -> dict[str, Tensor]:
        """What a weight file holds."""
        return {
            **tensors_of_tables("values.", self._coding.values),
            **tensors_of_tables("side.", self._coding.side),
            "spreads": torch.from_numpy(self._coding.spreads.copy()),
        }

    def metadata(self) -> dict[str, str]:
        """Nothing more."""
        return {}

    def plan(self, frames: Iterable[Gaussians], quality: int) -> bytes:
        """See `AbstractSceneFamily.plan`."""
        lattice = Lattice.of(frames, quality)
        return PLAN.pack(lattice.degree, lattice.quality, lattice.unit)

    def scene(self, plan: bytes) -> GaussScene:
        """See `AbstractSceneFamily.scene`."""
        if len(plan) != PLAN.size:
            raise BitstreamError(f"plan: want {PLAN.size} bytes, got {len(plan)}")
        degree, quality, unit = PLAN.unpack(plan)
        if degree >= len(COEFFICIENTS) or quality > 100 or not UNIT_MIN <= unit <= UNIT_MAX:
            raise BitstreamError("plan: a number is out of its range")
        return GaussScene(Lattice(degree, quality, unit), self._coding)


@final
class GaussScene(AbstractScene):
    """The codec of one stream. An encoder's states also know where a Gaussian came from, `source`.

    Symbols are those of `codec.models.gauss.syntax`; a state has `bins` `(N, columns)` and
    `active` `(N,)`, who changed last.
    """

    def __init__(self, lattice: Lattice, coding: Coding) -> None:
        self.lattice, self._coding = lattice, coding
        self.degree = lattice.degree
        self.layers = int(lattice.columns > BASE)
        self.streams = Gauss.streams[: 2 + self.layers]

    # ---- encoder only

    def key(self, gaussians: Gaussians) -> list[Symbols]:
        """See `AbstractScene.key`."""
        bins = np.rint(self.lattice.real(gaussians)).astype(np.int32)
        order = np.argsort(morton(bins[:, :3]), kind="stable")
        found: list[Symbols] = []
        for rows in np.array_split(order, max(1, -(-len(order) // SLICE))):
            symbols = key_symbols(bins[rows], self._coding)
            found.append({**symbols, "source": rows.astype(np.int32)})
        return found

    def follow(self, gaussians: Gaussians, before: Sequence[SliceState]) -> list[Symbols]:
        """See `AbstractScene.follow`."""
        bins = np.concatenate([state["bins"] for state in before])
        known = all("source" in state for state in before)
        source = np.concatenate([state["source"] for state in before]) if known else None
        old = self.lattice.gaussians(bins)
        matched = followers(old, source, gaussians)
        alive = matched >= 0
        moved = np.zeros_like(bins)
        if alive.any():
            real = self.lattice.real(gaussians.take(matched[alive]), bins[alive])
            away = real - bins[alive]
            moved[alive] = np.where(np.abs(away) > HOLD, np.rint(away), 0)
        new = np.setdiff1d(np.arange(len(gaussians)), matched[alive])
        births = np.rint(self.lattice.real(gaussians.take(new))).astype(np.int32)
        ends = np.cumsum([len(state["bins"]) for state in before])
        homes = _homes(old, gaussians.take(new), ends)
        found: list[Symbols] = []
        for number, (state, end) in enumerate(zip(before, ends, strict=True)):
            rows = slice(end - len(state["bins"]), end)
            own = homes == number
            change = Change(~alive[rows], moved[rows], births[own])
            symbols = change_symbols(change, state, self._coding)
            stay = matched[rows][alive[rows]]
            found.append({**symbols, "source": np.append(stay, new[own]).astype(np.int32)})
        return found

    # ---- all directions

    def traverse(
        self,
        coder: AbstractCoder,
        symbols: Symbols | None,
        before: SliceState | None,
        layers: int | None = None,
    ) -> Symbols:
        """See `AbstractScene.traverse`."""
        rest = layers is None or layers > 0
        return code_slice(coder, symbols, before, self.lattice.columns, self._coding, rest=rest)

    def after(self, symbols: Symbols, before: SliceState | None) -> SliceState:
        """See `AbstractScene.after`."""
        columns = self.lattice.columns
        if before is None:
            bins = after_key(symbols, columns)
            state = {"bins": bins, "active": np.zeros(len(bins), np.int32)}
        else:
            state = after_change(symbols, before, columns)
        if "source" in symbols:
            state["source"] = symbols["source"]
        return state

    def gaussians(self, slices: Sequence[SliceState]) -> Gaussians:
        """See `AbstractScene.gaussians`."""
        return self.lattice.gaussians(np.concatenate([state["bins"] for state in slices]))


def _homes(old: Gaussians, new: Gaussians, ends: NDArray[np.intp]) -> NDArray[np.intp]:
    """Which slice each new Gaussian joins: that of its nearest neighbour.

    Args:
        old: those of all slices.
        new: those that come.
        ends: of the slices in `old`.
    """
    if not len(old) or not len(new):
        return np.zeros(len(new), np.intp)
    return np.searchsorted(ends, nearest_rows(old, new), side="right")
