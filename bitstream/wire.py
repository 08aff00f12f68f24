"""Numbers and sub-streams as bytes, each in one form only. Knows no chunk and no header.

>>> Reader(pack_varint(300)).varint("length", 1 << 20)
300
>>> unpack_streams(pack_streams({"z": b"abc", "y": b"de"}), ("z", "y"))
{'z': b'abc', 'y': b'de'}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from codec.errors import BitstreamError

__all__ = ["VARINT_MAX", "Reader", "pack_streams", "pack_varint", "unpack_streams", "whole_streams"]

VARINT_MAX = (1 << 63) - 1  # nine bytes of seven bits: fits the signed 64 bits of other languages


@final
class Reader:
    """The only way to get bytes out of a buffer: every step is checked before it is taken."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return len(self._data) - self.at

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes; `what` names them in the message of a BitstreamError."""
        if size > self.left:
            raise BitstreamError(
                f"{what}: want {size} bytes at offset {self.at}, {self.left} are left"
            )
        self.at += size
        return self._data[self.at - size : self.at]

    def varint(self, what: str, highest: int = VARINT_MAX) -> int:
        """The next number in [0, highest]: little-endian groups of 7 bits, shortest form only."""
        start, value, shift = self.at, 0, 0
        while True:
            byte = self.take(1, what)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            # Checked in every step, so that a long run of continuation bits ends here.
            if value > highest or shift > 63:
                raise BitstreamError(f"{what}: above {highest} at offset {start}")
            if byte < 0x80:
                break
        if byte == 0 and shift > 7:
            raise BitstreamError(f"{what}: not in its shortest form at offset {start}")
        return value

    def finish(self, what: str) -> None:
        """Refuse what is left over: every byte has a meaning."""
        if self.left:
            raise BitstreamError(f"{what}: {self.left} bytes are left over at offset {self.at}")


def pack_varint(value: int) -> bytes:
    """`value` in [0, VARINT_MAX] as 1 to 9 bytes, the inverse of `Reader.varint`."""
    if not 0 <= value <= VARINT_MAX:
        raise BitstreamError(f"number {value}: want 0..{VARINT_MAX}")
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def pack_streams(streams: Mapping[str, bytes]) -> bytes:
    """The sub-streams of one payload: the lengths of all but the last, then all of them in order.

    Names are not written: the family says which sub-streams there are and in which order.
    """
    parts = list(streams.values())
    return b"".join([*(pack_varint(len(part)) for part in parts[:-1]), *parts])


def whole_streams(payload: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """Those of `unpack_streams` that lie wholly in a payload that is cut; never the last."""
    reader = Reader(payload)
    streams: dict[str, bytes] = {}
    try:
        lengths = [reader.varint(f"length of {name}") for name in names[:-1]]
        for name, length in zip(names, lengths, strict=False):
            streams[name] = reader.take(length, f"sub-stream {name}")
    except BitstreamError:
        return streams
    return streams


def unpack_streams(payload: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """The inverse of `pack_streams`; the last of `names` takes the rest of the payload."""
    reader = Reader(payload)
    lengths = [reader.varint(f"length of {name}") for name in names[:-1]]
    streams = {
        name: reader.take(length, f"sub-stream {name}")
        for name, length in zip(names, lengths, strict=False)
    }
    for name in names[-1:]:
        streams[name] = reader.take(reader.left, f"sub-stream {name}")
    reader.finish("sub-streams")
    return streams
