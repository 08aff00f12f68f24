"""Mutated streams by the thousand, and what came of each.

    python benchmarks/fuzz.py [--count 100000] [--seed 1] [--jobs 2] [--only N]
        [--out benchmarks/results/fuzz.json]

Small streams of every kind of image, from all weights that ship and those of the golden streams of
families that ship none, are mutated in two ways (`fuzz_video.py` does it with videos,
`fuzz_scene.py` with scenes):

- *damage* leaves the checksums as they were. The stream must be refused, or decode to the symbols
  that it had.
- *forgery* makes them right again, so that what lies behind them is reached: the header, chunks,
  sub-streams and their lengths, symbols, the PNG file of an alpha plane. Such a stream may be a
  sound one of another picture. It must be refused, or be a picture of the size that it declares.

Either way nothing but a `CodecError` may escape, nothing may be printed, and 10 s and 1500 MB are
the limits. The rANS kernels run with numba's bounds checks. Cases run in processes of their own,
which are replaced when they die; `--only N` repeats one here. A case that fails is put into
tests/corpus, where a test replays it from then on.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import struct
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from PIL import Image, ImageCms, PngImagePlugin
from skimage import data

import codec
from codec.api import DecodeOptions, decode_stream
from codec.benchmark.provenance import origin
from codec.bitstream import (
    SIGNATURE,
    VERSION,
    Chunk,
    ChunkType,
    Reader,
    pack,
    pack_streams,
    pack_varint,
    scan,
    unpack,
    unpack_streams,
)
from codec.engine import model_of
from codec.entropy import (
    AbstractCausalModel,
    AbstractCoder,
    AbstractStream,
    Encoder,
    IntArray,
    Method,
    Silence,
    Tables,
)
from codec.errors import CodecError
from codec.io.picture import PILLOWS
from codec.io.writing import write_picture
from codec.models.base import AbstractFamily, Symbols, TileGeometry
from codec.progress import Stopwatch
from codec.registry import family_by_name
from codec.tiling import analyse_tile, geometry_of
from codec.weights import SHIPPED, Zoo

ROOT = Path(__file__).resolve().parents[1]
CORPUS, VECTORS = ROOT / "tests/corpus", ROOT / "tests/vectors/v1"
# A family that ships no weights has small ones beside its vectors.
ZOOS = (SHIPPED, *(Zoo(path.parent) for path in sorted(VECTORS.glob("*/manifest.json"))))
ZOO_OF = {entry.model_id: zoo for zoo in ZOOS for entry in zoo.manifest()}
SECONDS, MEGABYTES, START_SECONDS = 10, 1500, 300
NUMBERS = (
    0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 100, 101, 127, 128, 255, 256, 1023, 1024, 1025, 2048, 4096,
    1 << 14, 1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 28, 1 << 30, (1 << 31) - 1, 1 << 32, 1 << 62,
    (1 << 63) - 1,
)  # fmt: skip
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# ---- streams to start from


class Seed(NamedTuple):
    """A sound stream: its model, the names of a tile's sub-streams, the SHA-256 of its symbols."""

    name: str
    model: str
    stream: bytes
    names: tuple[str, ...]
    symbols: str


def _images() -> Iterator[tuple[str, Any, int]]:
    """Name, image and quality."""
    photo = data.astronaut()[:, 100:]
    rgb = Image.fromarray(photo[:23, :31])
    alpha = Image.fromarray(np.indices((23, 31)).sum(0).astype(np.uint8) * 4)
    for mode in ("1", "L", "LA", "YCbCr", "CMYK"):
        yield mode, rgb.convert(mode), 60
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    yield "RGBA", rgba, 40
    yield "LA, alpha", rgba.convert("LA"), 80
    palette = rgb.quantize(20)
    yield "P", palette.copy(), 50
    palette.info["transparency"] = bytes(range(0, 240, 12))
    yield "P, alpha", palette, 50
    for mode in ("L", "RGB"):
        keyed = rgb.convert(mode)
        keyed.info["transparency"] = keyed.getpixel((3, 4))
        yield f"{mode}, key", keyed, 70
    deep = photo[:19, :17].astype(np.uint16) * 257
    yield "16 bits, L", deep[:, :, 0], 60
    yield "16 bits, RGBA", np.dstack([deep, deep[:, :, :1]]), 60
    for mode in ("RGB", "CMYK"):
        told = rgb.convert(mode)
        exif = Image.Exif()
        exif[0x010F] = "A camera"
        told.info |= {"icc_profile": ICC, "exif": exif.tobytes(), "xmp": b"<x:xmpmeta/>"}
        yield f"{mode}, metadata", told, 30
    png = io.BytesIO()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "A. Person")
    rgb.save(png, "PNG", pnginfo=texts)
    yield "texts", Image.open(png), 60
    for height, width, quality in (
        (1, 1, 0),
        (16, 16, 0),
        (16, 16, 100),
        (33, 47, 60),
        (64, 64, 90),
    ):
        yield f"{width}x{height}", photo[:height, :width], quality


def seeds(model: str | None = None) -> list[Seed]:
    """The golden streams of all weights, or of one model's; of new ones every kind of image too."""
    golden = {f"golden {path.stem}": path.read_bytes() for path in sorted(VECTORS.glob("*/*.bin"))}
    found = []
    entries = [(zoo, entry) for zoo in ZOOS for entry in zoo.manifest()]
    for zoo, entry in entries:
        if model not in (None, entry.name) or family_by_name(entry.family).kind != "image":
            continue
        names = zoo.load(entry).streams
        streams = {
            name: stream
            for name, stream in golden.items()
            if unpack(stream).header.model_id == entry.model_id
        }
        if entry == zoo.find(entry.name):  # with older weights nothing is encoded any more
            streams |= {
                name: codec.encode(image, quality=quality, model=entry.name, zoo=zoo)
                for name, image, quality in _images()
            }
            streams |= {
                f"{w}x{h}, tiles": _tiled(zoo, entry.name, w, h) for w, h in ((130, 70), (1, 65))
            }
        for name, stream in streams.items():
            decoded = decode_stream(stream, DecodeOptions(zoo=zoo), watch=Stopwatch())
            found.append(Seed(name, entry.name, stream, names, decoded.symbols_sha256))
    return found


def zoo_of(stream: bytes) -> Zoo:
    """Where the weights of a stream are; those that ship, if nobody knows them."""
    return ZOO_OF.get(stream[8:16], SHIPPED)


def _tiled(zoo: Zoo, name: str, width: int, height: int) -> bytes:
    """A stream in tiles of 64 x 64, which the encoder makes of large images only."""
    model = codec.load_model(name, device="cpu", zoo=zoo)
    x = torch.from_numpy(data.astronaut()[:height, :width].copy()).permute(2, 0, 1)[None] / 255
    header = replace(model.header(width=width, height=height, quality=50), tile=64)
    chunks = []
    for number in range(header.tiles):
        symbols = analyse_tile(
            model.family,
            lambda box: x[:, :, box.top : box.top + box.height, box.left : box.left + box.width],
            header,
            number,
        )
        encoder = Encoder()
        model.family.traverse(encoder, symbols, geometry_of(header, number))
        chunks.append(Chunk(ChunkType.TILE, pack_streams(encoder.finish())))
    return pack(header, chunks)


# ---- files as chunks

Chunks = list[tuple[int, bytes]]


def take_apart(stream: bytes) -> Chunks:
    """Type and payload of each chunk of a sound stream."""
    reader, chunks = Reader(stream), []
    reader.take(len(SIGNATURE) + 1, "signature and version")
    while reader.left:
        kind = reader.take(1, "type")[0]
        chunks.append((kind, reader.take(reader.varint("length"), "payload")))
        reader.take(4, "checksum")
    return chunks


def assemble(chunks: Chunks) -> bytes:
    """A file of these chunks, right or wrong, with right checksums."""
    parts = [SIGNATURE, bytes([VERSION])]
    for number, (kind, payload) in enumerate(chunks):
        body = bytes([kind]) + pack_varint(len(payload)) + payload
        checksum = zlib.crc32(bytes([VERSION]) + pack_varint(number) + body)
        parts += [body, checksum.to_bytes(4, "little")]
    return b"".join(parts)


# ---- damage: the checksums stay as they were


def flip_bits(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """One to eight bits anywhere."""
    return _flipped(draw, seed.stream)


def cut(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """The beginning only."""
    return seed.stream[: draw.randrange(len(seed.stream))]


def burst(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Some bytes in a row become noise, or are lost, doubled or added."""
    stream = seed.stream
    at = draw.randrange(len(stream))
    size = draw.randint(1, 16)
    new = draw.choice((draw.randbytes(size), b"", 2 * stream[at : at + size], bytes(size)))
    return stream[:at] + new + stream[at + draw.choice((0, size)) :]


def move_chunk(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """A chunk, with its checksum, at another place or twice."""
    places = [chunk.offset for chunk in scan(seed.stream).chunks] + [len(seed.stream)]
    parts = [seed.stream[a:b] for a, b in itertools.pairwise(places)]
    chosen = draw.randrange(len(parts))
    part = parts[chosen] if draw.random() < 0.5 else parts.pop(chosen)
    parts.insert(draw.randrange(len(parts) + 1), part)
    return seed.stream[: places[0]] + b"".join(parts)


# ---- forgery: what the checksums cover is wrong, the checksums are right


def splice(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """The beginning of one stream and the end of another, with the checksums of both."""
    other = draw.choice(others).stream
    return seed.stream[: draw.randrange(len(seed.stream))] + other[draw.randrange(len(other)) :]


def payload(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Bits, length or all of a chunk's payload."""
    chunks = take_apart(seed.stream)
    at = draw.randrange(len(chunks))
    kind, old = chunks[at]
    chunks[at] = (kind, spoilt(draw, old))
    return assemble(chunks)


def header(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Other numbers in the header, most of them no numbers of a header."""
    chunks = take_apart(seed.stream)
    reader = Reader(chunks[0][1])
    family, model_id = reader.varint("family"), reader.take(8, "model id")
    numbers = [reader.varint("number") for _ in range(7)]
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(numbers))
        numbers[at] = draw.choice((*NUMBERS, numbers[at] + 1, max(0, numbers[at] - 1)))
    if draw.random() < 0.1:
        model_id = draw.choice(others).stream[8:16]
    fields = [pack_varint(family), model_id, *map(pack_varint, numbers)]
    chunks[0] = (ChunkType.HEADER, b"".join(fields))
    return assemble(chunks)


def resize(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Another size, grid, colour or quality, with as many tiles as it wants, from `others` too."""
    container = unpack(seed.stream)
    width, height = (draw.choice((1, 15, 16, 40, 65, 200, 1000, 2048)) for _ in range(2))
    tile = draw.choice((0, 64, 128, 1024))
    made = replace(
        container.header,
        width=width,
        height=height,
        tile=tile if tile < max(width, height) else 0,
        quality=draw.choice((0, 50, 100, container.header.quality)),
    )
    sources = [seed, draw.choice(others)]
    tiles = [tile for source in sources for tile in unpack(source.stream).tiles]
    chunks = [chunk for chunk in container.chunks if chunk.type != ChunkType.TILE]
    return pack(
        made, [*chunks, *(Chunk(ChunkType.TILE, draw.choice(tiles)) for _ in range(made.tiles))]
    )


def sub_streams(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """The bytes of a tile's sub-streams, with right lengths."""
    chunks = take_apart(seed.stream)
    at = draw.choice([at for at, chunk in enumerate(chunks) if chunk[0] == ChunkType.TILE])
    streams = unpack_streams(chunks[at][1], seed.names)
    for _ in range(draw.randint(1, 2)):
        name = draw.choice(seed.names)
        old = streams[name]
        if draw.random() < 0.3 and old:  # the head of a rANS stream: lanes and states
            place = draw.randrange(min(6, len(old)))
            new = old[:place] + draw.randbytes(1) + old[place + 1 :]
        elif draw.random() < 0.3:
            other = draw.choice(others)
            new = draw.choice([*_tile_streams(draw, other).values()])
        else:
            new = spoilt(draw, old)
        streams[name] = new
    chunks[at] = (ChunkType.TILE, pack_streams(streams))
    return assemble(chunks)


def symbols(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Any symbols at all, soundly coded, for any size."""
    container = unpack(seed.stream)
    family = model_of(container.header, zoo_of(seed.stream), "cpu").family
    made = replace(
        container.header,
        width=draw.randint(1, 100),
        height=draw.randint(1, 100),
        tile=0,
        quality=draw.choice((0, 50, 100, container.header.quality)),
    )
    geometry = geometry_of(made, 0)
    peak = draw.choice((0, 1, 20, 1 << 15, 1 << 20))
    numbers = np.random.default_rng(draw.getrandbits(32))
    silent = family.traverse(Silence(), None, geometry)
    some = {
        name: numbers.integers(-peak, peak + 1, len(values), np.int32)
        for name, values in silent.items()
    }
    encoder = Encoder()
    try:
        family.traverse(encoder, some, geometry)
    except CodecError:  # not all numbers are: networks of `inr` have a syntax, codes a codeword
        encoder = Encoder()
        family.traverse(encoder, _allowed(family, geometry, numbers) or silent, geometry)
    tile = Chunk(ChunkType.TILE, pack_streams(encoder.finish()))
    return pack(made, [*(c for c in container.chunks if c.type != ChunkType.TILE), tile])


@final
class Dice(AbstractCoder, AbstractStream):
    """A decoder of nothing: any symbols for which tables have an entry."""

    def __init__(self, numbers: np.random.Generator) -> None:
        self._numbers = numbers

    def open(self, name: str, method: Method) -> AbstractStream:
        """See `AbstractCoder.open`."""
        return self

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """See `AbstractStream.code`."""
        entries = self._numbers.integers(tables.sizes[indexes] - 1, dtype=np.int32)
        return tables.offsets[indexes] + entries

    def code_causal(self, symbols: IntArray | None, model: AbstractCausalModel) -> IntArray:
        """See `AbstractStream.code_causal`."""
        return self._numbers.integers(-2048, 2048, model.count, np.int32)


def _allowed(
    family: AbstractFamily, geometry: TileGeometry, numbers: np.random.Generator
) -> Symbols | None:
    """Symbols that `family` does not refuse, found by trying; None if that is too rare."""
    for _ in range(100):  # of `inr`, whose exponents have limits of their own, each sixth
        with suppress(CodecError):
            return family.traverse(Dice(numbers), None, geometry)
    return None


def lengths(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Lying lengths: of a tile's sub-streams, in the index, of a chunk."""
    chunks = take_apart(seed.stream)
    at = draw.randrange(len(chunks))
    kind, old = chunks[at]
    lie = draw.choice((*NUMBERS, draw.randrange(300)))
    if kind in (ChunkType.TILE, ChunkType.INDEX) and old:
        reader = Reader(old)
        known = [reader.varint("length") for _ in range(len(seed.names) - 1 if kind == 64 else 1)]
        known[draw.randrange(len(known))] = lie
        chunks[at] = (kind, b"".join(map(pack_varint, known)) + old[reader.at :])
        return assemble(chunks)
    stream = assemble(chunks)
    place = len(assemble(chunks[:at])) + 1
    body = bytes([kind]) + pack_varint(lie) + old
    checksum = zlib.crc32(bytes([VERSION]) + pack_varint(at) + body).to_bytes(4, "little")
    behind = place + len(pack_varint(len(old))) + len(old) + 4
    return stream[: place - 1] + body + checksum + stream[behind:]


def chunk_list(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Chunks of this and another stream in an order of their own, or of another type."""
    chunks = take_apart(seed.stream)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(chunks))
        way = draw.randrange(5)
        if way == 0 and len(chunks) > 1:
            del chunks[at]
        elif way == 1:
            chunks.insert(at, draw.choice(take_apart(draw.choice(others).stream)))
        elif way == 2:
            other = draw.randrange(len(chunks))
            chunks[at], chunks[other] = chunks[other], chunks[at]
        elif way == 3:
            kind = draw.choice((*ChunkType, draw.randrange(256)))
            chunks[at] = (int(kind), chunks[at][1])
        else:
            text = draw.choice(PILLOWS).encode() + b"\0" + draw.randbytes(3).hex().encode() + b"\0"
            chunks.insert(-1, (ChunkType.TEXT, text))
    return assemble(sorted(chunks, key=lambda chunk: chunk[0]) if draw.random() < 0.5 else chunks)


def png(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """The PNG file of an alpha plane, with its own checksums right; of `seed` or of another."""
    chunks = take_apart(seed.stream)
    planes = [at for at, chunk in enumerate(chunks) if chunk[1][1:5] == b"\x89PNG"]
    if not planes:
        return payload(draw, seed, others)
    at = draw.choice(planes)
    parts = list(_png_parts(chunks[at][1][1:]))
    place = draw.randrange(len(parts))
    name, body = parts[place]
    way = draw.randrange(3)
    if name == b"IHDR" and way:
        width, height, *rest = struct.unpack(">IIBBBBB", body)
        rest[draw.randrange(5)] = draw.choice((0, 1, 2, 3, 4, 6, 8, 16))
        width, height = (draw.choice((width, height, 1, 1 << 15, 0xFFFFFFFF)) for _ in range(2))
        parts[place] = (name, struct.pack(">IIBBBBB", width, height, *rest))
    elif way == 0:
        bomb = zlib.compress(bytes(20_000_000), 9)
        kind = draw.choice((b"zTXt", b"iCCP", b"iTXt"))
        head = b"key\0\0" if kind != b"iTXt" else b"key\0\1\0\0\0"
        parts.insert(1, (kind, head + bomb))
    else:
        parts[place] = (name, spoilt(draw, body))
    file = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    chunks[at] = (ChunkType.ALPHA, b"\1\x89PNG\r\n\x1a\n" + file)
    return assemble(chunks)


Mutation = Callable[[random.Random, Seed, Sequence[Seed]], bytes]
DAMAGE: tuple[Mutation, ...] = (flip_bits, cut, burst, move_chunk)
FORGERY: tuple[Mutation, ...] = (
    splice, payload, header, resize, sub_streams, symbols, lengths, chunk_list, png
)  # fmt: skip


def _flipped(draw: random.Random, old: bytes) -> bytes:
    new = bytearray(old)
    for _ in range(draw.choice((1, 1, 2, 8)) if new else 0):
        new[draw.randrange(len(new))] ^= 1 << draw.randrange(8)
    return bytes(new)


def spoilt(draw: random.Random, old: bytes) -> bytes:
    """These bytes with flipped bits, cut, longer, or none of them the same."""
    way = draw.randrange(6)
    if way < 3 and old:
        return _flipped(draw, old)
    if way == 3:
        return old[: draw.randrange(len(old) + 1)]
    if way == 4:
        return old + draw.choice((bytes(2), draw.randbytes(draw.randint(1, 9))))
    return draw.choice((b"", draw.randbytes(len(old)), bytes(len(old)), b"\xff" * len(old)))


def _tile_streams(draw: random.Random, seed: Seed) -> dict[str, bytes]:
    return unpack_streams(draw.choice(unpack(seed.stream).tiles), seed.names)


def _png_parts(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(file):
        size = int.from_bytes(file[at : at + 4], "big")
        yield file[at + 4 : at + 8], file[at + 8 : at + 8 + size]
        at += 12 + size


# ---- cases


@dataclass(frozen=True)
class Case:
    """A mutated stream, what it was, and how it became what it is."""

    number: int
    seed: Seed
    mutation: str
    forged: bool
    stream: bytes


def make_case(known: Sequence[Seed], seed: int, number: int) -> Case:
    """Case `number` of a run: the same for ever from the same seeds."""
    draw, mutation = _begin(seed, number)
    chosen = draw.choice(known)
    alike = [other for other in known if other.names == chosen.names]
    stream = mutation(draw, chosen, alike if draw.random() < 0.8 else known)
    return Case(number, chosen, mutation.__name__, mutation in FORGERY, stream)


def _begin(seed: int, number: int) -> tuple[random.Random, Mutation]:
    draw = random.Random(f"{seed}/{number}")
    return draw, draw.choice(FORGERY if draw.random() < 0.75 else DAMAGE)


class FailedError(Exception):
    """A promise that was not kept."""


def judge(stream: bytes, number: int, symbols: str | None = None) -> str:
    """What came of a stream: `decoded`, or the name of the error that refused it.

    Args:
        stream: any bytes.
        number: chooses how to decode: all, what is there, the first layer, a region.
        symbols: the SHA-256 of the symbols that a damaged stream may decode to.

    Raises:
        FailedError, or whatever is no CodecError.
    """
    zoo = zoo_of(stream)
    whole = DecodeOptions(zoo=zoo)
    part = replace(whole, allow_partial=True)
    ways = (whole, part, replace(whole, layers=0), replace(whole, region=(0, 0, 1, 1)))
    with _refusal() as info_refused:
        codec.info(stream, zoo=zoo)
    if symbols is not None:
        with _refusal():  # part of a chunk has no checksum: no promise about its symbols
            decode_stream(stream, part, watch=Stopwatch())
    options = ways[number % len(ways)] if symbols is None else whole
    with _refusal() as refused:
        found = decode_stream(stream, options, watch=Stopwatch())
    if refused:
        return refused[0]
    if symbols is not None and (info_refused or found.symbols_sha256 != symbols):
        raise FailedError("silent wrong output: damaged, and it decodes to other symbols")
    declared = unpack(stream, partial=options.allow_partial).header
    size = options.window(declared)[2:]
    picture = found.picture
    if (picture.width, picture.height, picture.bit_depth) != (*size, declared.bit_depth):
        raise FailedError(f"{picture.width}x{picture.height}, and it declares {size}")
    with Image.open(io.BytesIO(write_picture(picture, "PNG"))) as image:
        if image.size != size:
            raise FailedError(f"written as {image.size}, and it declares {size}")
    return "decoded"


def judge_case(case: Case) -> str:
    """`judge` for a case of a run; `unchanged` if its mutation came to nothing."""
    if case.stream == case.seed.stream:
        return "unchanged"
    return judge(case.stream, case.number, None if case.forged else case.seed.symbols)


@contextmanager
def _refusal() -> Iterator[list[str]]:
    """Collects the name of the CodecError that ended what is inside."""
    found: list[str] = []
    try:
        yield found
    except CodecError as error:
        found.append(type(error).__name__)


# ---- workers


class Outcome(NamedTuple):
    """`came` is what `judge` said, or `failed`; then `reason` says how. `peak` is in MB."""

    number: int
    came: str
    reason: str
    seconds: float
    peak: float


def work(known: Sequence[Seed], seed: int, numbers: range, pipe: Connection) -> None:
    """A worker process: judge every case, send an `Outcome` of each."""
    torch.set_num_threads(1)
    with tempfile.TemporaryFile() as errors:
        os.dup2(errors.fileno(), 2)
        for sound in known:
            judge(sound.stream, 0, sound.symbols)  # weights are loaded, kernels compiled
        begin = _peak_mb()
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        virtual = int(re.search(r"VmSize:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]
        limit = virtual + MEGABYTES * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        errors.truncate(0)
        pipe.send(None)
        for number in numbers:
            case = make_case(known, seed, number)
            started, reason = time.perf_counter(), ""
            try:
                came = judge_case(case)
            except BaseException:
                came, reason = "failed", traceback.format_exc(limit=-4)
            if os.fstat(errors.fileno()).st_size:
                came, reason = "failed", "it printed something to standard error"
                errors.truncate(0)
            pipe.send(
                Outcome(number, came, reason, time.perf_counter() - started, _peak_mb() - begin)
            )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def drive(known: Sequence[Seed], seed: int, numbers: range) -> Iterator[Outcome]:
    """The outcomes of `numbers`, from a worker that is replaced when it dies or does not answer."""
    context = multiprocessing.get_context("spawn")
    while numbers:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(known, seed, numbers, there), daemon=True)
        process.start()
        there.close()
        reason, patience = "", START_SECONDS
        while not reason and numbers:
            try:
                if here.poll(patience):
                    outcome = here.recv()
                    patience = SECONDS
                    if outcome is not None:
                        numbers = numbers[1:]
                        yield outcome
                else:
                    reason = f"no answer in {patience} s"
            except EOFError:
                process.join()
                reason = f"the process ended with code {process.exitcode}"
        process.kill() if reason else process.join()
        if reason and patience == START_SECONDS:
            raise RuntimeError(f"no worker could be started: {reason}")
        if reason:
            yield Outcome(numbers[0], "failed", reason, float(SECONDS), 0.0)
            numbers = numbers[1:]


def run(known: Sequence[Seed], seed: int, count: int, jobs: int) -> list[Outcome]:
    """All outcomes of a run, from so many workers."""
    found: list[Outcome] = []

    def collect(job: int) -> None:
        for outcome in drive(known, seed, range(job, count, jobs)):
            found.append(outcome)
            if len(found) % 1000 == 0:
                print(f"{len(found)} of {count}", file=sys.stderr)

    threads = [threading.Thread(target=collect, args=(job,)) for job in range(jobs)]
    with tempfile.TemporaryDirectory() as cache:
        # Checked kernels must not be mistaken for the unchecked ones in numba's usual cache.
        os.environ |= {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": cache}
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sorted(found)


def report(known: Sequence[Seed], seed: int, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What came of each mutation, and the failures; these go into the corpus too."""
    table: dict[str, Counter[str]] = {}
    failures = []
    for outcome in outcomes:
        mutation = _begin(seed, outcome.number)[1].__name__
        table.setdefault(mutation, Counter())[outcome.came] += 1
        if outcome.came == "failed":
            case = make_case(known, seed, outcome.number)
            CORPUS.mkdir(exist_ok=True)
            (CORPUS / f"fuzz-{seed}-{case.number}.bin").write_bytes(case.stream)
            failures.append({"only": case.number, "mutation": mutation, "reason": outcome.reason})
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.peak)
    damage, forgery = (
        {m.__name__: dict(sorted(table[m.__name__].items())) for m in way if m.__name__ in table}
        for way in (DAMAGE, FORGERY)
    )
    return {
        "cases": len(outcomes),
        "damage": damage,
        "forgery": forgery,
        "slowest": {"only": slowest.number, "seconds": round(slowest.seconds, 3)},
        "largest": {"only": largest.number, "mb_above_start": round(largest.peak)},
        "failures": failures,
    }


def main() -> None:
    """Run, print what came of it, write JSON; the exit code says whether anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", type=int, metavar="N", help="repeat one case, here")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fuzz.json")
    options = parser.parse_args()
    begun = origin()  # before the run: what is committed or changed meanwhile was not tried
    known = seeds()
    if options.only is not None:
        case = make_case(known, options.seed, options.only)
        print(f"{case.mutation} of {case.seed.name}, {case.seed.model}: {len(case.stream)} bytes")
        print(judge_case(case))
        return
    started = time.perf_counter()
    outcomes = run(known, options.seed, options.count, options.jobs)
    seconds = time.perf_counter() - started
    result = {
        "command": f"python benchmarks/fuzz.py --count {options.count} --seed {options.seed}",
        **begun,
        "weights": [entry.sha256 for zoo in ZOOS for entry in zoo.manifest()],
        "seeds": len(known),
        "limits": {"seconds": SECONDS, "mb_above_start": MEGABYTES},
        "jobs": options.jobs,
        "seconds": round(seconds, 1),
        "cases_per_second_and_job": round(options.count / seconds / options.jobs, 1),
        **report(known, options.seed, outcomes),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["failures"]))


if __name__ == "__main__":
    main()
