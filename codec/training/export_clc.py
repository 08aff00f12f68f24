"""Freeze what `clc` learned, on the shipped `iscs` that it learned it for, with a dictionary."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import UsageError
from codec.models.clc import Clc, ClcNetwork
from codec.models.clc.codec import ENTRY, collect
from codec.models.frozen import freeze_rates
from codec.models.iscs import Iscs
from codec.weights import SHIPPED, Entry

__all__ = ["ENTRIES", "freeze_reference"]

ENTRIES = 1024


def freeze_reference(
    network: ClcNetwork, backbone: Entry, photos: Sequence[NDArray[np.uint8]]
) -> Clc:
    """The codec of `network` and the shipped weights `backbone`.

    Its dictionary is of all whole squares of 256x256 of `photos` `(3, H, W)`, the 1 024 in the
    middle of clusters.
    """
    iscs = SHIPPED.load(backbone)
    if not isinstance(iscs, Iscs):
        raise UsageError(f"start: want weights of iscs, got {backbone.name}")
    sizes = {"keys": network.config.keys, "width": network.config.width}
    return Clc(
        iscs.network,
        iscs.coding,
        reference=network.reference,
        shift=freeze_rates(network.reference.shift).numpy(),
        dictionary=collect(iscs, _squares(photos), ENTRIES),
        metadata={"backbone": backbone.sha256, "reference": json.dumps(sizes)},
    )


def _squares(photos: Sequence[NDArray[np.uint8]]) -> Iterator[Tensor]:
    side = ENTRY.width
    for photo in photos:
        for top in range(0, photo.shape[1] - side + 1, side):
            for left in range(0, photo.shape[2] - side + 1, side):
                part = photo[:, top : top + side, left : left + side]
                yield torch.from_numpy(part.copy())[None].float() / 255
