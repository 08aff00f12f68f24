"""ISCS: which channels matter, in what order and in which groups, from parameters alone.

Channels of a pretrained autoencoder are ordered and grouped by the statistics of its parameters
(arXiv 2509.16853 v1: weight variance, bias magnitude, pairwise correlation); the product with the
synthesis's column norm is ours and does not change when a latent is scaled. The order is folded
into the weights, so a stream carries nothing of it. Knows no training and no data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from codec.models.iscs.network import IscsNetwork

__all__ = ["correlations", "partition", "product_score", "regroup", "reorder", "strict_score"]

MIDDLE = 50.0  # gains depend on the rate; the order is made once, for the middle one


@torch.no_grad()
def strict_score(network: IscsNetwork) -> Tensor:
    """Each channel's salience as the paper has it, `(M,)` in [0, 2]: weight variance plus bias.

    Both are scaled to [0, 1] over the channels.
    """
    down = network.g_a.down
    bias = down.bias.abs()  # type: ignore[union-attr]
    return _unit(down.weight.flatten(1).var(1)) + _unit(bias)


@torch.no_grad()
def product_score(network: IscsNetwork) -> Tensor:
    """Each channel's weight variance times its column's energy in the synthesis, `(M,)` in [0, 1].

    With the gains of the middle rate on both sides.
    """
    quality = torch.tensor([MIDDLE])
    gain, inverse = (t(quality)[0, :, 0, 0].exp() for t in (network.gain, network.inverse_gain))
    variance = network.g_a.down.weight.flatten(1).var(1) * gain.square()
    column = network.g_s.up.weight.square().sum((0, 2, 3)) * inverse.square()
    return _unit(variance * column)


@torch.no_grad()
def correlations(network: IscsNetwork) -> Tensor:
    """Absolute correlation of the channels' analysis weights, `(M, M)` in [0, 1]."""
    return torch.corrcoef(network.g_a.down.weight.flatten(1)).abs()


def partition(
    score: Tensor, correlation: Tensor, *, core: int, groups: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The order of channels and the sizes of their groups; equal scores keep their order.

    The core is the `core` channels of the highest score. The others are dealt to groups of about
    equal size: each group begins with the most salient channel that is left and takes those that
    correlate most with what it has, so that groups know little of each other. Within a group, and
    among groups, the more salient come first.

    Args:
        score: `(M,)`.
        correlation: `(M, M)` in [0, 1].
        core: channels of the core, 1..M - groups.
        groups: auxiliary groups, at least 1.
    """
    ranked = torch.argsort(score, descending=True, stable=True).tolist()
    order, left = ranked[:core], ranked[core:]
    sizes = [core]
    for number in range(groups):
        size = -(-len(left) // (groups - number))
        group = [left[0]]
        affinity = correlation[left[0]].clone()
        while len(group) < size:
            following = max((c for c in left if c not in group), key=lambda c: float(affinity[c]))
            group.append(following)
            affinity += correlation[following]
        order += [channel for channel in ranked if channel in group]
        left = [channel for channel in left if channel not in group]
        sizes.append(size)
    return tuple(order), tuple(sizes)


@torch.no_grad()
def reorder(network: IscsNetwork, order: Sequence[int]) -> None:
    """Put the channels of y into `order`, everywhere in the weights; what it computes stays.

    Args:
        network: without groups; changed in place.
        order: a permutation of the channels; `order[0]` comes first.
    """
    M = network.config.M
    if network.config.groups or sorted(order) != list(range(M)):
        raise ValueError(f"order: want a permutation of {M} channels without groups")
    chosen = torch.tensor(order)
    twice = torch.cat([chosen, chosen + M])
    state = network.state_dict()
    rows = ["g_a.down.weight", "g_a.down.bias", "std"]
    rows += [f"h_s_scale.leave.{part}" for part in ("weight", "bias")]
    rows += [name for name in state if name.startswith(("h_s_mean.first", "h_s_mean.leave"))]
    rows += [name for name in state if name.startswith("h_s_mean.near")]
    for name in rows:
        state[name].copy_(state[name][chosen])
    for name in ("gain.knots", "inverse_gain.knots", "h_s_scale.level.knots", "g_s.up.weight"):
        state[name].copy_(state[name][:, chosen])
    state["h_a.enter.weight"].copy_(state["h_a.enter.weight"][:, twice])
    for name in (f"h_s_mean.adapt.{k}.weight" for k in range(len(network.h_s_mean.adapt))):
        state[name][:, :M] = state[name][:, :M][:, chosen]
    # Which position a channel codes at a step goes by its place, unless it brings its own.
    network.h_s_mean.masks.copy_(network.h_s_mean.masks[:, chosen])


@torch.no_grad()
def regroup(network: IscsNetwork, groups: Sequence[int]) -> IscsNetwork:
    """A network whose context is by groups: the same transforms, context networks to be trained.

    They start as what the old ones say with the core alone.

    Args:
        network: without groups, its channels in their order.
        groups: sizes of the core and of the auxiliary groups.
    """
    config = dataclasses.replace(network.config, groups=tuple(groups))
    made = IscsNetwork(config)
    core, M = config.core, config.M
    state, old = made.state_dict(), network.state_dict()
    for name, value in state.items():
        if name in old and old[name].shape == value.shape:
            value.copy_(old[name])
    steps = len(network.h_s_mean.adapt)
    for k in range(steps):
        adapt = old[f"h_s_mean.adapt.{k}.weight"]
        kept = torch.cat([adapt[:, :core], adapt[:, M:]], dim=1)
        state[f"h_s_mean.adapt.{k}.weight"].copy_(kept)
        state[f"h_s_mean.near.{k}.weight"].copy_(old[f"h_s_mean.near.{k}.weight"][:core])
    for name in ["first", *(f"leave.{k}" for k in range(steps))]:
        for part in ("weight", "bias"):
            state[f"h_s_mean.{name}.{part}"].copy_(old[f"h_s_mean.{name}.{part}"][:core])
    last = steps - 1
    state["auxiliary_means.adapt.weight"].copy_(state[f"h_s_mean.adapt.{last}.weight"])
    state["auxiliary_means.adapt.bias"].copy_(old[f"h_s_mean.adapt.{last}.bias"])
    for part in ("weight", "bias"):
        state[f"auxiliary_means.leave.{part}"].copy_(old[f"h_s_mean.leave.{last}.{part}"][core:])
    for name in (name for name in old if name.startswith("h_s_mean.block.")):
        state[name.replace("h_s_mean", "auxiliary_means")].copy_(old[name])
    return made


def _unit(values: Tensor) -> Tensor:
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=1e-12)
