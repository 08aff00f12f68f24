"""What only moving Gaussians say of themselves, and the slices of a frame.

Knows no chunk and no model: a plan and a slice are bytes.

>>> scene = Scene(rate=(30, 1), key_every=30, frames=61, gaussians=5000, plan=b"plan")
>>> unpack_scene(pack_scene(scene)) == scene
True
>>> scene.key_before(59)
30
>>> unit = Unit(frame=31, is_key=False, slices=(b"first", b"second"))
>>> unpack_unit(pack_unit(unit), 31, slices_max=2) == unit
True
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import final

from codec.bitstream.rate import Rate, check_rate, unpack_rate
from codec.bitstream.wire import VARINT_MAX, Reader, pack_varint
from codec.errors import BitstreamError

__all__ = ["Scene", "Unit", "pack_scene", "pack_unit", "unpack_scene", "unpack_unit"]

KEY_EVERY_MAX = 1 << 16
FRAMES_MAX = GAUSSIANS_MAX = 1 << 30


@final
@dataclass(frozen=True, kw_only=True)
class Scene:
    """The SCENE chunk; a value out of range is a BitstreamError.

    Args:
        rate: frames in a second as a fraction in lowest terms, both 1..2**31 - 1.
        key_every: a frame whose number is a multiple of it is a key frame, 1..2**16; others may be.
        frames: how many there are, 1..2**30.
        gaussians: of the frame that has most, 0..2**30.
        plan: what the family says of the whole stream.
    """

    rate: Rate
    key_every: int
    frames: int
    gaussians: int
    plan: bytes

    def __post_init__(self) -> None:
        check_rate(self.rate)
        for name, lowest, highest in (
            ("key_every", 1, KEY_EVERY_MAX),
            ("frames", 1, FRAMES_MAX),
            ("gaussians", 0, GAUSSIANS_MAX),
        ):
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise BitstreamError(f"{name} {value}: want {lowest}..{highest}")

    def key_before(self, frame: int) -> int:
        """The number of the last frame up to `frame` that is certain to be a key frame."""
        return frame - frame % self.key_every


@final
@dataclass(frozen=True)
class Unit:
    """A UNIT chunk: all of a frame.

    Args:
        frame: its number in the scene, from 0.
        is_key: whether it can be decoded without the frame before.
        slices: their payloads, at least one; None for one that is damaged.
    """

    frame: int
    is_key: bool
    slices: tuple[bytes | None, ...]


def pack_scene(scene: Scene) -> bytes:
    """The payload of the SCENE chunk."""
    numbers = (*scene.rate, scene.key_every, scene.frames, scene.gaussians)
    return b"".join(map(pack_varint, numbers)) + scene.plan


def unpack_scene(payload: bytes) -> Scene:
    """The inverse of `pack_scene`; raises BitstreamError."""
    reader = Reader(payload)
    return Scene(
        rate=unpack_rate(reader),
        key_every=reader.varint("key_every", KEY_EVERY_MAX),
        frames=reader.varint("frames", FRAMES_MAX),
        gaussians=reader.varint("gaussians", GAUSSIANS_MAX),
        plan=reader.take(reader.left, "plan"),
    )


def pack_unit(unit: Unit) -> bytes:
    """The payload of a UNIT chunk, of whose slices none is damaged."""
    word = pack_varint(2 * unit.frame + unit.is_key)
    slices = [payload for payload in unit.slices if payload is not None]
    heads = [
        pack_varint(len(payload)) + _checksum(word, number, payload)
        for number, payload in enumerate(slices)
    ]
    return b"".join([word, pack_varint(len(slices)), *heads, *slices])


def unpack_unit(payload: bytes, frame: int, *, slices_max: int) -> Unit:
    """The inverse of `pack_unit`, which also takes a chunk whose own checksum is wrong.

    Args:
        payload: of the chunk.
        frame: the number that it must have.
        slices_max: that are believed.

    Raises:
        BitstreamError: it is of another frame, or does not say where its slices are.
    """
    reader = Reader(payload)
    found = reader.varint("frame and kind", VARINT_MAX)
    if found >> 1 != frame:
        raise BitstreamError(f"unit: want frame {frame}, got {found >> 1}")
    word, count = payload[: reader.at], reader.varint("slices", slices_max)
    if not count:
        raise BitstreamError("unit: want one slice at least, got none")
    heads = [(reader.varint("length of a slice"), reader.take(4, "checksum")) for _ in range(count)]
    slices = [reader.take(length, "slice") for length, _ in heads]
    reader.finish("unit")
    return Unit(
        frame,
        bool(found & 1),
        tuple(
            content if checksum == _checksum(word, number, content) else None
            for number, (content, (_, checksum)) in enumerate(zip(slices, heads, strict=True))
        ),
    )


def _checksum(word: bytes, number: int, content: bytes) -> bytes:
    """Of a slice, its number, and its frame: a slice that stands elsewhere is a damaged one."""
    crc = zlib.crc32(content, zlib.crc32(word + pack_varint(number)))
    return crc.to_bytes(4, "little")
