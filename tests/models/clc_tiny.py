"""A `clc` so small that a test may make it, and a zoo that has it."""

import functools
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from codec.models.clc import Clc, ClcConfig
from codec.models.clc.codec import collect
from codec.models.clc.network import reference_of
from codec.models.iscs import Iscs, IscsConfig, IscsNetwork
from codec.training.ship import ship
from codec.weights import Zoo

TINY = IscsConfig(
    M=16,
    inner=8,
    encoder_blocks=1,
    decoder_blocks=1,
    Z=4,
    hyper=8,
    context=8,
    groups=(8, 8),
)


def pictures(count: int, height: int = 256, width: int = 256) -> torch.Tensor:
    """Smooth noise `(count, 3, height, width)`, the same in every run."""
    coarse = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(3))
    size = (height, width)
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)


@functools.cache
def tiny(backbone: str = "00" * 32) -> Clc:
    """A codec that nobody trained, its entries the first three of four `pictures`."""
    torch.manual_seed(0)
    network = IscsNetwork(TINY)
    with torch.no_grad():  # so that much is not 0 and much is
        network.gain.knots.copy_(torch.linspace(1.0, 3.0, 9)[:, None].expand(9, 16))
        network.inverse_gain.knots.copy_(-network.gain.knots)
        network.g_a.down.weight.mul_(8)
        network.h_a.leave.weight.mul_(8)
        network.h_s_scale.level.knots.fill_(20.0)
    iscs = network.freeze(skip=4)
    config = ClcConfig(**asdict(TINY), keys=6, width=7)
    return Clc(
        iscs.network,
        iscs.coding,
        reference=reference_of(config),
        shift=np.full((101, 16), -512, np.int32),
        dictionary=collect(iscs, pictures(4)[:3].split(1), 8),
        metadata={"backbone": backbone, "reference": json.dumps({"keys": 6, "width": 7})},
    )


def tiny_zoo(folder: Path) -> Zoo:
    """A zoo with `clc/tiny` and `iscs/tiny`, on which it is built."""
    alone = Iscs(tiny().network, tiny().coding)
    ship(alone, "iscs/tiny", folder, parameters=1, macs=1, recipe="none")
    backbone = Zoo(folder).find("iscs").sha256
    ship(tiny(backbone), "clc/tiny", folder, parameters=1, macs=1, recipe="none")
    return Zoo(folder)
