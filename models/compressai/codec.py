"""`compressai`, frozen: the family object that codes. Knows integers and pixels, no file.

Symbols of a tile: `y` `(M, h, w)` for h = ceil(H/16) and w = ceil(W/16), and, with a hyperprior,
`z` `(N, ceil(h/4), ceil(w/4))`, both flattened in that order. z is coded with a table for each
channel; integer arithmetic turns it into the table of every y. Without z, y is coded as z is. Means
are floats and only move the reconstruction. Such a network has one rate: quality is not used.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.entropy import AbstractCoder, IntArray, Method, Tables
from codec.models.base import SHORT, AbstractFamily, Halo, Search, Symbols, TileGeometry
from codec.models.compressai.network import Config, Gdn, Network
from codec.models.compressai.scales import FixedScales
from codec.models.compressai.upsampling import Synthesis

__all__ = ["Coding", "CompressAI"]

SYMBOL_MAX = 2**15
HYPER = 4  # latents of y that one of z is for, in each direction


@dataclass(frozen=True)
class Coding:
    """The integers that code, made once at import and shipped with the weights.

    `prior` has a table for each channel of z; or of y where there are no `gaussians` `(T tables)`
    and no `scales` that choose among them.
    """

    prior: Tables
    gaussians: Tables | None = None
    scales: FixedScales | None = None


@final
class CompressAI(AbstractFamily):
    """An imported network. `network` supplies the floats, `coding` everything integer.

    Only the float parts may sit on another device; tables are computed on the CPU.
    """

    stride = 16
    tile_multiple = 64
    # Four convolutions of stride 2 reach 30 pixels beyond a latent's own, the transposed ones two
    # latents beyond a pixel's own.
    halo = 32

    def __init__(self, network: Network, coding: Coding) -> None:
        """network: taken over."""
        self.network = network.eval().requires_grad_(False)
        self.coding = coding
        groups = network.config.groups
        names = tuple(f"y{number}" for number in range(len(groups)))
        self.streams = names if coding.scales is None else ("z", *names)
        self.layers = len(groups) - 1
        self._device = network.medians.device
        self._g_s = Synthesis(network.g_s)

    def to(self, device: torch.device) -> CompressAI:
        """The same codec with its float weights on `device`."""
        return CompressAI(copy.deepcopy(self.network).to(device), self.coding)

    # ---- encoder only

    @torch.no_grad()
    def analyse(
        self, x: Tensor, geometry: TileGeometry, halo: Halo, search: Search = SHORT
    ) -> Symbols:
        """Turn pixels into symbols; see `AbstractFamily.analyse`. It does not search.

        Everything is computed as CompressAI does, in the same layout: on one machine, it gets the
        same symbols.
        """
        h, w = self._latent_size(geometry)
        p, q = self._hyper_size(geometry)
        # Beyond the image, pixels go on up to the next whole z; elsewhere they are the halo.
        below = -geometry.height % self.tile_multiple if not halo.bottom else 0
        beside = -geometry.width % self.tile_multiple if not halo.right else 0
        x = functional.pad(x.to(self._device).contiguous(), (0, beside, 0, below), "replicate")
        top, left = halo.top // self.stride, halo.left // self.stride
        y = self.network.g_a(x)[:, :, top : top + HYPER * p, left : left + HYPER * q].contiguous()
        if self.coding.scales is None:
            y = y[:, self.network.order] - self.network.medians[:, None, None]
            return {"y": _rounded(y[:, :, :h, :w])}
        z = self.network.hyper_latents(y) - self.network.medians[:, None, None]
        symbols = _rounded(z)
        y = y[:, self.network.order] - self._means(symbols.reshape(-1, p, q))
        return {"z": symbols, "y": _rounded(y[:, :, :h, :w])}

    # ---- both directions

    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: TileGeometry
    ) -> Symbols:
        """Code z, then y group by group; the same call in all directions."""
        h, w = self._latent_size(geometry)
        channels = self.network.config.M
        found: dict[str, IntArray] = {}
        if self.coding.scales is None or self.coding.gaussians is None:
            tables = self.coding.prior
            indexes = np.repeat(np.arange(channels, dtype=np.int32), h * w).reshape(-1, h, w)
        else:
            size = self._hyper_size(geometry)
            prior, tables = self.coding.prior, self.coding.gaussians
            which = np.repeat(np.arange(len(prior.sizes), dtype=np.int32), size[0] * size[1])
            given = None if symbols is None else symbols["z"]
            found["z"] = coder.open("z", Method.RANS).code(given, prior, which)
            indexes = self.coding.scales.indexes(found["z"].reshape(-1, *size), h, w)
        y = np.zeros((channels, h, w), np.int32)
        for name, part in self._groups(geometry.layers):
            given = None if symbols is None else symbols["y"].reshape(-1, h, w)[part].reshape(-1)
            coded = coder.open(name, Method.RANS).code(given, tables, indexes[part].reshape(-1))
            y[part] = coded.reshape(-1, h, w)
        found["y"] = y.reshape(-1)
        return found

    def _groups(self, layers: int | None) -> Iterator[tuple[str, slice]]:
        """The core's and each auxiliary group's stream and channels, so many `layers` of them."""
        first = 0
        for number, count in enumerate(self.network.config.groups):
            if layers is None or number <= layers:
                yield f"y{number}", slice(first, first + count)
            first += count

    def _means(self, z: IntArray) -> Tensor:
        """What y is rounded around, `(1, M, 4 p, 4 q)` or something to broadcast to it."""
        if not self.network.config.architecture.means:
            return torch.zeros(1, device=self._device)
        z_symbols = torch.from_numpy(z).to(self._device, torch.float32)[None]
        return self.network.means(z_symbols)

    # ---- decoder only

    @torch.inference_mode()
    def dequantise(self, symbols: Symbols, geometry: TileGeometry) -> Tensor:
        """Symbols of one tile to latents `(1, M, h, w)`."""
        h, w = self._latent_size(geometry)
        y = torch.from_numpy(symbols["y"].reshape(1, -1, h, w)).to(self._device, torch.float32)
        if self.coding.scales is None:
            return y + self.network.medians[:, None, None]
        if not self.network.config.architecture.means:
            return y
        z = symbols["z"].reshape(-1, *self._hyper_size(geometry))
        return y + self._means(z)[:, :, :h, :w]

    @torch.inference_mode()
    def synthesise(self, y_hat: Tensor, quality: int) -> Tensor:
        """Latents to pixels `(N, 3, 16 h, 16 w)`, about [0, 1], not clipped."""
        return self._g_s(y_hat.to(self._device))

    # ---- sizes

    def decode_macs(self) -> float:
        """Multiplications of the decoder for each pixel: both halves of h_s, and g_s."""
        total, area = 0.0, self.stride**2  # pixels that an input of the layer is for
        for part in self.network.g_s:
            if isinstance(part, Gdn):
                total += part.gamma.numel() / area
            elif isinstance(part, nn.ConvTranspose2d):
                total += part.weight.numel() / area
                area //= 4
        if self.coding.scales is not None:
            halves = 2 if self.network.config.architecture.means else 1
            area = (HYPER * self.stride) ** 2
            for layer in self.coding.scales.layers:
                total += halves * layer.weight.size / area
                area //= 4
        return total

    def _latent_size(self, geometry: TileGeometry) -> tuple[int, int]:
        return -(-geometry.height // self.stride), -(-geometry.width // self.stride)

    def _hyper_size(self, geometry: TileGeometry) -> tuple[int, int]:
        h, w = self._latent_size(geometry)
        return -(-h // HYPER), -(-w // HYPER)

    # ---- weight files

    def tensors(self) -> dict[str, Tensor]:
        """What a weight file holds: integers as they are, floats in the precision they came in."""
        found = {k: v.contiguous().cpu() for k, v in self.network.state_dict().items()}
        found |= _tensors_of(self.coding.prior, "prior")
        if self.coding.gaussians is not None and self.coding.scales is not None:
            found |= _tensors_of(self.coding.gaussians, "tables") | self.coding.scales.tensors()
        return found

    def metadata(self) -> dict[str, str]:
        """The rest of it: sizes and numbers, as text.

        One entry, because safetensors writes several in any order: the same import gives the same
        bytes, and so the same model id.
        """
        config = asdict(self.network.config) | {"precision": self.coding.prior.precision}
        return {"config": json.dumps(config, sort_keys=True)}

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> CompressAI:
        """The inverse of `tensors` and `metadata`.

        Raises:
            KeyError, ValueError, RuntimeError: something is missing or of another size.
        """
        config = json.loads(metadata["config"])
        precision = int(config.pop("precision"))
        with torch.random.fork_rng(devices=[]):
            network = Network(Config(**config))
        network.load_state_dict({name: tensors[name] for name in network.state_dict()})
        if not torch.equal(network.order.sort().values, torch.arange(network.config.M)):
            raise ValueError("order: want a permutation of the channels")
        prior = _tables_of(tensors, "prior", precision)
        if len(prior.sizes) != len(network.medians):
            raise ValueError(f"prior: want {len(network.medians)} tables, got {len(prior.sizes)}")
        architecture = network.config.architecture
        if not architecture.hyper:
            return cls(network, Coding(prior))
        gaussians = _tables_of(tensors, "tables", precision)
        scales = FixedScales.load(tensors, leaky=architecture.means)
        if len(scales.thresholds) != len(gaussians.sizes) - 1:
            raise ValueError(
                f"thresholds: want {len(gaussians.sizes) - 1}, got {len(scales.thresholds)}"
            )
        return cls(network, Coding(prior, gaussians, scales))


def _rounded(values: Tensor) -> IntArray:
    """`(1, C, h, w)` to the nearest integers, flat; halves go to even numbers, as in CompressAI."""
    symbols = torch.round(values).clamp(-SYMBOL_MAX, SYMBOL_MAX).to(torch.int32)
    flat: IntArray = symbols.cpu().contiguous().numpy().reshape(-1)
    return flat


def _tensors_of(tables: Tables, prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}.cdf": torch.from_numpy(tables.cdf.astype(np.int32)),
        f"{prefix}.offsets": torch.from_numpy(tables.offsets.copy()),
        f"{prefix}.sizes": torch.from_numpy(tables.sizes.copy()),
    }


def _tables_of(tensors: Mapping[str, Tensor], prefix: str, precision: int) -> Tables:
    return Tables(
        cdf=tensors[f"{prefix}.cdf"].numpy().astype(np.uint32),
        offsets=tensors[f"{prefix}.offsets"].numpy(),
        sizes=tensors[f"{prefix}.sizes"].numpy(),
        precision=precision,
    )
