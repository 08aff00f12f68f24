"""What a header says of what is coded, and the grid of tiles. Knows no chunk and no model.

>>> header = Header(family=1, model_id=bytes(8), width=200, height=100, quality=60, tile=128)
>>> unpack_header(pack_header(header)) == header
True
>>> header.columns, header.rows, header.box(1)
(2, 1, Box(left=128, top=0, width=72, height=100))
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, final

from codec.bitstream.wire import Reader, pack_varint
from codec.errors import BitstreamError

__all__ = ["FIELDS", "Box", "Colour", "Header", "Kind", "pack_header", "unpack_header"]


class Kind(IntEnum):
    """What is coded. Numbers are part of the format."""

    IMAGE = 1
    VIDEO = 2
    SCENE = 3


class Colour(IntEnum):
    """The samples of a pixel, as whoever opens the image expects them. Part of the format."""

    L = 1
    LA = 2
    RGB = 3
    RGBA = 4
    P = 5
    CMYK = 6
    BILEVEL = 7
    YCBCR = 8


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: int
    top: int
    width: int
    height: int


@final
@dataclass(frozen=True)
class _Number:
    """A varint in [lowest, highest], a multiple of `step`; the file holds value / step."""

    lowest: int
    highest: int
    step: int = 1

    def check(self, value: int, what: str) -> None:
        if not self.lowest <= value <= self.highest or value % self.step:
            raise BitstreamError(
                f"{what} {value}: want {self.lowest}..{self.highest} in steps of {self.step}"
            )

    def pack(self, value: int) -> bytes:
        return pack_varint(value // self.step)

    def unpack(self, reader: Reader, what: str) -> int:
        return reader.varint(what, self.highest // self.step) * self.step


@final
@dataclass(frozen=True)
class _Choice:
    """A varint that is a member of `members`."""

    members: type[IntEnum]

    def check(self, value: int, what: str) -> None:
        if value not in list(self.members):
            known = ", ".join(str(int(member)) for member in self.members)
            raise BitstreamError(f"{what} {value}: this package knows {known}")

    def pack(self, value: int) -> bytes:
        return pack_varint(value)

    def unpack(self, reader: Reader, what: str) -> IntEnum:
        value = reader.varint(what)
        self.check(value, what)
        return self.members(value)


@final
@dataclass(frozen=True)
class _Bytes:
    """Exactly `size` bytes."""

    size: int

    def check(self, value: bytes, what: str) -> None:
        if len(value) != self.size:
            raise BitstreamError(f"{what}: want {self.size} bytes, got {len(value)}")

    def pack(self, value: bytes) -> bytes:
        return value

    def unpack(self, reader: Reader, what: str) -> bytes:
        return reader.take(self.size, what)


# The header's layout, stated once: `Header`, `pack_header` and `unpack_header` all walk it.
FIELDS: tuple[tuple[str, _Number | _Choice | _Bytes], ...] = (
    ("family", _Number(1, (1 << 14) - 1)),
    ("model_id", _Bytes(8)),
    ("kind", _Choice(Kind)),
    ("width", _Number(0, 1 << 30)),
    ("height", _Number(0, 1 << 30)),
    ("bit_depth", _Number(1, 16)),
    ("colour", _Choice(Colour)),
    ("quality", _Number(0, 100)),
    ("tile", _Number(0, 1 << 16, step=64)),
)


@final
@dataclass(frozen=True, kw_only=True)
class Header:
    """What a decoder must know before it reads a payload; a value out of range is a BitstreamError.

    Args:
        family: the literal number of the family in the registry, 1..16383.
        model_id: the first 8 bytes of the SHA-256 of the weight file.
        kind: what is coded.
        width: pixels, 1..2**30; 0 of a scene, which has none.
        height: as `width`.
        bit_depth: bits per sample of the original, 1..16.
        colour: the samples of a pixel.
        quality: the rate point, 0..100.
        tile: side of a tile in pixels, a multiple of 64 up to 65536 and less than the longer side
            of the image, or 0: the image is one tile.
    """

    family: int
    model_id: bytes
    kind: Kind = Kind.IMAGE
    width: int
    height: int
    bit_depth: int = 8
    colour: Colour = Colour.RGB
    quality: int
    tile: int = 0

    def __post_init__(self) -> None:
        for name, field in FIELDS:
            field.check(getattr(self, name), name)
        is_scene = self.kind == Kind.SCENE
        if (self.width > 0, self.height > 0) != (not is_scene, not is_scene):
            raise BitstreamError(
                f"width {self.width}, height {self.height}: want 0 of a scene, else 1 at least"
            )
        # One form for every image: what is one tile anyway is written as 0.
        if self.tile and self.tile >= max(self.width, self.height):
            raise BitstreamError(
                f"tile {self.tile}: want less than the longer side of "
                f"{self.width} x {self.height}, or 0"
            )
        if self.kind == Kind.VIDEO and self.tile:
            raise BitstreamError(f"tile {self.tile}: frames of a video have none")

    @property
    def columns(self) -> int:
        """Tiles in a row, at least 1."""
        return -(-self.width // self.tile) if self.tile else 1

    @property
    def rows(self) -> int:
        """Rows of tiles, at least 1."""
        return -(-self.height // self.tile) if self.tile else 1

    @property
    def tiles(self) -> int:
        """How many tiles there are, at least 1."""
        return self.columns * self.rows

    def box(self, number: int) -> Box:
        """Where tile `number` of the raster order lies; those at the right and bottom are cut."""
        row, column = divmod(number, self.columns)
        left, top = column * self.tile, row * self.tile
        side = self.tile or max(self.width, self.height)
        return Box(left, top, min(side, self.width - left), min(side, self.height - top))


def pack_header(header: Header) -> bytes:
    """The payload of the header chunk."""
    values: list[tuple[Any, Any]] = [(field, getattr(header, name)) for name, field in FIELDS]
    return b"".join(field.pack(value) for field, value in values)


def unpack_header(payload: bytes) -> Header:
    """The inverse of `pack_header`; raises BitstreamError."""
    reader = Reader(payload)
    values: dict[str, Any] = {name: field.unpack(reader, name) for name, field in FIELDS}
    reader.finish("header")
    return Header(**values)
