"""The transforms of the families with trained weights: pixels to latents and back.

    x -- pixel unshuffle 8 -- 1x1 -- blocks -- 2x2 stride 2 --> y           (stride 16)
    y -- 1x1 to 2x2 -- blocks -- 1x1 -- pixel shuffle 8 --> x_hat

Without its residual branches this is a block transform. Knows neither rates nor entropy.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from codec.models.layers import BottleneckBlock

__all__ = ["BLOCK", "STREAM", "STRIDE", "Analysis", "Synthesis", "reach"]

BLOCK = 8  # pixels to a side of the first, non-overlapping transform
STREAM = 3 * BLOCK * BLOCK
STRIDE = 2 * BLOCK


@final
class Analysis(nn.Module):
    """g_a: `(N, 3, H, W)` in [0, 1] to `(N, M, H/16, W/16)`, before the rate's gain."""

    def __init__(self, *, M: int, inner: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(STREAM, STREAM, 1)
        self.blocks = nn.ModuleList(BottleneckBlock(STREAM, inner) for _ in range(blocks))
        self.down = nn.Conv2d(STREAM, M, 2, stride=2)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """Map pixels to latents; `quality` is the rate of each sample, `(N,)`."""
        feature = self.enter(functional.pixel_unshuffle(x - 0.5, BLOCK))
        for block in self.blocks:
            feature = block(feature, quality)
        return self.down(feature)  # type: ignore[no-any-return]


@final
class Synthesis(nn.Module):
    """g_s: latents in natural units `(N, M, h, w)` to `(N, 3, 16 h, 16 w)`."""

    def __init__(self, *, M: int, inner: int, blocks: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(M, 4 * STREAM, 1)
        self.blocks = nn.ModuleList(BottleneckBlock(STREAM, inner) for _ in range(blocks))
        self.leave = nn.Conv2d(STREAM, STREAM, 1)

    def forward(self, y: Tensor, quality: Tensor) -> Tensor:
        """Map latents to pixels; `quality` is the rate of each sample, `(N,)`."""
        feature = functional.pixel_shuffle(self.up(y), 2)
        for block in self.blocks:
            feature = block(feature, quality)
        return functional.pixel_shuffle(self.leave(feature), BLOCK) + 0.5


def reach(blocks: int) -> int:
    """How many pixels to each side move a pixel, or a latent: a multiple of the stride."""
    # Each block's depthwise 3x3 reaches 8 pixels further; the stride rounds it up.
    return -(-BLOCK * (blocks + 1) // STRIDE) * STRIDE
