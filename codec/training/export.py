"""From a training state to weights that ship: freeze, fit the tables to counts, write, list.

    python -m codec.training.export runs/iscs-small/state.pt recipes/iscs-small.toml

Knows no file of the zoo but the one it adds.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from codec.datasets import read_photos
from codec.entropy import (
    AbstractCoder,
    AbstractStream,
    IntArray,
    Method,
    Tables,
    gaussian_pmf,
)
from codec.models.base import Halo, TileGeometry
from codec.models.iscs import Iscs, IscsConfig, IscsNetwork
from codec.models.iscs.network import scale_of
from codec.models.layers import QUALITY_MAX, macs
from codec.training.recipe import read_recipe
from codec.weights import Entry, Zoo

__all__ = ["decode_macs", "export", "fit_tables"]

PHOTOS = 96
QUALITIES = range(0, QUALITY_MAX + 1, 10)
PRIOR_SYMBOLS = 4096.0  # a table's Gaussian counts for as much as so many symbols
PRIOR_SYMBOLS_Z = 32.0  # the same of z, which has a table for each channel and rate
SKIP = 4  # scale 0.18: behind the dead zone hardly a symbol of 1000 is not 0


@final
class _Histogram(AbstractCoder, AbstractStream):
    """A coder that only counts: which symbols of y each table was asked to code."""

    def __init__(self, tables: Tables) -> None:
        self.counts = np.zeros((len(tables.sizes), tables.cdf.shape[1] - 1))
        self._counting = False

    def open(self, name: str, method: Method) -> AbstractStream:
        """Every stream is this one; those of y count."""
        self._counting = name != "z"
        return self

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """Count `symbols` by table and entry; what has no entry is an escape, the last one."""
        if symbols is None:
            raise ValueError("a histogram has nothing to decode")
        if self._counting:
            np.add.at(self.counts, (indexes, tables.entries(symbols, indexes)), 1.0)
        return symbols


def fit_tables(codec: Iscs, photos: Sequence[NDArray[np.uint8]]) -> Iscs:
    """`codec` with tables that follow what it really codes.

    Each table of y becomes its counts over `photos` at all qualities plus its own Gaussian, worth
    4096 symbols, the same in both directions of sign: no Gaussian is exactly what is left after
    rounding and prediction. z gets a table for each channel and every tenth quality, made likewise.
    """
    tables = codec.coding.tables
    histogram = _Histogram(tables)
    symbols_z: list[list[IntArray]] = [[] for _ in QUALITIES]
    Z = codec.coding.prior_z.shape[1]
    for number, photo in enumerate(photos):
        x = torch.from_numpy(photo)[None].float() / 255
        for place in range(number % 2, len(QUALITIES), 2):
            geometry = TileGeometry(x.shape[2], x.shape[3], QUALITIES[place])
            symbols = codec.analyse(x, geometry, Halo())
            codec.traverse(histogram, symbols, geometry)
            symbols_z[place].append(symbols["z"].reshape(Z, -1))
    gaussians = np.diff(tables.cdf.astype(np.float64), axis=1) / 2**tables.precision
    pmfs = []
    for size, counts, gaussian in zip(tables.sizes, histogram.counts, gaussians, strict=True):
        total = (counts + PRIOR_SYMBOLS * gaussian)[:size]
        total[:-1] = (total[:-1] + total[-2::-1]) / 2
        pmfs.append(total / total.sum())
    fitted = Tables.from_pmfs(pmfs, tables.offsets, tables.precision)
    tables_z = _tables_of_z(codec.coding.prior_z, symbols_z, tables.precision)
    coding = dataclasses.replace(codec.coding, tables=fitted, tables_z=tables_z)
    return Iscs(codec.network, coding)


def _tables_of_z(prior: IntArray, symbols: Sequence[Sequence[IntArray]], precision: int) -> Tables:
    """A table for each of `QUALITIES` and each channel of z.

    Args:
        prior: `(101, Z)` level of each channel's Gaussian.
        symbols: for each quality some arrays `(Z, S)`.
        precision: of the tables, bits.
    """
    last = max(int(np.abs(part).max()) for parts in symbols for part in parts) + 1
    scales = scale_of(torch.from_numpy(prior[QUALITIES]).double()).numpy()
    pmfs = []
    for parts, row in zip(symbols, scales, strict=True):
        for channel, scale in zip(np.concatenate(parts, axis=1), row, strict=True):
            counts = np.bincount(channel + last, minlength=2 * last + 2)
            pmfs.append(counts + PRIOR_SYMBOLS_Z * gaussian_pmf(scale, last))
    return Tables.from_pmfs(pmfs, [-last] * len(pmfs), precision)


def export(state: Path, recipe: Path, zoo: Path) -> Path:
    """Write the weights of a training `state` into `zoo` and list them last in its manifest.

    The running average of the weights is what ships. An entry of the same name stays before it, so
    that streams made with it still decode. What is the default of its family stays so under a new
    name; that is for the manifest's editor to change.
    """
    plan = read_recipe(recipe)
    saved = torch.load(state, map_location="cpu", weights_only=True)
    network = IscsNetwork(IscsConfig(**saved["config"]))
    network.load_state_dict(saved["average"])
    frozen = network.freeze(skip=SKIP)
    codec = fit_tables(Iscs.load(frozen.tensors(), frozen.metadata()), _some(plan.data))

    content = save(codec.tensors(), codec.metadata())
    digest = hashlib.sha256(content).hexdigest()
    entry = Entry(
        name=plan.name,
        family=plan.name.partition("/")[0],
        file=f"{plan.name.replace('/', '-')}-{digest[:8]}.safetensors",
        sha256=digest,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        decode_kmac_per_pixel=round(decode_macs(network) / 1000, 2),
        recipe=f"recipes/{recipe.name}, {saved['counters']['samples']} samples",
        default=_is_default(plan.name, Zoo(zoo).manifest()),
        streams=codec.streams,
        layers=codec.layers,
    )
    Zoo(zoo).add(entry, content)
    return zoo / entry.file


def _is_default(name: str, entries: Sequence[Entry]) -> bool:
    """Whether new weights are what the family's name alone means: the first are, and successors."""
    family = [entry for entry in entries if entry.family == name.partition("/")[0]]
    return not family or any(entry.default for entry in family if entry.name == name)


def decode_macs(network: IscsNetwork, side: int = 256) -> float:
    """Multiplications of the decoder for each pixel: both halves of h_s, the context, g_s."""
    x, quality = torch.zeros(1, 3, side, side), torch.zeros(1)
    encoder = macs(lambda: network.h_a(network.g_a(x, quality), torch.ones(1)), network)
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
