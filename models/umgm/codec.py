"""`umgm`, frozen: the family object that codes. Knows integers and pixels, no file.

Symbols of a tile: `z` `(groups, ceil(h/4), ceil(w/4))` and `y` `(groups, h, w)` for h = ceil(H/16)
and w = ceil(W/16), both flattened in that order: numbers of codewords. Integer arithmetic turns z
into the tables of every other row and column of the core, those into the tables of the rest of the
core, and the core into the tables of all other groups. Means are floats and only move the
reconstruction.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from codec.entropy import AbstractCoder, IntArray, Method
from codec.entropy.batch import AbstractBatch, Single
from codec.models.autoencoder import (
    AbstractAutoencoder,
    flattened,
    hyper_size,
    latent_size,
    shaped,
)
from codec.models.base import SHORT, Halo, Search, Symbols, TileGeometry
from codec.models.scales import FixedScales, Said
from codec.models.umgm.codebooks import Codebooks
from codec.models.umgm.mixture import LEVELS
from codec.models.umgm.network import UmgmConfig, UmgmNetwork

__all__ = ["Coding", "Umgm"]

STEPS = 2  # of the core
CODEBOOKS = ("z", "core", "rest")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Coding:
    """What codes, made once at export and shipped with the weights: integers but for codewords.

    `prior_z` is `(101, groups)`, the level of each group of z at each quality.
    """

    z: Codebooks
    core: Codebooks
    rest: Codebooks
    scales: FixedScales
    prior_z: IntArray


@final
class Umgm(AbstractAutoencoder):
    """A trained `umgm`. `network` supplies the float halves, `coding` everything else.

    The encoder chooses codes and their tables on the CPU.
    """

    network: UmgmNetwork

    def __init__(self, network: UmgmNetwork, coding: Coding) -> None:
        """network: taken over; it has lost the parts that `coding` replaces."""
        super().__init__(network)
        self.coding = coding
        self.layers = len(network.config.layers)
        self.streams = ("z", *(f"y{k}" for k in range(self.layers + 1)))

    @classmethod
    @torch.no_grad()
    def freeze(cls, network: UmgmNetwork) -> Umgm:
        """A codec with a trained network's weights: a new object that shares nothing with it."""
        network = copy.deepcopy(network).cpu()
        prior = np.clip(np.rint(network.prior_z.rows().numpy()), 0, LEVELS - 1)
        coding = Coding(
            z=Codebooks.freeze(network.z, integer=True),
            core=Codebooks.freeze(network.core),
            rest=Codebooks.freeze(network.rest),
            scales=FixedScales.freeze(network.h_s_scale, network.scale_context, LEVELS),
            prior_z=prior.astype(np.int32),
        )
        return cls(_without_integer_parts(network), coding)

    # ---- encoder only

    @torch.no_grad()
    def analyse(
        self, x: Tensor, geometry: TileGeometry, halo: Halo, search: Search = SHORT
    ) -> Symbols:
        """Turn pixels into the symbols of one tile; see `AbstractFamily.analyse`."""
        network, coding, (h, w) = self.network, self.coding, latent_size(geometry)
        _, y, z_real = self._latents(x, geometry, halo)
        z = coding.z.nearest(z_real[0].cpu(), self._levels_of_z(geometry, CPU)[0])[None]

        core, groups = network.core_channels, coding.core.groups
        said = self._said(z, geometry)
        codes = torch.zeros(1, groups + coding.rest.groups, h, w, dtype=torch.int32)
        words = torch.zeros(1, core, h, w, dtype=torch.int32)

        def of_core(step: int, mean: Tensor, where: Tensor) -> Tensor:
            levels, where = self._levels(said, step, words), where.cpu()
            found = coding.core.nearest((y[:, :core] - mean)[0].cpu(), levels[0])[None]
            codes[:, :groups] += found * where
            words.add_(coding.core.on(CPU).rounded(found) * where)
            return codes[:, :groups]

        def of_rest(mean: Tensor) -> Tensor:
            levels = self._levels(said, STEPS, words)
            codes[0, groups:] = coding.rest.nearest((y[:, core:] - mean)[0].cpu(), levels[0])
            return codes[:, groups:]

        self._y_hat(z, geometry, of_core, of_rest)
        return flattened({"z": z, "y": codes})

    # ---- both directions

    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: TileGeometry
    ) -> Symbols:
        """Code z, the core in two steps, the other groups; the same call in all directions."""
        own = None if symbols is None else shaped(symbols, geometry)
        return flattened(self._walk(Single(coder), own, geometry))

    @torch.inference_mode()
    def traverse_batch(
        self, batch: AbstractBatch, geometry: TileGeometry
    ) -> Mapping[str, Tensor] | None:
        """See `AbstractFamily.traverse_batch`."""
        return self._walk(batch, None, geometry)

    def _walk(
        self, batch: AbstractBatch, symbols: Mapping[str, Tensor] | None, geometry: TileGeometry
    ) -> dict[str, Tensor]:
        """All of `traverse`, for P tiles of one geometry.

        Symbols go in and out as z `(P, groups, p, q)` and y `(P, groups, h, w)`, int32 on the
        batch's device.
        """
        device, groups, (h, w) = batch.device, self.coding.core.groups, latent_size(geometry)
        of_z, core, rest = (getattr(self.coding, name).on(device) for name in CODEBOOKS)
        levels = self._levels_of_z(geometry, device).expand(batch.count, -1, -1, -1)
        own = None if symbols is None else symbols["z"]
        z = of_z.code(batch.open("z", Method.RANGE), own, levels)

        said = self._said(z, geometry)
        shape = (batch.count, groups + self.coding.rest.groups, h, w)
        y = torch.zeros(shape, dtype=torch.int32, device=device)
        shape = (batch.count, self.network.core_channels, h, w)
        words = torch.zeros(shape, dtype=torch.int32, device=device)
        stream = batch.open(self.streams[1], Method.RANS)
        own = None if symbols is None else symbols["y"][:, :groups]
        for step, mask in enumerate(self._steps(h, w)):
            levels, where = self._levels(said, step, words), mask.to(device)
            y[:, :groups] += core.code(stream, own, levels, where=where)
            words += core.rounded(y[:, :groups]) * where
        levels = self._levels(said, STEPS, words)
        layers = self.network.config.layers[: geometry.layers]
        first = 0
        for name, count in zip(self.streams[2:], layers, strict=False):
            part = slice(first, first + count)
            own = None if symbols is None else symbols["y"][:, groups:][:, part]
            stream = batch.open(name, Method.RANS)
            y[:, groups:][:, part] = rest.code(stream, own, levels[:, part], part)
            first += count
        return {"z": z, "y": y}

    def _steps(self, h: int, w: int) -> Iterator[Tensor]:
        """Where each step codes the core, `(h, w)` bool: all its groups at once."""
        for step in range(STEPS):
            yield self.network.h_s_mean.mask(step, h, w)[0, 0].bool()

    def _levels_of_z(self, geometry: TileGeometry, device: torch.device) -> Tensor:
        """The level of every code of z, `(1, groups, p, q)` int32: one for each group."""
        levels = torch.from_numpy(self.coding.prior_z[geometry.quality]).to(device)
        return levels[None, :, None, None].expand(-1, -1, *hyper_size(geometry))

    def _levels(self, said: Said, step: int, words: Tensor) -> Tensor:
        """The level of every code of a step, `(P, groups, h, w)` int32.

        `words` `(P, core, h, w)` are the core's codewords in integers, 0 where none is known.
        """
        groups = self.coding.core.groups
        which = slice(groups) if step < STEPS else slice(groups, None)
        return self.coding.scales.on(words.device).indexes(said, which, step, words)

    def _said(self, z: Tensor, geometry: TileGeometry) -> Said:
        """What codes `(P, groups, p, q)` of z say of all levels."""
        words = self.coding.z.on(z.device).integers(z)
        scales = self.coding.scales.on(z.device)
        return scales.of_z(words, geometry.quality, *latent_size(geometry))

    def _y_hat(
        self,
        z: Tensor,
        geometry: TileGeometry,
        of_core: Callable[[int, Tensor, Tensor], Tensor],
        of_rest: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Walk the means; y_hat `(P, M, h, w)` in quantisation steps.

        Args:
            z: codes `(P, groups, p, q)`.
            geometry: of the tiles.
            of_core: the codes `(P, groups, h, w)` of a step, its means, and where it codes.
            of_rest: the codes of all other groups for their means.
        """
        network, coding = self.network, self.coding
        (h, w), quality = latent_size(geometry), self._quality(geometry.quality)
        norm, norm_rest = self._norm(geometry).tensor_split([network.core_channels], dim=1)
        features = network.h_s_mean.features(self._words(coding.z, z))[:, :, :h, :w]
        features = features.contiguous(memory_format=torch.channels_last)
        y_hat = torch.zeros(len(z), network.core_channels, h, w, device=self._device)
        y_hat = y_hat.contiguous(memory_format=torch.channels_last)
        for step, where in enumerate(self._steps(h, w)):
            mean = network.h_s_mean.step(step, features, y_hat / norm, quality) * norm
            found = mean + self._words(coding.core, of_core(step, mean, where))
            y_hat = y_hat + found * where
        mean = network.auxiliary_means(features, y_hat / norm, quality) * norm_rest
        return torch.cat([y_hat, mean + self._words(coding.rest, of_rest(mean))], dim=1)

    def _words(self, codebooks: Codebooks, codes: Tensor) -> Tensor:
        return codebooks.on(self._device).values(codes.to(self._device))

    # ---- decoder only

    @torch.inference_mode()
    def dequantise(self, symbols: Symbols, geometry: TileGeometry) -> Tensor:
        """Symbols of one tile to latents in natural units, `(1, M, h, w)`."""
        return self.dequantise_batch(shaped(symbols, geometry), geometry)

    @torch.inference_mode()
    def dequantise_batch(self, symbols: Mapping[str, Tensor], geometry: TileGeometry) -> Tensor:
        """See `AbstractFamily.dequantise_batch`."""
        core, rest = symbols["y"].tensor_split([self.coding.core.groups], dim=1)
        y_hat = self._y_hat(
            symbols["z"], geometry, lambda _step, _mean, _where: core, lambda _mean: rest
        )
        latents: Tensor = y_hat * self.network.inverse_gain(self._quality(geometry.quality)).exp()
        return latents

    # ---- weight files

    def tensors(self) -> dict[str, Tensor]:
        """What a weight file holds: integers as they are, large float tensors in half precision."""
        found = self._float_tensors() | self.coding.scales.tensors()
        for name in CODEBOOKS:
            found |= getattr(self.coding, name).tensors(f"{name}.")
        found["prior_z"] = torch.from_numpy(self.coding.prior_z.copy())
        return found

    def metadata(self) -> dict[str, str]:
        """The rest of it: sizes, as text."""
        return {"config": json.dumps(asdict(self.network.config), sort_keys=True)}

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Umgm:
        """The inverse of `tensors` and `metadata`.

        Raises:
            KeyError, ValueError, RuntimeError: something is missing or of another size.
        """
        config = UmgmConfig(**json.loads(metadata["config"]))
        with torch.random.fork_rng(devices=[]):
            network = _without_integer_parts(UmgmNetwork(config))
        network.load_state_dict({name: tensors[name].float() for name in network.state_dict()})
        coding = Coding(
            z=Codebooks.load("z.", len(config.z), tensors),
            core=Codebooks.load("core.", len(config.core), tensors),
            rest=Codebooks.load("rest.", len(config.rest), tensors),
            scales=FixedScales.load(tensors, [False] * STEPS, LEVELS),
            prior_z=tensors["prior_z"].numpy(),
        )
        return cls(network, coding)


def _without_integer_parts(network: UmgmNetwork) -> UmgmNetwork:
    """`network` itself, less what a codec has as codebooks and integers."""
    del network.z, network.core, network.rest
    del network.h_s_scale, network.scale_context, network.prior_z
    return network
