"""SPZ files of Gaussians: bytes to a value and back, versions 1 to 4. Knows no codec.

A file of versions 1 to 3 is one gzip stream: 16 bytes of header, then positions, opacities,
colours, scales, rotations and higher harmonics, each of all Gaussians. Version 4 has 32 bytes of
header, a table of sizes, and a zstd stream for each of the same six. Its axes are right, up, back;
those of `Gaussians` are right, down, forward: y and z change their signs.
"""

from __future__ import annotations

import io
import logging
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.errors import InputError, LimitError, ModelError, UsageError
from codec.gaussians import COEFFICIENTS, Gaussians
from codec.io.ply import checked

__all__ = ["logits_of", "pack_spz", "parse_spz"]

logger = logging.getLogger(__name__)

Bytes8 = NDArray[np.uint8]

MAGIC = b"NGSP"
HEADER, HEADER_4, ENTRY = struct.Struct("<4sIIBBBB"), 32, struct.Struct("<QQ")
EXTENDED = 2  # the flag of a file that holds more than Gaussians
FRACTION = 12  # bits of a position below 1, unless the scene is too wide
COLOUR = 0.15
PIECE = 1 << 20  # bytes that are unpacked at once
HALF_ROOT = math.sqrt(0.5)
# Levels of 8 bits that become one when a harmonic of degree 1 and above is written.
COARSE = np.array([8] * 3 + [16] * 12)
# Of each harmonic, whether the sign changes when y and z do.
FLIPS = np.array([1, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1], np.float32)
AXES = np.array([1, -1, -1], np.float32)


def parse_spz(data: bytes, *, max_gaussians: int) -> Gaussians:
    """The Gaussians of a file's bytes.

    Raises:
        InputError: it is no SPZ file of versions 1 to 4 and degree 0 to 3, or a damaged one.
        LimitError: there are more than `max_gaussians`.
        ModelError: version 4, and `zstandard` is not installed.
    """
    plain = data.startswith(MAGIC)
    unpacker = zlib.decompressobj(31)
    head = data[: HEADER.size] if plain else _gunzip(unpacker, data, HEADER.size)
    if len(head) < HEADER.size or not head.startswith(MAGIC):
        raise InputError("SPZ: no header of SPZ")
    _, version, count, degree, fraction, flags, streams = HEADER.unpack(head)
    if version not in ((4,) if plain else (1, 2, 3)):
        raise InputError(f"SPZ: version {version}; this package reads versions 1 to 4")
    if degree >= len(COEFFICIENTS):
        raise InputError(f"SPZ: want harmonics of degree 0 to 3, got {degree}")
    if fraction > 23:
        raise InputError(f"SPZ: want at most 23 bits below 1, got {fraction}")
    if count > max_gaussians:
        raise LimitError(f"{count} Gaussians are more than {max_gaussians}")
    if flags & EXTENDED:
        logger.warning("SPZ: what the file holds besides Gaussians is passed over")
    sizes = _sizes(version, count, degree)
    if plain:
        parts = _streams(data, streams, sizes)
    else:
        body = _gunzip(unpacker, unpacker.unconsumed_tail, sum(sizes) + 1)
        whole = len(body) == sum(sizes) and unpacker.eof and not unpacker.unused_data
        if len(body) < sum(sizes) or not (whole or flags & EXTENDED):
            raise InputError(f"SPZ: want {sum(sizes)} bytes of {count} Gaussians, got {len(body)}")
        ends = np.cumsum(sizes)
        parts = [body[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    levels = [np.frombuffer(part, np.uint8) for part in parts]
    return _unpack(levels, version, count, degree, fraction)


def pack_spz(gaussians: Gaussians, *, version: int = 4) -> bytes:
    """A file's bytes, of version 3 or 4.

    Raises:
        UsageError: another version, or the scene is wider than 24 bits can say.
        ModelError: version 4, and `zstandard` is not installed.
    """
    if version not in (3, 4):
        raise UsageError(f"SPZ: want version 3 or 4 to write, got {version}")
    count = len(gaussians)
    reach = float(np.abs(gaussians.means).max(initial=0))
    fraction = min(FRACTION, 22 - math.frexp(reach)[1])
    if fraction < 0:
        raise UsageError(f"SPZ: positions up to {reach:g} are too far out for 24 bits")
    parts = _pack(gaussians, fraction)
    numbers = (MAGIC, version, count, gaussians.degree, fraction, 0)
    if version == 3:
        whole = HEADER.pack(*numbers, 0) + b"".join(parts)
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return packer.compress(whole) + packer.flush()
    squeeze = _zstandard().ZstdCompressor(level=12)
    parts = [part for part in parts if part]  # what is empty has no stream
    packed = [squeeze.compress(part) for part in parts]
    return b"".join(
        [
            HEADER.pack(*numbers, len(parts)),
            struct.pack("<I12x", HEADER_4),
            *(ENTRY.pack(len(b), len(a)) for a, b in zip(parts, packed, strict=True)),
            *packed,
        ]
    )


def logits_of(levels: Bytes8) -> NDArray[np.float32]:
    """Logits of opacities of 8 bits; 0 and 255, which have none, count as a quarter level less."""
    alpha = np.clip(levels.astype(np.float64), 0.25, 254.75) / 255
    return np.log(alpha / (1 - alpha)).astype(np.float32)


# ---- bytes


def _sizes(version: int, count: int, degree: int) -> list[int]:
    """Bytes of positions, opacities, colours, scales, rotations and, if any, harmonics."""
    each = [6 if version == 1 else 9, 1, 3, 3, 3 if version < 3 else 4]
    each += [3 * (COEFFICIENTS[degree] - 1)] if degree else []
    return [count * size for size in each]


def _gunzip(unpacker: Any, data: bytes, size: int) -> bytes:
    """At most `size` bytes more."""
    try:
        return bytes(unpacker.decompress(data, size))
    except zlib.error as error:
        raise InputError(f"SPZ: {error}") from error


def _streams(data: bytes, count: int, sizes: list[int]) -> list[bytes]:
    """The unpacked streams of a file of version 4."""
    if len(data) < HEADER_4:
        raise InputError(f"SPZ: want {HEADER_4} bytes of header, got {len(data)}")
    empty = sizes.count(0)  # all or none: what is empty has no stream
    sizes = [size for size in sizes if size]
    (start,) = struct.unpack_from("<I", data, HEADER.size)
    if count != len(sizes) or not HEADER_4 <= start <= len(data) - count * ENTRY.size:
        raise InputError(f"SPZ: want {len(sizes)} streams, got {count} with a table at {start}")
    zstd = _zstandard()
    at, parts = start + count * ENTRY.size, []
    for index, size in enumerate(sizes):
        packed, stated = ENTRY.unpack_from(data, start + index * ENTRY.size)
        if stated != size or packed > len(data) - at:
            raise InputError(f"SPZ: stream {index}: want {size} bytes of {len(data) - at}")
        source = io.BytesIO(data[at : at + packed])
        pieces, left = [], size + 1  # one more, to see that it ends
        try:
            with zstd.ZstdDecompressor().stream_reader(source) as reader:
                while left and (piece := reader.read(min(left, PIECE))):
                    pieces.append(piece)
                    left -= len(piece)
        except zstd.ZstdError as error:
            raise InputError(f"SPZ: stream {index}: {error}") from error
        if left != 1:
            raise InputError(f"SPZ: stream {index}: want {size} bytes, got {size + 1 - left}")
        parts.append(b"".join(pieces))
        at += packed
    if at != len(data):
        raise InputError(f"SPZ: {len(data) - at} bytes after the last stream")
    return parts + [b""] * empty


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ModelError("SPZ of version 4 needs zstandard: pip install codec[scenes]") from error
    return zstandard


# ---- levels


def _unpack(parts: list[Bytes8], version: int, count: int, degree: int, fraction: int) -> Gaussians:
    positions, alphas, colours, scales, rotations, *more = parts
    if version == 1:
        means = positions.view("<f2").astype(np.float32).reshape(count, 3)
    else:
        wide = np.zeros((3 * count, 4), np.uint8)
        wide[:, 1:] = positions.reshape(-1, 3)
        fixed = wide.view("<i4").reshape(count, 3) >> 8
        means = (fixed / (1 << fraction)).astype(np.float32)
    quats = _old_rotations(rotations) if version < 3 else _rotations(rotations)
    sh = ((colours.reshape(count, 1, 3) / 255 - 0.5) / COLOUR).astype(np.float32)
    if more:
        higher = (
            more[0].reshape(count, COEFFICIENTS[degree] - 1, 3).astype(np.float32) - 128
        ) / 128
        sh = np.concatenate([sh, higher], 1)
    return checked(
        means=means * AXES,
        quats=quats * np.concatenate([[1], AXES]).astype(np.float32),
        scales=(scales.reshape(count, 3) / 16 - 10).astype(np.float32),
        opacities=logits_of(alphas),
        sh=sh * FLIPS[: sh.shape[1], None],
    )


def _old_rotations(levels: Bytes8) -> NDArray[np.float32]:
    """`(N, 4)` w, x, y, z of versions 1 and 2: w is what is missing to a length of 1."""
    xyz = levels.reshape(-1, 3) / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(1, keepdims=True)))
    return np.concatenate([w, xyz], 1).astype(np.float32)


def _rotations(levels: Bytes8) -> NDArray[np.float32]:
    """`(N, 4)` w, x, y, z: two bits say which is greatest, ten each what the three others are."""
    words = np.ascontiguousarray(levels).view("<u4").astype(np.int64)
    largest = words >> 30
    xyzw = np.zeros((len(words), 4))
    for axis in (3, 2, 1, 0):
        here = largest != axis
        value = HALF_ROOT * (words & 511) / 511
        xyzw[here, axis] = np.where(words & 512, -value, value)[here]
        words = np.where(here, words >> 10, words)
    rest = np.sqrt(np.maximum(0, 1 - (xyzw**2).sum(1)))
    xyzw[np.arange(len(words)), largest] = rest
    return np.roll(xyzw, 1, 1).astype(np.float32)


def _pack(gaussians: Gaussians, fraction: int) -> list[bytes]:
    fixed = np.rint((gaussians.means * AXES).astype(np.float64) * (1 << fraction)).astype("<i4")
    colours = _levels(255 * (0.5 + COLOUR * gaussians.sh[:, 0].astype(np.float64)))
    parts: list[NDArray[Any]] = [
        fixed.reshape(-1, 1).view(np.uint8)[:, :3],
        _levels(255 / (1 + np.exp(-gaussians.opacities.astype(np.float64)))),
        colours,
        _levels(16 * (gaussians.scales.astype(np.float64) + 10)),
        _packed_rotations(gaussians.quats),
    ]
    if gaussians.degree:
        higher = (gaussians.sh * FLIPS[: gaussians.sh.shape[1], None])[:, 1:].astype(np.float64)
        coarse = COARSE[: higher.shape[1], None]
        parts.append(_levels(np.rint((128 * higher + 128) / coarse) * coarse))
    return [part.tobytes() for part in parts]


def _levels(values: NDArray[np.float64]) -> Bytes8:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _packed_rotations(quats: NDArray[np.float32]) -> NDArray[np.uint32]:
    wxyz = quats.astype(np.float64) * np.concatenate([[1], AXES])
    xyzw = np.roll(wxyz, -1, 1) / np.linalg.norm(wxyz, axis=1, keepdims=True)
    largest = np.abs(xyzw).argmax(1)
    sign = np.take_along_axis(xyzw, largest[:, None], 1)
    xyzw = np.where(sign < 0, -xyzw, xyzw)
    words = largest.astype(np.int64)
    for axis in range(4):
        size = np.minimum(511, np.rint(511 * np.abs(xyzw[:, axis]) / HALF_ROOT)).astype(np.int64)
        word = words << 10 | (xyzw[:, axis] < 0).astype(np.int64) << 9 | size
        words = np.where(largest != axis, word, words)
    packed: NDArray[np.uint32] = words.astype("<u4")
    return packed
