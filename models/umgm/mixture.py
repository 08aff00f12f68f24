"""Vectors under a multivariate Gaussian mixture whose means are codewords. Knows no transform.

Channels are cut into groups. A group's vector is quantised to a codeword of the group's own: the
one for which its bits and its squared error, at what that is worth in bits, are least together
(entropy-constrained vector quantisation, Chou 1989). A component's weight, and so a codeword's
bits, follow from a level that says how far vectors spread here: codeword c has at level l the
logit b_c - |c / (s exp(LEVEL_STEP l))|^2 / 2, the Gaussian's mass of its cell up to a constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias, final

import torch
from torch import Tensor, nn

from codec.models.quantize import WORTH, add_noise, gaussian_bits, lower_bound

__all__ = [
    "LEVELS",
    "LEVEL_STEP",
    "LEVEL_UNIT",
    "Bank",
    "Mixture",
    "Piece",
    "Quantised",
    "Shape",
    "likely_integers",
    "nearest",
]

LEVELS = 32
LEVEL_STEP = 0.25  # of the natural logarithm of the spread
LEVEL_UNIT = 20  # the level at which a group's spread is `exp(spread)` itself
STD_MIN = 0.01  # steps; a channel that never moves has a logarithm too
REACH = 63  # of a vector of integers to start from, so that seven bits hold a number
WIDER_MAX = 40  # times that a spread may grow to 1.2 of it
SCALE_MIN, SCALE_MAX = 0.11, 256.0  # of the Gaussian that stands in for codewords; steps

Shape: TypeAlias = tuple[int, int, int]  # groups, dimensions of each, codewords of each


class Quantised(NamedTuple):
    """`x_hat` like x, with the gradient of x; bits and weighted error of each sample, `(N,)`.

    The bits have a gradient to tables and levels, and to x that of noise in place of codewords. The
    error moves codewords alone.
    """

    x_hat: Tensor
    bits: Tensor
    error: Tensor


@final
class Bank(nn.Module):
    """Groups of one shape: codewords `(G, K, d)`, their bias `(G, K)`, log of spread `(G, d)`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        groups, dimensions, count = self.shape = shape
        self.codewords = nn.Parameter(torch.randn(groups, count, dimensions))
        self.bias = nn.Parameter(torch.zeros(groups, count))
        self.spread = nn.Parameter(torch.zeros(groups, dimensions))

    def bits(self) -> Tensor:
        """What each codeword costs at each level, `(G, LEVELS, K)`."""
        levels = torch.arange(LEVELS, device=self.bias.device) - LEVEL_UNIT
        energy = (self.codewords * (-self.spread).exp()[:, None]).square().sum(2)
        weight = torch.exp(-2 * LEVEL_STEP * levels)
        logits = self.bias[:, None] - 0.5 * weight[:, None] * energy[:, None]
        return logits.log_softmax(2) / -math.log(2)

    def forward(self, x: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise x `(G, P, d)` at real levels `(G, P)`.

        Returns:
            Codewords `(G, P, d)`; their bits `(G, P)`; the bits of noise in place of codewords.
        """
        table = self.bits()
        bounded = -lower_bound(-lower_bound(levels, 0.0), 1.0 - LEVELS)
        codes = nearest(x.detach(), self.codewords.detach(), table.detach(), bounded.detach())
        below = bounded.detach().floor().clamp(max=LEVELS - 2)
        share = bounded - below
        place = below.long() * table.shape[2] + codes
        flat = table.flatten(1)
        bits = flat.gather(1, place) * (1 - share)
        bits = bits + flat.gather(1, place + table.shape[2]) * share
        found = self.codewords.gather(1, codes[..., None].expand(-1, -1, x.shape[2]))
        log_scale = self.spread[:, None] + LEVEL_STEP * (bounded[..., None] - LEVEL_UNIT)
        scale = log_scale.detach().exp().clamp(SCALE_MIN, SCALE_MAX)
        noisy = gaussian_bits(add_noise(x), torch.zeros_like(x), scale).sum(2)
        return found, bits, noisy


# An operator to `torch.compile`, which would unroll its loop and cannot look into its kernels.
@torch.library.custom_op(
    "codec::nearest",
    mutates_args=(),
    schema="(Tensor x, Tensor codewords, Tensor bits, Tensor levels) -> Tensor",
)
@torch.no_grad()
def nearest(x: Tensor, codewords: Tensor, bits: Tensor, levels: Tensor) -> Tensor:
    """The codeword of each vector that costs least, bits and error, `(G, P)`.

    Args:
        x: `(G, P, d)`.
        codewords: `(G, K, d)`.
        bits: `(G, LEVELS, K)`.
        levels: `(G, P)`, any real within the levels.
    """
    costs = bits + WORTH * codewords.square().sum(2)[:, None]
    at = levels.round().long()
    codes = torch.empty(x.shape[:2], dtype=torch.long, device=x.device)
    if x.device.type == "cpu":
        from codec.models.umgm import kernels

        words = (-2 * WORTH * codewords.transpose(1, 2)).contiguous()
        arrays = (x.contiguous(), words, costs.contiguous(), at.contiguous(), codes)
        kernels.search(*(array.numpy() for array in arrays))
        return codes
    with torch.autocast(x.device.type, enabled=False):
        for g in range(len(x)):
            costs_g = torch.addmm(costs[g][at[g]], x[g], codewords[g].T, alpha=-2 * WORTH)
            torch.argmin(costs_g, 1, out=codes[g])
    return codes


@nearest.register_fake
def _(x: Tensor, codewords: Tensor, bits: Tensor, levels: Tensor) -> Tensor:
    return levels.new_empty(x.shape[:2], dtype=torch.long)


class Piece(NamedTuple):
    """A bank, and the channels and groups of the mixture that are its own."""

    bank: Bank
    channels: slice
    groups: slice


@final
class Mixture(nn.Module):
    """All groups of some channels, in order: banks of groups of one shape each."""

    def __init__(self, shapes: tuple[Shape, ...]) -> None:
        super().__init__()
        self.banks = nn.ModuleList(Bank(shape) for shape in shapes)
        self.sizes = [dimensions for groups, dimensions, _ in shapes for _ in range(groups)]
        self.channels, self.groups = sum(self.sizes), len(self.sizes)

    def pieces(self) -> Iterator[Piece]:
        """Its banks and where they lie."""
        channel = group = 0
        for bank in self.banks:
            assert isinstance(bank, Bank)
            groups, dimensions, _ = bank.shape
            channels = slice(channel, channel + groups * dimensions)
            yield Piece(bank, channels, slice(group, group + groups))
            channel, group = channels.stop, group + groups

    def spread(self) -> Tensor:
        """The logarithm of each channel's spread at level `LEVEL_UNIT`, `(channels,)`."""
        return torch.cat([piece.bank.spread.flatten() for piece in self.pieces()])

    def forward(self, x: Tensor, levels: Tensor, mask: Tensor | None = None) -> Quantised:
        """Quantise and count.

        Args:
            x: `(N, channels, h, w)` in steps.
            levels: `(N, groups, h, w)`, real.
            mask: `(h, w)`, 1 where bits and errors count.
        """
        n, _, h, w = x.shape
        flat, level = (part.transpose(0, 1).flatten(1) for part in (x, levels))
        moves, sums = [], []
        for bank, channels, groups in self.pieces():
            own = flat[channels].reshape(bank.shape[0], bank.shape[1], -1).transpose(1, 2)
            found, bits, noisy = bank(own, level[groups])
            move = found - own.detach()
            moves.append(move.detach().transpose(1, 2).flatten(0, 1))
            bits = bits + noisy - noisy.detach()
            sums.append(torch.stack([bits.sum(0), WORTH * move.square().sum((0, 2))]))
        x_hat = x + torch.cat(moves).reshape(-1, n, h, w).transpose(0, 1)
        total = torch.stack(sums).sum(0).reshape(2, n, h, w)
        if mask is not None:
            total = total * mask
        return Quantised(x_hat, *total.sum((2, 3)))

    @torch.no_grad()
    def start(self, std: Tensor, generator: torch.Generator | None = None) -> None:
        """Begin with the likeliest vectors of integers, as a scalar quantiser would have them.

        Args:
            std: `(channels,)` how far each channel spreads, in steps, where that is most.
            generator: of the numbers by which the likeliest are found.
        """
        for bank, channels, _ in self.pieces():
            groups, dimensions, count = bank.shape
            sizes = std[channels].clamp(min=STD_MIN).reshape(groups, dimensions)
            for g, own in enumerate(sizes):
                bank.codewords[g] = likely_integers(own, count, generator)
                bank.spread[g] = own.log()


def likely_integers(std: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """The likeliest vectors of rounded Laplacians, by a sample of 2^18, `(count, d)`.

    Args:
        std: `(d,)` of each dimension.
        count: how many; where so many are not likely, the next best follow.
        generator: of the sample.

    Raises:
        ValueError: there are not so many within 63 of zero.
    """
    if len(std) == 1:
        order = torch.arange(count)
        return ((order + 1) // 2 * (1 - 2 * (order % 2)))[:, None].float()
    uniform = torch.rand(1 << 18, len(std), generator=generator) - 0.5
    noise = -uniform.sign() * torch.log1p(-2 * uniform.abs()).clamp(min=-16) / math.sqrt(2)
    digits = 2 ** (7 * torch.arange(len(std)))  # vectors as numbers, which sort fast
    for wider in range(WIDER_MAX):
        vectors = (noise * std * 1.2**wider).round()
        inside = vectors[(vectors.abs() <= REACH).all(1)].long() + REACH
        numbers, times = torch.unique((inside * digits).sum(1), return_counts=True)
        if len(numbers) >= count:
            best: Tensor = numbers[times.argsort(descending=True, stable=True)[:count]]
            return (best[:, None] // digits % 128 - REACH).float()
    raise ValueError(f"{count} codewords of {len(std)} dimensions are too many")
