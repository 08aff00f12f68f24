"""The trainable network of `clc`: a trained `iscs` that stays as it is, and what references add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from codec.models.clc.imitations import imitations
from codec.models.clc.reference import SQUARES, Reference, choices_of, refined, spread, start_of
from codec.models.iscs.network import IscsConfig, IscsNetwork
from codec.models.quantize import WORTH
from codec.models.trainable import AbstractTrainable, Output

__all__ = ["REFERENCE_QUALITY", "ClcConfig", "ClcNetwork", "reference_of"]

REFERENCE_QUALITY = 70
"""Of `iscs`, at which a dictionary is coded."""
TRUST = 0.75
"""As of `choices_of`, in training."""


@dataclass(frozen=True)
class ClcConfig(IscsConfig):
    """Sizes: those of `iscs`; of a query; inside a fusion."""

    keys: int = 64
    width: int = 96


def reference_of(config: ClcConfig) -> Reference:
    """A fresh one."""
    return Reference(
        M=config.M,
        core=config.core,
        Z=config.Z,
        hyper=config.hyper,
        context=config.context,
        keys=config.keys,
        width=config.width,
    )


@final
class ClcNetwork(AbstractTrainable):
    """`iscs` and `reference`; only this is trained, on samples of 256x256 each with references."""

    config: ClcConfig

    def __init__(self, config: ClcConfig) -> None:
        super().__init__()
        if not config.groups:
            raise ValueError("groups: want some, as later iscs has")
        self.config = config
        self.iscs = IscsNetwork(config)
        self.reference = reference_of(config)

    def entropy_parameters(self) -> list[nn.Parameter]:
        """See `AbstractTrainable.entropy_parameters`."""
        return list(self.reference.parameters())

    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """See `AbstractTrainable.forward`; x: `(N, 3, 256, 256)`."""
        with torch.no_grad():
            y = self.iscs.g_a(x, quality).float()
        y_hat, bits, _ = self.code(y, quality, self._references(x))
        x_hat = self.iscs.g_s(y_hat * self.iscs.inverse_gain(quality).exp(), quality)
        return Output(x_hat.float(), bits)

    def encoder(self, x: Tensor, quality: Tensor) -> Tensor:
        """See `AbstractTrainable.encoder`."""
        y, one = self.iscs.g_a(x, quality), torch.ones(1)
        choices = torch.ones(len(x), SQUARES, SQUARES)
        change = self.reference.change(y - self._references(x)[:, 0], choices, one)
        return self.iscs.h_a(y, one) + change  # type: ignore[no-any-return]

    def cost(self, x: Tensor, quality: Tensor) -> Tensor:
        """See `AbstractTrainable.cost`; x: `(N, 3, 256, 256)`. Errors of y count as bits."""
        with torch.no_grad():
            y = self.iscs.g_a(x, quality).float()
        return self.code(y, quality, self._references(x))[2]

    def code(self, y: Tensor, quality: Tensor, references: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `IscsNetwork.code`, with references `(N, R, M, 16, 16)` over their usual size.

        Returns:
            `y_hat` in steps; bits of each sample, `(N,)`; the same with the error of y, in bits.
        """
        iscs = self.iscs
        gain = iscs.gain(quality).exp()
        norm = gain * iscs.std[:, None, None]
        choices = choices_of(y * gain, references, norm, TRUST)
        start = start_of(references, choices)
        rest = y - start * iscs.std[:, None, None]
        change = self.reference.change(rest * gain, choices, norm)
        said = iscs.code_z(rest, quality, change.float())
        shift = self.reference.shift(quality) * (spread(choices) > 0)
        said = said._replace(levels=said.levels + shift)

        def fuse(
            k: int, mean: Tensor, decoded: Tensor, features: Tensor, quality: Tensor
        ) -> Tensor:
            return self.reference.fuse(k, mean, decoded, features, start, references, quality)

        coded = iscs.code_y(said, refined(iscs.means, fuse))
        bits = said.bits + iscs.bits_of(said, coded)
        # Symbols that are there stay; where there are none, the mean is what is decoded.
        error = (said.y - coded.means - coded.symbols.detach()).square().sum((1, 2, 3))
        return coded.y_hat + start * norm, bits, bits + WORTH * error

    @torch.no_grad()
    def _references(self, x: Tensor) -> Tensor:
        """Latents of pictures that a dictionary might have for x, rounded as it rounds."""
        iscs = self.iscs
        pictures = imitations(x)
        own = torch.full((len(x),), float(REFERENCE_QUALITY), device=x.device)
        steps = iscs.gain(own).exp()
        y = torch.round(iscs.g_a(pictures, own).float() * steps) / steps
        y = y / iscs.std[:, None, None]
        # A second one: of another sample, or the same again, which is as if there were one.
        again = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
        return torch.stack([y, torch.where(again, y, y.roll(1, 0))], dim=1)
