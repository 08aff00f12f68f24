"""A video's frames as groups of pictures: cut where the scene changes, and bounded. Knows no codec.

No more than two groups' frames are held, however long the video is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["groups_of"]

CUT_LEVELS = 10.0  # of 255: less than that between two frames is no cut
CUT_FACTOR = 4.0  # nor is what is no more than so many times the usual
SIDE = 16  # of the picture that is compared, in blocks each way


def groups_of(frames: Iterable[NDArray[np.uint8]], longest: int) -> Iterator[list[NDArray[Any]]]:
    """Groups of 1 to `longest` frames; those of a scene are of about the same length.

    Args:
        frames: `(H, W, 3)` each.
        longest: at least 1.
    """
    for scene in _pieces(frames, longest):
        count = -(-len(scene) // longest)
        ends = [len(scene) * part // count for part in range(count + 1)]
        for begin, end in pairwise(ends):
            yield scene[begin:end]


def _pieces(frames: Iterable[NDArray[np.uint8]], longest: int) -> Iterator[list[NDArray[Any]]]:
    """Scenes; of one that goes on, `longest` frames as soon as there are twice as many."""
    scene: list[NDArray[Any]] = []
    before: NDArray[np.float64] | None = None
    usual: float | None = None  # until a scene has two frames
    for frame in frames:
        small = _small(frame)
        change = 0.0 if before is None else float(np.abs(small - before).mean())
        if usual is not None and change > max(CUT_LEVELS, CUT_FACTOR * usual):
            yield scene
            scene, usual = [], None
        elif scene:
            usual = change if usual is None else max(change, 0.8 * usual + 0.2 * change)
        if len(scene) == 2 * longest:
            yield scene[:longest]
            scene = scene[longest:]
        before = small
        scene.append(frame)
    if scene:
        yield scene


def _small(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Means of blocks, `(up to 16, up to 16)`."""
    grey: NDArray[np.float64] = frame.mean(axis=2)
    for axis in (0, 1):
        count = min(SIDE, grey.shape[axis])
        begins = np.arange(count) * grey.shape[axis] // count
        sizes = np.diff([*begins, grey.shape[axis]])
        grey = np.add.reduceat(grey, begins, axis) / np.expand_dims(sizes, 1 - axis)
    return grey
