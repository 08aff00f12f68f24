"""The trainable network of `iscs`. Knows no byte: `codec.models.iscs.codec` codes with its weights.

    x -- g_a -- gain --> y                                                  (stride 16)
                                        y -- h_a --> z                      (stride 64)
    z_hat -- scale network (becomes integers) --> one table for each y
    z_hat -- mean network, then four steps over parts of y_hat --> means
    y_hat -- 1 / gain -- g_s --> x_hat

Without its residual branches g_a is a block transform, and it starts as the best one for the
training photographs (`codec.models.iscs.klt`). The method is a scaled-down DCVC-UF intra codec; see
docs/adr for what differs.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

import torch
from torch import Tensor, nn

from codec.models.context import AuxiliaryMeans, MeanNetwork, Means, ScaleContext, magnitudes
from codec.models.hyper import HyperAnalysis, ScaleNetwork
from codec.models.iscs.steps import STEPS, step_masks
from codec.models.layers import QUALITY_MAX, RateTable
from codec.models.quantize import (
    add_noise,
    bits_of_one,
    dead_zone,
    gaussian_bits,
    lower_bound,
    round_ste,
)
from codec.models.trainable import AbstractTrainable, Output, Rates
from codec.models.transforms import Analysis, Synthesis

if TYPE_CHECKING:
    from codec.models.iscs.codec import Iscs

__all__ = [
    "LEVELS",
    "SCALE_MAX",
    "SCALE_MIN",
    "Coded",
    "IscsConfig",
    "IscsNetwork",
    "Said",
    "join",
    "level_of",
    "scale_of",
]

LEVELS = 64
SCALE_MIN = 0.11
SCALE_MAX = 256.0
LEVEL_STEP = math.log(SCALE_MAX / SCALE_MIN) / (LEVELS - 1)


@dataclass(frozen=True)
class IscsConfig(Rates):
    """Sizes: latent channels `M` and `Z`, widths inside the parts, numbers of blocks.

    `groups` are the numbers of channels of the core and of each auxiliary group. Without them all
    channels are coded in steps, their scales from z alone, as in the first release.
    """

    M: int = 320
    inner: int = 96
    encoder_blocks: int = 3
    decoder_blocks: int = 3
    Z: int = 64
    hyper: int = 96
    context: int = 96
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))  # JSON and TOML have lists
        if self.groups and (sum(self.groups) != self.M or min(self.groups) < 1):
            raise ValueError(f"groups: want sizes that sum to {self.M}, got {self.groups}")

    @property
    def core(self) -> int:
        """How many channels are coded in steps; the others follow at once."""
        return self.groups[0] if self.groups else self.M


class Said(NamedTuple):
    """What z tells of y, all `(N, C, h, w)` but `quality` and the `bits` of z, which are `(N,)`.

    `y` and its usual size `norm` are in steps; `hidden` is what the scales, `features` what the
    means are made of; `levels` are those of the scales without any context.
    """

    y: Tensor
    norm: Tensor
    quality: Tensor
    bits: Tensor
    hidden: Tensor
    levels: Tensor
    features: Tensor


class Coded(NamedTuple):
    """Some channels after quantisation, `(N, C, h, w)`: symbols, their means and scale levels."""

    symbols: Tensor
    means: Tensor
    levels: Tensor

    @property
    def y_hat(self) -> Tensor:
        """What the decoder has, in steps."""
        return self.means + self.symbols


def join(first: Coded, then: Coded) -> Coded:
    """The channels of both, one after the other."""
    return Coded(*(torch.cat(pair, dim=1) for pair in zip(first, then, strict=True)))


@final
class IscsNetwork(AbstractTrainable):
    """All of it, with the gains of the rates.

    `std` is each latent's usual size, `dearer` what a 1 costs more than a 0 at each level.
    """

    config: IscsConfig
    std: Tensor
    dearer: Tensor

    def __init__(self, config: IscsConfig) -> None:
        super().__init__()
        self.config = config
        self.g_a = Analysis(M=config.M, inner=config.inner, blocks=config.encoder_blocks)
        self.g_s = Synthesis(M=config.M, inner=config.inner, blocks=config.decoder_blocks)
        self.h_a = HyperAnalysis(M=config.M, hyper=config.hyper, Z=config.Z)
        self.h_s_scale = ScaleNetwork(Z=config.Z, hyper=config.hyper, out=config.M)
        core, auxiliary = config.core, config.M - config.core
        self.h_s_mean = MeanNetwork(
            step_masks(core), Z=config.Z, width=config.hyper, context=config.context
        )
        self.scale_context = nn.ModuleList()
        if config.groups:
            outs = [core] * (STEPS - 1) + [auxiliary]
            self.scale_context = nn.ModuleList(
                ScaleContext(
                    core=core, hidden=config.hyper, width=config.context, out=out, near=k < STEPS
                )
                for k, out in enumerate(outs, start=1)
            )
            self.auxiliary_means = AuxiliaryMeans(
                core=core, auxiliary=auxiliary, context=config.context
            )
        self.gain = RateTable(config.M)  # natural logarithms; y is coded in steps of exp(-gain)
        self.inverse_gain = RateTable(config.M)
        self.prior_z = RateTable(config.Z, value=level_of(1.0))
        self.register_buffer("std", torch.ones(config.M))
        dearer = bits_of_one(scale_of(torch.arange(float(LEVELS))))
        self.register_buffer("dearer", dearer, persistent=False)

    def entropy_parameters(self) -> list[nn.Parameter]:
        """See `AbstractTrainable.entropy_parameters`."""
        parts = [self.h_a, self.h_s_scale, self.h_s_mean, self.prior_z, self.scale_context]
        if self.config.groups:
            parts.append(self.auxiliary_means)
        return [parameter for part in parts for parameter in part.parameters()]

    @property
    def means(self) -> Means:
        """From z and the core alone; without groups nobody asks for the others."""

        def others(features: Tensor, core_norm: Tensor, quality: Tensor) -> Tensor:
            found: Tensor = self.auxiliary_means(features, core_norm, quality)
            return found

        return Means(self.h_s_mean.step, others)

    def code(self, y: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise and count: the entropy model in training.

        Args:
            y: `(N, M, h, w)` in natural units; h and w multiples of 4.
            quality: `(N,)`.

        Returns:
            `y_hat` in steps of quantisation; bits of each sample, y and z together, `(N,)`.
        """
        said = self.code_z(y, quality)
        coded = self.code_y(said, self.means)
        return coded.y_hat, said.bits + self.bits_of(said, coded)

    def code_y(self, said: Said, means: Means) -> Coded:
        """Quantise all of y: the core, and then the others."""
        coded = self.code_core(said, means)
        if self.config.groups:
            others = slice(self.config.core, None)
            context = self.scale_context[-1]
            coded = join(coded, self.code_group(said, coded, others, context, means.others))
        return coded

    def code_z(self, y: Tensor, quality: Tensor, change: Tensor | float = 0.0) -> Said:
        """Quantise z, `change` more than h_a gives, and say what it tells; else as of `code`."""
        gain = self.gain(quality).exp()
        norm = gain * self.std[:, None, None]
        y = y * gain
        z = self.h_a(y, norm).float() + change
        z_hat = round_ste(z)
        bits = _bits_of_symbols(z, z_hat, scale_of(self.prior_z(quality))).sum((1, 2, 3))
        hidden = self.h_s_scale.hidden(z_hat)
        levels = self.h_s_scale(hidden, quality).float()
        features = self.h_s_mean.features(z_hat)
        return Said(y, norm, quality, bits, hidden, levels, features)

    def code_core(self, said: Said, means: Means) -> Coded:
        """Quantise the core, step by step."""
        core = self.config.core
        y, norm, levels = said.y[:, :core], said.norm[:, :core], said.levels[:, :core]
        coded = Coded(torch.zeros_like(y), torch.zeros_like(y), levels)
        for k in range(STEPS):
            symbols, mean_hat, levels = coded
            mask = self.h_s_mean.mask(k, *y.shape[2:])
            if k and self.scale_context:
                change = self.scale_context[k - 1](magnitudes(symbols), said.hidden)
                levels = levels + change.float() * mask
            mean = means.core(k, said.features, coded.y_hat / norm, said.quality)
            mean = mean * (norm * mask)
            symbol = round_ste(y * mask - mean, self._offset(levels)) * mask
            coded = Coded(symbols + symbol, mean_hat + mean, levels)
        return coded

    def code_group(
        self,
        said: Said,
        seen: Coded,
        channels: slice,
        context: nn.Module,
        means: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> Coded:
        """Quantise some channels at once, given the first ones, `seen`."""
        levels = said.levels[:, channels]
        levels = levels + context(magnitudes(seen.symbols), said.hidden).float()
        norm = said.norm[:, : seen.symbols.shape[1]]
        mean = means(said.features, seen.y_hat / norm, said.quality) * said.norm[:, channels]
        symbols = round_ste(said.y[:, channels] - mean, self._offset(levels))
        return Coded(symbols, mean, levels)

    def bits_of(self, said: Said, coded: Coded) -> Tensor:
        """What all symbols of y cost, of each sample, `(N,)`."""
        scales = scale_of(coded.levels)
        return _bits_of_symbols(said.y - coded.means, coded.symbols, scales).sum((1, 2, 3))

    def _offset(self, levels: Tensor) -> Tensor:
        """The dead zone of each level, `(...)`, as the frozen codec's rounded levels have it."""
        return dead_zone(self.dearer[levels.detach().round().clamp(0, LEVELS - 1).long()])

    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """See `AbstractTrainable.forward`."""
        y_hat, bits = self.code(self.g_a(x, quality).float(), quality)
        x_hat = self.g_s(y_hat * self.inverse_gain(quality).exp(), quality)
        return Output(x_hat.float(), bits)

    def cost(self, x: Tensor, quality: Tensor) -> Tensor:
        """The bits of `forward`; see `AbstractTrainable.cost`."""
        with torch.no_grad():
            y = self.g_a(x, quality).float()
        return self.code(y, quality)[1]

    @torch.no_grad()
    def respan(self, lmbda_min: float, lmbda_max: float) -> IscsNetwork:
        """The same network over other rates: a new object, equal where both ranges overlap.

        Knots outside the old range continue its last two.
        """
        config = dataclasses.replace(self.config, lmbda_min=lmbda_min, lmbda_max=lmbda_max)
        moved = copy.deepcopy(self)
        if config == self.config:
            return moved
        moved.config = config
        for table in moved.modules():
            if isinstance(table, RateTable):
                quality = torch.linspace(0, QUALITY_MAX, len(table.knots))
                rows = table(self.config.quality_of(config.lmbda_of(quality)))
                table.knots.copy_(rows[:, :, 0, 0])
        return moved

    @torch.no_grad()
    def grow(self, config: IscsConfig) -> IscsNetwork:
        """The same function in a network of other, larger sizes: a new object.

        New channels start as in a fresh network but are not listened to yet; new blocks, evenly
        between the old ones, add nothing yet.

        Args:
            config: like this one's, but for `inner`, `hyper` and `context`, which may be larger,
                and the numbers of blocks, which may be multiples.

        Raises:
            ValueError: `config` differs in another way.
        """
        for name, had in dataclasses.asdict(self.config).items():
            wanted = getattr(config, name)
            wider = name in ("inner", "hyper", "context") and wanted >= had
            deeper = name in ("encoder_blocks", "decoder_blocks") and wanted % had == 0
            if not (wanted == had or wider or deeper):
                raise ValueError(f"{name}: {had} cannot grow to {wanted}")
        grown = IscsNetwork(config)
        old, new = self.state_dict(), grown.state_dict()
        for name, value in new.items():
            part, _, place = name.partition(".blocks.")
            if place:
                index, _, rest = place.partition(".")
                times = len(getattr(grown, part).blocks) // len(getattr(self, part).blocks)
                if int(index) % times:
                    if rest.startswith(("leave", "narrow")):
                        value.zero_()
                    continue
                name = f"{part}.blocks.{int(index) // times}.{rest}"
            kept = old[name]
            if value.dim() == 4:
                value[: kept.shape[0], kept.shape[1] :] = 0
            value[tuple(slice(side) for side in kept.shape)] = kept
        return grown

    def freeze(self, *, skip: int = 0) -> Iscs:
        """A codec with these weights: a new object that shares nothing with this one.

        `skip` is the first scale level whose symbols are coded; below it y is its mean.
        """
        from codec.models.iscs.codec import Iscs  # knows this module

        return Iscs.freeze(self, skip=skip)


def _bits_of_symbols(values: Tensor, symbols: Tensor, scales: Tensor) -> Tensor:
    """What the symbols cost that `values` are rounded to; all `(N, C, h, w)`, `scales` broadcast.

    Scales learn from the symbols that are really coded. The values, for which those are steps
    without a slope, learn from noise in place of rounding (docs/models.md: of all that was tried,
    this saved most).
    """
    zero = torch.zeros_like(values)
    noisy = gaussian_bits(add_noise(values), zero, scales.detach())
    coded = gaussian_bits(symbols.detach(), zero, scales)
    return coded + noisy - noisy.detach()


def scale_of(level: Tensor) -> Tensor:
    """The scale of a real level: 0.11 at 0, 256 at 63, bounded to that range."""
    bounded = -lower_bound(-lower_bound(level, 0.0), 1.0 - LEVELS)
    return SCALE_MIN * torch.exp(LEVEL_STEP * bounded)


def level_of(scale: float) -> float:
    """The inverse of `scale_of`, unbounded."""
    return math.log(scale / SCALE_MIN) / LEVEL_STEP
