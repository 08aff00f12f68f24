"""`umgm`, frozen: the family object that codes. Knows integers and pixels, no file.

Symbols of a tile: `z2` `(groups, ceil(h/4), ceil(w/4))`, `z1` `(groups, ceil(h/2), ceil(w/2))` and
`y` `(groups, h, w)` for h = ceil(H/16) and w = ceil(W/16): numbers of codewords. Integer arithmetic
turns z2 into the tables of z1, and both into those of y. Means are floats and only move the
reconstruction.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from codec.entropy import AbstractCoder, IntArray, Method
from codec.models.base import SHORT, AbstractFamily, Halo, Search, Symbols, TileGeometry
from codec.models.transforms import STRIDE, reach
from codec.models.umgm.codebooks import Codebooks
from codec.models.umgm.levels import FixedLevels
from codec.models.umgm.network import UmgmConfig, UmgmNetwork

__all__ = ["Coding", "Umgm"]

WHOLE = slice(None)


@dataclass(frozen=True)
class Coding:
    """What codes, made once at export and shipped with the weights: integers but for codewords."""

    z2: Codebooks
    z1: Codebooks
    y: Codebooks
    levels: FixedLevels


class Sizes(NamedTuple):
    """Rows and columns of y, z1 and z2."""

    y: tuple[int, int]
    z1: tuple[int, int]
    z2: tuple[int, int]


@final
class Umgm(AbstractFamily):
    """A trained `umgm`. `network` supplies the float halves, `coding` everything else.

    Only the float parts may sit on another device; codewords and tables are looked up on the CPU.
    """

    stride = STRIDE
    tile_multiple = 64

    def __init__(self, network: UmgmNetwork, coding: Coding) -> None:
        """network: taken over; it has lost the parts that `coding` replaces."""
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = network.std.device
        self.coding = coding
        layers = network.config.layers
        self.streams = ("z", *(f"y{k}" for k in range(len(layers))))
        self.layers = len(layers) - 1
        self.halo = reach(max(network.config.encoder_blocks, network.config.decoder_blocks))

    @classmethod
    def freeze(cls, network: UmgmNetwork) -> Umgm:
        """A codec with a trained network's weights: a new object that shares nothing with it."""
        network = copy.deepcopy(network).cpu()
        coding = Coding(
            z2=Codebooks.freeze(network.z2, integer=True),
            z1=Codebooks.freeze(network.z1, integer=True),
            y=Codebooks.freeze(network.y),
            levels=FixedLevels.freeze(network.h_s_level),
        )
        return cls(_without_mixtures(network), coding)

    def with_coding(self, coding: Coding) -> Umgm:
        """The same floats with other codebooks."""
        return Umgm(self.network, coding)

    def to(self, device: torch.device) -> Umgm:
        """The same codec with its float weights on `device`."""
        moved = copy.copy(self)
        moved.network = copy.deepcopy(self.network).to(device)
        moved._device = device
        return moved

    # ---- encoder only

    @torch.no_grad()
    def analyse(
        self, x: Tensor, geometry: TileGeometry, halo: Halo, search: Search = SHORT
    ) -> Symbols:
        """Turn pixels into the symbols of one tile; see `AbstractFamily.analyse`."""
        network, coding, stride = self.network, self.coding, self.stride
        sizes, quality = _sizes(geometry), geometry.quality
        (h, w), rate = sizes.y, self._rate(quality)
        bottom, right = -x.shape[2] % stride, -x.shape[3] % stride
        x = functional.pad(x.to(self._device), (0, right, 0, bottom), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        top, left = halo.top // stride, halo.left // stride
        y = network.g_a(x, rate)[:, :, top : top + h, left : left + w]
        gain = network.gain(rate).exp()
        norm = gain * network.std[:, None, None]
        y = y * gain
        z1, z2 = network.h_a(functional.pad(y, (0, -w % 4, 0, -h % 4)), norm)

        codes2 = coding.z2.nearest(z2[0].cpu(), self._levels_of_z2(geometry))
        levels, said = coding.levels.of_z2(coding.z2.integers(codes2), quality, *sizes.z1)
        mean, features = self._of_z2(codes2, sizes)
        z1 = _cropped(z1, sizes.z1)
        codes1 = coding.z1.nearest((z1 - mean)[0].cpu(), levels)
        levels = coding.levels.of_z1(said, coding.z1.integers(codes1), quality, h, w)
        mean = self._mean(codes1, mean, features, sizes, quality)
        codes = coding.y.nearest((y - mean)[0].cpu(), levels)
        return {"z2": codes2.reshape(-1), "z1": codes1.reshape(-1), "y": codes.reshape(-1)}

    # ---- both directions

    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: TileGeometry
    ) -> Symbols:
        """Code z2, z1, then y layer by layer; the same call in all directions."""
        coding, sizes, quality = self.coding, _sizes(geometry), geometry.quality

        def given(name: str, size: tuple[int, int]) -> IntArray | None:
            return None if symbols is None else symbols[name].reshape(-1, *size)

        stream = coder.open("z", Method.RANGE)
        z2 = coding.z2.code(stream, given("z2", sizes.z2), self._levels_of_z2(geometry), WHOLE)
        levels, said = coding.levels.of_z2(coding.z2.integers(z2), quality, *sizes.z1)
        z1 = coding.z1.code(stream, given("z1", sizes.z1), levels, WHOLE)
        levels = coding.levels.of_z1(said, coding.z1.integers(z1), quality, *sizes.y)
        all_y = given("y", sizes.y)
        y, first = np.zeros(levels.shape, np.int32), 0
        known = len(self.streams) - 1 if geometry.layers is None else geometry.layers + 1
        for name, count in zip(
            self.streams[1 : known + 1], self.network.config.layers, strict=False
        ):
            part = slice(first, first + count)
            own = None if all_y is None else all_y[part]
            y[part] = coding.y.code(coder.open(name, Method.RANS), own, levels, part)
            first += count
        return {"z2": z2.reshape(-1), "z1": z1.reshape(-1), "y": y.reshape(-1)}

    def _levels_of_z2(self, geometry: TileGeometry) -> IntArray:
        levels = self.coding.levels.of_rate(geometry.quality)[:, None, None]
        return np.broadcast_to(levels, (len(levels), *_sizes(geometry).z2))

    def _of_z2(self, codes: IntArray, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """The means of z1 and the features of `MeanNetwork.of_z2`, of z1's size."""
        z2_hat = self.coding.z2.values(codes)[None].to(self._device)
        mean, features = self.network.h_s_mean.of_z2(z2_hat)
        return _cropped(mean, sizes.z1), _cropped(features, sizes.z1)

    def _mean(
        self, codes: IntArray, mean: Tensor, features: Tensor, sizes: Sizes, quality: int
    ) -> Tensor:
        """The means of y in steps `(1, M, h, w)`, from codes of z1 and what `_of_z2` gave."""
        network, rate = self.network, self._rate(quality)
        z1_hat = self.coding.z1.values(codes)[None].to(self._device) + mean
        found = _cropped(network.h_s_mean.of_z1(features, z1_hat, rate), sizes.y)
        return found * network.gain(rate).exp() * network.std[:, None, None]

    # ---- decoder only

    @torch.inference_mode()
    def dequantise(self, symbols: Symbols, geometry: TileGeometry) -> Tensor:
        """Symbols of one tile to latents in natural units, `(1, M, h, w)`."""
        sizes = _sizes(geometry)
        z2, z1, y = (symbols[name].reshape(-1, *getattr(sizes, name)) for name in ("z2", "z1", "y"))
        y_hat = self._mean(z1, *self._of_z2(z2, sizes), sizes, geometry.quality)
        y_hat = y_hat + self.coding.y.values(y)[None].to(self._device)
        latents: Tensor = y_hat * self.network.inverse_gain(self._rate(geometry.quality)).exp()
        return latents

    @torch.inference_mode()
    def synthesise(self, y_hat: Tensor, quality: int) -> Tensor:
        """Latents to pixels `(1, 3, 16 h, 16 w)`, about [0, 1], not clipped."""
        y_hat = y_hat.to(self._device).contiguous(memory_format=torch.channels_last)
        return self.network.g_s(y_hat, self._rate(quality))  # type: ignore[no-any-return]

    def _rate(self, quality: int) -> Tensor:
        return torch.tensor([float(quality)], device=self._device)

    # ---- weight files

    def tensors(self) -> dict[str, Tensor]:
        """What a weight file holds: integers as they are, large float tensors in half precision."""
        coding = self.coding
        found = coding.levels.tensors()
        for name in ("z2", "z1", "y"):
            found |= getattr(coding, name).tensors(f"{name}.")
        for name, value in self.network.state_dict().items():
            half = name.endswith("weight") and value.numel() > 4096
            found[name] = (value.half() if half else value).contiguous().cpu()
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
            network = _without_mixtures(UmgmNetwork(config))
        network.load_state_dict({name: tensors[name].float() for name in network.state_dict()})
        coding = Coding(
            z2=Codebooks.load("z2.", len(config.z2), tensors),
            z1=Codebooks.load("z1.", len(config.z1), tensors),
            y=Codebooks.load("y.", len(config.y), tensors),
            levels=FixedLevels.load(tensors),
        )
        return cls(network, coding)


def _without_mixtures(network: UmgmNetwork) -> UmgmNetwork:
    """`network` itself, less what a codec has as codebooks and integers."""
    del network.y, network.z1, network.z2, network.h_s_level
    return network


def _sizes(geometry: TileGeometry) -> Sizes:
    def halved(size: tuple[int, int]) -> tuple[int, int]:
        return -(-size[0] // 2), -(-size[1] // 2)

    y = -(-geometry.height // STRIDE), -(-geometry.width // STRIDE)
    return Sizes(y, halved(y), halved(halved(y)))


def _cropped(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x[:, :, : size[0], : size[1]]
