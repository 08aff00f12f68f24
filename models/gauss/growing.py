"""The first moment of a scene from pictures: Gaussians that are found, moved, split and dropped.

3D Gaussian splatting (Kerbl et al. 2023), shortened to a few hundred steps: Gaussians begin where
cameras agree on a colour, and those that move most on screen are doubled until there are enough.
Encoder only. Knows no lattice and no stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from threading import Event
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.cameras import Camera
from codec.errors import UsageError
from codec.gaussians import COEFFICIENTS, FIRST_HARMONIC, Gaussians
from codec.models.base import ended_by
from codec.models.gauss.descent import Adam, apart
from codec.models.gauss.projection import rotations
from codec.models.gauss.render import NEAR, Cloud, cloud_of, draw

__all__ = ["FIRST_SHARE", "detail", "first_guess", "grown", "turns"]

Reals: TypeAlias = NDArray[np.float64]
Picture: TypeAlias = NDArray[np.uint8]

PLAIN = 0.5  # of the mean change of a picture: how likely a place is where nothing changes
DEPTHS = 48  # that are tried along a ray
WIDEST = 8  # pixels, of a Gaussian to begin with
REACH = (0.25, 4.0)  # of the depth at which cameras look, where Gaussians may be
OPACITY = -1.5  # logit to begin with
FIRST_SHARE = 0.5  # of the Gaussians there may be, to begin with
# Per step: centres in depths of the scene, then as attributes are stored.
RATES = {"means": 7e-3, "quats": 3e-2, "scales": 5e-2, "opacities": 0.1, "sh": 5e-2}
REST_SHARE = 0.1  # of the rate of harmonics, of those after the first
RATE_END = 0.05
GROW_EVERY, GROW_UNTIL = 40, 0.6  # steps, and a share of all of them
GROW_SHARE = 0.35  # of the Gaussians that are doubled at once
FAINT = -4.6  # logit of an opacity of 0.01
SPLIT = 1.6  # what a half is narrower


def turns(cameras: int, generator: np.random.Generator) -> list[int]:
    """Each camera once, in an order of chance."""
    return list(generator.permutation(cameras))


def first_guess(
    cameras: Sequence[Camera],
    pictures: NDArray[np.uint8],
    weights: Reals,
    count: int,
    degree: int,
    generator: np.random.Generator,
) -> Gaussians:
    """Gaussians on rays of pixels, each at the depth at which the cameras agree best.

    Args:
        cameras: V of one size.
        pictures: `(V, H, W, 3)`.
        weights: `(V, H, W)` how likely a pixel is chosen; none below 0, and some above it.
        count: how many at most: those that no depth brings into other views are left out.
        degree: of the harmonics.
        generator: of chance.

    Raises:
        UsageError: the cameras have no view in common.
    """
    smooth = _smooth(pictures)
    depth = _depth(cameras)
    near, far = (max(NEAR, depth * side) for side in REACH)
    steps = 1 / np.linspace(1 / near, 1 / far, DEPTHS)
    chosen = generator.choice(weights.size, count, p=(weights / weights.sum()).reshape(-1))
    owners, y, x = np.unravel_index(chosen, weights.shape)
    places = np.stack([x, y], 1) + generator.uniform(0, 1, (count, 2))
    points, tints = np.full((count, 3), np.nan), np.zeros((count, 3))
    widths = np.zeros(count)
    for number, camera in enumerate(cameras):
        mine = np.flatnonzero(owners == number)
        fx, fy, cx, cy = camera.intrinsics
        pixels = places[mine]
        rays = np.stack([(pixels[:, 0] - cx) / fx, (pixels[:, 1] - cy) / fy, np.ones(len(mine))], 1)
        rays = rays @ camera.world_to_camera[:3, :3]
        found = camera.eye + rays[:, None] * steps[:, None]  # (n, DEPTHS, 3)
        tints[mine] = _at(smooth[number], pixels)
        cost = _disagreement(cameras, smooth, found, tints[mine])
        best = cost.argmin(1)
        agreed = np.isfinite(cost.min(1))
        points[mine[agreed]] = found[agreed, best[agreed]]
        widths[mine] = WIDEST * steps[best] / fx
    known = np.isfinite(points[:, 0])
    if not known.any():
        raise UsageError("cameras: want views that overlap")
    points, tints, widths = points[known], tints[known], widths[known]
    count = len(points)
    from scipy.spatial import cKDTree  # no decoder needs it

    near_ones = cKDTree(points).query(points, k=min(4, count))[0].reshape(count, -1)
    gaps = np.sqrt(np.mean(np.square(near_ones[:, 1:]), 1)) if count > 1 else np.full(1, depth / 10)
    sh = np.zeros((count, COEFFICIENTS[degree], 3), np.float32)
    sh[:, 0] = (tints - 0.5) / FIRST_HARMONIC
    return Gaussians(
        means=points.astype(np.float32),
        quats=np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        scales=np.tile(np.log(np.clip(gaps, 1e-4 * depth, widths))[:, None], 3).astype(np.float32),
        opacities=np.full(count, OPACITY, np.float32),
        sh=sh,
    )


def detail(pictures: NDArray[np.uint8]) -> Reals:
    """`(V, H, W)` by how much pictures change from pixel to pixel, and a little everywhere."""
    smooth = _smooth(pictures)
    weights = np.zeros(smooth.shape[:3])
    for axis in (1, 2):
        if smooth.shape[axis] > 1:
            weights += np.abs(np.gradient(smooth, axis=axis)).sum(3)
    found: Reals = weights + PLAIN * weights.mean() + 1e-9
    return found


def _depth(cameras: Sequence[Camera]) -> float:
    """How far from the cameras the point is that is nearest to the axes of all of them."""
    left, right = 1e-3 * np.eye(3), np.zeros(3)
    for camera in cameras:
        axis = camera.world_to_camera[2, :3]
        across = np.eye(3) - np.outer(axis, axis)
        left += across
        right += across @ camera.eye
    point = np.linalg.solve(left, right)
    depths = [float(c.world_to_camera[2] @ [*point, 1]) for c in cameras]
    return max(float(np.median(depths)), 2 * NEAR)


def _smooth(pictures: NDArray[np.uint8]) -> Reals:
    """Pictures in [0, 1], each pixel the mean of the 3x3 around it."""
    padded = np.pad(pictures / 255.0, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:, 2:] + padded[:, 1:-1] + padded[:, :-2]
    found: Reals = (rows[:, :, 2:] + rows[:, :, 1:-1] + rows[:, :, :-2]) / 9
    return found


def _at(picture: Reals, pixels: Reals) -> Reals:
    """Colours of the pixels that places lie in, `(..., 3)`; places are inside."""
    x, y = np.floor(pixels).astype(np.int64).reshape(-1, 2).T
    found: Reals = picture[y, x].reshape(*pixels.shape[:-1], 3)
    return found


def _disagreement(cameras: Sequence[Camera], pictures: Reals, points: Reals, tints: Reals) -> Reals:
    """`(n, DEPTHS)` how far colours of cameras that see a point are from the ray's own, the mean.

    Points that only one other camera sees, or none, have inf.
    """
    shape = points.shape[:2]
    total, seen = np.zeros(shape), np.zeros(shape)
    for camera, picture in zip(cameras, pictures, strict=True):
        pose = camera.world_to_camera
        local = points.reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]
        fx, fy, cx, cy = camera.intrinsics
        z = np.maximum(local[:, 2], 1e-9)
        pixels = np.stack([fx * local[:, 0] / z + cx, fy * local[:, 1] / z + cy], 1)
        inside = (local[:, 2] > NEAR) & (pixels >= 0).all(1)
        inside &= (pixels[:, 0] < camera.width) & (pixels[:, 1] < camera.height)
        colours = _at(picture, np.where(inside[:, None], pixels, 0)).reshape(*shape, 3)
        inside = inside.reshape(shape)
        total += np.where(inside, np.abs(colours - tints[:, None]).sum(2), 0)
        seen += inside
    enough = seen >= min(3, len(cameras))
    return np.where(enough, total / np.maximum(seen, 1), np.inf)


def grown(
    start: Gaussians,
    cameras: Sequence[Camera],
    pictures: NDArray[np.uint8],
    *,
    steps: int,
    most: int,
    generator: np.random.Generator,
    due: Callable[[float], float],
    interrupted: Event | None = None,
) -> Gaussians:
    """Gaussians fitted to pictures of one moment.

    Args:
        start: where they begin.
        cameras: V of them.
        pictures: `(V, H, W, 3)`.
        steps: of one picture each.
        most: Gaussians there may be.
        generator: of chance.
        due: is told the share of the steps that is done, and tells that of the time that is gone;
            from 1 on there are no more steps.
        interrupted: see `Search`.
    """
    depth = _depth(cameras)
    adam = Adam(cloud_of(start, torch.float32))
    moved, grow_at, order = _Motion(len(start)), GROW_EVERY, list[int]()
    with ended_by(interrupted):
        for number in range(steps):
            share = due(number / steps)
            if share >= 1:
                break
            order = order or turns(len(cameras), generator)
            view = order.pop()
            rgb, means2d, seen = draw(Cloud(*adam.leaves), cameras[view])
            means2d.retain_grad()
            torch.autograd.backward(apart(rgb, torch.from_numpy(pictures[view]).float() / 255))
            moved.add(means2d, seen)
            decay = RATE_END**share
            rest = torch.full((start.sh.shape[1], 1), RATES["sh"] * REST_SHARE * decay)
            rest[0] /= REST_SHARE
            rates = [rate * decay for rate in RATES.values()]
            adam.step([rates[0] * depth, *rates[1:4], rest])
            if number + 1 == grow_at and share < GROW_UNTIL:
                _change(adam, moved.mean(), most, generator)
                moved, grow_at = _Motion(len(adam.leaves[0])), grow_at + GROW_EVERY
    kept = adam.leaves[3].detach() > FAINT
    return _gaussians(Cloud(*(leaf.detach()[kept] for leaf in adam.leaves)))


def _gaussians(cloud: Cloud) -> Gaussians:
    """The inverse of `cloud_of`."""
    return Gaussians(*(part.detach().float().numpy() for part in cloud))


class _Motion:
    """How hard each Gaussian is pulled across the screen."""

    def __init__(self, count: int) -> None:
        self._pull, self._seen = torch.zeros(count), torch.zeros(count)

    def add(self, means2d: Tensor, seen: Tensor) -> None:
        assert means2d.grad is not None
        pull = means2d.grad.norm(dim=1)
        self._pull[seen] += pull
        self._seen[seen] += (pull > 0).float()

    def mean(self) -> Tensor:
        return self._pull / self._seen.clamp(min=1)


@torch.no_grad()
def _change(adam: Adam, pull: Tensor, most: int, generator: np.random.Generator) -> None:
    """Drop what is faint; split what is pulled most into two halves that lie within it."""
    means, quats, scales, opacities, sh = (leaf.detach() for leaf in adam.leaves)
    lives = opacities > FAINT
    room = most - int(lives.sum())
    count = min(room, math.ceil(GROW_SHARE * int(lives.sum())))
    if count <= 0:
        adam.change(lives, [leaf[:0] for leaf in (means, quats, scales, opacities, sh)])
        return
    chosen = torch.topk(torch.where(lives, pull, -1.0), count).indices
    noise = torch.from_numpy(generator.normal(size=(count, 3)).astype(np.float32))
    offset = (rotations(quats[chosen]) @ (noise * scales[chosen].exp())[:, :, None])[:, :, 0]
    narrower = scales[chosen] - math.log(SPLIT)
    halves = [
        torch.cat([means[chosen] + offset, means[chosen] - offset]),
        *(
            torch.cat([part, part])
            for part in (quats[chosen], narrower, opacities[chosen], sh[chosen])
        ),
    ]
    lives[chosen] = False
    adam.change(lives, halves)
