"""Scenes whose truth is known: clouds of Gaussians that move by a script. Knows no model, no file.

A cloud looks like a trained one: flat Gaussians on a floor, a wall, boxes and a sphere, whose size,
opacity and colour change slowly from a Gaussian to its neighbours.

>>> scene = scripted(1000, frames=3, seed=0)
>>> before, after = scene.frame(0), scene.frame(1)
>>> int((before.means != after.means).any(1).sum())
50
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.gaussians import COEFFICIENTS, FIRST_HARMONIC, Gaussians

__all__ = ["Scripted", "scripted"]

Reals: TypeAlias = NDArray[np.float64]

# Share of the Gaussians that stand still, centre and size of each thing: y is down, z forward.
FLOOR, WALL = 0.4, 0.2
BOXES = (((-1.6, 0.4, 4.2), (1.0, 1.2, 0.8)), ((1.7, 0.55, 5.0), (0.9, 0.9, 1.1)))
LAMP = ((0.3, 0.8, 3.4), (0.4, 0.4, 0.4))
PATH = (1.1, 0.25, 0.5)  # how far the sphere goes, each way
RADIUS = 0.45


@final
@dataclass(frozen=True)
class Scripted:
    """A cloud and its script; a frame is made when it is asked for.

    Attributes:
        frames: how many there are.
        start: all Gaussians that ever exist, as they are before any motion.
        moving: `(N,)` whether it belongs to the sphere, which goes to and fro and spins.
        flickers: `(N,)` whether its colour changes in time.
        born: `(N,)` the first frame that it is in.
        dies: `(N,)` the first frame after it that it is not in.
    """

    frames: int
    start: Gaussians
    moving: NDArray[np.bool_]
    flickers: NDArray[np.bool_]
    born: NDArray[np.int64]
    dies: NDArray[np.int64]

    def ids(self, number: int) -> NDArray[np.int64]:
        """`(n,)` which Gaussians of `start` a frame has, ascending: the same number, the same one.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= number < self.frames:
            raise IndexError(f"frame {number} of {self.frames}")
        return np.flatnonzero((self.born <= number) & (number < self.dies))

    def frame(self, number: int) -> Gaussians:
        """The Gaussians of a frame; what neither moves nor flickers is equal in all, bit for bit.

        Higher harmonics do not turn with the sphere: light comes from where it came.

        Raises:
            IndexError: there is no such frame.
        """
        ids = self.ids(number)
        means, quats, sh = self.start.means.copy(), self.start.quats.copy(), self.start.sh.copy()
        phase = 2 * np.pi * number / 40
        half = 0.5 * 0.08 * number  # of the turn around an axis that leans
        axis = np.array([0.36, 0.8, 0.48])
        turn = np.concatenate([[np.cos(half)], np.sin(half) * axis])
        centre = _centre(0.0)
        means[self.moving] = _turned(turn, means[self.moving] - centre) + _centre(phase)
        quats[self.moving] = _product(turn, quats[self.moving].astype(np.float64))
        light = 1 + 0.4 * np.sin(3.1 * phase)
        grey = 0.5 / FIRST_HARMONIC  # what a colour of 0 stands for
        sh[self.flickers, 0] = light * (sh[self.flickers, 0] + grey) - grey
        whole = Gaussians(means, quats, self.start.scales, self.start.opacities, sh)
        return whole.take(ids)


def scripted(
    count: int,
    *,
    frames: int,
    degree: int = 0,
    moving: float = 0.05,
    flicker: float = 0.0,
    turnover: float = 0.0,
    seed: int = 0,
) -> Scripted:
    """A scene of `count` Gaussians, the same for the same arguments.

    Args:
        count: at least 1; all of them, whenever they exist.
        frames: at least 1.
        degree: of the harmonics, 0 to 3.
        moving: share of the Gaussians that is the moving sphere.
        flicker: share that is a box whose colour alone changes.
        turnover: share that is born after the first frame or dies before the last, or both.
        seed: of all that is random.

    Raises:
        ValueError: the shares do not fit, or another argument is out of its range.
    """
    shares = (moving, flicker, turnover)
    if count < 1 or frames < 1 or not 0 <= degree < len(COEFFICIENTS):
        raise ValueError(f"want Gaussians, frames and a degree, got {count}, {frames}, {degree}")
    if min(shares) < 0 or moving + flicker > 1 or turnover > 1:
        raise ValueError(f"want shares of at most 1 in all, got {shares}")
    rng = np.random.default_rng(seed)
    counts = _counts(count, moving, flicker)
    surfaces = [
        _box((0, 1, 4), (6, 0, 6), counts[0], rng),
        _box((0, -0.5, 7), (6, 3, 0), counts[1], rng),
        *(_box(centre, size, n, rng) for (centre, size), n in zip(BOXES, counts[2:4], strict=True)),
        _box(*LAMP, counts[4], rng),
        _sphere(_centre(0.0), RADIUS, counts[5], rng),
    ]
    points = np.concatenate([points for points, _, _ in surfaces])
    normals = np.concatenate([normals for _, normals, _ in surfaces])
    spacing = np.concatenate([np.full(len(a), gap) for a, _, gap in surfaces])
    thing = np.repeat(np.arange(len(surfaces)), counts)
    order = rng.permutation(count)  # a trained cloud has no order either
    thing = thing[order]
    start = _dressed(points[order], normals[order], spacing[order], thing, degree, rng)
    born, dies = np.zeros(count, np.int64), np.full(count, frames)
    if frames > 1:
        some = rng.choice(count, round(turnover * count), replace=False)
        first, second = np.sort(rng.integers(0, frames + 1, (2, len(some))), 0)
        lasting = (first == second) | ((first == 0) & (second == frames))
        born[some], dies[some] = np.where(lasting, 1, first), np.where(lasting, frames, second)
    return Scripted(frames, start, thing == 5, thing == 4, born, dies)


def _counts(count: int, moving: float, flicker: float) -> list[int]:
    """Gaussians of floor, wall, the two boxes, lamp and sphere."""
    sphere = round(moving * count)
    lamp = min(round(flicker * count), count - sphere)
    still = count - sphere - lamp
    floor, wall = int(FLOOR * still), int(WALL * still)
    box = (still - floor - wall) // 2
    return [floor, wall, box, still - floor - wall - box, lamp, sphere]


def _centre(phase: float) -> Reals:
    """Of the sphere; the path begins at phase 0."""
    turns = np.array([np.sin(phase), np.sin(2 * phase), np.cos(phase)])
    middle: Reals = np.array([0.0, 0.2, 4.0]) + np.array(PATH) * turns
    return middle


def _box(
    centre: tuple[float, ...], size: tuple[float, ...], count: int, rng: np.random.Generator
) -> tuple[Reals, Reals, float]:
    """Points on a box's faces, outward normals, and how far neighbours are apart."""
    half = np.array(size) / 2
    faces = np.array([half[1] * half[2], half[0] * half[2], half[0] * half[1]])
    axis = rng.choice(3, count, p=faces / faces.sum())
    side = rng.choice([-1.0, 1.0], count)
    points = rng.uniform(-1, 1, (count, 3)) * half
    normals = np.zeros((count, 3))
    rows = np.arange(count)
    points[rows, axis] = side * half[axis]
    normals[rows, axis] = side
    return points + centre, normals, float(np.sqrt(8 * faces.sum() / max(1, count)))


def _sphere(
    centre: Reals, radius: float, count: int, rng: np.random.Generator
) -> tuple[Reals, Reals, float]:
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return centre + radius * normals, normals, radius * float(np.sqrt(4 * np.pi / max(1, count)))


def _dressed(
    points: Reals, normals: Reals, spacing: Reals, thing: NDArray[np.intp], degree: int,
    rng: np.random.Generator,
) -> Gaussians:  # fmt: skip
    """Sizes, rotations, opacities and colours for points on surfaces."""
    count, coefficients = len(points), COEFFICIENTS[degree]
    smooth = _fields(points + 10 * thing[:, None], 8, rng)
    noise = rng.normal(size=(count, 8))
    # Trained Gaussians are about as wide as their neighbours are far, long in one way, and thin.
    scales = np.log(spacing)[:, None] + np.array([-0.3, -0.7, -2.5])
    scales += 0.5 * smooth[:, :1] + np.array([0.4, 0.4, 0.6]) * noise[:, :3]
    opaque = 0.8 * smooth[:, 1] + 0.6 * noise[:, 3] > -0.5
    opacities = np.where(opaque, 3.0, -1.5) + 0.5 * smooth[:, 2] + 0.8 * noise[:, 4]
    sh = np.zeros((count, coefficients, 3))
    tint = rng.normal(size=(6, 3)) * 0.5
    sh[:, 0] = tint[thing] + 0.8 * smooth[:, 3:6] + 0.2 * noise[:, 5:8]
    for order in range(1, degree + 1):
        part = slice(COEFFICIENTS[order - 1], COEFFICIENTS[order])
        mixed = smooth[:, 3:6, None] * rng.normal(size=(3, 2 * order + 1))
        grain = rng.normal(size=(count, 2 * order + 1, 3))
        sh[:, part] = (0.08 * mixed.transpose(0, 2, 1) + 0.06 * grain) / order
    return Gaussians(
        means=points.astype(np.float32),
        quats=_facing(normals, rng).astype(np.float32),
        scales=scales.astype(np.float32),
        opacities=opacities.astype(np.float32),
        sh=sh.astype(np.float32),
    )


def _fields(points: Reals, count: int, rng: np.random.Generator) -> Reals:
    """`(N, count)` of mean 0 and about variance 1, smooth: sums of waves of 1 to 4 units."""
    waves = rng.normal(size=(count, 12, 3))
    waves *= (
        2 * np.pi / rng.uniform(1, 4, (count, 12, 1)) / np.linalg.norm(waves, axis=2)[..., None]
    )
    phases = rng.uniform(0, 2 * np.pi, (count, 12))
    fields = np.zeros((len(points), count))
    for wave, phase in zip(waves.transpose(1, 0, 2), phases.T, strict=True):
        fields += np.cos(points @ wave.T + phase)
    fields /= np.sqrt(6)
    return fields


def _facing(normals: Reals, rng: np.random.Generator) -> Reals:
    """`(N, 4)` rotations of the third axis to the normals, about; the first two turn anyhow."""
    # Half way between the axis and the normal; where they are opposite, any way round will do.
    z = np.array([0.0, 0.0, 1.0])
    lean = np.concatenate([1 + normals[:, 2:], np.cross(z, normals)], 1)
    lean[np.linalg.norm(lean, axis=1) < 1e-6] = [0, 1, 0, 0]
    lean /= np.linalg.norm(lean, axis=1, keepdims=True)
    twist = rng.uniform(0, np.pi, len(normals))
    zero = np.zeros_like(twist)
    turned = _product(lean.T, np.stack([np.cos(twist), zero, zero, np.sin(twist)], 1))
    wobble: Reals = turned + 0.05 * rng.normal(size=turned.shape)
    return wobble


def _product(a: Reals, b: Reals) -> Reals:
    """`(N, 4)` quaternions a b; a is `(4,)` or `(4, N)`, b is `(N, 4)`."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b.T
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        1,
    )


def _turned(quat: Reals, vectors: Reals) -> Reals:
    """`(N, 3)` vectors, rotated by a unit quaternion."""
    across = 2 * np.cross(quat[1:], vectors)
    rotated: Reals = vectors + quat[0] * across + np.cross(quat[1:], across)
    return rotated
