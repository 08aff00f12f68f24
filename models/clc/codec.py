"""`clc`, frozen: `iscs` that begins at references, entries of a dictionary.

Symbols of a tile are those of `iscs` and `r` `(blocks, 18)`: for each block of 256x256 pixels two
entries, numbered from 1, the same one twice if there is only one, or 0 and 0; and for each of its
squares of 64x64 pixels which of the two it begins at, 1 or 2, or 0. They are coded first, in the
sub-stream of z. A tile without any is a tile of `iscs` in all else, bit for bit.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from codec.entropy import (
    AbstractCoder,
    AbstractStream,
    BitCounter,
    Decoder,
    Encoder,
    IntArray,
    Method,
    Tables,
)
from codec.entropy.batch import AbstractBatch, Single
from codec.errors import BitstreamError
from codec.models.autoencoder import HYPER, Latents, flattened, hyper_size, latent_size, shaped
from codec.models.base import (
    SHORT,
    AbstractConditional,
    Halo,
    Search,
    Symbols,
    TileGeometry,
)
from codec.models.clc.dictionary import ENTRIES_MAX, Dictionary, Floats, pooled
from codec.models.clc.network import REFERENCE_QUALITY, ClcConfig, reference_of
from codec.models.clc.reference import (
    BLOCK,
    SQUARES,
    Reference,
    choices_of,
    refined,
    spread,
    start_of,
)
from codec.models.iscs import Iscs
from codec.models.iscs.codec import Coding, Given, rounded
from codec.models.iscs.network import IscsNetwork
from codec.models.quantize import WORTH

__all__ = ["ENTRY", "Clc", "collect"]

ENTRY = TileGeometry(256, 256, REFERENCE_QUALITY)
"""What an entry of a dictionary is: a tile of `iscs`."""

NEAREST = 8  # entries whose latents the encoder looks at for a block
TRIED = 3  # of these it codes the block with so many, and with the best of them and each other
TRUSTS = (1.0, 0.75, 0.5)  # of `choices_of`; the last two with what was best with the first
FAR = 4.0  # steps: latents further apart than this have nothing in common
KEPT = 64  # decoded entries that are not decoded again

WIDTH = 2 + SQUARES**2
ESCAPE = 1e-9  # its share: a number that is out of range is never written
ANY = Tables.from_pmfs([np.array([0.99, 0.01, ESCAPE])], [0], 16)
CHOICES = Tables.from_pmfs(
    [np.array([0.2, 0.8, ESCAPE]), np.array([0.2, 0.4, 0.4, ESCAPE])], [0, 0], 16
)


@final
class Clc(Iscs, AbstractConditional):
    """A trained `clc` with its dictionary."""

    def __init__(
        self,
        network: IscsNetwork,
        coding: Coding,
        *,
        reference: Reference,
        shift: IntArray,
        dictionary: Dictionary,
        metadata: Mapping[str, str],
    ) -> None:
        """Take over network and reference.

        `shift` `(101, M)` is what reference.shift says, in 1/256, and metadata that of its own
        weight file.
        """
        super().__init__(network, coding)
        self.reference = reference.eval().requires_grad_(False)
        self.shift = shift
        self._metadata = dict(metadata)
        self._take(dictionary)

    def _take(self, dictionary: Dictionary) -> None:
        self.dictionary = dictionary
        even = np.full(len(dictionary), 0.5 / len(dictionary))
        self._numbers = Tables.from_pmfs([np.array([0.5, *even, ESCAPE])], [0], 16)
        self._latents_of = functools.lru_cache(KEPT)(self._decoded)

    def with_dictionary(self, tensors: Mapping[str, Tensor]) -> Clc:
        """See `AbstractConditional.with_dictionary`."""
        other = copy.copy(self)
        other._take(Dictionary.load(tensors))
        return other

    def to(self, device: torch.device) -> Clc:
        """The same codec with its float weights on `device`."""
        moved = super().to(device)
        moved.reference = copy.deepcopy(self.reference).to(device)
        moved._take(self.dictionary)
        return moved

    entry_side = ENTRY.width
    entries_max = ENTRIES_MAX

    @property
    def backbone(self) -> str:
        """The SHA-256 of its `iscs`; see `AbstractConditional.backbone`."""
        return self._metadata["backbone"]

    def refers(self, symbols: Symbols) -> bool:
        """See `AbstractConditional.refers`."""
        return bool(symbols["r"].any())

    # ---- encoder only

    @torch.no_grad()
    def analyse(
        self, x: Tensor, geometry: TileGeometry, halo: Halo, search: Search = SHORT
    ) -> Symbols:
        """Turn pixels into the symbols of one tile; see `AbstractFamily.analyse`."""
        latents = self._latents(x, geometry, halo)
        chosen = self._choose(latents.y, geometry)
        tried = [self._with(latents, halo, np.zeros_like(chosen), geometry)]
        if chosen.any():
            tried += [self._with(latents, halo, chosen, geometry, more=more) for more in (0, 1)]
        best = min(tried, key=_cost)
        if search.effort:
            best = self._with(latents, halo, best.r, geometry, search, more=best.more)
        return best.symbols

    def _with(
        self,
        latents: Latents,
        halo: Halo,
        r: IntArray,
        geometry: TileGeometry,
        search: Search = SHORT,
        *,
        more: int = 0,
    ) -> _Way:
        """A tile with references r, z being of what is left, and with `more` of `h_r` besides."""
        z_real, given = latents.z, self._given(r, geometry)
        if r.any():
            h, w = latents.y.shape[2:]
            rest = latents.y - given.start
            padded = functional.pad(rest, (0, -w % HYPER, 0, -h % HYPER))
            z_real = self.network.h_a(padded, self._norm(geometry))
            if more:
                z_real = z_real + self._change(rest, r, geometry)
        z = rounded(z_real)
        found = self._found(latents, halo, z, given, geometry, search)
        error = float((latents.y - found.y_hat).square().sum())
        counter = BitCounter()
        self.walk_references(counter.open("z", Method.RANGE), r, len(r))
        bits = counter.bits + self._bits(z, found.symbols, given, geometry)
        own = {"r": r.reshape(-1), "z": z.reshape(-1), "y": found.symbols.reshape(-1)}
        return _Way(bits + WORTH * error, r, more, own)

    def _choose(self, y: Tensor, geometry: TileGeometry) -> IntArray:
        """The references of each block, `(blocks, 18)`, of latents `(1, M, h, w)` in steps."""
        rows, columns = _grid(*y.shape[2:])
        core = _blocks(y / self._norm(geometry))[:, : self._core]
        features = pooled(core)
        chosen = np.zeros((rows * columns, WIDTH), np.int32)
        for number in range(rows * columns):
            top, left = (BLOCK * place for place in divmod(number, columns))
            own = y[:, :, top : top + BLOCK, left : left + BLOCK]
            near = self._nearest(own, core[number], features[number], geometry)
            chosen[number] = self._cheapest(own, near, geometry)
        return chosen

    def _nearest(
        self, y: Tensor, core: Tensor, features: Floats, geometry: TileGeometry
    ) -> list[int]:
        """The entries, from 1, whose latents are nearest to those of a block.

        Args:
            y: `(1, M, h, w)` in steps.
            core: `(core, 16, 16)`, of its first channels over their usual size.
            features: its `pooled` `(F,)`.
            geometry: of the tile.
        """
        h, w = y.shape[2:]
        steps = self._norm(geometry)[0, : self._core]

        def away(entry: int) -> float:
            apart = (self._latents_of(entry)[: self._core] - core)[:, :h, :w]
            return float((apart * steps).abs().clamp(max=FAR).sum())

        near = sorted(self.dictionary.nearest(features, NEAREST), key=away)
        return [entry + 1 for entry in near[:TRIED]]

    def _cheapest(self, y: Tensor, near: list[int], geometry: TileGeometry) -> IntArray:
        """The references `(18,)` with which a block `(1, M, h, w)`, coded alone, costs least."""
        h, w = y.shape[2:]
        own = replace(geometry, height=h * self.stride, width=w * self.stride)
        padded = functional.pad(y, (0, -w % HYPER, 0, -h % HYPER))
        alone = Latents(y, y, self.network.h_a(padded, self._norm(geometry)))
        whole = _blocks(y)

        def with_references(first: int, second: int, trust: float) -> IntArray:
            r = np.zeros((1, WIDTH), np.int32)
            r[0, :2] = first, second
            pair = torch.stack([self._latents_of(e - 1) for e in {first: 0, second: 0}])[None]
            choices = choices_of(whole, pair, self._norm(geometry), trust)
            r[0, 2:] = choices.flatten().cpu().numpy()
            return r

        def coded(r: IntArray) -> _Way:
            return self._with(alone, Halo(), r, own)

        none = np.zeros((1, WIDTH), np.int32)
        singles = [with_references(entry, entry, TRUSTS[0]) for entry in near]
        ways = sorted((coded(r) for r in singles if r[0, 2:].any()), key=_cost)
        if not ways:
            return none.reshape(-1)
        first = int(ways[0].r[0, 0])
        pairs = [with_references(first, int(way.r[0, 0]), TRUSTS[0]) for way in ways[1:]]
        best = min([ways[0], *map(coded, pairs)], key=_cost)
        first, second = best.r[0, :2].tolist()
        warier = [with_references(first, second, trust) for trust in TRUSTS[1:]]
        return min([best, *map(coded, [none, *warier])], key=_cost).r.reshape(-1)

    def _change(self, rest: Tensor, r: IntArray, geometry: TileGeometry) -> Tensor:
        """What references add to z, `(1, Z, p, q)`."""
        p, q = hyper_size(geometry)
        norm = self._norm(geometry)
        change = self.reference.change(_blocks(rest), _choices(r).to(self._device), norm)
        return _joined(change, *_grid(*rest.shape[2:]))[:, :, :p, :q]

    # ---- both directions

    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: TileGeometry
    ) -> Symbols:
        """Code the references, then what `iscs` codes; the same call in all directions."""
        rows, columns = _grid(*latent_size(geometry))
        batch = Single(coder)
        stream = batch.open("z", Method.RANGE)
        own = None if symbols is None else symbols["r"].reshape(-1, WIDTH)
        r = self.walk_references(stream.stream, own, rows * columns)
        given = Given(self.network.means, levels=self._levels(r, geometry))
        others = None if symbols is None else shaped(symbols, geometry)
        return {
            "r": r.reshape(-1),
            **flattened(self._walk(batch, stream, others, given, geometry)),
        }

    def traverse_batch(
        self, batch: AbstractBatch, geometry: TileGeometry
    ) -> Mapping[str, Tensor] | None:
        """None: references are looked up picture by picture."""
        return None

    def walk_references(
        self, stream: AbstractStream, own: IntArray | None, blocks: int
    ) -> IntArray:
        """Whether there are any; the first of each block, or 0; another, or 0; the squares'."""

        def code(values: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
            found = stream.code(values, tables, indexes)
            if ((found < 0) | (found >= tables.sizes[indexes] - 1)).any():
                raise BitstreamError("references: a number is out of range")
            return found

        any_, first, other, squares = (None,) * 4
        if own is not None:
            some = own[:, 0] > 0
            any_ = np.array([some.any()], np.int32)
            first = own[:, 0]
            other = np.where(own[:, 1] == first, 0, own[:, 1])[some]
            squares = own[some, 2:].reshape(-1)
        r = np.zeros((blocks, WIDTH), np.int32)
        one = np.zeros(1, np.int32)
        if not code(any_, ANY, one)[0]:
            return r
        r[:, 0] = code(first, self._numbers, one.repeat(blocks))
        some = r[:, 0] > 0
        other = code(other, self._numbers, one.repeat(some.sum()))
        if not some.any() or (other == r[some, 0]).any():
            raise BitstreamError("references: not in their shortest form")
        r[some, 1] = np.where(other > 0, other, r[some, 0])
        two = (other > 0).astype(np.int32).repeat(SQUARES**2)
        r[some, 2:] = code(squares, CHOICES, two).reshape(-1, SQUARES**2)
        return r

    def _levels(self, r: IntArray, geometry: TileGeometry) -> Tensor:
        """What the squares' choices add to the levels of y, `(M, h, w)`, in 1/256; all integers."""
        h, w = latent_size(geometry)
        where = _joined((spread(_choices(r)) > 0).int(), *_grid(h, w))[0, :, :h, :w]
        return where * torch.from_numpy(self.shift[geometry.quality])[:, None, None]

    # ---- decoder only

    @torch.inference_mode()
    def dequantise(self, symbols: Symbols, geometry: TileGeometry) -> Tensor:
        """Symbols of one tile to latents in natural units, `(1, M, h, w)`."""
        given = self._given(symbols["r"].reshape(-1, WIDTH), geometry)
        return self._dequantise(symbols, given, geometry)

    def _given(self, r: IntArray, geometry: TileGeometry) -> Given:
        """What references r tell of a tile."""
        means = self.network.means
        numbers = np.flatnonzero(r[:, 0]).tolist()
        if not numbers:
            return Given(means)
        pairs = [torch.stack([self._latents_of(int(e) - 1) for e in r[n, :2]]) for n in numbers]
        references = torch.stack(pairs)
        start = start_of(references, _choices(r)[numbers].to(self._device))
        h, w = latent_size(geometry)
        grid = _grid(h, w)

        def whole(blocks: Tensor) -> Tensor:
            """The tile of which all else is 0."""
            tile = blocks.new_zeros(len(r), *blocks.shape[1:])
            tile[numbers] = blocks
            return _joined(tile, *grid)[:, :, :h, :w]

        def fused(
            k: int, mean: Tensor, decoded: Tensor, features: Tensor, quality: Tensor
        ) -> Tensor:
            mean_b, decoded_b, features_b = (
                _blocks(values)[numbers] for values in (mean, decoded, features)
            )
            rates = quality.expand(len(numbers))
            better = self.reference.fuse(k, mean_b, decoded_b, features_b, start, references, rates)
            return mean + whole(better - mean_b)

        begin = whole(start) * self._norm(geometry)
        return Given(refined(means, fused), begin, self._levels(r, geometry))

    @torch.inference_mode()
    def _decoded(self, entry: int) -> Tensor:
        """The latents of an entry over their usual size, `(M, 16, 16)`."""
        payloads = dict(zip(self.streams, self.dictionary.payloads(entry), strict=True))
        decoder = Decoder(payloads)
        symbols = Iscs.traverse(self, decoder, None, ENTRY)
        decoder.finish()
        y_hat = Iscs.dequantise(self, symbols, ENTRY)
        return y_hat[0] / self.network.std[:, None, None]

    # ---- weight files and dictionaries

    def collect(self, pictures: Iterable[Tensor], size: int) -> dict[str, Tensor]:
        """See `AbstractConditional.collect`."""
        return collect(self, pictures, size).tensors()

    def tensors(self) -> dict[str, Tensor]:
        """What its own weight file holds; `iscs` has one too."""
        found = {"shift": torch.from_numpy(self.shift.copy())}
        for name, value in self.reference.state_dict().items():
            half = name.endswith("weight") and value.numel() > 4096
            found[f"reference.{name}"] = (value.half() if half else value).contiguous().cpu()
        return found | self.dictionary.tensors()

    def metadata(self) -> dict[str, str]:
        """The rest of it, as text."""
        return self._metadata

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Clc:
        """The codec of its own weight file and that of its `iscs`, together.

        Raises:
            KeyError, ValueError, RuntimeError: something is missing or of another size.
        """
        network, coding = cls._parts(tensors, metadata)
        own = {name: metadata[name] for name in ("backbone", "reference")}
        config = ClcConfig(**asdict(network.config) | json.loads(own["reference"]))
        with torch.random.fork_rng(devices=[]):
            reference = reference_of(config)
        reference.load_state_dict(
            {name: tensors[f"reference.{name}"].float() for name in reference.state_dict()}
        )
        return cls(
            network,
            coding,
            reference=reference,
            shift=tensors["shift"].numpy(),
            dictionary=Dictionary.load(tensors),
            metadata=own,
        )


@torch.no_grad()
def collect(iscs: Iscs, pictures: Iterable[Tensor], size: int) -> Dictionary:
    """A dictionary as `AbstractConditional.collect` says, of entries that `iscs` codes."""
    entries, features = [], []
    for x in pictures:
        symbols = Iscs.analyse(iscs, x, ENTRY, Halo())
        encoder = Encoder()
        Iscs.traverse(iscs, encoder, symbols, ENTRY)
        entries.append(list(encoder.finish().values()))
        y_hat = Iscs.dequantise(iscs, symbols, ENTRY) / iscs.network.std[:, None, None]
        features.append(pooled(y_hat[:, : iscs.network.config.core])[0])
    return Dictionary.of(entries, np.stack(features), size)


class _Way(NamedTuple):
    """Symbols of a tile with references `r`, and what they cost: bits, and errors in bits.

    `more` is 1 if z has what `h_r` adds.
    """

    cost: float
    r: IntArray
    more: int
    symbols: Symbols


def _cost(way: _Way) -> float:
    return way.cost


def _choices(r: IntArray) -> Tensor:
    """Those of the squares, `(blocks, 4, 4)`."""
    return torch.from_numpy(r[:, 2:].reshape(-1, SQUARES, SQUARES).copy())


def _grid(h: int, w: int) -> tuple[int, int]:
    """Rows and columns of the blocks of a tile's latents."""
    return -(-h // BLOCK), -(-w // BLOCK)


def _blocks(values: Tensor) -> Tensor:
    """`(1, C, h, w)` as blocks `(rows * columns, C, 16, 16)`; what is not there is as its edge."""
    h, w = values.shape[2:]
    values = functional.pad(values, (0, -w % BLOCK, 0, -h % BLOCK), mode="replicate")
    parts = values.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)[0]
    return parts.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def _joined(blocks: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse: `(1, C, side * rows, side * columns)` of blocks of any side."""
    _, C, side, _ = blocks.shape
    parts = blocks.view(rows, columns, C, side, side).permute(2, 0, 3, 1, 4)
    return parts.reshape(1, C, rows * side, columns * side)
