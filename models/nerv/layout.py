"""The sizes of a network that draws the frames of one group. Knows no weight and no coder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import final

__all__ = ["CHANNELS", "ENCODED", "VARIANTS", "Layout", "Variant"]

CHANNELS = range(8, 196, 4)
"""Of the coarsest features; a stream says which by its place here."""

FREQUENCIES = 40
ENCODED = 2 * FREQUENCIES
"""Numbers of a positional encoding."""

HIDDEN = 16  # of what becomes an affine map of features at a time
SHRINK = (5, 7)  # of channels from stage to stage, a fraction
CHANNELS_MIN, CHANNELS_MAX = 8, 16  # of full-size features
SIDE_MIN = 48  # the shorter side of the coarsest features is at least a quarter of it


@final
@dataclass(frozen=True)
class Variant:
    """Which parts a network has.

    Attributes:
        name: what weight files call it.
        residual: SCRBs before and after each upsampling, behind a projection.
        skip: the projection, interpolated, is added to what a stage gives.
        boost: embeddings of frames instead of a stem that knows only the time, sines, and features
            scaled and shifted by the time.
    """

    name: str
    residual: bool
    skip: bool
    boost: bool


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("nerv", residual=False, skip=False, boost=False),
        Variant("scrb", residual=True, skip=False, boost=False),
        Variant("nerv++", residual=True, skip=True, boost=False),
        Variant("boost", residual=True, skip=True, boost=True),
        Variant("light", residual=False, skip=False, boost=True),
    )
}


@final
@dataclass(frozen=True)
class Layout:
    """A network for a group.

    Attributes:
        variant: its parts.
        frames: how many it draws, at least 1.
        height: of a frame in pixels, at least 1.
        width: likewise.
        channels: one of `CHANNELS`.
    """

    variant: Variant
    frames: int
    height: int
    width: int
    channels: int

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """How many times as large each stage makes its features."""
        stages = 1
        while SIDE_MIN << stages <= min(self.height, self.width):
            stages += 1
        return (4, *(2 for _ in range(stages - 1)))

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the coarsest features."""
        stride = math.prod(self.strides)
        return -(-self.height // stride), -(-self.width // stride)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Channels of the coarsest features, then of those that each stage gives."""
        widths, upper = [self.channels], self.channels
        for _ in self.strides:
            upper = max(upper * SHRINK[0] // SHRINK[1], CHANNELS_MIN)
            widths.append(upper)
        widths[-1] = min(widths[-1], CHANNELS_MAX)
        return tuple(widths)

    @property
    def embedded(self) -> int:
        """Channels of a frame's embedding; 0 if there is none."""
        return max(2, self.channels // 8) if self.variant.boost else 0

    @property
    def embeddings(self) -> tuple[int, int, int]:
        """Shape of one channel of all embeddings: frames, rows, columns."""
        return (self.frames, *self.grid)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all weights, in the order of coding; what meets a bias has its own."""
        first = self.widths[0]
        found: dict[str, tuple[int, ...]] = {}

        def layer(name: str, *shape: int) -> None:
            found[f"{name}.weight"], found[f"{name}.bias"] = shape, shape[:1]

        if self.variant.boost:
            layer("stem", 2 * first, self.embedded, 3, 3)
            layer("time", HIDDEN, ENCODED)
        else:
            layer("stem", 2 * (first // 2), ENCODED)
            layer("draw", first * math.prod(self.grid), first // 2)
        for number, (stride, (before, after)) in enumerate(
            zip(self.strides, pairwise(self.widths), strict=True)
        ):
            if self.variant.residual:
                layer(f"{number}.project", after, before, 1, 1)
                before = after
            if self.variant.boost:
                found[f"{number}.affine.weight"] = (2 * before, HIDDEN)
            layer(f"{number}.up", after * stride**2, before, 3, 3)
            for place in ("before", "behind") if self.variant.residual else ():
                layer(f"{number}.{place}.space", after, 1, 3, 3)
                layer(f"{number}.{place}.mix0", after, after, 1, 1)
                layer(f"{number}.{place}.mix1", after, after, 1, 1)
        layer("head", 3, self.widths[-1], 1, 1)
        return found

    @property
    def weights(self) -> int:
        """How many numbers the network has, without embeddings."""
        return sum(map(math.prod, self.shapes.values()))

    @property
    def parameters(self) -> int:
        """How many there are with embeddings."""
        return self.weights + self.embedded * math.prod(self.embeddings)

    @property
    def macs(self) -> float:
        """Multiplications for each pixel of a frame."""
        place = 0
        total, rows, columns = 0.0, *self.grid
        for name, shape in self.shapes.items():
            stage = name.partition(".")[0]
            if stage.isdigit() and int(stage) != place:
                place = int(stage)
            scale = math.prod(self.strides[:place])
            if name.startswith("head") or ".behind." in name:
                scale = math.prod(self.strides[: place + 1])
            if len(shape) == 4:
                total += math.prod(shape) * rows * columns * scale**2
            elif len(shape) == 2:
                total += math.prod(shape)
        return total / (self.height * self.width)
