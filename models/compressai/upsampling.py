"""Transposed convolutions as dense ones, and the synthesis made of them. Knows no symbols.

Of a transposed 5x5 convolution of stride 2, every output of one parity of row and column sees the
same taps: 3 or 2 of the 5 in each direction. So it is four small convolutions whose outputs
interleave, the 25 products in all and no scattered sums: with k the weights, along one axis,

    out[2 j]     = k[4] x[j - 1] + k[2] x[j] + k[0] x[j + 1]
    out[2 j + 1] = k[3] x[j]     + k[1] x[j + 1]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.models.compressai.network import Gdn

__all__ = ["Synthesis", "Upsampling"]

TAPS = ((4, 2, 0), (3, 1))
BAND = 8
"""Rows of the last but two features that the CPU takes at once: what fits its cache."""


@final
class Upsampling:
    """`(N, C_in, h, w)` to `(N, C_out, 2 h, 2 w)`, by weights `(C_in, C_out, 5, 5)`.

    `normalise` `(1, C_out, ...)` is applied to each of the four parts, while it is at hand.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, normalise: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        kernels = weight.transpose(0, 1)
        self._kernels = [
            [
                kernels[:, :, rows][..., columns].contiguous(memory_format=torch.channels_last)
                for columns in TAPS
            ]
            for rows in TAPS
        ]
        self._bias = bias
        self._normalise = normalise

    def __call__(self, x: Tensor) -> Tensor:
        """With zeros around x."""
        return self.inside(functional.pad(x, (1, 1, 1, 1)))

    def inside(self, x: Tensor) -> Tensor:
        """With the neighbours given: x is `(N, C_in, h + 2, w + 2)`."""
        h, w = x.shape[2] - 2, x.shape[3] - 2
        size = (x.shape[0], len(self._bias), 2 * h, 2 * w)
        out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for row, kernels in enumerate(self._kernels):
            for column, kernel in enumerate(kernels):
                part = functional.conv2d(x[:, :, row:, column:], kernel, self._bias)
                out[:, :, row::2, column::2] = self._normalise(part) if self._normalise else part
        return out


@final
class Synthesis:
    """CompressAI's g_s, faster: the last two steps, most of the work, go through bands of rows."""

    def __init__(self, g_s: nn.Sequential) -> None:
        """g_s: four transposed convolutions with an inverse `Gdn` between each two."""
        convolutions = [part for part in g_s if isinstance(part, nn.ConvTranspose2d)]
        norms = [part for part in g_s if isinstance(part, Gdn)]
        self._steps = [
            Upsampling(conv.weight, _bias(conv), _Inverse(norm))
            for conv, norm in zip(convolutions, norms, strict=False)
        ]
        self._last = _Last(convolutions[-1].weight, _bias(convolutions[-1]))

    def __call__(self, y_hat: Tensor) -> Tensor:
        """Latents `(N, M, h, w)` to `(N, 3, 16 h, 16 w)`."""
        x = y_hat.contiguous(memory_format=torch.channels_last)
        for step in self._steps[:2]:
            x = step(x)
        return torch.cat(list(self._bands(x)), dim=2)

    def _bands(self, x: Tensor) -> Iterator[Tensor]:
        """What the last two steps make of x `(N, C, 4 h, 4 w)`, in bands of rows."""
        rows = x.shape[2]
        height = BAND if x.device.type == "cpu" else rows
        x = functional.pad(x, (1, 1, 1, 1))
        # Each band of features but the last lacks the row below it, so the pixels of its last row
        # wait for the next band; above the first and below the last, there are zeros.
        waiting = None
        for top in range(0, rows, height):
            band = x[:, :, top : min(top + height, rows) + 2]
            feature = functional.pad(self._steps[2].inside(band), (1, 1))
            if waiting is None:
                waiting = torch.zeros_like(feature[:, :, :1])
            feature = torch.cat([waiting, feature], dim=2)
            if top + height >= rows:
                feature = functional.pad(feature, (0, 0, 0, 1))
            waiting = feature[:, :, -2:]
            yield self._last.inside(feature)


@final
class _Inverse:
    """Inverse normalisation as a 1x1 convolution of squares."""

    def __init__(self, norm: Gdn) -> None:
        self._gamma = norm.gamma[:, :, None, None].contiguous()
        self._beta = norm.beta

    def __call__(self, x: Tensor) -> Tensor:
        energy = functional.conv2d(x.square(), self._gamma, self._beta)
        return energy.sqrt_().mul_(x)


@final
class _Last:
    """The step to three channels: so few that one convolution for all four parts is faster."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        inputs, outputs = weight.shape[:2]
        kernels = weight.new_zeros(outputs, 2, 2, inputs, 3, 3)
        for row, rows in enumerate(TAPS):
            for column, columns in enumerate(TAPS):
                part = weight.transpose(0, 1)[:, :, rows][..., columns]
                kernels[:, row, column, :, row:, column:] = part
        kernels = kernels.reshape(4 * outputs, inputs, 3, 3)
        self._kernels = kernels.contiguous(memory_format=torch.channels_last)
        self._bias = bias.repeat_interleave(4)

    def inside(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(functional.conv2d(x, self._kernels, self._bias), 2)


def _bias(conv: nn.ConvTranspose2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
