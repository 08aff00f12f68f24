"""What reference latents say about the latents that are coded. Knows no byte and no dictionary.

    references, choices --> start                    for each square of 64x64 pixels one, or 0
    y - start is coded as `iscs` codes y, but for this:
        y_hat so far, features of z_hat -- query --> y_a, by attention to the references
        mean = mean of iscs + share (y_a - start - mean of iscs)

Matching and fusion follow conditional latent coding (Wu et al., AAAI 2025, eq. 5 and 6) in what a
decoder can do: the query is what is decoded and not y, and the gate mixes means and not latents.
But for `shift` everything here is floats: it moves reconstructions and chooses no table. Latents
are over their usual size. A block is 16x16 latents, a reference has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from codec.models.context import Means
from codec.models.hyper import HyperAnalysis
from codec.models.iscs.steps import STEPS, step_masks
from codec.models.layers import BottleneckBlock, RateTable

__all__ = [
    "BLOCK",
    "SQUARES",
    "Gate",
    "Matching",
    "Reference",
    "choices_of",
    "refined",
    "spread",
    "start_of",
]

Fuse: TypeAlias = Callable[[int, Tensor, Tensor, Tensor, Tensor], Tensor]

BLOCK = 16
"""Latents to a side of what one set of references is for: 256 pixels."""
SQUARES = 4
"""To a side of a block: each has one of the references as its start, or none."""

FADE = 4.0  # nats that a place one latent further off is thought less of, before training
SHARE = -3.0  # logit of a share before training


def refined(means: Means, fuse: Fuse) -> Means:
    """`means`, each changed by `fuse(k, mean, decoded, features, quality)`.

    The arguments are those of `Reference.fuse`, of whole tiles.
    """

    def core(k: int, features: Tensor, y_norm: Tensor, quality: Tensor) -> Tensor:
        return fuse(k, means.core(k, features, y_norm, quality), y_norm, features, quality)

    def others(features: Tensor, core_norm: Tensor, quality: Tensor) -> Tensor:
        mean = means.others(features, core_norm, quality)
        return fuse(STEPS, mean, core_norm, features, quality)

    return Means(core, others)


def spread(choices: Tensor) -> Tensor:
    """The choice for each latent, `(B, 1, 16, 16)`, of those for squares `(B, 4, 4)`."""
    side = BLOCK // SQUARES
    return choices.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]


def start_of(references: Tensor, choices: Tensor) -> Tensor:
    """What is known of y before anything is decoded, `(B, M, 16, 16)`.

    Args:
        references: `(B, R, M, 16, 16)`.
        choices: `(B, 4, 4)` integers: 0 for no reference, else its number from 1.
    """
    whole = spread(choices)
    start = torch.zeros_like(references[:, 0])
    for number in range(references.shape[1]):
        start = torch.where(whole == number + 1, references[:, number], start)
    return start


def choices_of(y: Tensor, references: Tensor, norm: Tensor, trust: float) -> Tensor:
    """For each square the reference that leaves least to code; 0 where none is worth it.

    Args:
        y: `(B, M, 16, 16)` in steps.
        references: `(B, R, M, 16, 16)`.
        norm: `(B or 1, M, 1, 1)`, the usual size in steps.
        trust: what y itself is thought to cost, of what it would without any prediction.
    """
    away = torch.stack([y, *(y - norm * references[:, r] for r in range(references.shape[1]))])
    side = BLOCK // SQUARES
    bits = torch.log2(1 + away.square()).sum(2)
    squares = bits.view(*bits.shape[:2], SQUARES, side, SQUARES, side).sum((3, 5))
    return torch.cat([trust * squares[:1], squares[1:]]).argmin(0)


@final
class Matching(nn.Module):
    """Attention from what is decoded to the latents of the references: y_a.

    It looks at the same place first: a score has a term for each offset, falling with its length.
    """

    offsets: Tensor

    def __init__(self, *, core: int, context: int, keys: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(core + context, keys, 1)
        self.key = nn.Conv2d(core, keys, 3, padding=1)
        place = torch.arange(BLOCK)
        offset = place[:, None] - place + BLOCK - 1
        side = 2 * BLOCK - 1
        down, right = offset[:, None, :, None], offset[None, :, None, :]
        flat = (down * side + right).reshape(BLOCK**2, BLOCK**2)
        self.register_buffer("offsets", flat, persistent=False)
        far = (torch.arange(side) - BLOCK + 1).abs().float()
        self.near = nn.Parameter(-FADE * (far[:, None] + far).reshape(-1))

    def forward(self, seen: Tensor, references: Tensor) -> Tensor:
        """y_a `(B, M, 16, 16)`.

        Args:
            seen: `(B, core + context, 16, 16)`: what is decoded of y, and features of z_hat.
            references: `(B, R, M, 16, 16)`.
        """
        blocks, count, channels = references.shape[:3]
        core = self.key.in_channels
        query = self.query(seen).flatten(2).mT
        key = self.key(references[:, :, :core].flatten(0, 1))
        key = key.view(blocks, count, -1, BLOCK**2).transpose(1, 2).flatten(2)
        scores = query @ key / math.sqrt(key.shape[1])
        scores = scores + self.near[self.offsets].repeat(1, count)
        values = references.transpose(1, 2).reshape(blocks, channels, -1)
        found: Tensor = values @ scores.softmax(dim=2).mT
        return found.view(blocks, channels, BLOCK, BLOCK)


@final
class Gate(nn.Module):
    """The share of y_a in a mean, for each latent, from both and from what is decoded."""

    def __init__(self, *, core: int, context: int, width: int, out: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3 * core + context, width, 1)
        self.block = BottleneckBlock(width, width)
        self.leave = nn.Conv2d(width, out, 1)
        nn.init.normal_(self.leave.weight, std=1e-2)
        nn.init.constant_(self.leave.bias, SHARE)  # type: ignore[arg-type]

    def forward(self, seen: Tensor, core_a: Tensor, known: Tensor, quality: Tensor) -> Tensor:
        """The shares `(B, out, 16, 16)` in [0, 1].

        Args:
            seen: as of `Matching`.
            core_a: `(B, core, 16, 16)`, y_a of the core.
            known: `(B, core, 16, 16)`, 1 where `seen` has a latent of y.
            quality: `(B,)`.
        """
        away = (seen[:, : core_a.shape[1]] - core_a) * known
        hidden = self.enter(torch.cat([seen, core_a, away], dim=1))
        return self.leave(self.block(hidden, quality)).sigmoid()  # type: ignore[no-any-return]


@final
class Reference(nn.Module):
    """All of it: a matching and a gate for each step of the core, and for what follows it.

    `h_r`, the encoder's alone, adds to z. `shift` is added to the levels of scales where there is a
    start; frozen, it is integers. `known` `(5, core, 16, 16)` is 1 where something of the core is
    decoded before a step.
    """

    known: Tensor

    def __init__(
        self, *, M: int, core: int, Z: int, hyper: int, context: int, keys: int, width: int
    ) -> None:
        super().__init__()
        steps = range(STEPS + 1)
        self.match = nn.ModuleList(Matching(core=core, context=context, keys=keys) for _ in steps)
        self.gates = nn.ModuleList(
            Gate(core=core, context=context, width=width, out=core if k < STEPS else M - core)
            for k in steps
        )
        self.h_r = HyperAnalysis(M=M, hyper=hyper, Z=Z)
        nn.init.zeros_(self.h_r.leave.weight)
        nn.init.zeros_(self.h_r.leave.bias)  # type: ignore[arg-type]
        self.shift = RateTable(M)
        masks = torch.cat([step_masks(core), torch.ones(1, core, 2, 2)])
        known = (masks.cumsum(0) - masks).clamp(max=1).repeat(1, 1, BLOCK // 2, BLOCK // 2)
        self.register_buffer("known", known, persistent=False)

    def change(self, rest: Tensor, choices: Tensor, norm: Tensor) -> Tensor:
        """What to add to z, `(B, Z, 4, 4)`.

        Args:
            rest: `(B, M, 16, 16)`, y less its start, in steps.
            choices: `(B, 4, 4)`, as of `start_of`.
            norm: the usual size in steps.
        """
        return self.h_r(rest * (spread(choices) > 0), norm)  # type: ignore[no-any-return]

    def fuse(
        self,
        k: int,
        mean: Tensor,
        decoded: Tensor,
        features: Tensor,
        start: Tensor,
        references: Tensor,
        quality: Tensor,
    ) -> Tensor:
        """The means of blocks at step k, or of all other channels with k = 4.

        Args:
            k: the step.
            mean: `(B, core or others, 16, 16)`, what `iscs` would take, of y less `start`.
            decoded: `(B, core, 16, 16)`, of the core less `start`, 0 where there is nothing yet.
            features: `(B, context, 16, 16)`, of z_hat.
            start: `(B, M, 16, 16)`.
            references: `(B, R, M, 16, 16)`.
            quality: `(B,)`.
        """
        core = decoded.shape[1]
        known = self.known[k].expand_as(decoded)
        seen = torch.cat([decoded + start[:, :core] * known, features], dim=1)
        y_a = self.match[k](seen, references)
        share = self.gates[k](seen, y_a[:, :core], known, quality)
        part = slice(core) if k < STEPS else slice(core, None)
        return mean + share * (y_a[:, part] - start[:, part] - mean)  # type: ignore[no-any-return]
