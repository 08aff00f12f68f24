"""Start the linear path of `iscs` as the best block transform of the training photographs.

The Karhunen-Loeve transform diagonalises the covariance of 8x8x3 patches, then that of the 2x2
squares of its coefficients; the gain of each rate is the step of reverse water-filling. Knows
patches, not where they come from.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from codec.models.iscs.network import LEVEL_STEP, SCALE_MIN, IscsNetwork
from codec.models.layers import QUALITY_MAX
from codec.models.transforms import BLOCK, STREAM

__all__ = ["columns", "principal_axes", "set_linear", "start_from_klt", "water_level"]


def water_level(lmbda: Tensor) -> Tensor:
    """Distortion of a coefficient of an orthonormal transform at slope `lmbda`, pixels in [0, 1].

    A coefficient at distortion d costs -log2(d)/2 bits and adds 255^2 d / 3 to the sum over pixels
    of a three-channel MSE; the slopes agree at d = 3 / (2 ln 2 lambda 255^2).
    """
    return 3 / (2 * math.log(2) * lmbda * 255**2)


@torch.no_grad()
def start_from_klt(network: IscsNetwork, patches: Tensor) -> None:
    """Set g_a, g_s, gains and the scales' levels of `network` from `patches`.

    Args:
        network: fresh; its residual branches stay as they are, nearly zero.
        patches: `(N, 3, H, W)` in [0, 1], H and W multiples of 16, some hundreds.
    """
    feature = functional.pixel_unshuffle(patches - 0.5, BLOCK)
    basis, _ = principal_axes(columns(feature))
    set_linear(network.g_a.enter.weight, basis)
    set_linear(network.g_s.leave.weight, basis.T)
    feature = functional.conv2d(feature, basis[:, :, None, None])

    square = functional.pixel_unshuffle(feature, 2)  # channel order: (stream, row, column)
    axes, variance = principal_axes(columns(square))
    axes, variance = axes[: network.config.M], variance[: network.config.M]
    network.g_a.down.weight.copy_(axes.view(-1, STREAM, 2, 2))
    set_linear(network.g_s.up.weight, axes.T)
    for conv in (network.g_a.enter, network.g_a.down, network.g_s.up, network.g_s.leave):
        conv.bias.zero_()  # type: ignore[union-attr]

    network.std.copy_(variance.sqrt())
    knots = torch.linspace(0, QUALITY_MAX, len(network.gain.knots))
    log_step = 0.5 * (12 * water_level(network.config.lmbda_of(knots))).log()
    network.gain.knots.copy_(-log_step[:, None].expand_as(network.gain.knots))
    network.inverse_gain.knots.copy_(log_step[:, None].expand_as(network.gain.knots))
    spread = (variance / (12 * water_level(network.config.lmbda_of(knots)))[:, None]).sqrt()
    network.h_s_scale.level.knots.copy_((spread / SCALE_MIN).log() / LEVEL_STEP)


def columns(feature: Tensor) -> Tensor:
    """`(N, C, h, w)` to `(C, N h w)`."""
    return feature.transpose(0, 1).flatten(1)


def principal_axes(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Rows: eigenvectors of the covariance of `(C, S)` samples, largest first; and eigenvalues."""
    variance, axes = torch.linalg.eigh(torch.cov(samples.double()))
    return axes.flip(1).T.float(), variance.flip(0).clamp(min=1e-9).float()


def set_linear(weight: Tensor, matrix: Tensor) -> None:
    """A 1x1 convolution's weight from a matrix."""
    weight.copy_(matrix[:, :, None, None])
