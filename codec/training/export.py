"""From a training state to weights that ship: freeze, fit the tables to counts, write, list.

    python -m codec.training.export runs/iscs-small/state.pt recipes/iscs-small.toml

Knows which network a recipe's family trains and how its tables are fitted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from codec.datasets import read_photos
from codec.models.clc import Clc, ClcConfig, ClcNetwork
from codec.models.iscs import Iscs, IscsConfig, IscsNetwork
from codec.models.layers import macs
from codec.models.trainable import AbstractTrainable
from codec.models.umgm import Umgm, UmgmConfig, UmgmNetwork
from codec.training.export_clc import freeze_reference
from codec.training.export_iscs import fit_tables
from codec.training.export_umgm import fit_codebooks
from codec.training.recipe import Recipe, read_recipe
from codec.training.ship import AbstractShippable, ship

__all__ = ["decode_macs", "export"]

PHOTOS = 96
SKIP = 4  # scale 0.18: behind the dead zone hardly a symbol of 1000 is not 0

State: TypeAlias = dict[str, Any]
Freeze: TypeAlias = Callable[[State, Recipe], tuple[AbstractShippable, AbstractTrainable]]


def export(state: Path, recipe: Path, zoo: Path) -> Path:
    """Write the weights of a training `state` into `zoo`; the running average is what ships."""
    plan = read_recipe(recipe)
    saved = torch.load(state, map_location="cpu", weights_only=True)
    freezers: dict[str, Freeze] = {"clc": _clc, "iscs": _iscs, "umgm": _umgm}
    codec, network = freezers[plan.name.partition("/")[0]](saved, plan)
    return ship(
        codec,
        plan.name,
        zoo,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=decode_macs(network),
        recipe=f"recipes/{recipe.name}, {saved['counters']['samples']} samples",
    )


def _clc(saved: State, plan: Recipe) -> tuple[Clc, ClcNetwork]:
    network = ClcNetwork(ClcConfig(**saved["config"]))
    network.load_state_dict(saved["average"])
    return freeze_reference(network, read_photos(plan.data)), network


def _iscs(saved: State, plan: Recipe) -> tuple[Iscs, IscsNetwork]:
    network = IscsNetwork(IscsConfig(**saved["config"]))
    network.load_state_dict(saved["average"])
    frozen = network.freeze(skip=SKIP)
    return fit_tables(Iscs.load(frozen.tensors(), frozen.metadata()), _some(plan.data)), network


def _umgm(saved: State, plan: Recipe) -> tuple[Umgm, UmgmNetwork]:
    network = UmgmNetwork(UmgmConfig(**saved["config"]))
    network.load_state_dict(saved["average"])
    frozen = Umgm.freeze(network)
    return fit_codebooks(Umgm.load(frozen.tensors(), frozen.metadata()), _some(plan.data)), network


def decode_macs(network: AbstractTrainable, side: int = 256) -> float:
    """Multiplications of the decoder for each pixel: both halves of h_s, the context, g_s."""
    x, quality = torch.zeros(1, 3, side, side), torch.zeros(1)
    encoder = macs(lambda: network.encoder(x, quality), network)
    return (macs(lambda: network(x, quality), network) - encoder) / side**2


def _some(sources: Sequence[Path]) -> list[NDArray[np.uint8]]:
    photos = read_photos(sources)
    return photos[:: max(1, len(photos) // PHOTOS)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put trained weights into the zoo.")
    parser.add_argument("state", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--zoo", type=Path, default=Path(__file__).parents[1] / "zoo")
    options = parser.parse_args()
    print(export(options.state, options.recipe, options.zoo))
