"""The contract of a family: what a trained, frozen codec can do. Knows no file and no container.

A frozen family object holds integer tables and float weights that never change. Of its methods,
`traverse` is the only one that codes anything, and it is the same call for encoding, decoding and
counting bits, so the encoder cannot use what the decoder lacks.

        ENCODE                                        DECODE
    pixels --analyse--> symbols                   pixels <--synthesise-- latents
                          |                                                 ^
                     traverse(coder)                                   dequantise
                          v                                                 |
                        bytes  ---------------->  traverse(coder) --> symbols

Left of `symbols` floats are free; below, everything is integers and bit-exact.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.cameras import Camera
from codec.entropy import AbstractCoder, IntArray
from codec.entropy.batch import AbstractBatch
from codec.gaussians import Gaussians

__all__ = [
    "SHORT",
    "AbstractBookmark",
    "AbstractConditional",
    "AbstractFamily",
    "AbstractScene",
    "AbstractSceneFamily",
    "AbstractVideoFamily",
    "GroupGeometry",
    "Halo",
    "Search",
    "SliceState",
    "Symbols",
    "TileGeometry",
    "ended_by",
]

Symbols: TypeAlias = Mapping[str, IntArray]
SliceState: TypeAlias = Mapping[str, IntArray]
"""Integers of each attribute of a slice's Gaussians, as they are after a frame."""


@dataclass(frozen=True)
class TileGeometry:
    """What the header says about one tile: all that `traverse` may know besides the weights.

    `height` and `width` are the tile's own pixels, at least 1 each, without any halo; `quality` is
    the rate point, 0..100. `layers` is how many of the family's layers to decode, None for all.
    """

    height: int
    width: int
    quality: int
    layers: int | None = None


@dataclass(frozen=True)
class GroupGeometry:
    """What the file says about one group of pictures besides its payload.

    `height` and `width` are a frame's pixels and `frames` how many the group has, at least 1 each.
    """

    height: int
    width: int
    frames: int


@dataclass(frozen=True)
class Halo:
    """Pixels of neighbouring tiles on each side; multiples of the stride, 0 at a border."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


class AbstractBookmark(ABC):
    """Where a search keeps how far it has come, to go on there if its process is killed."""

    @abstractmethod
    def find(self) -> Mapping[str, Tensor] | None:
        """What was kept last of this search, on the CPU; None if nothing was."""

    @abstractmethod
    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Keep `state`, on any device, in place of what was kept before.

        Raises:
            UsageError: it cannot be written.
        """


@dataclass(frozen=True)
class Search:
    """How hard an encoder looks for symbols that cost less; may be without effect.

    Attributes:
        effort: 0 to 9.
        seconds: it may take for a tile; what is found by then counts.
        watch: is told the part that is done, 0 to 1, and in a few words how good it is.
        interrupted: to set at Ctrl-C, which then ends the search with the best that was found, and
            cuts those that come after it short; None to let the KeyboardInterrupt through.
        bookmark: for searches that can go on where one was killed; the others leave it alone.
    """

    effort: int = 0
    seconds: float = math.inf
    watch: Callable[[float, str], None] = lambda part, note: None
    interrupted: Event | None = None
    bookmark: AbstractBookmark | None = None


SHORT = Search()


@contextmanager
def ended_by(interrupted: Event | None) -> Iterator[None]:
    """Ctrl-C ends what is inside, and nothing more, if there is an event to set; see `Search`."""
    try:
        yield
    except KeyboardInterrupt:
        if interrupted is None:
            raise
        interrupted.set()


class AbstractFamily(ABC):
    """A frozen codec. `stride` and `halo` are pixels: the size of a latent, the reach of a filter.

    A tile's side is a multiple of `tile_multiple`, except at the image's right and bottom border.
    `streams` are the names of the sub-streams in the order in which `traverse` opens them; the last
    `layers` of them only add detail, and a tile decodes without the last ones.
    """

    stride: int
    halo: int
    tile_multiple: int
    streams: tuple[str, ...]
    layers: int

    @classmethod
    @abstractmethod
    def load(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> AbstractFamily:
        """The codec that a weight file holds.

        Raises:
            KeyError, ValueError, RuntimeError: something is missing or of another size.
        """

    @abstractmethod
    def analyse(
        self, x: Tensor, geometry: TileGeometry, halo: Halo, search: Search = SHORT
    ) -> Symbols:
        """Turn pixels into the symbols of one tile; the encoder's half.

        Args:
            x: `(1, 3, halo.top + height + halo.bottom, halo.left + width + halo.right)` in [0, 1].
            geometry: of the tile without its halo.
            halo: how much of `x` belongs to neighbours.
            search: how hard to look for symbols that cost less.
        """

    @abstractmethod
    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: TileGeometry
    ) -> Symbols:
        """Code all symbols of one tile in their one order; `None` when decoding.

        With fewer `geometry.layers` than there are, the symbols of the others are 0.
        """

    @abstractmethod
    def dequantise(self, symbols: Symbols, geometry: TileGeometry) -> Tensor:
        """Symbols of one tile to latents `(1, M, ceil(height / stride), ceil(width / stride))`."""

    def traverse_batch(
        self, batch: AbstractBatch, geometry: TileGeometry
    ) -> Mapping[str, Tensor] | None:
        """Decode the symbols of P tiles of one geometry side by side: `traverse` for tensors.

        Returns:
            `(P, ...)` int32 each, on the batch's device; None, and nothing is opened, of a family
            that decodes one after the other.
        """
        return None

    def dequantise_batch(self, symbols: Mapping[str, Tensor], geometry: TileGeometry) -> Tensor:
        """Symbols of `traverse_batch` to latents `(P, M, h, w)`."""
        raise NotImplementedError

    @abstractmethod
    def synthesise(self, y_hat: Tensor, quality: int) -> Tensor:
        """Latents, of a tile or of a tile with its halo, to pixels.

        Args:
            y_hat: `(N, M, h, w)`, each from `dequantise`; neighbours' latents may be pasted around.
            quality: the rate point of all, 0..100.

        Returns:
            `(N, 3, stride * h, stride * w)` float32, about [0, 1], not clipped.
        """

    @abstractmethod
    def to(self, device: torch.device) -> AbstractFamily:
        """The same codec with its weights on `device`."""

    def halved(self) -> AbstractFamily:
        """The same codec that synthesises in half precision; itself if it is none that can."""
        return self


class AbstractConditional(AbstractFamily):
    """A family whose streams may refer to pictures that both sides have, a dictionary.

    It has one of its own and can be given another, of at most `entries_max` pictures of
    `entry_side` pixels to a side. `backbone` is the SHA-256 of the weights that make its entries.
    """

    entry_side: int
    entries_max: int

    @property
    @abstractmethod
    def backbone(self) -> str:
        """Hexadecimal."""

    @abstractmethod
    def with_dictionary(self, tensors: Mapping[str, Tensor]) -> AbstractConditional:
        """The same codec with the dictionary in `tensors`: a new object.

        Raises:
            KeyError, ValueError: something is missing or does not fit.
        """

    @abstractmethod
    def refers(self, symbols: Symbols) -> bool:
        """Whether a tile's symbols need the dictionary."""

    @abstractmethod
    def collect(self, pictures: Iterable[Tensor], size: int) -> Mapping[str, Tensor]:
        """A dictionary of at most `size` entries, as `with_dictionary` takes it.

        Args:
            pictures: `(1, 3, entry_side, entry_side)` in [0, 1] each, at least one.
            size: 1 to `entries_max`.
        """


class AbstractVideoFamily(ABC):
    """A frozen codec of videos, which are cut into groups of pictures that know nothing of another.

    `streams` are the names of the sub-streams in the order in which `traverse` opens them, and a
    group has at most `frames_max` frames.
    """

    streams: tuple[str, ...]
    frames_max: int
    layers = 0

    @classmethod
    @abstractmethod
    def load(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> AbstractVideoFamily:
        """See `AbstractFamily.load`."""

    @abstractmethod
    def bits_least(self, geometry: GroupGeometry) -> float:
        """Bits of a group with which it is something to look at."""

    @abstractmethod
    def analyse_group(
        self, x: Tensor, geometry: GroupGeometry, bits: float, search: Search = SHORT
    ) -> Symbols:
        """Turn frames into the symbols of one group; the encoder's half.

        Args:
            x: `(frames, 3, height, width)` uint8.
            geometry: of the group.
            bits: that its sub-streams may take in all.
            search: how hard to look for symbols that give better frames.

        Raises:
            UsageError: so few bits hold nothing.
        """

    @abstractmethod
    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: GroupGeometry
    ) -> Symbols:
        """Code all symbols of one group in their one order; `None` when decoding."""

    @abstractmethod
    def synthesise_frames(
        self, symbols: Symbols, geometry: GroupGeometry, numbers: Sequence[int]
    ) -> Iterator[Tensor]:
        """Some frames of a group, one after the other.

        Args:
            symbols: of the group.
            geometry: of the group.
            numbers: of frames in the group, from 0.

        Yields:
            `(1, 3, height, width)`, about [0, 1], not clipped.
        """

    @abstractmethod
    def to(self, device: torch.device) -> AbstractVideoFamily:
        """The same codec, computing on `device`."""


class AbstractSceneFamily(ABC):
    """A frozen codec of moving Gaussians. `slice_max` is how many a slice has at most."""

    slice_max: int

    @classmethod
    @abstractmethod
    def load(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> AbstractSceneFamily:
        """See `AbstractFamily.load`."""

    @abstractmethod
    def plan(self, frames: Iterable[Gaussians], quality: int) -> bytes:
        """What a whole stream needs to know: the steps and the reach of integers; encoder only.

        Args:
            frames: of the scene, looked at once, at least one, all of one degree.
            quality: 0..100.

        Raises:
            UsageError: degrees differ, or values are too large for any step.
        """

    @abstractmethod
    def fit(
        self,
        cameras: Sequence[Camera],
        frames: Iterable[NDArray[np.uint8]],
        count: int,
        quality: int,
        search: Search,
    ) -> tuple[bytes, Iterator[Gaussians]]:
        """A plan, and Gaussians that look like pictures, made one moment at a time; encoder only.

        Args:
            cameras: V of one size.
            frames: `(V, H, W, 3)` each, looked at once and one at a time.
            count: how many there are, at least one.
            quality: 0..100.
            search: how hard to fit, and for how long.

        Raises:
            UsageError: the cameras do not see enough in common, or the family fits nothing.
        """

    @abstractmethod
    def scene(self, plan: bytes) -> AbstractScene:
        """The codec of one stream; a BitstreamError if `plan` is not one."""


class AbstractScene(ABC):
    """A frozen codec of one stream of moving Gaussians, cut into slices that know of no other.

    A key frame makes the slices; each frame after it changes them one by one. `streams` are the
    names of a slice's sub-streams in the order in which `traverse` opens them; the last `layers` of
    them only add detail. A slice of a later frame that is lost stays as it was.
    """

    degree: int
    streams: tuple[str, ...]
    layers: int

    @abstractmethod
    def key(self, gaussians: Gaussians) -> list[Symbols]:
        """The symbols of each slice of a key frame, at least one; encoder only."""

    @abstractmethod
    def follow(self, gaussians: Gaussians, before: Sequence[SliceState]) -> list[Symbols] | None:
        """The symbols that turn slices into those of the next frame, one each; encoder only.

        None where slices have no room for all that is new: it is time for a key frame.
        """

    @abstractmethod
    def traverse(
        self,
        coder: AbstractCoder,
        symbols: Symbols | None,
        before: SliceState | None,
        layers: int | None = None,
    ) -> Symbols:
        """Code all symbols of one slice in their one order; `symbols` is None when decoding.

        Args:
            coder: see `codec.entropy`.
            symbols: of `key` or `follow`.
            before: the slice in the frame before; None in a key frame.
            layers: how many to decode, None for all; the symbols of the others are 0.
        """

    @abstractmethod
    def after(self, symbols: Symbols, before: SliceState | None) -> SliceState:
        """The slice that symbols make of the one before; a BitstreamError beyond any limit."""

    @abstractmethod
    def gaussians(self, slices: Sequence[SliceState]) -> Gaussians:
        """Those of all slices, in order."""
