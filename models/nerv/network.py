"""The network that draws a frame, as functions of its weights. Knows no integer and no coder.

    embedding or time -> gated stem -> stages of
        project, SCRB, affine map by the time, 3x3, pixel shuffle, SCRB, + projection, enlarged
    -> 1x1 -> pixels

After NeRV++ (arXiv 2402.18305) and HNeRV-Boost (CVPR 2024); docs/format/nerv.md has every equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from codec.models.nerv.layout import FREQUENCIES, Layout

__all__ = ["draw", "encoded_times", "fresh"]

Active: TypeAlias = Callable[[Tensor], Tensor]

BASE = 1.25  # of the frequencies


def encoded_times(frames: int) -> Tensor:
    """The positional encoding of every frame of a group, `(frames, 80)`."""
    times = np.arange(frames) / frames
    angles = math.pi * times[:, None] * BASE ** np.arange(FREQUENCIES)
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1)).float()


def draw(
    weights: Mapping[str, Tensor], layout: Layout, times: Tensor, embeddings: Tensor | None
) -> Tensor:
    """Frames about [0, 1], not clipped.

    Args:
        weights: by the names of `layout.shapes`.
        layout: of the group.
        times: `(N, 80)` of `encoded_times`.
        embeddings: `(N, embedded, h, w)` if the variant has them.

    Returns:
        `(N, 3, H, W)`.
    """
    active: Active = torch.sin if layout.variant.boost else functional.silu
    gate: Active = torch.sin if layout.variant.boost else _gelu
    moved = None
    if embeddings is not None:
        x = _conv(embeddings, weights, "stem")
        moved = torch.sin(_linear(times, weights, "time"))
    else:
        x = _linear(times, weights, "stem")
    value, opening = x.chunk(2, dim=1)
    x = value * gate(opening)
    if embeddings is None:
        x = _linear(x, weights, "draw").reshape(-1, layout.widths[0], *layout.grid)
    for number, stride in enumerate(layout.strides):
        x = _stage(x, weights, number, stride, layout, active, moved)
    x = _conv(x, weights, "head") + 0.5
    return x[:, :, : layout.height, : layout.width]


def _stage(
    x: Tensor,
    weights: Mapping[str, Tensor],
    number: int,
    stride: int,
    layout: Layout,
    active: Active,
    moved: Tensor | None,
) -> Tensor:
    projected = x
    if layout.variant.residual:
        projected = _conv(x, weights, f"{number}.project")
        x = _residual(projected, weights, f"{number}.before", active)
    if moved is not None:
        affine = functional.linear(moved, weights[f"{number}.affine.weight"])
        scale, shift = affine[:, :, None, None].chunk(2, dim=1)
        x = x * (1 + scale) + shift
    x = active(functional.pixel_shuffle(_conv(x, weights, f"{number}.up"), stride))
    if layout.variant.residual:
        x = _residual(x, weights, f"{number}.behind", active)
    if layout.variant.skip:
        x = x + functional.interpolate(
            projected, scale_factor=stride, mode="bilinear", align_corners=False
        )
    return x


def _residual(x: Tensor, weights: Mapping[str, Tensor], name: str, active: Active) -> Tensor:
    """A separable 2-d residual block (SCRB)."""
    inner = _conv(x, weights, f"{name}.space", groups=x.shape[1])
    inner = active(_conv(inner, weights, f"{name}.mix0"))
    return x + _conv(inner, weights, f"{name}.mix1")


def _conv(x: Tensor, weights: Mapping[str, Tensor], name: str, groups: int = 1) -> Tensor:
    weight = weights[f"{name}.weight"]
    return functional.conv2d(
        x, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2, groups=groups
    )


def _linear(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def fresh(layout: Layout, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights to begin with: uniform, of a variance that keeps that of features; no bias.

    The last layer of each residual block and the affine maps begin at a tenth of it.
    """
    found = {}
    for name, shape in layout.shapes.items():
        if name.endswith("bias"):
            found[name] = torch.zeros(shape)
            continue
        inputs = math.prod(shape[1:])
        bound = math.sqrt(3 / inputs)
        if name.endswith("mix1.weight") or name.startswith("head") or "affine" in name:
            bound /= 10
        found[name] = (2 * torch.rand(shape, generator=generator) - 1) * bound
    return found
