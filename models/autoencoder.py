"""What the frozen families with trained transforms share. Knows no way of coding."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from codec.entropy import IntArray
from codec.models.base import AbstractFamily, Halo, Symbols, TileGeometry
from codec.models.trainable import AbstractTrainable
from codec.models.transforms import STRIDE, reach

__all__ = [
    "HYPER",
    "AbstractAutoencoder",
    "Latents",
    "flattened",
    "hyper_size",
    "latent_size",
    "shaped",
]

Own = TypeVar("Own", bound="AbstractAutoencoder")

HYPER = 4  # latents to a side of a hyper-latent


class Latents(NamedTuple):
    """Pixels `(1, 3, H, W)` with halo and padding; y in steps `(1, M, h, w)`; z before rounding."""

    x: Tensor
    y: Tensor
    z: Tensor


def latent_size(geometry: TileGeometry) -> tuple[int, int]:
    """Rows and columns of a tile's latents."""
    return -(-geometry.height // STRIDE), -(-geometry.width // STRIDE)


def hyper_size(geometry: TileGeometry) -> tuple[int, int]:
    """Rows and columns of a tile's hyper-latents."""
    h, w = latent_size(geometry)
    return -(-h // HYPER), -(-w // HYPER)


def shaped(symbols: Symbols, geometry: TileGeometry) -> dict[str, Tensor]:
    """Symbols of one tile, of any shapes, as tensors z `(1, Z, p, q)` and y `(1, M, h, w)`."""
    sizes = {"z": hyper_size(geometry), "y": latent_size(geometry)}
    return {
        name: torch.from_numpy(symbols[name].reshape(1, -1, *size)) for name, size in sizes.items()
    }


def flattened(symbols: Mapping[str, Tensor]) -> dict[str, IntArray]:
    """Symbols of one tile in tensors as `traverse` gives them."""
    return {name: values.numpy().reshape(-1) for name, values in symbols.items()}


class AbstractAutoencoder(AbstractFamily):
    """A family of g_a, h_a and g_s, which run where `to` put them."""

    stride = STRIDE
    tile_multiple = HYPER * STRIDE

    def __init__(self, network: AbstractTrainable) -> None:
        """network: taken over; it has lost the parts that a codec has as integers."""
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = network.std.device
        self.halo = reach(max(len(network.g_a.blocks), len(network.g_s.blocks)))

    def to(self: Own, device: torch.device) -> Own:
        """The same codec with its float weights on `device`."""
        moved = copy.copy(self)
        moved.network = copy.deepcopy(self.network).to(device)
        moved._device = device
        return moved

    def _latents(self, x: Tensor, geometry: TileGeometry, halo: Halo) -> Latents:
        """g_a and h_a of a tile's pixels with their halo; see `AbstractFamily.analyse`."""
        network, (h, w) = self.network, latent_size(geometry)
        quality = self._quality(geometry.quality)
        bottom, right = -x.shape[2] % STRIDE, -x.shape[3] % STRIDE
        x = functional.pad(x.to(self._device), (0, right, 0, bottom), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        top, left = halo.top // STRIDE, halo.left // STRIDE
        y = network.g_a(x, quality)[:, :, top : top + h, left : left + w]
        y = y * network.gain(quality).exp()
        padded = functional.pad(y, (0, -w % HYPER, 0, -h % HYPER))
        return Latents(x, y, network.h_a(padded, self._norm(geometry)))

    def _norm(self, geometry: TileGeometry) -> Tensor:
        """Each latent's usual size in steps, `(1, M, 1, 1)`."""
        gain: Tensor = self.network.gain(self._quality(geometry.quality)).exp()
        return gain * self.network.std[:, None, None]

    def halved(self: Own) -> Own:
        """See `AbstractFamily.halved`; a pixel moves by at most one level of 255."""
        halved = copy.copy(self)
        halved.network = copy.copy(self.network)
        # A module keeps its parts in a dictionary of its own, which a shallow copy shares.
        halved.network._modules = dict(self.network._modules)
        # Not bfloat16, which moves pixels by more.
        halved.network.g_s = copy.deepcopy(self.network.g_s).half()
        return halved

    @torch.inference_mode()
    def synthesise(self, y_hat: Tensor, quality: int) -> Tensor:
        """Latents to pixels `(N, 3, 16 h, 16 w)`, about [0, 1], not clipped."""
        g_s = self.network.g_s
        dtype = g_s.leave.weight.dtype
        y_hat = y_hat.to(self._device, dtype).contiguous(memory_format=torch.channels_last)
        x_hat: Tensor = g_s(y_hat, self._quality(quality).to(dtype))
        return x_hat.float()

    def _quality(self, quality: int) -> Tensor:
        return torch.tensor([float(quality)], device=self._device)

    def _float_tensors(self) -> dict[str, Tensor]:
        """The network for a weight file: large weights in half precision."""
        found = {}
        for name, value in self.network.state_dict().items():
            half = name.endswith("weight") and value.numel() > 4096
            found[name] = (value.half() if half else value).contiguous().cpu()
        return found
