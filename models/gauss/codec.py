"""`gauss`, the family object: moving Gaussians as integers that change. Knows no file.

See `plan` for what a stream says once, `lattice` for what its integers mean, `syntax` for a slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.cameras import Camera
from codec.entropy import AbstractCoder, BitCounter, IntArray
from codec.errors import UsageError
from codec.gaussians import Gaussians
from codec.models.base import (
    AbstractScene,
    AbstractSceneFamily,
    Search,
    SliceState,
    Symbols,
    ended_by,
)
from codec.models.gauss.lattice import (
    Rows,
    followed,
    gaussians_of,
    key_rows,
    morton,
)
from codec.models.gauss.plan import Plan
from codec.models.gauss.planning import planned
from codec.models.gauss.syntax import (
    CHANGES,
    DIES,
    SLICE_MAX,
    begun,
    change,
    chosen,
    code_slice,
    created,
)
from codec.models.gauss.tables import check_probabilities
from codec.models.gauss.tracking import NOBODY, matched

__all__ = ["Gauss", "GaussScene"]

KEY_SLICE = 4096  # Gaussians that a slice of a key frame has at most


@final
class Gauss(AbstractSceneFamily):
    """A codec of any scene; what ships are the probabilities that contexts begin with."""

    slice_max = SLICE_MAX
    streams = ("base", "rest")
    layers = 1

    def __init__(self, initial: NDArray[np.uint16]) -> None:
        """initial: `(CONTEXTS,)` in 2**-16; a ValueError if they are no such probabilities."""
        check_probabilities(initial)
        self._initial = initial

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Gauss:
        """See `AbstractSceneFamily.load`; the inverse of `tensors`."""
        return cls(tensors["probabilities"].numpy().view(np.uint16))

    def tensors(self) -> dict[str, Tensor]:
        """What a weight file holds."""
        return {"probabilities": torch.from_numpy(self._initial.view(np.int16).copy())}

    def metadata(self) -> dict[str, str]:
        """The rest of it: nothing."""
        return {}

    def plan(self, frames: Iterable[Gaussians], quality: int) -> bytes:
        """See `AbstractSceneFamily.plan`."""
        return planned(frames, quality).pack()

    def fit(
        self,
        cameras: Sequence[Camera],
        frames: Iterable[NDArray[np.uint8]],
        count: int,
        quality: int,
        search: Search,
    ) -> tuple[bytes, Iterator[Gaussians]]:
        """See `AbstractSceneFamily.fit`."""
        from codec.models.gauss.fitting import Fitting, fit  # no decoder needs it

        with ended_by(search.interrupted):
            self._compile()
        fitting = Fitting.of(search.effort, cameras[0].width * cameras[0].height)
        due = fitting.clock(cameras, count, search)
        plan, moments = fit(cameras, frames, quality, fitting, due, search.interrupted)
        return plan.pack(), moments

    def _compile(self) -> None:
        """Fit and code next to nothing, so that no clock counts a machine's first use of numba."""
        from codec.models.gauss.fitting import Fitting, fit

        cameras = [
            Camera.looking(eye=(x, 0, -2), at=(0, 0, 0), width=8, height=8, field=60)
            for x in (-1.0, 0.0, 1.0)
        ]
        dark = np.zeros((3, 8, 8, 3), np.uint8)
        tiny = Fitting(gaussians=8, steps=1, epochs=1)
        plan, moments = fit(cameras, [dark, dark + np.uint8(255)], 60, tiny)
        scene = self.scene(plan.pack())
        before: list[SliceState] = []
        for gaussians in moments:
            found = scene.follow(gaussians, before) if before else scene.key(gaussians)
            assert found is not None
            old = before[0] if before else None
            scene.traverse(BitCounter(), found[0], old)
            before = [scene.after(found[0], old)]

    def scene(self, plan: bytes) -> GaussScene:
        """See `AbstractSceneFamily.scene`."""
        return GaussScene(Plan.parse(plan), self._initial)


@final
class GaussScene(AbstractScene):
    """One stream; the states of its slices are those of `syntax`."""

    def __init__(self, plan: Plan, initial: NDArray[np.uint16]) -> None:
        self.degree = plan.degree
        self.streams = Gauss.streams if plan.degree else Gauss.streams[:1]
        self.layers = len(self.streams) - 1
        self._plan, self._initial = plan, initial

    # ---- encoder only

    def key(self, gaussians: Gaussians) -> list[Symbols]:
        """See `AbstractScene.key`."""
        self._check_degree(gaussians)
        rows, _ = key_rows(gaussians, self._plan)
        parts = max(1, -(-len(gaussians) // KEY_SLICE))
        slices = zip(
            np.array_split(rows.base, parts), np.array_split(rows.rest, parts), strict=True
        )
        return [_new(Rows(base, rest)) for base, rest in slices]

    def follow(self, gaussians: Gaussians, before: Sequence[SliceState]) -> list[Symbols] | None:
        """See `AbstractScene.follow`."""
        self._check_degree(gaussians)
        old = Rows(*(np.concatenate([state[key] for state in before]) for key in Rows._fields))
        rows, order = key_rows(gaussians, self._plan)
        found = matched(old.base, rows.base)
        lives = found != NOBODY
        to = Rows(old.base.copy(), old.rest.copy())
        rows, real = followed(
            gaussians.take(order[found[lives]]),
            Rows(old.base[lives], old.rest[lives]),
            self._plan,
        )
        to.base[lives], to.rest[lives] = rows
        aims = np.zeros(old.base.shape)
        aims[lives] = real - old.base[lives]
        changes = Rows(*(after - then for after, then in zip(to, old, strict=True)))
        unmatched = np.sort(order[np.setdiff1d(np.arange(len(order)), found)])
        born, _ = key_rows(gaussians.take(unmatched), self._plan)
        sizes = [len(state["base"]) for state in before]
        owners = np.repeat(np.arange(len(sizes)), sizes)
        homes = _homes(born.base, old.base[lives], owners[lives], len(sizes))
        if homes is None:
            return None
        ends = np.cumsum([0, *sizes])
        slices: list[Symbols] = []
        for number, (first, end) in enumerate(pairwise(ends)):
            moves, tunes = (part[first:end] for part in changes)
            moves = chosen(moves, aims[first:end], before[number], self._plan)
            changing = moves.any(1) | tunes.any(1)
            gates = np.where(lives[first:end], changing * CHANGES, DIES).astype(np.int32)
            mine = homes == number
            new = _new(Rows(born.base[mine], born.rest[mine]))
            slices.append(
                {
                    "head": new["head"],
                    "gates": gates,
                    "moves": moves[changing].reshape(-1),
                    "new": new["new"],
                    "rest": np.concatenate([tunes[changing].reshape(-1), new["rest"]]),
                }
            )
        return slices

    def _check_degree(self, gaussians: Gaussians) -> None:
        if gaussians.degree != self.degree:
            raise UsageError(f"scene: want degree {self.degree}, got {gaussians.degree}")

    # ---- both directions

    def traverse(
        self,
        coder: AbstractCoder,
        symbols: Symbols | None,
        before: SliceState | None,
        layers: int | None = None,
    ) -> Symbols:
        """See `AbstractScene.traverse`."""
        detail = self.layers if layers is None else layers
        contexts = begun(self._initial)
        return code_slice(coder, symbols, before, self._plan, contexts, detail=detail > 0)

    def after(self, symbols: Symbols, before: SliceState | None) -> SliceState:
        """See `AbstractScene.after`."""
        if before is None:
            return created(symbols, self._plan)
        return change(symbols, before, self._plan)

    def gaussians(self, slices: Sequence[SliceState]) -> Gaussians:
        """See `AbstractScene.gaussians`."""
        parts = (np.concatenate([state[key] for state in slices]) for key in Rows._fields)
        return gaussians_of(Rows(*parts), self._plan)


def _new(rows: Rows) -> dict[str, IntArray]:
    """Symbols of new rows, which are in Morton order."""
    codes = morton(rows.base)
    parted = int(np.bitwise_or.reduce(codes[1:] ^ codes[:-1])) if len(codes) > 1 else 0
    top = max(parted.bit_length() - 1, 0) // 3
    return {
        "head": np.array([len(codes), top], np.int32),
        "new": rows.base.reshape(-1),
        "rest": rows.rest.reshape(-1),
    }


def _homes(
    born: IntArray, lives: IntArray, owners: NDArray[np.intp], count: int
) -> NDArray[np.intp] | None:
    """The slice that each new row goes to: that of the next one in Morton order, if it has room.

    None if all slices together have too little.

    Args:
        born: `(n, WIDTH)` new rows.
        lives: `(m, WIDTH)` those that there are.
        owners: `(m,)` their slices.
        count: how many slices there are.
    """
    homes = np.zeros(len(born), np.intp)
    codes = morton(lives)
    if len(codes):
        order = np.argsort(codes, kind="stable")
        at = np.searchsorted(codes[order], morton(born))
        homes = owners[order][np.minimum(at, len(codes) - 1)]
    room = SLICE_MAX - np.bincount(owners, minlength=count)
    if room.sum() < len(born):
        return None
    for number in np.flatnonzero(np.bincount(homes, minlength=count) > room):
        left = np.maximum(room - np.bincount(homes, minlength=count), 0)
        excess = np.flatnonzero(homes == number)[room[number] :]
        homes[excess] = np.repeat(np.arange(count), left)[: len(excess)]
    return homes
