"""Parts that the families' networks share: blocks and gains over rates. Knows no family."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

__all__ = ["QUALITY_MAX", "BottleneckBlock", "RateTable", "macs"]

QUALITY_MAX = 100


@final
class RateTable(nn.Module):
    """A vector for every quality 0..100, interpolated linearly between a few trained knots.

    Knots rather than one row per rate: each training step then moves every rate near the one it
    drew, and neighbouring rates cannot cross.
    """

    def __init__(self, channels: int, *, knots: int = 9, value: float = 0.0) -> None:
        super().__init__()
        self.knots = nn.Parameter(torch.full((knots, channels), value))

    def forward(self, quality: Tensor) -> Tensor:
        """quality: `(N,)` in [0, 100], any real. Returns `(N, channels, 1, 1)`."""
        position = quality * ((len(self.knots) - 1) / QUALITY_MAX)
        left = position.floor().clamp(0, len(self.knots) - 2)
        share = (position - left)[:, None]
        left = left.long()
        rows = self.knots[left] * (1 - share) + self.knots[left + 1] * share
        return rows[:, :, None, None]

    @torch.no_grad()
    def rows(self) -> Tensor:
        """The vectors of qualities 0, 1 .. 100, `(101, channels)` in double precision."""
        qualities = torch.arange(QUALITY_MAX + 1.0, device=self.knots.device)
        return self(qualities)[:, :, 0, 0].double()  # type: ignore[no-any-return]

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Set the knots so that qualities 0, 1 .. 100 give `rows` `(101, channels)`, nearly."""
        basis = RateTable(len(self.knots), knots=len(self.knots))
        basis.knots.copy_(torch.eye(len(self.knots)))
        weights = basis(torch.arange(QUALITY_MAX + 1.0))[:, :, 0, 0].to(rows)
        self.knots.copy_(torch.linalg.lstsq(weights, rows).solution)


@final
class BottleneckBlock(nn.Module):
    """Two residual branches: 1x1, gain, SiLU, depthwise 3x3, 1x1; then 1x1, SiLU, 1x1.

    The shape is DCVC-UF's depth-convolution block, narrower inside than its stream: `channels`
    wide, its branches `inner` and `2 * inner`. The last layer of each branch starts near zero, so
    that a fresh stack of blocks is nearly the identity. Branches run in the autocast type, the
    stream itself stays in its own.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, inner, 1)
        self.gain = RateTable(inner, value=1.0)
        self.spatial = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.leave = nn.Conv2d(inner, channels, 1)
        self.widen = nn.Conv2d(channels, 2 * inner, 1)
        self.narrow = nn.Conv2d(2 * inner, channels, 1)
        for last in (self.leave, self.narrow):
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """x: `(N, channels, h, w)`; quality: `(N,)`. Returns the shape of `x`."""
        hidden = silu(self.enter(x) * self.gain(quality))
        x = x + self.leave(self.spatial(hidden))
        x = x + self.narrow(silu(self.widen(x)))
        return x


@torch.no_grad()
def macs(work: Callable[[], object], network: nn.Module) -> int:
    """Multiplications of all convolutions of `network` that `work` runs."""
    total = 0

    def count(conv: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += next(conv.parameters()).numel() * output.shape[2] * output.shape[3]

    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [conv.register_forward_hook(count) for conv in convs]
    try:
        work()
    finally:
        for hook in hooks:
            hook.remove()
    return total
