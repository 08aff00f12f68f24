"""Pictures that both sides have: latents of `iscs`, coded, and how to find the nearest. No network.

A decoder wants one entry by its number and searches nothing; the descriptors are the encoder's.
They are spatial pyramids (Lazebnik et al. 2006) of the core's latents on fewer axes (PCA), and an
entry stands for its cluster of them (k-means), as in conditional latent coding, which takes them
from another network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from codec.entropy import IntArray

__all__ = ["ENTRIES_MAX", "Dictionary", "Floats", "pooled"]

ENTRIES_MAX = 4096
AXES = 64
PYRAMID = (1, 2, 4)

Floats: TypeAlias = NDArray[np.float32]


def pooled(core: Tensor) -> Floats:
    """What descriptors are made of, `(B, F)`.

    Args:
        core: `(B, core, 16, 16)`, the core's latents over their usual size.
    """
    both = torch.cat([core, core.abs()], dim=1)
    parts = [functional.adaptive_avg_pool2d(both, side).flatten(1) for side in PYRAMID]
    found: Floats = torch.cat(parts, dim=1).float().cpu().numpy()
    return found


@final
@dataclass(frozen=True, eq=False)
class Dictionary:
    """K entries and their descriptors on D axes. Raises ValueError if its parts do not fit.

    Attributes:
        sizes: `(K, S)` bytes of each of the S sub-streams of each entry.
        streams: all of them, one after the other, uint8.
        descriptors: `(K, D)`.
        axes: `(D, F)`.
        centre: `(F,)`, from which they are measured.
    """

    sizes: IntArray
    streams: NDArray[np.uint8]
    descriptors: Floats
    axes: Floats
    centre: Floats

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in self.__dataclass_fields__}
        K, D, F = len(self.sizes), len(self.axes), len(self.centre)
        fits = self.sizes.ndim == 2 and 1 <= K <= ENTRIES_MAX and self.sizes.min() >= 0
        fits &= self.streams.shape == (int(self.sizes.sum(dtype=np.int64)),)
        if not fits or self.descriptors.shape != (K, D) or self.axes.shape != (D, F):
            raise ValueError(f"dictionary: its parts do not fit: {shapes}")

    def __len__(self) -> int:
        return len(self.sizes)

    def payloads(self, number: int) -> list[bytes]:
        """The sub-streams of an entry."""
        start = int(self.sizes[:number].sum(dtype=np.int64))
        ends = list(accumulate(map(int, self.sizes[number]), initial=start))
        return [self.streams[a:b].tobytes() for a, b in pairwise(ends)]

    def nearest(self, features: Floats, count: int) -> list[int]:
        """The numbers of the entries nearest to `pooled` `(F,)`, the nearest first."""
        away = self.descriptors - self.axes @ (features - self.centre)
        order = np.argsort(np.square(away).sum(1), kind="stable")
        return [int(number) for number in order[:count]]

    @classmethod
    def of(cls, entries: Sequence[Sequence[bytes]], features: Floats, size: int) -> Dictionary:
        """At most `size` of `entries`, those in the middle of clusters; all if they are fewer.

        Args:
            entries: the sub-streams of each.
            features: `pooled` of each, `(N, F)`.
            size: 1 to `ENTRIES_MAX`.
        """
        from scipy.cluster.vq import kmeans2

        _, first = np.unique([b"".join(entry) for entry in entries], return_index=True)
        places = np.sort(first)
        features = features[places]
        centre = features.mean(0)
        _, _, axes = np.linalg.svd(features - centre, full_matrices=False)
        axes = axes[:AXES]
        descriptors = (features - centre) @ axes.T
        if len(places) > size:
            centres, owner = kmeans2(descriptors, size, minit="++", seed=1)
            away = np.square(descriptors - centres[owner]).sum(1)
            order = np.lexsort((away, owner))
            _, first = np.unique(owner[order], return_index=True)
            kept = np.sort(order[first])
            places, descriptors = places[kept], descriptors[kept]
        chosen = [entries[place] for place in places]
        return cls(
            sizes=np.array([[len(part) for part in entry] for entry in chosen], np.int32),
            streams=np.frombuffer(b"".join(b"".join(entry) for entry in chosen), np.uint8),
            descriptors=descriptors.astype(np.float16).astype(np.float32),
            axes=axes.astype(np.float16).astype(np.float32),
            centre=centre.astype(np.float32),
        )

    def tensors(self) -> dict[str, Tensor]:
        """For a weight file or one of its own."""
        return {
            "dictionary.sizes": torch.from_numpy(self.sizes.copy()),
            "dictionary.streams": torch.from_numpy(self.streams.copy()),
            "dictionary.descriptors": torch.from_numpy(self.descriptors).half(),
            "dictionary.axes": torch.from_numpy(self.axes).half(),
            "dictionary.centre": torch.from_numpy(self.centre),
        }

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Dictionary:
        """The inverse of `tensors`; other keys are ignored.

        Raises:
            KeyError, ValueError: a tensor is missing, or they do not fit each other.
        """
        types = {"sizes": torch.int32, "streams": torch.uint8}
        parts = {
            name: tensors[f"dictionary.{name}"].to(types.get(name, torch.float32)).numpy()
            for name in cls.__dataclass_fields__
        }
        return cls(**parts)
