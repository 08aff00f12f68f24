"""Colour of 16 bits, which Pillow cuts to 8: read by FFmpeg, written as PNG. Knows no model."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from codec.errors import InputError

__all__ = ["PNG_SIGNATURE", "read_deep", "write_png"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LAYOUTS = {  # FFmpeg's name of a pixel format: its channels and numpy's name of a sample
    "rgb48be": (3, ">u2"),
    "rgb48le": (3, "<u2"),
    "rgba64be": (4, ">u2"),
    "rgba64le": (4, "<u2"),
    "ya16be": (2, ">u2"),
    "ya16le": (2, "<u2"),
}
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's number for each number of channels


def read_deep(data: bytes, name: str, width: int, height: int) -> NDArray[np.uint16]:
    """`(H, W, C)` samples, C of 2 to 4, of a file in format `name`: `png` or `tiff`.

    Raises:
        InputError: FFmpeg cannot follow it, or finds another size or kind of pixel.
    """
    try:
        decoder: Any = av.CodecContext.create(name, "r")
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except (FFmpegError, ValueError) as error:
        raise InputError(f"16-bit {name}: {error}") from error
    if len(frames) != 1 or (frames[0].width, frames[0].height) != (width, height):
        raise InputError(f"16-bit {name}: want one frame of {width}x{height}")
    layout = LAYOUTS.get(frames[0].format.name)
    if layout is None:
        raise InputError(f"16-bit {name}: pixels of {frames[0].format.name} are not supported")
    channels, dtype = layout
    plane = frames[0].planes[0]
    rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // 2)[:height]
    return rows[:, : width * channels].reshape(height, width, channels).astype(np.uint16)


def write_png(
    samples: NDArray[np.uint16], ancillary: list[tuple[bytes, bytes]], level: int = 6
) -> bytes:
    """A PNG file of 16 bits.

    Args:
        samples: `(H, W, C)`, C of 1 to 4: grey, grey and alpha, RGB, RGBA.
        ancillary: type and content of the chunks between header and pixels.
        level: zlib's effort, 0 to 9.
    """
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    squeeze = zlib.compressobj(level)
    pixels = b"".join(squeeze.compress(line) for line in _filtered(samples)) + squeeze.flush()
    chunks = [(b"IHDR", header), *ancillary, (b"IDAT", pixels), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _filtered(samples: NDArray[np.uint16]) -> Iterator[bytes]:
    """Each row: the filter's number, then bytes minus Paeth's prediction (PNG, section 9.4)."""
    height, width, channels = samples.shape
    step = 2 * channels
    lines = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    above = np.zeros(width * step + step, np.int16)
    for line in lines:
        here = np.concatenate([np.zeros(step, np.int16), line.astype(np.int16)])
        a, b, c = here[:-step], above[step:], above[:-step]
        to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        guess = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
        yield b"\4" + (line - guess.astype(np.uint8)).tobytes()
        above = here
