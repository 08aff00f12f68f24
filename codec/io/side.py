"""What stands beside a picture's colour, as chunks of the container, and back. Knows no model.

ALPHA    a byte of 0, then the one value of all samples, big-endian; or a byte of 1, then a PNG file
         of mode L or, of 16 bits, I;16 with the size of the image
PALETTE  of mode P: a byte, 3 or 4, then entries of so many bytes, RGB or RGBA, at most 256;
         3 with an ALPHA chunk is Pillow's mode PA; of other modes: the transparent colour, a
         sample per channel, big-endian
TEXT     keys and values in UTF-8, each ended by a zero byte
ICC, EXIF, XMP   as they stand in image files; EXIF starts with its TIFF header
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.bitstream import Chunk, ChunkType, Colour, Container, Header
from codec.errors import BitstreamError
from codec.io.metadata import Metadata, join_texts, split_texts
from codec.io.picture import KEYED, Picture, Samples
from codec.io.pillow import quiet_pillow

__all__ = ["COLOURS", "Side", "read_side", "side_chunks"]

COLOURS = {
    "1": Colour.BILEVEL,
    "L": Colour.L,
    "LA": Colour.LA,
    "RGB": Colour.RGB,
    "RGBA": Colour.RGBA,
    "P": Colour.P,
    "PA": Colour.P,
    "CMYK": Colour.CMYK,
    "YCbCr": Colour.YCBCR,
}
"""The header's colour for each mode of a picture."""
MODES = {colour: mode for mode, colour in COLOURS.items() if mode != "PA"}
CHANNELS = {"1": 1, "L": 1, "LA": 1}  # all others have three
ONE_VALUE, PNG_FILE = b"\0", b"\1"


@dataclass(frozen=True)
class Side:
    """All of a picture but its colour; `Picture` says what each part is."""

    mode: str
    bit_depth: int
    alpha: Samples | None
    palette: NDArray[np.uint8] | None
    key: tuple[int, ...] | None
    metadata: Metadata

    @property
    def channels(self) -> int:
        """Channels of the colour that belongs to it: 1 or 3."""
        return CHANNELS.get(self.mode, 3)

    def picture(self, colour: Samples) -> Picture:
        """The whole picture; `colour` is `(H, W, channels)` of `bit_depth` bits."""
        return Picture(self.mode, colour, self.alpha, self.palette, self.key, self.metadata)


def side_chunks(picture: Picture) -> list[Chunk]:
    """The chunks that keep what the model does not see."""
    metadata = picture.metadata
    chunks = [
        Chunk(ChunkType.ICC, metadata.icc),
        Chunk(ChunkType.EXIF, metadata.exif),
        Chunk(ChunkType.XMP, metadata.xmp),
        Chunk(ChunkType.TEXT, join_texts(metadata.texts)),
    ]
    if picture.alpha is not None:
        chunks.append(Chunk(ChunkType.ALPHA, _pack_alpha(picture.alpha)))
    if picture.palette is not None:
        entries = picture.palette
        chunks.append(Chunk(ChunkType.PALETTE, bytes([entries.shape[1]]) + entries.tobytes()))
    elif picture.key is not None:
        chunks.append(Chunk(ChunkType.PALETTE, _pack_samples(picture.key, picture.bit_depth)))
    return [chunk for chunk in chunks if chunk.payload]


def read_side(container: Container) -> Side:
    """The inverse of `side_chunks`.

    Raises:
        BitstreamError: a chunk does not fit the header, or is missing.
    """
    header = container.header
    mode = MODES[header.colour]
    if header.bit_depth != 8 and (header.bit_depth != 16 or mode not in ("L", "LA", "RGB", "RGBA")):
        raise BitstreamError(f"{header.bit_depth} bits of {header.colour.name}: not supported")
    packed_alpha = container.find(ChunkType.ALPHA)
    packed_palette = container.find(ChunkType.PALETTE)
    palette, key = None, None
    if mode == "P":
        palette = _unpack_palette(packed_palette or b"")
        if packed_alpha is not None and palette.shape[1] == 3:
            mode = "PA"
    elif packed_palette is not None:
        if mode not in KEYED:
            raise BitstreamError(f"palette chunk: none goes with mode {mode}")
        key = _unpack_samples(packed_palette, CHANNELS.get(mode, 3), header.bit_depth)
    wants_alpha = mode in ("LA", "RGBA", "PA") or key is not None
    wants_alpha |= palette is not None and palette.shape[1] == 4
    if wants_alpha != (packed_alpha is not None):
        raise BitstreamError(f"alpha chunk: want {int(wants_alpha)} of them for mode {mode}")
    return Side(
        mode=mode,
        bit_depth=header.bit_depth,
        alpha=None if packed_alpha is None else _unpack_alpha(packed_alpha, header),
        palette=palette,
        key=key,
        metadata=Metadata(
            icc=container.find(ChunkType.ICC) or b"",
            exif=container.find(ChunkType.EXIF) or b"",
            xmp=container.find(ChunkType.XMP) or b"",
            texts=split_texts(container.find(ChunkType.TEXT) or b""),
        ),
    )


def _pack_samples(values: tuple[int, ...], bit_depth: int) -> bytes:
    return b"".join(value.to_bytes(bit_depth // 8, "big") for value in values)


def _unpack_samples(payload: bytes, count: int, bit_depth: int) -> tuple[int, ...]:
    size = bit_depth // 8
    if len(payload) != count * size:
        raise BitstreamError(f"samples: want {count} of {size} bytes, got {len(payload)} bytes")
    starts = range(0, len(payload), size)
    return tuple(int.from_bytes(payload[at : at + size], "big") for at in starts)


def _unpack_palette(payload: bytes) -> NDArray[np.uint8]:
    size = payload[0] if payload else 0
    entries = payload[1:]
    if size not in (3, 4) or len(entries) % size or not size <= len(entries) <= 256 * size:
        raise BitstreamError("palette: want 1 to 256 entries of 3 or 4 bytes")
    return np.frombuffer(entries, np.uint8).reshape(-1, size)


def _pack_alpha(alpha: Samples) -> bytes:
    first = int(alpha[0, 0])
    if (alpha == first).all():
        return ONE_VALUE + _pack_samples((first,), 8 * alpha.itemsize)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(alpha)).save(file, "PNG", compress_level=9)
    return PNG_FILE + file.getvalue()


def _unpack_alpha(payload: bytes, header: Header) -> Samples:
    dtype = np.uint8 if header.bit_depth == 8 else np.uint16
    size = (header.width, header.height)
    method, body = payload[:1], payload[1:]
    if method == ONE_VALUE:
        (value,) = _unpack_samples(body, 1, header.bit_depth)
        # A view of one sample: an opaque plane of any size costs nothing.
        return np.broadcast_to(np.array(value, dtype), (header.height, header.width))
    if method != PNG_FILE:
        raise BitstreamError(f"alpha: method {method.hex()} is not known")
    try:
        with quiet_pillow(), Image.open(io.BytesIO(body), formats=["PNG"]) as image:
            fits = image.size == size and image.mode == ("L" if header.bit_depth == 8 else "I;16")
            if fits:  # only then is it loaded: its size is within the limits
                return np.asarray(image).astype(dtype)
    except Exception as error:  # whatever Pillow's parsing runs into: the payload is no PNG file
        raise BitstreamError(f"alpha: {error}") from error
    raise BitstreamError(f"alpha: want a plane of {size[0]}x{size[1]} and {header.bit_depth} bits")
