"""A header and chunks as one file, and back. Knows nothing of what is inside a payload.

    signature  version  chunk  chunk ... chunk          chunk = type  length  payload  CRC-32

The chunks are HEADER, INDEX (of more than one tile), the others in ascending order of type, then
one TILE for each tile. Nothing follows the last tile, so a file that is cut anywhere is not whole.
A video has GROUPs instead of tiles, as many as its VIDEO chunk says, and a scene UNITs, as many as
its SCENE chunk says it has frames. docs/FORMAT.md is normative.

    >>> header = Header(family=1, model_id=bytes(8), width=3, height=2, quality=60)
    >>> stream = pack(header, [Chunk(ChunkType.TILE, b"payload"), Chunk(ChunkType.ICC, b"profile")])
    >>> unpack(stream).tiles
    (b'payload',)
    >>> unpack(stream).find(ChunkType.ICC)
    b'profile'
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import islice
from typing import final

from codec.bitstream.header import Header, Kind, pack_header, unpack_header
from codec.bitstream.scene import Scene, unpack_scene
from codec.bitstream.video import Video, unpack_video
from codec.bitstream.wire import Reader, pack_varint
from codec.errors import BitstreamError, CodecError, LimitError

__all__ = [
    "SIGNATURE",
    "VERSION",
    "Chunk",
    "ChunkType",
    "Container",
    "Limits",
    "Scan",
    "ScannedChunk",
    "pack",
    "peek",
    "scan",
    "unpack",
]

# 0xF5 occurs in no UTF-8 text and loses its top bit where only 7 bits pass; a line feed changes
# where text is translated. So the commonest accidents show in the first four bytes, as in PNG.
SIGNATURE = b"\xf5LC\n"
VERSION = 1

SMALLEST_CHUNK = 6  # type, a length of one byte, CRC-32
OTHER_TYPES = 255  # of which a file has one chunk at most; only TILE, GROUP and UNIT may repeat


class ChunkType(IntEnum):
    """What a payload is. The numbers are part of the format, and chunks are in their order.

    Odd numbers are ancillary: a reader that does not know one skips it. Even numbers are critical.
    """

    HEADER = 2
    INDEX = 4
    PALETTE = 6
    ALPHA = 8
    VIDEO = 10
    DICTIONARY = 12
    SCENE = 14
    ICC = 17
    EXIF = 19
    XMP = 21
    TEXT = 23
    AUDIO = 25
    TILE = 64
    GROUP = 66
    UNIT = 68


_WRITTEN_BY_PACK = (ChunkType.HEADER, ChunkType.INDEX)
# What is repeated in files of each kind, and critical chunks that have no meaning in others.
_UNITS = {Kind.IMAGE: ChunkType.TILE, Kind.VIDEO: ChunkType.GROUP, Kind.SCENE: ChunkType.UNIT}
_OWN = {
    Kind.IMAGE: (ChunkType.PALETTE, ChunkType.ALPHA, ChunkType.DICTIONARY, ChunkType.TILE),
    Kind.VIDEO: (ChunkType.VIDEO, ChunkType.GROUP),
    Kind.SCENE: (ChunkType.SCENE, ChunkType.UNIT),
}
_FOREIGN = {
    kind: tuple(own for other, owns in _OWN.items() if other != kind for own in owns)
    for kind in Kind
}


@final
@dataclass(frozen=True)
class Chunk:
    """One piece of a file."""

    type: ChunkType
    payload: bytes


@final
@dataclass(frozen=True)
class Limits:
    """What a reader is willing to believe; checked before anything is allocated.

    Args:
        max_pixels: width times height.
        max_pixels_per_byte: the same, of a video times its frames, per byte of the file. Tiles of
            1024 x 1024 pixels cannot reach the default: an empty one takes 6 bytes.
        max_tile_pixels: of a tile, or a frame of a video, which is decoded at once and so decides
            about the memory.
        max_tiles: each takes time, however few its pixels are. An image of one row has the default
            in tiles of 1024 x 1024 when it has the default of pixels.
        max_frames: of a video or a scene.
        max_gaussians: of a frame of a scene.
    """

    max_pixels: int = 1 << 28
    max_pixels_per_byte: int = 1 << 18
    max_tile_pixels: int = 1 << 22
    max_tiles: int = 1 << 18
    max_frames: int = 1 << 20
    max_gaussians: int = 1 << 22


@final
@dataclass(frozen=True)
class Container:
    """A file whose every byte was checked: the header and all chunks but HEADER and INDEX.

    If it is `cut`, tiles, groups or units are missing or the last one that is there has not all of
    its payload. Of units that were taken as they are, the checksums of slices are still to check.
    """

    header: Header
    chunks: tuple[Chunk, ...]
    cut: bool = False

    @cached_property
    def tiles(self) -> tuple[bytes, ...]:
        """The payloads of the tiles in raster order; `header.tiles` of them if nothing is cut."""
        return self._all(ChunkType.TILE)

    @cached_property
    def groups(self) -> tuple[bytes, ...]:
        """The payloads of a video's groups; as many as it says if nothing is cut."""
        return self._all(ChunkType.GROUP)

    @cached_property
    def units(self) -> tuple[bytes, ...]:
        """The payloads of a scene's units, one for each frame if nothing is cut."""
        return self._all(ChunkType.UNIT)

    @cached_property
    def video(self) -> Video:
        """What the VIDEO chunk says; a BitstreamError if there is none."""
        return unpack_video(_needed(ChunkType.VIDEO, self.chunks))

    @cached_property
    def scene(self) -> Scene:
        """What the SCENE chunk says; a BitstreamError if there is none."""
        return unpack_scene(_needed(ChunkType.SCENE, self.chunks))

    def _all(self, kind: ChunkType) -> tuple[bytes, ...]:
        return tuple(chunk.payload for chunk in self.chunks if chunk.type == kind)

    def find(self, kind: ChunkType) -> bytes | None:
        """The payload of the first chunk of this type, or None."""
        return next((chunk.payload for chunk in self.chunks if chunk.type == kind), None)


@final
@dataclass(frozen=True)
class ScannedChunk:
    """Where a chunk lies: `offset` of its type byte, `length` of its payload, both in bytes.

    `type` is a number that may not be in `ChunkType`; `name` is for people.
    """

    type: int
    offset: int
    length: int
    crc_ok: bool

    @property
    def name(self) -> str:
        """The type in lower case, or its number if this package does not know it."""
        known = self.type in list(ChunkType)
        return ChunkType(self.type).name.lower() if known else f"unknown {self.type}"


@final
@dataclass(frozen=True)
class Scan:
    """A report of a file that may be damaged.

    `header` is None if it cannot be read; `error` is None if `unpack` takes the file.
    """

    header: Header | None
    chunks: tuple[ScannedChunk, ...]
    error: CodecError | None


def pack(header: Header, chunks: Iterable[Chunk]) -> bytes:
    """A whole file.

    Args:
        header: says how many tiles there must be; VIDEO says it of groups, SCENE of units.
        chunks: TILE in raster order, GROUP or UNIT in order of time, and at most one of each other
            type, anywhere; neither HEADER nor INDEX, which are made here.
    """
    ordered = sorted(chunks, key=lambda chunk: chunk.type)
    unit = _UNITS[header.kind]
    units = [chunk.payload for chunk in ordered if chunk.type == unit]
    others = [chunk for chunk in ordered if chunk.type != unit]
    wanted = _said(Container(header, tuple(others)))
    if len(units) != wanted:
        raise BitstreamError(f"{unit.name.lower()}s: want {wanted}, got {len(units)}")
    for chunk in others:
        twice = [other.type for other in others].count(chunk.type) > 1
        if twice or chunk.type in (*_WRITTEN_BY_PACK, *_FOREIGN[header.kind]):
            raise BitstreamError(f"chunk {chunk.type.name}: given twice, or not for the caller")
    made = [Chunk(ChunkType.HEADER, pack_header(header))]
    if len(units) > 1:
        made.append(Chunk(ChunkType.INDEX, _pack_index(units)))
    parts = [SIGNATURE, bytes([VERSION])]
    for number, chunk in enumerate([*made, *ordered]):
        head = bytes([chunk.type]) + pack_varint(len(chunk.payload))
        checksum = _checksum(number, head, chunk.payload).to_bytes(4, "little")
        parts += [head, chunk.payload, checksum]
    return b"".join(parts)


def unpack(stream: bytes, limits: Limits = Limits(), *, partial: bool = False) -> Container:
    """Check every byte of a file and take it apart.

    Args:
        stream: the file.
        limits: what it may claim.
        partial: take a file that is cut inside or between its tiles, groups or units, as far as it
            goes. What is there of the last one has no checksum. Units are then taken as they are,
            damaged or not: their slices have checksums of their own.

    Raises:
        BitstreamError: it is damaged, cut, too long or not ours.
        LimitError: it claims more than `limits` allows.
    """
    pieces = _walk(stream)
    first = next(pieces, None)
    if first is None or first.type != ChunkType.HEADER:
        raise BitstreamError("the first chunk is not a header")
    header = unpack_header(first.checked())
    _check_size(header, len(stream), limits)

    unit = _UNITS[header.kind]
    wanted = header.tiles if header.kind == Kind.IMAGE else 0  # until VIDEO or SCENE says it
    chunks: list[Chunk] = []
    lengths: tuple[int, ...] | None = None
    index: bytes | None = None  # of a video or a scene, until its number of units is known
    last = int(first.type)
    count = 0
    rest: bytes | None = None  # of the tile, group or unit in which the file ends
    for piece in pieces:
        if partial and piece.type == unit:
            rest = piece.there
        if rest is not None:
            payload = rest
        elif partial and piece.type == ChunkType.UNIT:
            payload = piece.payload
        else:
            payload = piece.checked()
        if piece.type <= last and not piece.type == last == unit:
            raise BitstreamError(f"{piece.where}: type {piece.type} after type {last}")
        last = piece.type
        if piece.type == ChunkType.INDEX:
            if wanted:
                lengths = _unpack_index(payload, wanted)
            else:
                index = payload
        elif piece.type in list(ChunkType) and piece.type not in _FOREIGN[header.kind]:
            if piece.type in (ChunkType.VIDEO, ChunkType.SCENE):
                said = Container(header, (Chunk(ChunkType(piece.type), payload),))
                _check_frames(said, len(stream), limits)
                wanted = _said(said)
                lengths = None if index is None else _unpack_index(index, wanted)
            count += piece.type == unit
            if count > wanted:  # here, or millions of them would be kept first
                name = unit.name.lower()
                raise BitstreamError(f"{name}s: want {wanted}, {piece.where} is one more")
            chunks.append(Chunk(ChunkType(piece.type), payload))
        elif piece.type % 2 == 0:
            raise BitstreamError(f"{piece.where}: type {piece.type} is critical and not known here")

    # The last chunk of a whole file is its last unit: a chunk behind it could be cut unseen.
    if partial and rest is None and 0 < count < wanted:
        rest = b""
        chunks.append(Chunk(unit, rest))
    cut = rest is not None
    if last != unit or (count < wanted and not cut):
        name = unit.name.lower()
        raise BitstreamError(f"{name}s: want {wanted} at the end of the file, got {count}")
    container = Container(header, tuple(chunks), cut)
    units = container._all(unit)
    whole = tuple(map(len, units[:-1] if cut else units))
    agrees = wanted == 1 if lengths is None else wanted > 1 and lengths[: len(whole)] == whole
    if not agrees:
        raise BitstreamError(f"the index does not say where the {unit.name.lower()}s are")
    return container


def peek(stream: bytes) -> Header:
    """The header of a file, of which nothing else is looked at.

    Raises:
        BitstreamError: it is damaged, or the file is not ours.
    """
    first = next(_walk(stream), None)
    if first is None or first.type != ChunkType.HEADER:
        raise BitstreamError("the first chunk is not a header")
    return unpack_header(first.checked())


def scan(stream: bytes, limits: Limits = Limits()) -> Scan:
    """Look at a file without stopping at the first damage.

    A damaged length hides where the next chunk starts; from there on the report is noise, marked as
    not correct. Chunks beyond the number that any file with this header has are left out. Raises
    BitstreamError only if the signature or the version is not ours.
    """
    walk = _walk(stream)
    pieces = list(islice(walk, 1))
    header, most = None, OTHER_TYPES
    if pieces and pieces[0].type == ChunkType.HEADER:
        # A header whose claims are too large is reported, but no tile is listed on its word.
        with suppress(CodecError):
            header = unpack_header(pieces[0].checked())
            _check_size(header, len(stream), limits)
            most += header.tiles if header.kind == Kind.IMAGE else limits.max_frames
    pieces += islice(walk, most)
    error = None
    try:
        unpack(stream, limits)
    except CodecError as problem:
        error = problem
    chunks = tuple(
        ScannedChunk(piece.type, piece.offset, len(piece.payload), piece.crc_ok) for piece in pieces
    )
    return Scan(header, chunks, error)


@final
@dataclass(frozen=True)
class _Piece:
    """A chunk as it stands in the file, right or wrong."""

    number: int
    type: int
    offset: int
    payload: bytes
    crc_ok: bool
    there: bytes | None = None  # what there is of the payload, if the file ends inside the chunk

    @property
    def where(self) -> str:
        return f"chunk {self.number} at offset {self.offset}"

    def checked(self) -> bytes:
        if not self.crc_ok:
            raise BitstreamError(f"{self.where}: damaged or cut")
        return self.payload


def _walk(stream: bytes) -> Iterator[_Piece]:
    """The chunks one after the other; one that is cut short is the last and not correct."""
    if not stream.startswith(SIGNATURE):
        raise BitstreamError("not a stream of this package: the signature is missing")
    reader = Reader(stream)
    reader.take(len(SIGNATURE), "signature")
    version = reader.take(1, "format version")[0]
    if version != VERSION:
        raise BitstreamError(f"format version {version}: this package reads version {VERSION}")
    number = 0
    while reader.left:
        offset, body, length = reader.at, len(stream), 0
        kind = reader.take(1, "type")[0]
        try:
            length = reader.varint("length")
            head, body = stream[offset : reader.at], reader.at
            payload = reader.take(length, "payload")
            checksum = int.from_bytes(reader.take(4, "checksum"), "little")
        except BitstreamError:
            there = stream[body:][:length]
            yield _Piece(number, kind, offset, stream[offset + 1 :], crc_ok=False, there=there)
            return
        crc_ok = checksum == _checksum(number, head, payload)
        yield _Piece(number, kind, offset, payload, crc_ok)
        number += 1


def _checksum(number: int, head: bytes, payload: bytes) -> int:
    """CRC-32 of the version, the chunk's number, its type, length and payload.

    The number makes a chunk that was moved, doubled or left out show, although each chunk can be
    checked alone; the version makes a damaged version show in a reader that knows several.
    """
    return zlib.crc32(payload, zlib.crc32(bytes([VERSION]) + pack_varint(number) + head))


def _check_size(header: Header, size: int, limits: Limits) -> None:
    pixels = header.width * header.height
    if pixels > limits.max_pixels:
        raise LimitError(
            f"{header.width} x {header.height} is {pixels} pixels; "
            f"the limit is {limits.max_pixels} (--max-pixels raises it)"
        )
    if pixels > limits.max_pixels_per_byte * size:
        raise LimitError(
            f"{header.width} x {header.height} pixels in {size} bytes; "
            f"the limit is {limits.max_pixels_per_byte} pixels per byte"
        )
    tile = header.box(0)
    if tile.width * tile.height > limits.max_tile_pixels:
        raise LimitError(
            f"a tile of {tile.width} x {tile.height} pixels; the limit is {limits.max_tile_pixels}"
        )
    if header.tiles > limits.max_tiles:
        raise LimitError(f"{header.tiles} tiles; the limit is {limits.max_tiles}")
    if header.tiles * SMALLEST_CHUNK > size:
        raise BitstreamError(f"{header.tiles} tiles cannot be in {size} bytes")


def _check_frames(container: Container, size: int, limits: Limits) -> None:
    header = container.header
    is_video = header.kind == Kind.VIDEO
    frames = container.video.frames if is_video else container.scene.frames
    if frames > limits.max_frames:
        raise LimitError(f"{frames} frames; the limit is {limits.max_frames}")
    pixels = header.width * header.height * frames
    if pixels > limits.max_pixels_per_byte * size:
        raise LimitError(
            f"{frames} frames of {header.width} x {header.height} pixels in {size} bytes; "
            f"the limit is {limits.max_pixels_per_byte} pixels per byte"
        )
    if not is_video and container.scene.gaussians > limits.max_gaussians:
        raise LimitError(
            f"{container.scene.gaussians} Gaussians; the limit is {limits.max_gaussians}"
        )


def _said(container: Container) -> int:
    """How many tiles, groups or units there must be."""
    if container.header.kind == Kind.IMAGE:
        return container.header.tiles
    if container.header.kind == Kind.VIDEO:
        return len(container.video.groups)
    return container.scene.frames


def _needed(kind: ChunkType, chunks: Iterable[Chunk]) -> bytes:
    payload = next((chunk.payload for chunk in chunks if chunk.type == kind), None)
    if payload is None:
        raise BitstreamError(f"the chunk {kind.name} is missing")
    return payload


def _pack_index(units: Iterable[bytes]) -> bytes:
    return b"".join(pack_varint(len(unit)) for unit in units)


def _unpack_index(payload: bytes, count: int) -> tuple[int, ...]:
    reader = Reader(payload)
    lengths = tuple(reader.varint("length in the index") for _ in range(count))
    reader.finish("index")
    return lengths
