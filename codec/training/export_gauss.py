"""Probabilities for `gauss`: let contexts follow scripted scenes, keep where they come to, list.

    python -m codec.training.export_gauss gauss/base

Seconds of work for a processor, and the same file each time. Knows no file of the zoo but the one
it adds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codec.datasets.scenes import scripted
from codec.entropy import BitCounter
from codec.gaussians import Gaussians
from codec.models.base import SliceState, Symbols
from codec.models.gauss import Gauss
from codec.models.gauss.plan import Plan
from codec.models.gauss.syntax import begun, code_slice
from codec.models.gauss.tables import CONTEXTS, even
from codec.training.ship import ship

__all__ = ["export", "trained"]

ROUNDS = 4
SURE = 512  # in 2**-16, how likely the less likely bit is at least: other scenes are other
QUALITIES = (20, 50, 65, 80, 100)
FRAMES = 3

Counts = NDArray[np.float64]


def trained() -> NDArray[np.uint16]:
    """`(CONTEXTS,)` where contexts are after slices of scripted scenes, on average."""
    found = even()
    slices = [one for number in range(2 * len(QUALITIES)) for one in _slices(number)]
    for _ in range(ROUNDS):
        total, times = np.zeros(CONTEXTS), np.zeros(CONTEXTS)
        for plan, symbols, before in slices:
            contexts = begun(found)
            code_slice(BitCounter(), symbols, before, plan, contexts, detail=plan.degree > 0)
            used = (contexts != found[:, None]).any(1)
            middle = contexts[used].mean(1) / 65536
            total[used] += np.log(middle / (1 - middle))
            times[used] += 1
        seen = times > 0
        share = 1 / (1 + np.exp(-total[seen] / times[seen]))
        found[seen] = np.clip(np.rint(65536 * share), SURE, 65536 - SURE)
    return found


def _slices(number: int) -> Iterator[tuple[Plan, Symbols, SliceState | None]]:
    """What is coded of one of the scenes."""
    family = Gauss(even())
    frames = list(_frames(number))
    said = family.plan(frames, QUALITIES[number % len(QUALITIES)])
    scene = family.scene(said)
    states: list[SliceState] = []
    for frame in frames:
        slices = scene.follow(frame, states) if states else scene.key(frame)
        assert slices is not None  # so small a scene has room
        befores: list[SliceState | None] = [*states] or [None] * len(slices)
        for symbols, before in zip(slices, befores, strict=True):
            yield Plan.parse(said), symbols, before
        states = [scene.after(one, before) for one, before in zip(slices, befores, strict=True)]


def _frames(number: int) -> Iterator[Gaussians]:
    scene = scripted(
        (12000, 4000)[number % 2],
        frames=40,
        degree=(2, 0, 3, 1)[number % 4],
        moving=(0.05, 0.15)[number % 2],
        flicker=0.02,
        turnover=0.05,
        seed=1000 + number,
    )
    for frame in range(FRAMES):
        yield scene.frame(4 * number + frame)


def export(name: str, zoo: Path) -> Path:
    """Write the weights called `name` into `zoo` and list them last in its manifest.

    Args:
        name: `gauss/something`; the first in the zoo is the family's default.
        zoo: the folder.
    """
    return ship(Gauss(trained()), name, zoo, parameters=CONTEXTS, macs=0, recipe="scripted scenes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put probabilities of gauss into the zoo.")
    parser.add_argument("name", help="gauss/something")
    parser.add_argument("--zoo", type=Path, default=Path(__file__).parents[1] / "zoo")
    options = parser.parse_args()
    print(export(options.name, options.zoo))
