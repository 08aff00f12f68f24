"""The networks of overfitted pictures, in floats: upsampling, synthesis, and the rate of latents.

Cool-chic 5's, written from its equations. Every tensor has the pictures of a batch in front, and
each picture has networks of its own: B pictures of one size are fitted at once. Knows no integers
and no stream; `layout.shapes` names the tensors of `Parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from codec.models.inr.layout import CONTEXTS, GRIDS, IFCE_LEVELS, Preset, shapes

__all__ = [
    "Parameters",
    "aligned",
    "bits",
    "fresh",
    "laplace_bits",
    "soft_round",
    "synthesise",
    "upsample",
]

Parameters: TypeAlias = Mapping[str, Tensor]

BICUBIC = (-0.03515625, -0.10546875, 0.26171875, 0.87890625)
REACH = max(max(-row, abs(column)) for row, column in CONTEXTS)
LOG_SCALE_MIN, LOG_SCALE_MAX = -3.0, 4.875
PROBABILITY_MIN = 2.0**-16


def fresh(preset: Preset, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Networks before any fitting: they predict nothing, and upsample as bicubic filters do.

    Features of coarser grids are random sums from the start: were they and what reads them both 0,
    neither would have a gradient, and no fit would ever use a coarser grid.
    """
    found = {}
    for name, shape in shapes(preset).items():
        value = torch.zeros(batch, *shape)
        if name == "arm.out.weight":
            value.normal_(std=1 / 4, generator=generator)
        elif name.startswith("ifce") and name.endswith("weight"):
            value.normal_(std=1 / math.sqrt(shape[1]), generator=generator)
        elif name == "up.kernel.weight":
            value[:] = torch.tensor(BICUBIC)
        elif name == "up.filter.weight":
            value[:, :, 0] = 1.0
        elif name in ("syn.in.weight", "syn.out.weight"):
            bound = 1 / (shape[0] ** 2 * math.sqrt(shape[1]))
            value.uniform_(-bound, bound, generator=generator)
        found[name] = value
    return found


def soft_round(y: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
    """Latents as if rounded: sr(sr(y) + noise) with the soft rounding of C3 (arXiv 2312.02753).

    Args:
        y: latents in steps, of any shape.
        noise: as `y`.
        temperature: one number above 0; towards 0 it is rounding, and large it changes nothing.
    """

    def softly(x: Tensor) -> Tensor:
        middle = x.floor() + 0.5
        return middle + torch.tanh((x - middle) / temperature) / torch.tanh(0.5 / temperature) / 2

    return softly(softly(y) + noise)


def upsample(grids: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Latents of all levels at the picture's size (arXiv 2411.19249).

    Each level's grid is sharpened by a symmetric separable 7-tap filter and joins the coarser ones,
    which a symmetric separable 8-tap filter has doubled; all at a level share its filters.

    Args:
        grids: y_6 .. y_0, `(B, h, w)` each.
        parameters: of each picture.

    Returns:
        `(B, 7, H, W)`, from y_6 on.
    """
    stack = grids[0][:, None]
    for number, grid in enumerate(grids[1:]):
        taps = parameters["up.kernel.weight"][:, number, :, None, None, None]
        rows, columns = grid.shape[1:]
        stack = _doubled(_doubled(stack, taps, 2), taps, 3)[:, :, :rows, :columns]
        taps = parameters["up.filter.weight"][:, number, :, None, None, None]
        plane = grid[:, None]
        sharpened = plane + _filtered(_filtered(plane, taps, 2), taps, 3)
        stack = torch.cat([stack, sharpened], dim=1)
    return stack


def _doubled(x: Tensor, taps: Tensor, dim: int) -> Tensor:
    """Twice as long in `dim`: a transposed convolution, taps a b c d d c b a, edges repeated."""
    a, b, c, d = taps.unbind(1)
    length = x.shape[dim]
    x = functional.pad(x, (0, 0, 2, 2) if dim == 2 else (2, 2, 0, 0), mode="replicate")
    part = [x.narrow(dim, start, length) for start in range(5)]
    even = a * part[0] + c * part[1] + d * part[2] + b * part[3]
    odd = b * part[1] + d * part[2] + c * part[3] + a * part[4]
    return torch.stack([even, odd], dim=dim + 1).flatten(dim, dim + 1)


def _filtered(x: Tensor, taps: Tensor, dim: int) -> Tensor:
    """The convolution with taps d c b a b c d, zeros around."""
    length = x.shape[dim]
    x = functional.pad(x, (0, 0, 3, 3) if dim == 2 else (3, 3, 0, 0))
    part = [x.narrow(dim, start, length) for start in range(7)]
    found = taps[:, 0] * part[3]
    for distance in range(1, 4):
        found = found + taps[:, distance] * (part[3 - distance] + part[3 + distance])
    return found


def synthesise(stack: Tensor, parameters: Parameters) -> Tensor:
    """Upsampled latents `(B, 7, H, W)` to pixels `(B, 3, H, W)`, about [0, 1]."""
    height, width = stack.shape[2:]
    flat = stack.flatten(2)
    hidden = _pointwise(flat, parameters, "syn.in").relu()
    x = _pointwise(hidden, parameters, "syn.out") + parameters["syn.skip.weight"] @ flat
    residuals = sum(name.startswith("syn.res") for name in parameters) // 2
    for number in range(residuals):
        x = x + _pointwise(
            _patches(x.reshape(*x.shape[:2], height, width)), parameters, f"syn.res{number}"
        )
        if number < residuals - 1:
            x = x.relu()
    return x.reshape(*x.shape[:2], height, width)


def _patches(x: Tensor) -> Tensor:
    """The 3x3 pixels around each, edges repeated: `(B, C, H, W)` to `(B, 9 C, H W)`."""
    height, width = x.shape[2:]
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    found = [
        padded[:, :, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]
    return torch.stack(found, dim=2).flatten(1, 2).flatten(2)


def bits(grids: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Bits of each picture's latents under the Laplaces that their contexts predict, `(B,)`.

    Args:
        grids: in the order of `GRIDS`, `(B, h, w)` each, rounded or a stand-in for it.
        parameters: of each picture.
    """
    preset_inputs = parameters["arm.0.weight"].shape[2]
    features = parameters["ifce.0.weight"].shape[1]
    neighbours = preset_inputs - features
    inputs = []
    for number, (place, grid) in enumerate(zip(GRIDS, grids, strict=True)):
        found = _neighbours(grid, neighbours)
        if place.hyper or place.level >= IFCE_LEVELS:
            seen = found.new_zeros(found.shape[0], features, *found.shape[2:])
        else:
            coarse = aligned(grids[:number], place.level)
            seen = _pointwise(coarse.flatten(2), parameters, f"ifce.{place.level}")
            seen = _repeated(seen.reshape(-1, features, *coarse.shape[2:]), 2)
            seen = seen[:, :, : grid.shape[1], : grid.shape[2]]
        inputs.append(torch.cat([found, seen], dim=1).flatten(2))
    context = torch.cat(inputs, dim=2)
    hidden = context
    for layer in ("arm.0", "arm.1"):
        hidden = (_pointwise(hidden, parameters, layer) + hidden).relu()
    out = _pointwise(hidden, parameters, "arm.out") + parameters["arm.skip.weight"] @ context
    mean, log_scale = out[:, 0], out[:, 1].clamp(LOG_SCALE_MIN, LOG_SCALE_MAX)
    latents = torch.cat([grid.flatten(1) for grid in grids], dim=1)
    return laplace_bits(latents - mean, log_scale).sum(1)


def laplace_bits(distance: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of the unit bin around `distance` from the mean of a Laplace; any shape."""
    rate = torch.exp(-log_scale)
    distance = distance.abs()
    # Inside half a step of the mean the bin spans it; outside it is one exponential.
    inside = 1 - torch.exp(-rate / 2) * torch.cosh((rate * distance).clamp(max=rate / 2))
    outside = torch.exp(-rate * (distance - 0.5).clamp(min=0)) * -torch.expm1(-rate) / 2
    probability = torch.where(distance < 0.5, inside, outside)
    return -torch.log2(probability.clamp(min=PROBABILITY_MIN))


def _neighbours(grid: Tensor, count: int) -> Tensor:
    """The first `count` contexts of every latent, `(B, count, h, w)`."""
    _, height, width = grid.shape
    padded = functional.pad(grid, (REACH, REACH, REACH, 0))
    found = [
        padded[:, REACH + row :, REACH + column :][:, :height, :width]
        for row, column in CONTEXTS[:count]
    ]
    return torch.stack(found, dim=1)


def aligned(before: Sequence[Tensor], level: int) -> Tensor:
    """The grids that are coded before y_level, at the resolution of the last of them.

    Args:
        before: `(B, h, w)` each.
        level: k of y_k, less than `IFCE_LEVELS`.

    Returns:
        `(B, G, h, w)` for G grids; each element is for two by two of y_level.
    """
    height, width = before[-1].shape[1:]
    times = [1 << (place.level - level - 1) for place in GRIDS[: len(before)]]
    wide = [_repeated(grid, by) for grid, by in zip(before, times, strict=True)]
    return torch.stack([each[:, :height, :width] for each in wide], dim=1)


def _repeated(x: Tensor, times: int) -> Tensor:
    """Each element of `(..., h, w)` as a square; repeat_interleave's gradient is far slower."""
    wide = x[..., :, None, :, None].expand(*x.shape[:-1], times, x.shape[-1], times)
    return wide.flatten(-2).flatten(-3, -2)


def _pointwise(x: Tensor, parameters: Parameters, layer: str) -> Tensor:
    """A layer over `(B, C_in, N)`."""
    weight, bias = parameters[f"{layer}.weight"].flatten(2), parameters[f"{layer}.bias"]
    return torch.baddbmm(bias[:, :, None], weight, x)
