"""`iscs`, frozen: the family object that codes. Knows integers and pixels, no file.

Symbols of a tile: `y` `(M, h, w)` and `z` `(Z, ceil(h/4), ceil(w/4))` for h = ceil(H/16) and
w = ceil(W/16), both flattened in that order. z is coded with a table for each channel and rate;
then integer arithmetic turns z into the table of every y, and all of y is coded in one pass. A y
whose table is below `skip` is 0 and not coded. Means are floats and only move the reconstruction.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from codec.entropy import (
    AbstractCoder,
    BitCounter,
    IntArray,
    Method,
    Tables,
    gaussian_tables,
)
from codec.entropy.batch import AbstractBatch, AbstractBatchStream, Single
from codec.models.autoencoder import (
    AbstractAutoencoder,
    Latents,
    flattened,
    hyper_size,
    latent_size,
    shaped,
)
from codec.models.base import SHORT, Halo, Search, Symbols, TileGeometry
from codec.models.context import Means
from codec.models.fixed import to_fixed
from codec.models.iscs.network import (
    LEVELS,
    IscsConfig,
    IscsNetwork,
    scale_of,
)
from codec.models.iscs.search import Found, refine
from codec.models.iscs.steps import STEPS
from codec.models.layers import QUALITY_MAX
from codec.models.quantize import dead_zone, round_towards_zero
from codec.models.scales import FixedScales, Said

__all__ = ["Coding", "Given", "Iscs", "rounded"]

PRECISION = 16
SYMBOL_MAX = 2**15


@dataclass(frozen=True)
class Given:
    """What both sides know of a tile before z.

    `means` gives the means of what is coded, which is y less `start` `(1, M, h, w)`, in steps;
    `levels` `(M, h, w)`, in 1/256, is added to those that choose tables.
    """

    means: Means
    start: Tensor | float = 0.0
    levels: Tensor | int = 0


@dataclass(frozen=True)
class Coding:
    """The integers that code, made once at export and shipped with the weights.

    `prior_z` is `(101, Z)`, the Gaussian table of each channel of z at each rate; `tables_z`, if
    there are any, take its place: Z for each of some rates from 0 to 100. `skip` is the first of
    `tables` whose symbols are coded at all.
    """

    tables: Tables
    scales: FixedScales
    prior_z: IntArray
    skip: int
    tables_z: Tables | None = None

    def of_z(self, quality: int) -> tuple[Tables, IntArray]:
        """Tables, and which of them codes each channel of z, `(Z,)`."""
        if self.tables_z is None:
            return self.tables, self.prior_z[quality]
        Z = self.prior_z.shape[1]
        rates = len(self.tables_z.sizes) // Z
        nearest = (2 * quality * (rates - 1) + QUALITY_MAX) // (2 * QUALITY_MAX)
        return self.tables_z, np.arange(nearest * Z, (nearest + 1) * Z, dtype=np.int32)


class Iscs(AbstractAutoencoder):
    """A trained `iscs`. `network` supplies the float halves, `coding` everything integer.

    All networks, those of integers too, run where `to` put them; files come from the CPU alone.
    """

    network: IscsNetwork

    def __init__(self, network: IscsNetwork, coding: Coding) -> None:
        """network: taken over; it has lost the parts that `coding` replaces."""
        super().__init__(network)
        self.coding = coding
        self._core = network.config.core
        groups = network.config.groups
        self.streams = ("z", *(f"y{g}" for g in range(len(groups)))) if groups else ("z", "y")
        self.layers = len(groups[1:])

    @classmethod
    @torch.no_grad()
    def freeze(cls, network: IscsNetwork, *, skip: int) -> Iscs:
        """Round what a trained network says about probabilities to integers; keep its floats."""
        network = copy.deepcopy(network).cpu()
        scales = scale_of(torch.arange(LEVELS, dtype=torch.float64)).numpy()
        prior = np.clip(np.rint(network.prior_z.rows().numpy()), 0, LEVELS - 1)
        coding = Coding(
            tables=gaussian_tables(scales, PRECISION),
            scales=FixedScales.freeze(network.h_s_scale, network.scale_context, LEVELS),
            prior_z=prior.astype(np.int32),
            skip=skip,
        )
        return cls(_without_integer_parts(network), coding)

    @torch.no_grad()
    def thaw(self) -> IscsNetwork:
        """A network that can be trained further: a new object, equal to what was frozen.

        As nearly as half precision and integers kept it; tables fitted to counts are lost.
        """
        network = IscsNetwork(self.network.config)
        network.load_state_dict(self.network.state_dict(), strict=False)
        self.coding.scales.thaw(network.h_s_scale, network.scale_context)
        network.prior_z.fit(torch.from_numpy(self.coding.prior_z).double())
        return network

    # ---- encoder only

    @torch.no_grad()
    def analyse(
        self, x: Tensor, geometry: TileGeometry, halo: Halo, search: Search = SHORT
    ) -> Symbols:
        """Turn pixels into the symbols of one tile; see `AbstractFamily.analyse`."""
        latents = self._latents(x, geometry, halo)
        z = rounded(latents.z)
        found = self._found(latents, halo, z, Given(self.network.means), geometry, search)
        return {"z": z.reshape(-1), "y": found.symbols.reshape(-1)}

    def _found(
        self,
        latents: Latents,
        halo: Halo,
        z: IntArray,
        given: Given,
        geometry: TileGeometry,
        search: Search,
    ) -> Found:
        """The symbols of y, with those of z `(Z, p, q)`, and what they decode to."""
        if not search.effort:
            return self._quantise(latents.y, z, given, geometry)
        own = latents.x[:, :, halo.top :, halo.left :][:, :, : geometry.height, : geometry.width]
        return self._search(own, latents.y, z, given, geometry, search)

    def _quantise(self, y: Tensor, z: IntArray, given: Given, geometry: TileGeometry) -> Found:
        """Round latents `(1, M, h, w)`, and say what they decode to."""
        network, coding = self.network, self.coding
        z_hat = torch.from_numpy(z)[None].to(self._device)
        said = self._said(z_hat, given, geometry)
        levels = coding.scales.on(self._device)
        symbols = torch.zeros(y.shape, dtype=torch.int32, device=self._device)
        y = y - given.start

        def nearest(channels: slice, step: int, mean: Tensor, mask: Tensor) -> Tensor:
            indexes = levels.indexes(said, channels, step, symbols[:, : self._core])
            offset = dead_zone(network.dearer[indexes])
            rounded = round_towards_zero(y[:, channels] - mean, offset)
            rounded = rounded.clamp(-SYMBOL_MAX, SYMBOL_MAX) * mask * (indexes >= coding.skip)
            symbols[:, channels] += rounded.int()
            return rounded

        y_hat = self._y_hat(z_hat, given, geometry, nearest)
        return Found(symbols[0].cpu().numpy(), y_hat)

    def _search(
        self,
        x: Tensor,
        y: Tensor,
        z: IntArray,
        given: Given,
        geometry: TileGeometry,
        search: Search,
    ) -> Found:
        """`refine` for the pixels x `(1, 3, height, width)` of a tile."""
        quality = self._quality(geometry.quality)
        inverse = self.network.inverse_gain(quality).exp()

        def synthesise(y_hat: Tensor) -> Tensor:
            x_hat: Tensor = self.network.g_s(y_hat * inverse, quality)
            return x_hat[:, :, : geometry.height, : geometry.width]

        return refine(
            x,
            y,
            quantise=lambda y: self._quantise(y, z, given, geometry),
            synthesise=synthesise,
            bits_of=lambda symbols: self._bits(z, symbols, given, geometry),
            # lambda weighs the mean over pixels and channels against bits per pixel.
            worth_of_pixel=float(self.network.config.lmbda_of(quality)) * 255**2 / 3,
            rounds=search.effort,
            seconds=search.seconds,
        )

    def _bits(self, z: IntArray, y: IntArray, given: Given, geometry: TileGeometry) -> float:
        """What symbols cost, of any shapes."""
        counter = BitCounter()
        batch = Single(counter)
        own = shaped({"z": z, "y": y}, geometry)
        self._walk(batch, batch.open("z", Method.RANGE), own, given, geometry)
        return counter.bits

    # ---- both directions

    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: TileGeometry
    ) -> Symbols:
        """Code z, the core step by step, the groups; the same call in all directions."""
        batch = Single(coder)
        own = None if symbols is None else shaped(symbols, geometry)
        stream = batch.open("z", Method.RANGE)
        return flattened(self._walk(batch, stream, own, Given(self.network.means), geometry))

    @torch.inference_mode()
    def traverse_batch(
        self, batch: AbstractBatch, geometry: TileGeometry
    ) -> Mapping[str, Tensor] | None:
        """See `AbstractFamily.traverse_batch`."""
        stream = batch.open("z", Method.RANGE)
        return self._walk(batch, stream, None, Given(self.network.means), geometry)

    def _walk(
        self,
        batch: AbstractBatch,
        stream: AbstractBatchStream,
        symbols: Mapping[str, Tensor] | None,
        given: Given,
        geometry: TileGeometry,
    ) -> dict[str, Tensor]:
        """All of `traverse` behind the opening of z's `stream`, for P tiles of one geometry.

        Symbols go in and out as z `(P, Z, p, q)` and y `(P, M, h, w)`, int32 on the batch's device.
        """
        coding, core, device = self.coding, self._core, batch.device
        size, (h, w) = hyper_size(geometry), latent_size(geometry)
        tables, channels = coding.of_z(geometry.quality)
        indexes = torch.from_numpy(channels).to(device)[None, :, None, None]
        indexes = indexes.expand(batch.count, -1, *size).contiguous()
        own = None if symbols is None else symbols["z"]
        z = stream.code(own, tables, indexes, torch.ones_like(indexes, dtype=torch.bool))

        said, levels = self._said(z, given, geometry), coding.scales.on(device)
        shape = (batch.count, self.network.config.M, h, w)
        y = torch.zeros(shape, dtype=torch.int32, device=device)

        def code(
            stream: AbstractBatchStream, part: slice, indexes: Tensor, where: Tensor | bool
        ) -> None:
            block = None if symbols is None else symbols["y"][:, part]
            coded = (indexes >= coding.skip) & where
            y[:, part] += stream.code(block, coding.tables, indexes, coded)

        stream = batch.open(self.streams[1], Method.RANS)
        for step, mask in enumerate(self._core_masks(h, w)):
            indexes = levels.indexes(said, slice(core), step, y[:, :core])
            code(stream, slice(core), indexes, mask.to(device))
        groups = self.network.config.groups[1:][: geometry.layers]
        if groups:
            indexes = levels.indexes(said, slice(core, None), STEPS, y[:, :core])
        first = core
        for name, count in zip(self.streams[2:], groups, strict=False):
            own = indexes[:, first - core : first - core + count].contiguous()
            code(batch.open(name, Method.RANS), slice(first, first + count), own, True)
            first += count
        return {"z": z, "y": y}

    def _said(self, z: Tensor, given: Given, geometry: TileGeometry) -> Said:
        """What z `(P, Z, p, q)` says of the tables of y, all in integers."""
        scales, size = self.coding.scales.on(z.device), latent_size(geometry)
        said = scales.of_z(to_fixed(z), geometry.quality, *size)
        if isinstance(given.levels, int):
            return said
        return said._replace(levels=said.levels + given.levels.to(z.device))

    def _core_masks(self, h: int, w: int) -> Iterator[Tensor]:
        """Which of the core's symbols each call codes, `(core, h, w)` bool.

        Without contexts nothing depends on a step, and all of them are one call.
        """
        if not self.coding.scales.contexts:
            yield torch.ones(self._core, h, w, dtype=torch.bool)
            return
        for k in range(STEPS):
            yield self.network.h_s_mean.mask(k, h, w)[0].bool()

    def _y_hat(
        self,
        z: Tensor,
        given: Given,
        geometry: TileGeometry,
        symbols_of: Callable[[slice, int, Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Walk the context steps; y_hat `(P, M, h, w)` in quantisation steps, for z `(P, Z, p, q)`.

        `symbols_of(channels, step, mean, mask)` gives the symbols of some channels where `mask` is
        1 and 0 elsewhere: the encoder rounds there, the decoder looks them up.
        """
        network, core, means = self.network, self._core, given.means
        h, w = latent_size(geometry)
        quality = self._quality(geometry.quality)
        norm = self._norm(geometry)
        z_hat = z.to(self._device, torch.float32)
        features = network.h_s_mean.features(z_hat)[:, :, :h, :w]
        features = features.contiguous(memory_format=torch.channels_last)
        y_hat = torch.zeros(len(z), core, h, w, device=self._device)
        y_hat = y_hat.contiguous(memory_format=torch.channels_last)
        for k in range(STEPS):
            mask = network.h_s_mean.mask(k, h, w)
            mean = means.core(k, features, y_hat / norm[:, :core], quality)
            mean = mean * (norm[:, :core] * mask)
            y_hat = y_hat + mean + symbols_of(slice(core), k, mean, mask)
        if not network.config.groups:
            return y_hat + given.start
        mean = means.others(features, y_hat / norm[:, :core], quality) * norm[:, core:]
        others = mean + symbols_of(slice(core, None), STEPS, mean, torch.ones_like(mean))
        return torch.cat([y_hat, others], dim=1) + given.start

    # ---- decoder only

    @torch.inference_mode()
    def dequantise(self, symbols: Symbols, geometry: TileGeometry) -> Tensor:
        """Symbols of one tile to latents in natural units, `(1, M, h, w)`."""
        return self._dequantise(symbols, Given(self.network.means), geometry)

    @torch.inference_mode()
    def dequantise_batch(self, symbols: Mapping[str, Tensor], geometry: TileGeometry) -> Tensor:
        """See `AbstractFamily.dequantise_batch`."""
        return self._natural(symbols, Given(self.network.means), geometry)

    def _dequantise(self, symbols: Symbols, given: Given, geometry: TileGeometry) -> Tensor:
        return self._natural(shaped(symbols, geometry), given, geometry)

    def _natural(
        self, symbols: Mapping[str, Tensor], given: Given, geometry: TileGeometry
    ) -> Tensor:
        """What symbols, as of `_walk`, are in natural units, `(P, M, h, w)`."""
        y = symbols["y"].to(self._device, torch.float32)
        y_hat = self._y_hat(
            symbols["z"], given, geometry, lambda part, _k, _mean, mask: y[:, part] * mask
        )
        latents: Tensor = y_hat * self.network.inverse_gain(self._quality(geometry.quality)).exp()
        return latents

    # ---- weight files

    def tensors(self) -> dict[str, Tensor]:
        """What a weight file holds: integers as they are, large float tensors in half precision."""
        found = self._float_tensors() | self.coding.scales.tensors()
        for name, tables in (("tables", self.coding.tables), ("tables_z", self.coding.tables_z)):
            if tables is None:
                continue
            found[f"{name}.cdf"] = torch.from_numpy(tables.cdf.astype(np.int32))
            found[f"{name}.offsets"] = torch.from_numpy(tables.offsets.copy())
            found[f"{name}.sizes"] = torch.from_numpy(tables.sizes.copy())
        found["prior_z"] = torch.from_numpy(self.coding.prior_z.copy())
        return found

    def metadata(self) -> dict[str, str]:
        """The rest of it: sizes and numbers, as text."""
        config = json.dumps(asdict(self.network.config), sort_keys=True)
        precision = str(self.coding.tables.precision)
        return {"config": config, "precision": precision, "skip": str(self.coding.skip)}

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iscs:
        """The inverse of `tensors` and `metadata`.

        Raises:
            KeyError, ValueError, RuntimeError: something is missing or of another size.
        """
        return cls(*cls._parts(tensors, metadata))

    @classmethod
    def _parts(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> tuple[IscsNetwork, Coding]:
        """What `load` gives `__init__`."""
        with torch.random.fork_rng(devices=[]):
            network = IscsNetwork(IscsConfig(**json.loads(metadata["config"])))
        network = _without_integer_parts(network)
        network.load_state_dict({name: tensors[name].float() for name in network.state_dict()})

        def tables(name: str) -> Tables:
            return Tables(
                cdf=tensors[f"{name}.cdf"].numpy().astype(np.uint32),
                offsets=tensors[f"{name}.offsets"].numpy(),
                sizes=tensors[f"{name}.sizes"].numpy(),
                precision=int(metadata["precision"]),
            )

        # Of the core's later steps each looks at neighbours directly, the groups' context does not.
        near = [*([True] * (STEPS - 1)), False] if network.config.groups else []
        coding = Coding(
            tables=tables("tables"),
            tables_z=tables("tables_z") if "tables_z.cdf" in tensors else None,
            scales=FixedScales.load(tensors, near, LEVELS),
            prior_z=tensors["prior_z"].numpy(),
            skip=int(metadata["skip"]),
        )
        return network, coding


def _without_integer_parts(network: IscsNetwork) -> IscsNetwork:
    """`network` itself, less what a codec has as integers."""
    del network.h_s_scale, network.scale_context, network.prior_z
    return network


def rounded(z: Tensor) -> IntArray:
    """The symbols `(Z, p, q)` of z-values `(1, Z, p, q)`."""
    found = torch.round(z).clamp(-SYMBOL_MAX, SYMBOL_MAX)[0]
    return found.to(torch.int32).cpu().contiguous().numpy()
