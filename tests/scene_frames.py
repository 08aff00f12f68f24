"""What tests of scenes share: scenes to code, and whether two moments are one."""

from dataclasses import fields

import numpy as np

from codec.datasets.scenes import scripted
from codec.gaussians import Gaussians


def moving(count: int, frames: int, degree: int = 0, turnover: float = 0.0) -> list[Gaussians]:
    """A scene of which a third moves."""
    scene = scripted(count, frames=frames, degree=degree, moving=0.3, turnover=turnover)
    return [scene.frame(number) for number in range(frames)]


def nothing(degree: int) -> Gaussians:
    """A moment with no Gaussians."""
    return moving(2, 1, degree)[0].take(slice(0, 0))


def assert_same(found: Gaussians, expected: Gaussians) -> None:
    """Bit for bit."""
    for field in fields(Gaussians):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))


def error(a: Gaussians, b: Gaussians) -> float:
    """Mean distance of centres of moments with as many Gaussians, however they are ordered."""
    from scipy.spatial import cKDTree

    return float(cKDTree(b.means).query(a.means)[0].mean())
