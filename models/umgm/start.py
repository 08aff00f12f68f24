"""Begin `umgm` as trained `iscs`. Knows both networks, no data.

All networks are taken over, less what has no place: of the four steps in which `iscs` codes its
core, the first two. Codewords are the vectors of integers that scalar quantisation would give most,
and a group's level is the mean of its channels'.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from codec.models.iscs.network import LEVEL_STEP as LEVEL_STEP_ISCS
from codec.models.iscs.network import SCALE_MIN, IscsNetwork
from codec.models.layers import QUALITY_MAX
from codec.models.umgm.mixture import LEVEL_STEP, LEVEL_UNIT
from codec.models.umgm.network import UmgmNetwork

__all__ = ["start_from_iscs"]

SPREAD_Z = 2.0  # steps
COARSER = LEVEL_STEP_ISCS / LEVEL_STEP
ALIKE = ("g_a.", "g_s.", "gain.", "inverse_gain.", "std", "h_a.", "h_s_mean.", "auxiliary_means.")


@torch.no_grad()
def start_from_iscs(network: UmgmNetwork, trained: IscsNetwork) -> None:
    """Set all of `network` from one `trained` for the same rates, of the same sizes.

    Raises:
        ValueError: the sizes differ.
    """
    _check(network, trained)
    theirs, own = trained.state_dict(), network.state_dict()
    taken = {name: theirs[name] for name in own if name.startswith(ALIKE)}
    for name in own:
        if name.startswith("h_s_scale.") and "leave" not in name and "level" not in name:
            taken[name] = theirs[name]

    best = torch.full((1,), float(QUALITY_MAX))
    std = network.std.copy_(theirs["std"]) * trained.gain(best)[0, :, 0, 0].exp()
    core = network.core.channels
    network.core.start(std[:core])
    network.rest.start(std[core:])
    network.z.start(torch.full((network.z.channels,), SPREAD_Z))

    spread = torch.cat([network.core.spread(), network.rest.spread()])
    sizes = network.core.sizes + network.rest.sizes
    for kind in ("weight", "bias"):
        rows = theirs[f"h_s_scale.leave.{kind}"]
        taken[f"h_s_scale.leave.{kind}"] = COARSER * _means(rows, sizes)
        last = len(trained.scale_context) - 1
        for mine, source, mixture in ((0, 0, network.core), (1, last, network.rest)):
            for layer in ("spatial", "enter", "leave"):
                value = theirs[f"scale_context.{source}.{layer}.{kind}"]
                if layer == "leave":
                    value = COARSER * _means(value, mixture.sizes)
                taken[f"scale_context.{mine}.{layer}.{kind}"] = value
    taken["h_s_scale.level.knots"] = _levels(theirs["h_s_scale.level.knots"], spread, sizes)
    taken["prior_z.knots"] = _levels(theirs["prior_z.knots"], network.z.spread(), network.z.sizes)
    for name, value in taken.items():
        own[name].copy_(value)


def _check(network: UmgmNetwork, trained: IscsNetwork) -> None:
    names = ("inner", "encoder_blocks", "decoder_blocks", "hyper", "context")
    own = {name: getattr(network.config, name) for name in names}
    own |= {"M": len(network.std), "Z": network.z.channels, "core": network.core_channels}
    theirs = {name: getattr(trained.config, name) for name in own}
    if own != theirs:
        raise ValueError(f"sizes: {own} do not fit the trained {theirs}")


def _levels(knots: Tensor, spread: Tensor, sizes: list[int]) -> Tensor:
    """Levels of single scales `(n, channels)` as those of groups `(n, groups)`, absolute."""
    log_scale = math.log(SCALE_MIN) + LEVEL_STEP_ISCS * knots.T - spread[:, None]
    return LEVEL_UNIT + _means(log_scale / LEVEL_STEP, sizes).T


def _means(rows: Tensor, sizes: list[int]) -> Tensor:
    """The mean of each group's rows of `(channels, ...)`."""
    return torch.stack([part.mean(0) for part in torch.split(rows, sizes)])
