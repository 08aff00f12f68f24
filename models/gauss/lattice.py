"""Gaussians to integers and back, and their order. Knows no table and no stream.

A row has `WIDTH` integers: a centre, the logarithms of the scales from the largest to the smallest,
the axis of the smallest scale as a point of an octahedron, the turn of the largest around it, the
opacity, red, green and blue. So a Gaussian has few rows that mean the same, and neighbours on
a surface have similar ones.
"""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.entropy import IntArray
from codec.errors import UsageError
from codec.gaussians import COEFFICIENTS, Gaussians
from codec.models.gauss.plan import BIN_MAX, LOG_MAX, UNIT, Plan

__all__ = [
    "ALPHA",
    "CENTRE",
    "COLOUR",
    "NORMAL",
    "SCALES",
    "STAY",
    "TWIST",
    "WIDTH",
    "Rows",
    "followed",
    "gaussians_of",
    "key_rows",
    "morton",
    "shifts",
]

Reals: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[np.int64]

WIDTH = 13
CENTRE, SCALES, NORMAL = slice(0, 3), slice(3, 6), slice(6, 8)
TWIST, ALPHA = 8, 9
COLOUR = slice(10, 13)
STAY = 0.7
"""Steps that a number of a later frame may be wrong if it costs less; half a step is the least."""


@final
class Rows(NamedTuple):
    """Integers of Gaussians: `(N, WIDTH)` and, of the harmonics after the first, `(N, R)`."""

    base: IntArray
    rest: IntArray


# ---- what integers say of steps


def shifts(base: IntArray | Numbers, plan: Plan) -> NDArray[np.int64]:
    """`(N, WIDTH)` octaves that each step is coarser than the plan's; from scales alone."""
    big, middle, small = base[:, SCALES].astype(np.int64).T
    found = np.zeros((len(base), WIDTH), np.int64)
    found[:, NORMAL] = _rounder((big + middle >> 1) - small, plan)[:, None]
    found[:, TWIST] = _rounder(big - middle, plan)
    return found


def _rounder(difference: Numbers, plan: Plan) -> Numbers:
    found: Numbers = (np.abs(difference)[:, None] < np.array(plan.slims)).sum(1)
    return found


# ---- to integers


def key_rows(gaussians: Gaussians, plan: Plan) -> tuple[Rows, NDArray[np.intp]]:
    """Rows in Morton order, and which Gaussian each is of."""
    centres = np.rint(_spread(gaussians.means, plan)).astype(np.int64)
    order = np.argsort(morton(centres), kind="stable")
    gaussians = gaussians.take(order)
    scales, axes = _sorted_axes(gaussians)
    # An axis and its opposite are one; it looks to the side that its neighbour's looks to.
    normals = axes[:, :, 2]
    along = np.sign((normals[1:] * normals[:-1]).sum(1))
    signs = np.concatenate([np.ones(min(1, len(along) + 1)), np.where(along == 0, 1, along)])
    rows, _ = _rows(gaussians, scales, axes, np.cumprod(signs)[: len(normals)], plan, None)
    return rows, order


def followed(gaussians: Gaussians, before: Rows, plan: Plan) -> tuple[Rows, Reals]:
    """Rows of Gaussians that were `before`; what has hardly changed is as it was.

    And what `base` of those rows would be if its numbers had not to be whole, `(N, WIDTH)`.
    """
    scales, axes = _sorted_axes(gaussians)
    old_scales = before.base[:, SCALES] * (plan.scale / UNIT)
    old_axes = _axes(before.base, plan)
    # Scales that are about the same may have changed places: of all orders take the nearest.
    costs = []
    for order in permutations(range(3)):
        turn = 1 - np.abs((old_axes * axes[:, :, order]).sum(1))
        costs.append(np.abs(scales[:, order] - old_scales).sum(1) + turn.sum(1))
    nearest = np.array(list(permutations(range(3))))[np.argmin(costs, 0)]
    scales = np.take_along_axis(scales, nearest, 1)
    axes = np.take_along_axis(axes, nearest[:, None], 2)
    signs = np.where((old_axes[:, :, 2] * axes[:, :, 2]).sum(1) < 0, -1.0, 1.0)
    return _rows(gaussians, scales, axes, signs, plan, before)


def morton(centres: IntArray | Numbers) -> Numbers:
    """Numbers whose bits are those of x, y and z in turn, `(N,)`."""
    found = np.zeros(len(centres), np.int64)
    for axis in range(3):
        x = centres[:, axis].astype(np.int64) + BIN_MAX
        for spread, mask in (
            (32, 0x1F00000000FFFF),
            (16, 0x1F0000FF0000FF),
            (8, 0x100F00F00F00F00F),
            (4, 0x10C30C30C30C30C3),
            (2, 0x1249249249249249),
        ):
            x = (x | (x << spread)) & mask
        found |= x << (2 - axis)
    return found


def _rows(
    gaussians: Gaussians,
    scales: Reals,
    axes: Reals,
    signs: Reals,
    plan: Plan,
    before: Rows | None,
) -> tuple[Rows, Reals]:
    old = None if before is None else before.base.astype(np.int64)
    base = np.zeros((len(gaussians), WIDTH), np.int64)
    real = np.zeros((len(gaussians), WIDTH))
    real[:, CENTRE] = _spread(gaussians.means, plan)
    real[:, SCALES] = scales * (UNIT / plan.scale)
    opacities = np.clip(gaussians.opacities.astype(np.float64), -50, 50)
    real[:, ALPHA] = plan.opacity / (1 + np.exp(-opacities))
    sh = gaussians.sh.astype(np.float64)
    real[:, COLOUR] = sh[:, 0] * (UNIT / plan.colour)
    for part in (CENTRE, SCALES, ALPHA, COLOUR):
        base[:, part] = _nearest(real[:, part], None, old, part)
    octaves = shifts(base, plan)
    real[:, NORMAL] = _octahedron(axes[:, :, 2] * signs[:, None]) * plan.normal
    base[:, NORMAL] = _nearest(real[:, NORMAL], octaves, old, NORMAL)
    real[:, TWIST] = _turns(base, axes[:, :, 0], plan)
    if old is None:
        base[:, TWIST] = _nearest(real[:, TWIST], octaves, None, TWIST) % plan.twist
    else:
        real[:, TWIST] += plan.twist * np.rint((old[:, TWIST] - real[:, TWIST]) / plan.twist)
        base[:, TWIST] = _nearest(real[:, TWIST], octaves, old, TWIST)
    rest = sh[:, 1:].reshape(len(sh), plan.rest_width) * (UNIT / plan.rest)
    harmonics = _nearest(rest, None, None if before is None else before.rest, slice(None))
    for numbers in (base, harmonics):
        if np.abs(numbers).max(initial=0) >= BIN_MAX:
            raise UsageError("scene: Gaussians do not fit the steps that were planned for others")
    return Rows(base.astype(np.int32), harmonics.astype(np.int32)), real


def _nearest(
    values: Reals, octaves: Numbers | None, old: Numbers | IntArray | None, part: slice | int
) -> Numbers:
    """Values in whole steps of so many octaves, or those of before if these are near enough."""
    step = np.exp2(octaves[:, part]) if octaves is not None else np.float64(1)
    if old is None:
        whole: Numbers = (np.rint(values / step) * step).astype(np.int64)
        return whole
    change = (values - old[:, part]) / step
    change = np.where(np.abs(change) <= STAY, 0, np.rint(change))
    found: Numbers = old[:, part].astype(np.int64) + (change * step).astype(np.int64)
    return found


def _spread(means: NDArray[np.float32], plan: Plan) -> Reals:
    """Centres in cells: even within the radius, logarithmic beyond."""
    away = (means.astype(np.float64) - np.array(plan.centre)) / plan.radius
    size = np.abs(away)
    even = np.where(size <= 1, size, 1 + np.log(np.maximum(size, 1)))
    limit = BIN_MAX - 1
    cells: Reals = np.clip(np.sign(away) * even * plan.cells, -limit, limit)
    return cells


def _sorted_axes(gaussians: Gaussians) -> tuple[Reals, Reals]:
    """Scales from the largest to the smallest, `(N, 3)`, and their axes, columns of `(N, 3, 3)`.

    These are of length 1; whether they are a rotation or its mirror image makes no Gaussian other.
    """
    quats = gaussians.quats.astype(np.float64)
    quats /= np.abs(quats).max(1, initial=1e-300, keepdims=True)
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    axes = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    scales = np.clip(gaussians.scales.astype(np.float64), -LOG_MAX, LOG_MAX)
    order = np.argsort(-scales, axis=1, kind="stable")
    return np.take_along_axis(scales, order, 1), np.take_along_axis(axes, order[:, None], 2)


def _octahedron(normals: Reals) -> Reals:
    """Unit vectors as points of the square within +-1, `(N, 2)`."""
    points = normals / np.abs(normals).sum(1, keepdims=True)
    x, y, below = points[:, 0], points[:, 1], points[:, 2] < 0
    folded = np.stack([(1 - np.abs(y)) * _sign(x), (1 - np.abs(x)) * _sign(y)], 1)
    return np.where(below[:, None], folded, points[:, :2])


def _turns(base: Numbers, axes: Reals, plan: Plan) -> Reals:
    """How far the largest axis is turned around the quantised normal, in steps."""
    w, x, y = _leans(base, plan)
    # The first two columns of the rotation that leans z to the normal the shortest way.
    first = np.stack([w * w + x * x - y * y, 2 * x * y, -2 * w * y], 1)
    second = np.stack([2 * x * y, w * w - x * x + y * y, 2 * w * x], 1)
    angle = np.arctan2((axes * second).sum(1), (axes * first).sum(1))
    turns: Reals = angle * (plan.twist / np.pi)
    return turns


# ---- and back


def gaussians_of(rows: Rows, plan: Plan) -> Gaussians:
    """Those that rows stand for."""
    from codec.models.gauss.reals import fill  # numba takes half a second to import

    steps = (plan.radius, 1 / plan.cells, plan.scale / UNIT, plan.normal)
    sizes = np.array([*plan.centre, *steps, plan.colour / UNIT, plan.rest / UNIT], np.float64)
    half = np.arange(plan.twist) * (np.pi / 2 / plan.twist)
    turns = np.stack([np.cos(half), np.sin(half)], 1)
    edge = 0.25 / plan.opacity
    alphas = np.clip(np.arange(plan.opacity + 1) / plan.opacity, edge, 1 - edge)
    count = len(rows.base)
    shapes = ((3,), (4,), (3,), (), (3 + plan.rest_width,))
    arrays = [np.empty((count, *shape), np.float32) for shape in shapes]
    fill(rows.base, rows.rest, sizes, turns, np.log(alphas / (1 - alphas)), *arrays)
    means, quats, scales, opacities, sh = arrays
    harmonics = sh.reshape(count, COEFFICIENTS[plan.degree], 3)
    return Gaussians(means, quats, scales, opacities, harmonics)


def _leans(base: IntArray | Numbers, plan: Plan) -> tuple[Reals, Reals, Reals]:
    """w, x and y of the unit quaternion that leans the z axis to a row's normal; its z is 0."""
    u, v = np.clip(base[:, NORMAL].T / plan.normal, -1.0, 1.0)
    z = 1 - np.abs(u) - np.abs(v)
    fold = np.minimum(z, 0)
    x, y = u + fold * _sign(u), v + fold * _sign(v)
    length = np.sqrt(x * x + y * y + z * z)
    w = length + z
    opposite = w < 1e-6 * length
    a, b = np.where(opposite, 1, -y), np.where(opposite, 0, x)
    w = np.where(opposite, 0, w)
    norm = np.sqrt(w * w + a * a + b * b)
    return w / norm, a / norm, b / norm


def _axes(base: IntArray, plan: Plan) -> Reals:
    """The axes of rows, `(N, 3, 3)`, in columns from the largest to the smallest scale."""
    w, x, y = _leans(base, plan)
    angle = base[:, TWIST] % plan.twist * (np.pi / plan.twist)
    first = np.stack([w * w + x * x - y * y, 2 * x * y, -2 * w * y], 1)
    second = np.stack([2 * x * y, w * w - x * x + y * y, 2 * w * x], 1)
    normal = np.stack([2 * w * y, -2 * w * x, w * w - x * x - y * y], 1)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([c * first + s * second, c * second - s * first, normal], 2)


def _sign(values: Reals) -> Reals:
    return np.where(values < 0, -1.0, 1.0)
