"""`nerv`, the family object: frames of a group as a network. Knows integers and pixels, no file.

Symbols of a group: `network`, its size and weights, and `frames`, an embedding of each frame, if
the variant has them. See `syntax` for what they are and `network` for what is drawn from them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from codec.entropy import AbstractCoder, BitCounter, Tables
from codec.errors import BitstreamError, UsageError
from codec.models.base import (
    SHORT,
    AbstractVideoFamily,
    GroupGeometry,
    Search,
    Symbols,
)
from codec.models.frozen import tables_of_tensors, tensors_of_tables
from codec.models.nerv.layout import CHANNELS, VARIANTS, Layout, Variant
from codec.models.nerv.network import draw, encoded_times
from codec.models.nerv.syntax import Group, code_group, layout_of, step_of
from codec.models.nerv.tables import STEPS

__all__ = ["Nerv", "epochs_of"]

FRAMES_MAX = 64
BITS_EACH = 4.0  # bits of a parameter that a network's size is chosen for
BITS_MOST = 6.0  # and never more
BITS_LEAST = 2.0  # of the smallest network's, where only a quality is asked for
END_BITS = 24  # of a sub-stream and its length, besides its symbols
EPOCHS = (20, 1500)  # of efforts 0 and 9


def epochs_of(effort: int) -> int:
    """How often a fit sees each frame."""
    return round(EPOCHS[0] * math.pow(EPOCHS[1] / EPOCHS[0], effort / 9))


@final
class Nerv(AbstractVideoFamily):
    """A codec whose networks are in the stream; what ships are tables, and the networks' parts."""

    frames_max = FRAMES_MAX

    def __init__(self, variant: Variant, values: Tables, side: Tables) -> None:
        """What both sides know.

        Args:
            variant: the networks' parts.
            values: of `value_tables`.
            side: of `side_tables`.
        """
        self.variant = variant
        self.streams = ("network", "frames") if variant.boost else ("network",)
        self._values, self._side = values, side
        self._device = torch.device("cpu")

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Nerv:
        """See `AbstractFamily.load`; the inverse of `tensors` and `metadata`."""
        values, side = (tables_of_tensors(f"{name}.", tensors) for name in ("values", "side"))
        return cls(VARIANTS[metadata["variant"]], values, side)

    def tensors(self) -> dict[str, Tensor]:
        """What a weight file holds."""
        return {
            **tensors_of_tables("values.", self._values),
            **tensors_of_tables("side.", self._side),
        }

    def metadata(self) -> dict[str, str]:
        """The rest of it: the variant's name."""
        return {"variant": self.variant.name}

    def to(self, device: torch.device) -> Nerv:
        """The same codec, whose floats are computed on `device`."""
        moved = copy.copy(self)
        moved._device = device
        return moved

    # ---- encoder only

    def bits_least(self, geometry: GroupGeometry) -> float:
        """Of the smallest network; see `AbstractVideoFamily.bits_least`."""
        layout = layout_of(CHANNELS[0], geometry, self.variant)
        return BITS_LEAST * layout.parameters + self._overhead(layout)

    def analyse_group(
        self, x: Tensor, geometry: GroupGeometry, bits: float, search: Search = SHORT
    ) -> Symbols:
        """Fit a network to a group; see `AbstractVideoFamily.analyse_group`."""
        from codec.models.nerv.fit import fit  # no decoder needs it

        layout = self.layout_for(geometry, bits)
        allowed = min(bits - self._overhead(layout), BITS_MOST * layout.parameters)
        iterations = epochs_of(search.effort) * geometry.frames
        group = fit(x.to(self._device), layout, max(allowed, 1.0), iterations, search)
        return self._within(group, geometry, bits)

    def layout_for(self, geometry: GroupGeometry, bits: float) -> Layout:
        """The largest network that has `BITS_EACH` for each parameter, or the smallest there is."""
        found = layout_of(CHANNELS[0], geometry, self.variant)
        for channels in CHANNELS[1:]:
            try:
                layout = layout_of(channels, geometry, self.variant)
            except BitstreamError:  # too many parameters
                break
            if layout.parameters * BITS_EACH + self._overhead(layout) > bits:
                break
            found = layout
        return found

    def _overhead(self, layout: Layout) -> float:
        """Bits of steps, tables and ends of streams."""
        return 14.0 * len(layout.shapes) + 18.0 * layout.embedded + 100

    def _within(self, group: Group, geometry: GroupGeometry, bits: float) -> Symbols:
        """The symbols of a group, in coarser steps if they would take more than `bits`."""
        fine, coarse = -1, STEPS  # too fine, and with nothing left but zeros
        while coarse - fine > 1:
            middle = (fine + coarse) // 2 if fine >= 0 else 0
            if self._needed(group.coarser(middle), geometry) <= bits:
                coarse = middle
            else:
                fine = middle
        needed = self._needed(group.coarser(coarse), geometry)
        if needed > bits:
            raise UsageError(
                f"target: want {bits / 8:.0f} bytes for {geometry.frames} frames, "
                f"the smallest network takes {needed / 8:.0f}"
            )
        return group.coarser(coarse).symbols(self._values)

    def _needed(self, group: Group, geometry: GroupGeometry) -> float:
        """Bits of a group, each sub-stream's end and length counted."""
        counter = BitCounter()
        self.traverse(counter, group.symbols(self._values), geometry)
        return counter.bits + END_BITS * len(self.streams)

    # ---- both directions

    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: GroupGeometry
    ) -> Symbols:
        """Code the network, then the embeddings."""
        return code_group(
            coder, symbols, geometry, self.variant, values=self._values, side=self._side
        )

    # ---- decoder only

    def synthesise_frames(
        self, symbols: Symbols, geometry: GroupGeometry, numbers: Sequence[int]
    ) -> Iterator[Tensor]:
        """Draw frames; see `AbstractVideoFamily.synthesise_frames`."""
        group = Group.read(symbols, geometry, self.variant)
        layout = group.layout
        steps = step_of(group.steps)
        count = len(layout.shapes)
        sizes = [math.prod(shape) for shape in layout.shapes.values()]
        flat = group.weights * np.repeat(steps[:count], sizes)
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        weights = {
            name: self._tensor(part.reshape(shape))
            for (name, shape), part in zip(layout.shapes.items(), parts, strict=True)
        }
        embeddings = group.embeddings * steps[count:, None, None, None]
        times = encoded_times(layout.frames)
        for number in numbers:
            known = None
            if layout.embedded:
                known = self._tensor(embeddings[None, :, number])
            with torch.inference_mode():
                yield draw(weights, layout, times[number : number + 1].to(self._device), known)

    def _tensor(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values).to(self._device, torch.float32)
        if tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor
