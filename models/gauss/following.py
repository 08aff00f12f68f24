"""Later moments of a scene from pictures: by how many steps of the lattice which Gaussian changes.

Gates of regions and of Gaussians, learned with what they let through, keep most as it was to the
bit; what passes is whole steps. Sources: QUEEN (Girish et al. 2024, equations 4 and 9, appendix),
hard concrete gates (Louizos et al. 2018). Encoder only. Knows no stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.cameras import Camera
from codec.gaussians import COEFFICIENTS
from codec.models.gauss.descent import Adam, apart
from codec.models.gauss.growing import first_guess, turns
from codec.models.gauss.lattice import (
    ALPHA,
    CENTRE,
    COLOUR,
    NORMAL,
    SCALES,
    TWIST,
    WIDTH,
    Rows,
    key_rows,
    morton,
    shifts,
)
from codec.models.gauss.plan import UNIT, Plan
from codec.models.gauss.render import Cloud, draw
from codec.models.quantize import round_ste

__all__ = ["Gating", "followed_by", "realised", "visible"]

REGION = 64  # Gaussians, neighbours in Morton order
HEAT, LOW, HIGH = 0.3, -0.5, 1.01  # tau, gamma 0 and gamma 1
SHUT = HEAT * math.log(-LOW / HIGH)
GATE_RATE = 0.1
# Steps of the lattice for each step of the descent: of the columns of a row, then of harmonics.
RATES = (2.0, 2.0, 2.0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 1.0, 1.0, 1.0, 1.0)
REST_RATE = 0.3
RATE_END = 0.1
TINY = 1e-12
SLIGHT = 0.1  # of the pull that the fit before has left: less is no change
FAINT = 0.01  # of an opacity
WRONG = 0.1  # of light, by which a pixel is worse than before where something is new
PIXELS = 6  # of a picture, for each Gaussian


@final
@dataclass(frozen=True)
class Gating:
    """What decides that a Gaussian changes.

    Attributes:
        regions: whether there are gates of regions.
        own: whether there are gates of single Gaussians.
        sparsity: weight of the share of gates that are open.
        rate: weight of the bits that a Gaussian costs, on average; at quality 60.
    """

    regions: bool = True
    own: bool = True
    sparsity: float = 0.01
    rate: float = 1e-3


def followed_by(
    rows: Rows,
    motion: NDArray[np.int32],
    plan: Plan,
    cameras: Sequence[Camera],
    before: NDArray[np.uint8],
    now: NDArray[np.uint8],
    *,
    most: int,
    epochs: int,
    gating: Gating,
    pace: float,
    generator: np.random.Generator,
    due: Callable[[float], float],
) -> tuple[Rows, NDArray[np.int32]]:
    """Rows of the next moment, and by how much they have moved; those behind shut gates stay.

    What is no longer visible is dropped. Where pictures are much worse half way than those before
    were in the end, something is new, and new Gaussians come to the end of the rows.

    Args:
        rows: of the moment before.
        motion: `(N, WIDTH)` by how much they changed to get there.
        plan: of the lattice.
        cameras: V of them.
        before: `(V, H, W, 3)` pictures of the moment before.
        now: of this one.
        most: Gaussians there may be.
        epochs: how often each picture is looked at.
        gating: what decides.
        pace: how many times the usual number of steps of the lattice a step of the descent has.
        generator: of chance.
        due: as for `grown`.
    """
    if not len(rows.base) or (before == now).all() or due(0.0) >= 1:
        return rows, np.zeros_like(rows.base)
    old = torch.from_numpy(np.concatenate([rows.base, rows.rest], 1)).float()
    score, noise, usual = _scores(realised(old, plan), cameras, before, now)
    fit = _Fit(old, plan, score, noise, gating, pace)
    fit.start(torch.from_numpy(motion[:, CENTRE]).float())
    total, order = epochs * len(cameras), list[int]()
    for number in range(total):
        share = due(number / total)
        if share >= 1 or (number > total // 2 and not fit.is_open):
            break
        if number == total // 2:
            fit.add(_births(fit, plan, cameras, now, usual, most - len(old), generator))
        order = order or turns(len(cameras), generator)
        view = order.pop()
        numbers, cost = fit.state()
        rgb, _, _ = draw(realised(numbers, plan), cameras[view])
        torch.autograd.backward(apart(rgb, torch.from_numpy(now[view]).float() / 255) + cost)
        fit.step(RATE_END**share)
    return _settled(rows, fit.numbers(), plan)


def visible(rows: Rows, plan: Plan) -> NDArray[np.bool_]:
    """Which are not so faint that nobody sees them."""
    found: NDArray[np.bool_] = rows.base[:, ALPHA] > FAINT * plan.opacity
    return found


def _settled(old: Rows, numbers: NDArray[np.int32], plan: Plan) -> tuple[Rows, NDArray[np.int32]]:
    """Rows of these numbers and their motion, without those that nobody sees."""
    motion = np.zeros_like(numbers[:, :WIDTH])
    motion[: len(old.base)] = numbers[: len(old.base), :WIDTH] - old.base
    rows = Rows(numbers[:, :WIDTH], numbers[:, WIDTH:])
    lives = visible(rows, plan)
    return Rows(rows.base[lives], rows.rest[lives]), motion[lives]


@torch.no_grad()
def _births(
    fit: _Fit,
    plan: Plan,
    cameras: Sequence[Camera],
    now: NDArray[np.uint8],
    usual: NDArray[np.float64],
    room: int,
    generator: np.random.Generator,
) -> NDArray[np.int32]:
    """Numbers of new Gaussians, `(n, 13 + R)`, where errors are far above those before."""
    cloud = realised(fit.state()[0], plan)
    errors = np.stack(
        [
            np.abs(draw(cloud, camera)[0].numpy() - picture / 255).mean(2)
            for camera, picture in zip(cameras, now, strict=True)
        ]
    )
    excess = np.where(errors - usual > WRONG, errors - usual, 0)
    count = min(room, int((excess > 0).sum() / len(cameras) / PIXELS))
    if count <= 0:
        return np.zeros((0, fit.width), np.int32)
    guess = first_guess(cameras, now, excess, count, plan.degree, generator)
    return np.concatenate(key_rows(guess, plan)[0], 1)


def _scores(
    cloud: Cloud, cameras: Sequence[Camera], before: NDArray[np.uint8], now: NDArray[np.uint8]
) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
    """By how much pictures pull each Gaussian across the screens more than those before, `(N,)`.

    And by how much those before still did, and how far each of their pixels was off, `(V, H, W)`.
    """
    off = []
    cloud = Cloud(*(part.detach().requires_grad_() for part in cloud))
    score, noise = torch.zeros(len(cloud.means)), torch.zeros(len(cloud.means))
    for camera, x0, x1 in zip(cameras, before, now, strict=True):
        rgb, means2d, seen = draw(cloud, camera)
        off.append(np.abs(rgb.detach().numpy() - x0 / 255).mean(2))
        pulls = []
        for x in (x0, x1):
            loss = (rgb - torch.from_numpy(x).float() / 255).square().mean()
            (pull,) = torch.autograd.grad(loss, means2d, retain_graph=x is x0)
            pulls.append(pull)
        score[seen] += (pulls[1] - pulls[0]).norm(dim=1)
        noise[seen] += pulls[0].norm(dim=1)
    return score, noise, np.stack(off)


@final
class _Fit:
    """Residuals in steps of the lattice, and what lets them through."""

    def __init__(
        self, old: Tensor, plan: Plan, score: Tensor, noise: Tensor, gating: Gating, pace: float
    ) -> None:
        self._old, self._plan, self._gating = old, plan, gating
        self._region = torch.empty(len(old), dtype=torch.long)
        order = np.argsort(morton(old[:, CENTRE].numpy().astype(np.int64)), kind="stable")
        self._region[torch.from_numpy(order)] = torch.arange(len(old)) // REGION
        self._born = old[:0]
        self._born_adam = Adam([self._born])
        # Where little moves the median is what noise does to those that stay; where all does or
        # none, it is bounded by what the fit before has left.
        left = noise.median()
        usual = score.median().clamp(SLIGHT * left, left) + TINY
        highest = torch.zeros(-(-len(old) // REGION))
        highest = highest.scatter_reduce(0, self._region, score, "amax")
        gates = [torch.log(part / usual + TINY) + SHUT for part in (score, highest)]
        self._adam = Adam([torch.zeros_like(old), *gates])
        rest = [REST_RATE] * (old.shape[1] - WIDTH)
        self._rates = pace * torch.tensor([*RATES, *rest])

    def start(self, motion: Tensor) -> None:
        """Begin where Gaussians would be if they went on as they did."""
        self._adam.leaves[0].data[:, CENTRE] = motion

    @property
    def is_open(self) -> bool:
        """Whether any Gaussian can still change."""
        return len(self._born) > 0 or bool((self._gate() > 0).any())

    def add(self, born: NDArray[np.int32]) -> None:
        """Let there be other Gaussians, behind no gate."""
        self._born = torch.from_numpy(born).float()
        self._born_adam = Adam([torch.zeros_like(self._born)])

    @property
    def width(self) -> int:
        """13 + R."""
        return self._old.shape[1]

    def _gate(self) -> Tensor:
        _, own, regions = self._adam.leaves
        gate = torch.ones(len(own))
        if self._gating.own:
            gate = gate * _hard(own)
        if self._gating.regions:
            gate = gate * _hard(regions)[self._region]
        return gate

    def state(self) -> tuple[Tensor, Tensor]:
        """Numbers as they are now, `(N + births, 13 + R)`, and what they cost in the loss."""
        steps, whole = self._steps_of(self._adam.leaves[0] * self._gate()[:, None], self._old)
        new_steps, new_whole = self._steps_of(self._born_adam.leaves[0], self._born)
        low, high = _limits(self._plan, self.width)
        numbers = torch.cat(
            [self._old + round_ste(steps) * whole, self._born + round_ste(new_steps) * new_whole]
        ).clamp(low, high)
        _, own, regions = self._adam.leaves
        cost = self._gating.rate * _bits(steps) / len(own)
        for gates, used in ((own, self._gating.own), (regions, self._gating.regions)):
            if used:
                cost = cost + self._gating.sparsity * torch.sigmoid(gates - SHUT).mean()
        return numbers, cost

    def _steps_of(self, passed: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to numbers, in steps, and how large a step is; both `(N, 13 + R)`."""
        whole = torch.ones_like(passed)
        with torch.no_grad():
            base = old[:, :WIDTH].clone()
            base[:, SCALES] += passed[:, SCALES].round()
            octaves = shifts(base.numpy().astype(np.int64), self._plan)
            whole[:, :WIDTH] = torch.from_numpy(np.exp2(octaves)).float()
        return passed / whole, whole

    def step(self, decay: float) -> None:
        """Descend."""
        self._adam.step([self._rates * decay, GATE_RATE, GATE_RATE])
        self._born_adam.step([self._rates * decay])

    @torch.no_grad()
    def numbers(self) -> NDArray[np.int32]:
        """As they are now, whole."""
        found: NDArray[np.int32] = self.state()[0].round().numpy().astype(np.int32)
        return found


def _hard(log_alpha: Tensor) -> Tensor:
    """Hard concrete gates without noise, in [0, 1]."""
    return (torch.sigmoid(log_alpha / HEAT) * (HIGH - LOW) + LOW).clamp(0, 1)


def _bits(steps: Tensor) -> Tensor:
    """Bits of all, about: zeros, and else a sign and a geometric size, by column.

    Between whole steps it goes straight from one to the next.
    """
    size = steps.abs()
    with torch.no_grad():
        whole = size.round()
        count, moving = len(whole), (whole > 0).sum(0)
        rare = (moving + 1) / (count + 2)
        more = ((whole - 1).clamp(min=0).sum(0) + 0.5) / (moving + 1)
        theta = more / (1 + more)
        slope = -torch.log2(theta)
        first = (torch.log2((1 - rare) / rare) + 1 - torch.log2(1 - theta)).clamp(min=0)
        zeros = -count * torch.log2(1 - rare)
    each = first * size.clamp(max=1) + slope * (size - 1).clamp(min=0)
    return each.sum() + zeros.sum()


def _limits(plan: Plan, width: int) -> tuple[Tensor, Tensor]:
    """What numbers may be at least and at most, `(13 + R,)`."""
    high = torch.full((width,), math.inf)
    high[NORMAL], high[ALPHA] = plan.normal, plan.opacity
    low = -high
    low[ALPHA] = 0
    return low, high


def realised(numbers: Tensor, plan: Plan) -> Cloud:
    """What `lattice.gaussians_of` makes of rows, for numbers between the whole ones too.

    Args:
        numbers: `(N, 13 + R)`.
        plan: of the lattice.
    """
    even = numbers[:, CENTRE] / plan.cells
    far = even.sign() * torch.exp(even.abs().clamp(min=1) - 1)
    places = torch.where(even.abs() > 1, far, even)
    u, v = (numbers[:, NORMAL] / plan.normal).clamp(-1, 1).unbind(1)
    z = 1 - u.abs() - v.abs()
    fold = z.clamp(max=0)
    x, y = (part + fold * torch.where(part < 0, -1.0, 1.0) for part in (u, v))
    w = torch.sqrt(x * x + y * y + z * z) + z
    flat = w < 1e-6
    w, a, b = torch.where(flat, 0.0, w), torch.where(flat, 1.0, -y), torch.where(flat, 0.0, x)
    half = numbers[:, TWIST] * (math.pi / 2 / plan.twist)
    c, s = half.cos(), half.sin()
    edge = 0.25 / plan.opacity
    alphas = (numbers[:, ALPHA] / plan.opacity).clamp(edge, 1 - edge)
    rest = numbers[:, WIDTH:] * (plan.rest / UNIT)
    sh = torch.cat([numbers[:, COLOUR] * (plan.colour / UNIT), rest], 1)
    return Cloud(
        means=places * plan.radius + torch.tensor(plan.centre),
        quats=torch.stack([w * c, a * c + b * s, b * c - a * s, w * s], 1),
        scales=numbers[:, SCALES] * (plan.scale / UNIT),
        opacities=torch.logit(alphas),
        sh=sh.reshape(len(numbers), COEFFICIENTS[plan.degree], 3),
    )
