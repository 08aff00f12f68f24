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
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.entropy import (
    AbstractCoder,
    AbstractStream,
    BitCounter,
    IntArray,
    Method,
    Tables,
    gaussian_tables,
)
from codec.entropy.fixedpoint import to_fixed
from codec.models.autoencoder import AbstractAutoencoder, hyper_size, latent_size
from codec.models.base import SHORT, Halo, Search, Symbols, TileGeometry
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
from codec.models.scales import FixedScales

__all__ = ["Coding", "Iscs"]

PRECISION = 16
SYMBOL_MAX = 2**15

Mask: TypeAlias = NDArray[np.bool_]


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


@final
class Iscs(AbstractAutoencoder):
    """A trained `iscs`. `network` supplies the float halves, `coding` everything integer.

    Only the float parts may sit on another device; z and tables are computed on the CPU.
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
        x, y, z_real = self._latents(x, geometry, halo)
        z_hat = torch.round(z_real).clamp(-SYMBOL_MAX, SYMBOL_MAX)
        z = _integers(z_hat[0])
        if search.effort:
            own = x[:, :, halo.top :, halo.left :][:, :, : geometry.height, : geometry.width]
            found = self._search(own, y, z, geometry, search)
        else:
            found = self._quantise(y, z, geometry)
        return {"z": z.reshape(-1), "y": found.symbols.reshape(-1)}

    def _quantise(self, y: Tensor, z: IntArray, geometry: TileGeometry) -> Found:
        """Round latents `(1, M, h, w)`, and say what they decode to."""
        network, coding = self.network, self.coding
        h, w = latent_size(geometry)
        said = coding.scales.of_z(to_fixed(z), geometry.quality, h, w)
        symbols = np.zeros((network.config.M, h, w), np.int32)

        def nearest(channels: slice, step: int, mean: Tensor, mask: Tensor) -> Tensor:
            tables = coding.scales.indexes(said, channels, step, symbols[: self._core])
            indexes = torch.from_numpy(tables).to(self._device)
            offset = dead_zone(network.dearer[indexes])
            rounded = round_towards_zero(y[:, channels] - mean, offset)
            rounded = rounded.clamp(-SYMBOL_MAX, SYMBOL_MAX) * mask * (indexes >= coding.skip)
            symbols[channels] += _integers(rounded[0])
            return rounded

        return Found(symbols, self._means(z, geometry, nearest))

    def _search(
        self, x: Tensor, y: Tensor, z: IntArray, geometry: TileGeometry, search: Search
    ) -> Found:
        """`refine` for the pixels x `(1, 3, height, width)` of a tile."""
        quality = self._quality(geometry.quality)
        inverse = self.network.inverse_gain(quality).exp()

        def synthesise(y_hat: Tensor) -> Tensor:
            x_hat: Tensor = self.network.g_s(y_hat * inverse, quality)
            return x_hat[:, :, : geometry.height, : geometry.width]

        def bits_of(symbols: IntArray) -> float:
            counter = BitCounter()
            self.traverse(counter, {"z": z.reshape(-1), "y": symbols.reshape(-1)}, geometry)
            return counter.bits

        return refine(
            x,
            y,
            quantise=lambda y: self._quantise(y, z, geometry),
            synthesise=synthesise,
            bits_of=bits_of,
            # lambda weighs the mean over pixels and channels against bits per pixel.
            worth_of_pixel=float(self.network.config.lmbda_of(quality)) * 255**2 / 3,
            rounds=search.effort,
            seconds=search.seconds,
        )

    # ---- both directions

    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: TileGeometry
    ) -> Symbols:
        """Code z, the core step by step, the groups; the same call in all directions."""
        coding, core = self.coding, self._core
        size = hyper_size(geometry)
        h, w = latent_size(geometry)
        tables, channels = coding.of_z(geometry.quality)
        given = None if symbols is None else symbols["z"]
        stream = coder.open("z", Method.RANGE)
        z = stream.code(given, tables, np.repeat(channels, size[0] * size[1]))

        said = coding.scales.of_z(to_fixed(z.reshape(-1, *size)), geometry.quality, h, w)
        given = None if symbols is None else symbols["y"].reshape(-1, h, w)
        y = np.zeros((self.network.config.M, h, w), np.int32)

        def code(stream: AbstractStream, part: slice, indexes: IntArray, where: Mask) -> None:
            coded = where & (indexes >= coding.skip)
            block = None if given is None else given[part][coded]
            y[part][coded] = stream.code(block, coding.tables, indexes[coded])

        stream = coder.open(self.streams[1], Method.RANS)
        for step, mask in enumerate(self._core_masks(h, w)):
            code(
                stream, slice(core), coding.scales.indexes(said, slice(core), step, y[:core]), mask
            )
        groups = self.network.config.groups[1:][: geometry.layers]
        if groups:
            indexes = coding.scales.indexes(said, slice(core, None), STEPS, y[:core])
        first = core
        for name, count in zip(self.streams[2:], groups, strict=False):
            table = indexes[first - core : first - core + count]
            everywhere = np.ones(table.shape, bool)
            code(coder.open(name, Method.RANS), slice(first, first + count), table, everywhere)
            first += count
        return {"z": z, "y": y.reshape(-1)}

    def _core_masks(self, h: int, w: int) -> Iterator[Mask]:
        """Which of the core's symbols each call codes, `(core, h, w)`.

        Without contexts nothing depends on a step, and all of them are one call.
        """
        if not self.coding.scales.contexts:
            yield np.ones((self._core, h, w), bool)
            return
        for k in range(STEPS):
            yield self.network.h_s_mean.mask(k, h, w)[0].bool().cpu().numpy()

    def _means(
        self,
        z: IntArray,
        geometry: TileGeometry,
        symbols_of: Callable[[slice, int, Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Walk the context steps; y_hat `(1, M, h, w)` in quantisation steps.

        `symbols_of(channels, step, mean, mask)` gives the symbols of some channels where `mask` is
        1 and 0 elsewhere: the encoder rounds there, the decoder looks them up.
        """
        network, core = self.network, self._core
        h, w = latent_size(geometry)
        quality = self._quality(geometry.quality)
        norm = self._norm(geometry)
        z_hat = torch.from_numpy(z).to(self._device, torch.float32)[None]
        features = network.h_s_mean.features(z_hat)[:, :, :h, :w]
        features = features.contiguous(memory_format=torch.channels_last)
        y_hat = torch.zeros(1, core, h, w, device=self._device)
        y_hat = y_hat.contiguous(memory_format=torch.channels_last)
        for k in range(STEPS):
            mask = network.h_s_mean.mask(k, h, w)
            mean = network.h_s_mean.step(k, features, y_hat / norm[:, :core], quality)
            mean = mean * (norm[:, :core] * mask)
            y_hat = y_hat + mean + symbols_of(slice(core), k, mean, mask)
        if not network.config.groups:
            return y_hat
        mean = network.auxiliary_means(features, y_hat / norm[:, :core], quality) * norm[:, core:]
        others = mean + symbols_of(slice(core, None), STEPS, mean, torch.ones_like(mean))
        return torch.cat([y_hat, others], dim=1)

    # ---- decoder only

    @torch.inference_mode()
    def dequantise(self, symbols: Symbols, geometry: TileGeometry) -> Tensor:
        """Symbols of one tile to latents in natural units, `(1, M, h, w)`."""
        size = latent_size(geometry)
        z = symbols["z"].reshape(-1, *hyper_size(geometry))
        y = torch.from_numpy(symbols["y"].reshape(1, -1, *size)).to(self._device, torch.float32)
        y_hat = self._means(z, geometry, lambda part, _k, _mean, mask: y[:, part] * mask)
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
        return cls(network, coding)


def _without_integer_parts(network: IscsNetwork) -> IscsNetwork:
    """`network` itself, less what a codec has as integers."""
    del network.h_s_scale, network.scale_context, network.prior_z
    return network


def _integers(values: Tensor) -> IntArray:
    return values.to(torch.int32).cpu().contiguous().numpy()
