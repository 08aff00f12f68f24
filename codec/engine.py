"""Pictures to streams and back, with a loaded model. Knows no path and no option of a command line.

picture --colour--> tiles --analyse, traverse--> TILE chunks --pack--> stream
   |                                                              ^
   +------ alpha, palette, metadata -----------> side chunks -----+
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import final

import numpy as np
import torch
from torch import Tensor

from codec.bitstream import (
    Box,
    Chunk,
    ChunkType,
    Container,
    Header,
    pack,
    pack_streams,
    unpack,
    unpack_streams,
    whole_streams,
)
from codec.dictionaries import DictionaryFile, wanted_dictionary
from codec.entropy import Decoder, Encoder, Silence, prepare
from codec.entropy.rans import LANES
from codec.errors import BitstreamError, ModelError, UsageError
from codec.io.picture import Picture, Samples
from codec.io.side import COLOURS, Side, read_side, side_chunks
from codec.models.base import (
    SHORT,
    AbstractConditional,
    AbstractFamily,
    Search,
    Symbols,
    TileGeometry,
)
from codec.progress import Progress, Stopwatch, unseen, within
from codec.registry import family_by_id, family_by_name
from codec.tiling import analyse_tile, geometry_of, reconstruct, tile_side
from codec.weights import Entry, Zoo

__all__ = [
    "Decoded",
    "Encoded",
    "Model",
    "Rate",
    "SymbolDigest",
    "decode_picture",
    "decode_tensors",
    "device_of",
    "encode_picture",
    "find_model",
    "model_of",
    "to_levels",
]

# In a forked process OpenMP waits for ever for the threads that its parent had; one needs none.
if hasattr(os, "register_at_fork"):  # Windows knows no fork
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

QUALITIES = range(101)
STEPS = len(QUALITIES).bit_length()  # that halve the qualities down to one
KERNEL_PICTURES = 16  # of 8, sixteen cores read the symbols sooner than a GPU, of 32 later
Pixels = Callable[[Box], Tensor]


@final
@dataclass(frozen=True)
class Rate:
    """What a stream may cost: a quality, or instead of it one target that quality is chosen for.

    Attributes:
        quality: 0 to 100.
        bytes_max: the file's size.
        psnr_min: dB of the coded colour, at the picture's bit depth.
    """

    quality: int = 60
    bytes_max: float | None = None
    psnr_min: float | None = None

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise UsageError(f"quality: want 0 to 100, got {self.quality}")


@final
@dataclass(frozen=True)
class Encoded:
    """A stream, the quality that was chosen for it and the weights that made it."""

    stream: bytes
    quality: int
    entry: Entry


@final
@dataclass(frozen=True)
class Decoded:
    """A picture, and the SHA-256 of its symbols: int32, little-endian, tile after tile in order."""

    picture: Picture
    symbols_sha256: str
    device: torch.device


@final
@dataclass(frozen=True)
class Model:
    """Trained weights on a device, ready to code.

    With a `dictionary` that is not their own, `plain` is the model without it.
    """

    entry: Entry
    family: AbstractFamily
    family_id: int
    device: torch.device
    dictionary: DictionaryFile | None = None
    plain: Model | None = None

    def given(self, dictionary: DictionaryFile) -> Model:
        """The same with another dictionary.

        Raises:
            UsageError: the family has none.
            ModelError: the dictionary does not fit it.
        """
        if not isinstance(self.family, AbstractConditional):
            raise UsageError(f"dictionary: {self.entry.name} takes none")
        family = dictionary.given_to(self.family)
        return replace(self, family=family, dictionary=dictionary, plain=self)

    def reading(self, container: Container) -> Model:
        """The model that has the dictionary a stream needs: this one, or without its own.

        Raises:
            ModelError: it is another one.
        """
        wanted = wanted_dictionary(container)
        if wanted is None:
            return self.plain or self
        name, identity = wanted
        if self.dictionary is None or self.dictionary.id != identity:
            raise ModelError(f"the stream needs dictionary {name!r} ({identity.hex()})")
        return self

    def compress(self, x: Tensor, *, quality: int = 60) -> bytes:
        """A stream of one image.

        Args:
            x: `(1, 3, H, W)` or `(3, H, W)` in [0, 1], on any device.
            quality: 0 to 100.
        """
        x = x[None] if x.dim() == 3 else x
        if x.dim() != 4 or x.shape[:2] != (1, 3) or not x.numel() or not x.is_floating_point():
            raise UsageError(f"x: want (1, 3, H, W) floats, got {tuple(x.shape)} of {x.dtype}")
        header = self.header(width=x.shape[3], height=x.shape[2], quality=Rate(quality).quality)

        def pixels(box: Box) -> Tensor:
            return _cut_tensor(x, box).to(self.device, torch.float32).clamp(0, 1)

        return pack(header, _encode_tiles(self, pixels, header, Stopwatch(), unseen))

    def decompress(self, stream: bytes) -> Tensor:
        """The `(1, 3, H, W)` pixels of a stream that this model made, in [0, 1], on its device.

        Raises:
            BitstreamError: the stream is damaged or not ours.
            ModelError: another model made it, or it needs another dictionary.
        """
        container = unpack(stream)
        if not self.made(container.header):
            raise ModelError(f"the stream was not made by {self.entry.name}")
        header = container.header
        x = torch.empty(1, 3, header.height, header.width, device=self.device)
        watch = Stopwatch()
        digest = SymbolDigest()
        tiles = _decode_tiles([container], self, _whole(header), None, digest, watch, unseen)
        for box, x_hat in tiles:
            rows, columns = _rows_columns(box)
            x[:, :, rows, columns] = torch.nan_to_num(x_hat).clamp(0, 1)
        return x

    def made(self, header: Header) -> bool:
        """Whether a stream with this header is of these weights."""
        return (header.family, header.model_id) == (self.family_id, self.entry.model_id)

    def header(self, *, width: int, height: int, quality: int) -> Header:
        """The header of a plain RGB image of this model."""
        return Header(
            family=self.family_id,
            model_id=self.entry.model_id,
            width=width,
            height=height,
            quality=quality,
            tile=tile_side(width, height),
        )


def find_model(name: str, zoo: Zoo, device: str) -> Model:
    """The model called `family` or `family/variant`, on `device`: auto, cpu, cuda, cuda:1, ..."""
    return _load(zoo, zoo.find(name).sha256, device_of(device), half=False)


def model_of(header: Header, zoo: Zoo, device: str, *, half: bool = False) -> Model:
    """The model that made a stream; `half` as `AbstractFamily.halved` says."""
    family = family_by_id(header.family, zoo.families)
    return _load(zoo, zoo.find_by_id(family, header.model_id).sha256, device_of(device), half)


def encode_picture(
    picture: Picture,
    model: Model,
    rate: Rate,
    *,
    search: Search = SHORT,
    lanes: int | None = None,
    watch: Stopwatch,
    progress: Progress = unseen,
) -> Encoded:
    """The stream of a picture.

    Args:
        picture: to code.
        model: that codes it.
        rate: what it may cost.
        search: how hard to look for a smaller file; its seconds are for all of it.
        lanes: of its streams of rANS; see `codec.entropy.Encoder`.
        watch: is told what takes how long.
        progress: is told how far it has come.

    Raises:
        UsageError: no quality reaches the target, or there are no such lanes.
    """
    if lanes is not None and lanes not in LANES:
        raise UsageError(f"lanes: want a power of two from 1 to {LANES[-1]}, got {lanes}")
    side = side_chunks(picture)
    if rate.bytes_max is not None or rate.psnr_min is not None:
        search = replace(search, seconds=search.seconds / STEPS)

    def header(quality: int) -> Header:
        return Header(
            family=model.family_id,
            model_id=model.entry.model_id,
            width=picture.width,
            height=picture.height,
            bit_depth=picture.bit_depth,
            colour=COLOURS[picture.mode],
            quality=quality,
            tile=tile_side(picture.width, picture.height),
        )

    def pixels(box: Box) -> Tensor:
        return _to_tensor(_cut(picture.colour, box), model.device)

    def stream(quality: int, progress: Progress) -> bytes:
        head = header(quality)
        tiles = _encode_tiles(model, pixels, head, watch, progress, search, lanes)
        return pack(head, [*side, *tiles])

    def psnr(quality: int, progress: Progress) -> float:
        head = header(quality)
        return _psnr(picture.colour, model, pixels, head, watch, progress, search)

    if rate.bytes_max is not None:
        return Encoded(*_largest_within(rate.bytes_max, stream, progress), model.entry)
    quality = rate.quality
    if rate.psnr_min is not None:
        quality = _smallest_reaching(rate.psnr_min, psnr, progress)
        progress = unseen
    return Encoded(stream(quality, progress), quality, model.entry)


def decode_picture(
    container: Container,
    model: Model,
    window: Box,
    *,
    layers: int | None = None,
    watch: Stopwatch,
    progress: Progress = unseen,
) -> Decoded:
    """The part of the picture in a stream that lies in `window`, from its first `layers`.

    Raises:
        UsageError: there are not so many layers.
        BitstreamError: a payload is damaged, or cut before its first tile's first layer is whole.
        ModelError: it needs another dictionary than the model has.
    """
    _check_layers(layers, model)
    side = read_side(container)
    peak = 2**side.bit_depth - 1
    colour: Samples = np.empty(
        (window.height, window.width, side.channels), np.uint8 if peak == 255 else np.uint16
    )
    digest = SymbolDigest()
    tiles = _decode_tiles([container], model, window, layers, digest, watch, progress)
    for box, x_hat in tiles:
        here, there = _overlap(box, window)
        with watch.part("transform"):
            part = _cut_tensor(x_hat, here)
            colour[_rows_columns(there)] = to_levels(part, side.channels, peak)
    return Decoded(_cropped(side, window).picture(colour), digest.hexdigest(), model.device)


def decode_tensors(
    containers: Sequence[Container],
    model: Model,
    window: Box,
    *,
    layers: int | None = None,
    watch: Stopwatch,
) -> Tensor:
    """What lies in `window` of pictures with equal headers, without a way through the host.

    Returns:
        `(N, C, height, width)` float32 in [0, 1] on the model's device: the levels that
        `decode_picture` gives, grey or RGB, and alpha if they have one.

    Raises:
        UsageError: headers differ, or there are not so many layers.
        BitstreamError: as `decode_picture`, of any of them.
        ModelError: as `decode_picture`.
    """
    header = containers[0].header
    for number, container in enumerate(containers):
        if container.header != header:
            raise UsageError(f"batch: want headers that are equal, stream {number} has another")
    _check_layers(layers, model)
    sides = [_cropped(read_side(container), window) for container in containers]
    peak = 2**header.bit_depth - 1
    x = torch.empty(
        len(containers), sides[0].channels, window.height, window.width, device=model.device
    )
    for box, x_hat in _decode_tiles(containers, model, window, layers, None, watch, unseen):
        here, there = _overlap(box, window)
        with watch.part("transform"):
            rows, columns = _rows_columns(there)
            part = _cut_tensor(x_hat, here)
            x[:, :, rows, columns] = _levels(part, sides[0].channels, peak)
    planes = [_finished(own, side, peak) for own, side in zip(x, sides, strict=True)]
    return torch.stack(planes).div_(peak)


# ---- models


@lru_cache(maxsize=4)
def _load(zoo: Zoo, sha256: str, device: torch.device, half: bool) -> Model:
    """Weights are read, checked and moved once for many images."""
    entry = next(entry for entry in zoo.manifest() if entry.sha256 == sha256)
    family_id = family_by_name(entry.family, zoo.families).id
    family = zoo.load(entry)
    if not isinstance(family, AbstractFamily):
        raise ModelError(f"{entry.name} codes no images")
    prepare()  # or the first image would wait for it
    family = family.to(device)
    return Model(entry, family.halved() if half else family, family_id, device)


def device_of(name: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here; a UsageError if there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device: want auto, cpu or cuda, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device: want auto, cpu or cuda, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device: there is no {name} here")
    return device


# ---- tiles


def _encode_tiles(
    model: Model,
    pixels: Pixels,
    header: Header,
    watch: Stopwatch,
    progress: Progress,
    search: Search = SHORT,
    lanes: int | None = None,
) -> list[Chunk]:
    chunks, refers = [], False
    for number in range(header.tiles):
        with watch.part("transform"):
            own = _of_tile(search, header, number, progress)
            symbols = analyse_tile(model.family, pixels, header, number, own)
        with watch.part("entropy"):
            encoder = Encoder(lanes)
            model.family.traverse(encoder, symbols, geometry_of(header, number))
            chunks.append(Chunk(ChunkType.TILE, pack_streams(encoder.finish())))
        if isinstance(model.family, AbstractConditional):
            refers = refers or model.family.refers(symbols)
        progress((number + 1) / header.tiles)
    if refers and model.dictionary is not None:
        chunks.append(model.dictionary.chunk)
    return chunks


def _of_tile(search: Search, header: Header, number: int, progress: Progress) -> Search:
    """The part of `search` that is a tile's, by its share of the pixels."""
    box = header.box(number)
    share = box.height * box.width / (header.height * header.width)
    told = within(progress, number / header.tiles, 1 / header.tiles)
    return replace(search, seconds=search.seconds * share, watch=told)


def _decode_tiles(
    containers: Sequence[Container],
    model: Model,
    window: Box,
    layers: int | None,
    digest: SymbolDigest | None,
    watch: Stopwatch,
    progress: Progress,
) -> Iterator[tuple[Box, Tensor]]:
    """The tiles of pictures with equal headers, `(N, 3, height, width)` each.

    On a GPU those of all pictures are decoded side by side, where the family can.
    """
    header, family = containers[0].header, model.family
    readers = [model.reading(container).family for container in containers]

    def latents(number: int) -> Tensor:
        payloads = [
            _streams(container, number, reader, layers)
            for container, reader in zip(containers, readers, strict=True)
        ]
        if model.device.type == "cuda" and all(payloads):
            found = together(geometry(number, payloads[0]), payloads)
            if found is not None:
                return found
        parts = [one(number, own, reader) for own, reader in zip(payloads, readers, strict=True)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def together(own: TileGeometry, payloads: Sequence[Mapping[str, bytes]]) -> Tensor | None:
        with watch.part("entropy"):
            from codec.entropy.device import DeviceDecoder, has_triton

            kernel = len(payloads) >= KERNEL_PICTURES and has_triton()
            decoder = DeviceDecoder(payloads, model.device, kernel=kernel)
            symbols = family.traverse_batch(decoder, own)
            if symbols is None:
                return None
            decoder.finish()
            if digest is not None:
                digest.add({name: values.cpu().numpy() for name, values in symbols.items()})
        return family.dequantise_batch(symbols, own)

    def geometry(number: int, streams: Mapping[str, bytes]) -> TileGeometry:
        known = family.layers - len(family.streams) + len(streams)
        return replace(geometry_of(header, number), layers=known)

    def one(number: int, streams: Mapping[str, bytes], family: AbstractFamily) -> Tensor:
        own = geometry(number, streams) if streams else geometry_of(header, number)
        with watch.part("entropy"):
            if streams:
                decoder = Decoder(streams)
                symbols = family.traverse(decoder, None, own)
                decoder.finish()
            else:
                symbols = family.traverse(Silence(), None, own)
            if digest is not None:
                digest.add(symbols)
        return family.dequantise(symbols, own)

    tiles = reconstruct(family, latents, header, window)
    while True:
        with watch.part("transform"):
            tile = next(tiles, None)
        if tile is None:
            return
        yield tile
        done = tile[0].top + tile[0].height - window.top
        progress(min(1.0, done / window.height))


def _check_layers(layers: int | None, model: Model) -> None:
    if layers is not None and not 0 <= layers <= model.family.layers:
        raise UsageError(f"layers: want 0 to {model.family.layers} of this stream, got {layers}")


def _streams(
    container: Container, number: int, family: AbstractFamily, layers: int | None
) -> dict[str, bytes]:
    """The sub-streams of a tile up to `layers`; none if a cut file has not all that it needs."""
    names = family.streams
    needed = len(names) - family.layers
    last = len(container.tiles) - 1
    if container.cut and number >= last:
        streams = whole_streams(container.tiles[number] if number == last else b"", names)
        if len(streams) < needed:
            if number == 0:
                raise BitstreamError("the stream is cut before its first layer is whole")
            return {}
    else:
        streams = unpack_streams(container.tiles[number], names)
    kept = names if layers is None else names[: needed + layers]
    return {name: stream for name, stream in streams.items() if name in kept}


@final
class SymbolDigest:
    """SHA-256 of symbols as int32, little-endian."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, symbols: Symbols) -> None:
        """The next tile's or group's."""
        for values in symbols.values():
            self._hash.update(np.ascontiguousarray(values, "<i4").tobytes())

    def hexdigest(self) -> str:
        """Of all so far."""
        return self._hash.hexdigest()


# ---- targets


def _largest_within(
    bytes_max: float, stream: Callable[[int, Progress], bytes], progress: Progress
) -> tuple[bytes, int]:
    """The best quality whose file is not over `bytes_max`; size grows with quality."""
    low, high = -1, len(QUALITIES)
    best, smallest = None, 0
    for step in _steps(progress):
        middle = (low + high) // 2
        found = stream(middle, step)
        if len(found) <= bytes_max:
            low, best = middle, (found, middle)
        else:
            high, smallest = middle, len(found)
        if high - low <= 1:
            break
    if best is None:
        raise UsageError(f"target: want at most {bytes_max:.0f} bytes, quality 0 takes {smallest}")
    return best


def _smallest_reaching(
    psnr_min: float, psnr: Callable[[int, Progress], float], progress: Progress
) -> int:
    """The lowest quality whose PSNR is at least `psnr_min`; PSNR grows with quality."""
    low, high, best = -1, len(QUALITIES), 0.0
    for step in _steps(progress):
        middle = (low + high) // 2
        found = psnr(middle, step)
        if found >= psnr_min:
            high = middle
        else:
            low, best = middle, found
        if high - low <= 1:
            break
    if high == len(QUALITIES):
        raise UsageError(f"target: want {psnr_min:.2f} dB, quality {low} gives {best:.2f}")
    return high


def _steps(progress: Progress) -> Iterator[Progress]:
    """The `Progress` of each of the steps that halve the qualities down to one."""
    for number in range(STEPS):
        yield within(progress, number / STEPS, 1 / STEPS)


def _psnr(
    colour: Samples,
    model: Model,
    pixels: Pixels,
    header: Header,
    watch: Stopwatch,
    progress: Progress,
    search: Search,
) -> float:
    """Decibels between the colour and what its stream decodes to, before any palette."""

    def latents(number: int) -> Tensor:
        own = _of_tile(search, header, number, progress)
        symbols = analyse_tile(model.family, pixels, header, number, own)
        return model.family.dequantise(symbols, geometry_of(header, number))

    peak = 2**header.bit_depth - 1
    total = 0
    with watch.part("transform"):
        for box, x_hat in reconstruct(model.family, latents, header, _whole(header)):
            decoded = to_levels(x_hat, colour.shape[2], peak).astype(np.int64)
            total += int(((decoded - _cut(colour, box)) ** 2).sum())
            progress((box.top + box.height) / header.height)
    return math.inf if total == 0 else 10 * math.log10(peak**2 * colour.size / total)


# ---- pixels


def _to_tensor(samples: Samples, device: torch.device) -> Tensor:
    """`(H, W, 1 or 3)` levels to `(1, 3, H, W)` in [0, 1]."""
    if samples.dtype == np.uint8:  # the smaller type travels to the device
        levels = torch.from_numpy(np.require(samples, requirements=["C", "W"])).to(device)
    else:
        levels = torch.from_numpy(samples.astype(np.float32)).to(device)
    x = levels.permute(2, 0, 1)[None].to(torch.float32)
    return x.div(2 ** (8 * samples.itemsize) - 1).expand(-1, 3, -1, -1)


def to_levels(x: Tensor, channels: int, peak: int) -> Samples:
    """`(1, 3, H, W)` about [0, 1] to `(H, W, channels)` levels of 0 to `peak`; grey is the mean."""
    levels = _levels(x, channels, peak)[0].permute(1, 2, 0)
    if peak == 255:
        return np.asarray(levels.to(torch.uint8).cpu())
    return np.asarray(levels.to(torch.int32).cpu()).astype(np.uint16)


def _levels(x: Tensor, channels: int, peak: int) -> Tensor:
    """`(N, 3, H, W)` about [0, 1] to `(N, channels, H, W)` levels, still floats."""
    if channels == 1:
        x = x.mean(dim=1, keepdim=True)
    # Hostile symbols may overflow a network; whatever comes out is still a picture.
    return (torch.nan_to_num(x).clamp(0, 1) * peak).round()


def _finished(levels: Tensor, side: Side, peak: int) -> Tensor:
    """Levels `(channels, H, W)` with all that `Picture.to_array` makes of them and `side`."""
    if side.palette is not None or side.key is not None:  # few pictures have one: let the host
        samples = np.asarray(levels.permute(1, 2, 0).cpu())
        colour = samples.astype(np.uint8 if peak == 255 else np.uint16)
        array = side.picture(colour).to_array()
        array = array[:, :, None] if array.ndim == 2 else array
        return torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1).to(levels.device)
    if side.alpha is None:
        return levels
    alpha = torch.from_numpy(side.alpha.astype(np.float32)).to(levels.device)
    return torch.cat([levels, alpha[None]])


def _whole(header: Header) -> Box:
    return Box(0, 0, header.width, header.height)


def _overlap(box: Box, window: Box) -> tuple[Box, Box]:
    """What `box` and `window` share, counted from the corner of `box` and of `window`."""
    left, top = max(box.left, window.left), max(box.top, window.top)
    width = min(box.left + box.width, window.left + window.width) - left
    height = min(box.top + box.height, window.top + window.height) - top
    here = Box(left - box.left, top - box.top, width, height)
    return here, Box(left - window.left, top - window.top, width, height)


def _rows_columns(box: Box) -> tuple[slice, slice]:
    return slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)


def _cut(samples: Samples, box: Box) -> Samples:
    return samples[_rows_columns(box)]


def _cut_tensor(x: Tensor, box: Box) -> Tensor:
    rows, columns = _rows_columns(box)
    return x[:, :, rows, columns]


def _cropped(side: Side, window: Box) -> Side:
    alpha = None if side.alpha is None else _cut(side.alpha, window)
    return replace(side, alpha=alpha)
