"""The trainable network of `umgm`. Knows no byte: `codec.models.umgm.codec` codes with its weights.

    x -- g_a -- gain --> y (stride 16) -- h_a --> z
    z -- codewords (stride 64)                    --> levels and means of all y
    the core of y, every other row and column (32) --> levels and means of the rest of the core
    the rest of the core (16)                      --> levels and means of all other channels
    y less means -- codewords --> y_hat -- 1 / gain -- g_s --> x_hat

One estimate in a cascade: what the means of a level leave over is a mixture again, finer in space.
After Zhu et al., "Unified Multivariate Gaussian Mixture for Efficient Neural Image Compression"
(CVPR 2022); docs/adr has what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from codec.models.context import AuxiliaryMeans, MeanNetwork, ScaleContext, magnitudes
from codec.models.hyper import HyperAnalysis, ScaleNetwork
from codec.models.layers import RateTable
from codec.models.trainable import AbstractTrainable, Output, Rates
from codec.models.transforms import Analysis, Synthesis
from codec.models.umgm.mixture import LEVEL_UNIT, Mixture, Quantised, Shape

__all__ = ["Coded", "UmgmConfig", "UmgmNetwork", "every_other", "lattice_masks"]


@dataclass(frozen=True)
class UmgmConfig(Rates):
    """Sizes: of the networks as in `iscs`, and of the codebooks.

    `z`, `core` and `rest` are runs of groups alike: how many, of how many channels, with how many
    codewords. `layers` are the numbers of groups of `rest` in each of its sub-streams.
    """

    inner: int = 160
    encoder_blocks: int = 6
    decoder_blocks: int = 6
    hyper: int = 128
    context: int = 192
    z: tuple[Shape, ...] = ((32, 2, 128),)
    core: tuple[Shape, ...] = ((2, 1, 256), (22, 1, 128), (20, 2, 512))
    rest: tuple[Shape, ...] = ((16, 2, 256), (8, 4, 512), (16, 2, 256), (40, 4, 512))
    layers: tuple[int, ...] = (24, 56)
    lmbda_max: float = 0.04

    def __post_init__(self) -> None:
        for name in ("z", "core", "rest"):  # JSON and TOML have lists
            object.__setattr__(self, name, tuple(map(tuple, getattr(self, name))))
        object.__setattr__(self, "layers", tuple(self.layers))
        if sum(self.layers) != sum(groups for groups, _, _ in self.rest) or min(self.layers) < 1:
            raise ValueError(f"layers: want sizes that sum to the groups, got {self.layers}")


class Coded(NamedTuple):
    """`y_hat` in steps; of each sample, `(N,)`, the bits, and the errors of y and z in bits."""

    y_hat: Tensor
    bits: Tensor
    error: Tensor
    error_z: Tensor


def lattice_masks(channels: int) -> Tensor:
    """`(2, channels, 2, 2)`: first every other row and column, then what is between."""
    masks = torch.zeros(2, channels, 2, 2)
    masks[0, :, 0, 0] = 1
    masks[1] = 1 - masks[0]
    return masks


def every_other(x: Tensor) -> Tensor:
    """A view of every other row and column of `(N, C, h, w)`, from the first."""
    return x[:, :, ::2, ::2]


@final
class UmgmNetwork(AbstractTrainable):
    """All of it, with the gains of the rates; `std` is each latent's usual size."""

    config: UmgmConfig
    std: Tensor

    def __init__(self, config: UmgmConfig) -> None:
        super().__init__()
        self.config = config
        self.z, self.core, self.rest = (Mixture(s) for s in (config.z, config.core, config.rest))
        core, rest, Z = self.core.channels, self.rest.channels, self.z.channels
        M, hyper, context = core + rest, config.hyper, config.context
        self.g_a = Analysis(M=M, inner=config.inner, blocks=config.encoder_blocks)
        self.g_s = Synthesis(M=M, inner=config.inner, blocks=config.decoder_blocks)
        self.h_a = HyperAnalysis(M=M, hyper=hyper, Z=Z)
        groups = (self.core.groups, self.rest.groups)
        self.h_s_scale = ScaleNetwork(Z=Z, hyper=hyper, out=sum(groups))
        self.h_s_mean = MeanNetwork(lattice_masks(core), Z=Z, width=hyper, context=context)
        self.scale_context = nn.ModuleList(
            ScaleContext(core=core, hidden=hyper, width=context, out=out, near=False)
            for out in groups
        )
        self.auxiliary_means = AuxiliaryMeans(core=core, auxiliary=rest, context=context)
        self.gain = RateTable(M)  # natural logarithms; y is coded in steps of exp(-gain)
        self.inverse_gain = RateTable(M)
        self.prior_z = RateTable(self.z.groups, value=float(LEVEL_UNIT))
        self.register_buffer("std", torch.ones(M))
        self.core_channels = core

    def entropy_parameters(self) -> list[nn.Parameter]:
        """See `AbstractTrainable.entropy_parameters`."""
        parts = [self.z, self.core, self.rest, self.h_a, self.h_s_scale, self.h_s_mean]
        parts += [self.scale_context, self.auxiliary_means, self.prior_z]
        return [parameter for part in parts for parameter in part.parameters()]

    def code(self, y: Tensor, quality: Tensor) -> Coded:
        """Quantise and count.

        Args:
            y: `(N, M, h, w)` in natural units; h and w multiples of 4.
            quality: `(N,)`.
        """
        gain = self.gain(quality).exp()
        norm = gain * self.std[:, None, None]
        y = y * gain
        z = self.h_a(y, norm).float()
        found_z: Quantised = self.z(z, self.prior_z(quality).expand(-1, -1, *z.shape[2:]))
        hidden = self.h_s_scale.hidden(found_z.x_hat)
        levels = self.h_s_scale(hidden, quality).float()
        features = self.h_s_mean.features(found_z.x_hat)

        core, groups = self.core.channels, self.core.groups
        y_core, norm_core, levels_core = y[:, :core], norm[:, :core], levels[:, :groups]
        mean = self.h_s_mean.step(0, features, y_core, quality).float() * norm_core
        found: Quantised = self.core(every_other(y_core - mean), every_other(levels_core))
        words, y_hat = torch.zeros_like(y_core), torch.zeros_like(y_core)
        every_other(words).copy_(found.x_hat)
        every_other(y_hat).copy_(found.x_hat + every_other(mean))
        bits, error = found_z.bits + found.bits, found.error

        between = self.h_s_mean.mask(1, *y.shape[2:])
        levels_core = levels_core + self._change(0, words, hidden)
        mean = self.h_s_mean.step(1, features, y_hat / norm_core, quality).float() * norm_core
        found = self.core(y_core - mean, levels_core, between[0, 0])
        words = words + found.x_hat * between
        y_hat = y_hat + (found.x_hat + mean) * between
        bits, error = bits + found.bits, error + found.error

        mean = self.auxiliary_means(features, y_hat / norm_core, quality).float() * norm[:, core:]
        levels = levels[:, groups:] + self._change(1, words, hidden)
        found = self.rest(y[:, core:] - mean, levels)
        y_hat = torch.cat([y_hat, found.x_hat + mean], dim=1)
        return Coded(y_hat, bits + found.bits, error + found.error, found_z.error)

    def _change(self, place: int, words: Tensor, hidden: Tensor) -> Tensor:
        """What the core's codewords add to levels."""
        change: Tensor = self.scale_context[place](magnitudes(words), hidden)
        return change.float()

    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """See `AbstractTrainable.forward`."""
        coded = self.code(self.g_a(x, quality).float(), quality)
        x_hat = self.g_s(coded.y_hat * self.inverse_gain(quality).exp(), quality)
        errors = coded.error + coded.error_z
        return Output(x_hat.float(), coded.bits + errors - errors.detach())

    def cost(self, x: Tensor, quality: Tensor) -> Tensor:
        """Bits, and errors of y at their worth in bits; see `AbstractTrainable.cost`."""
        with torch.no_grad():
            y = self.g_a(x, quality).float()
        coded = self.code(y, quality)
        return coded.bits + coded.error + coded.error_z - coded.error_z.detach()
