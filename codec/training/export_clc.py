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


def freeze_reference(network: ClcNetwork, photos: Sequence[NDArray[np.uint8]]) -> Clc:
    """The codec of `network` and the shipped weights that it was trained on.

    Its dictionary is of all whole squares of 256x256 of `photos` `(3, H, W)`, the 1 024 in the
    middle of clusters.
    """
    backbone, iscs = _backbone(network)
    sizes = {"keys": network.config.keys, "width": network.config.width}
    return Clc(
        iscs.network,
        iscs.coding,
        reference=network.reference,
        shift=freeze_rates(network.reference.shift).numpy(),
        dictionary=collect(iscs, _squares(photos), ENTRIES),
        metadata={"backbone": backbone.sha256, "reference": json.dumps(sizes)},
    )


def _backbone(network: ClcNetwork) -> tuple[Entry, Iscs]:
    """The shipped `iscs` that `network` has; newer weights of its name may have come since."""
    for entry in reversed(SHIPPED.manifest()):
        if entry.family == "iscs":
            codec = SHIPPED.load(entry)
            assert isinstance(codec, Iscs)
            theirs, own = codec.network.g_a.state_dict(), network.iscs.g_a.state_dict()
            if all(name in own and torch.equal(own[name], theirs[name]) for name in theirs):
                return entry, codec
    raise UsageError("the iscs that this was trained on is not among the shipped weights")


def _squares(photos: Sequence[NDArray[np.uint8]]) -> Iterator[Tensor]:
    side = ENTRY.width
    for photo in photos:
        for top in range(0, photo.shape[1] - side + 1, side):
            for left in range(0, photo.shape[2] - side + 1, side):
                part = photo[:, top : top + side, left : left + side]
                yield torch.from_numpy(part.copy())[None].float() / 255
