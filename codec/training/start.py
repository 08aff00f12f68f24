"""Networks before the first step, by the family of the recipe. Knows no loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TypeAlias

import torch
from torch import Tensor

from codec.errors import UsageError
from codec.models.clc import ClcConfig, ClcNetwork
from codec.models.iscs import Iscs, IscsConfig, IscsNetwork
from codec.models.iscs.klt import start_from_klt
from codec.models.trainable import AbstractTrainable
from codec.models.umgm import UmgmConfig, UmgmNetwork
from codec.models.umgm.start import start_from_iscs
from codec.training.recipe import Recipe
from codec.weights import SHIPPED

__all__ = ["fresh"]

KLT_PATCHES = 512

Draw: TypeAlias = Callable[[int], Tensor]


def fresh(recipe: Recipe, draw: Draw) -> AbstractTrainable:
    """The network that `recipe` starts with; `draw` gives so many patches of its data.

    Raises:
        UsageError: the recipe's family, sizes or start are unknown or do not fit.
    """
    family = recipe.name.partition("/")[0]
    starts: dict[str, Callable[[Recipe, Draw], AbstractTrainable]]
    starts = {"clc": _clc, "iscs": _iscs, "umgm": _umgm}
    if family not in starts:
        raise UsageError(f"name: want a family of {sorted(starts)} first, got {recipe.name!r}")
    try:
        return starts[family](recipe, draw)
    except (TypeError, ValueError) as error:
        raise UsageError(f"network: {error}") from error


def _iscs(recipe: Recipe, draw: Draw) -> IscsNetwork:
    """Shipped weights, or the KLT of the data."""
    if recipe.start:
        network = _shipped(recipe.start)
        config = replace(network.config, **recipe.network)
        return network.respan(config.lmbda_min, config.lmbda_max).grow(config)
    config = IscsConfig(**recipe.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = IscsNetwork(config)
    start_from_klt(network, draw(KLT_PATCHES))
    return network


def _clc(recipe: Recipe, _: Draw) -> ClcNetwork:
    """Shipped `iscs`, which stays, and what is to learn from references."""
    if any(stage.train != "entropy" for stage in recipe.stages):
        raise ValueError(
            'of clc train only "entropy": its iscs is that of the weights it starts from'
        )
    trained = _shipped(recipe.start)
    config = ClcConfig(**asdict(trained.config) | recipe.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = ClcNetwork(config)
    network.iscs.load_state_dict(trained.state_dict())
    return network


def _umgm(recipe: Recipe, _: Draw) -> UmgmNetwork:
    """Shipped `iscs`, as far as it goes."""
    config = UmgmConfig(**recipe.network)
    trained = _shipped(recipe.start).respan(config.lmbda_min, config.lmbda_max)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = UmgmNetwork(config)
        start_from_iscs(network, trained)
    return network


def _shipped(name: str) -> IscsNetwork:
    codec = SHIPPED.load(SHIPPED.find(name))
    if not isinstance(codec, Iscs):
        raise UsageError(f"start: want weights of iscs, got {name!r}")
    return codec.thaw()
